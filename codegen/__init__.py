"""Regions of the graph become readable Triton source, schedules and resource reports."""

from .dispatch import emit
from .errors import NotEmittable
from .kernel import Kernel
from .schedules import Schedule

__all__ = ["Kernel", "NotEmittable", "Schedule", "emit"]
