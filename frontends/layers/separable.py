"""Depthwise and separable convolution, as grouped convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from ...graph import ops
from ...graph.types import TensorType
from ...graph.windows import Pair, resolve_padding
from .. import fields as f
from ..lowering import Builder
from .base import Layer, Weight
from .parts import activate, channels, in_layout, late_activation, spatial

KERAS_2: dict[str, tuple[Any, ...]] = {"groups": (1,)}
"""Keras 2 writes this beside the arguments; only 1 has a meaning."""


class DepthwiseConv2D(Layer):
    """Every channel convolved with depth_multiplier kernels of its own, plus a bias."""

    rank = 4
    ignored: ClassVar[frozenset[str]] = frozenset({"filters", "kernel_initializer"})
    neutral: ClassVar[dict[str, tuple[Any, ...]]] = KERAS_2

    kernel_size: f.PairLike = f.option(f.pair)
    strides: f.PairLike = f.option(f.pair, default=(1, 1))
    padding: f.PaddingLike = f.option(f.window_padding, default="valid")
    depth_multiplier: int = f.option(f.count, default=1)
    data_format: str | None = f.option(f.data_format, default=None)
    dilation_rate: f.PairLike = f.option(f.pair, default=(1, 1))
    activation: f.ActivationLike = f.option(f.activation, default=None)
    use_bias: bool = f.option(f.flag, default=True)
    depthwise_initializer: str = f.option(f.initializer, default="glorot_uniform")
    bias_initializer: str = f.option(f.initializer, default="zeros")

    def weights(self, inputs: Sequence[TensorType]) -> list[Weight]:
        taken = channels(inputs[0], self.data_format)
        shape = (*f.pair(self.kernel_size), taken, self.depth_multiplier)
        bias = Weight("bias", (taken * self.depth_multiplier,), self.bias_initializer)
        return [Weight("kernel", shape, self.depthwise_initializer), bias][: 1 + self.use_bias]

    def build(self, b: Builder, *inputs: str) -> str:
        early, late = late_activation(self.activation)

        def convolve(x: str) -> str:
            op = _grouped(b, x, f.pair(self.kernel_size), self)
            bias = [b.weight("bias")] if self.use_bias else []
            return activate(b, b.add(op, x, _flat_kernel(b, "kernel"), *bias), early)

        return activate(b, in_layout(b, inputs[0], self.data_format, convolve), late)


class SeparableConv2D(Layer):
    """A depthwise convolution, then a 1x1 convolution over its channels, plus a bias (Chollet 2017)."""

    rank = 4
    ignored: ClassVar[frozenset[str]] = frozenset({"kernel_initializer"})
    neutral: ClassVar[dict[str, tuple[Any, ...]]] = KERAS_2

    filters: int = f.option(f.count)
    kernel_size: f.PairLike = f.option(f.pair)
    strides: f.PairLike = f.option(f.pair, default=(1, 1))
    padding: f.PaddingLike = f.option(f.window_padding, default="valid")
    data_format: str | None = f.option(f.data_format, default=None)
    dilation_rate: f.PairLike = f.option(f.pair, default=(1, 1))
    depth_multiplier: int = f.option(f.count, default=1)
    activation: f.ActivationLike = f.option(f.activation, default=None)
    use_bias: bool = f.option(f.flag, default=True)
    depthwise_initializer: str = f.option(f.initializer, default="glorot_uniform")
    pointwise_initializer: str = f.option(f.initializer, default="glorot_uniform")
    bias_initializer: str = f.option(f.initializer, default="zeros")

    def weights(self, inputs: Sequence[TensorType]) -> list[Weight]:
        taken = channels(inputs[0], self.data_format)
        return [
            Weight(
                "depthwise_kernel",
                (*f.pair(self.kernel_size), taken, self.depth_multiplier),
                self.depthwise_initializer,
            ),
            Weight(
                "pointwise_kernel",
                (1, 1, taken * self.depth_multiplier, self.filters),
                self.pointwise_initializer,
            ),
            Weight("bias", (self.filters,), self.bias_initializer),
        ][: 2 + self.use_bias]

    def build(self, b: Builder, *inputs: str) -> str:
        early, late = late_activation(self.activation)

        def convolve(x: str) -> str:
            op = _grouped(b, x, f.pair(self.kernel_size), self)
            x = b.add(op, x, _flat_kernel(b, "depthwise_kernel"), suffix="depthwise")
            bias = [b.weight("bias")] if self.use_bias else []
            return activate(b, b.add(ops.Conv2D(), x, b.weight("pointwise_kernel"), *bias), early)

        return activate(b, in_layout(b, inputs[0], self.data_format, convolve), late)


def _grouped(b: Builder, x: str, size: Pair, layer: DepthwiseConv2D | SeparableConv2D) -> ops.Conv2D:
    """The convolution with as many groups as channels. Strides and dilation belong to this part alone."""
    strides, dilation = f.pair(layer.strides), f.pair(layer.dilation_rate)
    padding = resolve_padding(f.window_padding(layer.padding), spatial(b, x), size, strides, dilation)
    return ops.Conv2D(strides, padding, dilation, b.type(x).channels)


def _flat_kernel(b: Builder, name: str) -> str:
    """Keras's kernel (height, width, channels, multiplier) as that of a grouped convolution.

    Output channel c * multiplier + m is channel c under kernel m: row-major order of the last two axes, so
    the numbers stay where they are.
    """
    weight = b.weight(name)
    *size, taken, multiplier = b.type(weight).size()
    flat = ops.Reshape((*size, 1, taken * multiplier), batched=False)
    return b.add(flat, weight, suffix=f"{name}_by_group")
