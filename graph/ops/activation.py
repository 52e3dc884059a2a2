"""Activations: functions of one value, with their derivatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F

from .pointwise import _Pointwise

if TYPE_CHECKING:
    from ..gradients import GradientBuilder
    from ..ir import Node


@dataclass(frozen=True)
class Activation(_Pointwise):
    """Base of the activations y = f(x).

    saves: which of x ("input") or y ("output") the derivative is written in; saving y lets the kernel that
    computes y drop x, and lets the derivative move behind a max pooling. cuts: no gradient passes where the
    derivative is 0, one that is NaN or infinite neither; it passes where the saved value is NaN.
    """

    operands: ClassVar[tuple[str, ...]] = ("x",)
    saves: ClassVar[str] = "output"
    cuts: ClassVar[bool] = False

    def derivative(self, saved: torch.Tensor) -> torch.Tensor:
        """f'(x), from x or from y = f(x) as `saves` says."""
        raise NotImplementedError

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        saved = node.name if self.saves == "output" else node.inputs[0]
        return [build.if_needed(build.operand(node, 0), ActivationGrad(self), dy, saved)]


@dataclass(frozen=True)
class Relu(Activation):
    """max(x, 0)."""

    cuts: ClassVar[bool] = True

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return torch.relu(inputs[0])

    def derivative(self, saved: torch.Tensor) -> torch.Tensor:
        return 1 - (saved <= 0).to(saved.dtype)


@dataclass(frozen=True)
class Relu6(Activation):
    """min(max(x, 0), 6)."""

    cuts: ClassVar[bool] = True

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return F.relu6(inputs[0])

    def derivative(self, saved: torch.Tensor) -> torch.Tensor:
        return 1 - ((saved <= 0) | (saved >= 6)).to(saved.dtype)


@dataclass(frozen=True)
class LeakyRelu(Activation):
    """x where x >= 0, else slope * x. Keras's layer has slope 0.3, its activation string 0.2."""

    slope: float = 0.3

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return F.leaky_relu(inputs[0], self.slope)

    def derivative(self, saved: torch.Tensor) -> torch.Tensor:
        return torch.where(saved > 0, 1.0, torch.full_like(saved, self.slope))


@dataclass(frozen=True)
class Sigmoid(Activation):
    """1 / (1 + exp(-x)); derivative y (1 - y)."""

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(inputs[0])

    def derivative(self, saved: torch.Tensor) -> torch.Tensor:
        return saved * (1 - saved)


@dataclass(frozen=True)
class Tanh(Activation):
    """Hyperbolic tangent; derivative 1 - y^2."""

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return torch.tanh(inputs[0])

    def derivative(self, saved: torch.Tensor) -> torch.Tensor:
        return 1 - saved * saved


@dataclass(frozen=True)
class Swish(Activation):
    """x * sigmoid(x), also called SiLU (Ramachandran et al. 2017)."""

    saves: ClassVar[str] = "input"

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return F.silu(inputs[0])

    def derivative(self, saved: torch.Tensor) -> torch.Tensor:
        s = torch.sigmoid(saved)
        return s * (1 + saved * (1 - s))


@dataclass(frozen=True)
class Gelu(Activation):
    """x * Phi(x) (Hendrycks & Gimpel 2016); approximate: the tanh form of the same paper."""

    saves: ClassVar[str] = "input"
    approximate: bool = False

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return F.gelu(inputs[0], approximate="tanh" if self.approximate else "none")

    def derivative(self, saved: torch.Tensor) -> torch.Tensor:
        x = saved
        if self.approximate:
            k = 0.7978845608028654  # sqrt(2 / pi)
            t = torch.tanh(k * (x + 0.044715 * x**3))
            return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * k * (1 + 3 * 0.044715 * x * x)
        phi = 0.5 * (1 + torch.erf(x * 0.7071067811865476))
        return phi + x * torch.exp(-0.5 * x * x) * 0.3989422804014327  # 1 / sqrt(2 pi)


