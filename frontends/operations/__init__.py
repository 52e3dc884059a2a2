"""Keras's operations on tensors: what `x + y`, `x[:, 1:]` and `keras.ops.mean(x)` are in a network.

An operation is a layer without weights whose calls mix tensors and constants. Files have it as a node of the
module keras.src.ops; arithmetic on symbolic tensors makes it too.
"""

from . import arithmetic, core, image, logic, network, shape
from .base import OPERATIONS, Operation

__all__ = ["OPERATIONS", "Operation", "arithmetic", "core", "image", "logic", "network", "shape"]
