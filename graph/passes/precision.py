"""The dtype a network computes in, and what is kept in float32 where that is narrower.

Sums are kept in float32. So is what sums give, and what feeds them: a square leaves float16's range, both
ways, long before its root does. Between layers values have the network's own dtype.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..decisions import Decision
from ..ir import Graph, Node
from ..op import Kind, Op
from ..ops import (
    KNOWN,
    Add,
    Cast,
    Compare,
    Constant,
    Conv2D,
    Conv2DTranspose,
    Dense,
    Input,
    MatMul,
    Parameter,
    Random,
    RandomBox,
    RandomTransform,
    Where,
)
from ..ops.reduction import _Sums
from ..types import HALF


@dataclass(frozen=True)
class Policies:
    """A half dtype, and the layers that do not compute in it.

    wide: those in float32. free: operations, which go on in float32 where an operand is that.
    """

    dtype: str
    wide: frozenset[str] = frozenset()
    free: frozenset[str] = frozenset()


def with_dtype(graph: Graph, dtype: str, policies: Policies | None = None) -> Graph:
    """The same network with its activations in `dtype`.

    Below float32, parameters stay float32 and the weights of contractions are cast where they are used, so an
    optimizer keeps its precision, and what sums give stays float32 up to the end of its layer. float64 makes
    the parameters float64 too. policies: of the layers, where they differ.
    """
    return _Conversion(graph, dtype, policies or Policies(dtype)).run()


class _Conversion:
    """A graph on its way into another dtype."""

    def __init__(self, graph: Graph, dtype: str, policies: Policies) -> None:
        self.graph, self.dtype = graph, dtype
        self.wide, self.free = set(policies.wide), policies.free
        self.half = dtype in HALF
        self.result = Graph(graph.name)
        self.names: dict[str, str] = {}
        self.narrowed: dict[str, str] = {}
        """Values that are float32 -> the same in the network's dtype."""
        self.widened: dict[str, str] = {}

    def run(self) -> Graph:
        for node in self.graph.nodes():
            wide = self._is_wide(node)
            op, inputs = node.op, [self._operand(node, name, wide) for name in node.inputs]
            if wide:
                pass
            elif self._follows(node):
                op = replace(op, dtype=self.dtype)  # type: ignore[call-arg]
            elif isinstance(op, Conv2D | Conv2DTranspose | Dense) and self.half:
                weight = inputs[1]
                inputs[1] = self.result.add(Cast(self.dtype), [weight], f"{weight}/{self.dtype}", node.layer)
            elif isinstance(op, _Sums) and self._is_rounded(node, inputs):
                op = replace(op, dtype=self.dtype)
            self.names[node.name] = self.result.add(op, inputs, node.name, node.layer, node.phase)
        self.result.outputs = {
            key: self.names[value] if self.graph[value].layer in self.wide else self._narrow(value)
            for key, value in self.graph.outputs.items()
        }
        self.result.updates = [
            replace(update, parameter=self.names[update.parameter], value=self.names[update.value])
            for update in self.graph.updates
        ]
        self.result.penalties = {self.names[value]: ops for value, ops in self.graph.penalties.items()}
        self.result.constraints = {self.names[name]: op for name, op in self.graph.constraints.items()}
        return self.result

    def _is_wide(self, node: Node) -> bool:
        """Whether a node stays float32: by its layer's policy or, of an operation, by an operand's; an input
        where a layer of float32, or an operation, reads it."""
        layer = node.layer
        if isinstance(node.op, Input):
            others = self.wide | self.free
            joins = any(reader.layer in others for reader in self.graph.readers(node.name))
        else:
            given = (self.graph[name] for name in node.inputs)
            joins = layer in self.free and any(x.layer in self.wide and x.type.is_floating for x in given)
        if joins and layer is not None:
            self.wide.add(layer)
        return layer in self.wide

    def _follows(self, node: Node) -> bool:
        """Whether a source, or what becomes of integers, takes the network's dtype; weights and places do not
        follow it below float32.
        """
        if isinstance(node.op, Input | Random | RandomBox):
            return node.type.is_floating
        if isinstance(node.op, Cast):
            return node.type.is_floating and not self.graph[node.inputs[0]].type.is_floating
        if not node.type.is_floating:
            return False
        if self.half and isinstance(node.op, Constant):  # what is compared, or chosen from, is rounded alike
            return all(isinstance(r.op, Compare | Where) for r in self.graph.readers(node.name))
        return isinstance(node.op, (Parameter, RandomTransform, *KNOWN)) and not self.half

    def _is_rounded(self, node: Node, inputs: list[str]) -> bool:
        """Whether sums are wider than the network's dtype, and read by nothing that goes on in float32."""
        if not (self.half and node.type.batched):
            return False
        stays = any(not _ends(node, reader) for reader in self.graph.readers(node.name))
        wide = node.op.result(*(self.result[name].type for name in inputs)).dtype != self.dtype
        return wide and (not stays or self.graph.is_output(node.name))

    def _operand(self, reader: Node, name: str, wide: bool) -> str:
        if wide:
            return self._widen(name)
        return self._narrow(name) if _ends(self.graph[name], reader) else self.names[name]

    def _widen(self, name: str) -> str:
        """A value in float32, for what computes in it."""
        made = self.result[self.names[name]]
        if made.type.dtype not in HALF:
            return made.name
        if name not in self.widened:
            cast = self.result.add(
                Cast("float32"), [made.name], f"{made.name}/float32", made.layer, made.phase
            )
            self.widened[name] = cast
        return self.widened[name]

    def _narrow(self, name: str) -> str:
        """A value in the network's dtype."""
        made = self.result[self.names[name]]
        computed = made.type.batched and made.type.is_floating and made.op.kind is not Kind.SOURCE
        if not self.half or not computed or made.type.dtype == self.dtype:
            return made.name
        if name not in self.narrowed:
            cast = self.result.add(
                Cast(self.dtype), [made.name], f"{made.name}/{self.dtype}", made.layer, made.phase
            )
            self.narrowed[name] = cast
        return self.narrowed[name]


