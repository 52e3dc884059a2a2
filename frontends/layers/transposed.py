"""Transposed convolution: the data gradient of a convolution, as a layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from ...graph import ops
from ...graph.types import TensorType
from ...graph.windows import Pair
from .. import fields as f
from ..lowering import Builder
from .base import Layer, Weight
from .parts import activate, channels, in_layout, late_activation, spatial


class Conv2DTranspose(Layer):
    """The convolution that maps the output's size to the input's, run backwards, plus a bias.

    Kernel (height, width, filters, channels). output_padding: None, or extra rows and columns at the end.
    """

    rank = 4
    neutral: ClassVar[dict[str, tuple[Any, ...]]] = {"groups": (1,)}

    filters: int = f.option(f.count)
    kernel_size: f.PairLike = f.option(f.pair)
    strides: f.PairLike = f.option(f.pair, default=(1, 1))
    padding: str = f.option(f.choice("valid", "same"), default="valid")
    output_padding: Sequence[int] | int | None = f.option(f.maybe(f.extra), default=None)
    data_format: str | None = f.option(f.data_format, default=None)
    dilation_rate: f.PairLike = f.option(f.pair, default=(1, 1))
    activation: f.ActivationLike = f.option(f.activation, default=None)
    use_bias: bool = f.option(f.flag, default=True)
    kernel_initializer: str = f.option(f.initializer, default="glorot_uniform")
    bias_initializer: str = f.option(f.initializer, default="zeros")

    def weights(self, inputs: Sequence[TensorType]) -> list[Weight]:
        taken = channels(inputs[0], self.data_format)
        shape = (*f.pair(self.kernel_size), self.filters, taken)
        kernel = Weight("kernel", shape, self.kernel_initializer)
        return [kernel, Weight("bias", (self.filters,), self.bias_initializer)][: 1 + self.use_bias]

    def build(self, b: Builder, *inputs: str) -> str:
        early, late = late_activation(self.activation)

        def convolve(x: str) -> str:
            y = b.add(self._op(b, x), x, b.weight("kernel"), suffix="spread")
            if self.use_bias:
                y = b.add(ops.Add(), y, b.weight("bias"), suffix="biased")
            return activate(b, y, early)

        return activate(b, in_layout(b, inputs[0], self.data_format, convolve), late)

    def _op(self, b: Builder, x: str) -> ops.Conv2DDataGrad:
        size, strides, dilation = f.pair(self.kernel_size), f.pair(self.strides), f.pair(self.dilation_rate)
        extra = None if self.output_padding is None else f.extra(self.output_padding)
        axes = [
            self._along(n, k, s, d, None if extra is None else extra[i])
            for i, (n, k, s, d) in enumerate(zip(spatial(b, x), size, strides, dilation, strict=True))
        ]
        outputs, padding = (axes[0][0], axes[1][0]), (axes[0][1], axes[1][1])
        return ops.Conv2DDataGrad(strides, padding, dilation, 1, input_size=outputs)

    def _along(self, n: int, k: int, s: int, d: int, extra: int | None) -> tuple[int, Pair]:
        """Output size along one axis, and the padding of the convolution that it is the gradient of."""
        reach = (k - 1) * d + 1
        full = (n - 1) * s + reach
        if self.padding == "valid":
            size, before = full + (max(s - reach, 0) if extra is None else extra), 0
        elif extra is None:
            size, before = n * s, max(0, (reach - s) // 2)
        else:
            size = (n - 1) * s + reach % 2 + extra
            around = reach + reach % 2 - 2 + extra
            before = reach - 1 - min(-(-around // 2), reach - 1)
        after = max(0, full - before - size)
        if size < 1 or (size + before + after - reach) // s + 1 != n:
            raise self.fail(
                f"output_padding={self.output_padding} must be smaller than the strides {self.strides}"
            )
        return size, (before, after)
