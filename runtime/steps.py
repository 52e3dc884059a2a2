"""A network with something behind it, as one compiled graph: its loss, or what its regularizers count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from ..graph.errors import ConvLoomError
from ..graph.losses import Objective, position_weights
from ..graph.ops import Parameter
from ..graph.walk import walk
from ..planning.program import Program
from .inputs import as_tensor, bind_inputs, by_name
from .step_result import StepResult

if TYPE_CHECKING:
    from .network import CompiledNetwork


class _Around:
    """A network and what is compiled around it, which shares its weights and its mode."""

    def __init__(self, network: CompiledNetwork, objective: Objective | None = None) -> None:
        self.network, self.objective = network, objective
        self.compiled  # noqa: B018  # which raises for a loss that cannot be

    @property
    def compiled(self) -> CompiledNetwork:
        """Network, losses and penalties as one, in the network's mode; which penalties, those trained say."""
        return self._for(self.network, self.objective)

    def _for(self, network: CompiledNetwork, objective: Objective | None) -> CompiledNetwork:
        compiled = network.around(objective)
        if compiled.training != self.network.training:
            compiled.train(self.network.training)
        return compiled

    def _bound(self, inputs: Any) -> tuple[CompiledNetwork, list[Any]]:
        """The network, that of their sizes where axes are open, and what to call it with."""
        network = self.network
        if isinstance(inputs, Mapping):
            inputs = by_name([node.name for node in network.input_nodes], inputs)
        given = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
        if not network.is_open:
            return network, given
        bound = bind_inputs(network.input_nodes, given, network.options.device)
        return network.of_size(bound), list(bound)

    @property
    def program(self) -> Program:
        """The program of the network's current mode, with what is around it."""
        return self.compiled.program


class LossesStep(_Around):
    """A network and the losses of its outputs as one compiled graph. Call it with a batch and its targets.

    Where sample weights come with a call they are an input of the graph, and an output whose target does not
    come has no loss: each of these ways is compiled when it is first met.
    """

    objective: Objective

    def __call__(
        self,
        inputs: Any,
        targets: Sequence[Any],
        sample_weights: Sequence[Any] | None = None,
        *,
        checked: bool = False,
    ) -> StepResult:
        """The losses' weighted sum, whose backward() fills the network's gradients; each loss; the outputs.

        targets, sample_weights: of each output in order, None where there is none; weights as
        `graph.losses.position_weights` takes them. checked: whether the targets' values are known to fit.
        The predictions carry no gradient, and targets and weights get none. Raises ShapeError for targets or
        weights that do not fit, ConvLoomError for those that ask for a gradient.
        """
        network, given = self._bound(inputs)
        weights = sample_weights or [None] * len(targets)
        objective = self._of_call(targets, weights)
        compiled = self._for(network, objective)
        shapes = iter([node.type.shape for node in compiled.input_nodes[len(given) :]])
        device = network.options.device
        outputs = network.source.outputs.values()
        for value, loss, target, weight in zip(outputs, objective.losses, targets, weights, strict=True):
            if loss is None:
                continue
            output = tuple(int(size) for size in network.source[value].type.shape[1:])
            target = _plain(target, "target", device)
            if not checked:
                loss.check(target, output)
            next(shapes)
            given.append(loss.encode(target, output))
            if loss.weighs or weight is not None:
                weight = None if weight is None else _plain(weight, "sample weight", device)
                given.append(position_weights(loss, weight, target, output, next(shapes)))
        results = dict(zip(compiled.source.outputs, compiled(*given), strict=True))
        predictions = [result for name, result in results.items() if name.startswith("output ")]
        losses = [result for name, result in results.items() if name.startswith("loss of ")]
        return StepResult(results["loss"], tuple(losses or [results["loss"]]), tuple(predictions))

    def _of_call(self, targets: Sequence[Any], weights: Sequence[Any]) -> Objective:
        losses = [
            None if target is None else loss
            for loss, target in zip(self.objective.losses, targets, strict=True)
        ]
        weighted = [
            loss is not None and (loss.weighs or weight is not None)
            for loss, weight in zip(losses, weights, strict=True)
        ]
        return replace(self.objective, losses=tuple(losses), weighted=tuple(weighted))


def _plain(value: Any, name: str, device: torch.device) -> torch.Tensor:
    """A target or a sample weight as a tensor; raises ConvLoomError where it asks for a gradient."""
    tensor = as_tensor(value, f"the {name}", name.replace(" ", "_"))
    if tensor.requires_grad and torch.is_grad_enabled():
        raise ConvLoomError(
            f"the {name} asks for a gradient, and a compiled loss gives it none; give "
            f"{name.replace(' ', '_')}.detach(), or compute the loss from net(x)"
        )
    return tensor.to(device)


class LossStep(LossesStep):
    """A network of one output and its loss as one compiled graph. Call it with a batch and its target."""

    def __call__(self, inputs: Any, target: Any) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
        """(loss, prediction), as of `LossesStep`."""
        result = super().__call__(inputs, [target])
        return result.loss, result.predictions[0]


class PenaltyStep(_Around):
    """A network and its penalties as one compiled graph. Call it as the network."""

    def __call__(self, *inputs: Any) -> tuple[Any, torch.Tensor]:
        """(what the network gives, penalty); the penalty is a scalar."""
        network, given = self._bound(inputs[0] if len(inputs) == 1 else inputs)
        penalty, *outputs = self._for(network, None)(*given)
        return outputs[0] if len(outputs) == 1 else tuple(outputs), penalty


def weight_penalty(network: CompiledNetwork) -> torch.Tensor:
    """What the regularizers of a network's weights count, as a scalar that carries a gradient.

    For a network inside another module, whose own call is that module's. Raises ConvLoomError where an
    activation is regularized too: that belongs to the call.
    """
    source = network.source
    of_activations = [name for name in source.penalties if not isinstance(source[name].op, Parameter)]
    if of_activations:
        layers = ", ".join(dict.fromkeys(source[name].layer or name for name in of_activations))
        raise ConvLoomError(
            f"{network.name} regularizes the activations of {layers}, which cannot be counted where another "
            f"module calls it; fit the network itself, or write the loop with net.with_penalty()"
        )
    graph = network.around(None).source
    value = graph.outputs["penalty"]
    return walk(graph, network.weights(), [value])[value]
