"""Distances between numbers: errors of a regression, cosine similarity, correlations of an example's row."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F

from .means import PairMean
from .stateful import EPSILON


class MeanSquaredError(PairMean):
    """(target - prediction)^2."""

    def __init__(self, name: str | None = "mean_squared_error", dtype: Any = None) -> None:
        super().__init__(squared_error, name, dtype)


class RootMeanSquaredError(PairMean):
    """The root of the mean of (target - prediction)^2."""

    def __init__(self, name: str | None = "root_mean_squared_error", dtype: Any = None) -> None:
        super().__init__(squared_error, name, dtype)

    def compute(self) -> torch.Tensor:
        return super().compute().sqrt()


class MeanAbsoluteError(PairMean):
    """|target - prediction|."""

    def __init__(self, name: str | None = "mean_absolute_error", dtype: Any = None) -> None:
        super().__init__(lambda y_true, y_pred: (y_true - y_pred).abs(), name, dtype)


class MeanAbsolutePercentageError(PairMean):
    """100 |target - prediction| / |target|, the divisor 1e-7 at least."""

    def __init__(self, name: str | None = "mean_absolute_percentage_error", dtype: Any = None) -> None:
        super().__init__(percentage, name, dtype)


class MeanSquaredLogarithmicError(PairMean):
    """(log(1 + target) - log(1 + prediction))^2, of numbers that are 1e-7 at least."""

    def __init__(self, name: str | None = "mean_squared_logarithmic_error", dtype: Any = None) -> None:
        super().__init__(logarithmic, name, dtype)


class LogCoshError(PairMean):
    """log(cosh(prediction - target))."""

    def __init__(self, name: str | None = "logcosh", dtype: Any = None) -> None:
        super().__init__(log_cosh, name, dtype)


class CosineSimilarity(PairMean):
    """The cosine between target and prediction along an axis."""

    def __init__(self, name: str | None = "cosine_similarity", dtype: Any = None, axis: int = -1) -> None:
        super().__init__(cosine, name, dtype, axis=axis)


class PearsonCorrelation(PairMean):
    """The correlation of target and prediction along an axis."""

    def __init__(self, name: str | None = "pearson_correlation", dtype: Any = None, axis: int = -1) -> None:
        super().__init__(pearson, name, dtype, axis=axis)


class ConcordanceCorrelation(PairMean):
    """How near target and prediction are to being equal along an axis: Lin's coefficient."""

    def __init__(
        self, name: str | None = "concordance_correlation", dtype: Any = None, axis: int = -1
    ) -> None:
        super().__init__(concordance, name, dtype, axis=axis)


def squared_error(y_true: torch.Tensor, y_pred: torch.Tensor) -> torch.Tensor:
    return (y_true - y_pred).square()


def percentage(y_true: torch.Tensor, y_pred: torch.Tensor) -> torch.Tensor:
    return 100.0 * ((y_true - y_pred) / y_true.abs().clamp_min(EPSILON)).abs()


def logarithmic(y_true: torch.Tensor, y_pred: torch.Tensor) -> torch.Tensor:
    first, second = (torch.log(side.clamp_min(EPSILON) + 1.0) for side in (y_pred, y_true))
    return (first - second).square()


def log_cosh(y_true: torch.Tensor, y_pred: torch.Tensor) -> torch.Tensor:
    x = y_pred - y_true
    return x + F.softplus(-2.0 * x) - math.log(2.0)


def cosine(y_true: torch.Tensor, y_pred: torch.Tensor, axis: int) -> torch.Tensor:
    return (F.normalize(y_true, dim=axis) * F.normalize(y_pred, dim=axis)).sum(axis)


def pearson(y_true: torch.Tensor, y_pred: torch.Tensor, axis: int) -> torch.Tensor:
    a, b = (_centred(side, axis) for side in (y_true, y_pred))
    a, b = (side / side.std(axis, correction=0, keepdim=True) for side in (a, b))
    return (a * b).mean(axis)


def concordance(y_true: torch.Tensor, y_pred: torch.Tensor, axis: int) -> torch.Tensor:
    mean_true, mean_pred = (side.mean(axis, keepdim=True) for side in (y_true, y_pred))
    variances = (side.var(axis, correction=0, keepdim=True) for side in (y_true, y_pred))
    spread = sum(variances, (mean_true - mean_pred).square())
    return (2.0 * (y_true - mean_pred) * (y_pred - mean_pred) / (spread + EPSILON)).mean(axis)


def _centred(values: torch.Tensor, axis: int) -> torch.Tensor:
    return values - values.mean(axis, keepdim=True)
