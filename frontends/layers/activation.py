"""Activation layers. Each may also stand as the activation of another layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from ...graph import ops
from ...graph.types import TensorType
from .. import fields as f
from ..constraints import ConstraintLike, constraint
from ..lowering import Builder
from ..regularizers import RegularizerLike, regularizer
from .base import Layer, Weight
from .parts import activate, is_pointwise, on_last_axis, sample_axes


class _ActivationLayer(Layer):
    activates: ClassVar[bool] = True


class _PointwiseLayer(_ActivationLayer):
    def pointwise(self) -> bool:
        return True


class Activation(_ActivationLayer):
    """An activation by name, or a layer that is one."""

    activation: f.ActivationLike = f.option(f.activation)

    def pointwise(self) -> bool:
        return is_pointwise(self.activation)

    def build(self, b: Builder, *inputs: str) -> str:
        return activate(b, inputs[0], self.activation, alone=True)


class ReLU(_PointwiseLayer):
    """min(x, max_value) where x > threshold, else negative_slope * (x - threshold)."""

    max_value: float | None = f.option(f.maybe(f.at_least_zero), default=None)
    negative_slope: float = f.option(f.at_least_zero, default=0.0)
    threshold: float = f.option(f.at_least_zero, default=0.0)

    def build(self, b: Builder, *inputs: str) -> str:
        return b.add(self._op(), inputs[0])

    def _op(self) -> ops.Activation:
        """The plainest op of this meaning, for the kernels and rewrites that know it."""
        match self.max_value, self.negative_slope, self.threshold:
            case None, 0.0, 0.0:
                return ops.Relu()
            case 6.0, 0.0, 0.0:
                return ops.Relu6()
            case None, slope, 0.0:
                return ops.LeakyRelu(slope)
            case most, slope, threshold:
                return ops.GeneralRelu(most, slope, threshold)


class LeakyReLU(_PointwiseLayer):
    """x where x >= 0, else negative_slope * x."""

    aliases: ClassVar[dict[str, str]] = {"alpha": "negative_slope"}

    negative_slope: float = f.option(f.at_least_zero, default=0.3)

    def build(self, b: Builder, *inputs: str) -> str:
        return b.add(ops.LeakyRelu(self.negative_slope), inputs[0])


class ELU(_PointwiseLayer):
    """x where x > 0, else alpha * (exp(x) - 1)."""

    alpha: float = f.option(f.at_least_zero, default=1.0)

    def build(self, b: Builder, *inputs: str) -> str:
        return b.add(ops.Elu(self.alpha), inputs[0])


class PReLU(_ActivationLayer):
    """x where x > 0, else alpha * x, alpha being trained (He et al. 2015).

    shared_axes: the axes along which one alpha holds.
    """

    alpha_initializer: f.InitializerLike = f.option(f.initializer, default="zeros")
    shared_axes: Sequence[int] | None = f.option(f.maybe(f.axes), default=None)
    alpha_regularizer: RegularizerLike = f.option(regularizer, default=None, kw_only=True)
    alpha_constraint: ConstraintLike = f.option(constraint, default=None, kw_only=True)

    def check(self, inputs: Sequence[TensorType]) -> None:
        if any(not 1 <= axis < inputs[0].rank for axis in self.shared_axes or ()):
            raise self.fail(f"shared_axes must be of 1 to {inputs[0].rank - 1}, got {self.shared_axes}")

    def weights(self, inputs: Sequence[TensorType]) -> list[Weight]:
        shared = self.shared_axes or ()
        sizes = enumerate(inputs[0].size()[1:], start=1)
        return [Weight("alpha", tuple(1 if i in shared else n for i, n in sizes), self.alpha_initializer)]

    def build(self, b: Builder, *inputs: str) -> str:
        return b.add(ops.Prelu(), inputs[0], b.weight("alpha"))


class Softmax(_ActivationLayer):
    """exp(x) / sum of exp(x) along one axis, or over several together."""

    axis: int | Sequence[int] = f.option(f.axis_or_axes, default=-1)

    def check(self, inputs: Sequence[TensorType]) -> None:
        sample_axes(self, self.axis, inputs[0])

    def build(self, b: Builder, *inputs: str) -> str:
        axes = sample_axes(self, self.axis, b.type(inputs[0]))
        return on_last_axis(b, inputs[0], axes, lambda x: b.add(ops.Softmax(), x))
