"""Sums, softmax and losses of rows."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ...graph.ops import (
    LogSoftmax,
    Reduce,
    RowLossGrad,
    RowNorm,
    RowNormGrad,
    Softmax,
    SoftmaxCrossEntropy,
    SoftmaxGrad,
    Sparsemax,
    Variance,
)
from .forms import Form, form, like, wide
from .statistics import variance


@form(Reduce)
def _reduce(op: Reduce) -> Form:
    def run(x: torch.Tensor) -> torch.Tensor:
        reduce = torch.mean if op.mean else torch.sum
        return op.round(reduce(x, dim=op.axes, keepdim=op.keepdims, dtype=wide(x.dtype)))

    return run


@form(Variance)
def _variance(op: Variance) -> Form:
    return lambda x: op.round(variance(x))


@form(Softmax)
def _softmax(op: Softmax) -> Form:
    return lambda x: op.round(torch.softmax(x, -1))


@form(LogSoftmax)
def _log_softmax(op: LogSoftmax) -> Form:
    return lambda x: op.round(torch.log_softmax(x, -1))


@form(SoftmaxGrad)
def _softmax_grad(op: SoftmaxGrad) -> Form:
    def run(dy: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = torch.ops.aten._softmax_backward_data.default(dy, like(dy, y), -1, dy.dtype)
        return op.round(result)

    return run


@form(RowNorm)
def _row_norm(op: RowNorm) -> Form:
    if not op.centred:
        return op.reference

    def run(
        x: torch.Tensor, gamma: torch.Tensor | None = None, beta: torch.Tensor | None = None
    ) -> torch.Tensor:
        kept = wide(x.dtype)
        gamma, beta = (None if vector is None else vector.to(kept) for vector in (gamma, beta))
        y = F.layer_norm(x.to(kept), list(x.shape[-1:]), gamma, beta, op.epsilon)
        return y if op.wide else op.round(like(x, y))

    return run


@form(RowNormGrad)
def _row_norm_grad(op: RowNormGrad) -> Form:
    if not op.centred:
        return op.reference

    def run(dy: torch.Tensor, x: torch.Tensor, *gamma: torch.Tensor) -> torch.Tensor:
        kept, row = wide(dy.dtype), x.shape[-1:]
        slope, given = dy.to(kept).contiguous(), x.to(kept).contiguous()
        scale = gamma[0].to(kept) if gamma else None
        _, mean, rstd = torch.native_layer_norm(given, row, None, None, op.epsilon)
        asked = [True, False, False]
        dx, *_ = torch.ops.aten.native_layer_norm_backward.default(
            slope, given, row, mean, rstd, scale, None, asked
        )
        return op.round(like(dy, dx))

    return run


@form(Sparsemax)
def _sparsemax(op: Sparsemax) -> Form:
    return op.reference


@form(SoftmaxCrossEntropy)
def _cross_entropy(op: SoftmaxCrossEntropy) -> Form:
    if op.kept != 1 or op.spread:
        return op.reference

    def of_numbers(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        place, apart = _places(target, logits.shape[-1])
        likely = torch.log_softmax(logits, -1, dtype=wide(logits.dtype))
        return likely.gather(-1, place).neg_().masked_fill_(apart, 0.0)

    def of_rows(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        kept, classes = wide(logits.dtype), logits.shape[-1]
        rows = logits.reshape(-1, classes).to(kept), target.reshape(-1, classes).to(kept)
        return F.cross_entropy(*rows, reduction="none").reshape(*logits.shape[:-1], 1)

    return of_numbers if op.numbers else of_rows


def _places(numbers: torch.Tensor, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Class numbers as places in a row, and where they are none."""
    place = numbers.long().clamp(0, classes - 1)
    return place, place != numbers


@form(RowLossGrad)
def _row_loss_grad(op: RowLossGrad) -> Form:
    loss = op.loss
    if not isinstance(loss, SoftmaxCrossEntropy) or loss.kept != 1 or loss.spread:
        return op.reference

    def of_numbers(logits: torch.Tensor, target: torch.Tensor, dy: torch.Tensor) -> torch.Tensor:
        kept = wide(logits.dtype)
        place, apart = _places(target, logits.shape[-1])
        slope = dy.to(kept).masked_fill(apart, 0.0)
        p = torch.softmax(logits, -1, dtype=kept).mul_(slope).scatter_add_(-1, place, slope.neg())
        return like(logits, p)

    def of_rows(logits: torch.Tensor, target: torch.Tensor, dy: torch.Tensor) -> torch.Tensor:
        kept = wide(logits.dtype)
        target = target.to(kept)
        p = torch.softmax(logits, -1, dtype=kept)
        p.mul_(target.sum(-1, keepdim=True)).sub_(target).mul_(dy.to(kept))
        return like(logits, p)

    return of_numbers if loss.numbers else of_rows
