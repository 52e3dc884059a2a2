"""The intermediate representation: typed operations on a directed acyclic graph, and the passes over it."""
