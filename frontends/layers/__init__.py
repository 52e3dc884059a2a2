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
    PReLU,
    ReLU,
    Rescaling,
    Reshape,
    Softmax,
)
from .layer_normalization import GroupNormalization, LayerNormalization, Normalization, UnitNormalization
from .masking import Masking
from .merge import Add, Average, Concatenate, Maximum, Minimum, Multiply, Subtract
from .noise import ActivityRegularization, Identity, SpatialDropout1D, SpatialDropout2D
from .normalization import BatchNormalization
from .pooling import AveragePooling2D, GlobalAveragePooling2D, GlobalMaxPooling2D, MaxPooling2D
from .resampling import CenterCrop, RepeatVector, UpSampling2D
from .scaling import CustomScaleLayer, LayerScale, StochasticDepth
from .separable import DepthwiseConv2D, SeparableConv2D
from .spatial import Cropping2D, ZeroPadding2D
from .transposed import Conv2DTranspose

__all__ = [
    "DECLARATIONS",
    "ELU",
    "Activation",
    "ActivityRegularization",
    "Add",
    "Average",
    "AveragePooling2D",
    "BatchNormalization",
    "CenterCrop",
    "Concatenate",
    "Conv2D",
    "Conv2DTranspose",
    "Cropping2D",
    "CustomScaleLayer",
    "Dense",
    "DepthwiseConv2D",
    "Dropout",
    "Flatten",
    "GlobalAveragePooling2D",
    "GlobalMaxPooling2D",
    "GroupNormalization",
    "Identity",
    "InputLayer",
    "Layer",
    "LayerNormalization",
    "LayerScale",
    "LeakyReLU",
    "Masking",
    "MaxPooling2D",
    "Maximum",
    "Minimum",
    "Multiply",
    "Normalization",
    "PReLU",
    "Permute",
    "ReLU",
    "RepeatVector",
    "Rescaling",
    "Reshape",
    "SeparableConv2D",
    "Softmax",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "StochasticDepth",
    "Subtract",
    "UnitNormalization",
    "UpSampling2D",
    "Weight",
    "ZeroPadding2D",
]
