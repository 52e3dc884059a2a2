"""Losses that are a mean over the last axis, or a sum, of what each element gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from ..errors import ConvLoomError
from ..op import Op
from ..ops import (
    AbsoluteError,
    BinaryCrossEntropy,
    BinaryFocal,
    Divergence,
    HingeError,
    HuberError,
    LogarithmicError,
    PercentageError,
    PoissonError,
    Sigmoid,
    SquaredError,
)
from ..ops import LogCosh as LogCoshError
from .base import Loss
from .builder import LossBuilder, Terms


@dataclass(frozen=True)
class _Elementwise(Loss):
    """mean: over the last axis, otherwise the sum."""

    mean: ClassVar[bool] = True

    def op(self) -> Op:
        """Of prediction and target."""
        raise NotImplementedError

    def terms(self, build: LossBuilder) -> Terms:
        return self.of(build, build.wide(build.prediction), build.target(self), self.op(), -1)

    def of(self, build: LossBuilder, prediction: str, target: str, op: Op, axis: int) -> Terms:
        node = build.add(op, prediction, target)
        kind = build.kind_of(node)
        if kind.rank < 2:
            return Terms(node)
        axis = on_axis(self, axis, kind.rank)
        return Terms(node, (axis,), float(int(kind.shape[axis])) if self.mean else 1.0)


def on_axis(loss: Loss, axis: Any, rank: int) -> int:
    """An axis of a value of this rank from the front; raises ConvLoomError for the batch's or none."""
    if isinstance(axis, bool) or not isinstance(axis, int) or not -rank < axis < rank or axis == 0:
        raise ConvLoomError(
            f"{loss.keras_name}: axis must be an axis of the output other than the batch's, "
            f"{', '.join(map(str, (-1, *range(1, rank))))}; found {axis!r:.60}"
        )
    return axis % rank


@dataclass(frozen=True)
class MeanSquaredError(_Elementwise):
    """(y_pred - y_true)^2, the mean over the last axis."""

    keras_name: ClassVar[str] = "mean_squared_error"
    aliases: ClassVar[tuple[str, ...]] = ("mse",)

    def op(self) -> Op:
        return SquaredError()


@dataclass(frozen=True)
class MeanAbsoluteError(_Elementwise):
    """|y_pred - y_true|, the mean over the last axis."""

    keras_name: ClassVar[str] = "mean_absolute_error"
    aliases: ClassVar[tuple[str, ...]] = ("mae",)

    def op(self) -> Op:
        return AbsoluteError()


@dataclass(frozen=True)
class MeanAbsolutePercentageError(_Elementwise):
    """100 |y_true - y_pred| / max(|y_true|, 1e-7), the mean over the last axis."""

    keras_name: ClassVar[str] = "mean_absolute_percentage_error"
    aliases: ClassVar[tuple[str, ...]] = ("mape",)

    def op(self) -> Op:
        return PercentageError()


@dataclass(frozen=True)
class MeanSquaredLogarithmicError(_Elementwise):
    """(log(y_pred + 1) - log(y_true + 1))^2, neither below 1e-7; the mean over the last axis."""

    keras_name: ClassVar[str] = "mean_squared_logarithmic_error"
    aliases: ClassVar[tuple[str, ...]] = ("msle",)

    def op(self) -> Op:
        return LogarithmicError()


@dataclass(frozen=True)
class Huber(_Elementwise):
    """A square up to |y_pred - y_true| = delta, from there a straight line; the mean over the last axis."""

    delta: float = 1.0
    keras_name: ClassVar[str] = "huber"
    logged: ClassVar[str] = "huber_loss"

    def op(self) -> Op:
        return HuberError(float(self.delta))


@dataclass(frozen=True)
class LogCosh(_Elementwise):
    """log(cosh(y_pred - y_true)), the mean over the last axis."""

    keras_name: ClassVar[str] = "log_cosh"
    aliases: ClassVar[tuple[str, ...]] = ("logcosh",)

    def op(self) -> Op:
        return LogCoshError()


@dataclass(frozen=True)
class Poisson(_Elementwise):
    """y_pred - y_true log(y_pred + 1e-7), the mean over the last axis."""

    keras_name: ClassVar[str] = "poisson"

    def op(self) -> Op:
        return PoissonError()


@dataclass(frozen=True)
class KLDivergence(_Elementwise):
    """y_true log(y_true / y_pred), both within [1e-7, 1]; the sum over the last axis."""

    keras_name: ClassVar[str] = "kl_divergence"
    aliases: ClassVar[tuple[str, ...]] = ("kld", "kullback_leibler_divergence")
    mean: ClassVar[bool] = False

    def op(self) -> Op:
        return Divergence()


# -- hinges: targets of -1 and 1 ----------
@dataclass(frozen=True)
class Hinge(_Elementwise):
    """max(1 - y_true y_pred, 0), the mean over the last axis. Targets of 0 and 1 stand for -1 and 1."""

    keras_name: ClassVar[str] = "hinge"

    def op(self) -> Op:
        return HingeError()

    def encode(self, target: torch.Tensor, output: tuple[int, ...]) -> torch.Tensor:
        target = super().encode(target, output)
        return torch.where(((target == 0) | (target == 1)).all(), 2 * target - 1, target)


@dataclass(frozen=True)
class SquaredHinge(Hinge):
    """max(1 - y_true y_pred, 0)^2, the mean over the last axis. Targets as of Hinge."""

    keras_name: ClassVar[str] = "squared_hinge"

    def op(self) -> Op:
        return HingeError(squared=True)


# -- two classes ----------
@dataclass(frozen=True)
class BinaryCrossentropy(_Elementwise):
    """-(y_true log(y_pred) + (1 - y_true) log(1 - y_pred)), the mean over the axis.

    from_logits: the network ends without a sigmoid. label_smoothing: how far targets are drawn towards 1/2.
    """

    from_logits: bool = False
    label_smoothing: float = 0.0
    axis: int = -1
    keras_name: ClassVar[str] = "binary_crossentropy"
    aliases: ClassVar[tuple[str, ...]] = ("bce",)
    classifies: ClassVar[bool] = True
    last: ClassVar[type[Op] | None] = Sigmoid

    def terms(self, build: LossBuilder) -> Terms:
        logits = self.logits_of(build)
        x = build.wide(logits or build.prediction)
        return self.of(build, x, _towards_half(build, self), BinaryCrossEntropy(bool(logits)), self.axis)


@dataclass(frozen=True)
class BinaryFocalCrossentropy(_Elementwise):
    """The binary cross-entropy times (1 - q)^gamma, q being the probability of the truth (Lin et al. 2017).

    apply_class_balancing: times alpha where y_true is 1, and 1 - alpha where it is 0.
    """

    apply_class_balancing: bool = False
    alpha: float = 0.25
    gamma: float = 2.0
    from_logits: bool = False
    label_smoothing: float = 0.0
    axis: int = -1
    keras_name: ClassVar[str] = "binary_focal_crossentropy"
    classifies: ClassVar[bool] = True

    def terms(self, build: LossBuilder) -> Terms:
        alpha = float(self.alpha) if self.apply_class_balancing else None
        op = BinaryFocal(self.from_logits, float(self.gamma), alpha)
        return self.of(build, build.wide(build.prediction), _towards_half(build, self), op, self.axis)


def _towards_half(build: LossBuilder, loss: BinaryCrossentropy | BinaryFocalCrossentropy) -> str:
    """Smoothed targets."""
    return build.scaled(build.target(loss), 1 - loss.label_smoothing, 0.5 * loss.label_smoothing)
