"""Constraints, with Keras's names, arguments and defaults: what follows an optimizer's step on a weight.

    L.Dense(10, kernel_constraint=cl.constraints.MaxNorm(3), bias_constraint="non_neg")

`fit` applies them after each step; a training loop of your own calls `net.apply_constraints()`. Norms are
along `axis`, one or several, of the weight in Keras's shape: for a kernel (height, width, in, out) it is
[0, 1, 2] that bounds each filter.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..graph import ops
from ..graph.errors import ShapeError
from ..graph.op import Op
from . import fields as f
from .by_name import Finder, Named


@dataclass(frozen=True)
class Constraint(Named, abc.ABC):
    """Base of the constraints. Called on a tensor, it gives the tensor that takes its place."""

    @abc.abstractmethod
    def projection(self, shape: Sequence[int]) -> Op:
        """The op that is applied to weights of this shape; raises ShapeError where it cannot be."""

    def __call__(self, weight: torch.Tensor) -> torch.Tensor:
        return self.projection(weight.shape).reference(weight)


@dataclass(frozen=True)
class NonNeg(Constraint):
    """Negative weights become 0."""

    def projection(self, shape: Sequence[int]) -> Op:
        return ops.Relu()


def _axes(value: Any) -> int | tuple[int, ...] | None:
    """One axis, several, or None for all."""
    if value is None:
        return None
    found: int | tuple[int, ...]
    found = f.axes(value) if isinstance(value, (list, tuple)) else f.integer(value)
    return found


@dataclass(frozen=True)
class _Norm(Constraint):
    """Base of the constraints of a norm."""

    def along(self, axis: int | Sequence[int] | None, shape: Sequence[int]) -> tuple[int, ...]:
        """The axes of weights of this shape along which the norm is taken."""
        rank = len(shape)
        listed = range(rank) if axis is None else [axis] if isinstance(axis, int) else axis
        found = tuple(sorted(a + rank if a < 0 else a for a in listed))
        if len(set(found)) < len(found) or not all(0 <= a < rank for a in found):
            raise ShapeError(
                f"{type(self).__name__}: axis must name axes 0 to {rank - 1} of weights of shape "
                f"{tuple(shape)} once each, got {axis}"
            )
        return found


@dataclass(frozen=True)
class MaxNorm(_Norm):
    """Norms above max_value become max_value."""

    max_value: float = f.option(f.at_least_zero, default=2)
    axis: int | Sequence[int] | None = f.option(_axes, default=0)

    def projection(self, shape: Sequence[int]) -> Op:
        return ops.NormWithin(self.along(self.axis, shape), 0.0, self.max_value)


@dataclass(frozen=True)
class UnitNorm(_Norm):
    """Norms become 1."""

    axis: int | Sequence[int] | None = f.option(_axes, default=0)

    def projection(self, shape: Sequence[int]) -> Op:
        return ops.NormWithin(self.along(self.axis, shape), 1.0, 1.0)


@dataclass(frozen=True)
class MinMaxNorm(_Norm):
    """Norms go the share `rate` of the way into [min_value, max_value]."""

    min_value: float = f.option(f.at_least_zero, default=0.0)
    max_value: float = f.option(f.at_least_zero, default=1.0)
    rate: float = f.option(f.within(0, 1), default=1.0)
    axis: int | Sequence[int] | None = f.option(_axes, default=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_value > self.max_value:
            bounds = f"min_value {self.min_value:g} is above max_value {self.max_value:g}"
            raise ShapeError(f"MinMaxNorm: {bounds}")

    def projection(self, shape: Sequence[int]) -> Op:
        return ops.NormWithin(self.along(self.axis, shape), self.min_value, self.max_value, self.rate)


max_norm, unit_norm, non_neg, min_max_norm = MaxNorm, UnitNorm, NonNeg, MinMaxNorm

ConstraintLike = Constraint | type[Constraint] | str | Mapping[str, Any] | None
"""The object, its class, its name ("max_norm") or Keras's dictionary of it."""

constraint = get = Finder("constraint", (MaxNorm, UnitNorm, NonNeg, MinMaxNorm))
