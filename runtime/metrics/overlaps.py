"""Intersection over union, of classes in a confusion matrix that grows over the epoch."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch

from ...graph.errors import ConvLoomError, ShapeError
from ..checks import number, whole
from .stateful import EPSILON, Metric


class IoU(Metric):
    """The mean, over chosen classes, of (both) / (either): target and prediction of that class.

    target_class_ids: the classes. ignore_class: a class of targets that is left out. sparse_y_true,
    sparse_y_pred: whether they are class numbers already, or else rows of which the largest along axis
    counts. A class that neither names has no part in the mean. As in Keras, weights are cut to whole
    numbers unless a floating point dtype is asked for.
    """

    confusion: torch.Tensor

    def __init__(
        self,
        num_classes: int,
        target_class_ids: Sequence[int],
        name: str | None = None,
        dtype: Any = None,
        ignore_class: int | None = None,
        sparse_y_true: bool = True,
        sparse_y_pred: bool = True,
        axis: int = -1,
    ) -> None:
        self.whole_weights = dtype is None or "int" in str(dtype)
        super().__init__(name, None if self.whole_weights else dtype)
        kind = type(self).__name__
        self.num_classes = whole(num_classes, f"{kind}: num_classes", 1)
        self.target_class_ids = [whole(i, f"{kind}: target_class_ids", 0) for i in target_class_ids]
        if not self.target_class_ids or max(self.target_class_ids) >= self.num_classes:
            raise ConvLoomError(
                f"{kind}: target_class_ids is {self.target_class_ids}; they are numbers below num_classes, "
                f"{self.num_classes}"
            )
        self.ignore_class = ignore_class
        self.sparse_y_true, self.sparse_y_pred, self.axis = sparse_y_true, sparse_y_pred, axis
        self.sums(confusion=(self.num_classes, self.num_classes))

    def count(self, target: torch.Tensor, prediction: torch.Tensor, weight: torch.Tensor | None) -> None:
        t = (target if self.sparse_y_true else target.argmax(self.axis)).long().flatten()
        p = (prediction if self.sparse_y_pred else prediction.argmax(self.axis)).long().flatten()
        if t.shape != p.shape:
            hint = "; give sparse_y_pred=False where the network gives a number for each class"
            raise ShapeError(f"{self.shapes_differ(target, prediction)}{hint if self.sparse_y_pred else ''}")
        counted = (t >= 0) & (t < self.num_classes) & (p >= 0) & (p < self.num_classes)
        if self.ignore_class is not None:
            counted &= t != self.ignore_class
        amounts = counted.to(torch.float64)
        if weight is not None:
            amounts = amounts * self._weights(weight, t)
        place = torch.where(counted, t * self.num_classes + p, torch.zeros_like(t))
        found = torch.zeros(self.num_classes**2, dtype=torch.float64, device=t.device)
        self.confusion += found.scatter_add_(0, place, amounts).view_as(self.confusion)

    def _weights(self, weight: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        weight = weight.flatten()
        if self.whole_weights and weight.dtype.is_floating_point:
            warnings.warn(
                f"{self.name} cuts weights to whole numbers, as Keras does; dtype='float32' keeps them as "
                f"they are",
                stacklevel=2,
            )
            weight = weight.long()
        if weight.numel() not in (1, like.numel()):
            if like.numel() % weight.numel():
                raise ShapeError(f"{self.name}: {weight.numel()} weights for {like.numel()} elements")
            weight = weight.repeat_interleave(like.numel() // weight.numel())  # of an example, for all of it
        return weight.expand(like.shape).to(torch.float64)

    def compute(self) -> torch.Tensor:
        both = self.confusion.diagonal()
        either = self.confusion.sum(0) + self.confusion.sum(1) - both
        chosen = torch.tensor(self.target_class_ids, device=both.device)
        both, either = both.index_select(0, chosen), either.index_select(0, chosen)
        there = either > 1e-9
        shares = torch.where(there, both / (either + EPSILON), torch.zeros_like(both))
        return shares.sum() / (there.sum() + EPSILON)


class BinaryIoU(IoU):
    """IoU of the classes 0 and 1; a prediction that reaches the threshold is of class 1."""

    def __init__(
        self,
        target_class_ids: Sequence[int] = (0, 1),
        threshold: float = 0.5,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(2, target_class_ids, name, dtype)
        self.threshold = number(threshold, "BinaryIoU: threshold")

    def count(self, target: torch.Tensor, prediction: torch.Tensor, weight: torch.Tensor | None) -> None:
        super().count(target, (prediction >= self.threshold).to(prediction.dtype), weight)


class MeanIoU(IoU):
    """IoU of all classes that there are."""

    def __init__(
        self,
        num_classes: int,
        name: str | None = None,
        dtype: Any = None,
        ignore_class: int | None = None,
        sparse_y_true: bool = True,
        sparse_y_pred: bool = True,
        axis: int = -1,
    ) -> None:
        classes = range(whole(num_classes, f"{type(self).__name__}: num_classes", 1))
        super().__init__(num_classes, classes, name, dtype, ignore_class, sparse_y_true, sparse_y_pred, axis)


class OneHotIoU(IoU):
    """IoU of chosen classes, of one-hot targets."""

    def __init__(
        self,
        num_classes: int,
        target_class_ids: Sequence[int],
        name: str | None = None,
        dtype: Any = None,
        ignore_class: int | None = None,
        sparse_y_pred: bool = False,
        axis: int = -1,
    ) -> None:
        super().__init__(num_classes, target_class_ids, name, dtype, ignore_class, False, sparse_y_pred, axis)


class OneHotMeanIoU(MeanIoU):
    """IoU of all classes, of one-hot targets."""

    def __init__(
        self,
        num_classes: int,
        name: str | None = None,
        dtype: Any = None,
        ignore_class: int | None = None,
        sparse_y_pred: bool = False,
        axis: int = -1,
    ) -> None:
        super().__init__(num_classes, name, dtype, ignore_class, False, sparse_y_pred, axis)
