"""The computation of one batch's losses: one function, for training and for validation."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch

from ..graph.errors import ConvLoomError
from ..graph.losses import RULE, misfits
from .batch import Batch
from .checks import number
from .evaluation import BatchStep
from .losses import Loss, Losses, by_output
from .measures import Measure, TruthFirst, fitted
from .network import CompiledNetwork
from .step_result import StepResult
from .stepping import networks_in
from .steps import weight_penalty


def find_weights(weights: Any, losses: Losses) -> dict[str, float]:
    """The factors of the losses: a number for one, a list in their order, or a dictionary by output."""
    if weights is None:
        return {}
    trained = [name for name, loss in losses.items() if loss is not None]
    names = list(losses) if not isinstance(weights, list | tuple) or len(weights) == len(losses) else trained
    if not isinstance(weights, list | tuple | Mapping):
        if len(trained) > 1:
            raise ConvLoomError("loss_weights is one number for several losses; give a list or a dictionary")
        names = trained
    given = by_output(weights, names, "loss_weights")
    return {
        name: number(value, f"loss_weights of {name!r}")
        for name, value in given.items()
        if value is not None and name in trained
    }


def output_shapes(net: CompiledNetwork) -> dict[str, tuple[int, ...]]:
    """Of one example."""
    graph = net.source
    return {
        name: tuple(int(size) for size in graph[value].type.shape[1:])
        for name, value in graph.outputs.items()
    }


def make_step(net: torch.nn.Module, losses: Losses, factors: Mapping[str, float] | None = None) -> BatchStep:
    """factors: of the losses in the sum, by output.

    Losses of ours are compiled with the network; where one is a function, all are taken of what it gives.
    """
    of_ours = {name: loss for name, loss in losses.items() if isinstance(loss, Loss)}
    for loss in of_ours.values():
        if loss.reduction in (None, "none"):
            raise ConvLoomError(
                f"{loss.name}: with reduction {loss.reduction!r} a loss is one number an example, and "
                f"training takes one for all; leave it out, or give 'sum'"
            )
    if len(of_ours) < sum(loss is not None for loss in losses.values()):
        return _plain(net, losses, factors or {})
    if not isinstance(net, CompiledNetwork):
        only = next(iter(of_ours.values()))
        raise ConvLoomError(
            f"{only.keras_name} is compiled with the network, and {type(net).__name__} is no compiled "
            f"one; give a function (prediction, target)"
        )
    layers = dict(zip(losses, net.source.outputs, strict=True))  # a dictionary of outputs has other names
    factors = {layers[name]: factor for name, factor in (factors or {}).items()}
    of_layers = {layers[name]: loss for name, loss in of_ours.items()}
    if found := misfits(net.source, of_layers):
        warnings.warn(f"{net.name}: {'; '.join(found)}. {RULE}", stacklevel=3)
    compiled = net.with_losses(of_layers, factors)

    def step(batch: Batch) -> StepResult:
        missing = [None] * (len(losses) - len(batch.targets))
        return compiled(batch.inputs, [*batch.targets, *missing], batch.weights, checked=not net.is_open)

    return step


def _plain(net: torch.nn.Module, losses: Losses, factors: Mapping[str, float]) -> BatchStep:
    """The network, and then each loss as a function of its output."""
    predict = _predictor(net)

    def step(batch: Batch) -> StepResult:
        given, penalty = predict(*batch.inputs)
        predictions = given if isinstance(given, tuple) else (given,)
        weights = batch.weights or [None] * len(predictions)
        found: dict[str, torch.Tensor] = {}
        for place, (name, loss) in enumerate(losses.items()):
            target = batch.targets[place] if place < len(batch.targets) else None
            if loss is not None and target is not None:
                found[name] = _value(loss, predictions[place], target, weights[place])
        scaled = [value * factors[name] if name in factors else value for name, value in found.items()]
        total = sum(scaled[1:], scaled[0])
        total = total if penalty is None else total + penalty
        return StepResult(total, tuple(found.values()), predictions)

    return step


def _value(
    loss: Loss | Measure, prediction: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None
) -> torch.Tensor:
    if isinstance(loss, Loss):
        return loss(target, prediction, weight)
    if not (isinstance(loss, TruthFirst) and loss.is_object):
        target = fitted(target, prediction, values=isinstance(loss, TruthFirst))
    if weight is None:
        return loss(prediction, target)
    if isinstance(loss, TruthFirst):
        return loss.weighted(prediction, target, weight)
    raise ConvLoomError(
        "a loss that is a function (prediction, target) has no sample weights; weigh inside it, or let it be "
        "one (y_true, y_pred) that gives a value for each example, or give one of cl.losses"
    )


def _predictor(net: torch.nn.Module) -> Callable[..., tuple[Any, torch.Tensor | None]]:
    """The network as a function that also gives what its regularizers add to the loss, None for nothing."""
    regularized = [network for network in networks_in(net) if network.is_regularized]
    if not regularized:
        return lambda *inputs: (net(*inputs), None)
    if regularized[0] is net:
        return regularized[0].with_penalty()
    for network in regularized:
        weight_penalty(network)  # which raises for what cannot be counted so
    return lambda *inputs: (net(*inputs), torch.stack([*map(weight_penalty, regularized)]).sum())
