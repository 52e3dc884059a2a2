"""Blocks and their lowering: how layers and models, called on symbolic tensors, become nodes of the graph."""

from __future__ import annotations

import abc
import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Self

from ..graph import ops
from ..graph.errors import ConvLoomError, ModelFormatError, ShapeError, UnsupportedLayerError
from ..graph.ir import Graph
from ..graph.op import Op
from ..graph.types import TensorType
from .budget import BUDGET, MOST_AXES
from .names import DefaultName
from .open_axes import Sizes, described_elsewhere
from .symbolic import Call, SymbolicTensor
from .written import Written

if TYPE_CHECKING:
    from .layers.base import Layer, Weight
    from .regularizers import Regularizer

WeightKey = tuple["Layer", str]
"""A layer and its weight's name."""

MOST_CALLS = 100_000

CAST = ops.Cast("float32")
"""To the dtype a network computes in, which is settled when it is compiled."""

NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Lowering:
    """A graph being filled, and where in the model it is.

    names: parameter name of each weight, for a model; without it a weight is "<layer>/<weight>".
    blocks: what the model around calls its layers.
    prefix: path of the models around, "outer/inner/" or "", calls numbered. owner: the same, unnumbered.
    frozen: whether all of it does in training what it does in inference, as `base(x, training=False)` says.
    thawed: whether layers count as trained that are not, to see what freezing them spares.
    """

    graph: Graph
    names: Mapping[WeightKey, str]
    prefix: str = ""
    owner: str = ""
    frozen: bool = False
    thawed: bool = False
    blocks: Mapping[Block, str] = field(default_factory=dict)

    def name_of(self, block: Block) -> str:
        return self.blocks.get(block, block.name)

    def inside(self, block: Block, call: int, blocks: Mapping[Block, str]) -> Lowering:
        """Within a model, which calls its own blocks so."""
        name = self.name_of(block)
        prefix = f"{self.prefix}{numbered(name, call)}/"
        return replace(self, prefix=prefix, owner=f"{self.owner}{name}/", blocks=blocks)

    def called(self, call: Call) -> Lowering:
        return replace(self, frozen=True) if call.training is False else self

    def trains(self, layer: Layer) -> bool:
        return layer.trainable or self.thawed


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
    """Given, or else from the first model around it; `Model.name_of` is what a certain model calls it."""
    default_name: DefaultName | None = None
    """Where no name was given."""
    written: Written | None = None
    """What the file it was read from said of it."""

    @property
    def model_inside(self) -> Block | None:
        """The model that a layer is made of, whose layers keep their weights themselves."""
        return None

    model_home: str = ""
    """The part of the layer that Keras keeps `model_inside` in."""

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

    def prepare_elsewhere(self, inputs: Sequence[TensorType]) -> None:
        """`prepare` for other sizes of axes left open; raises ShapeError where it cannot serve them all."""
        self.prepare(inputs)

    _calls: int = 0
    first_call: Call | None = None
    """Whose tensors are its `input` and `output`."""

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
        BUDGET.get().calls(self.call_count, self.label)
        try:
            results, others = self._described(tensors, options)
        except (ShapeError, ModelFormatError) as error:
            found = described_elsewhere(tensors, lambda: self._described(tensors, options))
            if found is None:
                raise _of_open_axes(error, tensors, self.label) from None
            results, others = found
        return alone(self.record(tensors, results, training, options, others).outputs)

    def _described(
        self, tensors: Sequence[SymbolicTensor], options: Mapping[str, Any]
    ) -> tuple[list[TensorType], list[TensorType] | None]:
        """The types of its results, at both sizes where axes are open. Raises ShapeError."""
        types = [tensor.type for tensor in tensors]
        self.prepare(types)
        results = self.results(types, **options)
        if all(tensor.other is None for tensor in tensors):
            return results, None
        elsewhere = [tensor.other or tensor.type for tensor in tensors]
        self.prepare_elsewhere(elsewhere)
        return results, self.results(elsewhere, **options)

    def describe_again(self, call: Call, sizes: Sizes) -> None:
        """Give the results of one of its calls the types that they have now. sizes: of what is an input."""
        results, others = self._described(call.inputs, call.options)
        for tensor, kind, other in zip(call.outputs, results, others or results, strict=True):
            tensor.describe(kind, other)

    @property
    def call_count(self) -> int:
        """How many calls of layers one call of it stands for."""
        return 1

    def results(self, types: Sequence[TensorType], **options: Any) -> list[TensorType]:
        """The types a call gives for inputs of these types, found by lowering it for trial."""
        trial = Lowering(Graph(), {})
        sources = [trial.graph.add(ops.Input(t.shape, t.dtype), name="input") for t in types]
        return [trial.graph[result].type for result in self.lower(trial, sources, 0, **options)]

    def record(
        self,
        inputs: Sequence[SymbolicTensor],
        types: Iterable[TensorType],
        training: bool | None = None,
        options: Mapping[str, Any] = NO_OPTIONS,
        others: Sequence[TensorType | None] | None = None,
    ) -> Call:
        """One more call of it, whose results have these types; and those others, where axes are open."""
        call = Call(self, tuple(inputs), self._calls, training=training, options=options)
        self._calls += 1
        self.first_call = self.first_call or call
        types = list(types)
        pairs = zip(types, others or [None] * len(types), strict=True)
        call.outputs = tuple(SymbolicTensor(call, i, kind, other) for i, (kind, other) in enumerate(pairs))
        return call

    @property
    def input(self) -> Any:
        """The symbolic tensor it was first called on, or the list of them, as in Keras.

        Raises ConvLoomError where it has not been called.
        """
        return alone(self._first_call("input").inputs)

    @property
    def output(self) -> Any:
        """What its first call gave: `Model(model.input, layer.output)` ends where this layer does.

        A symbolic tensor, or a list of them. Raises ConvLoomError where it has not been called.
        """
        return alone(self._first_call("output").outputs)

    def _first_call(self, what: str) -> Call:
        if self.first_call is None:
            raise ConvLoomError(
                f"{self.label}: has no {what}: it has not been called; call it on a symbolic tensor first, "
                f"or put it into a model"
            )
        return self.first_call


