"""Saved Keras models. Files are data from strangers: nothing in them is imported, evaluated or executed."""

from .files import load, loads
from .limits import Limits

__all__ = ["Limits", "load", "loads"]
