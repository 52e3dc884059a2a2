"""Convolution of sequences, images and volumes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from ...graph import ops
from ...graph.errors import UnsupportedLayerError
from ...graph.types import TensorType
from ...graph.windows import Pair
from .. import fields as f
from ..lowering import Builder
from .axes import Axes, as_image, kernel_as_image, rows_and_columns, window_axes
from .base import Weight
from .convolving import _Ending, _Filters, _Grouped, _Layout, _Window
from .parts import activate, channels, in_layout, late_activation, spatial
from .ruled import _KernelAndBias
from .volumes import convolve_volume


def refuse_strides_with_dilation(layer: Any) -> None:
    """As Keras does: steps of more than 1 and gaps between the taps are not defined together."""
    if max(layer.strides) > 1 and max(layer.dilation_rate) > 1:
        raise UnsupportedLayerError(
            f"{layer.label}: strides {layer.strides} and dilation_rate {layer.dilation_rate} cannot both be "
            f"above 1, here as in Keras; give one of them as 1"
        )


class _Convolution(_Ending, _Grouped, _Layout, _Window, _Filters, _KernelAndBias):
    """Base of the convolutions.

    padding: "valid", "same", or explicit pairs (before, after) for each axis, which Keras lacks.
    strides and dilation_rate cannot both be above 1.
    """

    neutral: ClassVar[dict[str, tuple[Any, ...]]] = {"lora_rank": (None,), "lora_alpha": (None,)}

    kernel_initializer: f.InitializerLike = f.option(f.initializer, default="glorot_uniform")
    bias_initializer: f.InitializerLike = f.option(f.initializer, default="zeros")

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_strides_with_dilation(self)

    def check(self, inputs: Sequence[TensorType]) -> None:
        found = channels(inputs[0], self.data_format)
        if found % self.groups or self.filters % self.groups:
            raise self.fail(
                f"groups={self.groups} must divide the input's {found} channels "
                f"and the {self.filters} filters"
            )
        convolution_axes(self, spatial(inputs[0], self.data_format))

    def weights(self, inputs: Sequence[TensorType]) -> list[Weight]:
        taken = channels(inputs[0], self.data_format) // self.groups
        shape = (*f.integers(self.spatial_rank)(self.kernel_size), taken, self.filters)
        kernel = Weight("kernel", shape, self.kernel_initializer)
        return [kernel, Weight("bias", (self.filters,), self.bias_initializer)][: 1 + self.use_bias]

    def build(self, b: Builder, *inputs: str) -> str:
        early, late = late_activation(self.activation)

        def convolve(x: str) -> str:
            axes = convolution_axes(self, spatial(b.type(x)))
            kernel, *bias = [b.weight(weight.name) for weight in self.built]
            if self.spatial_rank == 3:
                return convolve_volume(b, x, kernel, bias, axes, self.groups, lambda y: activate(b, y, early))
            op, kernel = convolution(axes, self.groups), kernel_as_image(b, "kernel")
            return as_image(b, x, lambda image: activate(b, b.add(op, image, kernel, *bias), early))

        return activate(b, in_layout(b, inputs[0], self.data_format, convolve), late)


def convolution(axes: Axes, groups: int) -> ops.Conv2D:
    """The op over an image, or over a sequence seen as one."""
    rows, columns = rows_and_columns(axes)
    return ops.Conv2D(
        (rows.stride, columns.stride),
        (rows.padding, columns.padding),
        (rows.dilation, columns.dilation),
        groups,
    )


def convolution_axes(layer: Any, sizes: tuple[int, ...]) -> Axes:
    """The windows of a layer with Keras's arguments of a convolution."""
    return window_axes(
        layer.label, sizes, layer.kernel_size, layer.strides, padding_of(layer), layer.dilation_rate
    )


def padding_of(layer: Any) -> str | tuple[Pair, ...]:
    """A layer's padding as a mode or a pair for each axis; that of a sequence is the pair alone."""
    alone = layer.spatial_rank == 1 and not isinstance(layer.padding, str)
    padding: str | tuple[Pair, ...] = (layer.padding,) if alone else layer.padding
    return padding


class Conv1D(_Convolution):
    """Cross-correlation of a sequence with a kernel (steps, channels / groups, filters), plus a bias.

    padding: also "causal", with which no output reads an input after its own step. Computed as an image of
    one row, by the kernels of Conv2D.
    """

    rank = 3

    padding: f.PaddingLike = f.option(f.window_padding(1, "causal"), default="valid")


class Conv2D(_Convolution):
    """Cross-correlation of an image with a kernel (height, width, channels / groups, filters), plus a bias.

    padding: "valid", "same", or explicit ((top, bottom), (left, right)), which Keras lacks.
    """

    rank = 4


class Conv3D(_Convolution):
    """Cross-correlation of a volume with a kernel (depth, height, width, channels / groups, filters), plus a
    bias. `convolve_volume` says how and at what cost.
    """

    rank = 5
