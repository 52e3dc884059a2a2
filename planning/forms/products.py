"""Forms of matrix products: convolution, the gradients of both, and products of two activations.

    prologue -> product -> pointwise members -> one window, or a softmax over whole rows -> pointwise members

Each row of a tile is a pixel, and a tile meets all its operands by row and column.
"""

from __future__ import annotations

from math import gcd
from typing import Any

from ...graph.ir import Node
from ...graph.op import Kind
from ...graph.ops import (
    Conv2D,
    Conv2DDataGrad,
    Conv2DWeightGrad,
    Dense,
    DenseDataGrad,
    DenseWeightGrad,
    MatMul,
    Reduce,
    Softmax,
)
from ..geometry import broadcast_kind
from ..products import POOLS, UNPOOLS, product
from ..regions import Region
from ..schedules import Schedule
from ..splits import product_split
from .form import Form, Refusal
from .members import ON_TILES, cannot_share, on_shape, pointwise
from .pooling import pooled_rows, spread_rows
from .tiles import tiles

WIDEST_ROW_IN_A_TILE = 128
"""Columns up to which one tile holds a whole row, so that a softmax can ride in the epilogue."""

PLAIN = ("channel", "scalar")
"""How operands of a prologue lie that are the same for all taps of a kernel."""


# -- what stands before the product ------------------------------------------------------------------------
def no_prologue(region: Region) -> Refusal:
    if not region.prologue:
        return None
    anchor = region.anchor
    read = next(name for name in anchor.inputs if name in region.members)
    return f"{anchor.name} reads {read} again for every tile, and would compute it as often"


def prologue_refusal(region: Region, plain: tuple[str, ...] | None) -> Refusal:
    """Why what is gathered cannot be computed as it is loaded, or None. plain: how operands may lie beside
    the gathered one, where it is loaded anew for every tap of a kernel; None: in any way."""
    before, anchor, graph = region.prologue, region.anchor, region.graph
    if not before:
        return None
    if other := next((name for name in anchor.inputs[1:] if name in region.members), None):
        return f"{other} is the weight, not the data, of {anchor.name}"
    shape = graph[anchor.inputs[0]].type.shape
    if refusal := pointwise(region, before, shape):
        return refusal
    if kept := [node.name for node in region.outputs if node in before]:
        return f"{kept[0]} is kept whole, and what is gathered is never stored"
    read = dict.fromkeys(i for node in before for i in node.inputs if i not in region.members)
    lying = {name: broadcast_kind(graph[name].type.shape, shape) for name in read}
    gathered = next((name for name, kind in lying.items() if kind == "full"), None)
    if gathered is None:
        return f"no operand of {anchor.inputs[0]} has its shape {graph[anchor.inputs[0]].type}"
    if plain is None:
        return None
    for name, kind in lying.items():
        if name != gathered and kind not in plain:
            return f"{name} of {graph[name].type} has no place of its own for each tap of a kernel"
    return None


def _plain(region: Region) -> tuple[str, ...] | None:
    """How operands of a prologue may lie: in any way where a pixel is gathered for one tap alone."""
    weight = region.graph[region.anchor.inputs[1]].type
    if not isinstance(region.anchor.op, Conv2D) or weight.size()[:2] == (1, 1):
        return None
    return PLAIN if region.anchor.op.groups == 1 else PLAIN[1:]


# -- what follows it -----------------------------------------------------------------------------------------
def epilogue_refusal(
    region: Region, windows: tuple[type, ...] = POOLS + UNPOOLS, softmax: bool = True
) -> Refusal:
    """Why what follows a product cannot share its kernel, or None. windows: the ops of this kind that the
    rows of the product can be ordered for."""
    if region.siblings:
        return cannot_share(region, region.siblings[0])
    anchor, last, before = region.anchor, None, [region.anchor]
    shape = anchor.type.shape
    for node in region.epilogue:
        if isinstance(last, Node) and isinstance(last.op, Softmax):
            return "a softmax ends its region"
        if isinstance(node.op, Softmax):
            if refusal := _rows(region, node, last) if softmax else cannot_share(region, node):
                return refusal
            last = node
        elif isinstance(node.op, POOLS + UNPOOLS):
            if refusal := _window(region, node, last, before, windows):
                return refusal
            last, shape = node, node.type.shape
        elif node.op.kind is not Kind.POINTWISE:
            return cannot_share(region, node)
        elif refusal := on_shape(region, node, shape, ON_TILES):
            return refusal
        elif last is None:
            before.append(node)
    return None


def _window(
    region: Region, node: Node, last: Node | None, before: list[Node], windows: tuple[type, ...]
) -> Refusal:
    if not isinstance(node.op, windows):
        return f"{region.anchor.op.op_name()} computes pixels in an order that no window keeps together"
    if isinstance(node.op, UNPOOLS):
        return "the region already holds another window" if last else spread_rows(region, node)
    if last is None:
        return pooled_rows(region, node, before)
    op: Any = last.op
    first: Any = node.op
    if not isinstance(op, POOLS) or op.geometry() != first.geometry() or last.inputs != node.inputs:
        return "the region already holds another window"
    kinds = {"average" in pool.op.op_name() for pool in (last, node)}
    return f"{node.name}: a kernel pools by maximum or by average, not by both" if len(kinds) > 1 else None


