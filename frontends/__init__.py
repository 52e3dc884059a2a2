"""The ways into ConvLoom: layers and models described in Python, and saved Keras models."""

from . import constraints, initializers, layers, names, ops, regularizers
from .keras import Limits, load, loads
from .layers import Input
from .model import Model
from .sequential import Sequential
from .symbolic import SymbolicTensor

__all__ = [
    "Input",
    "Limits",
    "Model",
    "Sequential",
    "SymbolicTensor",
    "constraints",
    "initializers",
    "layers",
    "load",
    "loads",
    "names",
    "ops",
    "regularizers",
]
