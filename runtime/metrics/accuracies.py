"""How often a prediction is right, by the largest output, by a threshold, or among the k largest."""

from __future__ import annotations

from typing import Any

import torch

from ...graph.errors import ShapeError
from ..checks import number, whole
from .means import MeanMetricWrapper, PairMean


class Accuracy(PairMean):
    """How often a prediction equals its target."""

    def __init__(self, name: str | None = "accuracy", dtype: Any = None) -> None:
        super().__init__(lambda y_true, y_pred: y_true == y_pred, name, dtype)


class BinaryAccuracy(PairMean):
    """How often a prediction is on the target's side of a threshold, which itself belongs to 0."""

    def __init__(
        self, name: str | None = "binary_accuracy", dtype: Any = None, threshold: float = 0.5
    ) -> None:
        limit = number(threshold, "BinaryAccuracy: threshold")
        super().__init__(binary_accuracy, name, dtype, threshold=limit)


class CategoricalAccuracy(MeanMetricWrapper):
    """How often the largest output is the right class. Targets are rows of probabilities, one a class."""

    def __init__(self, name: str | None = "categorical_accuracy", dtype: Any = None) -> None:
        super().__init__(categorical_accuracy, name, dtype)

    def count(self, target: torch.Tensor, prediction: torch.Tensor, weight: torch.Tensor | None) -> None:
        if target.shape != prediction.shape:
            raise self.shapes_differ(target, prediction)
        super().count(target, prediction, weight)


class SparseCategoricalAccuracy(MeanMetricWrapper):
    """How often the largest output is the right class. Targets are class numbers."""

    def __init__(self, name: str | None = "sparse_categorical_accuracy", dtype: Any = None) -> None:
        super().__init__(sparse_categorical_accuracy, name, dtype)

    def count(self, target: torch.Tensor, prediction: torch.Tensor, weight: torch.Tensor | None) -> None:
        super().count(_numbers(self, target, prediction), prediction, weight)


class TopKCategoricalAccuracy(MeanMetricWrapper):
    """How often the right class is among the k largest outputs. Targets are rows, one number a class."""

    def __init__(
        self, k: int = 5, name: str | None = "top_k_categorical_accuracy", dtype: Any = None
    ) -> None:
        super().__init__(top_k, name, dtype, k=whole(k, "TopKCategoricalAccuracy: k", 1))

    def count(self, target: torch.Tensor, prediction: torch.Tensor, weight: torch.Tensor | None) -> None:
        if target.shape != prediction.shape:
            raise self.shapes_differ(target, prediction)
        super().count(target.argmax(-1), prediction, weight)


class SparseTopKCategoricalAccuracy(MeanMetricWrapper):
    """How often the right class is among the k largest outputs. Targets are class numbers.

    from_sorted_ids: the outputs are class numbers themselves, the best one first.
    """

    def __init__(
        self,
        k: int = 5,
        name: str | None = "sparse_top_k_categorical_accuracy",
        dtype: Any = None,
        from_sorted_ids: bool = False,
    ) -> None:
        whole(k, "SparseTopKCategoricalAccuracy: k", 1)
        super().__init__(among_first if from_sorted_ids else top_k, name, dtype, k=k)

    def count(self, target: torch.Tensor, prediction: torch.Tensor, weight: torch.Tensor | None) -> None:
        super().count(_numbers(self, target, prediction), prediction, weight)


def _numbers(metric: MeanMetricWrapper, target: torch.Tensor, prediction: torch.Tensor) -> torch.Tensor:
    """Class numbers in the shape of the prediction without its classes."""
    rows = prediction.shape[:-1]
    if target.shape not in (rows, (*rows, 1)):
        raise metric.shapes_differ(target, prediction)
    return target.reshape(rows)


def binary_accuracy(y_true: torch.Tensor, y_pred: torch.Tensor, threshold: float = 0.5) -> torch.Tensor:
    return y_true == (y_pred > threshold)


def categorical_accuracy(y_true: torch.Tensor, y_pred: torch.Tensor) -> torch.Tensor:
    return y_true.argmax(-1) == y_pred.argmax(-1)


def sparse_categorical_accuracy(y_true: torch.Tensor, y_pred: torch.Tensor) -> torch.Tensor:
    return y_true == y_pred.argmax(-1)


def top_k(y_true: torch.Tensor, y_pred: torch.Tensor, k: int = 5) -> torch.Tensor:
    """Whether the class's output is at least the k-th largest: of equal ones all count."""
    classes = y_pred.shape[-1]
    if k > classes:
        raise ShapeError(f"top k accuracy: k is {k}, but the network has {classes} outputs")
    least = y_pred.topk(k, dim=-1).values[..., -1]
    numbers = y_true.long()
    there = (numbers >= 0) & (numbers < classes)
    own = y_pred.gather(-1, numbers.clamp(0, classes - 1).unsqueeze(-1)).squeeze(-1)
    return (own >= least) & there


def among_first(y_true: torch.Tensor, y_pred: torch.Tensor, k: int = 5) -> torch.Tensor:
    return (y_true.unsqueeze(-1) == y_pred[..., :k]).any(-1)
