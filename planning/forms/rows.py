"""Forms whose programs hold whole rows: softmax and its like, and losses; some losses go by elements."""

from __future__ import annotations

from ...graph.ir import Node
from ...graph.ops import (
    BinaryCrossEntropy,
    CategoricalCrossEntropy,
    LogSoftmax,
    Loss,
    LossGrad,
    MeanSquaredError,
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
from .flat import flat
from .form import Form, Refusal

WIDEST = 16384
"""Columns of the widest row that one program holds in its registers."""

ELEMENTS = 2048
"""Elements of a tile of short rows."""

BY_ROWS = (SoftmaxCrossEntropy, CategoricalCrossEntropy)
"""Losses that look at whole rows."""


def loss_of(region: Region) -> Node | None:
    """The loss among the members."""
    return next((node for node in region.nodes if isinstance(node.op, Loss)), None)


def _row(region: Region) -> Node | None:
    """The value whose rows are held; None for a loss that goes by elements."""
    anchor = region.anchor
    op = anchor.op.loss if isinstance(anchor.op, LossGrad) else anchor.op
    if isinstance(op, BY_ROWS):
        return region.graph[anchor.inputs[0]]
    return None if isinstance(op, MeanSquaredError | BinaryCrossEntropy) else anchor


def _accepts(region: Region) -> Refusal:
    anchor = region.anchor
    if len(region.nodes) > 1 or not region.graph[anchor.inputs[0]].type.batched:
        return f"{anchor.name}: {anchor.op.op_name()} shares no kernel and needs a batch axis"
    row = _row(region)
    return None if row is None else _too_wide(row)


def _too_wide(row: Node) -> Refusal:
    if power_of_two(row.type.channels) > WIDEST:
        return f"{row.name}: a row of {row.type.channels} is wider than the {WIDEST} a program holds"
    return None


def _accepts_loss(region: Region) -> Refusal:
    """Beside a cross-entropy the softmax of the same logits."""
    loss = loss_of(region)
    if loss is None:
        return f"{region.anchor.name} is no loss"
    if len(region.nodes) == 1:
        return _accepts(region)
    for node in region.nodes:
        if node is not loss and (not isinstance(node.op, Softmax) or node.inputs[0] != loss.inputs[0]):
            return f"{node.name}: {node.op.op_name()} shares no kernel with {loss.name}"
    logits = region.graph[loss.inputs[0]]
    if not isinstance(loss.op, SoftmaxCrossEntropy):
        return f"{loss.name}: {loss.op.op_name()} is no function of the logits {logits.name}"
    return _too_wide(logits)


def _schedules(region: Region, model: CostModel) -> list[Schedule]:
    """As many rows as make a tile, and warps by their width."""
    row = _row(region)
    if row is None:
        return flat(region, model)
    columns = power_of_two(row.type.channels)
    warps = 4 if columns <= 2048 else 8 if columns <= 8192 else 16
    return [Schedule(max(1, ELEMENTS // columns), columns, warps=warps)]


def _takes(region: Region, schedule: Schedule) -> Refusal:
    row = _row(region)
    if row is not None and schedule.block_n < row.type.channels:
        return (
            f"{region.name}: rows of {row.type.channels} need block_n of at least that, the schedule has "
            f"{schedule.block_n}"
        )
    return None


ROWS = (
    Form(
        "loss",
        (*BY_ROWS, BinaryCrossEntropy, MeanSquaredError, Softmax),
        _accepts_loss,
        _schedules,
        _takes,
    ),
    Form(
        "rows",
        (Softmax, LogSoftmax, SoftmaxGrad, Sparsemax, SparsemaxGrad),
        _accepts,
        _schedules,
        _takes,
        row_by_row=True,
        reads_rows=range(2),
    ),
    Form("loss gradient", (LossGrad,), _accepts, _schedules, _takes),
)
