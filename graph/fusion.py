"""Fusion: growing regions along a table of rules.

Each rule is named by its equation and says when it does not apply. Three guards hold for every rule: a value
that another forward node reads, or that is an output of the network, is never fused away; regions never mix
the forward and the backward phase; and a fusion may not close a cycle. A forward value that only the backward
pass reads is stored by the kernel beside its result, so training fuses as well as inference does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

from .ir import Graph, Node
from .op import Kind
from .ops import (
    AveragePool2D,
    AverageUnpool2D,
    Conv2D,
    Conv2DWeightGrad,
    Dense,
    DenseWeightGrad,
    MaxPool2D,
    MaxPoolIndex2D,
    MaxUnpool2D,
    Reduce,
    Softmax,
)
from .regions import Decision, Partition, order_regions
from .types import BATCH

WIDEST_ROW_IN_A_TILE = 128
"""Columns up to which one tile holds a whole row, so that a softmax can ride in the epilogue."""

POOLS = (MaxPool2D, MaxPoolIndex2D, AveragePool2D)
UNPOOLS = (MaxUnpool2D, AverageUnpool2D)
WEIGHT_GRADS = (Conv2DWeightGrad, DenseWeightGrad)


class Group:
    """A region while it grows."""

    def __init__(self, node: Node) -> None:
        self.nodes = [node]
        self.anchor = node

    @property
    def kind(self) -> Kind:
        return self.anchor.op.kind

    def has(self, *ops: type) -> bool:
        return any(isinstance(node.op, ops) for node in self.nodes)

    @property
    def windows(self) -> list[Node]:
        """Pooling that rides on an anchor of another kind."""
        return [n for n in self.nodes if n is not self.anchor and isinstance(n.op, POOLS + UNPOOLS)]


@dataclass(frozen=True)
class FusionRule:
    """equation: its name. matches: whether it concerns this reader and group. refuses: why not, or None."""

    equation: str
    matches: Callable[[Node, Group], bool]
    refuses: Callable[[Fuser, Node, Node, Group], str | None]
    into_producer: bool = True
    """True: the reader joins the producer's region. False: that region becomes the reader's prologue."""


@dataclass(frozen=True)
class SiblingRule:
    """Two nodes that read the same value share a kernel. matches: (the node, the one already in a region)."""

    equation: str
    matches: Callable[[Node, Node], bool]


class Fuser:
    """Grows the regions of one graph; `decisions` collects what happened."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.owner: dict[str, Group] = {}
        self.groups: dict[int, Group] = {}
        self.decisions: list[Decision] = []

    def run(self) -> Partition:
        outside = self.graph.parameter_only()
        for node in self.graph.nodes():
            if node.op.kind is Kind.SOURCE or node.name in outside:
                continue
            group = Group(node)
            self.owner[node.name] = group
            self.groups[id(group)] = group
            if node.op.kind is not Kind.VIEW:
                self._grow(node)
        groups = list(self.groups.values())
        regions = order_regions(self.graph, [g.nodes for g in groups], [g.anchor for g in groups])
        return Partition(self.graph, regions, self.decisions)

    def _grow(self, node: Node) -> None:
        """Try the rules at `node`; the latest operand first, since its region can wait for the others."""
        producers = [name for name in reversed(dict.fromkeys(node.inputs)) if name in self.owner]
        position = {name: index for index, name in enumerate(self.owner)}
        for rule in RULES:
            for name in sorted(producers, key=lambda n: -position[n]):
                group = self.owner[name]
                if group is self.owner[node.name] or not rule.matches(node, group):
                    continue
                producer = self.graph[name]
                reason = self._guard(rule, producer, node, group) or rule.refuses(self, producer, node, group)
                self.decisions.append(Decision(rule.equation, node.name, reason is None, reason or ""))
                if reason is None:
                    self._merge(node, group, rule.into_producer)
                    if rule.into_producer:
                        return
        self._join_sibling(node)

    def _join_sibling(self, node: Node) -> None:
        for rule in SIBLINGS:
            for other in self.graph.readers(node.inputs[0]) if node.inputs else ():
                group = self.owner.get(other.name)
                if group is None or group is self.owner[node.name] or not rule.matches(node, other):
                    continue
                reason = self._cycle(node, group)
                self.decisions.append(Decision(rule.equation, node.name, reason is None, reason or ""))
                if reason is None:
                    self._merge(node, group, into_producer=True)
                    return

    def _merge(self, node: Node, group: Group, into_producer: bool) -> None:
        mine = self.owner[node.name]
        keep, gone = (group, mine) if into_producer else (mine, group)
        keep.nodes = group.nodes + mine.nodes
        for member in gone.nodes:
            self.owner[member.name] = keep
        del self.groups[id(gone)]

    # -- guards ----------
    def _guard(self, rule: FusionRule, producer: Node, node: Node, group: Group) -> str | None:
        if producer.phase != node.phase:
            return f"{producer.name} belongs to the {producer.phase} pass"
        if self.graph.is_output(producer.name):
            return f"{producer.name} is an output of the network"
        others = [
            reader
            for reader in self.graph.readers(producer.name)
            if reader.name != node.name and not self._rides_along(reader, node, group)
        ]
        here = [reader.name for reader in others if reader.phase == producer.phase]
        if here:
            return f"{producer.name} also feeds {', '.join(here)}"
        kept = [n.name for n in group.nodes if self._read_elsewhere(n, group, node)]
        if kept and not rule.into_producer:
            return f"{kept[0]} is kept for the backward pass"
        return self._cycle(node, group)

    def _read_elsewhere(self, member: Node, group: Group, node: Node) -> bool:
        inside = group_names(group) | {node.name}
        return any(
            reader.name not in inside and not self._rides_along(reader, node, group)
            for reader in self.graph.readers(member.name)
        )

    @staticmethod
    def _rides_along(reader: Node, node: Node, group: Group) -> bool:
        """Whether both readers are one pooling and its index, which live in the same kernel."""
        pools = (MaxPool2D, MaxPoolIndex2D)
        return (
            isinstance(reader.op, pools)
            and isinstance(node.op, pools)
            and reader.op.geometry() == node.op.geometry()
        )

    def _cycle(self, node: Node, group: Group) -> str | None:
        """A reason if an operand of the merged region depends on it by a path outside."""
        mine = self.owner[node.name]
        inside = {id(group), id(mine)}
        stack = [i for n in (*mine.nodes, *group.nodes) for i in n.inputs]
        seen: set[int] = set()
        while stack:
            owner = self.owner.get(stack.pop())
            if owner is None or id(owner) in seen or id(owner) in inside:
                continue
            seen.add(id(owner))
            for member in owner.nodes:
                for operand in member.inputs:
                    source = self.owner.get(operand)
                    if source is not None and id(source) in inside:
                        return f"another path leads from {group.anchor.name} to {node.name}"
                    stack.append(operand)
        return None


