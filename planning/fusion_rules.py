"""The fusion rules: a table of what may share a kernel, each row with its reasons for refusing.

The guards every rule shares (other readers, outputs, phases, cycles) live in `fusion.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

from ..graph.ir import Graph, Node
from ..graph.op import Kind
from ..graph.ops import (
    AveragePool2D,
    AverageUnpool2D,
    Cast,
    Conv2D,
    Conv2DDataGrad,
    Conv2DWeightGrad,
    Dense,
    DenseDataGrad,
    DenseWeightGrad,
    LookUp,
    MatMul,
    MaxPool2D,
    MaxPoolIndex2D,
    MaxUnpool2D,
    Reduce,
    Resize,
    ResizeGrad,
    Scale,
    Softmax,
    Warp,
)
from ..graph.types import broadcast_kind

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
        self.first = 0
        """Position of the earliest member in the graph's order."""

    @property
    def kind(self) -> Kind:
        return self.anchor.op.kind

    @property
    def names(self) -> set[str]:
        return {node.name for node in self.nodes}

    @property
    def windows(self) -> list[Node]:
        """Pooling that rides on an anchor of another kind."""
        return [n for n in self.nodes if n is not self.anchor and isinstance(n.op, POOLS + UNPOOLS)]


@dataclass(frozen=True)
class FusionRule:
    """equation: its name. matches: whether it concerns this reader and group. refuses: why not, or None."""

    equation: str
    matches: Callable[[Node, Group], bool]
    refuses: Callable[[Graph, Node, Node, Group], str | None]
    into_producer: bool = True
    """True: the reader joins the producer's region. False: that region becomes the reader's prologue."""


@dataclass(frozen=True)
class SiblingRule:
    """Two computations over the same data share a kernel.

    matches: whether the node, with the region it has so far, may join the other region.
    """

    equation: str
    matches: Callable[[Node, Group, Group], bool]


# -- conditions: each returns the reason for a refusal, or None ----------
def _epilogue(graph: Graph, producer: Node, node: Node, group: Group) -> str | None:
    if node.type.shape != producer.type.shape:
        return f"{node.name} broadcasts {producer.name} from {producer.type} to {node.type}"
    # One pass over the elements, which finds any operand's place.
    flat = group.kind is Kind.POINTWISE or isinstance(group.anchor.op, Resize | ResizeGrad | Warp | LookUp)
    for operand in () if flat else graph.operands(node):
        if operand.name != producer.name and operand.name not in group.names:
            kind = broadcast_kind(operand.type.shape, node.type.shape)
            if kind is None:
                return f"{operand.name} of {operand.type} broadcasts along an axis no kernel handles"
    if any(isinstance(n.op, Softmax) for n in group.nodes):
        return "a softmax ends its region"
    return None


def _pool(graph: Graph, producer: Node, node: Node, group: Group) -> str | None:
    op = node.op
    if not isinstance(op, POOLS):
        return "not a pooling"
    if isinstance(group.anchor.op, Conv2DDataGrad | DenseDataGrad | MatMul):
        return f"{group.anchor.op.op_name()} computes pixels in an order that no window keeps together"
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
    kept = [n.name for n in group.nodes if _stored_at_full_rate(graph, n, group)]
    if kept and (covered != full or op.size != op.strides or op.padding != ((0, 0), (0, 0))):
        return f"{kept[0]} is kept whole, but the windows do not cover it exactly"
    return None


def _stored_at_full_rate(graph: Graph, node: Node, group: Group) -> bool:
    names = group.names
    pools = (MaxPool2D, MaxPoolIndex2D, AveragePool2D)
    return any(
        r.name not in names and not isinstance(r.op, pools) for r in graph.readers(node.name)
    ) and not any(node.name == w.name for w in group.windows)


def _unpool(graph: Graph, producer: Node, node: Node, group: Group) -> str | None:
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


def _softmax(graph: Graph, producer: Node, node: Node, group: Group) -> str | None:
    if group.windows:
        return "the region holds a window"
    if node.type.channels > WIDEST_ROW_IN_A_TILE:
        return f"a row of {node.type.channels} does not fit into one tile of {WIDEST_ROW_IN_A_TILE} columns"
    if getattr(group.anchor.op, "groups", 1) != 1:
        return "a grouped convolution computes a row in parts"
    return None


