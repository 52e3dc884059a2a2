"""The fusion rules: a table of what may share a kernel.

A rule says what it is about, and what it costs where that is more than nothing. Whether a kernel can compute
what would become of it is asked of the forms (`forms`), and the guards that every rule shares (other readers,
outputs, phases, cycles) live in `fusion.py`: no requirement of correctness stands here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

from ..graph.ir import Node
from ..graph.op import Kind, Op
from ..graph.ops import (
    AveragePool2D,
    Conv2D,
    Conv2DWeightGrad,
    Dense,
    DenseDataGrad,
    DenseWeightGrad,
    LookUp,
    MatMul,
    MaxPool2D,
    MaxPoolIndex2D,
    Reduce,
    RowLoss,
    RowLossGrad,
    RowNorm,
    RowNormGrad,
    Softmax,
    Variance,
    Warp,
)
from .cost import CostModel
from .forms import Form, NotEmittable, expected_seconds, form_of, forms_taking
from .geometry import ceil_div
from .groups import Group, Merge
from .products import POOLS, UNPOOLS, product
from .regions import Region

WEIGHT_GRADS = (Conv2DWeightGrad, DenseWeightGrad)


Worth = Callable[[Merge], str | None]
"""Why a fusion is not worth it, or None."""


def _always(merge: Merge) -> str | None:
    return None


@dataclass(frozen=True)
class FusionRule:
    """equation: its name. matches: whether it concerns this reader and group. worth: why not, or None.

    beside: whether it is about a node that has joined another operand's region, and a pointwise region, of
        this operand, that would join it too; `matches` is asked about the node and the region it has joined.
    stores: whether the producer's value may have other readers, or leave the network: the kernel then stores
    it as well, and what is saved is that it is read again.
    """

    equation: str
    matches: Callable[[Node, Group], bool]
    worth: Worth = _always
    into_producer: bool = True
    """True: the reader joins the producer's region. False: that region becomes the reader's prologue."""
    stores: bool = False
    beside: bool = False


@dataclass(frozen=True)
class SiblingRule:
    """Two computations over the same data share a kernel.

    op: of the nodes that it is asked for. matches: whether such a node, with the region it has so far, may
    join the other region.
    """

    equation: str
    op: type[Op] | tuple[type[Op], ...]
    matches: Callable[[Node, Group, Group], bool]


# -- what fusing does again ----------------------------------------------------------------------------------
def _windows(op: Any) -> str:
    return f"windows of {op.size[0]}x{op.size[1]} at stride {op.strides[0]}x{op.strides[1]} overlap"


def _visits(merge: Merge) -> float:
    """How often the windows visit an element of the map, on average."""
    op: Any = merge.node.op
    out, full = merge.node.type.elements(), merge.producer.type.elements()
    return out * prod(op.size) / max(1, full) if op.overlapping else 1.0


def _pooling_again(merge: Merge) -> str | None:
    """A product whose rows are ordered by overlapping windows computes what they share once for each."""
    again = _visits(merge) - 1
    if again <= 0:
        return None
    work = [node for node in merge.merged.nodes if node.name in merge.parts[0].members]
    flops = again * merge.flops(work) * merge.producer.type.elements()
    lost = merge.model.computing(flops, product(merge.merged).dtype)
    shared = f"computing {merge.producer.name} {again + 1:.3g} times"
    return merge.worth(lost, f"{_windows(merge.node.op)}, {shared}")


def _once_a_window(merge: Merge) -> str | None:
    """What stands before overlapping windows is computed in each of them."""
    again = _visits(merge) - 1
    if again <= 0:
        return None
    work = again * merge.flops(merge.merged.prologue) * merge.producer.type.elements()
    what = f"{_windows(merge.node.op)}, computing {merge.producer.name} {again + 1:.3g} times"
    return merge.worth(merge.model.issuing(work), what)


def _once_a_tap(merge: Merge) -> str | None:
    """What stands before a convolution is computed at each tap of its kernel, in every tile of columns.

    Where there is one tap the matrix units are taken to hide it: a 1x1 convolution gains by it as compiled. A
    form that lays its map out computes it once, and one along strips of the map as often as it reads it.
    """
    work = product(merge.merged)
    form = _form(merge.merged, merge.model)
    if work.taps == 1 or (form is not None and form.lays_out):
        return None
    if form is not None and form.counts_prologue:
        return _in_time(merge)
    tiles = ceil_div(work.columns, 128)
    gathered = work.rows * work.inner * work.groups * tiles
    each = merge.flops(merge.merged.prologue) + 1 + merge.model.through_registers(work)
    taps = "x".join(map(str, merge.merged.graph[merge.node.inputs[1]].type.size()[:2]))
    what = f"a {taps} kernel would compute {merge.producer.name} {work.taps} times"
    return merge.worth(merge.model.issuing(gathered * each), what)


def _in_time(merge: Merge) -> str | None:
    """By what the forms are expected to take: a weight gradient computes what stands before it only where it
    lays its map out, which takes time."""
    try:
        apart = sum(expected_seconds(part, merge.model) for part in merge.parts)
        together = expected_seconds(merge.merged, merge.model)
    except NotEmittable:  # of other dtypes, say: PyTorch runs it
        return "there is no kernel for it"
    if together < apart:
        return None
    return f"{1e6 * together:.3g} us in one kernel, {1e6 * apart:.3g} us in {len(merge.parts)}"


def _form(region: Region, model: CostModel) -> Form | None:
    """The form that computes a region, where some form does not compute a prologue once a tap."""
    if not any(form.lays_out or form.counts_prologue for form in forms_taking(region)):
        return None
    try:
        return form_of(region, model)
    except NotEmittable:
        return None


# -- siblings ------------------------------------------------------------------------------------------------
def _index_beside_pool(node: Node, mine: Group, group: Group) -> bool:
    return any(
        isinstance(other.op, MaxPool2D)
        and other.op.geometry() == node.op.geometry()  # type: ignore[attr-defined]
        and other.inputs == node.inputs
        for other in group.nodes
    )


def _bias_beside_weight_gradient(node: Node, mine: Group, group: Group) -> bool:
    return (
        _is_channel_sum(node)
        and isinstance(node.op, Reduce)
        and not node.op.mean
        and any(
            isinstance(other.op, WEIGHT_GRADS) and other.inputs[1] == node.inputs[0] for other in group.nodes
        )
    )


def _weight_beside_data_gradient(node: Node, mine: Group, group: Group) -> bool:
    anchor = group.anchor
    return isinstance(anchor.op, DenseDataGrad) and anchor.inputs[0] == node.inputs[1]


def _loss_beside_softmax(node: Node, mine: Group, group: Group) -> bool:
    return any(isinstance(other.op, Softmax) and other.inputs[0] == node.inputs[0] for other in group.nodes)


def _gradient_beside_row_norm(node: Node, mine: Group, group: Group) -> bool:
    anchor = group.anchor
    return isinstance(anchor.op, RowNorm) and anchor.inputs[0] == node.inputs[1]


def _sum_beside_row_norm(node: Node, mine: Group, group: Group) -> bool:
    return _is_channel_sum(node) and isinstance(group.anchor.op, RowNorm)


def _totals_side_by_side(node: Node, mine: Group, group: Group) -> bool:
    same = isinstance(group.anchor.op, Reduce) and group.anchor.type == node.type
    return same and node.type.shape == () and not _needs(mine, group)


def _sums_side_by_side(node: Node, mine: Group, group: Group) -> bool:
    same = _is_channel_sum(node) and _is_channel_sum(group.anchor) and group.anchor.type == node.type
    return same and not _needs(mine, group)


def _needs(mine: Group, other: Group) -> bool:
    return any(other.names.intersection(member.inputs) for member in mine.nodes)


def _is_channel_sum(node: Node) -> bool:
    op = node.op
    return node.type.rank == 1 and (isinstance(op, Variance) or (isinstance(op, Reduce) and not op.keepdims))


RULES: tuple[FusionRule, ...] = (
    FusionRule(
        "softmax(contraction(x)) -> one kernel",
        lambda node, group: (
            isinstance(node.op, Softmax) and isinstance(group.anchor.op, Dense | Conv2D | MatMul)
        ),
    ),
    FusionRule(
        "pool(contraction(x) + bias, affine, residual, activation) -> one kernel",
        lambda node, group: isinstance(node.op, POOLS) and group.kind is Kind.CONTRACTION,
        _pooling_again,
        stores=True,
    ),
    FusionRule(
        "unpool(contraction(x)) -> one kernel",
        lambda node, group: (
            isinstance(node.op, UNPOOLS)
            and group.kind is Kind.CONTRACTION
            and not isinstance(group.anchor.op, (*WEIGHT_GRADS, MatMul))
        ),
    ),
    FusionRule(
        "pointwise(contraction(x)) -> one kernel",
        lambda node, group: (
            node.op.kind is Kind.POINTWISE
            and group.kind is Kind.CONTRACTION
            and not isinstance(group.anchor.op, WEIGHT_GRADS)
        ),
    ),
    FusionRule(
        "pointwise(row_norm(x)) -> one kernel",
        lambda node, group: (
            node.op.kind is Kind.POINTWISE and isinstance(group.anchor.op, RowNorm | RowNormGrad)
        ),
    ),
    FusionRule(
        "channel_sum(f(row_norm(x))) -> one kernel",
        lambda node, group: _is_channel_sum(node) and isinstance(group.anchor.op, RowNorm),
    ),
    FusionRule(
        "pointwise(window(x)) -> one kernel",
        lambda node, group: (
            node.op.kind is Kind.POINTWISE
            and group.kind is Kind.WINDOW
            and not isinstance(group.anchor.op, MaxPoolIndex2D)
        ),
    ),
    FusionRule(
        "pointwise(warp(x)) -> one kernel",
        lambda node, group: node.op.kind is Kind.POINTWISE and isinstance(group.anchor.op, Warp),
    ),
    FusionRule(
        "pointwise(look_up(table, x)) -> one kernel",
        lambda node, group: node.op.kind is Kind.POINTWISE and isinstance(group.anchor.op, LookUp),
    ),
    FusionRule(
        "pointwise(pointwise(x)) -> one kernel",
        lambda node, group: node.op.kind is Kind.POINTWISE and group.kind is Kind.POINTWISE,
    ),
    FusionRule(
        "contraction(pointwise(x)) -> one kernel",
        lambda node, group: isinstance(node.op, Conv2D | Dense | MatMul) and group.kind is Kind.POINTWISE,
        _once_a_tap,
        into_producer=False,
    ),
    FusionRule(
        "weight_gradient(pointwise(x), dy) -> one kernel",
        lambda node, group: (
            isinstance(node.op, Conv2DWeightGrad)
            and group.kind is Kind.POINTWISE
            and node.inputs[0] in group.names
        ),
        _in_time,
        into_producer=False,
    ),
    FusionRule(
        "reduce(pointwise(x)) -> one kernel",
        lambda node, group: isinstance(node.op, Reduce | Variance) and group.kind is Kind.POINTWISE,
        into_producer=False,
    ),
    FusionRule("total(pointwise(loss(x))) -> one kernel", lambda node, group: group.has(RowLoss)),
    FusionRule(
        "loss_gradient(pointwise(dy)) -> one kernel",
        lambda node, group: isinstance(node.op, RowLossGrad) and group.kind is Kind.POINTWISE,
        into_producer=False,
    ),
    FusionRule(
        "row_norm(pointwise(x)) -> one kernel",
        lambda node, group: isinstance(node.op, RowNorm | RowNormGrad) and group.kind is Kind.POINTWISE,
        into_producer=False,
    ),
    FusionRule(
        "pool(pointwise(x)) -> one kernel",
        lambda node, group: isinstance(node.op, MaxPool2D | AveragePool2D) and group.kind is Kind.POINTWISE,
        _once_a_window,
        into_producer=False,
    ),
    FusionRule(
        "pointwise(f(x), pointwise(y)) -> one kernel, f a window or a row_norm",
        lambda node, mine: (
            node.op.kind is Kind.POINTWISE
            and (mine.kind is Kind.WINDOW or isinstance(mine.anchor.op, RowNorm | RowNormGrad))
        ),
        into_producer=False,
        beside=True,
    ),
)

SIBLINGS: tuple[SiblingRule, ...] = (
    SiblingRule("max_pool_index(x) beside max_pool(x) -> one kernel", MaxPoolIndex2D, _index_beside_pool),
    SiblingRule(
        "cross_entropy(softmax(x), target) beside softmax(x) -> one kernel",
        RowLoss,
        _loss_beside_softmax,
    ),
    SiblingRule("total(f(x)) beside total(g(x)) -> one kernel", Reduce, _totals_side_by_side),
    SiblingRule(
        "dense_weight_grad(x, dy) beside dense_data_grad(dy, w) -> one kernel",
        DenseWeightGrad,
        _weight_beside_data_gradient,
    ),
    SiblingRule(
        "channel_sum(dy) beside weight_gradient(x, dy) -> one kernel", Reduce, _bias_beside_weight_gradient
    ),
    SiblingRule(
        "row_norm_grad(dy, x) beside sum(dy * row_norm(x)) -> one kernel",
        RowNormGrad,
        _gradient_beside_row_norm,
    ),
    SiblingRule("channel_sum(dy) beside sum(dy * row_norm(x)) -> one kernel", Reduce, _sum_beside_row_norm),
    SiblingRule(
        "channel_sum(f(x)) beside channel_sum(g(x)) -> one kernel", (Reduce, Variance), _sums_side_by_side
    ),
)
