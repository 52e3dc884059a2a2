"""The graph: a directed acyclic graph of typed, single-valued nodes, kept on networkx."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import cast

import networkx as nx
import torch

from .errors import ShapeError
from .leaving import Outputs, Update, Updates
from .op import Cost, Kind, Op
from .ops.source import KNOWN, Parameter
from .order import in_order
from .types import TensorType, accumulated


@dataclass(frozen=True)
class Node:
    """One value of the network: an op, the names of its operands, and its type.

    layer: name of the user's layer it came from ("" where there is none).
    phase: "forward" or "backward".
    """

    name: str
    op: Op
    inputs: tuple[str, ...]
    type: TensorType
    layer: str = ""
    phase: str = "forward"

    def evaluate(self, *inputs: torch.Tensor) -> torch.Tensor:
        """The op's reference, computed in float32 at least, in the dtype of the node's type."""
        wide = [accumulated(t)[0] if t.is_floating_point() else t for t in inputs]
        return self.op.reference(*wide).to(self.type.torch_dtype)

    def __str__(self) -> str:
        head, _, attributes = str(self.op).partition("(")
        parts = ", ".join(f"%{name}" for name in self.inputs)
        shown = " {" + attributes.removesuffix(")") + "}" if attributes else ""
        return f"%{self.name} = {head}({parts}){shown} : {self.type}"


class Graph:
    """A network. Nodes are added operands first; `nodes()` yields them in topological order.

    outputs: output name -> node name, in the order a call returns them.
    updates: values that a training step writes into parameters, in order; a parameter may have several. All
        are computed from the parameters as they were before the step.
    penalties: what of a value counts in a loss, its name -> ops, each one number; `add_penalties` makes nodes
        of them. They belong to the values as written: who removes a value removes its penalties.
    constraints: parameter name -> the op that an optimizer's step on it is followed by.
    """

    def __init__(self, name: str = "network") -> None:
        self.name = name
        self.dag: nx.MultiDiGraph = nx.MultiDiGraph()
        self._outputs = Outputs({})
        self._updates = Updates([])
        self.penalties: dict[str, tuple[Op, ...]] = {}
        self.constraints: dict[str, Op] = {}
        self._places: dict[str, float] = {}
        """Where each name stands among the nodes: a node that a rewrite puts in another's place keeps it."""
        self._sorted: list[str] | None = None
        """The names in order, until the nodes change."""
        self._changes: list[str] = []
        """The names that were touched, one after the other: those of nodes that are new or have changed, or
        whose readers have."""

    @property
    def outputs(self) -> Outputs:
        return self._outputs

    @outputs.setter
    def outputs(self, given: Mapping[str, str]) -> None:
        self._outputs = Outputs(given)

    @property
    def updates(self) -> Updates:
        return self._updates

    @updates.setter
    def updates(self, given: Iterable[Update]) -> None:
        self._updates = Updates(given)

    # -- reading ----------
    def __contains__(self, name: str) -> bool:
        return name in self.dag

    def __len__(self) -> int:
        return len(self.dag)

    def __getitem__(self, name: str) -> Node:
        return cast(Node, self.dag._node[name]["node"])

    def nodes(self) -> Iterator[Node]:
        """All nodes, operands before their readers, otherwise in the order their names were added."""
        if self._sorted is None:
            self._sorted = in_order(self.dag, self._places)
        entries = self.dag._node
        for name in self._sorted:
            yield entries[name]["node"]

    def latest(self) -> str | None:
        """The node added last."""
        return next(reversed(self.dag._node), None)

    def added_since(self, name: str | None) -> list[str]:
        """The nodes added after the one of this name, which must still be there, in order."""
        return list(takewhile(lambda later: later != name, reversed(self.dag._node)))[::-1]

    def operands(self, node: Node) -> list[Node]:
        return [self[name] for name in node.inputs]

    def readers(self, name: str) -> list[Node]:
        """Nodes that read this value, each once."""
        return [self[reader] for reader in self.dag.successors(name)]

    def changes(self) -> int:
        """How many there were: a moment that `changed_since` takes."""
        return len(self._changes)

    def changed_since(self, moment: int) -> dict[str, None]:
        """The nodes, each once, that are new or have changed since that moment, or whose readers have."""
        return {name: None for name in self._changes[moment:] if name in self.dag}

    def is_output(self, name: str) -> bool:
        """Whether the value leaves the graph, as an output or as updated state."""
        return self._outputs.uses(name) or self._updates.uses(name)

    def sources(self, op: type[Op]) -> list[Node]:
        return [node for node in self.nodes() if isinstance(node.op, op)]

    def cost(self, name: str, batch: int = 1) -> Cost:
        node = self[name]
        return node.op.cost([n.type for n in self.operands(node)], node.type, batch)

    # -- writing ----------
    def add(
        self,
        op: Op,
        inputs: Iterable[str] = (),
        name: str | None = None,
        layer: str = "",
        phase: str = "forward",
    ) -> str:
        """Append a node and return its name; `name` is made unique by a counter where it is taken."""
        operands = tuple(inputs)
        unique = self.unique_name(name or op.op_name())
        for operand in operands:
            if operand not in self.dag:
                raise ShapeError(f"{unique}: operand {operand!r} is not in the graph")
        kind = self._infer(unique, op, operands)
        self._insert(Node(unique, op, operands, kind, layer, phase))
        return unique

    def _infer(self, name: str, op: Op, operands: tuple[str, ...]) -> TensorType:
        try:
            return op.result(*(self[operand].type for operand in operands))
        except ShapeError as error:
            raise ShapeError(f"{name}: {error}") from None

    def _insert(self, node: Node) -> None:
        self._sorted = None
        self._changes.append(node.name)
        self.dag.add_node(node.name, node=node)
        self._places.setdefault(node.name, len(self._places))
        for position, operand in enumerate(node.inputs):
            self.dag.add_edge(operand, node.name, key=position)

    def unique_name(self, name: str) -> str:
        if name not in self.dag:
            return name
        counters: dict[str, int] = self.dag.graph.setdefault("counters", {})
        count = counters.get(name, 0) + 1
        while f"{name}_{count}" in self.dag:
            count += 1
        counters[name] = count
        return f"{name}_{count}"

    def update_node(self, name: str, *, op: Op | None = None, inputs: Iterable[str] | None = None) -> None:
        """Give a node another op or other operands; its type is inferred anew."""
        old = self[name]
        operands = old.inputs if inputs is None else tuple(inputs)
        op = op or old.op
        for position, operand in enumerate(old.inputs):
            self.dag.remove_edge(operand, name, position)
        self._changes += old.inputs
        self._insert(replace(old, op=op, inputs=operands, type=self._infer(name, op, operands)))

    def put_before(self, name: str, reader: str) -> None:
        """Let a node stand just before another one, where its operands allow it."""
        self._sorted = None
        self._places[name] = self._places[reader] - 0.5

    def replace_uses(self, old: str, new: str) -> None:
        """Let every reader of `old`, and every output it is, use `new` instead."""
        for reader in self.readers(old):
            if reader.name != new:
                self.update_node(reader.name, inputs=[new if i == old else i for i in reader.inputs])
        self._outputs.replace(old, new)
        self._updates.replace(old, new)

    def rename(self, old: str, new: str) -> None:
        """Give a node a name that is free."""
        node, readers = self[old], self.readers(old)
        self._insert(replace(node, name=new))
        for reader in readers:
            self.update_node(reader.name, inputs=[new if i == old else i for i in reader.inputs])
        self._outputs.replace(old, new)
        self._updates.replace(old, new)
        if node.op.kind is Kind.SOURCE:
            self._updates.rename_parameter(old, new)
        if old in self.penalties:
            self.penalties[new] = self.penalties.pop(old)
        if old in self.constraints:
            self.constraints[new] = self.constraints.pop(old)
        self.remove(old)

    def remove(self, name: str) -> None:
        self._sorted = None
        self._changes += self.dag.predecessors(name)
        self._changes += self.dag.successors(name)
        self.dag.remove_node(name)
        self.penalties.pop(name, None)
        self.constraints.pop(name, None)

    def copy(self) -> Graph:
        twin = Graph(self.name)
        twin.dag = self.dag.copy()
        twin.dag.graph = {"counters": dict(self.dag.graph.get("counters", {}))}
        twin.outputs = self.outputs
        twin.updates = self.updates
        twin.penalties = dict(self.penalties)
        twin.constraints = dict(self.constraints)
        twin._places = dict(self._places)
        return twin

    # -- derived facts ----------
    def behind(self, names: Iterable[str]) -> set[str]:
        """These nodes, and all that they follow from."""
        found: set[str] = set()
        stack = list(names)
        while stack:
            name = stack.pop()
            if name not in found:
                found.add(name)
                stack.extend(self[name].inputs)
        return found

    def parameter_only(self) -> set[str]:
        """Values that depend on parameters and constants alone: computed once, not once a batch."""
        known: set[str] = set()
        for node in self.nodes():
            if node.op.kind is Kind.SOURCE:
                if isinstance(node.op, (Parameter, *KNOWN)):
                    known.add(node.name)
            elif all(operand in known for operand in node.inputs):
                known.add(node.name)
        return known

    def __str__(self) -> str:
        lines = [f"graph {self.name} {{"]
        lines += [f"  {node}" + (f"  // {node.layer}" if node.layer else "") for node in self.nodes()]
        results = ", ".join(f"{key}=%{value}" for key, value in self.outputs.items())
        lines.append(f"  return {results}")
        lines += [f"  update {update}" for update in self.updates]
        lines += [f"  penalty {op} of %{value}" for value, ops in self.penalties.items() for op in ops]
        lines += [f"  constrain %{parameter} by {op}" for parameter, op in self.constraints.items()]
        return "\n".join([*lines, "}"])