def _ends(node: Node, reader: Node) -> bool:
    """Whether the reader takes a value as its layer hands it on, in the network's dtype."""
    return node.layer != reader.layer or reader.op.kind not in (Kind.POINTWISE, Kind.REDUCTION)


def widen_terms(graph: Graph) -> list[Decision]:
    """What a layer computes for its sums alone becomes float32, and with it all on the way there.

    Kernels hold values in float32 anyway, so that this counts where values go through memory.
    """
    order = [node.name for node in graph.nodes()]
    chosen: set[str] = set()
    for name in reversed(order):
        if _feeds_sums(graph, graph[name], chosen):
            chosen.add(name)
    decisions = []
    for name in order:
        if name in chosen:
            _widen(graph, graph[name])
            decisions.append(Decision("sum(f(x)) -> sum(f(float32(x)))", name, True))
    return decisions


def _feeds_sums(graph: Graph, node: Node, chosen: set[str]) -> bool:
    """Whether a value of half precision is read by sums of its own layer alone, or by what is float32."""
    computed = node.op.kind is Kind.POINTWISE or isinstance(node.op, MatMul)
    if not computed or node.type.dtype not in HALF or graph.is_output(node.name):
        return False
    readers = graph.readers(node.name)
    return bool(readers) and all(
        _adds_up(node, reader)
        if reader.layer != node.layer
        else isinstance(reader.op, _Sums) or reader.name in chosen or _is_wide(reader)
        for reader in readers
    )


def _is_wide(node: Node) -> bool:
    return node.op.kind is Kind.POINTWISE and node.type.is_floating and node.type.dtype not in HALF


def _adds_up(part: Node, reader: Node) -> bool:
    """Whether the reader adds up, in float32, a gradient that has several parts."""
    return part.phase == "backward" and isinstance(reader.op, Add) and _is_wide(reader)


def _widen(graph: Graph, node: Node) -> None:
    if isinstance(node.op, MatMul):
        graph.update_node(node.name, op=replace(node.op, wide=True))
    elif isinstance(node.op, Cast):
        graph.update_node(node.name, op=Cast("float32"))
    else:
        _widen_an_operand(graph, graph[node.name])
    for reader in graph.readers(node.name):
        if isinstance(reader.op, _Sums):
            rounded: Op = replace(reader.op, dtype=reader.type.dtype)
            graph.update_node(reader.name, op=rounded if reader.type.dtype in HALF else reader.op)


def _widen_an_operand(graph: Graph, node: Node) -> None:
    """Cast the first operand that decides the dtype, where what it reads has not become float32 already."""
    types = [graph[name].type for name in node.inputs]
    places = [None, *(i for i, kind in enumerate(types) if kind.dtype in HALF)]
    for place in places:
        tried = [kind.with_dtype("float32") if i == place else kind for i, kind in enumerate(types)]
        if node.op.result(*tried).dtype not in HALF:
            break
    inputs = list(node.inputs)
    if place is not None:
        cast = Cast("float32"), [inputs[place]], f"{inputs[place]}/float32"
        inputs[place] = graph.add(*cast, node.layer, node.phase)
    graph.update_node(node.name, inputs=inputs)
