"""Ops over whole rows: softmax, sparsemax and their like over the last axis, and their gradients."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from ..op import Sample
from ..types import TensorType, accumulated
from .activation import Exp
from .pointwise import Multiply, Subtract
from .reduction import Reduce, _Sums

if TYPE_CHECKING:
    from ..gradients import GradientBuilder
    from ..ir import Node


@dataclass(frozen=True)
class RowOp(_Sums):
    """Base of the ops whose every row, along the last axis, is made of the same row of each operand.

    work: FLOPs an element.
    """

    operands: ClassVar[tuple[str, ...]] = ("x",)
    work: ClassVar[int] = 4

    @abc.abstractmethod
    def of_rows(self, *rows: torch.Tensor) -> torch.Tensor:
        """The meaning, of rows in float32 at least."""

    def infer(self, *inputs: TensorType) -> TensorType:
        return self.rounded(inputs[0])

    def flops(self, inputs: Sequence[TensorType], output: TensorType, batch: int) -> int:
        return self.work * output.elements(batch)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.round(self.of_rows(*accumulated(*inputs)).to(inputs[0].dtype))


@dataclass(frozen=True)
class Softmax(RowOp):
    """exp(x - max) / sum of the same, over the last axis."""

    def of_rows(self, *rows: torch.Tensor) -> torch.Tensor:
        return torch.softmax(rows[0], -1)

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        return [build.if_needed(build.operand(node, 0), SoftmaxGrad(), dy, node.name)]


@dataclass(frozen=True)
class LogSoftmax(RowOp):
    """x - max - log(sum of exp(x - max)), over the last axis."""

    def of_rows(self, *rows: torch.Tensor) -> torch.Tensor:
        return torch.log_softmax(rows[0], -1)

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        """dy - exp(y) * sum of dy."""
        if node.inputs[0] not in build.needed:
            return [None]
        total = build.add(Reduce((node.type.rank - 1,), keepdims=True), dy)
        return [build.add(Subtract(), dy, build.add(Multiply(), build.add(Exp(), node.name), total))]


@dataclass(frozen=True)
class Sparsemax(RowOp):
    """The nearest probabilities to x over the last axis: max(x - t, 0), t such that they sum to 1.

    With z in descending order and S its running sums, t = (S_k - 1) / k for the largest k at which
    1 + k z_k > S_k (Martins & Astudillo 2016).
    """

    work: ClassVar[int] = 6

    def of_rows(self, *rows: torch.Tensor) -> torch.Tensor:
        z = rows[0] - rows[0].amax(-1, keepdim=True)
        ordered = z.sort(-1, descending=True).values
        sums = ordered.cumsum(-1)
        place = torch.arange(1, z.shape[-1] + 1, dtype=z.dtype, device=z.device)
        k = (1 + place * ordered > sums).sum(-1, keepdim=True).clamp(min=1)
        return (z - (sums.gather(-1, k - 1) - 1) / k).clamp(min=0)

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        return [build.if_needed(build.operand(node, 0), SparsemaxGrad(), dy, node.name)]


@dataclass(frozen=True)
class SoftmaxGrad(RowOp):
    """y * (dy - sum of dy * y over the last axis), from the softmax's output y."""

    operands: ClassVar[tuple[str, ...]] = ("dy", "y")
    title: ClassVar[str] = "gradient of softmax"
    examples: ClassVar[dict[str, Sample]] = {"y": "rows"}

    def of_rows(self, *rows: torch.Tensor) -> torch.Tensor:
        dy, y = rows
        return y * (dy - (dy * y).sum(-1, keepdim=True))


@dataclass(frozen=True)
class SparsemaxGrad(RowOp):
    """dy - the mean of dy over the places where y > 0, there; 0 elsewhere. y: the sparsemax's output."""

    operands: ClassVar[tuple[str, ...]] = ("dy", "y")
    title: ClassVar[str] = "gradient of sparsemax"
    examples: ClassVar[dict[str, Sample]] = {"y": "clipped"}

    def of_rows(self, *rows: torch.Tensor) -> torch.Tensor:
        dy, y = rows
        away = y <= 0
        mean = torch.where(away, 0, dy).sum(-1, keepdim=True) / (~away).sum(-1, keepdim=True)
        return torch.where(away, 0, dy - mean)
