"""Blocks and their lowering: how layers and models, called on symbolic tensors, become nodes of the graph."""

from __future__ import annotations

import abc
import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Self

from ..graph import ops
from ..graph.errors import ConvLoomError, ShapeError, UnsupportedLayerError
from ..graph.ir import Graph
from ..graph.op import Op
from ..graph.types import TensorType
from .budget import BUDGET, MOST_AXES
from .symbolic import Call, SymbolicTensor
from .written import Written

if TYPE_CHECKING:
    from .layers.base import Layer, Weight
    from .regularizers import Regularizer

WeightKey = tuple["Layer", str]
"""A layer and its weight's name."""

MOST_CALLS = 100_000

NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Lowering:
    """A graph being filled, and where in the model it is.

    names: parameter name of each weight, for a model; without it a weight is "<layer>/<weight>".
    prefix: path of the models around, "outer/inner/" or "", calls numbered. owner: the same, unnumbered.
    frozen: whether all of it does in training what it does in inference, as `base(x, training=False)` says.
    """

    graph: Graph
    names: Mapping[WeightKey, str]
    prefix: str = ""
    owner: str = ""
    frozen: bool = False

    def inside(self, block: Block, call: int) -> Lowering:
        prefix = f"{self.prefix}{numbered(block.name, call)}/"
        return replace(self, prefix=prefix, owner=f"{self.owner}{block.name}/")

    def called(self, call: Call) -> Lowering:
        return replace(self, frozen=True) if call.training is False else self


def check_size(calls: int, where: str) -> None:
    """Models that call models double in size with every level; stop before that takes all memory."""
    if calls > MOST_CALLS:
        raise ConvLoomError(f"{where}: the network grows beyond {MOST_CALLS:,} layer calls")


def numbered(name: str, call: int) -> str:
    """Name of a block's k-th call: the name itself, then name/call_1 and on."""
    return f"{name}/call_{call}" if call else name


class Block(abc.ABC):
    """What can be called on symbolic tensors: a layer or a model."""

    name: str
    written: Written | None = None
    """What the file it was read from said of it."""

    activates: ClassVar[bool] = False
    """Whether it may stand as the activation of a layer."""

    @property
    def label(self) -> str:
        """How errors name it: Conv2D 'conv2d'."""
        return f"{type(self).__name__} {self.name!r}"

    @abc.abstractmethod
    def lower(self, into: Lowering, inputs: Sequence[str], call: int, **options: Any) -> list[str]:
        """Append this block's nodes; returns the names of its results. options: of this call, for a layer."""

    @abc.abstractmethod
    def prepare(self, inputs: Sequence[TensorType]) -> None:
        """Check the inputs and settle what depends on them; raises ShapeError."""

    _calls: int = 0

    def __call__(self, inputs: Any, *, training: bool | None = None) -> Any:
        """One symbolic tensor or a list of them in, one symbolic tensor (or a list, where several) out.

        training: False makes it, with all that is inside it, do in training what it does in inference: batch
        norms keep their statistics and dropouts drop nothing, as transfer learning wants.
        """
        return self._call(flatten_tensors(inputs, self.label), training, NO_OPTIONS)

    def _call(
        self, tensors: Sequence[SymbolicTensor], training: bool | None, options: Mapping[str, Any]
    ) -> Any:
        if training not in (None, False):
            raise UnsupportedLayerError(
                f"{self.label}: can be called with training=False or None, got {training!r:.80}; nothing is "
                f"trained in inference"
            )
        types = [tensor.type for tensor in tensors]
        self.prepare(types)
        BUDGET.get().calls(self.call_count, self.label)
        return self._record(tensors, self.results(types, **options), training, options)

    @property
    def call_count(self) -> int:
        """How many calls of layers one call of it stands for."""
        return 1

    def results(self, types: Sequence[TensorType], **options: Any) -> list[TensorType]:
        """The types a call gives for inputs of these types, found by lowering it for trial."""
        trial = Lowering(Graph(), {})
        sources = [trial.graph.add(ops.Input(t.shape, t.dtype), name="input") for t in types]
        return [trial.graph[result].type for result in self.lower(trial, sources, 0, **options)]

    def _record(
        self,
        inputs: Sequence[SymbolicTensor],
        types: Iterable[TensorType],
        training: bool | None = None,
        options: Mapping[str, Any] = NO_OPTIONS,
    ) -> Any:
        call = Call(self, tuple(inputs), self._calls, training=training, options=options)
        self._calls += 1
        call.outputs = tuple(SymbolicTensor(call, i, t) for i, t in enumerate(types))
        return call.outputs[0] if len(call.outputs) == 1 else list(call.outputs)


