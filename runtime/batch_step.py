"""The computation of one batch's losses: one function, for training and for validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from ..graph.errors import ConvLoomError, nearest
from .batch import Batch
from .checks import number
from .evaluation import BatchStep
from .losses import Loss, find_loss
from .measures import Measure
from .network import CompiledNetwork
from .step_result import StepResult
from .stepping import networks_in
from .steps import weight_penalty

Losses = Mapping[str, Loss | Measure | None]


def find_losses(loss: Any, outputs: Sequence[str]) -> dict[str, Loss | Measure | None]:
    """One for all outputs, a list of them, or a dictionary by output, with None for outputs without one."""
    given = by_output(loss, outputs, "loss")
    found = {name: None if entry is None else find_loss(entry) for name, entry in given.items()}
    if not any(entry is not None for entry in found.values()):
        raise ConvLoomError("loss holds no loss; give one for an output at least")
    return found


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


def output_shapes(net: CompiledNetwork) -> dict[str, tuple[int, ...]]:
    """Of one example."""
    graph = net.source
    return {
        name: tuple(int(size) for size in graph[value].type.shape[1:])
        for name, value in graph.outputs.items()
    }


def make_step(net: torch.nn.Module, losses: Losses, factors: Mapping[str, float] | None = None) -> BatchStep:
    """factors: of the losses in the sum, by output."""
    only = next(iter(losses.values()))
    compiled = isinstance(net, CompiledNetwork)
    for loss in losses.values():
        if isinstance(loss, Loss) and not compiled:
            raise ConvLoomError(
                f"{loss.keras_name} is compiled with the network, and {type(net).__name__} is no compiled "
                f"one; give a function (prediction, target)"
            )
    plain = _plain(net, losses, factors or {})
    if len(losses) > 1 or factors or not isinstance(only, Loss) or not isinstance(net, CompiledNetwork):
        return plain
    fused = net.with_loss(only.graph_name, only.from_logits)

    def by_name(batch: Batch) -> StepResult:
        if batch.weights is not None:
            return plain(batch)
        (output,) = output_shapes(net.of_size(batch.inputs)).values()
        (target,) = batch.targets
        assert target is not None
        if net.is_open:
            only.check(target, output)
        loss, prediction = fused(batch.inputs, only.encode(target, output))
        return StepResult(loss, (loss,), (prediction,))

    return by_name


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
    if not isinstance(loss, Loss):
        if weight is not None:
            raise ConvLoomError("a loss that is a function cannot be given sample weights")
        return loss(prediction, target)
    shape = tuple(prediction.shape[1:])
    loss.check(target, shape)
    values = _PLAIN[loss.graph_name](prediction, loss.encode(target, shape).to(prediction), loss.from_logits)
    return (values if weight is None else values * weight.to(values)).mean()


def _categorical(x: torch.Tensor, y: torch.Tensor, logits: bool) -> torch.Tensor:
    logs = x.log_softmax(-1) if logits else (x / x.sum(-1, keepdim=True)).clamp(1e-7, 1 - 1e-7).log()
    return -(y * logs).sum(-1)


def _binary(x: torch.Tensor, y: torch.Tensor, logits: bool) -> torch.Tensor:
    if logits:
        return F.binary_cross_entropy_with_logits(x, y, reduction="none").mean(-1)
    x = x.clamp(1e-7, 1 - 1e-7)
    return -(y * x.log() + (1 - y) * (1 - x).log()).mean(-1)


_PLAIN: dict[str, Callable[[torch.Tensor, torch.Tensor, bool], torch.Tensor]] = {
    "categorical_crossentropy": _categorical,
    "binary_crossentropy": _binary,
    "mean_squared_error": lambda x, y, logits: (x - y).square().mean(-1),
}


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
