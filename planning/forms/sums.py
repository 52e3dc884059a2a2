"""Forms of sums and means: over all pixels of a map in two steps, and over any other axes in one."""

from __future__ import annotations

from typing import Any

from ...graph.ir import Node
from ...graph.op import Kind
from ...graph.ops import Reduce
from ..cost import CostModel
from ..geometry import power_of_two
from ..regions import Region
from ..schedules import Schedule
from .form import Form, Refusal
from .members import ANYHOW, ON_TILES, pointwise

TILE = 2048
"""Elements of a tile."""

WIDEST = 128
"""Channels, or results, of a tile at most."""

FEW = 8
"""Results of a tile whose rows run along what is summed over."""


def sums(region: Region) -> list[Node]:
    return [node for node in region.nodes if isinstance(node.op, Reduce)]


def over_pixels(node: Node, source: Node) -> bool:
    """Whether a sum leaves one number for each channel and is not kept in more axes."""
    op: Any = node.op
    shape = source.type.shape
    return op.axes == tuple(range(len(shape) - 1)) and shape[0] == "N" and not op.keepdims


def _accepts(region: Region, lying: tuple[str | None, ...]) -> Refusal:
    found = sums(region)
    first: Any = found[0].op
    made = {node.name for node in found}
    for node in region.nodes:
        op: Any = node.op
        if node.op.kind is not Kind.POINTWISE and (node.name not in made or op.axes != first.axes):
            return f"{node.name}: {node.op.op_name()} cannot share a kernel with {region.anchor.name}"
        if made.intersection(node.inputs):
            return f"{region.anchor.name}: what reads a sum needs a kernel of its own"
    shape = region.graph[found[0].inputs[0]].type.shape
    before = [node for node in region.nodes if node.name not in made]
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
    # Over pixels one program a channel would walk the whole batch by itself.
    return _accepts(region, ON_TILES if _of_pixels(region) else ANYHOW)


def _channel_tiles(region: Region, model: CostModel) -> list[Schedule]:
    columns = min(power_of_two(region.anchor.type.channels), WIDEST)
    return [Schedule(max(1, TILE // columns), columns, warps=4)]


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
    Form("channel sums", (Reduce,), _accepts_channels, _channel_tiles, reads_rows=range(1)),
    Form("sums", (Reduce,), _accepts_any, _result_tiles, reads_rows=range(1)),
)
