"""Weights of classes, as weights of the examples that belong to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from ..graph.errors import ConvLoomError
from . import checks
from .batch import Batch


def by_class(class_weight: Any, ranks: Sequence[int]) -> Callable[[Batch], Batch]:
    """What gives a batch the weights of its examples' classes; 1 for those that are not named, as in Keras.

    class_weight: class number -> weight. Of rows, of one hot or of probabilities, the class is the largest.
    ranks: of the outputs, with the batch's axis.
    Raises ConvLoomError for several outputs, whose classes differ, and where examples have weights already.
    """
    if not isinstance(class_weight, Mapping):
        raise ConvLoomError(
            f"class_weight is a {type(class_weight).__name__}; give a dictionary, class number -> weight"
        )
    if len(ranks) > 1:
        raise ConvLoomError("class_weight is for a network of one output; give sample_weight by output")
    table = {
        checks.whole(number, "a class of class_weight", 0): checks.number(weight, f"class_weight[{number}]")
        for number, weight in class_weight.items()
    }

    def weighted(batch: Batch) -> Batch:
        if batch.weights is not None:
            raise ConvLoomError("give class_weight or weights of the examples, not both")
        (target,) = batch.targets
        if target is None:
            return batch
        classes = _classes(target, ranks[0])
        weights = torch.ones(classes.shape, device=target.device)
        for number, weight in table.items():
            weights[classes == number] = weight
        return replace(batch, weights=[weights])

    return weighted


def _classes(target: torch.Tensor, rank: int) -> torch.Tensor:
    if target.dtype == torch.bool:
        target = target.int()
    if target.ndim == rank:
        target = target.argmax(-1) if target.shape[-1] > 1 else target.squeeze(-1)
    return target.round().long() if target.is_floating_point() else target.long()
