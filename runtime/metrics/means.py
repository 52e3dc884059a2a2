"""Means over the examples of an epoch, and sums: the state of every metric that gives a value an example."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ...graph.errors import ShapeError
from .stateful import Metric, ratio, same_rank, to_tensor

Values = Callable[..., torch.Tensor]
"""(y_true, y_pred, ...) -> one value an example, or more, of which the mean over the further axes counts."""


class Averaging(Metric):
    """A weighted mean over examples; `add` takes them in."""

    total: torch.Tensor
    weights: torch.Tensor

    def __init__(self, name: str | None = None, dtype: Any = None) -> None:
        super().__init__(name, dtype)
        self.sums(total=(), weights=())

    def add(
        self, values: torch.Tensor, weight: torch.Tensor | None, mask: torch.Tensor | None = None
    ) -> None:
        """Take in values; mask: those that a weight counts for at all."""
        values, weight = by_example(values.to(self.computes_in), weight, self.name, torch.mean, mask)
        self.total += values.sum(dtype=torch.float64)
        if weight is not None:
            self.weights += weight.sum(dtype=torch.float64)
        else:
            self.weights += len(values) if values.ndim else 1

    def compute(self) -> torch.Tensor:
        return ratio(self.total, self.weights)


class _OfValues(Metric):
    """A metric of one series of numbers, with no target: `update_state(values, sample_weight)`."""

    def update(self, values: Any, sample_weight: Any = None) -> None:  # type: ignore[override]
        values = to_tensor(values).detach()
        self.follow(values)
        if sample_weight is not None:
            sample_weight = to_tensor(sample_weight).detach().to(values.device)
        self.take(values, sample_weight)

    def update_state(self, values: Any, sample_weight: Any = None) -> None:  # type: ignore[override]
        self.update(values, sample_weight)

    def take(self, values: torch.Tensor, weight: torch.Tensor | None) -> None:
        raise NotImplementedError


class Mean(_OfValues, Averaging):
    """The mean of values: of each example's own mean, weighted."""

    def __init__(self, name: str | None = "mean", dtype: Any = None) -> None:
        super().__init__(name, dtype)

    def take(self, values: torch.Tensor, weight: torch.Tensor | None) -> None:
        self.add(values, weight)


class Sum(_OfValues):
    """The sum of values."""

    total: torch.Tensor

    def __init__(self, name: str | None = "sum", dtype: Any = None) -> None:
        super().__init__(name, dtype)
        self.sums(total=())

    def take(self, values: torch.Tensor, weight: torch.Tensor | None) -> None:
        values, _ = by_example(values.to(self.computes_in), weight, self.name, torch.sum)
        self.total += values.sum(dtype=torch.float64)

    def compute(self) -> torch.Tensor:
        return self.total.clone()


class MeanMetricWrapper(Averaging):
    """The mean over the examples of what a function of Keras's kind, fn(y_true, y_pred, **options), gives."""

    def __init__(self, fn: Values, name: str | None = None, dtype: Any = None, **options: Any) -> None:
        super().__init__(name or getattr(fn, "__name__", type(fn).__name__), dtype)
        self.fn, self.options = fn, options

    def count(self, target: torch.Tensor, prediction: torch.Tensor, weight: torch.Tensor | None) -> None:
        self.add(self.fn(target, prediction, **self.options), weight)


class PairMean(MeanMetricWrapper):
    """Of functions that compare element with element: target and prediction come in one shape and type."""

    def count(self, target: torch.Tensor, prediction: torch.Tensor, weight: torch.Tensor | None) -> None:
        given = target
        target, prediction = same_rank(target.to(prediction.dtype), prediction)
        if target.shape != prediction.shape:
            raise self.shapes_differ(given, prediction)
        super().count(target, prediction, weight)


def by_example(
    values: torch.Tensor,
    weight: torch.Tensor | None,
    name: str,
    reduce: Callable[..., torch.Tensor],
    mask: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """One weighted value an example, and its weight: weights of a part of the axes count for all behind it.

    reduce: torch.mean or torch.sum, over the axes that are not the batch's.
    """
    if weight is not None:
        weight = weight.to(values.dtype)
        if mask is not None:
            weight = weight.reshape(*weight.shape, *[1] * (mask.ndim - weight.ndim)) * mask
        values, weight = same_rank(values, weight)
        if values.ndim > weight.ndim > 0:
            values = reduce(values, dim=tuple(range(weight.ndim, values.ndim)))
        given = weight
        try:
            weight = weight.expand(values.shape)
        except RuntimeError:
            raise ShapeError(
                f"{name}: weights have shape {tuple(given.shape)}, the values to weigh {tuple(values.shape)}"
            ) from None
        values = values * weight
        if weight.ndim > 1:
            weight = reduce(weight, dim=tuple(range(1, weight.ndim)))
    if values.ndim > 1:
        values = reduce(values, dim=tuple(range(1, values.ndim)))
    return values, weight
