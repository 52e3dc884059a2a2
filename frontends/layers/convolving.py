"""The arguments that the convolution layers share, a part at a time.

Keras's arguments have an order, in which each kind of convolution puts some of its own between those that all
have. A dataclass takes the fields of its bases from the last base to the first, so a layer lists these parts
from the end of its arguments to their beginning.
"""

from __future__ import annotations

from typing import Any, ClassVar

from .. import fields as f
from ..constraints import ConstraintLike, constraint
from ..regularizers import RegularizerLike, regularizer
from .base import Layer
from .ruled import _Bias

WINDOW_PADDING = f.PerAxis(f.window_padding)
SIZES = f.PerAxis(f.integers)


class _Filters(Layer):
    """filters: channels of the result."""

    filters: int = f.option(f.count)


class _Window(Layer):
    """Where the taps lie. padding: "valid", "same", or explicit pairs, which Keras lacks."""

    kernel_size: f.PairLike = f.option(SIZES)
    strides: f.PairLike = f.option(SIZES, default=1)
    padding: f.PaddingLike = f.option(WINDOW_PADDING, default="valid")


class _Layout(Layer):
    """How the data lies, and the gaps between the taps."""

    data_format: str | None = f.option(f.data_format, default=None)
    dilation_rate: f.PairLike = f.option(SIZES, default=1)


class _Multiplied(Layer):
    """depth_multiplier: kernels that each channel has of its own."""

    depth_multiplier: int = f.option(f.count, default=1)


class _Ending(Layer):
    """What follows the sums."""

    activation: f.ActivationLike = f.option(f.activation, default=None)
    use_bias: bool = f.option(f.flag, default=True)


class _Grouped(Layer):
    """groups: into which the channels fall, each convolved by itself."""

    groups: int = f.option(f.count, default=1)


class _ByChannel(_Bias):
    """Base of the depthwise convolutions: a channel has depth_multiplier kernels of its own."""

    ignored: ClassVar[frozenset[str]] = frozenset({"kernel_initializer"})
    neutral: ClassVar[dict[str, tuple[Any, ...]]] = {"groups": (1,)}  # which Keras 2 writes beside the others

    depthwise_regularizer: RegularizerLike = f.option(regularizer, default=None, kw_only=True)
    depthwise_constraint: ConstraintLike = f.option(constraint, default=None, kw_only=True)
