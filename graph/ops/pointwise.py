"""Pointwise ops: arithmetic with broadcasting, activations, and batch norm as a per-channel affine map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F

from ..errors import ShapeError
from ..op import Kind, Op
from ..types import DTYPES, TensorType, broadcast

if TYPE_CHECKING:
    from ..gradients import GradientBuilder
    from ..ir import Node


@dataclass(frozen=True)
class _Pointwise(Op):
    kind: ClassVar[Kind] = Kind.POINTWISE

    def infer(self, *inputs: TensorType) -> TensorType:
        result = inputs[0]
        for other in inputs[1:]:
            result = broadcast(result, other, self.op_name())
        return result


# -- arithmetic ----------
@dataclass(frozen=True)
class Add(_Pointwise):
    """a + b, broadcasting as NumPy does."""

    operands: ClassVar[tuple[str, ...]] = ("a", "b")

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return inputs[0] + inputs[1]

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        return [build.sum_to(dy, build.operand(node, i)) for i in range(2)]


@dataclass(frozen=True)
class Subtract(_Pointwise):
    """a - b, broadcasting as NumPy does."""

    operands: ClassVar[tuple[str, ...]] = ("a", "b")

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return inputs[0] - inputs[1]

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        negative = build.if_needed(build.operand(node, 1), Scale(-1.0), dy)
        return [
            build.sum_to(dy, build.operand(node, 0)),
            negative and build.sum_to(negative, build.operand(node, 1)),
        ]


@dataclass(frozen=True)
class Multiply(_Pointwise):
    """a * b, broadcasting as NumPy does."""

    operands: ClassVar[tuple[str, ...]] = ("a", "b")

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return inputs[0] * inputs[1]

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        gradients: list[str | None] = []
        for mine, other in ((0, 1), (1, 0)):
            product = build.if_needed(build.operand(node, mine), Multiply(), dy, node.inputs[other])
            gradients.append(product and build.sum_to(product, build.operand(node, mine)))
        return gradients


@dataclass(frozen=True)
class Scale(_Pointwise):
    """x * factor + offset with two numbers known at compile time."""

    operands: ClassVar[tuple[str, ...]] = ("x",)
    factor: float = 1.0
    offset: float = 0.0

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return inputs[0] * self.factor + self.offset

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        return [build.if_needed(build.operand(node, 0), Scale(self.factor), dy)]


@dataclass(frozen=True)
class Cast(_Pointwise):
    """The same numbers in another floating-point dtype; the gradient is cast back."""

    operands: ClassVar[tuple[str, ...]] = ("x",)
    dtype: str = "float32"

    def infer(self, *inputs: TensorType) -> TensorType:
        return inputs[0].with_dtype(self.dtype)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return inputs[0].to(DTYPES[self.dtype])

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        x = build.operand(node, 0)
        if build.graph[dy].type.dtype == x.type.dtype:
            return [dy]
        return [build.if_needed(x, Cast(x.type.dtype), dy)]


@dataclass(frozen=True)
class Square(_Pointwise):
    """x * x."""

    operands: ClassVar[tuple[str, ...]] = ("x",)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return inputs[0] * inputs[0]


@dataclass(frozen=True)
class RsqrtPlus(_Pointwise):
    """1 / sqrt(x + epsilon), the scale of a normalisation."""

    operands: ClassVar[tuple[str, ...]] = ("x",)
    epsilon: float = 1e-3

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return torch.rsqrt(inputs[0] + self.epsilon)


# -- activations ----------
@dataclass(frozen=True)
class Activation(_Pointwise):
    """Base of the activations y = f(x).

    saves: which of x ("input") or y ("output") the derivative is written in; saving y lets the kernel that
    computes y drop x, and lets the derivative move behind a max pooling.
    """

    operands: ClassVar[tuple[str, ...]] = ("x",)
    saves: ClassVar[str] = "output"

    def derivative(self, saved: torch.Tensor) -> torch.Tensor:
        """f'(x), from x or from y = f(x) as `saves` says."""
        raise NotImplementedError

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        saved = node.name if self.saves == "output" else node.inputs[0]
        return [build.if_needed(build.operand(node, 0), ActivationGrad(self), dy, saved)]


@dataclass(frozen=True)
class Relu(Activation):
    """max(x, 0)."""

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return torch.relu(inputs[0])

    def derivative(self, saved: torch.Tensor) -> torch.Tensor:
        return (saved > 0).to(saved.dtype)


@dataclass(frozen=True)
class Relu6(Activation):
    """min(max(x, 0), 6)."""

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return F.relu6(inputs[0])

    def derivative(self, saved: torch.Tensor) -> torch.Tensor:
        return ((saved > 0) & (saved < 6)).to(saved.dtype)


