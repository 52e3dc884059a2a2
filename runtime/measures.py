"""Functions that compare predictions with targets, called the way their kind is called.

Keras's take (y_true, y_pred), torch's and torchmetrics' (prediction, target). Which of the two a function is
follows from the package it comes from and from the names of its first arguments; an unknown one is called as
(prediction, target).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch

from ..graph.errors import ConvLoomError

Measure = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(prediction, target) -> one number for the batch."""

KERAS = ("keras", "tensorflow", "tf_keras")
TRUTHS = ("y_true", "true", "truth", "target", "targets", "label", "labels")


def in_order(function: Callable[..., Any]) -> Measure:
    """`function` as (prediction, target) -> value; the mean of it where Keras's kind gives one an example."""
    return TruthFirst(function) if takes_the_truth_first(function) else function


class TruthFirst:
    """A function or object of Keras's kind, called as (y_true, y_pred), as a measure."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.__name__ = getattr(function, "__name__", type(function).__name__)
        self.is_object = comes_from(function, KERAS) and not inspect.isroutine(function)
        """Whether it is one of Keras's loss objects, which see to shapes, types and weights themselves."""

    def __call__(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        value = self.function(target, prediction)
        plain = inspect.isroutine(self.function) and isinstance(value, torch.Tensor) and value.dim() > 0
        return value.mean() if plain else value  # type: ignore[no-any-return]

    def weighted(self, prediction: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """As Keras weighs: an object of its losses by itself, of a function each value, over their number.

        Raises ConvLoomError for a function that gives one number for the whole batch.
        """
        if self.is_object:
            return self.function(target, prediction, sample_weight=weight)  # type: ignore[no-any-return]
        value = self.function(target, prediction)
        if not isinstance(value, torch.Tensor) or value.dim() == 0:
            raise ConvLoomError(
                "the loss function gave one number for the batch, which weights of examples cannot weigh; "
                "let it give one for each example"
            )
        weight = weight.to(value)
        if weight.dim() == value.dim() + 1 and weight.shape[-1] == 1:
            weight = weight.squeeze(-1)
        return (value * weight.reshape(*weight.shape, *[1] * (value.dim() - weight.dim()))).mean()


def fitted(target: torch.Tensor, prediction: torch.Tensor, values: bool) -> torch.Tensor:
    """A target with as many axes as its prediction, where a last axis of size 1 is all that one has more.

    A function would make a table of all pairs of (N,) and (N, 1). values: a target of the prediction's shape
    holds values, which become floating point as Keras has it: in uint8 `2 * y_true - 1` wraps around.
    """
    if prediction.ndim == target.ndim + 1 and prediction.shape[-1] == 1:
        target = target.unsqueeze(-1)
    elif target.ndim == prediction.ndim + 1 and target.shape[-1] == 1:
        target = target.squeeze(-1)
    if values and target.shape == prediction.shape and not target.is_floating_point():
        target = target.to(torch.promote_types(prediction.dtype, torch.float32))
    return target


def takes_the_truth_first(function: Callable[..., Any]) -> bool:
    """Whether a function is of Keras's kind: from Keras, or its first argument is y_true or target."""
    if comes_from(function, KERAS):
        return True
    called = function.forward if isinstance(function, torch.nn.Module) else function
    try:
        names = list(inspect.signature(called).parameters)
    except (TypeError, ValueError):  # compiled functions may have none
        return False
    return len(names) >= 2 and names[0].lower() in TRUTHS and names[1].lower() not in TRUTHS


def comes_from(thing: Any, packages: tuple[str, ...]) -> bool:
    """Whether a function, or the class of an object or a base of it, is defined in one of these packages."""
    modules = [getattr(thing, "__module__", None), *(base.__module__ for base in type(thing).__mro__)]
    return any(str(module).partition(".")[0] in packages for module in modules)


def refuse_class(kind: str, given: Any) -> None:
    """Raises ConvLoomError where a class is given for an instance of it."""
    if isinstance(given, type):
        raise ConvLoomError(f"{kind} {given.__name__} is a class; give an instance: {given.__name__}()")
