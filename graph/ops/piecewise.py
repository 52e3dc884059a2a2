"""Activations in pieces: clipped, bent or cut off at places known in advance, and PReLU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import ShapeError
from ..formula import where
from ..functions import (
    at_most,
    clamp,
    hard_shrink,
    hard_sigmoid,
    hard_swish,
    hard_swish_slope,
    soft_shrink,
    sparse_plus,
    sqrt,
    threshold,
)
from ..op import Sample
from ..types import TensorType
from .activation import Activation
from .pointwise import Multiply, Pointwise

if TYPE_CHECKING:
    from ..gradients import GradientBuilder
    from ..ir import Node


@dataclass(frozen=True)
class GeneralRelu(Activation):
    """Keras's ReLU layer with all its arguments.

    min(x, max_value) where x > threshold, else negative_slope * (x - threshold).
    """

    title: ClassVar[str] = "ReLU"
    saves: ClassVar[str] = "input"
    max_value: float | None = None
    negative_slope: float = 0.0
    threshold: float = 0.0

    def formula(self, x: Any) -> Any:
        kept = x if self.max_value is None else at_most(x, self.max_value)
        below = self.negative_slope * (x - self.threshold) if self.negative_slope else 0.0
        return where(x <= self.threshold, below, kept)

    def backward(self, dy: Any, saved: Any) -> Any:
        kept = dy if self.max_value is None else where(saved >= self.max_value, 0.0, dy)
        below = self.negative_slope * dy if self.negative_slope else 0.0
        return where(saved <= self.threshold, below, kept)


@dataclass(frozen=True)
class Clip(Activation):
    """x between low and high; with -1 and 1 the hard tanh."""

    title: ClassVar[str] = "clipping"
    low: float = -1.0
    high: float = 1.0

    def formula(self, x: Any) -> Any:
        return clamp(x, self.low, self.high)

    def backward(self, dy: Any, saved: Any) -> Any:
        return where((saved <= self.low) | (saved >= self.high), 0.0, dy)


@dataclass(frozen=True)
class HardShrink(Activation):
    """x where |x| > threshold >= 0, else 0."""

    threshold: float = 0.5

    def formula(self, x: Any) -> Any:
        return hard_shrink(x, self.threshold)

    def backward(self, dy: Any, saved: Any) -> Any:
        return where(saved == 0, 0.0, dy)


@dataclass(frozen=True)
class SoftShrink(Activation):
    """x moved towards 0 by threshold >= 0, and 0 where it would cross it."""

    threshold: float = 0.5

    def formula(self, x: Any) -> Any:
        return soft_shrink(x, self.threshold)

    def backward(self, dy: Any, saved: Any) -> Any:
        return where(saved == 0, 0.0, dy)


@dataclass(frozen=True)
class Threshold(Activation):
    """x where x > threshold, else value."""

    saves: ClassVar[str] = "input"
    threshold: float = 0.0
    value: float = 0.0

    def formula(self, x: Any) -> Any:
        return threshold(x, self.threshold, self.value)


@dataclass(frozen=True)
class SparsePlus(Activation):
    """0 up to -1, x from 1 on, and (x + 1)^2 / 4 between: softplus with a bounded bend (Blondel et al. 2019).

    The derivative (x + 1) / 2 of the middle part is the root of y.
    """

    saved: ClassVar[Sample] = "not negative"

    def formula(self, x: Any) -> Any:
        return sparse_plus(x)

    def backward(self, dy: Any, saved: Any) -> Any:
        return where(saved < 1, dy * sqrt(saved), dy)


@dataclass(frozen=True)
class HardSigmoid(Activation):
    """slope * x + offset between 0 and 1.

    Keras 3 has slope 1/6, which is relu6(x + 3) / 6; Keras 2 has slope 0.2.
    """

    slope: float = 1 / 6
    offset: float = 0.5

    def formula(self, x: Any) -> Any:
        return hard_sigmoid(x, self.slope, self.offset)

    def backward(self, dy: Any, saved: Any) -> Any:
        return where((saved <= 0) | (saved >= 1), 0.0, self.slope * dy)


@dataclass(frozen=True)
class HardSwish(Activation):
    """x * relu6(x + 3) / 6, also called hard SiLU (Howard et al. 2019)."""

    saves: ClassVar[str] = "input"

    def formula(self, x: Any) -> Any:
        return hard_swish(x)

    def backward(self, dy: Any, saved: Any) -> Any:
        return where(saved <= -3, 0.0, dy * hard_swish_slope(saved))


@dataclass(frozen=True)
class Prelu(Pointwise):
    """x where x > 0, else alpha * x, with trained slopes alpha (He et al. 2015); alpha broadcasts to x."""

    operands: ClassVar[tuple[str, ...]] = ("x", "alpha")
    title: ClassVar[str] = "PReLU"
    value_name: ClassVar[str] = "activated"

    def infer(self, *inputs: TensorType) -> TensorType:
        x, alpha = inputs
        if super().infer(x, alpha) != x:
            raise ShapeError(f"prelu's alpha {alpha} does not broadcast to {x}")
        return x

    def formula(self, x: Any, alpha: Any) -> Any:
        return where(x > 0, x, alpha * x)

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        """dx with slope 1 or alpha; d_alpha = dy * min(x, 0), summed over what alpha is shared by."""
        x, alpha = build.operand(node, 0), build.operand(node, 1)
        dx = build.if_needed(x, PreluGrad(), dy, x.name, alpha.name)
        if alpha.name not in build.needed:
            return [dx, None]
        below = build.add(GeneralRelu(max_value=0.0, negative_slope=1.0), x.name)
        return [dx, build.sum_to(build.add(Multiply(), dy, below), alpha)]


@dataclass(frozen=True)
class PreluGrad(Pointwise):
    """dy where x > 0, else alpha * dy."""

    operands: ClassVar[tuple[str, ...]] = ("dy", "x", "alpha")
    title: ClassVar[str] = "derivative of PReLU"
    value_name: ClassVar[str] = "passed"

    def formula(self, dy: Any, x: Any, alpha: Any) -> Any:
        return where(x > 0, dy, alpha * dy)
