"""The compiled network: one torch.nn.Module around the plans of its modes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..codegen import Kernel, emit
from ..codegen.targets import target_of
from ..graph.errors import CompileError
from ..graph.ir import Graph, Node
from ..graph.losses import add_loss
from ..graph.ops import Input, Parameter
from ..graph.passes.precision import with_dtype
from .autograd import CompiledFunction
from .backends import Backend
from .inputs import bind_inputs, by_name
from .plan import Mode, Plan
from .summary import summary_text


@dataclass(frozen=True)
class Options:
    """How a network is compiled; see `compile`."""

    device: torch.device
    backend: str
    dtype: str
    fuse: bool

    @property
    def compute_dtype(self) -> str:
        return "float32" if self.dtype == "tf32" else self.dtype

    @property
    def precision(self) -> str:
        return "tf32" if self.dtype == "tf32" else "ieee"


class CompiledNetwork(torch.nn.Module):
    """A network compiled by `compile`. Call it with a batch: tensors or NumPy arrays in, tensor(s) out.

    Parameters carry the layer's and the weight's name (`conv2d/kernel`) and Keras's shapes. In train() mode
    batch norm uses the batch's statistics and dropout drops; in eval() mode neither does, and batch norm is
    folded from the parameters' current values.
    """

    def __init__(
        self,
        graph: Graph,
        values: Mapping[str, torch.Tensor],
        options: Options,
    ) -> None:
        super().__init__()
        self.options = options
        self.source = (
            graph if options.compute_dtype == "float32" else with_dtype(graph, options.compute_dtype)
        )
        self.name = graph.name
        self._inputs = self.source.sources(Input)
        self._differentiated: list[str] | None = None
        self._values = values
        self._plans: dict[tuple[bool, bool, bool], Plan] = {}
        self._twins: dict[tuple[str, bool], CompiledNetwork] = {}
        self._keys: dict[str, str] = {}
        for node in self.source.sources(Parameter):
            self._adopt(node.name, values[node.name], getattr(node.op, "trainable", True))
        self.eval()

    def _adopt(self, name: str, value: torch.Tensor, trainable: bool) -> None:
        """Register a weight under its name; torch forbids dots in names, so they are spelled %2E there."""
        key = name.replace("%", "%25").replace(".", "%2E")
        self._keys[name] = key
        if trainable:
            self.register_parameter(key, torch.nn.Parameter(self._own(value)))
        else:
            self.register_buffer(key, self._own(value))

    def _own(self, value: torch.Tensor) -> torch.Tensor:
        dtype = torch.float64 if self.options.dtype == "float64" else torch.float32
        # A tensor made in inference mode counts no writes and cannot be trained.
        with torch.inference_mode(False):
            return value.detach().to(device=self.options.device, dtype=dtype, copy=True).contiguous()

    def __deepcopy__(self, memo: dict[int, Any]) -> CompiledNetwork:
        """Weights of its own over the same graph, as torch's averages of weights need them; new plans."""
        twin = copy.copy(self)
        memo[id(self)] = twin
        twin._parameters = copy.deepcopy(self._parameters, memo)
        twin._buffers = copy.deepcopy(self._buffers, memo)
        twin._plans, twin._twins = {}, {}
        return twin

    def twin(self, options: Options) -> CompiledNetwork:
        """The same network under other options, but in its own dtype and with weights of its own."""
        twin = copy.deepcopy(self).eval()
        twin.options = options
        return twin

    # -- calling ----------
    def forward(self, *inputs: Any) -> Any:
        """Outputs for a batch: one tensor, or a tuple of them in the order of the model's outputs.

        In eval mode, NumPy arrays in give tensors that carry no gradient.
        """
        bound = bind_inputs(self._inputs, inputs, self.options.device)
        weights = self.weights()
        tracked = torch.is_grad_enabled() and (self.training or _has_tensor(inputs))
        outputs = self._differentiably(bound, weights) if tracked else None
        if outputs is None:
            outputs, _ = self._plan().forward(bound, weights)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def _differentiably(
        self, inputs: list[torch.Tensor], weights: dict[str, torch.Tensor]
    ) -> Sequence[torch.Tensor] | None:
        """The outputs as functions autograd knows; None where nothing asks for a gradient."""
        wrt_inputs = any(t.requires_grad for t in inputs)
        trained = {name: p for name, p in weights.items() if p.requires_grad}
        if not (wrt_inputs or trained):
            return None

        def fresh(plan: Plan) -> Plan:
            # A write through `.data` leaves no trace in a version, and who trains may well write so.
            plan.prelude.forget(trained)
            return plan

        def backward_plan() -> Plan:
            return fresh(self._plan(backward=True, wrt_inputs=wrt_inputs))

        plan = backward_plan() if self.training else fresh(self._plan())
        others = {name: value for name, value in weights.items() if name not in trained}
        results: Sequence[torch.Tensor] = CompiledFunction.apply(  # type: ignore[no-untyped-call]
            plan, backward_plan, list(trained), others, len(inputs), *inputs, *trained.values()
        )
        return results

    def weights(self) -> dict[str, torch.Tensor]:
        """Every weight by its name, moving statistics included."""
        parameters, buffers = self._parameters, self._buffers
        return {
            name: parameters[key] if key in parameters else buffers[key]  # type: ignore[misc]
            for name, key in self._keys.items()
        }

    def update_model(self) -> None:
        """Copy the current weights back into the model this network was compiled from.

        `fit` does it at its end; after a training loop of your own, call it before the model is compiled,
        emitted or profiled again.
        """
        with torch.no_grad():
            for name, value in self.weights().items():
                self._values[name].copy_(value)

    def _plan(self, backward: bool = False, wrt_inputs: bool = False) -> Plan:
        """The plan of the current mode, built the first time it is needed."""
        key = (self.training, backward, wrt_inputs)
        plan = self._plans.get(key)
        if plan is None:
            inference = not (self.training or backward)
            backend = Backend(self.options.backend, self.options.device, self.options.precision, inference)
            mode = Mode(*key, self.options.fuse)
            plan = Plan(self.source, mode, backend.lower, self.options.device, self._differentiated)
            self._plans[key] = plan
        return plan

    def train(self, mode: bool = True) -> CompiledNetwork:
        """Switch between training and inference. Folded and packed weights are made anew afterwards.

        They also follow every write that autograd or an optimizer makes. Only a write through `p.data` goes
        unseen: call `eval()` after one.
        """
        for network in (self, *self._twins.values()):
            for plan in network._plans.values():
                plan.prelude.forget(self._keys)
        super().train(mode)
        return self

    def _apply(self, fn: Any, recurse: bool = True) -> CompiledNetwork:
        """What `to`, `half` and their like end in. Another device or dtype is refused before any move."""
        have = self._own(torch.empty(0))
        try:
            made = fn(have)
        except (AssertionError, RuntimeError) as error:  # what torch says where there is no such device
            reason = str(error).splitlines()[0]
            raise CompileError(f"{self.name} cannot be moved there: {reason}") from None
        for what, old, new in (("device", have.device, made.device), ("dtype", have.dtype, made.dtype)):
            if old != new:
                known = str(old).removeprefix("torch.")
                raise CompileError(
                    f"{self.name} is compiled for {known}; compile it again for another {what}"
                )
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    @property
    def input_nodes(self) -> list[Node]:
        """The inputs in the order of a call, with their names and types."""
        return list(self._inputs)

    # -- losses ----------
    def with_loss(self, loss: str, from_logits: bool = False) -> LossStep:
        """The network with a loss behind it, compiled and fused as one: `loss, prediction = step(x, target)`.

        loss: a key of `graph.losses.LOSSES`. from_logits: the network's output is logits, without a softmax
        or sigmoid of its own. A cross-entropy takes the logits too where the network ends in the activation
        that belongs to it. Raises CompileError for an unknown loss or a network of several outputs.
        """
        key = loss, from_logits
        if key not in self._twins:
            graph = self.source.copy()
            value = add_loss(graph, loss, from_logits)
            graph.outputs = {"loss": value, **graph.outputs}
            self._twins[key] = _Twin(self, graph)
        return LossStep(self, self._twins[key])

    # -- looking inside ----------
    @property
    def plan(self) -> Plan:
        """The plan of the current mode: in training, forward and backward together."""
        return self._plan(backward=self.training)

    @property
    def graph(self) -> Graph:
        """The graph after the passes of the current mode."""
        return self.plan.graph

    @property
    def kernels(self) -> list[Kernel]:
        """The regions of the current mode as emitted kernels, whichever backend runs them."""
        target, precision = target_of(self.options.device), self.options.precision
        return [emit(region, precision=precision, target=target) for region in self.plan.regions]

    def summary(self, print_fn: Callable[[str], Any] | None = None, width: int | None = None) -> None:
        """Print a table of layers, output shapes and parameters, as a model's; print_fn takes the text."""
        options = self.options
        title = f"{self.name}, compiled for {options.backend} on {options.device} in {options.dtype}"
        (print_fn or print)(summary_text(self.source, title, width))

    def explain(self) -> str:
        """Each pass and fusion rule of the current mode: what it matched, what it refused, and why."""
        return self.plan.explain()

    def extra_repr(self) -> str:
        o = self.options
        return f"{self.name}, device={o.device}, backend={o.backend}, dtype={o.dtype}, fuse={o.fuse}"


