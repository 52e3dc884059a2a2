"""Losses behind a network: of which of its values, and what they come to together.

A cross-entropy is taken of the logits where the network's last step is the softmax or the sigmoid that
belongs to it. As a function of the weights that is the same number, and it still learns where the
probabilities have rounded to 0 or 1; of anything else it is taken of the prediction itself, as Keras does.
This is settled once, when the loss is added, so that training and validation, fused and unfused, compute the
same function.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from ..errors import CompileError, unknown
from ..ir import Graph
from ..ops import Add
from ..words import words
from .base import Loss
from .builder import LossBuilder, Terms
from .elementwise import (
    BinaryCrossentropy,
    BinaryFocalCrossentropy,
    Hinge,
    Huber,
    KLDivergence,
    LogCosh,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    Poisson,
    SquaredHinge,
)
from .fitting import RULE, misfits
from .overlap import Dice, Tversky
from .pairs import Circle
from .rows import (
    CategoricalCrossentropy,
    CategoricalFocalCrossentropy,
    CategoricalGeneralizedCrossEntropy,
    CategoricalHinge,
    CosineSimilarity,
    SparseCategoricalCrossentropy,
)
from .weights import position_weights

CLASSES: tuple[type[Loss], ...] = (
    CategoricalCrossentropy,
    SparseCategoricalCrossentropy,
    BinaryCrossentropy,
    MeanSquaredError,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredLogarithmicError,
    Huber,
    LogCosh,
    KLDivergence,
    Poisson,
    CosineSimilarity,
    Hinge,
    SquaredHinge,
    CategoricalHinge,
    BinaryFocalCrossentropy,
    CategoricalFocalCrossentropy,
    CategoricalGeneralizedCrossEntropy,
    Dice,
    Tversky,
    Circle,
)

LOSSES: dict[str, type[Loss]] = {name: loss for loss in CLASSES for name in (loss.keras_name, *loss.aliases)}
"""By Keras's names, which are taken in any case, and by those of the classes."""

_BY_CLASS = {loss.__name__.lower(): loss for loss in CLASSES}

_REFUSED = {
    "ctc": "it aligns sequences of unequal lengths, step by step, which is no sum over elements or rows; "
    "torch.nn.CTCLoss computes it, in a function (prediction, target)",
}


def loss_class(name: str) -> type[Loss]:
    """The loss of this name. Raises CompileError for one that is unknown, or that is not here, with why."""
    key = name.lower()
    if key in _REFUSED:
        raise CompileError(f"the loss {name!r} is not among those compiled here: {_REFUSED[key]}")
    found = LOSSES.get(key) or _BY_CLASS.get(key)
    if found is None:
        others = words(", or a function (prediction, target) -> scalar")
        raise CompileError(unknown("loss", name, LOSSES, others))
    return found


def loss_named(name: str, from_logits: bool = False) -> Loss:
    """The loss of this name with Keras's defaults. Raises CompileError as `loss_class`, and for a loss that
    has no logits."""
    found = loss_class(name)
    if not from_logits:
        return found()
    if "from_logits" not in {field.name for field in fields(found)}:
        raise CompileError(f"{name} has no logits; leave from_logits out")
    made: Any = found
    return made(from_logits=True)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Objective:
    """What a network of some outputs is trained for.

    losses: of each output, None where it has none. weights: what each counts. weighted: whether positions
    have weights of their own, which are an input.
    """

    losses: tuple[Loss | None, ...]
    weights: tuple[float, ...]
    weighted: tuple[bool, ...]

    @classmethod
    def of(cls, loss: Loss) -> Objective:
        """One loss of an only output."""
        return cls((loss,), (1.0,), (loss.weighs,))


def add_loss(graph: Graph, loss: str | Loss, from_logits: bool = False) -> str:
    """Append an input `target` and a loss of the only output, and return the name of the loss's node.

    loss: one, or a key of LOSSES. from_logits: the output itself is logits, which belong to no activation.
    Raises CompileError for an unknown loss, one that has no logits, or a graph of several outputs.
    """
    found = loss_named(loss, from_logits) if isinstance(loss, str) else loss
    return add_losses(graph, Objective.of(found))[0]


def add_losses(graph: Graph, objective: Objective) -> tuple[str, dict[str, str]]:
    """Append the losses of a graph's outputs, with inputs for their targets, and weights where it says so.

    The node of their weighted sum, and by output the nodes of each.
    """
    if len(graph.outputs) != len(objective.losses):
        takes = words("a loss by name takes one", "what is trained here has one")
        raise CompileError(f"{graph.name} has {len(graph.outputs)} outputs; {takes}")
    parts: dict[str, str] = {}
    total = ""
    several = len(objective.losses) > 1
    outputs = list(graph.outputs.items())
    for (output, prediction), loss, weight, weighted in zip(
        outputs, objective.losses, objective.weights, objective.weighted, strict=True
    ):
        if loss is None:
            continue
        build = LossBuilder(graph, prediction, f" of {output}" if several else "")
        parts[output] = build.reduce(loss, loss.terms(build), weighted)
        counted = build.scaled(parts[output], weight)
        total = graph.add(Add(), (total, counted), "loss of all outputs") if total else counted
    if not total:
        raise CompileError(f"{graph.name}: no output has a loss")
    return total, parts


__all__ = [
    "CLASSES",
    "LOSSES",
    "RULE",
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
    "LossBuilder",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanSquaredError",
    "MeanSquaredLogarithmicError",
    "Objective",
    "Poisson",
    "SparseCategoricalCrossentropy",
    "SquaredHinge",
    "Terms",
    "Tversky",
    "add_loss",
    "add_losses",
    "loss_class",
    "loss_named",
    "misfits",
    "position_weights",
]
