"""ConvLoom compiles convolutional networks to readable, fused Triton kernels."""

from .frontends import Input, Model, Sequential, layers, load, loads
from .graph.errors import (
    CompileError,
    ConvLoomError,
    ModelFormatError,
    ShapeError,
    UnsafeModelError,
    UnsupportedLayerError,
)
from .runtime.callbacks import Callback, EarlyStopping
from .runtime.compile import compile
from .runtime.emit import emit
from .runtime.fit import History, fit
from .runtime.network import CompiledNetwork
from .runtime.profile import profile

__version__ = "0.1.0"

__all__ = [
    "Callback",
    "CompileError",
    "CompiledNetwork",
    "ConvLoomError",
    "EarlyStopping",
    "History",
    "Input",
    "Model",
    "ModelFormatError",
    "Sequential",
    "ShapeError",
    "UnsafeModelError",
    "UnsupportedLayerError",
    "compile",
    "emit",
    "fit",
    "layers",
    "load",
    "loads",
    "profile",
]
