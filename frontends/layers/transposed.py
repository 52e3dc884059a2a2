"""Transposed convolution: the data gradient of a convolution, as a layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from ...graph import ops
from ...graph.types import TensorType
from ...graph.windows import extent
from .. import fields as f
from ..lowering import Builder
from .axes import as_image, kernel_as_image
from .base import Layer, Weight
from .conv import refuse_strides_with_dilation
from .convolving import _Ending, _Filters, _Layout, _Window
from .parts import activate, channels, in_layout, late_activation, spatial
from .ruled import _KernelAndBias
from .volumes import Spread, spread_volume

EXTRA = f.PerAxis(lambda dims: f.maybe(f.integers(dims, least=0)))
ONE_ROW = Spread(1, 1, 1, 1, 1, 0)


class _Enlarged(Layer):
    """output_padding: None, or how many positions more at the end of each axis, fewer than its stride."""

    output_padding: f.PairLike | None = f.option(EXTRA, default=None)


class _Transposed(_Ending, _Layout, _Enlarged, _Window, _Filters, _KernelAndBias):
    """Base of the transposed convolutions.

    strides and dilation_rate cannot both be above 1.
    """

    neutral: ClassVar[dict[str, tuple[Any, ...]]] = {"groups": (1,)}

    padding: f.PaddingLike = f.option(f.choice("valid", "same"), default="valid")
    kernel_initializer: f.InitializerLike = f.option(f.initializer, default="glorot_uniform")
    bias_initializer: f.InitializerLike = f.option(f.initializer, default="zeros")

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_strides_with_dilation(self)
        extra: Any = self.output_padding
        strides: Any = self.strides
        if extra is not None and any(e >= s for e, s in zip(extra, strides, strict=True)):
            raise self.fail(f"output_padding={extra} must be smaller than the strides {strides}")

    def check(self, inputs: Sequence[TensorType]) -> None:
        self._axes(spatial(inputs[0], self.data_format))

    def weights(self, inputs: Sequence[TensorType]) -> list[Weight]:
        taken = channels(inputs[0], self.data_format)
        shape = (*f.integers(self.spatial_rank)(self.kernel_size), self.filters, taken)
        kernel = Weight("kernel", shape, self.kernel_initializer)
        return [kernel, Weight("bias", (self.filters,), self.bias_initializer)][: 1 + self.use_bias]

    def build(self, b: Builder, *inputs: str) -> str:
        early, late = late_activation(self.activation)

        def finish(y: str) -> str:
            if self.use_bias:
                y = b.add(ops.Add(), y, b.weight("bias"), suffix="biased")
            return activate(b, y, early)

        def convolve(x: str) -> str:
            axes = self._axes(spatial(b.type(x)))
            if self.spatial_rank == 3:
                return finish(spread_volume(b, x, b.weight("kernel"), axes))
            op, kernel = _spread(axes), kernel_as_image(b, "kernel")
            return as_image(b, x, lambda image: finish(b.add(op, image, kernel, suffix="spread")))

        return activate(b, in_layout(b, inputs[0], self.data_format, convolve), late)

    def _axes(self, sizes: tuple[int, ...]) -> tuple[Spread, ...]:
        extra: Any = self.output_padding or (None,) * self.spatial_rank
        given = map(f.integers(self.spatial_rank), (self.kernel_size, self.strides, self.dilation_rate))
        return tuple(self._along(*axis) for axis in zip(sizes, *given, extra, strict=True))

    def _along(self, n: int, k: int, s: int, d: int, extra: int | None) -> Spread:
        """One axis: how many positions come of it, and from which position of the spread on."""
        reach = extent(k, d)
        full = (n - 1) * s + reach
        if self.padding == "valid":
            size, before = full + (max(s - reach, 0) if extra is None else extra), 0
        elif extra is None:
            size, before = n * s, max(0, (reach - s) // 2)
        else:
            size = (n - 1) * s + reach % 2 + extra
            around = reach + reach % 2 - 2 + extra
            before = reach - 1 - min(-(-around // 2), reach - 1)
        if size < 1:
            raise self.fail(
                f"an axis of {n} with a kernel of {k}, strides of {s} and output_padding={extra} gives "
                f"{size} positions; give a larger output_padding or None"
            )
        return Spread(n, k, s, d, size, before)


def _spread(axes: tuple[Spread, ...]) -> ops.Conv2DTranspose:
    """The op over an image, or over a sequence seen as one."""
    rows, columns = (ONE_ROW, *axes)[-2:]
    return ops.Conv2DTranspose(
        (rows.stride, columns.stride),
        (rows.padding, columns.padding),
        (rows.dilation, columns.dilation),
        input_size=(rows.outputs, columns.outputs),
    )


class Conv1DTranspose(_Transposed):
    """The convolution that maps the output's steps to the input's, run backwards, plus a bias.

    Kernel (steps, filters, channels).
    """

    rank = 3


class Conv2DTranspose(_Transposed):
    """The convolution that maps the output's size to the input's, run backwards, plus a bias.

    Kernel (height, width, filters, channels).
    """

    rank = 4


class Conv3DTranspose(_Transposed):
    """The convolution that maps the output's size to the input's, run backwards, plus a bias.

    Kernel (depth, height, width, filters, channels). `spread_volume` says how and at what cost.
    """

    rank = 5
