"""The table of fast forms: for each op, the function that computes it with PyTorch's operators.

An op without a row runs its own `reference`, which is right but written to be read. Tensors are in the IR's
layouts: images (N, H, W, C), convolution kernels (R, S, C / groups, K).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ...graph.op import Kind, Op

Form = Callable[..., Any]
"""Operands in order -> the result (a tuple of tensors for a joint form)."""

Maker = Callable[[Any], Form]
"""Op -> its form; called once, when a region is lowered."""

FORMS: dict[type[Op], Maker] = {}
PASSING: set[type[Op]] = set()
"""Ops that compute, but whose form may hand on its operand, or a view of it."""
INPLACE: dict[type[Op], Maker] = {}
"""Forms that may write into their first operand, and return it."""


def form(*ops: type[Op], passing: bool = False) -> Callable[[Maker], Maker]:
    """Register the maker of a form for these ops; passing: its result may be its operand, or a view of it."""

    def register(maker: Maker) -> Maker:
        FORMS.update(dict.fromkeys(ops, maker))
        if passing:
            PASSING.update(ops)
        return maker

    return register


def inplace(*ops: type[Op]) -> Callable[[Maker], Maker]:
    """Register the maker of a form that overwrites its first operand."""

    def register(maker: Maker) -> Maker:
        INPLACE.update(dict.fromkeys(ops, maker))
        return maker

    return register


def form_of(op: Op) -> Form:
    maker = FORMS.get(type(op))
    return maker(op) if maker else op.reference


def has_form(op: Op) -> bool:
    """Whether an op has a row of its own."""
    return type(op) in FORMS


def inplace_form_of(op: Op) -> Form | None:
    maker = INPLACE.get(type(op))
    return maker(op) if maker else None


def makes_memory(op: Op) -> bool:
    """Whether the op's result is memory of its own: no part of an operand, no element of it twice.

    Views and movements may be a matter of strides alone; all else computes, unless its row says otherwise.
    """
    computes = op.kind in (Kind.CONTRACTION, Kind.WINDOW, Kind.REDUCTION, Kind.POINTWISE)
    return computes and type(op) not in PASSING


def like(x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """`other` in x's dtype: parameters stay float32 where activations are narrower."""
    return other if other.dtype == x.dtype else other.to(x.dtype)


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which sums over many values are kept."""
    return torch.float64 if dtype == torch.float64 else torch.float32
