"""Activations in pieces: clipped, bent or cut off at places known in advance, and PReLU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F

from ..errors import ShapeError
from ..types import TensorType
from .activation import Activation
from .pointwise import Multiply, _Pointwise

if TYPE_CHECKING:
    from ..gradients import GradientBuilder
    from ..ir import Node


@dataclass(frozen=True)
class GeneralRelu(Activation):
    """Keras's ReLU layer with all its arguments.

    min(x, max_value) where x > threshold, else negative_slope * (x - threshold).
    """

    cuts: ClassVar[bool] = True
    saves: ClassVar[str] = "input"
    max_value: float | None = None
    negative_slope: float = 0.0
    threshold: float = 0.0

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        x = inputs[0]
        kept = x if self.max_value is None else x.clamp(max=self.max_value)
        below = self.negative_slope * (x - self.threshold) if self.negative_slope else torch.zeros_like(x)
        return torch.where(x <= self.threshold, below, kept)

    def derivative(self, saved: torch.Tensor) -> torch.Tensor:
        slope = torch.where(saved <= self.threshold, torch.full_like(saved, self.negative_slope), 1.0)
        if self.max_value is None:
            return slope
        above = (saved > self.threshold) & (saved >= self.max_value)
        return torch.where(above, torch.zeros_like(saved), slope)


@dataclass(frozen=True)
class Clip(Activation):
    """x between low and high; with -1 and 1 the hard tanh."""

    cuts: ClassVar[bool] = True
    low: float = -1.0
    high: float = 1.0

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return inputs[0].clamp(self.low, self.high)

    def derivative(self, saved: torch.Tensor) -> torch.Tensor:
        return 1 - ((saved <= self.low) | (saved >= self.high)).to(saved.dtype)


@dataclass(frozen=True)
class HardShrink(Activation):
    """x where |x| > threshold >= 0, else 0."""

    cuts: ClassVar[bool] = True
    threshold: float = 0.5

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        x = inputs[0]
        return torch.where(x.abs() <= self.threshold, torch.zeros_like(x), x)

    def derivative(self, saved: torch.Tensor) -> torch.Tensor:
        return (saved != 0).to(saved.dtype)


@dataclass(frozen=True)
class SoftShrink(Activation):
    """x moved towards 0 by threshold >= 0, and 0 where it would cross it."""

    cuts: ClassVar[bool] = True
    threshold: float = 0.5

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        x = inputs[0]
        return x - x.clamp(-self.threshold, self.threshold)

    def derivative(self, saved: torch.Tensor) -> torch.Tensor:
        return (saved != 0).to(saved.dtype)


@dataclass(frozen=True)
class Threshold(Activation):
    """x where x > threshold, else value."""

    cuts: ClassVar[bool] = True
    saves: ClassVar[str] = "input"
    threshold: float = 0.0
    value: float = 0.0

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        x = inputs[0]
        return torch.where(x <= self.threshold, torch.full_like(x, self.value), x)

    def derivative(self, saved: torch.Tensor) -> torch.Tensor:
        return 1 - (saved <= self.threshold).to(saved.dtype)


@dataclass(frozen=True)
class SparsePlus(Activation):
    """0 up to -1, x from 1 on, and (x + 1)^2 / 4 between: softplus with a bounded bend (Blondel et al. 2019).

    The derivative (x + 1) / 2 of the middle part is the root of y.
    """

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        x = inputs[0]
        middle = torch.where(x < 1, (x + 1).square() / 4, x)
        return torch.where(x <= -1, torch.zeros_like(x), middle)

    def derivative(self, saved: torch.Tensor) -> torch.Tensor:
        return torch.where(saved < 1, saved.sqrt(), 1.0)


@dataclass(frozen=True)
class HardSigmoid(Activation):
    """slope * x + offset between 0 and 1.

    Keras 3 has slope 1/6, which is relu6(x + 3) / 6; Keras 2 has slope 0.2.
    """

    cuts: ClassVar[bool] = True
    slope: float = 1 / 6
    offset: float = 0.5

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return (inputs[0] * self.slope + self.offset).clamp(0.0, 1.0)

    def derivative(self, saved: torch.Tensor) -> torch.Tensor:
        return self.slope * (1 - ((saved <= 0) | (saved >= 1)).to(saved.dtype))


@dataclass(frozen=True)
class HardSwish(Activation):
    """x * relu6(x + 3) / 6, also called hard SiLU (Howard et al. 2019)."""

    cuts: ClassVar[bool] = True
    saves: ClassVar[str] = "input"

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return F.hardswish(inputs[0])

    def derivative(self, saved: torch.Tensor) -> torch.Tensor:
        middle = torch.where(saved < 3, saved / 3 + 0.5, 1.0)
        return torch.where(saved <= -3, 0.0, middle)


@dataclass(frozen=True)
class Prelu(_Pointwise):
    """x where x > 0, else alpha * x, with trained slopes alpha (He et al. 2015); alpha broadcasts to x."""

    operands: ClassVar[tuple[str, ...]] = ("x", "alpha")

    def infer(self, *inputs: TensorType) -> TensorType:
        x, alpha = inputs
        if super().infer(x, alpha) != x:
            raise ShapeError(f"prelu's alpha {alpha} does not broadcast to {x}")
        return x

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        x, alpha = inputs
        return torch.where(x > 0, x, alpha * x)

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        """dx with slope 1 or alpha; d_alpha = dy * min(x, 0), summed over what alpha is shared by."""
        x, alpha = build.operand(node, 0), build.operand(node, 1)
        dx = build.if_needed(x, PreluGrad(), dy, x.name, alpha.name)
        if alpha.name not in build.needed:
            return [dx, None]
        below = build.add(GeneralRelu(max_value=0.0, negative_slope=1.0), x.name)
        return [dx, build.sum_to(build.add(Multiply(), dy, below), alpha)]


@dataclass(frozen=True)
class PreluGrad(_Pointwise):
    """dy where x > 0, else alpha * dy."""

    operands: ClassVar[tuple[str, ...]] = ("dy", "x", "alpha")

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        dy, x, alpha = inputs
        return torch.where(x > 0, dy, alpha * dy)
