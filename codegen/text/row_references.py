"""Ops over whole rows as plain PyTorch text: rows of the table in `references.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...graph.op import Op
from ...graph.ops import LogSoftmax, RowNorm, RowNormGrad, Softmax, SoftmaxGrad, Sparsemax, SparsemaxGrad
from .writer import number

Lines = list[str]


def _sparsemax(op: Sparsemax, result: str, x: str) -> Lines:
    return [
        f"ordered = {x}.sort(-1, descending=True).values",
        "sums = ordered.cumsum(-1)",
        "place = torch.arange(1, sums.shape[-1] + 1, device=sums.device)",
        "k = (1 + place * ordered > sums).sum(-1, keepdim=True)",
        f"{result} = ({x} - (sums.gather(-1, k - 1) - 1) / k).clamp(min=0)",
    ]


def _sparsemax_grad(op: SparsemaxGrad, result: str, dy: str, y: str) -> Lines:
    return [
        f"kept = {y} > 0",
        f"mean = ({dy} * kept).sum(-1, keepdim=True) / kept.sum(-1, keepdim=True)",
        f"{result} = torch.where(kept, {dy} - mean, 0.0)",
    ]


def _normalized(op: RowNorm | RowNormGrad, x: str, *gamma: str) -> str:
    kind = "layer_norm" if op.centred else "rms_norm"
    return f"F.{kind}({x}, {x}.shape[-1:], {', '.join([*gamma, f'eps={number(op.epsilon)}'])})"


def _row_norm(op: RowNorm, result: str, x: str, *vectors: str) -> str:
    return _normalized(op, x, *vectors[:1]) + "".join(f" + {beta}" for beta in vectors[1:])


def _row_norm_grad(op: RowNormGrad, result: str, dy: str, x: str, *gamma: str) -> Lines:
    """By PyTorch's own differentiation, which is another way than the kernel's."""
    return [
        "with torch.enable_grad():",
        f"    {result} = {x}.detach().requires_grad_()",
        f"    normal = {_normalized(op, result, *gamma)}",
        f"    ({result},) = torch.autograd.grad(normal, {result}, {dy})",
    ]


ROWS: dict[type[Op], Callable[..., Any]] = {
    Softmax: lambda op, result, x: f"torch.softmax({x}, -1)",
    LogSoftmax: lambda op, result, x: f"torch.log_softmax({x}, -1)",
    SoftmaxGrad: lambda op, result, dy, y: f"{y} * ({dy} - ({dy} * {y}).sum(-1, keepdim=True))",
    Sparsemax: _sparsemax,
    SparsemaxGrad: _sparsemax_grad,
    RowNorm: _row_norm,
    RowNormGrad: _row_norm_grad,
}