def _of_open_axes(error: ConvLoomError, tensors: Sequence[SymbolicTensor], label: str) -> ConvLoomError:
    """What went wrong, in the user's terms where the sizes in the error are only stand-ins of open axes."""
    if all(tensor.other is None for tensor in tensors):
        return error
    shapes = ", ".join(str(tensor.shape) for tensor in tensors)
    return type(error)(
        f"{label}: does not take {shapes} with axes left open: {str(error).removeprefix(f'{label}: ')}. Give "
        f"the input a size there (input_shape=, of a file), or let a global pooling come before"
    )


def alone(tensors: Sequence[SymbolicTensor]) -> Any:
    """The tensor where there is one, else the list of them."""
    return tensors[0] if len(tensors) == 1 else list(tensors)


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
        self._still = into.frozen or not into.trains(layer)
        self._name = into.owner + into.name_of(layer)
        self.path = into.prefix + numbered(into.name_of(layer), call)

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
        inputs = self._computable(op, inputs)
        graph = self._into.graph
        if self._into.frozen and isinstance(op, ops.InTraining):
            return inputs[0]
        if isinstance(op, ops.BatchNorm) and self._still:
            op = replace(op, frozen=True)
        if isinstance(op, ops.Drawn):
            op = replace(op, seed=self._layer.draws_from)
        try:
            kind = op.result(*(self.type(name) for name in inputs))
        except ShapeError as error:
            raise ShapeError(f"{self._layer.label}: {str(error).removeprefix(op.op_name() + ': ')}") from None
        if kind.rank > MOST_AXES:
            raise self._layer.fail(f"gives {kind.rank:,} axes; a value has at most {MOST_AXES}")
        BUDGET.get().value(kind, self._layer.label)
        name = f"{self.path}/{suffix}" if suffix else self.path
        return graph.add(op, inputs, name=name, layer=self._name)

    def _computable(self, op: Op, inputs: Sequence[str]) -> tuple[str, ...]:
        """The operands, integers and truth values cast where the op computes with them, as Keras's layers do
        at their start, and where it joins or compares them with floating-point numbers.
        """
        floating = [self.type(name).is_floating for name in inputs]
        joined = [op.is_alike(position) for position in range(len(inputs))]
        joins = any(known and alike for known, alike in zip(floating, joined, strict=True))
        return tuple(
            name
            if known or (op.takes_whole(position) and not (joins and alike))
            else self.add(CAST, name, suffix="cast")
            for position, (name, known, alike) in enumerate(zip(inputs, floating, joined, strict=True))
        )

    def run(self, model: Block, call: int, *inputs: str) -> list[str]:
        """Append a model that the layer is made of, called for the `call`-th time there."""
        inside = replace(self._into, prefix=f"{self.path}/", owner=f"{self._name}/")
        return model.lower(inside, inputs, call)

    def inside(self, home: str, part: Layer) -> Self:
        """For a part of the layer that is a layer itself: `weight(name)` is the weight "<home>/<name>"."""
        inner = copy.copy(self)
        inner._home = f"{self._home}{home}/"
        inner._still = self._still or not self._into.trains(part)
        return inner

    def weight(self, name: str) -> str:
        """The Parameter node of one of the layer's weights, the same for every call of a shared layer."""
        layer, graph, name = self._layer, self._into.graph, self._home + name
        parameter = self._into.names.get((layer, name), f"{self._name}/{name}")
        if parameter not in graph:
            weight: Weight = next(w for w in layer.all_weights if w.name == name)
            trained = weight.trainable if self._into.thawed else weight.trained_with(layer)
            op = ops.Parameter(weight.shape, trainable=trained)
            graph.add(op, name=parameter, layer=self._name)
            self.penalize(parameter, weight.regularizer)
            if weight.constraint is not None:
                graph.constraints[parameter] = weight.constraint.projection(weight.shape)
        return parameter

    def penalize(self, value: str, regularizer: Regularizer | None) -> None:
        """Count a weight, or an activation, in the loss."""
        if regularizer is not None and (op := regularizer.penalty()) != ops.SizePenalty():
            penalties = self._into.graph.penalties
            penalties[value] = (*penalties.get(value, ()), op)
