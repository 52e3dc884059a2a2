"""Saved Keras models. Files are data from strangers: nothing in them is imported, evaluated or executed."""

from .files import load, loads

__all__ = ["load", "loads"]