# -- conditions: each returns the reason for a refusal, or None ----------
def _epilogue(fuser: Fuser, producer: Node, node: Node, group: Group) -> str | None:
    if node.type.shape != producer.type.shape:
        return f"{node.name} broadcasts {producer.name} from {producer.type} to {node.type}"
    for operand in fuser.graph.operands(node):
        if operand.name != producer.name and operand.name not in group_names(group):
            kind = broadcast_kind(operand.type.shape, node.type.shape)
            if kind is None:
                return f"{operand.name} of {operand.type} broadcasts along an axis no kernel handles"
    if any(isinstance(n.op, Softmax) for n in group.nodes):
        return "a softmax ends its region"
    return None


def _pool(fuser: Fuser, producer: Node, node: Node, group: Group) -> str | None:
    op = node.op
    if not isinstance(op, POOLS):
        return "not a pooling"
    if op.overlapping:
        return (
            f"windows of {op.size[0]}x{op.size[1]} at stride {op.strides[0]}x{op.strides[1]} overlap: "
            f"fusing would compute shared elements again"
        )
    if prod(op.size) & (prod(op.size) - 1):
        return f"a window of {op.size[0]}x{op.size[1]} has {prod(op.size)} elements, which is no power of two"
    if prod(op.size) > 16:
        return f"a window of {op.size[0]}x{op.size[1]} is a row tile of its own"
    if any(n.op.geometry() != op.geometry() or n.inputs[0] != producer.name for n in group.windows):  # type: ignore[attr-defined]
        return "the region already holds another window"
    if any(isinstance(n.op, Softmax) for n in group.nodes):
        return "a softmax ends its region"
    covered = tuple(int(p) * s for p, s in zip(node.type.shape[1:3], op.strides, strict=True))
    full = producer.type.shape[1:3]
    kept = [n.name for n in group.nodes if _stored_at_full_rate(fuser.graph, n, group)]
    if kept and (covered != full or op.size != op.strides or op.padding != ((0, 0), (0, 0))):
        return f"{kept[0]} is kept whole, but the windows do not cover it exactly"
    return None


