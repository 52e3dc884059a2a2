"""What is added to a loss for the size of weights and activations, and what holds weights within bounds.

A graph keeps these ops beside its nodes: `Graph.penalties` those of its values, `Graph.constraints` the
projections of its parameters. `graph/penalties.py` makes nodes of the former where a loss asks for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from ..errors import ShapeError
from ..op import Kind, Op
from ..types import TensorType, accumulated
from .activation import Abs, ActivationGrad
from .pointwise import Add, BroadcastTo, Multiply, Scale

if TYPE_CHECKING:
    from ..gradients import GradientBuilder
    from ..ir import Node

EPSILON = 1e-7
"""Keras's: what is added to a norm that divides, and the least norm of a row that is made a unit."""


@dataclass(frozen=True)
class _Penalty(Op):
    """Base of the penalties: one number for weights. That of an activation `mean_penalties` builds."""

    kind: ClassVar[Kind] = Kind.REDUCTION
    operands: ClassVar[tuple[str, ...]] = ("w",)

    def infer(self, *inputs: TensorType) -> TensorType:
        for w in inputs:
            if w.batched or not w.is_floating:
                raise ShapeError(f"{self.op_name()} is of floating-point weights without batch, found {w}")
        return inputs[0].accumulated().with_shape(())

    def flops(self, inputs: Sequence[TensorType], output: TensorType, batch: int) -> int:
        return 2 * sum(w.elements() for w in inputs)


@dataclass(frozen=True)
class SizePenalty(_Penalty):
    """l1 * sum of |w| + l2 * sum of w^2, over all elements of all operands."""

    operands: ClassVar[tuple[str, ...]] = ("ws*",)
    l1: float = 0.0
    l2: float = 0.0

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        total = accumulated(inputs[0])[0].new_zeros(())
        for w in accumulated(*inputs):
            if self.l1:
                total = total + self.l1 * w.abs().sum()
            if self.l2:
                total = total + self.l2 * w.square().sum()
        return total

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        """dy (l1 sign(w) + 2 l2 w)."""
        return [self._slope(build, build.operand(node, i), dy) for i in range(len(node.inputs))]

    def _slope(self, build: GradientBuilder, w: Node, dy: str) -> str | None:
        if w.name not in build.needed or not (self.l1 or self.l2):
            return None
        parts = []
        if self.l2:
            parts.append(build.add(Scale(2 * self.l2), build.add(Multiply(), w.name, dy)))
        if self.l1:
            signs = build.add(ActivationGrad(Abs()), build.add(BroadcastTo(w.type.shape), dy), w.name)
            parts.append(build.add(Scale(self.l1), signs))
        return parts[0] if len(parts) == 1 else build.add(Add(), *parts)


@dataclass(frozen=True)
class OrthogonalPenalty(_Penalty):
    """factor times the mean of |u_i . u_j| over the pairs i < j of the unit rows, or columns, of a matrix.

    A row is divided by its length, or by 1e-7 where that is larger; a single row has no pairs and gives 0.
    Keras's OrthogonalRegularizer.
    """

    factor: float = 0.01
    columns: bool = False

    def infer(self, *inputs: TensorType) -> TensorType:
        if inputs[0].rank != 2:
            raise ShapeError(f"orthogonal_penalty takes a matrix, found {inputs[0]}")
        return super().infer(*inputs)

    def flops(self, inputs: Sequence[TensorType], output: TensorType, batch: int) -> int:
        rows = inputs[0].size()[self.columns]
        return 2 * rows * inputs[0].elements()

    def units(self, w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The rows made units, and what each was multiplied by."""
        rows = accumulated(w.T if self.columns else w)[0]
        factors = rows.square().sum(1, keepdim=True).rsqrt().clamp(max=1 / EPSILON)
        return rows * factors, factors

    def share(self, rows: int) -> float:
        """What each of the rows * (rows - 1) products counts, of which a pair has two."""
        return self.factor / (rows * (rows - 1)) if rows > 1 else 0.0

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        units, _ = self.units(inputs[0])
        products = (units @ units.T).abs()
        return self.share(len(units)) * (products.sum() - products.diagonal().sum())

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        w = build.operand(node, 0)
        if w.name not in build.needed:
            return [None]
        return [build.add(Multiply(), build.add(OrthogonalSlope(self), w.name), dy)]


PENALTIES = (SizePenalty, OrthogonalPenalty)


@dataclass(frozen=True)
class OrthogonalSlope(Op):
    """Derivative of an `OrthogonalPenalty` with respect to its matrix.

    With G_ij the sign of u_i . u_j times its share, 0 for i = j: d_u = 2 G u, and for u = w / |w|
    d_w = (d_u - u (u . d_u)) / |w|.
    """

    kind: ClassVar[Kind] = Kind.REDUCTION
    operands: ClassVar[tuple[str, ...]] = ("w",)
    penalty: OrthogonalPenalty = OrthogonalPenalty()

    def infer(self, *inputs: TensorType) -> TensorType:
        self.penalty.infer(*inputs)
        return inputs[0]

    def flops(self, inputs: Sequence[TensorType], output: TensorType, batch: int) -> int:
        return 2 * self.penalty.flops(inputs, output, batch)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        units, factors = self.penalty.units(inputs[0])
        signs = torch.sign(units @ units.T).fill_diagonal_(0.0)
        d_units = 2 * self.penalty.share(len(units)) * (signs @ units)
        along = (units * d_units).sum(1, keepdim=True) * (factors < 1 / EPSILON)
        slope = (d_units - units * along) * factors
        return (slope.T if self.penalty.columns else slope).to(inputs[0].dtype)


@dataclass(frozen=True)
class NormWithin(Op):
    """w scaled so that its Euclidean norm along `axes` lies within [least, most]: a projection of weights.

    w * (rate * clip(|w|, least, most) + (1 - rate) * |w|) / (|w| + 1e-7), as Keras's MaxNorm, UnitNorm
    (least = most = 1) and MinMaxNorm have it.
    """

    kind: ClassVar[Kind] = Kind.REDUCTION
    operands: ClassVar[tuple[str, ...]] = ("w",)
    axes: tuple[int, ...] = (0,)
    least: float = 0.0
    most: float = 1.0
    rate: float = 1.0

    def infer(self, *inputs: TensorType) -> TensorType:
        if any(not 0 <= axis < inputs[0].rank for axis in self.axes):
            raise ShapeError(f"norm_within along axes {self.axes} of {inputs[0]}")
        return inputs[0]

    def flops(self, inputs: Sequence[TensorType], output: TensorType, batch: int) -> int:
        return 3 * output.elements(batch)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        w = accumulated(inputs[0])[0]
        norm = w.square().sum(self.axes, keepdim=True).sqrt()
        wanted = self.rate * norm.clamp(self.least, self.most) + (1 - self.rate) * norm
        return (w * (wanted / (norm + EPSILON))).to(inputs[0].dtype)
