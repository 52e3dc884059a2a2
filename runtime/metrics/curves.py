"""Areas under curves over many thresholds, and one measure where another reaches a value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from ...graph.errors import ConvLoomError, ShapeError
from ..checks import whole
from .counts import Counting
from .stateful import EPSILON, in_unit, one_of, ratio

SHARES = {
    "recall": ("true_positives", "false_negatives"),
    "specificity": ("true_negatives", "false_positives"),
    "precision": ("true_positives", "false_positives"),
}
"""A measure -> what it is the share of the first in the sum of the two."""


class AUC(Counting):
    """The area under a curve, from counts at evenly spaced thresholds or at given ones; Keras's arguments.

    curve: "ROC" (recall over false positive rate), "PR" (precision over recall) or "PRGAIN".
    summation_method: "interpolation" (trapezoids; for "PR" the interpolation of Davis and Goadrich, "The
    relationship between precision-recall and ROC curves", 2006), "minoring" or "majoring".
    multi_label: an area for each column of the output, of which the mean counts, weighted by label_weights.
    from_logits: outputs pass a sigmoid first.
    """

    def __init__(
        self,
        num_thresholds: int = 200,
        curve: str = "ROC",
        summation_method: str = "interpolation",
        name: str | None = None,
        dtype: Any = None,
        thresholds: Sequence[float] | None = None,
        multi_label: bool = False,
        num_labels: int | None = None,
        label_weights: Sequence[float] | None = None,
        from_logits: bool = False,
    ) -> None:
        self.curve = one_of(str(curve).upper(), "AUC: curve", ("ROC", "PR", "PRGAIN"))
        methods = ("interpolation", "majoring", "minoring")
        self.summation = one_of(str(summation_method).lower(), "AUC: summation_method", methods)
        if thresholds is None:
            count = whole(num_thresholds, "AUC: num_thresholds", 2)
            inner = [place / (count - 1) for place in range(1, count - 1)]
        else:
            inner = sorted(in_unit(float(value), "AUC: a threshold") for value in thresholds)
        if num_labels is not None and not multi_label:
            raise ConvLoomError("AUC: num_labels is needed only with multi_label=True")
        super().__init__([-EPSILON, *inner, 1.0 + EPSILON], name, dtype)
        self.multi_label, self.from_logits = bool(multi_label), bool(from_logits)
        self.label_weights = None if label_weights is None else torch.tensor(label_weights).double()
        if num_labels is not None:
            self.columns = whole(num_labels, "AUC: num_labels", 1)

    def count(self, target: torch.Tensor, prediction: torch.Tensor, weight: torch.Tensor | None) -> None:
        if self.multi_label:
            if prediction.ndim != 2:
                raise ShapeError(
                    f"{self.name}: multi_label takes outputs (examples, labels), found "
                    f"{tuple(prediction.shape)}"
                )
            self.as_wide_as(self.true_positives, prediction)
            self.columns = prediction.shape[1]
        super().count(target, prediction.sigmoid() if self.from_logits else prediction, weight)

    def _weights(self, weight: torch.Tensor | None, prediction: torch.Tensor) -> torch.Tensor:
        found = super()._weights(weight, prediction)
        if self.label_weights is None or self.multi_label:
            return found
        if self.label_weights.shape != prediction.shape[-1:]:
            raise ShapeError(
                f"{self.name}: label_weights holds {len(self.label_weights)} numbers, the network has "
                f"{prediction.shape[-1]} outputs"
            )
        return found * self.label_weights.to(found)

    def compute(self) -> torch.Tensor:
        areas = self._areas().sum(0)
        if not self.multi_label:
            return areas[0]
        if self.label_weights is None:
            return areas.mean()
        weights = self.label_weights.to(areas.device)
        return ratio((areas * weights).sum(), weights.sum())

    def _areas(self) -> torch.Tensor:
        """What lies under the curve between each two neighbouring thresholds, for each column."""
        if self.curve == "PR" and self.summation == "interpolation":
            return self._between_precisions()
        x, y = self._axes()
        first, second = y[:-1], y[1:]
        heights = {
            "interpolation": lambda: (first + second) / 2.0,
            "minoring": lambda: torch.minimum(first, second),
            "majoring": lambda: torch.maximum(first, second),
        }[self.summation]()
        return (x[:-1] - x[1:]) * heights

    def _axes(self) -> tuple[torch.Tensor, torch.Tensor]:
        tp, fp, tn, fn = (getattr(self, kind) for kind in self.counted)
        if self.curve == "ROC":
            return ratio(fp, fp + tn), ratio(tp, tp + fn)
        if self.curve == "PR":
            return ratio(tp, tp + fn), ratio(tp, tp + fp)
        # Flach and Kull, "Precision-recall-gain curves", 2015; gains below 0 or without a true positive are
        # set to 0 for recall, and to 1 for precision.
        odds = ratio(tp + fn, tn + fp)
        none = tp == 0
        recall, precision = 1.0 - odds * ratio(fn, tp), 1.0 - odds * ratio(fp, tp)
        recall = torch.where(none, torch.zeros_like(recall), recall).clamp_min(0.0)
        return recall, torch.where(none, torch.ones_like(precision), precision)

    def _between_precisions(self) -> torch.Tensor:
        tp, positives = self.true_positives, self.true_positives + self.false_positives
        gained = tp[:-1] - tp[1:]
        slope = ratio(gained, (positives[:-1] - positives[1:]).clamp_min(0.0))
        intercept = tp[1:] - slope * positives[1:]
        both = (positives[:-1] > 0) & (positives[1:] > 0)
        step = torch.where(both, ratio(positives[:-1], positives[1:]), torch.ones_like(slope))
        whole = (tp[1:] + self.false_negatives[1:]).clamp_min(0.0)
        return ratio(slope * (gained + intercept * step.log()), whole)


class _AtValue(Counting):
    """The best of one measure among the thresholds at which another is at least as large as asked."""

    wanted: ClassVar[str]
    held: ClassVar[str]

    def __init__(
        self, value: float, num_thresholds: int, class_id: int | None, name: str | None, dtype: Any
    ) -> None:
        count = whole(num_thresholds, f"{type(self).__name__}: num_thresholds", 1)
        limits = [0.5] if count == 1 else [place / (count - 1) for place in range(count)]
        self.value = value
        super().__init__(limits, name, dtype, class_id=class_id)

    def compute(self) -> torch.Tensor:
        wanted, held = (
            ratio(part, part + rest)[:, 0]
            for part, rest in (
                [getattr(self, kind) for kind in SHARES[measure]] for measure in (self.wanted, self.held)
            )
        )
        return torch.where(held >= self.value, wanted, torch.zeros_like(wanted)).amax().clamp_min(0.0)


class SensitivityAtSpecificity(_AtValue):
    """The best recall where the specificity, the share of negatives found, is at least as large as given."""

    wanted, held = "recall", "specificity"

    def __init__(
        self,
        specificity: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        value = in_unit(specificity, "SensitivityAtSpecificity: specificity")
        super().__init__(value, num_thresholds, class_id, name, dtype)


class SpecificityAtSensitivity(_AtValue):
    """The best specificity where the recall is at least as large as given."""

    wanted, held = "specificity", "recall"

    def __init__(
        self,
        sensitivity: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        value = in_unit(sensitivity, "SpecificityAtSensitivity: sensitivity")
        super().__init__(value, num_thresholds, class_id, name, dtype)


class PrecisionAtRecall(_AtValue):
    """The best precision where the recall is at least as large as given."""

    wanted, held = "precision", "recall"

    def __init__(
        self,
        recall: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(in_unit(recall, "PrecisionAtRecall: recall"), num_thresholds, class_id, name, dtype)


class RecallAtPrecision(_AtValue):
    """The best recall where the precision is at least as large as given."""

    wanted, held = "recall", "precision"

    def __init__(
        self,
        precision: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        value = in_unit(precision, "RecallAtPrecision: precision")
        super().__init__(value, num_thresholds, class_id, name, dtype)
