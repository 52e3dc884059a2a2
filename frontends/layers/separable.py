"""Depthwise and separable convolution of sequences and images, as grouped convolutions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from ...graph import ops
from ...graph.types import TensorType
from .. import fields as f
from ..constraints import ConstraintLike, constraint
from ..lowering import Builder
from ..regularizers import RegularizerLike, regularizer
from .axes import as_image, kernel_as_image
from .base import Weight
from .conv import convolution, convolution_axes
from .convolving import _ByChannel, _Ending, _Filters, _Layout, _Multiplied, _Window
from .parts import activate, channels, in_layout, late_activation, spatial


class _Depthwise(_Ending, _Layout, _Multiplied, _Window, _ByChannel):
    """Base of the convolutions that are depthwise alone."""

    ignored: ClassVar[frozenset[str]] = frozenset({"filters", "kernel_initializer"})
    ruled_by: ClassVar[Mapping[str, str]] = {"kernel": "depthwise"}

    depthwise_initializer: f.InitializerLike = f.option(f.initializer, default="glorot_uniform")
    bias_initializer: f.InitializerLike = f.option(f.initializer, default="zeros")

    def check(self, inputs: Sequence[TensorType]) -> None:
        convolution_axes(self, spatial(inputs[0], self.data_format))

    def weights(self, inputs: Sequence[TensorType]) -> list[Weight]:
        taken = channels(inputs[0], self.data_format)
        kernel = _depthwise_weight(self, "kernel", taken)
        bias = Weight("bias", (taken * self.depth_multiplier,), self.bias_initializer)
        return [kernel, bias][: 1 + self.use_bias]

    def build(self, b: Builder, *inputs: str) -> str:
        def convolve(x: str, op: ops.Conv2D) -> str:
            bias = [b.weight("bias")] if self.use_bias else []
            return b.add(op, x, _flat_kernel(b, "kernel"), *bias)

        return _build(self, b, inputs[0], convolve)


class DepthwiseConv1D(_Depthwise):
    """Every channel of a sequence convolved with depth_multiplier kernels of its own, plus a bias."""

    rank = 3


class DepthwiseConv2D(_Depthwise):
    """Every channel convolved with depth_multiplier kernels of its own, plus a bias."""

    rank = 4


class _Separable(_Ending, _Multiplied, _Layout, _Window, _Filters, _ByChannel):
    """Base of the separable convolutions. Strides and dilation belong to the depthwise part alone."""

    depthwise_initializer: f.InitializerLike = f.option(f.initializer, default="glorot_uniform")
    pointwise_initializer: f.InitializerLike = f.option(f.initializer, default="glorot_uniform")
    bias_initializer: f.InitializerLike = f.option(f.initializer, default="zeros")
    pointwise_regularizer: RegularizerLike = f.option(regularizer, default=None, kw_only=True)
    pointwise_constraint: ConstraintLike = f.option(constraint, default=None, kw_only=True)

    def check(self, inputs: Sequence[TensorType]) -> None:
        convolution_axes(self, spatial(inputs[0], self.data_format))

    def weights(self, inputs: Sequence[TensorType]) -> list[Weight]:
        taken = channels(inputs[0], self.data_format)
        shape = (*(1,) * self.spatial_rank, taken * self.depth_multiplier, self.filters)
        return [
            _depthwise_weight(self, "depthwise_kernel", taken),
            Weight("pointwise_kernel", shape, self.pointwise_initializer),
            Weight("bias", (self.filters,), self.bias_initializer),
        ][: 2 + self.use_bias]

    def build(self, b: Builder, *inputs: str) -> str:
        def convolve(x: str, op: ops.Conv2D) -> str:
            x = b.add(op, x, _flat_kernel(b, "depthwise_kernel"), suffix="depthwise")
            bias = [b.weight("bias")] if self.use_bias else []
            return b.add(ops.Conv2D(), x, kernel_as_image(b, "pointwise_kernel"), *bias)

        return _build(self, b, inputs[0], convolve)


class SeparableConv1D(_Separable):
    """A depthwise convolution of a sequence, then one of 1 step over its channels, plus a bias."""

    rank = 3


class SeparableConv2D(_Separable):
    """A depthwise convolution, then a 1x1 convolution over its channels, plus a bias (Chollet 2017)."""

    rank = 4


def _build(
    layer: _Depthwise | _Separable, b: Builder, x: str, convolve: Callable[[str, ops.Conv2D], str]
) -> str:
    """convolve(image, the convolution with as many groups as channels), and the activation after it."""
    early, late = late_activation(layer.activation)

    def body(x: str) -> str:
        op = convolution(convolution_axes(layer, spatial(b.type(x))), b.type(x).channels)
        return as_image(b, x, lambda image: activate(b, convolve(image, op), early))

    return activate(b, in_layout(b, x, layer.data_format, body), late)


def _depthwise_weight(layer: _Depthwise | _Separable, name: str, taken: int) -> Weight:
    size = f.integers(layer.spatial_rank)(layer.kernel_size)
    return Weight(name, (*size, taken, layer.depth_multiplier), layer.depthwise_initializer)


def _flat_kernel(b: Builder, name: str) -> str:
    """Keras's kernel (height, width, channels, multiplier) as that of a grouped convolution.

    Output channel c * multiplier + m is channel c under kernel m: row-major order of the last two axes, so
    the numbers stay where they are. A kernel of steps has a height of 1.
    """
    weight = b.weight(name)
    *size, taken, multiplier = b.type(weight).size()
    height, width = (1, *size)[-2:]
    flat = ops.Reshape((height, width, 1, taken * multiplier), batched=False)
    return b.add(flat, weight, suffix=f"{name}_by_group")
