"""What losses are made of: formulas of a prediction and its target, of each element or of each row.

A loss is such terms, their sum or mean, and nothing else; `graph/losses` puts them together. All is computed
in float32 at least. Clipped values have their gradient between the bounds, bounds included, as torch's clamp.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch

from ..errors import CompileError, ShapeError
from ..formula import Formula, Name, evaluate, where
from ..functions import (
    absolute,
    clamp,
    log,
    log_softmax,
    one_hot,
    power,
    row_max,
    row_sum,
    rsqrt,
    sigmoid,
    softmax,
    softplus,
)
from ..op import Kind, Op, Sample
from ..slopes import pull
from ..types import TensorType, accumulated
from .pointwise import Pointwise

if TYPE_CHECKING:
    from ..gradients import GradientBuilder
    from ..ir import Node

EPSILON = 1e-7
"""Keras's: probabilities are kept so far from 0 and 1, and divisors from 0."""


def _share(p: Any) -> Any:
    return clamp(p, EPSILON, 1.0 - EPSILON)


@dataclass(frozen=True)
class _Term(Pointwise):
    """Base of the terms of each element. Their sums are float32, and so are they."""

    operands: ClassVar[tuple[str, ...]] = ("prediction", "target")
    value_name: ClassVar[str] = "terms"


@dataclass(frozen=True)
class SquaredError(_Term):
    """(p - t)^2."""

    def formula(self, p: Any, t: Any) -> Any:
        return (p - t) * (p - t)


@dataclass(frozen=True)
class AbsoluteError(_Term):
    """|p - t|."""

    def formula(self, p: Any, t: Any) -> Any:
        return absolute(p - t)


@dataclass(frozen=True)
class PercentageError(_Term):
    """100 |t - p| / max(|t|, 1e-7)."""

    def formula(self, p: Any, t: Any) -> Any:
        size = absolute(t)
        return 100.0 * absolute((t - p) / where(size < EPSILON, EPSILON, size))


@dataclass(frozen=True)
class LogarithmicError(_Term):
    """(log(1 + max(p, 1e-7)) - log(1 + max(t, 1e-7)))^2."""

    examples: ClassVar[dict[str, Sample]] = {"prediction": "positive", "target": "positive"}

    def formula(self, p: Any, t: Any) -> Any:
        error = log(where(p <= EPSILON, EPSILON, p) + 1.0) - log(where(t <= EPSILON, EPSILON, t) + 1.0)
        return error * error


@dataclass(frozen=True)
class HuberError(_Term):
    """(p - t)^2 / 2 up to |p - t| = delta, from there on the straight line that goes on (Huber 1964)."""

    delta: float = 1.0

    def formula(self, p: Any, t: Any) -> Any:
        error = p - t
        size = absolute(error)
        return where(size <= self.delta, 0.5 * error * error, self.delta * size - 0.5 * self.delta**2)


@dataclass(frozen=True)
class LogCosh(_Term):
    """log(cosh(p - t)), in a form that cannot overflow."""

    def formula(self, p: Any, t: Any) -> Any:
        error = p - t
        return error + softplus(-2.0 * error) - 0.6931471805599453


@dataclass(frozen=True)
class PoissonError(_Term):
    """p - t log(p + 1e-7)."""

    examples: ClassVar[dict[str, Sample]] = {"prediction": "positive"}

    def formula(self, p: Any, t: Any) -> Any:
        return p - t * log(p + EPSILON)


@dataclass(frozen=True)
class Divergence(_Term):
    """t log(t / p), both kept within [1e-7, 1] (Kullback & Leibler 1951)."""

    examples: ClassVar[dict[str, Sample]] = {"prediction": "share", "target": "share"}

    def formula(self, p: Any, t: Any) -> Any:
        truth = clamp(t, EPSILON, 1.0)
        return truth * log(truth / clamp(p, EPSILON, 1.0))


@dataclass(frozen=True)
class HingeError(_Term):
    """max(1 - t p, 0), or its square, t being -1 or 1. At the bend the first has half the slope before it."""

    squared: bool = False

    def formula(self, p: Any, t: Any) -> Any:
        margin = 1.0 - t * p
        if self.squared:
            return where(margin < 0, 0.0, margin * margin)
        return where(margin < 0, 0.0, where(margin == 0, 0.5 * margin, margin))


@dataclass(frozen=True)
class BinaryCrossEntropy(_Term):
    """-(t log p + (1 - t) log(1 - p)).

    from_logits: p = sigmoid(prediction), in the form t softplus(-x) + (1 - t) softplus(x), which neither
    overflows nor cancels; otherwise p is the prediction within [1e-7, 1 - 1e-7].
    """

    from_logits: bool = False

    def example(self, operand: str) -> Sample:
        return "normal" if self.from_logits and operand == "prediction" else "share"

    def formula(self, p: Any, t: Any) -> Any:
        if self.from_logits:
            return t * softplus(-p) + (1.0 - t) * softplus(p)
        share = _share(p)
        return -(t * log(share) + (1.0 - t) * log(1.0 - share))


