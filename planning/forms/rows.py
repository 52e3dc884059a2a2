"""Forms whose programs hold whole rows: softmax and its like, and losses of rows with what follows them."""

from __future__ import annotations

from ...graph.ir import Node
from ...graph.op import Kind
from ...graph.ops import (
    LogSoftmax,
    Reduce,
    RowLoss,
    RowLossGrad,
    Softmax,
    SoftmaxCrossEntropy,
    SoftmaxGrad,
    Sparsemax,
    SparsemaxGrad,
)
from ..cost import CostModel
from ..geometry import power_of_two
from ..regions import Region
from ..schedules import Schedule
from .form import Form, Refusal
from .members import cannot_share, on_shape
from .sums import is_total

WIDEST = 16384
"""Columns of the widest row that one program holds in its registers."""

ELEMENTS = 2048
"""Elements of a tile of short rows."""

WITH_A_ROW = ("full", "scalar")
"""How operands may lie against the numbers of which there is one a row."""


def loss_of(region: Region) -> Node | None:
    """The loss of rows, or its gradient, among the members."""
    return next((node for node in region.nodes if isinstance(node.op, RowLoss | RowLossGrad)), None)


def _row(region: Region) -> Node:
    """The value whose rows are held."""
    loss = loss_of(region)
    return region.anchor if loss is None else region.graph[loss.inputs[0]]


def _accepts(region: Region) -> Refusal:
    anchor = region.anchor
    if len(region.nodes) > 1 or not region.graph[anchor.inputs[0]].type.batched:
        return f"{anchor.name}: {anchor.op.op_name()} shares no kernel and needs a batch axis"
    return _too_wide(anchor)


def _too_wide(row: Node) -> Refusal:
    if power_of_two(row.type.channels) > WIDEST:
        return f"{row.name}: a row of {row.type.channels} is wider than the {WIDEST} a program holds"
    return None


def _accepts_loss(region: Region) -> Refusal:
    """A loss of rows; beside it the softmax of the same logits, behind it what is made of a number a row, and
    the sum or mean of those. Before a gradient, what is made of a number a row."""
    loss = loss_of(region)
    if loss is None:
        return f"{region.anchor.name} is no loss"
    wide = region.graph[loss.inputs[0]]
    if not wide.type.batched:
        return f"{loss.name}: {loss.op.op_name()} needs a batch axis"
    narrow = (*wide.type.shape[:-1], 1)
    for node in region.nodes:
        if node is not loss and (reason := _beside_loss(region, node, loss, narrow)):
            return reason
    return _too_wide(wide)


def _beside_loss(region: Region, node: Node, loss: Node, narrow: tuple[int | str, ...]) -> Refusal:
    of_loss = region.graph[node.inputs[0]].type.shape == narrow
    if node.op.kind is Kind.POINTWISE:
        return on_shape(region, node, narrow, WITH_A_ROW)
    if isinstance(node.op, Reduce) and is_total(region, node) and of_loss:
        return None
    if not isinstance(node.op, Softmax) or node.inputs[0] != loss.inputs[0]:
        return cannot_share(region, node)
    if not isinstance(loss.op, SoftmaxCrossEntropy):
        return f"{loss.name}: {loss.op.op_name()} is no function of the logits {loss.inputs[0]}"
    return None


def _schedules(region: Region, model: CostModel) -> list[Schedule]:
    """As many rows as make a tile, and warps by their width."""
    columns = power_of_two(_row(region).type.channels)
    warps = 4 if columns <= 2048 else 8 if columns <= 8192 else 16
    return [Schedule(max(1, ELEMENTS // columns), columns, warps=warps)]


def _takes(region: Region, schedule: Schedule) -> Refusal:
    row = _row(region)
    if schedule.block_n < row.type.channels:
        return (
            f"{region.name}: rows of {row.type.channels} need block_n of at least that, the schedule has "
            f"{schedule.block_n}"
        )
    return None


ROWS = (
    Form("loss", (RowLoss, Softmax), _accepts_loss, _schedules, _takes),
    Form(
        "rows",
        (Softmax, LogSoftmax, SoftmaxGrad, Sparsemax, SparsemaxGrad),
        _accepts,
        _schedules,
        _takes,
        row_by_row=True,
        reads_rows=range(2),
    ),
    Form("loss gradient", (RowLossGrad,), _accepts_loss, _schedules, _takes),
)
