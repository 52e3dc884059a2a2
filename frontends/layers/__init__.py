"""The layers, with Keras's names, arguments and defaults."""

from .base import DECLARATIONS, Layer, Weight
from .conv import Conv2D
from .core import (
    ELU,
    Activation,
    Dense,
    Dropout,
    Flatten,
    InputLayer,
    LeakyReLU,
    Permute,
    ReLU,
    Rescaling,
    Reshape,
    Softmax,
)
from .merge import Add, Concatenate, Multiply, Subtract
from .normalization import BatchNormalization
from .pooling import AveragePooling2D, GlobalAveragePooling2D, GlobalMaxPooling2D, MaxPooling2D
from .spatial import Cropping2D, ZeroPadding2D

__all__ = [
    "DECLARATIONS", "ELU", "Activation", "Add", "AveragePooling2D", "BatchNormalization", "Concatenate",
    "Conv2D", "Cropping2D", "Dense", "Dropout", "Flatten", "GlobalAveragePooling2D", "GlobalMaxPooling2D",
    "InputLayer", "Layer", "LeakyReLU", "MaxPooling2D", "Multiply", "Permute", "ReLU", "Rescaling", "Reshape",
    "Softmax", "Subtract", "Weight", "ZeroPadding2D",
]  # fmt: skip
