"""Normalisation with statistics of the data set, fixed before the network runs."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any

from ...graph import ops
from ...graph.types import TensorType
from .. import fields as f
from ..lowering import Builder
from .base import Layer, Weight
from .parts import affine, fits_in, known, sample_axes

LEAST_DEVIATION = 1e-7
"""A standard deviation below this counts as this: Keras's epsilon."""


class Normalization(Layer):
    """(x - mean) / max(sqrt(variance), 1e-7), with statistics given or kept as weights; invert: the inverse.

    axis: the axes whose places have statistics of their own, in any order; None or (): one mean and variance
    for all. mean, variance: numbers or nested lists, aligned with the last of those axes.
    """

    said_training = True

    axis: int | Sequence[int] | None = f.option(f.some_axes, default=-1)
    mean: f.Array | None = f.option(f.maybe(f.array), default=None)
    variance: f.Array | None = f.option(f.maybe(f.array), default=None)
    invert: bool = f.option(f.flag, default=False)

    def check(self, inputs: Sequence[TensorType]) -> None:
        kind = inputs[0]
        axes = self._axes(kind)
        if (self.mean is None) != (self.variance is None):
            raise self.fail("needs both mean and variance, or neither")
        if self.mean is None:
            return
        if f.array_shape(self.mean) != f.array_shape(self.variance):
            raise self.fail(
                f"mean and variance must have one shape, got {f.array_shape(self.mean)} and "
                f"{f.array_shape(self.variance)}"
            )
        if min(f.array_numbers(self.variance)) < 0:
            raise self.fail(f"variance must not be negative, got {str(self.variance)[:80]}")
        whole = kind.with_shape(self._broadcast(kind))
        fits_in(self, f"mean along axis {axes}", self._aligned(kind), whole)

    def _axes(self, kind: TensorType) -> tuple[int, ...]:
        return sample_axes(self, self.axis, kind) if self.axis is not None else ()

    def _broadcast(self, kind: TensorType) -> tuple[int, ...]:
        """The shape against x of statistics for every place of the axes."""
        axes = self._axes(kind)
        return tuple(int(dim) if axis in axes else 1 for axis, dim in enumerate(kind.shape))

    def _aligned(self, kind: TensorType) -> tuple[int, ...]:
        """The shape against x of the mean given: its last axes are the last of `axis`.

        Older files of Keras hold arrays with all axes of x, those without statistics of size 1.
        """
        given, axes = f.array_shape(self.mean), self._axes(kind)
        if len(given) > len(axes):
            return given
        shape = [1] * kind.rank
        for axis, size in zip(reversed(axes), reversed(given), strict=False):
            shape[axis] = size
        return tuple(shape)

    def weights(self, inputs: Sequence[TensorType]) -> list[Weight]:
        if self.mean is not None:
            return []
        shape = tuple(int(inputs[0].shape[axis]) for axis in self._axes(inputs[0]))
        return [
            Weight("mean", shape, "zeros", trainable=False),
            Weight("variance", shape, "ones", trainable=False),
            Weight("count", (), "zeros", trainable=False, dtype="int32"),
        ]

    def build(self, b: Builder, *inputs: str) -> str:
        if self.mean is not None and self.variance is not None:
            return self._with_numbers(b, inputs[0])
        mean, variance = (self._spread(b, b.type(inputs[0]), name) for name in ("mean", "variance"))
        deviation = b.add(ops.Sqrt(), variance, suffix="root")
        floor = b.add(ops.Constant((1,), LEAST_DEVIATION), suffix="least")
        deviation = b.add(ops.Maximum(), deviation, floor, suffix="deviation")
        if self.invert:
            scaled = b.add(ops.Multiply(), inputs[0], deviation, suffix="scaled")
            return b.add(ops.Add(), scaled, mean)
        # Computed once: the division is of numbers known before the batch.
        one = b.add(ops.Constant((1,), 1.0), suffix="one")
        factor = b.add(ops.Divide(), one, deviation, suffix="factor")
        return b.add(ops.Multiply(), b.add(ops.Subtract(), inputs[0], mean, suffix="centred"), factor)

    def _spread(self, b: Builder, kind: TensorType, name: str) -> str:
        """A weight under the shape in which it lies against x."""
        weight, shape = b.weight(name), _without_leading_ones(self._broadcast(kind))
        if b.type(weight).shape == shape:
            return weight
        return b.add(ops.Reshape(shape, batched=False), weight, suffix=f"shaped_{name}")

    def _with_numbers(self, b: Builder, x: str) -> str:
        shape = _without_leading_ones(self._aligned(b.type(x)))
        means, variances = f.array_numbers(self.mean), f.array_numbers(self.variance)
        deviations = [max(sqrt(v), LEAST_DEVIATION) for v in variances]
        mean = _nested(means, shape)
        if self.invert:
            return affine(b, x, _nested(deviations, shape), mean)
        # First the mean, then the factor, as Keras: x close to a large mean keeps its digits.
        factor = known(b, _nested([1 / d for d in deviations], shape), "factor")
        centred = b.add(ops.Subtract(), x, known(b, mean, "mean"), suffix="centred")
        return b.add(ops.Multiply(), centred, factor)


def _without_leading_ones(shape: Sequence[int]) -> tuple[int, ...]:
    first = next((i for i, size in enumerate(shape) if size != 1), len(shape))
    return tuple(shape[first:])


def _nested(numbers: Sequence[float], shape: Sequence[int]) -> Any:
    """The numbers, in row-major order, as an array of that shape."""
    if not shape:
        return numbers[0]
    step = len(numbers) // shape[0]
    return tuple(_nested(numbers[i * step : (i + 1) * step], shape[1:]) for i in range(shape[0]))
