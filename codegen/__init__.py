"""Regions of the graph become readable Triton source, schedules and resource reports."""

from ..planning.forms import NotEmittable
from ..planning.schedules import Schedule
from .dispatch import emit
from .kernel import Kernel
from .programs import kernels

__all__ = ["Kernel", "NotEmittable", "Schedule", "emit", "kernels"]
