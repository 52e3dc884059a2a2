"""Regions: the parts of a graph that become one kernel each.

A region is one anchor with a pointwise prologue and an ordered epilogue, and possibly a sibling that reads
what the anchor reads anyway:

    prologue -> anchor -> epilogue (bias, affine, residual, activation) -> window -> epilogue at its rate

A partition covers a graph with regions, one for each view too; sources and values computed from parameters
alone stay outside.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from ..graph.decisions import Decision
from ..graph.errors import CompileError
from ..graph.ir import Graph, Node
from ..graph.op import Cost, Kind, op_to_json
from ..graph.ops import Input, Parameter


@dataclass
class Region:
    """One future kernel. nodes: its members in topological order; anchor: the one that sets the loop nest.

    pitches: of an operand or an output that lies in its slice of a concatenation, the elements from one row
    of channels to the next. joined: a concatenation whose operands are written into their slices, or a slice
    that is read where it lies: no kernel.
    """

    graph: Graph
    anchor: Node
    nodes: list[Node]
    name: str = ""
    pitches: dict[str, int] = field(default_factory=dict)
    joined: bool = False

    @cached_property
    def members(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    @cached_property
    def inputs(self) -> list[Node]:
        """Values the kernel reads, each once, in the order they are first needed."""
        names = dict.fromkeys(i for node in self.nodes for i in node.inputs if i not in self.members)
        return [self.graph[name] for name in names]

    @cached_property
    def outputs(self) -> list[Node]:
        """Members the kernel stores: those read outside the region or leaving the graph."""
        return [
            node
            for node in self.nodes
            if self.graph.is_output(node.name)
            or any(reader.name not in self.members for reader in self.graph.readers(node.name))
        ]

    @cached_property
    def prologue(self) -> list[Node]:
        """Members the anchor depends on."""
        needed = set(self.anchor.inputs)
        chosen: list[Node] = []
        for node in reversed(self.nodes):
            if node.name in needed:
                chosen.append(node)
                needed.update(node.inputs)
        return chosen[::-1]

    @cached_property
    def epilogue(self) -> list[Node]:
        """Members that depend on the anchor, in order."""
        reached = {self.anchor.name}
        chosen: list[Node] = []
        for node in self.nodes:
            if node.name not in reached and reached.intersection(node.inputs):
                reached.add(node.name)
                chosen.append(node)
        return chosen

    @cached_property
    def siblings(self) -> list[Node]:
        """Members that neither feed the anchor nor depend on it: they share its operands."""
        others = {node.name for node in (*self.prologue, self.anchor, *self.epilogue)}
        return [node for node in self.nodes if node.name not in others]

    @cached_property
    def signature(self) -> str:
        """What the region computes, without a name of a node or a layer: one line a value.

        Operands come first, then the members in order, each with its op, where its operands stand in this
        list, its type, and a `*` where it is stored; of both, the rows that it is part of. Two regions with
        one signature have one kernel.
        """
        place = {node.name: index for index, node in enumerate([*self.inputs, *self.nodes])}
        stored = {node.name for node in self.outputs}
        wide = {name: f" in rows of {pitch}" for name, pitch in self.pitches.items()}
        lines = [self.phase]
        lines += [f"{_origin(node)}{node.type}{wide.get(node.name, '')}" for node in self.inputs]
        for node in self.nodes:
            operands = ",".join(str(place[name]) for name in node.inputs)
            star = f"*{wide.get(node.name, '')}" if node.name in stored else ""
            lines.append(f"{json.dumps(op_to_json(node.op))} ({operands}) {node.type}{star}")
        return "\n".join([*lines, f"anchor {place[self.anchor.name]}"])

    @cached_property
    def key(self) -> str:
        """The signature in 32 hexadecimal digits: the same in every process and on every machine."""
        return hashlib.sha256(self.signature.encode()).hexdigest()[:32]

    @property
    def stem(self) -> str:
        """What it is called after: the fixed names of its ops, never the user's names."""
        return "_".join(list(dict.fromkeys(node.op.op_name() for node in self.nodes))[:5])

    @property
    def phase(self) -> str:
        return self.anchor.phase

    @property
    def layers(self) -> list[str]:
        """The user's layers the kernel came from, each once."""
        return list(dict.fromkeys(node.layer for node in self.nodes if node.layer))

    @property
    def is_view(self) -> bool:
        return self.anchor.op.kind is Kind.VIEW

    @property
    def launches(self) -> bool:
        """Whether anything is computed or moved: not by a view, nor where all lies in its place already."""
        return not self.is_view and not self.joined

    def cost(self, batch: int) -> Cost:
        """FLOPs of all members; bytes of what crosses the region's border."""
        if self.joined:
            return Cost(0, 0, 0)
        flops = sum(self.graph.cost(node.name, batch).flops for node in self.nodes)
        return Cost(
            flops,
            sum(node.type.nbytes(batch) for node in self.inputs),
            sum(node.type.nbytes(batch) for node in self.outputs),
        )

    def __str__(self) -> str:
        return f"{self.name}: " + " -> ".join(node.op.op_name() for node in self.nodes)


def _origin(node: Node) -> str:
    """The op of an operand where it says more than the type: values known beforehand, or drawn from a law."""
    if node.op.kind is not Kind.SOURCE or isinstance(node.op, Input | Parameter):
        return ""
    attributes = op_to_json(node.op)
    attributes.pop("seed", None)  # from which stream it is drawn
    return json.dumps(attributes) + " "


@dataclass
class Partition:
    """A graph cut into regions, in an order in which they can run.

    decisions: what fused, what did not, and why.
    """

    graph: Graph
    regions: list[Region]
    decisions: list[Decision] = field(default_factory=list)

    @property
    def kernels(self) -> list[Region]:
        """The regions that launch something."""
        return [region for region in self.regions if region.launches]

    def phase(self, phase: str) -> list[Region]:
        return [region for region in self.regions if region.phase == phase]

    def __iter__(self) -> Iterator[Region]:
        return iter(self.regions)


def order_regions(graph: Graph, groups: list[list[Node]], anchors: list[Node]) -> list[Region]:
    """Groups of nodes as regions, sorted so that each runs after the regions it reads."""
    owner = {node.name: index for index, group in enumerate(groups) for node in group}
    state: dict[int, int] = {}  # 1 while being visited, 2 when placed
    placed: list[int] = []
    for root in range(len(groups)):
        stack = [(root, iter(_reads(graph, groups[root], owner, root)))] if root not in state else []
        state.setdefault(root, 1)
        while stack:
            index, pending = stack[-1]
            following = next(pending, None)
            if following is None:
                state[index] = 2
                placed.append(index)
                stack.pop()
            elif following not in state:
                state[following] = 1
                stack.append((following, iter(_reads(graph, groups[following], owner, following))))
            elif state[following] == 1:
                raise CompileError(
                    f"the regions of {groups[index][0].name} and {groups[following][0].name} form a cycle"
                )
    regions = [Region(graph, anchors[index], groups[index]) for index in placed]
    _name(regions)
    return regions


def _reads(graph: Graph, group: list[Node], owner: dict[str, int], own: int) -> list[int]:
    found = {owner[i]: None for node in group for i in node.inputs if i in owner and owner[i] != own}
    return list(found)


def _name(regions: list[Region]) -> None:
    """Name each region by what it computes, and by a number where several compute the same."""
    counts: dict[str, int] = {}
    for region in regions:
        base = region.stem
        counts[base] = counts.get(base, 0) + 1
        region.name = base if counts[base] == 1 else f"{base}_{counts[base]}"
