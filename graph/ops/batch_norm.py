"""Batch norm as a per-channel affine map, and its gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from ..errors import ShapeError
from ..formula import Formula, Name
from ..functions import rsqrt, sqrt
from ..op import Sample
from ..types import TensorType
from .pointwise import Multiply, Pointwise, RsqrtPlus, Scale

if TYPE_CHECKING:
    from ..gradients import GradientBuilder
    from ..ir import Node


@dataclass(frozen=True)
class BatchNorm(Pointwise):
    """gamma * (x - mean) / sqrt(variance + epsilon) + beta, per channel (Ioffe & Szegedy 2015).

    batch_statistics: mean and variance are those of x itself (training), so the gradient flows through them.
    frozen: it normalises with the stored statistics in training too, and leaves them as they are.
    """

    operands: ClassVar[tuple[str, ...]] = ("x", "gamma", "beta", "mean", "variance")
    value_name: ClassVar[str] = "normalized"
    examples: ClassVar[dict[str, Sample]] = {"variance": "positive"}
    epsilon: float = 1e-3
    batch_statistics: bool = False
    momentum: float = 0.99
    frozen: bool = False

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

    def formula(self, x: Any, gamma: Any, beta: Any, mean: Any, variance: Any) -> Any:
        return (x - mean) / sqrt(variance + self.epsilon) * gamma + beta

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        x, gamma, beta = (build.operand(node, i) for i in range(3))
        mean, variance = node.inputs[3:]
        normalized = build.add(Normalize(self.epsilon), x.name, mean, variance)
        moved = build.needed if not self.batch_statistics else set()
        of_mean, of_variance = mean in moved, variance in moved
        d_beta = build.sum_to(dy, beta, always=self.batch_statistics or of_mean)
        d_gamma = build.sum_to(
            build.add(Multiply(), dy, normalized), gamma, always=self.batch_statistics or of_variance
        )
        if self.batch_statistics:
            op = BatchNormGrad(self.epsilon)
            dx = build.if_needed(x, op, dy, x.name, gamma.name, mean, variance, str(d_gamma), str(d_beta))
        else:
            scale = build.add(Multiply(), gamma.name, build.add(RsqrtPlus(self.epsilon), variance))
            dx = build.if_needed(x, Multiply(), dy, scale)
        d_mean = d_variance = None
        if of_mean:  # -gamma r d_beta, r = 1 / sqrt(variance + epsilon)
            d_mean = build.add(Scale(-1.0), build.add(Multiply(), str(d_beta), scale))
        if of_variance:  # -gamma r^2 d_gamma / 2
            rstd = build.add(RsqrtPlus(self.epsilon), variance)
            inner = build.add(Multiply(), scale, build.add(Scale(-0.5), rstd))
            d_variance = build.add(Multiply(), str(d_gamma), inner)
        return dx, d_gamma, d_beta, d_mean, d_variance


@dataclass(frozen=True)
class Normalize(Pointwise):
    """(x - mean) / sqrt(variance + epsilon), in the dtype of x, whatever that of its statistics."""

    operands: ClassVar[tuple[str, ...]] = ("x", "mean", "variance")
    value_name: ClassVar[str] = "normalized"
    examples: ClassVar[dict[str, Sample]] = {"variance": "positive"}
    epsilon: float = 1e-3

    def infer(self, *inputs: TensorType) -> TensorType:
        return super().infer(*inputs).with_dtype(inputs[0].dtype)

    def formula(self, x: Any, mean: Any, variance: Any) -> Any:
        return (x - mean) / sqrt(variance + self.epsilon)

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        """With r = 1 / sqrt(variance + epsilon): dy r, -dy r, and -dy y r^2 / 2."""
        x, mean, variance = (build.operand(node, i) for i in range(3))
        rstd = build.add(RsqrtPlus(self.epsilon), variance.name)
        dx = build.add(Multiply(), dy, rstd)
        d_mean = build.if_needed(mean, Scale(-1.0), dx)
        d_variance = None
        if variance.name in build.needed:
            half = build.add(Scale(-0.5), build.add(Multiply(), node.name, rstd))
            d_variance = build.sum_to(build.add(Multiply(), dx, half), variance)
        return build.sum_to(dx, x), d_mean and build.sum_to(d_mean, mean), d_variance


@dataclass(frozen=True)
class BatchNormGrad(Pointwise):
    """Gradient of training-mode batch norm with respect to x, given the sums d_gamma and d_beta.

    dx = gamma / sqrt(var + eps) * (dy - d_beta / M - normalized * d_gamma / M), M = values per channel
    (Ioffe & Szegedy 2015, section 3, collected).
    """

    operands: ClassVar[tuple[str, ...]] = ("dy", "x", "gamma", "mean", "variance", "d_gamma", "d_beta")
    value_name: ClassVar[str] = "unnormalized"
    counted: ClassVar[bool] = True
    examples: ClassVar[dict[str, Sample]] = {"variance": "positive"}
    epsilon: float = 1e-3

    def flops(self, inputs: Sequence[TensorType], output: TensorType, batch: int) -> int:
        return 8 * output.elements(batch)

    def formula(self, *operands: Any, rstd: Any = None) -> Any:
        dy, x, gamma, mean, variance, d_gamma, d_beta, count = operands
        rstd = rsqrt(variance + self.epsilon) if rstd is None else rstd
        return gamma * rstd * (dy - (d_beta + (x - mean) * rstd * d_gamma) / count)

    def mathematics(self, *operands: Formula) -> Formula:
        result: Formula = self.formula(*operands, Name("count"), rstd=Name("rstd"))
        return result

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.formula(*inputs, inputs[1].numel() / inputs[1].shape[-1])
        return result
