"""Normalisations whose statistics are each sample's own, and one with fixed statistics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod, sqrt
from typing import Any, ClassVar

from ...graph import ops
from ...graph.errors import ShapeError
from ...graph.types import TensorType
from .. import fields as f
from ..lowering import Builder
from .base import Layer, Weight
from .parts import affine, on_last_axis, unit_length


def own_statistics(b: Builder, x: str, axes: tuple[int, ...], epsilon: float) -> str:
    """(x - mean) / sqrt(variance + epsilon), the biased statistics of each sample over `axes`."""
    average = ops.Reduce(axes, mean=True, keepdims=True)
    mean = b.add(average, x, suffix="mean")
    centred = b.add(ops.Subtract(), x, mean, suffix="centred")
    variance = b.add(average, b.add(ops.Square(), centred, suffix="squared"), suffix="variance")
    return b.add(ops.Normalize(epsilon), x, mean, variance, suffix="normalized")


def sample_axes(axes: Sequence[int], kind: TensorType) -> tuple[int, ...]:
    """Axes from 0 on, in order; raises ShapeError for the batch, axes twice, or axes that are not there."""
    found = tuple(sorted(axis + kind.rank if axis < 0 else axis for axis in axes))
    if len(set(found)) < len(found) or not all(1 <= axis < kind.rank for axis in found):
        raise ShapeError(f"axis must name axes 1 to {kind.rank - 1} of {kind} once each, got {tuple(axes)}")
    return found


class LayerNormalization(Layer):
    """gamma * (x - mean) / sqrt(variance + epsilon) + beta, statistics over `axis` (Ba et al. 2016)."""

    neutral: ClassVar[dict[str, tuple[Any, ...]]] = {"rms_scaling": (False, None)}

    axis: int | Sequence[int] = f.option(f.axes, default=-1)
    epsilon: float = f.option(f.positive, default=1e-3)
    center: bool = f.option(f.flag, default=True)
    scale: bool = f.option(f.flag, default=True)
    beta_initializer: str = f.option(f.initializer, default="zeros")
    gamma_initializer: str = f.option(f.initializer, default="ones")

    def check(self, inputs: Sequence[TensorType]) -> None:
        try:
            self._axes(inputs[0])
        except ShapeError as error:
            raise self.fail(str(error)) from None

    def _axes(self, kind: TensorType) -> tuple[int, ...]:
        return sample_axes(f.axes(self.axis), kind)

    def weights(self, inputs: Sequence[TensorType]) -> list[Weight]:
        shape = tuple(int(inputs[0].shape[axis]) for axis in self._axes(inputs[0]))
        gamma = [Weight("gamma", shape, self.gamma_initializer)] if self.scale else []
        return [*gamma, Weight("beta", shape, self.beta_initializer)][: len(gamma) + self.center]

    def build(self, b: Builder, *inputs: str) -> str:
        kind = b.type(inputs[0])
        axes = self._axes(kind)
        rest = tuple(axis for axis in range(kind.rank) if axis not in axes)
        order = (*rest, *axes)
        return _in_order(b, inputs[0], order, lambda x: self._over_last(b, x, len(axes)))

    def _over_last(self, b: Builder, x: str, count: int) -> str:
        """The layer over the last `count` axes, taken as one."""
        shape = b.type(x).size()[1:]
        size = prod(shape[-count:])
        if count > 1:
            x = b.add(ops.Reshape((*shape[:-count], size)), x, suffix="flat")
        x = own_statistics(b, x, (b.type(x).rank - 1,), self.epsilon)
        if self.scale:
            x = b.add(ops.Multiply(), x, self._vector(b, "gamma", size), suffix="scaled")
        if self.center:
            x = b.add(ops.Add(), x, self._vector(b, "beta", size), suffix="shifted")
        return b.add(ops.Reshape(shape), x, suffix="shaped") if count > 1 else x

    def _vector(self, b: Builder, name: str, size: int) -> str:
        weight = b.weight(name)
        if b.type(weight).rank == 1:
            return weight
        return b.add(ops.Reshape((size,), batched=False), weight, suffix=f"flat_{name}")


def _in_order(b: Builder, x: str, order: tuple[int, ...], body: Callable[[str], str]) -> str:
    """body(x) with the axes in `order`, and back."""
    if order == tuple(range(len(order))):
        return body(x)
    inverse = tuple(order.index(i) for i in range(len(order)))
    result = body(b.add(ops.Transpose(order), x, suffix="to_last_axes"))
    return b.add(ops.Transpose(inverse), result, suffix="from_last_axes")


class GroupNormalization(Layer):
    """Channels in `groups` equal runs; statistics of each run over all places (Wu & He 2018).

    groups=-1: as many as channels, which is instance normalisation.
    """

    groups: int = f.option(f.integer, default=32)
    axis: int = f.option(f.axis, default=-1)
    epsilon: float = f.option(f.positive, default=1e-3)
    center: bool = f.option(f.flag, default=True)
    scale: bool = f.option(f.flag, default=True)
    beta_initializer: str = f.option(f.initializer, default="zeros")
    gamma_initializer: str = f.option(f.initializer, default="ones")

    def check(self, inputs: Sequence[TensorType]) -> None:
        try:
            (axis,) = sample_axes([self.axis], inputs[0])
        except ShapeError as error:
            raise self.fail(str(error)) from None
        size = int(inputs[0].shape[axis])
        if self.groups != -1 and (self.groups < 1 or size % self.groups):
            raise self.fail(f"groups={self.groups} must divide the {size} channels of {inputs[0]}, or be -1")

    def weights(self, inputs: Sequence[TensorType]) -> list[Weight]:
        shape = (int(inputs[0].shape[self.axis]),)
        gamma = [Weight("gamma", shape, self.gamma_initializer)] if self.scale else []
        return [*gamma, Weight("beta", shape, self.beta_initializer)][: len(gamma) + self.center]

    def build(self, b: Builder, *inputs: str) -> str:
        axis = self.axis % b.type(inputs[0]).rank
        return on_last_axis(b, inputs[0], axis, lambda x: self._on_channels_last(b, x))

    def _on_channels_last(self, b: Builder, x: str) -> str:
        shape = b.type(x).size()[1:]
        taken, places = shape[-1], prod(shape[:-1])
        groups = taken if self.groups == -1 else self.groups
        # One row for each group of a sample: (places, groups, rest) -> (groups, places, rest) -> rows.
        x = b.add(ops.Reshape((places, groups, taken // groups)), x, suffix="by_group")
        x = b.add(ops.Transpose((0, 2, 1, 3)), x, suffix="groups_first")
        x = b.add(ops.Reshape((groups, places * taken // groups)), x, suffix="rows")
        x = own_statistics(b, x, (2,), self.epsilon)
        x = b.add(ops.Reshape((groups, places, taken // groups)), x, suffix="rows_by_place")
        x = b.add(ops.Transpose((0, 2, 1, 3)), x, suffix="places_first")
        x = b.add(ops.Reshape(shape), x, suffix="shaped")
        if self.scale:
            x = b.add(ops.Multiply(), x, b.weight("gamma"), suffix="scaled")
        return b.add(ops.Add(), x, b.weight("beta"), suffix="shifted") if self.center else x


class UnitNormalization(Layer):
    """x over its Euclidean length along `axis`: x / sqrt(max(sum of x * x, 1e-12))."""

    axis: int | Sequence[int] = f.option(f.axes, default=-1)

    def check(self, inputs: Sequence[TensorType]) -> None:
        try:
            sample_axes(f.axes(self.axis), inputs[0])
        except ShapeError as error:
            raise self.fail(str(error)) from None

    def build(self, b: Builder, *inputs: str) -> str:
        return unit_length(b, inputs[0], sample_axes(f.axes(self.axis), b.type(inputs[0])), 1e-12)


class Normalization(Layer):
    """(x - mean) / max(sqrt(variance), 1e-7), with statistics given or kept as weights; invert: the inverse.

    axis: the last axis, or None for one mean and variance of everything.
    """

    axis: int | Sequence[int] | None = f.option(f.some_axes, default=-1)
    mean: f.Numbers | None = f.option(f.maybe(f.numbers), default=None)
    variance: f.Numbers | None = f.option(f.maybe(f.numbers), default=None)
    invert: bool = f.option(f.flag, default=False)

    def check(self, inputs: Sequence[TensorType]) -> None:
        kind = inputs[0]
        if (self.mean is None) != (self.variance is None):
            raise self.fail("needs both mean and variance, or neither")
        if self.axis is not None and f.axes(self.axis) not in ((-1,), (kind.rank - 1,)):
            raise self.fail(f"axis must be the last of {kind} or None, got {self.axis}")
        for key, value in (("mean", self.mean), ("variance", self.variance)):
            if isinstance(value, tuple) and (self.axis is None or len(value) not in (1, kind.channels)):
                raise self.fail(f"{key} has {len(value)} values, which do not fit {kind} on axis {self.axis}")

    def weights(self, inputs: Sequence[TensorType]) -> list[Weight]:
        if self.mean is not None:
            return []
        shape = () if self.axis is None else (inputs[0].channels,)
        return [
            Weight("mean", shape, "zeros", trainable=False),
            Weight("variance", shape, "ones", trainable=False),
            Weight("count", (), "zeros", trainable=False, dtype="int32"),
        ]

    def build(self, b: Builder, *inputs: str) -> str:
        if self.mean is not None and self.variance is not None:
            return self._with_numbers(b, inputs[0], self.mean, self.variance)
        mean, deviation = b.weight("mean"), b.add(ops.Sqrt(), b.weight("variance"), suffix="root")
        floor = b.add(ops.Constant(b.type(deviation).size(), 1e-7), suffix="least")
        deviation = b.add(ops.Maximum(), deviation, floor, suffix="deviation")
        if self.invert:
            scaled = b.add(ops.Multiply(), inputs[0], deviation, suffix="scaled")
            return b.add(ops.Add(), scaled, mean)
        # Computed once: the division is of numbers known before the batch.
        one = b.add(ops.Constant(b.type(deviation).size(), 1.0), suffix="one")
        factor = b.add(ops.Divide(), one, deviation, suffix="factor")
        return b.add(ops.Multiply(), b.add(ops.Subtract(), inputs[0], mean, suffix="centred"), factor)

    def _with_numbers(
        self, b: Builder, x: str, mean: float | Sequence[float], variance: float | Sequence[float]
    ) -> str:
        size = b.type(x).channels
        means = list(mean) if isinstance(mean, Sequence) else [mean]
        variances = list(variance) if isinstance(variance, Sequence) else [variance]
        if min(variances) < 0:
            raise self.fail(f"variance must not be negative, got {self.variance}")
        deviations = [max(sqrt(v), 1e-7) for v in variances]
        means, deviations = ([*v] * (size if len(v) == 1 else 1) for v in (means, deviations))
        if self.invert:
            return affine(b, x, tuple(deviations), tuple(means))
        # First the mean, then the factor, as Keras: x close to a large mean keeps its digits.
        centre = b.add(ops.Constant((size,), tuple(means)), suffix="mean")
        factor = b.add(ops.Constant((size,), tuple(1 / d for d in deviations)), suffix="factor")
        return b.add(ops.Multiply(), b.add(ops.Subtract(), x, centre, suffix="centred"), factor)