def _has_tensor(inputs: Sequence[Any]) -> bool:
    """Whether a call's arguments hold a tensor, in lists and dictionaries too."""
    for x in inputs:
        parts = x.values() if isinstance(x, Mapping) else x if isinstance(x, list | tuple) else ()
        if isinstance(x, torch.Tensor) or any(isinstance(part, torch.Tensor) for part in parts):
            return True
    return False


class _Twin(CompiledNetwork):
    """A network over another graph that shares its owner's very weights; its gradients start at the loss."""

    def __init__(self, owner: CompiledNetwork, graph: Graph) -> None:
        torch.nn.Module.__init__(self)
        self.options, self.source, self.name = owner.options, graph, f"{owner.name} with loss"
        self._inputs, self._values = graph.sources(Input), owner._values
        self._differentiated = ["loss"]
        self._plans, self._twins, self._keys = {}, {}, owner._keys
        self._parameters, self._buffers = owner._parameters, owner._buffers


class LossStep:
    """A network and its loss as one compiled graph. Call it with a batch and its target."""

    def __init__(self, network: CompiledNetwork, compiled: CompiledNetwork) -> None:
        self.network = network
        self.compiled = compiled

    @property
    def plan(self) -> Plan:
        """The plan of the network's current mode, loss included."""
        self.compiled.train(self.network.training)
        return self.compiled.plan

    def __call__(self, inputs: Any, target: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """(loss, prediction); the loss is a scalar whose backward() fills the network's gradients."""
        if self.compiled.training != self.network.training:
            self.compiled.train(self.network.training)
        if isinstance(inputs, Mapping):
            inputs = by_name([node.name for node in self.network.input_nodes], inputs)
        given = inputs if isinstance(inputs, list | tuple) else (inputs,)
        loss, prediction = self.compiled(*given, target)
        return loss, prediction
