"""Pooling over windows, and over the whole map."""

from __future__ import annotations

from typing import ClassVar

from ...graph import ops
from ...graph.windows import Padding, Pair, resolve_padding
from .. import fields as f
from ..lowering import Builder
from .base import Layer
from .parts import in_layout, spatial

PoolOp = type[ops.MaxPool2D] | type[ops.AveragePool2D]


class _Pooling2D(Layer):
    """Base of the pooling layers. strides: None means pool_size, windows side by side."""

    rank = 4
    op: ClassVar[PoolOp]

    pool_size: f.PairLike = f.option(f.pair, default=(2, 2))
    strides: f.PairLike | None = f.option(f.maybe(f.pair), default=None)
    padding: f.PaddingLike = f.option(f.window_padding, default="valid")
    data_format: str | None = f.option(f.data_format, default=None)

    def build(self, b: Builder, *inputs: str) -> str:
        size = f.pair(self.pool_size)
        strides = size if self.strides is None else f.pair(self.strides)

        def pool(x: str) -> str:
            padding: Padding = resolve_padding(f.window_padding(self.padding), spatial(b, x), size, strides)
            return b.add(self.op(size, strides, padding), x)

        return in_layout(b, inputs[0], self.data_format, pool)


class MaxPooling2D(_Pooling2D):
    """Largest value of each window; padding never wins."""

    op = ops.MaxPool2D


class AveragePooling2D(_Pooling2D):
    """Mean of the real elements of each window."""

    op = ops.AveragePool2D


class _GlobalPooling2D(Layer):
    """Base of the global pooling layers: one window over the whole map. keepdims: keep both axes as 1."""

    rank = 4
    op: ClassVar[PoolOp]

    data_format: str | None = f.option(f.data_format, default=None)
    keepdims: bool = f.option(f.flag, default=False)

    def build(self, b: Builder, *inputs: str) -> str:
        def pool(x: str) -> str:
            size: Pair = spatial(b, x)
            return b.add(self.op(size, size), x)

        if self.keepdims:
            return in_layout(b, inputs[0], self.data_format, pool)
        # Without height and width the layout back makes no difference: flatten straight after the pooling.
        x = inputs[0]
        if self.data_format == "channels_first":
            x = b.add(ops.Transpose((0, 2, 3, 1)), x, suffix="to_channels_last")
        pooled = pool(x)
        return b.add(ops.Reshape((b.type(pooled).channels,)), pooled, suffix="reshape")


class GlobalMaxPooling2D(_GlobalPooling2D):
    """Largest value of each channel."""

    op = ops.MaxPool2D


class GlobalAveragePooling2D(_GlobalPooling2D):
    """Mean of each channel."""

    op = ops.AveragePool2D
