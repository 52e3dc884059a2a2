"""Losses by Keras's names, and what else may be a loss. The classes are those of `graph.losses`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..graph.errors import CompileError, ConvLoomError, nearest
from ..graph.losses import (
    LOSSES,
    BinaryCrossentropy,
    BinaryFocalCrossentropy,
    CategoricalCrossentropy,
    CategoricalFocalCrossentropy,
    CategoricalGeneralizedCrossEntropy,
    CategoricalHinge,
    Circle,
    CosineSimilarity,
    Dice,
    Hinge,
    Huber,
    KLDivergence,
    LogCosh,
    Loss,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    Poisson,
    SparseCategoricalCrossentropy,
    SquaredHinge,
    Tversky,
    loss_named,
)
from .measures import Measure, in_order, refuse_class

__all__ = [
    "LOSSES",
    "BinaryCrossentropy",
    "BinaryFocalCrossentropy",
    "CategoricalCrossentropy",
    "CategoricalFocalCrossentropy",
    "CategoricalGeneralizedCrossEntropy",
    "CategoricalHinge",
    "Circle",
    "CosineSimilarity",
    "Dice",
    "Hinge",
    "Huber",
    "KLDivergence",
    "LogCosh",
    "Loss",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanSquaredError",
    "MeanSquaredLogarithmicError",
    "Poisson",
    "SparseCategoricalCrossentropy",
    "SquaredHinge",
    "Tversky",
]

Losses = Mapping[str, Loss | Measure | None]
"""The loss of each output, None where it has none."""


def find_loss(loss: Any) -> Loss | Measure:
    """The loss that is meant: Keras's name, an object of this module, or a function.

    A function is called the way its kind is called: Keras's as (y_true, y_pred), any other as
    (prediction, target). Raises ConvLoomError for an unknown name, listing the known ones.
    """
    if isinstance(loss, str):
        try:
            return loss_named(loss)
        except CompileError as error:
            raise ConvLoomError(str(error)) from None
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


def find_losses(loss: Any, outputs: Sequence[str]) -> dict[str, Loss | Measure | None]:
    """Of each output in order: one for all of them, a list of as many, or a dictionary by their names.

    Raises ConvLoomError for other names, another number, or no loss at all.
    """
    given = by_output(loss, outputs, "loss")
    if all(entry is None for entry in given.values()):
        raise ConvLoomError("no output has a loss; give one, for example loss='mse'")
    return {name: None if entry is None else find_loss(entry) for name, entry in given.items()}


def by_output(given: Any, outputs: Sequence[str], argument: str) -> dict[str, Any]:
    """A value for each output, from one for all, a list in their order, or a dictionary by their names."""
    names = ", ".join(outputs)
    if isinstance(given, Mapping):
        for name in given:
            if name not in outputs:
                near = nearest(str(name), outputs)
                raise ConvLoomError(f"{argument}: the network has no output {name!r}{near}; it has {names}")
        return {name: given.get(name) for name in outputs}
    if not isinstance(given, list | tuple):
        return dict.fromkeys(outputs, given)
    if len(given) != len(outputs):
        raise ConvLoomError(
            f"{argument} has {len(given)} entries, and the network {len(outputs)} "
            f"output{'s' if len(outputs) > 1 else ''} ({names}); give one for each"
        )
    return dict(zip(outputs, given, strict=True))

