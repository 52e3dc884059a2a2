"""Forms that normalise rows by their own statistics, and compute the gradient, a row held by one program.

Beside the gradient stand the sums over all rows that gradients of gamma and beta are, which read the same.
Programs then walk parts of the rows, each adding up its own, and a second kernel adds the parts.
"""

from __future__ import annotations

from ...graph.ir import Node
from ...graph.op import Kind
from ...graph.ops import Reduce, RowNorm, RowNormGrad
from ..cost import CostModel
from ..geometry import power_of_two
from ..product_time import LAUNCH_SECONDS
from ..regions import Region
from ..schedules import Schedule
from ..splits import Split
from .form import Form, Refusal
from .members import cannot_share, on_shape
from .rows import ELEMENTS, WIDEST
from .sums import over_pixels

NORMS = (RowNorm, RowNormGrad)

A_THREAD = 16
"""Elements of a tile that a thread holds, of every value; up to 16 warps."""

WIDEST_SUMMED = 8192
"""Columns of rows that are summed too: their sums are held beside them."""

STEPS, RESIDENT = 8, 4
"""Tiles that a program with sums takes at least, and programs that a processor is to have of them."""


def norms(region: Region) -> list[Node]:
    return [node for node in region.nodes if isinstance(node.op, NORMS)]


def row_sums(region: Region) -> list[Node]:
    """The sums over all rows."""
    return [node for node in region.nodes if isinstance(node.op, Reduce)]


def normalized_of(norm: Node) -> str:
    """The value whose rows a member normalises."""
    return norm.inputs[1 if isinstance(norm.op, RowNormGrad) else 0]


def _statistics(norm: Node) -> tuple[float, bool]:
    assert isinstance(norm.op, NORMS)
    return norm.op.epsilon, norm.op.centred


def _vectors(norm: Node) -> tuple[str, ...]:
    return norm.inputs[2 if isinstance(norm.op, RowNormGrad) else 1 :]


def _accepts(region: Region) -> Refusal:
    anchor, shape = region.anchor, region.anchor.type.shape
    totals = {node.name for node in row_sums(region)}
    for node in region.nodes:
        if refusal := _member(region, node):
            return refusal
        if totals.intersection(node.inputs):
            return f"{node.name}: what reads a sum needs a kernel of its own"
    if not anchor.type.batched or region.graph[normalized_of(anchor)].type.shape != shape:
        return f"{anchor.name} has no rows of a batch"
    widest = WIDEST_SUMMED if totals else WIDEST
    if power_of_two(anchor.type.channels) > widest:
        return f"{anchor.name}: a row of {anchor.type.channels} is wider than the {widest} a program holds"
    return None


def _member(region: Region, node: Node) -> Refusal:
    shape = region.anchor.type.shape
    if isinstance(node.op, NORMS):
        return _another_norm(region, node)
    if node.op.kind is Kind.POINTWISE:
        return on_shape(region, node, shape)
    source = region.graph[node.inputs[0]]
    sums = isinstance(node.op, Reduce) and not node.op.mean and over_pixels(node, source)
    return None if sums and source.type.shape == shape else cannot_share(region, node)


def _another_norm(region: Region, node: Node) -> Refusal:
    """Beside the anchor the other of the two, of the same rows."""
    anchor = region.anchor
    if inner := [name for name in _vectors(node) if name in region.members]:
        return f"{node.name}: {inner[0]} is computed in the same kernel"
    if node is anchor:
        return None
    same = normalized_of(node) == normalized_of(anchor) and _statistics(node) == _statistics(anchor)
    if type(node.op) is type(anchor.op) or not same or len(norms(region)) > 2:
        return cannot_share(region, node)
    return None


def _accepts_alone(region: Region) -> Refusal:
    if found := row_sums(region):
        return cannot_share(region, found[0])
    return _accepts(region)


def _accepts_sums(region: Region) -> Refusal:
    if refusal := _accepts(region):
        return refusal
    return None if row_sums(region) else f"{region.anchor.name} has no sums beside it"


def _tile(region: Region) -> tuple[int, int, int]:
    """Rows and columns of a tile, and warps."""
    columns = power_of_two(region.anchor.type.channels)
    rows = max(1, ELEMENTS // columns)
    return rows, columns, max(4, min(16, rows * columns // (32 * A_THREAD)))


def _rows(region: Region, model: CostModel) -> list[Schedule]:
    rows, columns, warps = _tile(region)
    return [Schedule(rows, columns, warps=warps)]


def _parts(region: Region, model: CostModel) -> list[Schedule]:
    rows, columns, warps = _tile(region)
    programs = RESIDENT * model.device.processors
    return [Schedule(rows, columns, warps=warps, chunk=STEPS * rows, programs=programs)]


def _takes(region: Region, schedule: Schedule) -> Refusal:
    channels = region.anchor.type.channels
    if schedule.block_n < channels:
        return f"{region.name}: rows of {channels} need block_n of at least that, found {schedule.block_n}"
    return None


def _takes_parts(region: Region, schedule: Schedule) -> Refusal:
    if schedule.chunk < 1 or schedule.programs < 1:
        return (
            f"{region.name}: a schedule of row norms with sums needs a chunk and programs, found "
            f"{schedule.chunk} and {schedule.programs}"
        )
    return _takes(region, schedule)


def row_split(region: Region, schedule: Schedule) -> Split:
    """How the sums over rows are cut into parts."""
    value = region.anchor.type
    rows = value.elements(1) // value.channels
    return Split(rows, schedule.block_m, schedule.chunk, schedule.programs, value.channels)


def _seconds(region: Region, schedule: Schedule, model: CostModel) -> float:
    """Two launches, and the parts written and read between them."""
    parts = row_split(region, schedule).parts(model.batch)
    between = 2 * 4 * parts * region.anchor.type.channels * len(row_sums(region))
    return 2 * LAUNCH_SECONDS + model.moving(region.cost(model.batch).bytes + between)


ROW_NORMS = (
    Form("row norm", NORMS, _accepts_alone, _rows, _takes, row_by_row=True, reads_rows=range(2)),
    Form(
        "row norm gradient",
        NORMS,
        _accepts_sums,
        _parts,
        _takes_parts,
        split=row_split,
        reads_rows=range(2),
        cost=_seconds,
    ),
)