def _stored_at_full_rate(graph: Graph, node: Node, group: Group) -> bool:
    names = group_names(group)
    pools = (MaxPool2D, MaxPoolIndex2D, AveragePool2D)
    return any(
        r.name not in names and not isinstance(r.op, pools) for r in graph.readers(node.name)
    ) and not any(node.name == w.name for w in group.windows)


def _unpool(fuser: Fuser, producer: Node, node: Node, group: Group) -> str | None:
    op = node.op
    if not isinstance(op, UNPOOLS):
        return "not a pooling gradient"
    if node.inputs[0] != producer.name:
        return f"{producer.name} is not the gradient that spreads over the windows"
    if op.size != op.strides or op.padding != ((0, 0), (0, 0)):
        return (
            f"windows of {op.size[0]}x{op.size[1]} at stride {op.strides[0]}x{op.strides[1]} "
            f"do not tile the map"
        )
    if tuple(int(d) * s for d, s in zip(producer.type.shape[1:3], op.strides, strict=True)) != op.input_size:
        return f"the windows leave a border of the {op.input_size[0]}x{op.input_size[1]} map uncovered"
    if group.windows:
        return "the region already holds another window"
    if prod(op.size) > 16:
        return f"a window of {op.size[0]}x{op.size[1]} is too large to write from one row"
    return None


def _softmax(fuser: Fuser, producer: Node, node: Node, group: Group) -> str | None:
    if group.windows:
        return "the region holds a window"
    if node.type.channels > WIDEST_ROW_IN_A_TILE:
        return f"a row of {node.type.channels} does not fit into one tile of {WIDEST_ROW_IN_A_TILE} columns"
    if getattr(group.anchor.op, "groups", 1) != 1:
        return "a grouped convolution computes a row in parts"
    return None


def _prologue(fuser: Fuser, producer: Node, node: Node, group: Group) -> str | None:
    op = node.op
    if node.inputs[0] != producer.name:
        return f"{producer.name} is the weight, not the data, of {node.name}"
    if isinstance(op, Conv2D):
        kernel = fuser.graph[node.inputs[1]].type.size()[:2]
        if kernel != (1, 1):
            return f"a {kernel[0]}x{kernel[1]} kernel would compute {producer.name} {prod(kernel)} times"
    return _plain_pointwise(fuser, group)


def _reduce_prologue(fuser: Fuser, producer: Node, node: Node, group: Group) -> str | None:
    return _plain_pointwise(fuser, group)


def _pool_prologue(fuser: Fuser, producer: Node, node: Node, group: Group) -> str | None:
    op = node.op
    if isinstance(op, POOLS) and op.overlapping:
        return f"overlapping windows would compute {producer.name} several times"
    return _plain_pointwise(fuser, group)


def _plain_pointwise(fuser: Fuser, group: Group) -> str | None:
    shape = group.nodes[-1].type.shape
    for node in group.nodes:
        if node.type.shape != shape:
            return f"{node.name} has another shape than {group.nodes[-1].name}"
        for operand in fuser.graph.operands(node):
            if operand.name not in group_names(group) and broadcast_kind(operand.type.shape, shape) is None:
                return f"{operand.name} of {operand.type} broadcasts along an axis no kernel handles"
    return None


def group_names(group: Group) -> set[str]:
    return {node.name for node in group.nodes}


