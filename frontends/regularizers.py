"""Regularizers, with Keras's names, arguments and defaults: what weights and activations add to the loss.

    L.Conv2D(8, 3, kernel_regularizer=cl.regularizers.L2(1e-4), activity_regularizer="l1")

One of weights counts its trainable weight once, however often the layer is called; one of activities counts
each result of each call, divided by the size of the batch.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch

from ..graph import ops
from ..graph.errors import ShapeError, UnsupportedLayerError
from ..graph.op import Op
from . import fields as f
from .by_name import Finder, Named


@dataclass(frozen=True)
class Regularizer(Named, abc.ABC):
    """Base of the regularizers. Called on a tensor, it gives one number, to which gradients flow."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) is None:  # for which Keras takes the default
                object.__setattr__(self, field.name, field.default)
        super().__post_init__()

    @abc.abstractmethod
    def penalty(self) -> Op:
        """The op that computes it."""

    def __call__(self, weight: torch.Tensor) -> torch.Tensor:
        return self.penalty().reference(weight)

    def check(self, shape: Sequence[int]) -> None:
        """Raise ShapeError for weights of another shape than it takes."""


@dataclass(frozen=True)
class L1(Regularizer):
    """l1 * sum of |w|."""

    l1: float = f.option(f.at_least_zero, default=0.01)

    def penalty(self) -> Op:
        return ops.SizePenalty(l1=self.l1)


@dataclass(frozen=True)
class L2(Regularizer):
    """l2 * sum of w^2."""

    l2: float = f.option(f.at_least_zero, default=0.01)

    def penalty(self) -> Op:
        return ops.SizePenalty(l2=self.l2)


@dataclass(frozen=True)
class L1L2(Regularizer):
    """l1 * sum of |w| + l2 * sum of w^2."""

    l1: float = f.option(f.at_least_zero, default=0.0)
    l2: float = f.option(f.at_least_zero, default=0.0)

    def penalty(self) -> Op:
        return ops.SizePenalty(self.l1, self.l2)


@dataclass(frozen=True)
class OrthogonalRegularizer(Regularizer):
    """factor times the mean of |u . v| over the pairs of unit rows, or columns, of a matrix of weights."""

    factor: float = f.option(f.at_least_zero, default=0.01)
    mode: Literal["rows", "columns"] = f.option(f.choice("rows", "columns"), default="rows")

    def penalty(self) -> Op:
        return ops.OrthogonalPenalty(self.factor, self.mode == "columns")

    def check(self, shape: Sequence[int]) -> None:
        if len(shape) != 2:
            raise ShapeError(f"OrthogonalRegularizer takes a matrix, found weights of shape {tuple(shape)}")


l1, l2, l1_l2, orthogonal_regularizer = L1, L2, L1L2, OrthogonalRegularizer

RegularizerLike = Regularizer | type[Regularizer] | str | Mapping[str, Any] | None
"""The object, its class, its name ("l2") or Keras's dictionary of it."""

regularizer = get = Finder(
    "regularizer",
    (L1, L2, L1L2, OrthogonalRegularizer),
    {"l1_l2": L1L2(0.01, 0.01)},  # as Keras 2 and Keras 3's documentation have it; "l1l2" is L1L2(), of zeros
)


def of_activity(value: Any) -> Regularizer | None:
    """A regularizer of a layer's results, whose batch has no fixed size."""
    found: Regularizer | None = get(value)
    if isinstance(found, OrthogonalRegularizer):
        raise UnsupportedLayerError("is an OrthogonalRegularizer, which is of weights; use L1, L2 or L1L2")
    return found