@dataclass(frozen=True)
class Elu(Activation):
    """scale * x where x > 0, else scale * alpha * (exp(input_scale * x) - 1); alpha, scale >= 0.

    With alpha alone ELU (Clevert et al. 2015); with scale SELU (Klambauer et al. 2017); with input_scale
    1 / alpha CELU (Barron 2017).
    """

    alpha: float = 1.0
    scale: float = 1.0
    input_scale: float = 1.0

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        x = inputs[0]
        below = self.alpha * torch.expm1(self.input_scale * x.clamp(max=0))
        return self.scale * torch.where(x > 0, x, below)

    def derivative(self, saved: torch.Tensor) -> torch.Tensor:
        below = self.input_scale * (saved + self.scale * self.alpha)
        return torch.where(saved > 0, self.scale, below)


@dataclass(frozen=True)
class Softplus(Activation):
    """log(1 + exp(x)), in the form max(x, 0) + log(1 + exp(-|x|)) that cannot overflow."""

    saves: ClassVar[str] = "input"

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        x = inputs[0]
        return torch.relu(x) + torch.log1p(torch.exp(-x.abs()))

    def derivative(self, saved: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(saved)


@dataclass(frozen=True)
class LogSigmoid(Activation):
    """log(sigmoid(x)) = -softplus(-x); derivative 1 - exp(y)."""

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return -Softplus().reference(-inputs[0])

    def derivative(self, saved: torch.Tensor) -> torch.Tensor:
        return -torch.expm1(saved)


@dataclass(frozen=True)
class Squareplus(Activation):
    """(x + sqrt(x^2 + b)) / 2 with b > 0 (Barron 2021).

    With s = sqrt(x^2 + b) the derivative is y / s, and y (s - x) / 2 = b / 4 makes it 1 / (1 + b / (4 y^2)).
    """

    b: float = 4.0

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        x = inputs[0]
        root = torch.sqrt(x * x + self.b)
        return torch.where(x < 0, self.b / 2 / (root - x), (x + root) / 2)  # where the sum would cancel

    def derivative(self, saved: torch.Tensor) -> torch.Tensor:
        return 1 / (1 + self.b / (4 * saved * saved))


@dataclass(frozen=True)
class TanhShrink(Activation):
    """x - tanh(x); derivative tanh(x)^2."""

    saves: ClassVar[str] = "input"

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return F.tanhshrink(inputs[0])

    def derivative(self, saved: torch.Tensor) -> torch.Tensor:
        return torch.tanh(saved).square()


@dataclass(frozen=True)
class Softsign(Activation):
    """x / (1 + |x|)."""

    saves: ClassVar[str] = "input"

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return F.softsign(inputs[0])

    def derivative(self, saved: torch.Tensor) -> torch.Tensor:
        return 1 / (1 + saved.abs()) ** 2


@dataclass(frozen=True)
class Mish(Activation):
    """x * tanh(softplus(x)) (Misra 2019)."""

    saves: ClassVar[str] = "input"

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return F.mish(inputs[0])

    def derivative(self, saved: torch.Tensor) -> torch.Tensor:
        t = torch.tanh(Softplus().reference(saved))
        return t + saved * torch.sigmoid(saved) * (1 - t * t)


@dataclass(frozen=True)
class Exp(Activation):
    """exp(x), its own derivative."""

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return torch.exp(inputs[0])

    def derivative(self, saved: torch.Tensor) -> torch.Tensor:
        return saved


@dataclass(frozen=True)
class Log(Activation):
    """The natural logarithm; derivative 1 / x."""

    saves: ClassVar[str] = "input"

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return torch.log(inputs[0])

    def derivative(self, saved: torch.Tensor) -> torch.Tensor:
        return 1 / saved


@dataclass(frozen=True)
class Sqrt(Activation):
    """Square root; derivative 1 / (2 y)."""

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return torch.sqrt(inputs[0])

    def derivative(self, saved: torch.Tensor) -> torch.Tensor:
        return 0.5 / saved


@dataclass(frozen=True)
class Abs(Activation):
    """|x|; derivative the sign of x, 0 at 0."""

    saves: ClassVar[str] = "input"

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return inputs[0].abs()

    def derivative(self, saved: torch.Tensor) -> torch.Tensor:
        return torch.sign(saved)


@dataclass(frozen=True)
class ActivationGrad(_Pointwise):
    """dy * f'(saved) for the activation f named by `activation`."""

    operands: ClassVar[tuple[str, ...]] = ("dy", "saved")
    activation: Activation = field(default_factory=Relu)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        dy, saved = inputs
        slope = self.activation.derivative(saved)
        return torch.where(slope == 0, 0, dy * slope) if self.activation.cuts else dy * slope
