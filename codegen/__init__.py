"""Regions of the graph become readable Triton source, schedules and resource reports."""
