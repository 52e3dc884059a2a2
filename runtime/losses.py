"""Losses by Keras's names, and what else may be a loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from ..graph.errors import ConvLoomError, ShapeError, unknown
from ..graph.words import words
from .measures import Measure, in_order, refuse_class


@dataclass(frozen=True)
class Loss:
    """A loss that is compiled with the network: the mean over the batch, as Keras's. Base of those below.

    from_logits: of the cross-entropies: the network ends without a softmax or sigmoid, in logits.
    """

    from_logits: bool = False

    keras_name: ClassVar[str] = ""
    graph_name: ClassVar[str] = ""
    """Its key in `graph.losses.LOSSES`."""
    classifies: ClassVar[bool] = True
    takes_rows: ClassVar[bool] = False
    """Whether a target is a row of probabilities, one a class."""

    def check(self, target: torch.Tensor, output: tuple[int, ...]) -> None:
        """Raises ShapeError where targets (examples, ...) do not fit outputs of this shape."""
        wanted = (len(target), *output)
        if target.shape == wanted or (wanted[-1] == 1 and target.shape == wanted[:-1]):
            return
        numbers = target.shape in (wanted[:-1], (*wanted[:-1], 1))
        hint = "; for class numbers use the loss 'sparse_categorical_crossentropy'" if numbers else ""
        raise ShapeError(
            f"{self.keras_name}: targets have shape {tuple(target.shape)}, "
            f"but the network's output is {wanted}{hint if self.takes_rows else ''}"
        )

    def encode(self, target: torch.Tensor, output: tuple[int, ...]) -> torch.Tensor:
        """Targets that have been checked, as floating point in the output's shape."""
        target = target.reshape(len(target), *output)
        return target if target.dtype.is_floating_point else target.to(torch.float32)


@dataclass(frozen=True)
class CategoricalCrossentropy(Loss):
    """-sum over the classes of target * log(prediction). Targets are rows of probabilities, often one-hot."""

    keras_name: ClassVar[str] = "categorical_crossentropy"
    graph_name: ClassVar[str] = "categorical_crossentropy"
    takes_rows: ClassVar[bool] = True


@dataclass(frozen=True)
class SparseCategoricalCrossentropy(Loss):
    """-log(prediction) of the right class. Targets are class numbers, (batch, ...) or (batch, ..., 1)."""

    keras_name: ClassVar[str] = "sparse_categorical_crossentropy"
    graph_name: ClassVar[str] = "categorical_crossentropy"

    def check(self, target: torch.Tensor, output: tuple[int, ...]) -> None:
        rows, classes = (len(target), *output[:-1]), output[-1]
        if classes > 1 and target.shape == (*rows, classes):
            raise ShapeError(
                f"{self.keras_name}: targets have shape {tuple(target.shape)}, expected {rows}; "
                f"for one-hot rows use 'categorical_crossentropy'"
            )
        if target.dtype.is_floating_point or target.dtype.is_complex or target.dtype == torch.bool:
            kind = str(target.dtype).removeprefix("torch.")
            raise ShapeError(f"{self.keras_name}: targets must be integers (class numbers), found {kind}")
        if target.shape not in (rows, (*rows, 1)):
            raise ShapeError(f"{self.keras_name}: targets have shape {tuple(target.shape)}, expected {rows}")
        low, high = int(target.min()), int(target.max())
        if low < 0 or high >= classes:
            raise ShapeError(
                f"{self.keras_name}: found class {low if low < 0 else high}, "
                f"but the network has {classes} outputs: classes 0 to {classes - 1}"
            )

    def encode(self, target: torch.Tensor, output: tuple[int, ...]) -> torch.Tensor:
        numbers = target.reshape(len(target), *output[:-1]).long()
        return F.one_hot(numbers, output[-1]).to(torch.float32)


@dataclass(frozen=True)
class BinaryCrossentropy(Loss):
    """-(target * log(prediction) + (1 - target) * log(1 - prediction)), the mean over all outputs."""

    keras_name: ClassVar[str] = "binary_crossentropy"
    graph_name: ClassVar[str] = "binary_crossentropy"


@dataclass(frozen=True)
class MeanSquaredError(Loss):
    """(prediction - target)^2, the mean over all outputs."""

    keras_name: ClassVar[str] = "mean_squared_error"
    graph_name: ClassVar[str] = "mean_squared_error"
    classifies: ClassVar[bool] = False


LOSSES: dict[str, type[Loss]] = {
    **{
        loss.keras_name: loss
        for loss in (
            CategoricalCrossentropy,
            SparseCategoricalCrossentropy,
            BinaryCrossentropy,
            MeanSquaredError,
        )
    },
    "mse": MeanSquaredError,
}

_OTHERS = ", or a function (prediction, target) -> scalar"


def find_loss(loss: Any) -> Loss | Measure:
    """The loss that is meant: Keras's name, an object of this module, or a function.

    A function is called the way its kind is called: Keras's as (y_true, y_pred), any other as
    (prediction, target). Raises ConvLoomError for an unknown name, listing the known ones.
    """
    if isinstance(loss, str):
        if loss.lower() not in LOSSES:
            raise ConvLoomError(unknown("loss", loss, LOSSES, words(_OTHERS)))
        return LOSSES[loss.lower()]()
    if isinstance(loss, Loss):
        return loss
    if isinstance(loss, type) and issubclass(loss, Loss):
        return loss()
    refuse_class("loss", loss)
    if not callable(loss):
        raise ConvLoomError(
            f"loss {loss!r:.60} is neither a name nor a function (prediction, target) -> scalar"
        )
    found: Callable[..., Any] = loss
    return in_order(found)