def flatten_tensors(value: Any, where: str) -> list[SymbolicTensor]:
    """A tensor, a list or a dictionary (in sorted key order, as Keras has it) -> a list of tensors."""
    if isinstance(value, SymbolicTensor):
        return [value]
    if isinstance(value, dict):
        value = [value[key] for key in sorted(value)]
    if isinstance(value, (list, tuple)) and value and all(isinstance(v, SymbolicTensor) for v in value):
        return list(value)
    raise ShapeError(
        f"{where}: takes a symbolic tensor or a list of them, got {_described(value)}; "
        f"start from Input(shape)"
    )


def _described(value: Any) -> str:
    kind = type(value).__name__
    return (
        f"{kind} of shape {tuple(value.shape)}" if hasattr(value, "shape") else f"{kind} {str(value)[:60]!r}"
    )


class Builder:
    """Appends the nodes of one call of a layer, named after it and reporting errors in its name.

    options: arguments of the call beside its tensors, those that differ from their defaults.
    """

    def __init__(
        self,
        into: Lowering,
        layer: Layer,
        call: int,
        home: str = "",
        options: Mapping[str, Any] = NO_OPTIONS,
    ) -> None:
        self.options = options
        self._into = into
        self._layer = layer
        self._call = call
        self._home = home
        self.path = into.prefix + numbered(layer.name, call)

    def within(self, part: str) -> Self:
        """What appends for the same layer, its nodes named after a part of it."""
        inner = copy.copy(self)
        inner.path = f"{self.path}/{part}"
        return inner

    def fail(self, text: str) -> ShapeError:
        return self._layer.fail(text)

    def type(self, name: str) -> TensorType:
        return self._into.graph[name].type

    def add(self, op: Op, *inputs: str, suffix: str = "") -> str:
        """Append a node; its name is the layer's, or "<layer>/<suffix>".

        Where nothing is to change in training, what is random hands on its first operand, and a batch norm
        keeps to its stored statistics.
        """
        graph = self._into.graph
        if self._into.frozen and isinstance(op, ops.InTraining):
            return inputs[0]
        if isinstance(op, ops.BatchNorm) and (self._into.frozen or not self._layer.trainable):
            op = replace(op, frozen=True)
        try:
            kind = op.infer(*(self.type(name) for name in inputs))
        except ShapeError as error:
            raise ShapeError(f"{self._layer.label}: {str(error).removeprefix(op.op_name() + ': ')}") from None
        if kind.rank > MOST_AXES:
            raise self._layer.fail(f"gives {kind.rank:,} axes; a value has at most {MOST_AXES}")
        BUDGET.get().value(kind, self._layer.label)
        name = f"{self.path}/{suffix}" if suffix else self.path
        return graph.add(op, inputs, name=name, layer=self._into.owner + self._layer.name)

    def inside(self, home: str) -> Self:
        """For a part of the layer that is a layer itself: `weight(name)` is the weight "<home>/<name>"."""
        inner = copy.copy(self)
        inner._home = f"{self._home}{home}/"
        return inner

    def weight(self, name: str) -> str:
        """The Parameter node of one of the layer's weights, the same for every call of a shared layer."""
        layer, graph, name = self._layer, self._into.graph, self._home + name
        parameter = self._into.names.get((layer, name), f"{self._into.owner}{layer.name}/{name}")
        if parameter not in graph:
            weight: Weight = next(w for w in layer.all_weights if w.name == name)
            op = ops.Parameter(weight.shape, trainable=weight.trainable and layer.trainable)
            graph.add(op, name=parameter, layer=self._into.owner + layer.name)
            self.penalize(parameter, weight.regularizer)
            if weight.constraint is not None:
                graph.constraints[parameter] = weight.constraint.projection(weight.shape)
        return parameter

    def penalize(self, value: str, regularizer: Regularizer | None) -> None:
        """Count a weight, or an activation, in the loss."""
        if regularizer is not None and (op := regularizer.penalty()) != ops.SizePenalty():
            penalties = self._into.graph.penalties
            penalties[value] = (*penalties.get(value, ()), op)
