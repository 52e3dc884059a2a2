"""F scores of classes, and the share of a variance that is explained."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from ...graph.errors import ConvLoomError, ShapeError
from ..checks import whole
from .stateful import EPSILON, Metric, one_of, same_rank


class FBetaScore(Metric):
    """(1 + beta^2) precision recall / (beta^2 precision + recall), of each class or one average of them.

    average: None (a value for each class), "micro" (of all classes' counts together), "macro" (the mean) or
    "weighted" (by how often a class is right). threshold: outputs above it count; None: the largest one.
    Targets are one-hot rows, (examples, classes).
    """

    true_positives: torch.Tensor
    false_positives: torch.Tensor
    false_negatives: torch.Tensor

    def __init__(
        self,
        average: str | None = None,
        beta: float = 1.0,
        threshold: float | None = None,
        name: str | None = "fbeta_score",
        dtype: Any = None,
    ) -> None:
        super().__init__(name, dtype)
        kind = type(self).__name__
        self.average = one_of(average, f"{kind}: average", (None, "micro", "macro", "weighted"))
        if not isinstance(beta, float) or beta <= 0.0:
            raise ConvLoomError(f"{kind}: beta is {beta!r}; it is a float above 0, such as 1.0")
        if threshold is not None and (not isinstance(threshold, float) or not 0.0 < threshold <= 1.0):
            raise ConvLoomError(f"{kind}: threshold is {threshold!r}; it is a float above 0, at most 1.0")
        self.beta, self.threshold = beta, threshold
        self.sums(true_positives=(), false_positives=(), false_negatives=())  # the first batch widens them

    def count(self, target: torch.Tensor, prediction: torch.Tensor, weight: torch.Tensor | None) -> None:
        target, chosen = target.to(prediction.dtype), self._chosen(target, prediction).to(prediction.dtype)
        if weight is not None:
            weight = weight.to(prediction.dtype).reshape(-1, 1)
        for name, hits in (
            ("true_positives", chosen * target),
            ("false_positives", chosen * (1 - target)),
            ("false_negatives", (1 - chosen) * target),
        ):
            amounts = hits if weight is None else hits * weight
            setattr(self, name, getattr(self, name) + amounts.sum(0, dtype=torch.float64))

    def _chosen(self, target: torch.Tensor, prediction: torch.Tensor) -> torch.Tensor:
        """Which outputs say yes."""
        if prediction.ndim != 2 or target.shape != prediction.shape:
            raise ShapeError(
                f"{self.shapes_differ(target, prediction)}; it takes two of shape (examples, classes)"
            )
        self.as_wide_as(self.true_positives, prediction)
        if self.threshold is not None:
            return prediction > self.threshold
        return (prediction >= prediction.amax(-1, keepdim=True)) & (prediction.abs() > 1e-9)

    def compute(self) -> torch.Tensor:
        tp, fp, fn = self.true_positives, self.false_positives, self.false_negatives
        if self.average == "micro":
            tp, fp, fn = tp.sum(), fp.sum(), fn.sum()
        precision, recall = tp / (tp + fp + EPSILON), tp / (tp + fn + EPSILON)
        squared = self.beta**2
        scores = precision * recall / (squared * precision + recall + EPSILON) * (1 + squared)
        if self.average == "weighted":
            return (scores * (tp + fn)).sum() / ((tp + fn).sum() + EPSILON)
        return scores if self.average is None else scores.mean()


class F1Score(FBetaScore):
    """2 precision recall / (precision + recall)."""

    def __init__(
        self,
        average: str | None = None,
        threshold: float | None = None,
        name: str | None = "f1_score",
        dtype: Any = None,
    ) -> None:
        super().__init__(average, 1.0, threshold, name, dtype)


class R2Score(Metric):
    """1 - (squared errors) / (variance of the targets), of each output or one average of them.

    class_aggregation: "uniform_average", "variance_weighted_average", or None for a value each.
    num_regressors: how many inputs explain it, for the adjusted score; 0 leaves it as it is.
    Targets and outputs have shape (examples, outputs).
    """

    squares: torch.Tensor
    totals: torch.Tensor
    residuals: torch.Tensor
    weights: torch.Tensor
    elements: torch.Tensor

    def __init__(
        self,
        class_aggregation: str | None = "uniform_average",
        num_regressors: int = 0,
        name: str | None = "r2_score",
        dtype: Any = None,
    ) -> None:
        super().__init__(name, dtype)
        known = (None, "uniform_average", "variance_weighted_average")
        self.aggregation = one_of(class_aggregation, "R2Score: class_aggregation", known)
        self.num_regressors = whole(num_regressors, "R2Score: num_regressors", 0)
        self.sums(squares=(), totals=(), residuals=(), weights=(), elements=())  # the first batch widens them

    def count(self, target: torch.Tensor, prediction: torch.Tensor, weight: torch.Tensor | None) -> None:
        given = target
        target, prediction = same_rank(target.to(prediction.dtype), prediction)
        if prediction.ndim != 2 or target.shape != prediction.shape:
            raise ShapeError(
                f"{self.shapes_differ(given, prediction)}; it takes two of shape (examples, outputs)"
            )
        self.as_wide_as(self.totals, prediction)
        y, error = target.double(), (target - prediction).double()
        weight = torch.ones_like(y) if weight is None else weight.to(y)
        weight = (weight[:, None] if weight.ndim == 1 else weight).expand(y.shape)
        self.totals = self.totals + (y * weight).sum(0)
        self.squares = self.squares + (y.square() * weight).sum(0)
        self.residuals = self.residuals + (error.square() * weight).sum(0)
        self.weights = self.weights + weight.sum(0)
        self.elements = self.elements + y.numel()

    def compute(self) -> torch.Tensor:
        variance = self.squares - self.totals.square() / self.weights
        scores = 1.0 - self.residuals / variance
        scores = torch.where(scores.isinf(), torch.zeros_like(scores), scores)
        if self.aggregation == "uniform_average":
            scores = scores.mean()
        elif self.aggregation == "variance_weighted_average":
            scores = (variance * scores).sum() / variance.sum()
        return self._adjusted(scores) if self.num_regressors else scores

    def _adjusted(self, scores: torch.Tensor) -> torch.Tensor:
        elements = float(self.elements)
        if self.num_regressors >= elements - 1:
            warnings.warn(
                f"{self.name}: {self.num_regressors} regressors for {elements:.0f} targets; the score is not "
                f"adjusted",
                stacklevel=2,
            )
            return scores
        return 1.0 - (1.0 - scores) * (elements - 1.0) / (elements - self.num_regressors - 1.0)
