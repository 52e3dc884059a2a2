"""Normalisation of rows by their own statistics: layer norm and RMS norm, and its gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch

from ..errors import ShapeError
from ..types import TensorType, accumulated
from .pointwise import Multiply
from .rows import RowOp

if TYPE_CHECKING:
    from ..gradients import GradientBuilder
    from ..ir import Node


@dataclass(frozen=True)
class _OfRows(RowOp):
    """Base of the two. centred: whether the mean of a row is taken off it before."""

    work: ClassVar[int] = 8
    epsilon: float = 1e-3
    centred: bool = True

    def infer(self, *inputs: TensorType) -> TensorType:
        first, vectors = inputs[0], inputs[2 if self.operands[0] == "dy" else 1 :]
        for vector in vectors:
            if vector.shape != (first.channels,):
                raise ShapeError(
                    f"{self.op_name()} of {first} takes vectors of shape ({first.channels},), found {vector}"
                )
        return super().infer(*inputs)

    def normalized(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows by their root mean square, and its reciprocal."""
        if self.centred:
            x = x - x.mean(-1, keepdim=True)
        rstd = 1 / torch.sqrt((x * x).mean(-1, keepdim=True) + self.epsilon)
        return x * rstd, rstd


@dataclass(frozen=True)
class RowNorm(_OfRows):
    """gamma * (x - mean) / sqrt(variance + epsilon) + beta, of each row along the last axis (Ba et al. 2016).

    Where not centred: gamma * x / sqrt(mean of x * x + epsilon) + beta (Zhang & Sennrich 2019).
    wide: whether the result stays as wide as sums are, which it feeds.
    """

    operands: ClassVar[tuple[str, ...]] = ("x", "gamma?", "beta?")
    value_name: ClassVar[str] = "normalized"
    wide: bool = field(default=False, kw_only=True, metadata={"rare": True})

    def infer(self, *inputs: TensorType) -> TensorType:
        found = super().infer(*inputs)
        return found.accumulated() if self.wide else found

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.of_rows(*accumulated(*inputs)) if self.wide else super().reference(*inputs)

    def words(self, *operands: TensorType) -> str:
        return "layer norm" if self.centred else "RMS norm"

    def of_rows(self, *rows: torch.Tensor) -> torch.Tensor:
        x, *vectors = rows
        y, _ = self.normalized(x)
        y = y * vectors[0] if vectors else y
        return y + vectors[1] if len(vectors) > 1 else y

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        """Rows are normalised once more for gamma's, rather than kept between the passes."""
        x, *vectors = (build.operand(node, place) for place in range(len(node.inputs)))
        gamma, again = vectors[:1], ""
        if gamma and gamma[0].name in build.needed:
            again = build.add(RowNorm(self.epsilon, self.centred, wide=True), x.name)
        slope = RowNormGrad(self.epsilon, self.centred)
        found = [build.if_needed(x, slope, dy, x.name, *(vector.name for vector in gamma))]
        if gamma:
            found.append(build.sum_to(build.add(Multiply(), dy, again), gamma[0]) if again else None)
        return [*found, *(build.sum_to(dy, beta) for beta in vectors[1:])]


@dataclass(frozen=True)
class RowNormGrad(_OfRows):
    """Gradient of `RowNorm` with respect to x.

    With g = dy * gamma and n the normalised row: (g - mean of g - n * mean of g * n) / sqrt(variance +
    epsilon); where rows are not centred, the mean of g stays.
    """

    operands: ClassVar[tuple[str, ...]] = ("dy", "x", "gamma?")
    value_name: ClassVar[str] = "unnormalized"
    role_name: ClassVar[str] = "dx"

    def words(self, *operands: TensorType) -> str:
        return f"gradient of {'layer norm' if self.centred else 'RMS norm'}"

    def of_rows(self, *rows: torch.Tensor) -> torch.Tensor:
        dy, x, *gamma = rows
        normalized, rstd = self.normalized(x)
        dy = dy * gamma[0] if gamma else dy
        along = normalized * (dy * normalized).mean(-1, keepdim=True)
        return rstd * (dy - along - (dy.mean(-1, keepdim=True) if self.centred else 0.0))
