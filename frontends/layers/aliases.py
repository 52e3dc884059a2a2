"""Keras's other names of layers, and what is said of names that are no layer here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ...graph.errors import UnsupportedLayerError, nearest
from .attention import GroupQueryAttention
from .base import Layer
from .conv import Conv1D, Conv2D, Conv3D
from .dot import Dot
from .merge import Add, Average, Concatenate, Maximum, Minimum, Multiply, Subtract
from .pooling import (
    AveragePooling1D,
    AveragePooling2D,
    AveragePooling3D,
    GlobalAveragePooling1D,
    GlobalAveragePooling2D,
    GlobalAveragePooling3D,
    GlobalMaxPooling1D,
    GlobalMaxPooling2D,
    GlobalMaxPooling3D,
    MaxPooling1D,
    MaxPooling2D,
    MaxPooling3D,
)
from .separable import SeparableConv1D, SeparableConv2D
from .transposed import Conv1DTranspose, Conv2DTranspose, Conv3DTranspose

# -- the same classes under shorter and older names ----------------------------------------------------------
AvgPool1D, AvgPool2D, AvgPool3D = AveragePooling1D, AveragePooling2D, AveragePooling3D
MaxPool1D, MaxPool2D, MaxPool3D = MaxPooling1D, MaxPooling2D, MaxPooling3D
GlobalAvgPool1D, GlobalMaxPool1D = GlobalAveragePooling1D, GlobalMaxPooling1D
GlobalAvgPool2D, GlobalMaxPool2D = GlobalAveragePooling2D, GlobalMaxPooling2D
GlobalAvgPool3D, GlobalMaxPool3D = GlobalAveragePooling3D, GlobalMaxPooling3D
Convolution1D, Convolution2D, Convolution3D = Conv1D, Conv2D, Conv3D
Convolution1DTranspose, Convolution2DTranspose = Conv1DTranspose, Conv2DTranspose
Convolution3DTranspose = Conv3DTranspose
SeparableConvolution1D, SeparableConvolution2D = SeparableConv1D, SeparableConv2D
GroupedQueryAttention = GroupQueryAttention

ALIASES = {
    name: value.__name__
    for name, value in dict(globals()).items()
    if isinstance(value, type) and issubclass(value, Layer) and name != value.__name__
}
"""Other name -> the class's own."""


# -- layers called at once -----------------------------------------------------------------------------------
def add(inputs: Any, **kwargs: Any) -> Any:
    """Sum of the inputs."""
    return Add(**kwargs)(inputs)


def subtract(inputs: Any, **kwargs: Any) -> Any:
    """The first of two inputs minus the second."""
    return Subtract(**kwargs)(inputs)


def multiply(inputs: Any, **kwargs: Any) -> Any:
    """Product of the inputs."""
    return Multiply(**kwargs)(inputs)


def average(inputs: Any, **kwargs: Any) -> Any:
    """Mean of the inputs."""
    return Average(**kwargs)(inputs)


def maximum(inputs: Any, **kwargs: Any) -> Any:
    """The largest of the inputs, value by value."""
    return Maximum(**kwargs)(inputs)


def minimum(inputs: Any, **kwargs: Any) -> Any:
    """The smallest of the inputs, value by value."""
    return Minimum(**kwargs)(inputs)


def concatenate(inputs: Any, axis: int = -1, **kwargs: Any) -> Any:
    """The inputs one after another along an axis."""
    return Concatenate(axis, **kwargs)(inputs)


def dot(inputs: Any, axes: Any = -1, **kwargs: Any) -> Any:
    """Sums of products of two inputs along an axis of each."""
    return Dot(axes, **kwargs)(inputs)


# -- names that are no layer here ----------------------------------------------------------------------------
UNSAFE = frozenset(
    {
        *("Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"),
        *("StringLookup", "IntegerLookup", "TextVectorization", "Hashing"),
    }
)
"""Layers that carry code, load other files, or wrap another framework's objects."""

ABSENT = UNSAFE | {
    *("Bidirectional", "CategoryEncoding", "ContrastLimitedAdaptiveHistogramEqualization", "ConvLSTM1D"),
    *("ConvLSTM2D", "ConvLSTM3D", "Discretization", "Equalization", "GRU", "GRUCell", "HashedCrossing"),
    *("InputSpec", "LSTM", "LSTMCell", "MaxNumBoundingBoxes", "MelSpectrogram", "Pipeline", "RNN"),
    *("ReversibleEmbedding", "STFTSpectrogram", "SimpleRNN", "SimpleRNNCell", "StackedRNNCells", "Wrapper"),
    *("deserialize", "serialize"),
}
"""What else keras.layers has."""


class UnknownLayerError(UnsupportedLayerError, AttributeError):
    """An attribute of `layers` that is no layer of ConvLoom."""


def no_such_layer(name: str, known: Iterable[str]) -> UnknownLayerError:
    """The error for `layers.<name>`: what Keras has and ConvLoom has not, or what was probably meant."""
    if name in UNSAFE:
        return UnknownLayerError(
            f"class {name!r} is not supported by ConvLoom: it carries code, or leads to files or objects "
            f"outside the model; build the same from other layers and from arithmetic on tensors"
        )
    if name in ABSENT:
        return UnknownLayerError(f"class {name!r} of keras.layers is not supported by ConvLoom")
    why = nearest(name, known) or "; docs/keras.md lists those there are"
    return UnknownLayerError(f"no layer is called {name!r:.80}{why}")
