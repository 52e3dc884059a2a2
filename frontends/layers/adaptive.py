"""Adaptive pooling: windows chosen so that there are as many as the result has positions.

Window i of an axis of n positions and `size` results runs from floor(i * n / size) to, but not including,
ceil((i + 1) * n / size).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any, ClassVar

from ...graph import ops
from ...graph.types import TensorType
from .. import fields as f
from ..budget import MOST_PARTS
from ..lowering import Builder
from .axes import Axis
from .base import Layer
from .convolving import SIZES
from .parts import in_layout, spatial
from .pooling import pool
from .volumes import NONE, PoolOp


class _AdaptivePooling(Layer):
    """Base of the adaptive pooling layers. output_size: of the result, for each spatial axis.

    Where every size divides, this is pooling. Otherwise each axis is pooled by itself: every run of equal
    windows with equal steps is a copy and a pooling, and another copy joins their results.
    """

    op: ClassVar[PoolOp]

    output_size: f.PairLike = f.option(SIZES)
    data_format: str | None = f.option(f.data_format, default=None)

    def check(self, inputs: Sequence[TensorType]) -> None:
        wanted: Any = self.output_size
        for n, size in zip(spatial(inputs[0], self.data_format), wanted, strict=True):
            if n % size and size > MOST_PARTS:
                raise self.fail(f"makes {size:,} windows of {n:,} positions; at most {MOST_PARTS:,} are made")

    def build(self, b: Builder, *inputs: str) -> str:
        return in_layout(b, inputs[0], self.data_format, lambda x: self._pool(b, x))

    def _pool(self, b: Builder, x: str) -> str:
        wanted: Any = self.output_size
        sizes = list(zip(spatial(b.type(x)), wanted, strict=True))
        if not any(n % size for n, size in sizes):
            return pool(b, x, self.op, tuple(Axis(n, n // size, n // size) for n, size in sizes))
        for axis, size in enumerate(wanted):
            x = self._pool_along(b, x, axis, size)
        return x

    def _pool_along(self, b: Builder, x: str, axis: int, size: int) -> str:
        """x with `size` results along one spatial axis, seen as the columns of an image."""
        shape = b.type(x).size()[1:]
        n, before, behind = shape[axis], prod(shape[:axis]), prod(shape[axis + 1 :])
        if n == size:
            return x
        x = b.add(ops.Reshape((before, n, behind)), x, suffix="along_one_axis")
        parts = []
        for start, stop, window, step in _runs(n, size):
            part = x
            if (start, stop) != (0, n):
                part = b.add(ops.Slice((0, start, 0), (before, stop, behind)), x, suffix="run")
            parts.append(b.add(self.op((1, window), (1, step), (NONE, NONE)), part))
        x = b.add(ops.Concat(2), *parts, suffix="runs") if len(parts) > 1 else parts[0]
        return b.add(ops.Reshape((*shape[:axis], size, *shape[axis + 1 :])), x, suffix="pooled")


def _runs(n: int, size: int) -> Iterator[tuple[int, int, int, int]]:
    """The windows of an axis as runs of equal ones at equal steps: (start, stop, window, step)."""
    if n % size == 0:  # any number of them
        yield 0, n, n // size, n // size
        return
    starts = [i * n // size for i in range(size)]
    lengths = [-(-(i + 1) * n // size) - start for i, start in enumerate(starts)]
    first = 0
    while first < size:
        step = starts[first + 1] - starts[first] if first + 1 < size else 1
        last = first
        while (
            step > 0  # more results than positions: the same window again is a run of its own
            and last + 1 < size
            and lengths[last + 1] == lengths[first]
            and starts[last + 1] - starts[last] == step
        ):
            last += 1
        yield starts[first], starts[last] + lengths[last], lengths[first], max(step, 1)
        first = last + 1


class AdaptiveAveragePooling1D(_AdaptivePooling):
    """Means over windows of steps, output_size of them."""

    rank = 3
    op = ops.AveragePool2D


class AdaptiveAveragePooling2D(_AdaptivePooling):
    """Means over windows of an image, output_size of them."""

    rank = 4
    op = ops.AveragePool2D


class AdaptiveAveragePooling3D(_AdaptivePooling):
    """Means over windows of a volume, output_size of them."""

    rank = 5
    op = ops.AveragePool2D


class AdaptiveMaxPooling1D(_AdaptivePooling):
    """Largest values of windows of steps, output_size of them."""

    rank = 3
    op = ops.MaxPool2D


class AdaptiveMaxPooling2D(_AdaptivePooling):
    """Largest values of windows of an image, output_size of them."""

    rank = 4
    op = ops.MaxPool2D


class AdaptiveMaxPooling3D(_AdaptivePooling):
    """Largest values of windows of a volume, output_size of them."""

    rank = 5
    op = ops.MaxPool2D