def _prologue(graph: Graph, producer: Node, node: Node, group: Group) -> str | None:
    op = node.op
    if isinstance(op, MatMul):
        return f"{node.name} reads {producer.name} again for every tile, and would compute it as often"
    if node.inputs[0] != producer.name:
        return f"{producer.name} is the weight, not the data, of {node.name}"
    if isinstance(op, Conv2D):
        kernel = graph[node.inputs[1]].type.size()[:2]
        if kernel != (1, 1) and not _reads_integers(graph, group):
            return f"a {kernel[0]}x{kernel[1]} kernel would compute {producer.name} {prod(kernel)} times"
    return _plain_pointwise(graph, group)


def _reads_integers(graph: Graph, group: Group) -> bool:
    """Whether a group makes floating-point numbers of integers, one by one: so little work that it is done
    again for each tap rather than that the image is written and read as numbers of four times the size."""
    reads = [graph[name].type for node in group.nodes for name in node.inputs if name not in group.names]
    return len(reads) == 1 and not reads[0].is_floating and all(
        isinstance(node.op, Cast | Scale) for node in group.nodes
    )


def _reduce_prologue(graph: Graph, producer: Node, node: Node, group: Group) -> str | None:
    return _plain_pointwise(graph, group, any_broadcast=not _is_channel_sum(node))


def _pool_prologue(graph: Graph, producer: Node, node: Node, group: Group) -> str | None:
    op = node.op
    if isinstance(op, POOLS) and op.overlapping:
        return f"overlapping windows would compute {producer.name} several times"
    return _plain_pointwise(graph, group)


def _plain_pointwise(graph: Graph, group: Group, any_broadcast: bool = False) -> str | None:
    """any_broadcast: the kernel walks flat elements, and finds the place of any operand."""
    shape = group.nodes[-1].type.shape
    for node in group.nodes:
        if node.type.shape != shape:
            return f"{node.name} has another shape than {group.nodes[-1].name}"
        for operand in () if any_broadcast else graph.operands(node):
            if operand.name not in group.names and broadcast_kind(operand.type.shape, shape) is None:
                return f"{operand.name} of {operand.type} broadcasts along an axis no kernel handles"
    return None


def _index_beside_pool(node: Node, mine: Group, group: Group) -> bool:
    return isinstance(node.op, MaxPoolIndex2D) and any(
        isinstance(other.op, MaxPool2D)
        and other.op.geometry() == node.op.geometry()
        and other.inputs == node.inputs
        for other in group.nodes
    )


def _bias_beside_weight_gradient(node: Node, mine: Group, group: Group) -> bool:
    anchor = group.anchor
    return (
        _is_channel_sum(node)
        and not node.op.mean  # type: ignore[attr-defined]
        and isinstance(anchor.op, WEIGHT_GRADS)
        and anchor.inputs[1] == node.inputs[0]
    )


def _sums_side_by_side(node: Node, mine: Group, group: Group) -> bool:
    needs_the_other = any(group.names.intersection(member.inputs) for member in mine.nodes)
    same = _is_channel_sum(node) and _is_channel_sum(group.anchor) and group.anchor.type == node.type
    return same and not needs_the_other


def _is_channel_sum(node: Node) -> bool:
    return isinstance(node.op, Reduce) and node.type.rank == 1 and not node.op.keepdims


RULES: tuple[FusionRule, ...] = (
    FusionRule(
        "softmax(contraction(x)) -> one kernel",
        lambda node, group: (
            isinstance(node.op, Softmax) and isinstance(group.anchor.op, Dense | Conv2D | MatMul)
        ),
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
            and not isinstance(group.anchor.op, (*WEIGHT_GRADS, MatMul))
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
        "pointwise(warp(x)) -> one kernel",
        lambda node, group: node.op.kind is Kind.POINTWISE and isinstance(group.anchor.op, Warp),
        _epilogue,
    ),
    FusionRule(
        "pointwise(look_up(table, x)) -> one kernel",
        lambda node, group: node.op.kind is Kind.POINTWISE and isinstance(group.anchor.op, LookUp),
        _epilogue,
    ),
    FusionRule(
        "pointwise(pointwise(x)) -> one kernel",
        lambda node, group: node.op.kind is Kind.POINTWISE and group.kind is Kind.POINTWISE,
        _epilogue,
    ),
    FusionRule(
        "contraction(pointwise(x)) -> one kernel",
        lambda node, group: isinstance(node.op, Conv2D | Dense | MatMul) and group.kind is Kind.POINTWISE,
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
    SiblingRule("channel_sum(f(x)) beside channel_sum(g(x)) -> one kernel", _sums_side_by_side),
)
