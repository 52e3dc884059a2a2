"""The ways into ConvLoom: layers and models described in Python, and saved Keras models."""

from . import constraints, layers, names, regularizers
from .keras import Limits, load, loads
from .model import Input, Model
from .sequential import Sequential
from .symbolic import SymbolicTensor

__all__ = [
    "Input",
    "Limits",
    "Model",
    "Sequential",
    "SymbolicTensor",
    "constraints",
    "layers",
    "load",
    "loads",
    "names",
    "regularizers",
]
