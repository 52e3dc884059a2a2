"""The compiled network: one torch.nn.Module around the plans of its modes."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..codegen import Kernel, emit
from ..codegen.targets import target_of
from ..graph.errors import CompileError
from ..graph.ir import Graph
from ..graph.ops import (
    Add,
    BinaryCrossEntropy,
    CategoricalCrossEntropy,
    Constant,
    Input,
    MeanSquaredError,
    Parameter,
)
from ..graph.passes.precision import with_dtype
from ..graph.penalties import add_penalties
from .autograd import CompiledFunction
from .backends import Backend
from .inputs import bind_inputs
from .plan import Mode, Plan

LOSSES = {
    "categorical_crossentropy": CategoricalCrossEntropy(),
    "binary_crossentropy": BinaryCrossEntropy(),
    "mean_squared_error": MeanSquaredError(),
    "mse": MeanSquaredError(),
}


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
        self._twins: dict[tuple[str, frozenset[str]], CompiledNetwork] = {}
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

    def _weight(self, name: str) -> torch.Tensor:
        key = self._keys[name]
        found = self._parameters[key] if key in self._parameters else self._buffers[key]
        assert found is not None
        return found

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
        made = fn(have)
        for what, old, new in (("device", have.device, made.device), ("dtype", have.dtype, made.dtype)):
            if old != new:
                known = str(old).removeprefix("torch.")
                raise CompileError(
                    f"{self.name} is compiled for {known}; compile it again for another {what}"
                )
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    # -- losses ----------
    def with_loss(self, loss: str) -> LossStep:
        """The network with a loss behind it, compiled and fused as one: `loss, prediction = step(x, target)`.

        What its regularizers count is part of it. loss: a key of LOSSES. Raises CompileError for an unknown
        one or a network of several outputs.
        """
        if loss not in LOSSES:
            raise CompileError(f"unknown loss {loss!r}; known: {', '.join(LOSSES)}")
        if len(self.source.outputs) != 1:
            raise CompileError(
                f"{self.name} has {len(self.source.outputs)} outputs; a loss by name takes one"
            )
        without = self._untrained_penalties()
        key = (loss, without)
        if key not in self._twins:
            graph = self.source.copy()
            (name, output), *_ = graph.outputs.items()
            prediction = graph[output].type
            target = graph.add(Input(prediction.shape, prediction.dtype), (), "target")
            value = graph.add(LOSSES[loss], (output, target), "loss")
            penalty = add_penalties(graph, without)
            if penalty is not None:
                value = graph.add(Add(), (value, penalty), "loss with penalties")
            graph.outputs = {"loss": value, name: output}
            self._twins[key] = _Twin(self, graph, ["loss"])
        return LossStep(self, self._twins[key])

    def with_penalty(self) -> PenaltyStep:
        """The network and what its regularizers add to a loss, as one: `prediction, penalty = step(x)`.

        For a training loop of your own; the penalty is a scalar that carries a gradient, Keras's
        sum(model.losses), and 0 where nothing is regularized. `fit` and `with_loss` count it by themselves.
        """
        without = self._untrained_penalties()
        key = ("", without)
        if key not in self._twins:
            graph = self.source.copy()
            penalty = add_penalties(graph, without) or graph.add(Constant(()), (), "penalty")
            graph.outputs[_free("penalty", graph.outputs)] = penalty
            self._twins[key] = _Twin(self, graph, None)
        return PenaltyStep(self, self._twins[key])

    def _untrained_penalties(self) -> frozenset[str]:
        """The regularized parameters that are not trained now, which Keras leaves out of the loss."""
        return frozenset(
            name
            for name in self.source.penalties
            if name in self._keys and not self._weight(name).requires_grad
        )

    @property
    def is_regularized(self) -> bool:
        """Whether anything is added to its loss."""
        return bool(self.source.penalties)

    @torch.no_grad()
    def apply_constraints(self) -> None:
        """Put each constrained weight in its place: to be called after each step of an optimizer.

        `fit` does. Weights that are not trained stay as they are.
        """
        for name, op in self.source.constraints.items():
            weight = self._weight(name)
            if weight.requires_grad:
                weight.copy_(op.reference(weight))

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

    def explain(self) -> str:
        """Each pass and fusion rule of the current mode: what it matched, what it refused, and why."""
        return self.plan.explain()

    def extra_repr(self) -> str:
        o = self.options
        return f"{self.name}, device={o.device}, backend={o.backend}, dtype={o.dtype}, fuse={o.fuse}"


def _has_tensor(inputs: Sequence[Any]) -> bool:
    return any(_has_tensor(x) if isinstance(x, list | tuple) else isinstance(x, torch.Tensor) for x in inputs)


class _Twin(CompiledNetwork):
    """A network over another graph that shares its owner's very weights; its gradients start at the loss."""

    def __init__(self, owner: CompiledNetwork, graph: Graph, differentiated: list[str] | None) -> None:
        torch.nn.Module.__init__(self)
        self.options, self.source, self.name = owner.options, graph, f"{owner.name} with loss"
        self._inputs, self._values = graph.sources(Input), owner._values
        self._differentiated = differentiated
        self._plans, self._twins, self._keys = {}, {}, owner._keys
        self._parameters, self._buffers = owner._parameters, owner._buffers


class _Step:
    """A network and a graph around it that shares its weights and its mode."""

    def __init__(self, network: CompiledNetwork, compiled: CompiledNetwork) -> None:
        self.network = network
        self.compiled = compiled

    @property
    def plan(self) -> Plan:
        """The plan of the network's current mode, with what is around it."""
        self.compiled.train(self.network.training)
        return self.compiled.plan


class LossStep(_Step):
    """A network and its loss as one compiled graph. Call it with a batch and its target."""

    def __call__(self, inputs: Any, target: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """(loss, prediction); the loss is a scalar whose backward() fills the network's gradients."""
        if self.compiled.training != self.network.training:
            self.compiled.train(self.network.training)
        given = inputs if isinstance(inputs, list | tuple) else (inputs,)
        loss, prediction = self.compiled(*given, target)
        return loss, prediction


class PenaltyStep(_Step):
    """A network and its penalties as one compiled graph. Call it as the network."""

    def __call__(self, *inputs: Any) -> tuple[Any, torch.Tensor]:
        """(what the network gives, penalty); the penalty is a scalar."""
        if self.compiled.training != self.network.training:
            self.compiled.train(self.network.training)
        *outputs, penalty = self.compiled(*inputs)
        return outputs[0] if len(outputs) == 1 else tuple(outputs), penalty


def _free(name: str, taken: Mapping[str, str]) -> str:
    """The name, or one like it that no output has."""
    return _free(f"{name}_", taken) if name in taken else name