def broadcast_kind(operand: tuple[int | str, ...], result: tuple[int | str, ...]) -> str | None:
    """How an operand lies against a result (N, ..., C): "full", "channel", "image" (N,1,1,C), "pixel"
    (N,H,W,1), "scalar"; None where it broadcasts in a way no kernel handles.
    """
    padded = (1,) * (len(result) - len(operand)) + tuple(operand)
    if padded == tuple(result):
        return "full"
    if all(d == 1 for d in padded):
        return "scalar"
    if all(d == 1 for d in padded[:-1]) and padded[-1] == result[-1]:
        return "channel"
    if padded[0] == BATCH and all(d == 1 for d in padded[1:-1]) and padded[-1] == result[-1]:
        return "image"
    if padded[:-1] == tuple(result[:-1]) and padded[-1] == 1:
        return "pixel"
    return None


def _index_beside_pool(node: Node, other: Node) -> bool:
    return (
        isinstance(node.op, MaxPoolIndex2D)
        and isinstance(other.op, MaxPool2D)
        and other.op.geometry() == node.op.geometry()
    )


def _bias_beside_weight_gradient(node: Node, other: Node) -> bool:
    return (
        isinstance(node.op, Reduce)
        and not node.op.mean
        and node.type.rank == 1
        and isinstance(other.op, WEIGHT_GRADS)
        and other.inputs[1] == node.inputs[0]
    )


RULES: tuple[FusionRule, ...] = (
    FusionRule(
        "softmax(contraction(x)) -> one kernel",
        lambda node, group: isinstance(node.op, Softmax) and isinstance(group.anchor.op, Dense | Conv2D),
        _softmax,
    ),
    FusionRule(
        "pool(contraction(x) + bias, affine, residual, activation) -> one kernel",
        lambda node, group: isinstance(node.op, POOLS) and group.kind is Kind.CONTRACTION,
        _pool,
    ),
    FusionRule(
        "unpool(contraction(x)) -> one kernel",
        lambda node, group: (
            isinstance(node.op, UNPOOLS)
            and group.kind is Kind.CONTRACTION
            and not isinstance(group.anchor.op, WEIGHT_GRADS)
        ),
        _unpool,
    ),
    FusionRule(
        "pointwise(contraction(x)) -> one kernel",
        lambda node, group: (
            node.op.kind is Kind.POINTWISE
            and group.kind is Kind.CONTRACTION
            and not isinstance(group.anchor.op, WEIGHT_GRADS)
        ),
        _epilogue,
    ),
    FusionRule(
        "pointwise(window(x)) -> one kernel",
        lambda node, group: (
            node.op.kind is Kind.POINTWISE
            and group.kind is Kind.WINDOW
            and not isinstance(group.anchor.op, MaxPoolIndex2D)
        ),
        _epilogue,
    ),
    FusionRule(
        "pointwise(pointwise(x)) -> one kernel",
        lambda node, group: node.op.kind is Kind.POINTWISE and group.kind is Kind.POINTWISE,
        _epilogue,
    ),
    FusionRule(
        "contraction(pointwise(x)) -> one kernel",
        lambda node, group: isinstance(node.op, Conv2D | Dense) and group.kind is Kind.POINTWISE,
        _prologue,
        into_producer=False,
    ),
    FusionRule(
        "reduce(pointwise(x)) -> one kernel",
        lambda node, group: isinstance(node.op, Reduce) and group.kind is Kind.POINTWISE,
        _reduce_prologue,
        into_producer=False,
    ),
    FusionRule(
        "pool(pointwise(x)) -> one kernel",
        lambda node, group: isinstance(node.op, MaxPool2D | AveragePool2D) and group.kind is Kind.POINTWISE,
        _pool_prologue,
        into_producer=False,
    ),
)

SIBLINGS: tuple[SiblingRule, ...] = (
    SiblingRule("max_pool_index(x) beside max_pool(x) -> one kernel", _index_beside_pool),
    SiblingRule("channel_sum(dy) beside weight_gradient(x, dy) -> one kernel", _bias_beside_weight_gradient),
)


def fuse(graph: Graph) -> Partition:
    """Cut the graph into regions along RULES."""
    return Fuser(graph).run()


def leave_unfused(graph: Graph) -> Partition:
    """One region an op: what an eager framework runs, and the yardstick of every comparison."""
    outside = graph.parameter_only()
    nodes = [n for n in graph.nodes() if n.op.kind is not Kind.SOURCE and n.name not in outside]
    return Partition(graph, order_regions(graph, [[n] for n in nodes], nodes))
