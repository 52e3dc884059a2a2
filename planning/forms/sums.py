"""Forms of sums, means and variances: over all pixels of a map, or a whole batch, in two steps; over any
other axes in one.
"""

from __future__ import annotations

from typing import Any

from ...graph.ir import Node
from ...graph.op import Kind
from ...graph.ops import Reduce, Variance
from ..cost import CostModel
from ..geometry import ceil_div, power_of_two
from ..regions import Region
from ..schedules import Schedule
from ..splits import Split
from .flat import flat
from .form import Form, Refusal
from .members import ANYHOW, ON_TILES, pointwise

TILE = 2048
"""Elements of a tile."""

WIDEST = 128
"""Channels, or results, of a tile at most."""

STEPS = 8
"""Tiles that a program over pixels adds up at least."""

RESIDENT = 8
"""Tiles over pixels that a processor is to load at once: of 4 KB each they keep the memory busy (Little's
law: 26 KB). It holds so many programs of 56 registers a thread; of two operands, which take 91, half."""

FEW = 8
"""Results of a tile whose rows run along what is summed over."""


def sums(region: Region) -> list[Node]:
    return [node for node in region.nodes if isinstance(node.op, (Reduce, Variance))]


def over_pixels(node: Node, source: Node) -> bool:
    """Whether a sum leaves one number for each channel and is not kept in more axes."""
    shape = source.type.shape
    kept = isinstance(node.op, Reduce) and node.op.keepdims
    return axes(node, source) == tuple(range(len(shape) - 1)) and shape[0] == "N" and not kept


def is_total(region: Region, node: Node) -> bool:
    """Whether a sum, or mean, is over a whole batch and leaves one number."""
    source = region.graph[node.inputs[0]].type
    return isinstance(node.op, Reduce) and source.batched and node.type.shape == ()


def axes(node: Node, source: Node) -> tuple[int, ...]:
    """What is summed over."""
    return node.op.axes if isinstance(node.op, Reduce) else tuple(range(source.type.rank - 1))


def _accepts(region: Region, lying: tuple[str | None, ...]) -> Refusal:
    found = sums(region)
    over = {node.name: axes(node, region.graph[node.inputs[0]]) for node in found}
    first = over[found[0].name]
    for node in region.nodes:
        if node.op.kind is not Kind.POINTWISE and over.get(node.name) != first:
            return f"{node.name}: {node.op.op_name()} cannot share a kernel with {region.anchor.name}"
        if over.keys() & set(node.inputs):
            return f"{region.anchor.name}: what reads a sum needs a kernel of its own"
    shape = region.graph[found[0].inputs[0]].type.shape
    before = [node for node in region.nodes if node.name not in over]
    for node in found:
        if region.graph[node.inputs[0]].type.shape != shape:
            return f"{node.name} sums another shape than {found[0].name}"
    return pointwise(region, before, shape, lying)


def _of_pixels(region: Region) -> bool:
    found = sums(region)
    return all(
        over_pixels(node, region.graph[node.inputs[0]]) and node.type.shape == found[0].type.shape
        for node in found
    )


def _accepts_channels(region: Region) -> Refusal:
    if not _of_pixels(region):
        return f"{region.anchor.name} is no sum over all pixels"
    return _accepts(region, ON_TILES)


def _accepts_any(region: Region) -> Refusal:
    if found := [node for node in sums(region) if isinstance(node.op, Variance)]:
        return f"{found[0].name}: a variance is summed over pixels"
    if is_total(region, region.anchor):
        return f"{region.anchor.name}: one program would walk a whole batch"
    # Over pixels one program a channel would walk the whole batch by itself.
    return _accepts(region, ON_TILES if _of_pixels(region) else ANYHOW)


def _accepts_total(region: Region) -> Refusal:
    if found := [node for node in sums(region) if not is_total(region, node)]:
        return f"{found[0].name} is no sum over a whole batch"
    return _accepts(region, ANYHOW)


def _channel_tiles(region: Region, model: CostModel) -> list[Schedule]:
    columns = min(power_of_two(region.anchor.type.channels), WIDEST)
    rows = max(1, TILE // columns)
    shape = region.graph[sums(region)[0].inputs[0]].type.shape
    maps = max(1, sum(node.type.shape == shape for node in region.inputs))
    programs = max(1, RESIDENT // maps) * model.device.processors
    return [Schedule(rows, columns, warps=4, chunk=STEPS * rows, programs=programs)]


def _takes_chunks(region: Region, schedule: Schedule) -> Refusal:
    if schedule.chunk < schedule.block_m or schedule.chunk % schedule.block_m or schedule.programs < 1:
        return (
            f"{region.name}: a schedule of channel sums needs a chunk that is a multiple of block_m and "
            f"programs, found {schedule.chunk}, {schedule.block_m} and {schedule.programs}"
        )
    return None


def channel_split(region: Region, schedule: Schedule) -> Split:
    """How sums over pixels are cut into parts."""
    source = region.graph[sums(region)[0].inputs[0]].type
    tiles = ceil_div(source.channels, schedule.block_n)
    pixels = source.elements(1) // source.channels
    most = max(1, schedule.programs // tiles)
    return Split(pixels, schedule.block_m, schedule.chunk, most, source.channels)


def _result_tiles(region: Region, model: CostModel) -> list[Schedule]:
    """Results side by side where their terms are; where a row is summed, a few results with long runs."""
    node = sums(region)[0]
    op: Any = node.op
    source = region.graph[node.inputs[0]].type
    kept = 1
    for axis, size in enumerate(source.shape):
        kept *= int(size) if axis not in op.axes and size != "N" else 1
    results = FEW if source.rank - 1 in op.axes else min(power_of_two(kept), WIDEST)
    return [Schedule(max(1, TILE // results), results, warps=4)]


SUMS = (
    Form(
        "channel sums",
        (Reduce, Variance),
        _accepts_channels,
        _channel_tiles,
        _takes_chunks,
        reads_rows=range(1),
        split=channel_split,
    ),
    Form("total", (Reduce,), _accepts_total, flat),
    Form("sums", (Reduce, Variance), _accepts_any, _result_tiles, reads_rows=range(1)),
)