@dataclass(frozen=True)
class BinaryFocal(_Term):
    """The binary cross-entropy times (1 - q)^gamma, q being the probability of the truth (Lin et al. 2017).

    alpha: where it is given, times alpha for a truth of 1 and 1 - alpha for one of 0.
    """

    from_logits: bool = False
    gamma: float = 2.0
    alpha: float | None = None

    def example(self, operand: str) -> Sample:
        return "normal" if self.from_logits and operand == "prediction" else "share"

    def formula(self, x: Any, t: Any) -> Any:
        p = sigmoid(x) if self.from_logits else x
        right = t * p + (1.0 - t) * (1.0 - p)
        terms = power(1.0 - right, self.gamma) * BinaryCrossEntropy().formula(p, t)
        return terms if self.alpha is None else (t * self.alpha + (1.0 - t) * (1.0 - self.alpha)) * terms


@dataclass(frozen=True)
class OverlapShare(Pointwise):
    """1 - common / (common + alpha (truth - common) + beta (found - common) + epsilon), of areas.

    With alpha = beta = 1/2 that of Dice (1945), otherwise that of Tversky (1977).
    """

    operands: ClassVar[tuple[str, ...]] = ("common", "truth", "found")
    value_name: ClassVar[str] = "apart"
    examples: ClassVar[dict[str, Sample]] = {"common": "share", "truth": "positive", "found": "positive"}
    alpha: float = 0.5
    beta: float = 0.5
    epsilon: float = EPSILON

    def formula(self, common: Any, truth: Any, found: Any) -> Any:
        missed, wrong = self.alpha * (truth - common), self.beta * (found - common)
        return 1.0 - common / (common + missed + wrong + self.epsilon)


# -- of each row ----------
@dataclass(frozen=True)
class RowLoss(Op):
    """Base of the losses of whole rows (..., C): one number a row, (..., 1), its `formula`.

    numbers: the target is the place of the one 1 in each row, (..., 1), instead of the row; a number that is
    no place stands for a row of zeros.
    """

    kind: ClassVar[Kind] = Kind.REDUCTION
    operands: ClassVar[tuple[str, ...]] = ("prediction", "target")
    whole: ClassVar[tuple[str, ...]] = ("target",)
    role_name: ClassVar[str] = "losses"
    examples: ClassVar[dict[str, Sample]] = {"target": "one hot"}
    value_name: ClassVar[str] = "losses"
    numbers: bool = field(default=False, kw_only=True, metadata={"rare": True})

    @abc.abstractmethod
    def formula(self, x: Any, t: Any) -> Any:
        """A row's loss: of tensors or of formulas, with the functions of whole rows."""

    def of_operands(self) -> Formula:
        return cast(Formula, self.formula(Name("x"), Name("t", narrow=self.numbers)))

    def infer(self, *inputs: TensorType) -> TensorType:
        prediction, target = inputs
        row = (*prediction.shape[:-1], 1)
        if target.shape != (row if self.numbers else prediction.shape) or target.is_floating == self.numbers:
            kind = f"whole numbers {row}" if self.numbers else "a target of its shape"
            found = f"{prediction} and {target}"
            raise ShapeError(f"{self.op_name()} takes a prediction and {kind}, found {found}")
        return prediction.accumulated().with_shape(row)

    def flops(self, inputs: Sequence[TensorType], output: TensorType, batch: int) -> int:
        return 5 * inputs[0].elements(batch)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.formula(*_wide(*inputs)))

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        return [build.if_needed(build.operand(node, 0), RowLossGrad(self), *node.inputs, dy), None]


@dataclass(frozen=True)
class RowLossGrad(Op):
    """Derivative of a loss of rows with respect to the prediction, times the gradient dy (..., 1) of each."""

    kind: ClassVar[Kind] = Kind.REDUCTION
    operands: ClassVar[tuple[str, ...]] = ("prediction", "target", "dy")
    whole: ClassVar[tuple[str, ...]] = ("target",)
    loss: RowLoss

    def example(self, operand: str) -> Sample:
        return self.loss.example(operand)

    def words(self, *operands: TensorType) -> str:
        return f"derivative of {self.loss.words(*operands[:2])}"

    def infer(self, *inputs: TensorType) -> TensorType:
        if inputs[2].shape != self.loss.infer(*inputs[:2]).shape:
            raise ShapeError(f"{self.op_name()} takes a gradient for each row, found {inputs[2]}")
        return inputs[0]

    def flops(self, inputs: Sequence[TensorType], output: TensorType, batch: int) -> int:
        return 5 * output.elements(batch)

    def of_operands(self) -> Formula:
        return _derivative(self.loss)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        prediction, target, dy = _wide(*inputs)
        found = evaluate(self.of_operands(), {"x": prediction, "t": target, "dy": dy})
        return cast(torch.Tensor, found.expand_as(prediction).to(inputs[0].dtype))


