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
    if isinstance(loss, Mapping):
        for name in loss:
            if name not in outputs:
                raise ConvLoomError(
                    f"a loss is given for {name!r}, which is no output{nearest(str(name), outputs)}; the "
                    f"network has {', '.join(outputs)}"
                )
        given = [loss.get(name) for name in outputs]
    elif isinstance(loss, list | tuple):
        given = list(loss)
        if len(given) != len(outputs):
            raise ConvLoomError(
                f"{len(given)} losses are given for {len(outputs)} outputs ({', '.join(outputs)}); give one "
                f"for each, None where an output has none"
            )
    else:
        given = [loss] * len(outputs)
    if all(entry is None for entry in given):
        raise ConvLoomError("no output has a loss; give one, for example loss='mse'")
    found = [None if entry is None else find_loss(entry) for entry in given]
    return dict(zip(outputs, found, strict=True))
