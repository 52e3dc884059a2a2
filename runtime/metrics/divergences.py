"""Cross-entropies, divergences and hinges as metrics: Keras's values, which clip where its losses do."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from ..checks import number
from .means import Averaging, PairMean
from .stateful import EPSILON


class BinaryCrossentropy(PairMean):
    """-(target log(prediction) + (1 - target) log(1 - prediction))."""

    def __init__(
        self,
        name: str | None = "binary_crossentropy",
        dtype: Any = None,
        from_logits: bool = False,
        label_smoothing: float = 0,
    ) -> None:
        smoothing = number(label_smoothing, "BinaryCrossentropy: label_smoothing")
        super().__init__(binary, name, dtype, from_logits=from_logits, label_smoothing=smoothing)


class CategoricalCrossentropy(PairMean):
    """-sum over the classes of target log(prediction). Targets are rows of probabilities."""

    def __init__(
        self,
        name: str | None = "categorical_crossentropy",
        dtype: Any = None,
        from_logits: bool = False,
        label_smoothing: float = 0,
        axis: int = -1,
    ) -> None:
        smoothing = number(label_smoothing, "CategoricalCrossentropy: label_smoothing")
        super().__init__(
            categorical, name, dtype, from_logits=from_logits, label_smoothing=smoothing, axis=axis
        )


class SparseCategoricalCrossentropy(Averaging):
    """-log(prediction) of the right class. Targets are class numbers.

    ignore_class: a class number whose examples count as 0, and not at all where examples have weights.
    """

    def __init__(
        self,
        name: str | None = "sparse_categorical_crossentropy",
        dtype: Any = None,
        from_logits: bool = False,
        ignore_class: int | None = None,
        axis: int = -1,
    ) -> None:
        super().__init__(name, dtype)
        self.from_logits, self.ignore_class, self.axis = from_logits, ignore_class, axis

    def count(self, target: torch.Tensor, prediction: torch.Tensor, weight: torch.Tensor | None) -> None:
        logs = _log_probabilities(prediction, self.from_logits, self.axis).movedim(self.axis, -1)
        rows = logs.shape[:-1]
        if target.shape not in (rows, (*rows, 1)):
            raise self.shapes_differ(target, prediction)
        numbers, mask = target.reshape(rows).long(), None
        if self.ignore_class is not None:
            mask = numbers != self.ignore_class
            numbers = torch.where(mask, numbers, torch.zeros_like(numbers))
        values = -logs.gather(-1, numbers.unsqueeze(-1)).squeeze(-1)
        if mask is not None:
            values = torch.where(mask, values, torch.zeros_like(values))
        self.add(values, weight, mask)


class KLDivergence(PairMean):
    """sum of target log(target / prediction), both clipped to [1e-7, 1]."""

    def __init__(self, name: str | None = "kl_divergence", dtype: Any = None) -> None:
        super().__init__(kl_divergence, name, dtype)


class Poisson(PairMean):
    """prediction - target log(prediction)."""

    def __init__(self, name: str | None = "poisson", dtype: Any = None) -> None:
        super().__init__(poisson, name, dtype)


class Hinge(PairMean):
    """max(1 - target prediction, 0); targets are -1 and 1, or 0 and 1."""

    def __init__(self, name: str | None = "hinge", dtype: Any = None) -> None:
        super().__init__(hinge, name, dtype)


class SquaredHinge(PairMean):
    """max(1 - target prediction, 0)^2; targets are -1 and 1, or 0 and 1."""

    def __init__(self, name: str | None = "squared_hinge", dtype: Any = None) -> None:
        super().__init__(lambda y_true, y_pred: hinge(y_true, y_pred).square(), name, dtype)


class CategoricalHinge(PairMean):
    """max(the largest wrong output - the right one + 1, 0). Targets are one-hot rows."""

    def __init__(self, name: str | None = "categorical_hinge", dtype: Any = None) -> None:
        super().__init__(categorical_hinge, name, dtype)


def binary(
    y_true: torch.Tensor, y_pred: torch.Tensor, from_logits: bool, label_smoothing: float
) -> torch.Tensor:
    y_true = y_true * (1.0 - label_smoothing) + 0.5 * label_smoothing
    if from_logits:
        return F.binary_cross_entropy_with_logits(y_pred, y_true, reduction="none")
    y_pred = y_pred.clamp(EPSILON, 1.0 - EPSILON)
    return -(y_true * y_pred.log() + (1.0 - y_true) * (1.0 - y_pred).log())


def categorical(
    y_true: torch.Tensor, y_pred: torch.Tensor, from_logits: bool, label_smoothing: float, axis: int
) -> torch.Tensor:
    y_true = y_true * (1.0 - label_smoothing) + label_smoothing / y_true.shape[-1]
    return -(y_true * _log_probabilities(y_pred, from_logits, axis)).sum(axis)


def _log_probabilities(y_pred: torch.Tensor, from_logits: bool, axis: int) -> torch.Tensor:
    if from_logits:
        return F.log_softmax(y_pred, dim=axis)
    return (y_pred / y_pred.sum(axis, keepdim=True)).clamp(EPSILON, 1.0 - EPSILON).log()


def kl_divergence(y_true: torch.Tensor, y_pred: torch.Tensor) -> torch.Tensor:
    y_true, y_pred = y_true.clamp(EPSILON, 1.0), y_pred.clamp(EPSILON, 1.0)
    return (y_true * (y_true / y_pred).log()).sum(-1)


def poisson(y_true: torch.Tensor, y_pred: torch.Tensor) -> torch.Tensor:
    return y_pred - y_true * (y_pred + EPSILON).log()


def hinge(y_true: torch.Tensor, y_pred: torch.Tensor) -> torch.Tensor:
    binary_labels = ((y_true == 0) | (y_true == 1)).all()  # of the whole batch, on its device
    y_true = torch.where(binary_labels, 2.0 * y_true - 1.0, y_true)
    return (1.0 - y_true * y_pred).clamp_min(0.0)


def categorical_hinge(y_true: torch.Tensor, y_pred: torch.Tensor) -> torch.Tensor:
    right = (y_true * y_pred).sum(-1)
    wrong = ((1.0 - y_true) * y_pred).amax(-1)
    return (wrong - right + 1.0).clamp_min(0.0)
