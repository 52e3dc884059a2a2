"""True and false positives and negatives over thresholds, and the shares of them: precision and recall."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from ...graph.errors import ConvLoomError, ShapeError
from ..checks import whole
from .stateful import EPSILON, Metric, in_unit, ratio, same_rank

NOTHING = -1e10
"""What stands for the outputs beside the k largest; below every threshold."""


class Thresholds:
    """Numbers that predictions are held to: a prediction above one counts as positive there.

    Where they divide [0, 1] evenly, the place of a prediction is computed, in float32 as Keras does; else it
    is searched. Either way a batch costs as much as it has predictions, however many thresholds there are.
    """

    def __init__(self, values: Sequence[float]) -> None:
        self.values = np.asarray(values, np.float64)
        count = len(self.values)
        even = np.arange(count, dtype=np.float32) / max(count - 1, 1)
        self.even = count > 2 and bool(np.allclose(self.values, even, atol=EPSILON))
        self.from_below = bool(self.values[0] < 0.0 or self.values[-1] > 1.0)
        self.order = np.argsort(self.values, kind="stable")
        self.sorted = torch.as_tensor(self.values[self.order])
        self.places = torch.as_tensor(np.argsort(self.order, kind="stable"))

    def __len__(self) -> int:
        return len(self.values)

    def to(self, device: torch.device) -> Thresholds:
        if self.sorted.device != device:
            self.sorted, self.places = self.sorted.to(device), self.places.to(device)
        return self

    def below(self, prediction: torch.Tensor) -> torch.Tensor:
        """How many of the thresholds, from the smallest, each prediction is above."""
        if not self.even:
            return torch.bucketize(prediction.contiguous(), self.sorted.to(prediction.dtype), right=False)
        count = len(self)
        above = (prediction.clamp(0.0, 1.0) * (count - 1)).ceil()
        return above.nan_to_num(0.0).clamp(1 if self.from_below else 0, count).long()

    def sums(self, below: torch.Tensor, amounts: torch.Tensor) -> torch.Tensor:
        """For each threshold, in the order they were given, the sum of the amounts of what is above it.

        below, amounts: (predictions, columns), a sum for each column. Gives (thresholds, columns).
        """
        count, columns = len(self), below.shape[1]
        flat = below * columns + torch.arange(columns, device=below.device)
        parts = torch.zeros((count + 1) * columns, dtype=torch.float64, device=below.device)
        parts.scatter_add_(0, flat.flatten(), amounts.to(torch.float64).flatten())
        above = parts.view(count + 1, columns).flip(0).cumsum(0).flip(0)[1:]
        return above.index_select(0, self.places)


class Counting(Metric):
    """Counts, over thresholds, of what is rightly and wrongly taken for positive.

    counted: of "true_positives", "false_positives", "true_negatives" and "false_negatives", those needed.
    """

    true_positives: torch.Tensor
    false_positives: torch.Tensor
    true_negatives: torch.Tensor
    false_negatives: torch.Tensor

    counted: ClassVar[tuple[str, ...]] = (
        "true_positives", "false_positives", "true_negatives", "false_negatives"
    )  # fmt: skip

    def __init__(
        self,
        thresholds: Sequence[float],
        name: str | None,
        dtype: Any,
        top_k: int | None = None,
        class_id: int | None = None,
    ) -> None:
        super().__init__(name, dtype)
        kind = type(self).__name__
        self.limits = Thresholds(thresholds)
        self.top_k = None if top_k is None else whole(top_k, f"{kind}: top_k", 1)
        self.class_id = None if class_id is None else whole(class_id, f"{kind}: class_id", 0)
        self.columns = 1
        """How many outputs are counted apart; the first batch widens the states to as many."""
        self.sums(**dict.fromkeys(self.counted, (len(self.limits), 1)))

    @property
    def thresholds(self) -> list[float]:
        return [float(value) for value in self.limits.values]

    @property
    def num_thresholds(self) -> int:
        return len(self.limits)

    def count(self, target: torch.Tensor, prediction: torch.Tensor, weight: torch.Tensor | None) -> None:
        target, prediction, weights = self._aligned(target, prediction, weight)
        limits = self.limits.to(prediction.device)
        below = limits.below(prediction)
        right = torch.where(target != 0, weights, torch.zeros_like(weights))
        for above_is, below_is, amounts in (
            ("true_positives", "false_negatives", right),
            ("false_positives", "true_negatives", weights - right),
        ):
            if above_is not in self.counted and below_is not in self.counted:
                continue
            above = limits.sums(below, amounts)
            self._add(above_is, above)
            self._add(below_is, amounts.sum(0, dtype=torch.float64) - above)

    def _add(self, kind: str, amounts: torch.Tensor) -> None:
        if kind in self.counted:
            setattr(self, kind, getattr(self, kind) + amounts)

    def _aligned(
        self, target: torch.Tensor, prediction: torch.Tensor, weight: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Target, prediction and weight as (elements, columns)."""
        given = target
        prediction, target = same_rank(prediction, target)
        if target.shape != prediction.shape:
            raise self.shapes_differ(given, prediction)
        if weight is not None:
            _, weight = same_rank(target, weight.unsqueeze(-1), expand_rank_1=False)
        if self.top_k is not None:
            prediction = self._largest(prediction)
        if self.class_id is not None:
            if prediction.ndim < 2 or self.class_id >= prediction.shape[-1]:
                raise ShapeError(
                    f"{self.name}: class_id is {self.class_id}, but the network's output is "
                    f"{tuple(prediction.shape)}; its last axis must hold that class"
                )
            chosen = slice(self.class_id, self.class_id + 1)
            target, prediction = target[..., chosen], prediction[..., chosen]
        return (
            target.reshape(-1, self.columns),
            prediction.reshape(-1, self.columns),
            self._weights(weight, prediction).reshape(-1, self.columns),
        )

    def _weights(self, weight: torch.Tensor | None, prediction: torch.Tensor) -> torch.Tensor:
        if weight is None:
            return torch.ones_like(prediction)
        try:
            return weight.to(prediction.dtype).expand(prediction.shape)
        except RuntimeError:
            raise ShapeError(
                f"{self.name}: weights have shape {tuple(weight.shape[:-1])}, the network's output "
                f"{tuple(prediction.shape)}; give one an example"
            ) from None

    def _largest(self, prediction: torch.Tensor) -> torch.Tensor:
        assert self.top_k is not None
        if self.top_k > prediction.shape[-1]:
            raise ShapeError(
                f"{self.name}: top_k is {self.top_k}, but the network has {prediction.shape[-1]} outputs"
            )
        found = prediction.topk(self.top_k, dim=-1)
        return torch.full_like(prediction, NOTHING).scatter(-1, found.indices, found.values)

    def over(self, part: str, *whole: str) -> torch.Tensor:
        """One count over the sum of several, for each threshold; one number where there is one threshold."""
        found = ratio(getattr(self, part), sum(getattr(self, name) for name in whole))
        return self._plain(found)

    def _plain(self, found: torch.Tensor) -> torch.Tensor:
        return found[0, 0] if len(self.limits) == 1 else found[:, 0]


