"""Normalisations whose statistics are each sample's own."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from ...graph import ops
from ...graph.types import TensorType
from .. import fields as f
from ..lowering import Builder
from .base import Layer, Weight
from .parts import fits_in, on_last_axis, sample_axes, unit_length
from .ruled import _GammaAndBeta


def over_deviation(b: Builder, x: str, axes: tuple[int, ...], epsilon: float) -> str:
    """x / sqrt(variance + epsilon), the biased variance of each sample over `axes`."""
    centred = b.add(ops.Subtract(), x, _mean(b, x, axes, "mean"), suffix="centred")
    variance = _mean(b, b.add(ops.Square(), centred, suffix="squared"), axes, "variance")
    return _over_root(b, x, variance, epsilon)


def _over_root(b: Builder, x: str, power: str, epsilon: float) -> str:
    """x / sqrt(power + epsilon) as one op, so that one kernel does it."""
    zero = b.add(ops.Constant((1,), 0.0), suffix="zero")
    return b.add(ops.Normalize(epsilon), x, zero, power, suffix="normalized")


def _mean(b: Builder, x: str, axes: tuple[int, ...], suffix: str) -> str:
    return b.add(ops.Reduce(axes, mean=True, keepdims=True), x, suffix=suffix)


def weight_shape(axes: int | Sequence[int], kind: TensorType) -> tuple[int, ...]:
    """Sizes of axes in the order of the numbers as they are given, as Keras has it: -1 comes before 1."""
    return tuple(int(kind.shape[axis]) for axis in sorted(f.axes(axes)))


def gamma_and_beta(layer: Any, shape: tuple[int, ...], scale: bool, center: bool) -> list[Weight]:
    """The weights gamma and beta of a normalisation, those that it has."""
    gamma = [Weight("gamma", shape, layer.gamma_initializer)] if scale else []
    return [*gamma, Weight("beta", shape, layer.beta_initializer)] if center else gamma


class LayerNormalization(_GammaAndBeta):
    """gamma * (x - mean) / sqrt(variance + epsilon) + beta, statistics over `axis` (Ba et al. 2016).

    rms_scaling: gamma * x / sqrt(variance + epsilon) instead, the variance taken about the mean; Keras keeps
    it for old models. What the literature calls so is `RMSNormalization`.
    """

    axis: int | Sequence[int] = f.option(f.axes, default=-1)
    epsilon: float = f.option(f.positive, default=1e-3)
    center: bool = f.option(f.flag, default=True)
    scale: bool = f.option(f.flag, default=True)
    beta_initializer: f.InitializerLike = f.option(f.initializer, default="zeros")
    gamma_initializer: f.InitializerLike = f.option(f.initializer, default="ones")
    rms_scaling: bool = f.option(f.flag, default=False)

    def check(self, inputs: Sequence[TensorType]) -> None:
        sample_axes(self, self.axis, inputs[0])

    def weights(self, inputs: Sequence[TensorType]) -> list[Weight]:
        shape = weight_shape(self.axis, inputs[0])
        return gamma_and_beta(self, shape, self._scales, self._shifts)

    @property
    def _scales(self) -> bool:
        return self.scale or self.rms_scaling

    @property
    def _shifts(self) -> bool:
        return self.center and not self.rms_scaling

    def build(self, b: Builder, *inputs: str) -> str:
        axes = sample_axes(self, self.axis, b.type(inputs[0]))
        return on_last_axis(b, inputs[0], axes, lambda x: self._over_last(b, x))

    def _over_last(self, b: Builder, x: str) -> str:
        last, size = b.type(x).rank - 1, b.type(x).channels
        gamma = [self._vector(b, "gamma", size)] if self._scales else []
        beta = [self._vector(b, "beta", size)] if self._shifts else []
        if self.rms_scaling:
            return b.add(ops.Multiply(), over_deviation(b, x, (last,), self.epsilon), *gamma, suffix="scaled")
        beside = beta if gamma else []
        x = b.add(ops.RowNorm(self.epsilon), x, *gamma, *beside, suffix="normalized")
        return b.add(ops.Add(), x, *beta, suffix="shifted") if beta and not gamma else x

    def _vector(self, b: Builder, name: str, size: int) -> str:
        weight = b.weight(name)
        if b.type(weight).rank == 1:
            return weight
        return b.add(ops.Reshape((size,), batched=False), weight, suffix=f"flat_{name}")


class GroupNormalization(_GammaAndBeta):
    """Channels in `groups` equal runs; statistics of each run over all places (Wu & He 2018).

    groups=-1: as many as channels, which is instance normalisation.
    """

    groups: int = f.option(f.integer, default=32)
    axis: int = f.option(f.axis, default=-1)
    epsilon: float = f.option(f.positive, default=1e-3)
    center: bool = f.option(f.flag, default=True)
    scale: bool = f.option(f.flag, default=True)
    beta_initializer: f.InitializerLike = f.option(f.initializer, default="zeros")
    gamma_initializer: f.InitializerLike = f.option(f.initializer, default="ones")

    def check(self, inputs: Sequence[TensorType]) -> None:
        (axis,) = sample_axes(self, self.axis, inputs[0])
        size = int(inputs[0].shape[axis])
        if self.groups != -1 and (self.groups < 1 or size % self.groups):
            raise self.fail(f"groups={self.groups} must divide the {size} channels of {inputs[0]}, or be -1")

    def weights(self, inputs: Sequence[TensorType]) -> list[Weight]:
        shape = (int(inputs[0].shape[self.axis]),)
        return gamma_and_beta(self, shape, self.scale, self.center)

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
        x = b.add(ops.RowNorm(self.epsilon), x, suffix="normalized")
        x = b.add(ops.Reshape((groups, places, taken // groups)), x, suffix="rows_by_place")
        x = b.add(ops.Transpose((0, 2, 1, 3)), x, suffix="places_first")
        x = b.add(ops.Reshape(shape), x, suffix="shaped")
        if self.scale:
            x = b.add(ops.Multiply(), x, b.weight("gamma"), suffix="scaled")
        return b.add(ops.Add(), x, b.weight("beta"), suffix="shifted") if self.center else x


class RMSNormalization(Layer):
    """scale * x / sqrt(mean of x * x + epsilon), the mean over `axis` (Zhang & Sennrich 2019).

    The weight scale has the sizes of those axes and broadcasts against the last ones of x, as NumPy does it.
    """

    said_training = True

    axis: int | Sequence[int] = f.option(f.axes, default=-1)
    epsilon: float = f.option(f.positive, default=1e-6)

    def check(self, inputs: Sequence[TensorType]) -> None:
        sample_axes(self, self.axis, inputs[0])
        fits_in(self, f"scale along axis {self.axis}", weight_shape(self.axis, inputs[0]), inputs[0])

    def weights(self, inputs: Sequence[TensorType]) -> list[Weight]:
        return [Weight("scale", weight_shape(self.axis, inputs[0]), "ones")]

    def build(self, b: Builder, *inputs: str) -> str:
        x, scale = inputs[0], b.weight("scale")
        axes = sample_axes(self, self.axis, b.type(x))
        if axes == (b.type(x).rank - 1,):
            return b.add(ops.RowNorm(self.epsilon, centred=False), x, scale)
        power = _mean(b, b.add(ops.Square(), x, suffix="squared"), axes, "power")
        return b.add(ops.Multiply(), _over_root(b, x, power, self.epsilon), scale)


class UnitNormalization(Layer):
    """x over its Euclidean length along `axis`: x / sqrt(max(sum of x * x, 1e-12))."""

    axis: int | Sequence[int] = f.option(f.axes, default=-1)

    def check(self, inputs: Sequence[TensorType]) -> None:
        sample_axes(self, self.axis, inputs[0])

    def build(self, b: Builder, *inputs: str) -> str:
        return unit_length(b, inputs[0], sample_axes(self, self.axis, b.type(inputs[0])), 1e-12)
