"""The compiled network: one torch.nn.Module around the programs of its modes and what runs them."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn

import torch

from ..graph.errors import CompileError, nearest
from ..graph.ir import Graph, Node
from ..graph.losses import Loss, Objective, add_losses, loss_named
from ..graph.ops import Add, BatchNorm, Constant, Input, Parameter
from ..graph.ops.random import Streams
from ..graph.passes.precision import with_dtype
from ..graph.penalties import add_penalties
from ..graph.values import Ties, holder
from ..planning.modes import Mode, check_forward
from ..planning.program import Program
from .autograd import Binding, CompiledFunction, without_autocast
from .executor import Executor
from .inputs import bind_inputs, with_open_axes
from .open_axes import OpenAxes, Sizes
from .options import ModelLike, Options, Thawing
from .stand_in import StandIn
from .steps import LossesStep, LossStep, PenaltyStep
from .summary import summary_text

TwinKey = tuple[Objective | None, frozenset[str]]
"""The losses, and the regularized weights that are not trained."""


class CompiledNetwork(OpenAxes):
    """A network compiled by `compile`. Call it with a batch: tensors or NumPy arrays in, tensor(s) out.

    Parameters carry the layer's and the weight's name (`conv2d/kernel`) and Keras's shapes. In train() mode
    batch norm uses the batch's statistics and dropout drops; in eval() mode neither does, and batch norm is
    folded from the parameters' current values.

    The network and its model hold the same weights, whichever of them is trained, loaded or written to, and
    a layer that is frozen or freed in the model is so in the network from its next call on. A copy, and what
    a pickle gives, has weights of its own (those of its model, if that came along), and follows no layers.
    """

    def __init__(self, model: ModelLike, options: Options, input_shape: Any = None) -> None:
        """input_shape: of inputs that the model leaves open; without it the network follows their sizes."""
        super().__init__()
        self.options = options
        self._model: ModelLike | None = model
        self._changes = getattr(model, "changes", 0)
        self._input_shape = input_shape
        self.masked_outputs: Sequence[str] = getattr(model, "masked_outputs", ())
        self._open: Sequence[tuple[int, ...]] = () if input_shape else getattr(model, "open_axes", ())
        self._sizes: OrderedDict[Sizes, CompiledNetwork] = OrderedDict()
        self.source = self._lowered(model)
        self.name = self.source.name
        self._inputs = with_open_axes(self.source.sources(Input), self._open)
        self._differentiated: list[str] | None = None
        self._programs: dict[tuple[Mode, str], Program] = {}
        self._executors: dict[Mode, Executor] = {}
        self._twins: dict[TwinKey, CompiledNetwork] = {}
        self._keys: dict[str, str] = {}
        self._ties = Ties()
        self._streams = Streams()
        values = holder(model.parameters, _trainable(self.source))
        for name, trainable in _trainable(self.source).items():
            self._adopt(name, values.held(name), trainable, values.is_state(name))
        if self.source.sources(BatchNorm):
            self.add_module("batch norms", StandIn(self.name))
        self.eval()

    def _lowered(self, model: ModelLike, sizes: Sizes | None = None, **how: bool) -> Graph:
        """The model's graph. sizes: of one sample of each input, where axes are open; by default those at
        which it was described, which tell its weights. how: what else its `to_graph` takes."""
        sized: Any = sizes or getattr(model, "described_at", ())
        wanted = list(sized) if self._open else self._input_shape
        graph = model.to_graph(wanted, **how) if wanted else model.to_graph(**how)  # type: ignore[call-arg]
        dtype = self.options.compute_dtype
        check_forward(graph)
        return graph if dtype == "float32" else with_dtype(graph, dtype, self.options.policies)

    # -- copies and pickles ----------
    def __getstate__(self) -> dict[str, Any]:
        """The graph, the options and the weights; programs are planned anew where it is read."""
        self.weights()
        made_anew: dict[str, Any] = {"_programs": {}, "_executors": {}, "_twins": {}, "_sizes": OrderedDict()}
        made_anew["_settled"] = None  # and looked at anew
        return {**self.__dict__, "_model": self._model if self._open else None, **made_anew}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        for tensor in self._registered().values():
            self._check_place(tensor)
        self._ties.tie_again(self._registered())

    def __copy__(self) -> CompiledNetwork:
        """Another module over the very same weights and programs, as a shallow copy of any module is."""
        twin = CompiledNetwork.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

    def _replicate_for_data_parallel(self) -> NoReturn:
        raise CompileError(
            f"{self.name}: torch.nn.DataParallel copies modules to other GPUs at every call, and a compiled "
            f"network belongs to one; use torch.nn.parallel.DistributedDataParallel"
        )

    def twin(self, options: Options) -> CompiledNetwork:
        """The same network under other options, but in its own dtype and with weights of its own."""
        twin = copy.deepcopy(self).eval()
        twin.options = options
        twin._programs = self._programs  # their keys say all that may differ
        return twin

    # -- calling ----------
    def forward(self, *inputs: Any) -> Any:
        """Outputs for a batch: one tensor, or a tuple of them in the order of the model's outputs.

        In eval mode, NumPy arrays in give tensors that carry no gradient.
        """
        if torch.compiler.is_compiling() or torch._C._get_tracing_state():
            return _untraced(self, *inputs)
        device = self.options.device
        if torch.is_autocast_enabled(device.type):
            with without_autocast(device):
                return self.forward(*inputs)
        bound = bind_inputs(self._inputs, inputs, device)
        return self.of_size(bound)._run(bound, _has_tensor(inputs))

    # -- running ----------
    def _family(self) -> Iterator[CompiledNetwork]:
        """This network and all around it, or of certain sizes, that share its weights."""
        yield self
        for network in (*self._twins.values(), *self._sizes.values()):
            yield from network._family()

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
            outputs, _ = self._executor(self._mode()).forward(inputs, weights, look=weights)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def _differentiably(
        self, inputs: list[torch.Tensor], weights: dict[str, torch.Tensor]
    ) -> Sequence[torch.Tensor] | None:
        """The outputs as functions autograd knows; None where nothing asks for a gradient."""
        of = frozenset(node.name for node, x in zip(self._inputs, inputs, strict=True) if x.requires_grad)
        trained = {name: p for name, p in weights.items() if p.requires_grad}
        if not (of or trained):
            return None
        mode = self._mode(backward=True, wrt_inputs=of, trained=frozenset(trained))
        executor = self._executor(mode if self.training else self._mode())
        others = {name: value for name, value in weights.items() if name not in trained}
        look = None if executor.program.graph.updates else weights  # which a call moves by itself
        binding = Binding(executor, partial(self._executor, mode), list(trained), others, look)
        results: Sequence[torch.Tensor] = CompiledFunction.apply(  # type: ignore[no-untyped-call]
            binding, *inputs, *trained.values()
        )
        return results

    def _by_definition(
        self, inputs: list[torch.Tensor], weights: dict[str, torch.Tensor]
    ) -> Sequence[torch.Tensor]:
        """Op by op through PyTorch's operators: what `torch.func` and forward-mode differentiation see
        through, where no kernel can follow them."""
        executor = self._executor(self._mode())
        if executor.program.writes:
            raise CompileError(
                f"{self.name} is in train() mode, where batch norms move their statistics; torch.func and "
                f"forward-mode differentiation cannot carry that: call eval() first, or freeze those layers"
            )
        return executor.walk(inputs, weights, executor.draw(inputs[0].shape[0] if inputs else 1))

    def closed(self, input_shape: Any) -> CompiledNetwork:
        """A network of its own for these sizes of the open axes, over the same weights."""
        if self._model is None:
            raise CompileError(f"{self.name}: its model is gone; compile the model again")
        return CompiledNetwork(self._model, self.options, input_shape).train(self.training)

    def _of_sizes(self, sizes: Sizes) -> CompiledNetwork:
        if self._model is None:
            raise CompileError(f"{self.name}: its model is gone; compile the model again")
        self._follow_layers()
        network = _Twin(self, self._lowered(self._model, sizes), None)
        network.name = self.name
        return network

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
        for network in self._family() if changed else ():
            for node in changed:
                if node.name in network.source:
                    network.source.update_node(node.name, op=node.op)
            network._programs, network._executors = {}, {}

    def train(self, mode: bool = True) -> CompiledNetwork:
        """Switch between training and inference. Folded and packed weights are made anew afterwards.

        They also follow every write that PyTorch knows of, and those through `p.data`. Only a write through
        a NumPy array or another alias that PyTorch has lost sight of goes unseen: call `eval()` after one.
        """
        for network in self._family():
            for executor in network._executors.values():
                executor.prelude.forget(self._keys)
        super().train(mode)
        return self

    @property
    def input_nodes(self) -> list[Node]:
        """The inputs in the order of a call, with their names and types."""
        return list(self._inputs)

    # -- losses ----------
    def with_loss(self, loss: str | Loss, from_logits: bool = False) -> LossStep:
        """The network with a loss behind it, compiled and fused as one: `loss, prediction = step(x, target)`.

        loss: Keras's name, or an object of `cl.losses`. from_logits: with a name: the network's output is
        logits. A cross-entropy takes the logits too where the network ends in the activation that belongs to
        it. What the network's regularizers count is added. Raises CompileError for an unknown loss or several
        outputs, which `with_losses` takes.
        """
        found = loss_named(loss, from_logits) if isinstance(loss, str) else loss
        return LossStep(self, Objective.of(found))

    def with_losses(
        self, losses: Mapping[str, Loss | None], weights: Mapping[str, float] | None = None
    ) -> LossesStep:
        """The network with a loss behind each of its outputs: `step(inputs, targets, sample_weights)`.

        losses: by output, None or nothing for none. weights: what each counts in the sum, 1 by default.
        Raises CompileError for names of no output.
        """
        outputs = list(self.source.outputs)
        for name in (*losses, *(weights or {})):
            if name not in outputs:
                raise CompileError(f"{self.name} has no output {name!r}{nearest(name, outputs)}")
        counts = tuple(float((weights or {}).get(name, 1.0)) for name in outputs)
        found = tuple(losses.get(name) for name in outputs)
        return LossesStep(self, Objective(found, counts, tuple(bool(loss and loss.weighs) for loss in found)))

    def with_penalty(self) -> PenaltyStep:
        """The network and what its regularizers add to a loss, as one: `prediction, penalty = step(x)`.

        For a training loop of your own; the penalty is a scalar that carries a gradient, Keras's
        sum(model.losses), and 0 where nothing is regularized. `fit` and `with_loss` count it by themselves.
        """
        return PenaltyStep(self)

    def around(self, objective: Objective | None) -> CompiledNetwork:
        """The network with losses and its penalties behind it, or with its penalties alone."""
        key = objective, self._untrained_penalties()
        if key not in self._twins:
            graph = self.source.copy()
            results = {f"output {name}": value for name, value in graph.outputs.items()}
            if objective is not None:
                value, parts = add_losses(graph, objective)
                penalty = add_penalties(graph, key[1])
                if penalty is not None:
                    value = graph.add(Add(), (value, penalty), "loss with penalties")
                if list(parts.values()) != [value]:
                    results = {f"loss of {name}": part for name, part in parts.items()} | results
                graph.outputs = {"loss": value, **results}
            else:
                penalty = add_penalties(graph, key[1]) or graph.add(Constant(()), (), "penalty")
                graph.outputs = {"penalty": penalty, **results}
            self._twins[key] = _Twin(self, graph, ["loss"] if objective else None)
        return self._twins[key]

    @property
    def is_regularized(self) -> bool:
        """Whether anything is added to its loss."""
        return bool(self.source.penalties)

    def _untrained_penalties(self) -> frozenset[str]:
        """The regularized weights that are not trained now, which Keras leaves out of the loss."""
        if not self.source.penalties:
            return frozenset()
        weights = self.weights()
        penalties = self.source.penalties
        return frozenset(name for name in penalties if name in weights and not weights[name].requires_grad)

    @torch.no_grad()
    def apply_constraints(self) -> None:
        """Put each constrained weight in its place: to be called after each step of an optimizer.

        `fit` does. Weights that are not trained stay as they are.
        """
        if not self.source.constraints:
            return
        weights = self.weights()
        for name, op in self.source.constraints.items():
            if weights[name].requires_grad:
                weights[name].copy_(op.reference(weights[name]))

    # -- looking inside ----------
    def summary(self, print_fn: Callable[[str], Any] | None = None, width: int | None = None) -> None:
        """Print a table of layers, output shapes and parameters, as a model's; print_fn takes the text.

        Where weights are frozen, it ends with what that spares a training step.
        """
        options = self.options
        title = f"{self.name}, compiled for {options.backend} on {options.device} in {options.dtype}"
        trained = frozenset(name for name, weight in self.weights().items() if weight.requires_grad)
        spared = self.spared()
        text = summary_text(self.source, trained, title, width)
        (print_fn or print)(f"{text}\n{spared}" if spared else text)

    def _thawed(self) -> Graph:
        model = self._model
        return self._lowered(model, thawed=True) if isinstance(model, Thawing) else self.source

    def extra_repr(self) -> str:
        o = self.options
        return f"{self.name}, device={o.device}, backend={o.backend}, dtype={o.dtype}, fuse={o.fuse}"


def _untraced(net: CompiledNetwork, *inputs: Any) -> Any:
    """`torch.compile` compiles what is around a network, and calls the network, which is compiled already.

    Raises CompileError for `torch.export` and `torch.jit`, which would have to see through it.
    """
    if torch.compiler.is_dynamo_compiling():
        outside = torch.compiler.disable(CompiledNetwork.forward)  # type: ignore[no-untyped-call]
        return outside(net, *inputs)
    raise CompileError(
        f"{net.name}: torch.export and torch.jit see no operators inside a compiled network; cl.emit "
        f"writes its kernels, and model.save the model"
    )


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


class _Twin(CompiledNetwork):
    """A network over another graph that shares its owner's very weights; its gradients start at the loss."""

    def __init__(self, owner: CompiledNetwork, graph: Graph, differentiated: list[str] | None) -> None:
        torch.nn.Module.__init__(self)
        self.__dict__["_owner"] = owner  # which is no module inside this one
        self.options, self.source, self.name = owner.options, graph, f"{owner.name} with loss"
        self._inputs, self._ties, self._model = graph.sources(Input), owner._ties, None
        self._open, self._sizes = (), OrderedDict()
        self._differentiated = differentiated
        self._programs, self._executors, self._twins, self._keys = {}, {}, {}, owner._keys
        self._streams = owner._streams
        self._parameters, self._buffers = owner._parameters, owner._buffers

    def weights(self) -> dict[str, torch.Tensor]:
        owner: CompiledNetwork = self.__dict__["_owner"]
        return owner.weights()

    def _follow_layers(self) -> None:
        owner: CompiledNetwork = self.__dict__["_owner"]
        owner._follow_layers()