def given_thresholds(thresholds: Any, kind: str, otherwise: float = 0.5) -> list[float]:
    """One number, or a list of them, from 0 to 1; raises ConvLoomError."""
    if thresholds is None:
        return [otherwise]
    found = list(thresholds) if isinstance(thresholds, list | tuple | np.ndarray) else [thresholds]
    if not found:
        raise ConvLoomError(f"{kind}: thresholds is empty; leave it out for {otherwise}")
    return [in_unit(float(t) if isinstance(t, np.number) else t, f"{kind}: a threshold") for t in found]


class _Count(Counting):
    def __init__(self, thresholds: Any = None, name: str | None = None, dtype: Any = None) -> None:
        super().__init__(given_thresholds(thresholds, type(self).__name__), name, dtype)

    def compute(self) -> torch.Tensor:
        (kind,) = self.counted
        return self._plain(getattr(self, kind)).clone()


class TruePositives(_Count):
    """How many of the targets that are 1 lie above a threshold; a number for each threshold."""

    counted = ("true_positives",)


class TrueNegatives(_Count):
    """How many of the targets that are 0 do not lie above a threshold."""

    counted = ("true_negatives",)


class FalsePositives(_Count):
    """How many of the targets that are 0 lie above a threshold."""

    counted = ("false_positives",)


class FalseNegatives(_Count):
    """How many of the targets that are 1 do not lie above a threshold."""

    counted = ("false_negatives",)


class _Share(Counting):
    def __init__(
        self,
        thresholds: Any = None,
        top_k: int | None = None,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        limits = given_thresholds(thresholds, type(self).__name__, 0.5 if top_k is None else NOTHING)
        super().__init__(limits, name, dtype, top_k, class_id)

    def compute(self) -> torch.Tensor:
        return self.over("true_positives", *self.counted)


class Precision(_Share):
    """The share of right ones in what is taken for positive.

    thresholds: one, or a list, for a value each. top_k: only the k largest outputs of an example can be
    positive. class_id: only this class counts.
    """

    counted = ("true_positives", "false_positives")


class Recall(_Share):
    """The share of the positive ones that are found; arguments as Precision's."""

    counted = ("true_positives", "false_negatives")
