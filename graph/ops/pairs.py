"""Losses of pairs: every example of a batch beside every other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import torch

from ..errors import ShapeError
from ..op import Kind, Op
from ..types import TensorType, accumulated

if TYPE_CHECKING:
    from ..gradients import GradientBuilder
    from ..ir import Node


class _Pairs(NamedTuple):
    """Of each pair: the distance, and what it counts among its row's like and unlike. value: of each row."""

    distance: torch.Tensor
    like: torch.Tensor
    unlike: torch.Tensor
    value: torch.Tensor


@dataclass(frozen=True)
class CircleLoss(Op):
    """softplus(log sum exp a_ij + log sum exp b_ij) of each example i (Sun et al. 2020), (N, 1).

    With d_ij = max(1 - x_i . x_j, 0): a_ij = -gamma max(margin + d, 0) (margin - d) over those of the same
    label, and b_ij = gamma max(1 + margin - d, 0) (1 - margin - d) over the others. alone: an example is not
    compared with itself. 0 where either has none. Embeddings (N, D) are taken as they are: of length 1.
    """

    kind: ClassVar[Kind] = Kind.REDUCTION
    operands: ClassVar[tuple[str, ...]] = ("embeddings", "labels")
    whole: ClassVar[tuple[str, ...]] = ("labels",)
    role_name: ClassVar[str] = "losses"
    gamma: float = 80.0
    margin: float = 0.4
    alone: bool = True

    def infer(self, *inputs: TensorType) -> TensorType:
        x, labels = inputs
        if x.rank != 2 or not x.batched or labels.shape != (*x.shape[:1], 1) or labels.is_floating:
            raise ShapeError(f"circle_loss takes embeddings (N, D) and labels (N, 1), found {x} and {labels}")
        return x.accumulated().with_shape(labels.shape)

    def flops(self, inputs: Sequence[TensorType], output: TensorType, batch: int) -> int:
        return batch * batch * (2 * inputs[0].channels + 20)

    def pairs(self, x: torch.Tensor, labels: torch.Tensor) -> _Pairs:
        d = torch.maximum(1 - x @ x.T, x.new_zeros(()))
        same = labels == labels.T
        unlike = ~same
        like = same & ~torch.eye(len(x), dtype=torch.bool, device=x.device) if self.alone else same
        a = -self.gamma * (self.margin + d).clamp(min=0) * (self.margin - d)
        b = self.gamma * (1 + self.margin - d).clamp(min=0) * (1 - self.margin - d)
        a, b = a.masked_fill(~like, float("-inf")), b.masked_fill(~unlike, float("-inf"))
        found = like.any(1, keepdim=True) & unlike.any(1, keepdim=True)
        total = torch.where(found, a.logsumexp(1, keepdim=True) + b.logsumexp(1, keepdim=True), 0.0)
        return _Pairs(d, a, b, torch.where(found, torch.logaddexp(total, torch.zeros_like(total)), 0.0))

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.pairs(accumulated(inputs[0])[0], inputs[1]).value

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        return [build.if_needed(build.operand(node, 0), CircleLossGrad(self), *node.inputs, dy), None]


@dataclass(frozen=True)
class CircleLossGrad(Op):
    """Derivative of a `CircleLoss` with respect to the embeddings, times that of each example's loss, dy."""

    kind: ClassVar[Kind] = Kind.REDUCTION
    operands: ClassVar[tuple[str, ...]] = ("embeddings", "labels", "dy")
    whole: ClassVar[tuple[str, ...]] = ("labels",)
    loss: CircleLoss = CircleLoss()

    def infer(self, *inputs: TensorType) -> TensorType:
        if inputs[2].shape != self.loss.infer(*inputs[:2]).shape:
            raise ShapeError(f"circle_loss_grad takes a gradient for each example, found {inputs[2]}")
        return inputs[0]

    def flops(self, inputs: Sequence[TensorType], output: TensorType, batch: int) -> int:
        return batch * batch * (6 * inputs[0].channels + 30)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        """With w_ij the derivative of row i's loss by x_i . x_j: dx_i = sum over j of (w_ij + w_ji) x_j."""
        x, dy = accumulated(inputs[0], inputs[2])
        d, a, b, value = self.loss.pairs(x, inputs[1])
        gamma, margin = self.loss.gamma, self.loss.margin
        slope_a = torch.where(margin + d > 0, 2 * gamma * d, 0.0)
        slope_b = torch.where(1 + margin - d > 0, -2 * gamma * (1 - d), 0.0)
        apart = value == 0  # where a row has no like or no unlike, or is all right
        each = torch.where(apart, 0.0, dy * (1 - torch.exp(-value)))
        shares = torch.where(apart, 0.0, a.softmax(1) * slope_a + b.softmax(1) * slope_b)
        nearer = torch.where(d > 0, -1.0, torch.where(x @ x.T == 1, -0.5, 0.0))
        w = each * shares * nearer
        return ((w + w.T) @ x).to(inputs[0].dtype)
