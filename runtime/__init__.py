"""The runtime: compile, executors, autograd, fit and profile."""
