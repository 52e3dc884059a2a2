"""A model made of a graph: what `convloom convert` writes, read back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from ..graph import ops
from ..graph.errors import ModelFormatError, ShapeError, UnsupportedLayerError
from ..graph.ir import Graph, Node
from ..graph.types import BATCH
from .budget import BUDGET
from .layers.base import Layer, Weight
from .layers.core import InputLayer
from .lowering import Block, Lowering
from .model import Model
from .open_axes import Wanted
from .parameters import Slot
from .symbolic import Call, SymbolicTensor

ONES = ("gamma", "moving_variance", "variance", "scale")
"""Weights that start as ones; matrices and kernels are drawn, all others start as zeros."""


class _Part(Layer):
    """What keeps the weights of one layer of the graph."""


class GraphModel(Model):
    """The ops of a graph, whose layers are known by name alone.

    It compiles, trains and runs like any other. A graph holds no weights: they start anew, unless they are
    read by their names. It cannot be called on symbolic tensors, nor saved for Keras, which has no words for
    single ops.
    """

    has_layers = False

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._configure(graph.name, 0, "Graph")
        self._parts: dict[str, _Part] = {}
        self._weights = [self._slot(node) for node in graph.sources(ops.Parameter)]
        for node in graph.nodes():
            BUDGET.get().value(node.type, node.name)
        BUDGET.get().calls(len(graph), self.label)
        BUDGET.get().weights(sum(slot.size for slot in self._weights), self.label)
        inputs = [_input(node) for node in graph.sources(ops.Input) if node.phase == "forward"]
        call = Call(self, tuple(inputs), 0)
        types = [graph[name].type for name in graph.outputs.values()]
        call.outputs = tuple(SymbolicTensor(call, i, kind) for i, kind in enumerate(types))
        if not inputs or not types:
            raise ModelFormatError(f"{self.label}: has {len(inputs)} inputs and {len(types)} outputs")
        # As a model without layers between its inputs and its outputs, and then with the graph there.
        self._connect(inputs, inputs, [tensor.node.block for tensor in inputs])
        self._outputs, self._network = list(call.outputs), [*(tensor.node for tensor in inputs), call]

    @property
    def label(self) -> str:
        return f"Graph {self.name!r}"

    def _slot(self, node: Node) -> Slot:
        assert isinstance(node.op, ops.Parameter)
        owner, _, name = node.name.rpartition("/")
        part = self._parts.setdefault(owner, _Part(name=(owner or self.name)[-256:]))
        start = "glorot_uniform" if len(node.op.shape) > 1 else "ones" if name in ONES else "zeros"
        return Slot(node.name, part, Weight(name, node.op.shape, start, node.op.trainable))

    def slots(self, prefix: str = "", seen: set[Block] | None = None) -> Iterator[Slot]:
        yield from self._weights

    @property
    def open_axes(self) -> list[tuple[int, ...]]:
        return []

    def to_graph(self, input_shape: Wanted = None, *, thawed: bool = False) -> Graph:
        """A copy of the graph, whose sizes are settled; raises ShapeError where others are asked for. thawed:
        says nothing here, where no layers are that could be frozen."""
        if input_shape is not None:
            raise ShapeError(f"{self.label}: is a graph, whose sizes are settled; it takes no input_shape")
        return self.graph.copy()

    # -- what needs layers -----------------------------------------------------------------------------------
    def to_json(self, indent: int | None = None) -> str:
        self._refuse("Keras has no words for single ops; save the model that it was made from")

    def save(self, path: Any) -> None:
        self.to_json()

    def save_weights(self, path: Any) -> None:
        self._refuse("Keras keeps weights by layers, which a graph has not; write them by name, into an .npz")

    def _call(
        self, tensors: Sequence[SymbolicTensor], training: bool | None, options: Mapping[str, Any]
    ) -> Any:
        self._refuse("it cannot be part of another model; load the model that it was made from")

    def lower(self, into: Lowering, inputs: Sequence[str], call: int, **options: Any) -> list[str]:
        self._refuse("it cannot be part of another model; load the model that it was made from")

    def _refuse(self, why: str) -> NoReturn:
        raise UnsupportedLayerError(f"{self.label}: is a graph of single ops: {why}")


def _input(node: Node) -> SymbolicTensor:
    """An input of the graph as one of a model."""
    batch, *sizes = node.type.shape or (None,)
    if batch != BATCH or BATCH in sizes:
        raise ModelFormatError(
            f"input {node.name!r} must have the batch as first axis, found {node.type}"
        )
    return InputLayer([int(size) for size in sizes], node.type.dtype, name=node.name).tensor()
