"""Pooling over windows of sequences, images and volumes, and over the whole of them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import ClassVar

from ...graph import ops
from ...graph.types import TensorType
from .. import fields as f
from ..lowering import Builder
from .axes import Axes, as_image, rows_and_columns, window_axes
from .base import Layer
from .conv import padding_of
from .convolving import SIZES, WINDOW_PADDING
from .parts import in_layout, spatial, to_channels_last
from .volumes import PoolOp, pool_volume

SIZES_OR_NONE = f.PerAxis(lambda dims: f.maybe(f.integers(dims)))


def pool(b: Builder, x: str, op: PoolOp, axes: Axes) -> str:
    """x, channels last, through windows along its spatial axes."""
    if len(axes) == 3:
        return pool_volume(b, x, op, axes)

    rows, columns = rows_and_columns(axes)
    made = op((rows.size, columns.size), (rows.stride, columns.stride), (rows.padding, columns.padding))
    return as_image(b, x, lambda image: b.add(made, image))


class _Pooling(Layer):
    """Base of the pooling layers. strides: None means pool_size, windows side by side.

    padding: "valid", "same", or explicit pairs (before, after) for each axis, which Keras lacks.
    """

    op: ClassVar[PoolOp]

    pool_size: f.PairLike = f.option(SIZES, default=2)
    strides: f.PairLike | None = f.option(SIZES_OR_NONE, default=None)
    padding: f.PaddingLike = f.option(WINDOW_PADDING, default="valid")
    data_format: str | None = f.option(f.data_format, default=None)

    def check(self, inputs: Sequence[TensorType]) -> None:
        self._axes(spatial(inputs[0], self.data_format))

    def build(self, b: Builder, *inputs: str) -> str:
        def body(x: str) -> str:
            return pool(b, x, self.op, self._axes(spatial(b.type(x))))

        return in_layout(b, inputs[0], self.data_format, body)

    def _axes(self, sizes: tuple[int, ...]) -> Axes:
        size, strides = map(f.integers(self.spatial_rank), (self.pool_size, self.strides or self.pool_size))
        return window_axes(self.label, sizes, size, strides, padding_of(self))


class MaxPooling1D(_Pooling):
    """Largest value of each window of steps; padding never wins."""

    rank = 3
    op = ops.MaxPool2D


class MaxPooling2D(_Pooling):
    """Largest value of each window; padding never wins."""

    rank = 4
    op = ops.MaxPool2D


class MaxPooling3D(_Pooling):
    """Largest value of each window of a volume; padding never wins."""

    rank = 5
    op = ops.MaxPool2D


class AveragePooling1D(_Pooling):
    """Mean of the real elements of each window of steps."""

    rank = 3
    op = ops.AveragePool2D


class AveragePooling2D(_Pooling):
    """Mean of the real elements of each window."""

    rank = 4
    op = ops.AveragePool2D


class AveragePooling3D(_Pooling):
    """Mean of the real elements of each window of a volume."""

    rank = 5
    op = ops.AveragePool2D


class _GlobalPooling(Layer):
    """Base of the global pooling layers: one window over everything. keepdims: keep its axes as 1."""

    op: ClassVar[PoolOp]

    data_format: str | None = f.option(f.data_format, default=None)
    keepdims: bool = f.option(f.flag, default=False)

    def build(self, b: Builder, *inputs: str) -> str:
        if self.keepdims:
            return in_layout(
                b, inputs[0], self.data_format, lambda x: self._pool(b, x, (1,) * self.spatial_rank)
            )
        # Without spatial axes the layout back makes no difference: flatten straight after the pooling.
        return self._pool(b, to_channels_last(b, inputs[0], self.data_format), ())

    def _pool(self, b: Builder, x: str, kept: tuple[int, ...]) -> str:
        *sizes, taken = b.type(x).size()[1:]
        image = (prod(sizes[:-1]), sizes[-1])
        if self.spatial_rank != 2:
            x = b.add(ops.Reshape((*image, taken)), x, suffix="image")
        pooled = b.add(self.op(image, image), x)
        shape = (*kept, taken)
        if b.type(pooled).size()[1:] == shape:
            return pooled
        return b.add(ops.Reshape(shape), pooled, suffix="reshape")


class GlobalMaxPooling1D(_GlobalPooling):
    """Largest value of each channel of a sequence."""

    rank = 3
    op = ops.MaxPool2D


class GlobalMaxPooling2D(_GlobalPooling):
    """Largest value of each channel."""

    rank = 4
    op = ops.MaxPool2D


class GlobalMaxPooling3D(_GlobalPooling):
    """Largest value of each channel of a volume."""

    rank = 5
    op = ops.MaxPool2D


class GlobalAveragePooling1D(_GlobalPooling):
    """Mean of each channel of a sequence."""

    rank = 3
    op = ops.AveragePool2D


class GlobalAveragePooling2D(_GlobalPooling):
    """Mean of each channel."""

    rank = 4
    op = ops.AveragePool2D


class GlobalAveragePooling3D(_GlobalPooling):
    """Mean of each channel of a volume."""

    rank = 5
    op = ops.AveragePool2D