def _rows(region: Region, node: Node, last: Node | None) -> Refusal:
    """Whether a tile can hold whole rows."""
    if last is not None:
        return "the region holds a window"
    if node.type.channels > WIDEST_ROW_IN_A_TILE:
        return f"a row of {node.type.channels} does not fit into one tile of {WIDEST_ROW_IN_A_TILE} columns"
    if getattr(region.anchor.op, "groups", 1) != 1:
        return "a grouped convolution computes a row in parts"
    return None


# -- the forms -----------------------------------------------------------------------------------------------
def _accepts_forward(region: Region) -> Refusal:
    return prologue_refusal(region, _plain(region)) or epilogue_refusal(region)


def _accepts_data_gradient(region: Region) -> Refusal:
    op: Any = region.anchor.op
    if isinstance(op, Conv2DDataGrad) and any(
        gcd(stride, dilation) > 1 for stride, dilation in zip(op.strides, op.dilation, strict=True)
    ):
        return (
            f"{region.anchor.name}: strides {op.strides} and dilation {op.dilation} share a factor, "
            f"which the data gradient has no kernel for; Keras does not combine them either"
        )
    return no_prologue(region) or epilogue_refusal(region, UNPOOLS, softmax=False)


def _accepts_matmul(region: Region) -> Refusal:
    return no_prologue(region) or epilogue_refusal(region, ())


def accepts_weight_gradient(region: Region) -> Refusal:
    """Beside the gradient sums of dy: the bias's, and those of others whose dy is the same."""
    return no_prologue(region) or beside_refusal(region)


def beside_refusal(region: Region) -> Refusal:
    """Why what is neither the weight gradient nor before it cannot share its kernel, or None."""
    dy = region.graph[region.anchor.inputs[1]]
    axes = tuple(range(dy.type.rank - 1))
    for node in (*region.siblings, *region.epilogue):
        op = node.op
        plain = isinstance(op, Reduce) and op.axes == axes and not op.mean and not op.keepdims
        if not plain or node.inputs[0] != dy.name:
            return f"{node.name}: {op.op_name()} does not fit beside a weight gradient"
    return None


def _takes_parts(region: Region, schedule: Schedule) -> Refusal:
    work = product(region)
    steps = work.steps(schedule.block_k)
    if schedule.splits > steps:
        return f"{region.name}: sums of {steps} steps cannot be cut into {schedule.splits} parts"
    if schedule.splits > 1 and work.groups > 1 and work.phases > 1:
        return f"{region.name}: a strided data gradient in groups has no axis of programs left to split sums"
    return None


def takes_row(region: Region, schedule: Schedule) -> Refusal:
    work = product(region)
    if work.whole_row and schedule.block_n < work.columns:
        return (
            f"{region.name}: a softmax over {work.columns} channels needs block_n of at least that, "
            f"the schedule has {schedule.block_n}"
        )
    if work.whole_row and schedule.pieces > 1:
        return f"{region.name}: a softmax needs whole rows, not the halves of a tile's columns"
    return _takes_parts(region, schedule)


def takes_chunks(region: Region, schedule: Schedule) -> Refusal:
    if schedule.chunk < schedule.block_k or schedule.chunk % schedule.block_k or schedule.programs < 1:
        return (
            f"{region.name}: a weight gradient's schedule needs a chunk that is a multiple of block_k "
            f"and programs, found {schedule.chunk}, {schedule.block_k} and {schedule.programs}"
        )
    if schedule.pieces > 1:
        return f"{region.name}: nothing follows a weight gradient's sums that halves of a tile would ease"
    if schedule.splits > 1:
        return f"{region.name}: the parts of a weight gradient's sums follow from programs, not from splits"
    return None


PRODUCTS = (
    Form(
        "convolution",
        (Conv2D, Dense),
        _accepts_forward,
        tiles,
        takes_row,
        product,
        row_by_row=True,
        reads_rows=range(1),
    ),
    Form(
        "data gradient",
        (Conv2DDataGrad, DenseDataGrad),
        _accepts_data_gradient,
        tiles,
        _takes_parts,
        product,
        row_by_row=True,
        reads_rows=range(1),
    ),
    Form(
        "weight gradient",
        (Conv2DWeightGrad, DenseWeightGrad),
        accepts_weight_gradient,
        tiles,
        takes_chunks,
        product,
        split=lambda region, schedule: product_split(product(region), schedule),
    ),
    Form(
        "matrix product",
        (MatMul,),
        _accepts_matmul,
        tiles,
        takes_row,
        product,
        row_by_row=True,
        reads_rows=range(0),
    ),
)
