"""The layers, with Keras's names, arguments and defaults."""

from .attention import GroupQueryAttention, MultiHeadAttention
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
from .dot import Dot
from .einsum import EinsumDense
from .layer_normalization import GroupNormalization, LayerNormalization, Normalization, UnitNormalization
from .merge import Add, Average, Concatenate, Maximum, Minimum, Multiply, Subtract
from .noise import ActivityRegularization, Identity, SpatialDropout1D, SpatialDropout2D
from .normalization import BatchNormalization
from .pooling import AveragePooling2D, GlobalAveragePooling2D, GlobalMaxPooling2D, MaxPooling2D
from .resampling import CenterCrop, RepeatVector, UpSampling2D
from .scaling import CustomScaleLayer, LayerScale, StochasticDepth
from .score_attention import AdditiveAttention, Attention
from .separable import DepthwiseConv2D, SeparableConv2D
from .spatial import Cropping2D, ZeroPadding2D
from .transposed import Conv2DTranspose

__all__ = [
    "DECLARATIONS",
    "ELU",
    "Activation",
    "ActivityRegularization",
    "Add",
    "AdditiveAttention",
    "Attention",
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
    "Dot",
    "Dropout",
    "EinsumDense",
    "Flatten",
    "GlobalAveragePooling2D",
    "GlobalMaxPooling2D",
    "GroupNormalization",
    "GroupQueryAttention",
    "Identity",
    "InputLayer",
    "Layer",
    "LayerNormalization",
    "LayerScale",
    "LeakyReLU",
    "MaxPooling2D",
    "Maximum",
    "Minimum",
    "MultiHeadAttention",
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
