"""Convolution."""

from __future__ import annotations

from collections.abc import Sequence

from ...graph import ops
from ...graph.types import TensorType
from ...graph.windows import resolve_padding
from .. import fields as f
from ..lowering import Builder
from .base import Layer, Weight
from .parts import activate, channels, in_layout, late_activation, spatial


class Conv2D(Layer):
    """Cross-correlation of an image with a kernel (height, width, channels / groups, filters), plus a bias.

    padding: "valid", "same", or explicit ((top, bottom), (left, right)), which Keras lacks.
    """

    rank = 4

    filters: int = f.option(f.count)
    kernel_size: f.PairLike = f.option(f.pair)
    strides: f.PairLike = f.option(f.pair, default=(1, 1))
    padding: f.PaddingLike = f.option(f.window_padding, default="valid")
    data_format: str | None = f.option(f.data_format, default=None)
    dilation_rate: f.PairLike = f.option(f.pair, default=(1, 1))
    groups: int = f.option(f.count, default=1)
    activation: f.ActivationLike = f.option(f.activation, default=None)
    use_bias: bool = f.option(f.flag, default=True)
    kernel_initializer: str = f.option(f.initializer, default="glorot_uniform")
    bias_initializer: str = f.option(f.initializer, default="zeros")

    def check(self, inputs: Sequence[TensorType]) -> None:
        found = channels(inputs[0], self.data_format)
        if found % self.groups or self.filters % self.groups:
            raise self.fail(
                f"groups={self.groups} must divide the input's {found} channels "
                f"and the {self.filters} filters"
            )

    def weights(self, inputs: Sequence[TensorType]) -> list[Weight]:
        taken = channels(inputs[0], self.data_format) // self.groups
        shape = (*f.pair(self.kernel_size), taken, self.filters)
        kernel = Weight("kernel", shape, self.kernel_initializer)
        return [kernel, Weight("bias", (self.filters,), self.bias_initializer)][: 1 + self.use_bias]

    def build(self, b: Builder, *inputs: str) -> str:
        early, late = late_activation(self.activation)

        def convolve(x: str) -> str:
            weights = [b.weight(weight.name) for weight in self.built]
            return activate(b, b.add(self._op(b, x), x, *weights), early)

        return activate(b, in_layout(b, inputs[0], self.data_format, convolve), late)

    def _op(self, b: Builder, x: str) -> ops.Conv2D:
        size, strides, dilation = f.pair(self.kernel_size), f.pair(self.strides), f.pair(self.dilation_rate)
        padding = resolve_padding(f.window_padding(self.padding), spatial(b, x), size, strides, dilation)
        return ops.Conv2D(strides, padding, dilation, self.groups)
