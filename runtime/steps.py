"""A network with something behind it, as one compiled graph: its loss, or what its regularizers count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from ..graph.errors import ConvLoomError
from ..graph.ops import Parameter
from ..graph.walk import walk
from ..planning.program import Program
from .inputs import bind_inputs, by_name

if TYPE_CHECKING:
    from .network import CompiledNetwork


class _Around:
    """A network and what is compiled around it, which shares its weights and its mode."""

    def __init__(self, network: CompiledNetwork, loss: str = "", from_logits: bool = False) -> None:
        self.network, self.loss, self.from_logits = network, loss, from_logits
        self.compiled  # noqa: B018  # which raises for a loss that cannot be

    @property
    def compiled(self) -> CompiledNetwork:
        """Network, loss and penalties as one, in the network's mode; which penalties, those trained say."""
        return self._for(self.network)

    def _for(self, network: CompiledNetwork) -> CompiledNetwork:
        compiled = network.around(self.loss, self.from_logits)
        if compiled.training != self.network.training:
            compiled.train(self.network.training)
        return compiled

    def _bound(self, inputs: Any) -> tuple[CompiledNetwork, list[Any]]:
        """What to call, and with which inputs: where axes are open, the network of their sizes."""
        network = self.network
        if isinstance(inputs, Mapping):
            inputs = by_name([node.name for node in network.input_nodes], inputs)
        given = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
        if not network.is_open:
            return self.compiled, given
        bound = bind_inputs(network.input_nodes, given, network.options.device)
        return self._for(network.of_size(bound)), list(bound)

    @property
    def program(self) -> Program:
        """The program of the network's current mode, with what is around it."""
        return self.compiled.program


class LossStep(_Around):
    """A network and its loss as one compiled graph. Call it with a batch and its target."""

    def __call__(self, inputs: Any, target: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """(loss, prediction); the loss is a scalar whose backward() fills the network's gradients.

        The prediction carries no gradient, and the target gets none: raises ConvLoomError where it asks for
        one.
        """
        if isinstance(target, torch.Tensor) and target.requires_grad and torch.is_grad_enabled():
            raise ConvLoomError(
                "the target asks for a gradient, and a compiled loss gives it none; give target.detach(), or "
                "compute the loss from net(x)"
            )
        compiled, given = self._bound(inputs)
        loss, prediction = compiled(*given, target)
        return loss, prediction


class PenaltyStep(_Around):
    """A network and its penalties as one compiled graph. Call it as the network."""

    def __call__(self, *inputs: Any) -> tuple[Any, torch.Tensor]:
        """(what the network gives, penalty); the penalty is a scalar."""
        compiled, given = self._bound(inputs[0] if len(inputs) == 1 else inputs)
        penalty, *outputs = compiled(*given)
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
    graph = network.around("", False).source
    value = graph.outputs["penalty"]
    return walk(graph, network.weights(), [value])[value]
