"""The optimizer that is meant: Keras's by name or as a recipe, torch's as they are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch

from ...graph.errors import ConvLoomError, unknown
from ...graph.words import words
from ..checks import number
from .gradients import SGD, Adadelta, Adagrad, Ftrl, RMSprop
from .matrices import Adafactor, Muon
from .moments import Adam, Adamax, AdamW, Lamb, Lion, Nadam
from .recipe import LearningRate, Recipe

OPTIMIZERS: dict[str, type[Recipe]] = {
    made.__name__.lower(): made
    for made in (
        *(SGD, Adam, AdamW, RMSprop, Adagrad, Adadelta, Adamax, Nadam, Ftrl, Lion, Lamb, Muon, Adafactor),
    )
}


def make_optimizer(
    optimizer: Any,
    parameters: Iterable[torch.nn.Parameter] | Iterable[tuple[str, torch.nn.Parameter]],
    learning_rate: LearningRate | None = None,
) -> torch.optim.Optimizer:
    """An optimizer over `parameters`, which may come with their names.

    optimizer: Keras's name or a recipe of this folder; a class or function that takes the parameters, or an
    optimizer of torch's that is ready: torch's own stay torch's.
    learning_rate: instead of the default. Raises ConvLoomError where the two do not go together.
    """
    given: list[Any] = list(parameters)
    everything: list[torch.nn.Parameter] = [p[1] if isinstance(p, tuple) else p for p in given]
    trained = [p for p in everything if p.requires_grad]
    if not trained:
        raise ConvLoomError("the network has no trainable parameters")
    if learning_rate is not None and not callable(learning_rate):
        learning_rate = number(learning_rate, "learning_rate", above=0)
    if isinstance(optimizer, torch.optim.Optimizer):
        return _ready(optimizer, trained, learning_rate)
    if isinstance(optimizer, str):
        if optimizer.lower() not in OPTIMIZERS:
            more = words(", or a torch.optim.Optimizer")
            raise ConvLoomError(unknown("optimizer", optimizer, OPTIMIZERS, more))
        optimizer = OPTIMIZERS[optimizer.lower()]
    if isinstance(optimizer, type) and issubclass(optimizer, Recipe):
        recipe: Recipe = optimizer()  # type: ignore[call-arg]
        return (recipe if learning_rate is None else replace(recipe, learning_rate=learning_rate))(given)
    if isinstance(optimizer, Recipe):
        _no_second_rate(learning_rate)
        return optimizer(given)
    if type(optimizer).__module__.partition(".")[0] in ("keras", "tensorflow", "tf_keras"):
        name = type(optimizer).__name__
        here = name if name.lower() in OPTIMIZERS else "Adam"
        raise ConvLoomError(
            f"optimizer {name} is Keras's own, which moves Keras's variables only; "
            f"give cl.optimizers.{here}(...)"
        )
    if callable(optimizer):
        product = optimizer(trained) if learning_rate is None else optimizer(trained, lr=learning_rate)
        if isinstance(product, torch.optim.Optimizer):
            return product
    raise ConvLoomError(
        f"optimizer {optimizer!r} is neither a name nor a torch.optim.Optimizer nor makes one"
    )


def _ready(
    optimizer: torch.optim.Optimizer, trained: list[torch.nn.Parameter], learning_rate: LearningRate | None
) -> torch.optim.Optimizer:
    _no_second_rate(learning_rate)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if not any(id(p) in held for p in trained):
        raise ConvLoomError(
            "the optimizer holds none of this network's parameters; make it from net.parameters()"
        )
    return optimizer


def _no_second_rate(learning_rate: LearningRate | None) -> None:
    if learning_rate is not None:
        raise ConvLoomError("learning_rate goes with an optimizer given by name; this one has its own")