@dataclass(frozen=True)
class LeakyRelu(Activation):
    """x where x >= 0, else slope * x. Keras's layer has slope 0.3, its activation string 0.2."""

    slope: float = 0.3

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return F.leaky_relu(inputs[0], self.slope)

    def derivative(self, saved: torch.Tensor) -> torch.Tensor:
        return torch.where(saved > 0, torch.ones_like(saved), self.slope)


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
    """x where x > 0, else alpha * (exp(x) - 1) (Clevert et al. 2015)."""

    alpha: float = 1.0

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return F.elu(inputs[0], self.alpha)

    def derivative(self, saved: torch.Tensor) -> torch.Tensor:
        return torch.where(saved > 0, 1.0, saved + self.alpha).to(saved.dtype)


@dataclass(frozen=True)
class ActivationGrad(_Pointwise):
    """dy * f'(saved) for the activation f named by `activation`."""

    operands: ClassVar[tuple[str, ...]] = ("dy", "saved")
    activation: Activation = field(default_factory=Relu)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        dy, saved = inputs
        return dy * self.activation.derivative(saved)


# -- batch norm ----------
@dataclass(frozen=True)
class BatchNorm(_Pointwise):
    """gamma * (x - mean) / sqrt(variance + epsilon) + beta, per channel (Ioffe & Szegedy 2015).

    batch_statistics: mean and variance are those of x itself (training), so the gradient flows through them.
    """

    operands: ClassVar[tuple[str, ...]] = ("x", "gamma", "beta", "mean", "variance")
    epsilon: float = 1e-3
    batch_statistics: bool = False
    momentum: float = 0.99

    def infer(self, *inputs: TensorType) -> TensorType:
        x, *vectors = inputs
        for operand, vector in zip(self.operands[1:], vectors, strict=True):
            if vector.shape != (x.channels,):
                raise ShapeError(
                    f"batch_norm of {x} needs {operand} of shape ({x.channels},), found {vector}"
                )
        return x

    def flops(self, inputs: Sequence[TensorType], output: TensorType, batch: int) -> int:
        return 4 * output.elements(batch)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        x, gamma, beta, mean, variance = inputs
        return (x - mean) * torch.rsqrt(variance + self.epsilon) * gamma + beta

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        x, gamma, beta = (build.operand(node, i) for i in range(3))
        mean, variance = node.inputs[3:]
        normalized = build.add(Normalize(self.epsilon), x.name, mean, variance)
        d_beta = build.sum_to(dy, beta, always=self.batch_statistics)
        d_gamma = build.sum_to(build.add(Multiply(), dy, normalized), gamma, always=self.batch_statistics)
        if self.batch_statistics:
            op = BatchNormGrad(self.epsilon)
            dx = build.if_needed(x, op, dy, x.name, gamma.name, mean, variance, str(d_gamma), str(d_beta))
        else:
            scale = build.add(Multiply(), gamma.name, build.add(RsqrtPlus(self.epsilon), variance))
            dx = build.if_needed(x, Multiply(), dy, scale)
        return dx, d_gamma, d_beta, None, None


@dataclass(frozen=True)
class Normalize(_Pointwise):
    """(x - mean) / sqrt(variance + epsilon)."""

    operands: ClassVar[tuple[str, ...]] = ("x", "mean", "variance")
    epsilon: float = 1e-3

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        x, mean, variance = inputs
        return (x - mean) * torch.rsqrt(variance + self.epsilon)


@dataclass(frozen=True)
class BatchNormGrad(_Pointwise):
    """Gradient of training-mode batch norm with respect to x, given the sums d_gamma and d_beta.

    dx = gamma / sqrt(var + eps) * (dy - d_beta / M - normalized * d_gamma / M), M = values per channel
    (Ioffe & Szegedy 2015, section 3, collected).
    """

    operands: ClassVar[tuple[str, ...]] = ("dy", "x", "gamma", "mean", "variance", "d_gamma", "d_beta")
    epsilon: float = 1e-3

    def flops(self, inputs: Sequence[TensorType], output: TensorType, batch: int) -> int:
        return 8 * output.elements(batch)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        dy, x, gamma, mean, variance, d_gamma, d_beta = inputs
        count = x.numel() / x.shape[-1]
        rstd = torch.rsqrt(variance + self.epsilon)
        return gamma * rstd * (dy - d_beta / count - (x - mean) * rstd * d_gamma / count)


@dataclass(frozen=True)
class Dropout(_Pointwise):
    """Inverted dropout: the identity in inference, x * dropout_mask in training."""

    operands: ClassVar[tuple[str, ...]] = ("x",)
    rate: float = 0.5

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return inputs[0]

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        return [dy]
