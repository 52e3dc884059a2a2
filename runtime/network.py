"""The compiled network: one torch.nn.Module around the plans of its modes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch

from ..codegen import Kernel, emit
from ..codegen.targets import target_of
from ..graph.errors import CompileError
from ..graph.ir import Graph, Node
from ..graph.losses import add_loss
from ..graph.ops import Add, BatchNorm, Constant, Input, Parameter
from ..graph.ops.random import Streams
from ..graph.passes.precision import with_dtype
from ..graph.penalties import add_penalties
from ..graph.values import Holder, Ties, Value
from ..graph.weights import State, Weight
from .autograd import Binding, CompiledFunction, without_autocast
from .backends import Backend
from .inputs import bind_inputs, by_name
from .plan import Mode, Plan, check_forward
from .stand_in import StandIn
from .summary import summary_text

PlanKey = tuple[bool, bool, frozenset[str], frozenset[str] | None]
"""training, backward, the inputs and the parameters to differentiate by."""

TwinKey = tuple[str, bool, frozenset[str]]
"""A loss or none, whether from logits, and the penalties that do not count."""


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
    def kept_dtype(self) -> torch.dtype:
        """That of parameters and their gradients."""
        return torch.float64 if self.dtype == "float64" else torch.float32

    @property
    def precision(self) -> str:
        return "tf32" if self.dtype == "tf32" else "ieee"


class ModelLike(Protocol):
    """What can be compiled: a graph and the values of its parameters.

    Parameters that are a `Holder` stay tied to the network's. `changes`, where a model has it, grows whenever
    layers are frozen or freed.
    """

    def to_graph(self) -> Graph: ...

    @property
    def parameters(self) -> Mapping[str, torch.Tensor]: ...


class CompiledNetwork(torch.nn.Module):
    """A network compiled by `compile`. Call it with a batch: tensors or NumPy arrays in, tensor(s) out.

    Parameters carry the layer's and the weight's name (`conv2d/kernel`) and Keras's shapes. In train() mode
    batch norm uses the batch's statistics and dropout drops; in eval() mode neither does, and batch norm is
    folded from the parameters' current values.

    The network and its model hold the same weights, whichever of them is trained, loaded or written to, and
    a layer that is frozen or freed in the model is so in the network from its next call on. A copy, and what
    a pickle gives, has weights of its own (those of its model, if that came along), and follows no layers.
    """

    def __init__(self, model: ModelLike, options: Options) -> None:
        super().__init__()
        self.options = options
        self._model: ModelLike | None = model
        self._changes = getattr(model, "changes", 0)
        self.source = self._lowered(model)
        self.name = self.source.name
        self._inputs = self.source.sources(Input)
        self._differentiated: list[str] | None = None
        self._plans: dict[PlanKey, Plan] = {}
        self._twins: dict[TwinKey, CompiledNetwork] = {}
        self._keys: dict[str, str] = {}
        self._ties = Ties()
        self._streams = Streams()
        holder = _holder(model, self.source)
        for name, trainable in _trainable(self.source).items():
            self._adopt(name, holder.held(name), trainable, holder.is_state(name))
        if self.source.sources(BatchNorm):
            self.add_module("batch norms", StandIn(self.name))
        self.eval()

    def _lowered(self, model: ModelLike) -> Graph:
        graph, dtype = model.to_graph(), self.options.compute_dtype
        check_forward(graph)
        return graph if dtype == "float32" else with_dtype(graph, dtype)

    def _adopt(self, name: str, value: Value, trainable: bool, state: bool) -> None:
        """Register a weight under its name; torch forbids dots in names, so they are spelled %2E there.

        What an optimizer can move is a parameter, though it asks for no gradient while its layer is frozen.
        """
        self._keys[name] = key = name.replace("%", "%25").replace(".", "%2E")
        tensor = value.tied(self.options.device, self.options.kept_dtype)
        with torch.inference_mode(False):
            made = State(tensor) if state else Weight(tensor, trainable)
        if isinstance(made, Weight):
            self.register_parameter(key, made)
        else:
            self.register_buffer(key, made)
        self._ties.tie(name, value, made)

    # -- copies and pickles ----------
    def __getstate__(self) -> dict[str, Any]:
        """The graph, the options and the weights; plans are made anew where it is read."""
        self.weights()
        return {**self.__dict__, "_model": None, "_plans": {}, "_twins": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        for tensor in self._registered().values():
            self._check_place(tensor)
        self._ties.tie_again(self._registered())

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
        with without_autocast(self.options.device):
            return self._run(bind_inputs(self._inputs, inputs, self.options.device), _has_tensor(inputs))

    def _run(self, inputs: list[torch.Tensor], tensors: bool) -> Any:
        """tensors: whether the call was made with tensors, so that a gradient may be wanted in eval mode."""
        weights = self.weights()
        if _under_a_transform():
            outputs: Sequence[torch.Tensor] | None = self._by_definition(inputs, weights)
        elif torch.is_grad_enabled() and (self.training or tensors):
            outputs = self._differentiably(inputs, weights)
        else:
            outputs = None
        if outputs is None:
            outputs, _ = self._plan().forward(inputs, weights)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def _differentiably(
        self, inputs: list[torch.Tensor], weights: dict[str, torch.Tensor]
    ) -> Sequence[torch.Tensor] | None:
        """The outputs as functions autograd knows; None where nothing asks for a gradient."""
        of = frozenset(node.name for node, x in zip(self._inputs, inputs, strict=True) if x.requires_grad)
        trained = {name: p for name, p in weights.items() if p.requires_grad}
        if not (of or trained):
            return None
        backward_plan = partial(self._plan, self.training, True, of, frozenset(trained))
        plan = backward_plan() if self.training else self._plan()
        others = {name: value for name, value in weights.items() if name not in trained}
        binding = Binding(plan, backward_plan, list(trained), others)
        results: Sequence[torch.Tensor] = CompiledFunction.apply(  # type: ignore[no-untyped-call]
            binding, *inputs, *trained.values()
        )
        return results

    def _by_definition(
        self, inputs: list[torch.Tensor], weights: dict[str, torch.Tensor]
    ) -> Sequence[torch.Tensor]:
        """Op by op through PyTorch's operators: what `torch.func` and forward-mode differentiation see
        through, where no kernel can follow them."""
        plan = self._plan()
        if plan.graph.updates:
            raise CompileError(
                f"{self.name} is in train() mode, where batch norms move their statistics; torch.func and "
                f"forward-mode differentiation cannot carry that: call eval() first, or freeze those layers"
            )
        return plan.walk(inputs, weights, plan.draw(inputs[0].shape[0] if inputs else 1))

    def weights(self) -> dict[str, torch.Tensor]:
        """Every weight by its name, moving statistics included, as the model has them now."""
        self._follow_layers()
        self._ties.follow()
        return self._registered()

    def _registered(self) -> dict[str, torch.Tensor]:
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

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """As torch has it; those of layers that are frozen now ask for no gradient."""
        self._follow_layers()
        return super().named_parameters(prefix, recurse, remove_duplicate)

    def _follow_layers(self) -> None:
        """Freeze and free what the model's layers do now, in the graph and among the parameters.

        Only what changed since the last look is touched: `requires_grad_` elsewhere is the user's.
        """
        model = self._model
        if model is None or (changes := getattr(model, "changes", 0)) == self._changes:
            return
        graph, source = self._lowered(model), self.source
        if [(n.name, n.inputs) for n in graph.nodes()] != [(n.name, n.inputs) for n in source.nodes()]:
            raise CompileError(
                f"{self.name}: layers were frozen or freed, and the model has other layers than when it was "
                f"compiled; compile it again"
            )
        self._changes = changes
        changed = [node for node in graph.nodes() if node.op != source[node.name].op]
        for node in changed:
            if isinstance(node.op, Parameter):
                weight = self._parameters[self._keys[node.name]]
                assert weight is not None
                weight.requires_grad_(node.op.trainable)
                weight.grad = weight.grad if node.op.trainable else None
        for network in (self, *self._twins.values()) if changed else ():
            for node in changed:
                network.source.update_node(node.name, op=node.op)
            network._plans.clear()

    def _plan(
        self,
        training: bool | None = None,
        backward: bool = False,
        wrt_inputs: frozenset[str] = frozenset(),
        trained: frozenset[str] | None = None,
    ) -> Plan:
        """The plan of a mode (None: the current one), built the first time it is needed."""
        key = (self.training if training is None else training, backward, wrt_inputs, trained)
        plan = self._plans.get(key)
        if plan is None:
            inference = not (key[0] or backward)
            backend = Backend(self.options.backend, self.options.device, self.options.precision, inference)
            mode = Mode(*key, self.options.fuse)
            plan = Plan(self.source, mode, backend.lower, self.options.device, self._differentiated)
            plan.streams = self._streams
            self._plans[key] = plan
        return plan

    def train(self, mode: bool = True) -> CompiledNetwork:
        """Switch between training and inference. Folded and packed weights are made anew afterwards.

        They also follow every write that PyTorch knows of, and those through `p.data`. Only a write through
        a NumPy array or another alias that PyTorch has lost sight of goes unseen: call `eval()` after one.
        """
        for network in (self, *self._twins.values()):
            for plan in network._plans.values():
                plan.prelude.forget(self._keys)
        super().train(mode)
        return self

    def _apply(self, fn: Any, recurse: bool = True) -> CompiledNetwork:
        """What `to`, `half` and their like end in. Another device or dtype is refused before any move."""
        probe = torch.empty(0, device=self.options.device, dtype=self.options.kept_dtype)
        try:
            probe = fn(probe)
        except (AssertionError, RuntimeError) as error:  # what torch says where there is no such device
            reason = str(error).splitlines()[0]
            raise CompileError(f"{self.name} cannot be moved there: {reason}") from None
        self._check_place(probe)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._put_back()
        return self

    def _check_place(self, tensor: torch.Tensor) -> None:
        """Raises CompileError where a weight would lie on another device, or have another dtype."""
        o = self.options
        for what, wanted, found in (
            ("device", o.device, tensor.device),
            ("dtype", o.kept_dtype, tensor.dtype),
        ):
            if wanted != found:
                known, other = (str(place).removeprefix("torch.") for place in (wanted, found))
                raise CompileError(
                    f"{self.name} is compiled for {known}; compile its model again for another {what}, such "
                    f"as {other}"
                )

    def _put_back(self) -> None:
        """Where torch put another tensor in the place of a weight, the weight takes its numbers instead: a
        model, other networks and an optimizer may hold it."""
        for name, found in self._registered().items():
            weight = self._ties[name].tensor
            if found is not weight:
                with torch.no_grad():
                    weight.copy_(found)
                home = self._parameters if isinstance(weight, Weight) else self._buffers
                home[self._keys[name]] = weight  # type: ignore[assignment]

    def _save_to_state_dict(self, *given: Any) -> None:
        self.weights()
        super()._save_to_state_dict(*given)  # type: ignore[no-untyped-call]

    def _load_from_state_dict(self, *given: Any) -> None:
        self.weights()  # what others wrote counts as earlier
        super()._load_from_state_dict(*given)  # type: ignore[no-untyped-call]
        self._put_back()

    @property
    def input_nodes(self) -> list[Node]:
        """The inputs in the order of a call, with their names and types."""
        return list(self._inputs)

    # -- losses ----------
    def with_loss(self, loss: str, from_logits: bool = False) -> LossStep:
        """The network with a loss behind it, compiled and fused as one: `loss, prediction = step(x, target)`.

        loss: a key of `graph.losses.LOSSES`. from_logits: the network's output is logits, without a softmax
        or sigmoid of its own. A cross-entropy takes the logits too where the network ends in the activation
        that belongs to it. What its regularizers count is part of the loss. Raises CompileError for an
        unknown loss or a network of several outputs.
        """
        without = self._untrained_penalties()
        key = loss, from_logits, without
        if key not in self._twins:
            graph = self.source.copy()
            value = add_loss(graph, loss, from_logits)
            penalty = add_penalties(graph, without)
            if penalty is not None:
                value = graph.add(Add(), (value, penalty), "loss with penalties")
            graph.outputs = {"loss": value, **graph.outputs}
            self._twins[key] = _Twin(self, graph, ["loss"])
        return LossStep(self, self._twins[key])

    def with_penalty(self) -> PenaltyStep:
        """The network and what its regularizers add to a loss, as one: `prediction, penalty = step(x)`.

        For a training loop of your own; the penalty is a scalar that carries a gradient, Keras's
        sum(model.losses), and 0 where nothing is regularized. `fit` and `with_loss` count it by themselves.
        """
        without = self._untrained_penalties()
        key = "", False, without
        if key not in self._twins:
            graph = self.source.copy()
            penalty = add_penalties(graph, without) or graph.add(Constant(()), (), "penalty")
            graph.outputs[_free("penalty", graph.outputs)] = penalty
            self._twins[key] = _Twin(self, graph, None)
        return PenaltyStep(self, self._twins[key])

    def _untrained_penalties(self) -> frozenset[str]:
        """The regularized parameters that are not trained now, which Keras leaves out of the loss."""
        self._follow_layers()
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
        weights = self.weights()
        if not self.training:
            return self._plan()
        return self._plan(backward=True, trained=frozenset(n for n, p in weights.items() if p.requires_grad))

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


def _under_a_transform() -> bool:
    """Whether `torch.func` or forward-mode differentiation is at work."""
    return torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0


def _trainable(graph: Graph) -> dict[str, bool]:
    """Of each weight by its name, whether its layer lets it be trained."""
    return {n.name: n.op.trainable for n in graph.nodes() if isinstance(n.op, Parameter)}


def _holder(model: ModelLike, graph: Graph) -> Holder:
    """Where the model keeps its weights; for tensors that nobody keeps, a place of our own."""
    parameters: Any = model.parameters
    return parameters if hasattr(parameters, "held") else _Loose(parameters, _trainable(graph))


class _Loose:
    """Weights given as plain tensors."""

    def __init__(self, tensors: Mapping[str, torch.Tensor], trainable: Mapping[str, bool]) -> None:
        self._tensors, self._trainable = tensors, trainable

    def held(self, name: str) -> Value:
        return Value(self._tensors[name])

    def is_state(self, name: str) -> bool:
        return not self._trainable[name]


class _Twin(CompiledNetwork):
    """A network over another graph that shares its owner's very weights; its gradients start at the loss."""

    def __init__(self, owner: CompiledNetwork, graph: Graph, differentiated: list[str] | None) -> None:
        torch.nn.Module.__init__(self)
        self.__dict__["_owner"] = owner  # which is no module inside this one
        self.options, self.source, self.name = owner.options, graph, f"{owner.name} with loss"
        self._inputs, self._ties = graph.sources(Input), owner._ties
        self._differentiated = differentiated
        self._plans, self._twins, self._keys = {}, {}, owner._keys
        self._streams = owner._streams
        self._parameters, self._buffers = owner._parameters, owner._buffers

    def _follow_layers(self) -> None:
        owner: CompiledNetwork = self.__dict__["_owner"]
        owner._follow_layers()


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
        if isinstance(inputs, Mapping):
            inputs = by_name([node.name for node in self.network.input_nodes], inputs)
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