@cache
def _derivative(loss: RowLoss) -> Formula:
    """Derived once, as a step on the CPU evaluates it."""
    tree = pull(loss.of_operands(), "x", Name("dy", narrow=True))
    if tree is None:
        raise CompileError(f"{loss.op_name()} has no derivative")
    return tree


def _wide(*inputs: torch.Tensor) -> list[torch.Tensor]:
    return [accumulated(x)[0] if x.dtype.is_floating_point else x for x in inputs]


@dataclass(frozen=True)
class _CrossEntropy(RowLoss):
    """-sum(t log p), with t * kept + spread in place of t."""

    kept: float = field(default=1.0, metadata={"rare": True})
    spread: float = field(default=0.0, metadata={"rare": True})

    @abc.abstractmethod
    def log_likely(self, x: Any) -> Any:
        """log p."""

    def formula(self, x: Any, t: Any) -> Any:
        if self.numbers:  # where a product with 0 would make NaN of an impossible class
            return -row_sum(where(one_hot(t, x) > 0, self.log_likely(x), 0.0))
        return -row_sum((t * self.kept + self.spread) * self.log_likely(x))


@dataclass(frozen=True)
class SoftmaxCrossEntropy(_CrossEntropy):
    """-sum(t log_softmax(x)) of each row."""

    def log_likely(self, x: Any) -> Any:
        return log_softmax(x)


@dataclass(frozen=True)
class CategoricalCrossEntropy(_CrossEntropy):
    """-sum(t log p) of each row, p the predicted probabilities divided by their sum, in [1e-7, 1 - 1e-7]."""

    examples: ClassVar[dict[str, Sample]] = {"prediction": "part", "target": "one hot"}

    def log_likely(self, x: Any) -> Any:
        return log(_share(x / row_sum(x)))


@dataclass(frozen=True)
class CategoricalFocal(RowLoss):
    """-alpha sum(t (1 - p)^gamma log p) of each row, p in [1e-7, 1 - 1e-7] (Lin et al. 2017).

    from_logits: p = softmax(x), otherwise x divided by its sum. t * kept + spread stands in place of t.
    """

    from_logits: bool = False
    alpha: float = 0.25
    gamma: float = 2.0
    kept: float = field(default=1.0, metadata={"rare": True})
    spread: float = field(default=0.0, metadata={"rare": True})

    def example(self, operand: str) -> Sample:
        return "one hot" if operand == "target" else "normal" if self.from_logits else "part"

    def formula(self, x: Any, t: Any) -> Any:
        p = _share(softmax(x) if self.from_logits else x / row_sum(x))
        terms = power(1.0 - p, self.gamma) * log(p)
        return -self.alpha * row_sum((t * self.kept + self.spread) * terms)


@dataclass(frozen=True)
class GeneralizedCrossEntropy(RowLoss):
    """(1 - p^q) / q of each row, p the probability of the right class, 0 < q < 1 (Zhang & Sabuncu 2018)."""

    examples: ClassVar[dict[str, Sample]] = {"prediction": "share", "target": "one hot"}
    q: float = 0.5

    def formula(self, x: Any, t: Any) -> Any:
        return (1.0 - power(row_sum(x * (one_hot(t, x) if self.numbers else t)), self.q)) / self.q


@dataclass(frozen=True)
class CategoricalHinge(RowLoss):
    """max(1 + max((1 - t) x) - sum(t x), 0) of each row."""

    def formula(self, x: Any, t: Any) -> Any:
        margin = row_max((1.0 - t) * x) - row_sum(t * x) + 1.0
        return where(margin < 0, 0.0, where(margin == 0, 0.5 * margin, margin))


@dataclass(frozen=True)
class CosineDistance(RowLoss):
    """-sum(t x) / (|t| |x|) of each row, a length that divides being 1e-7 at least."""

    examples: ClassVar[dict[str, Sample]] = {}

    def formula(self, x: Any, t: Any) -> Any:
        return -row_sum(x * _unit(x) * (t * _unit(t)))


def _unit(x: Any) -> Any:
    """What makes a unit of a row."""
    size = row_sum(x * x)
    return where(size < EPSILON**2, 1.0 / EPSILON, rsqrt(where(size < EPSILON**2, 1.0, size)))
