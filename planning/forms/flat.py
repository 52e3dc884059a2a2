"""Forms whose programs compute a run of neighbouring elements: pointwise members, and what moves or looks up.

Every element finds its operands' places by itself, so operands may lie against the result in any way.
"""

from __future__ import annotations

from ...graph.op import Kind
from ...graph.ops import (
    Concat,
    Flip,
    LookUp,
    LookUpGrad,
    Pad,
    Resize,
    ResizeGrad,
    Slice,
    Transpose,
    Warp,
    WarpGrad,
)
from ..cost import CostModel
from ..geometry import power_of_two
from ..regions import Region
from ..schedules import Schedule
from .form import Form, Refusal
from .members import ANYHOW, alone, cannot_share, pointwise
from .reads import one_by_one, seconds

ELEMENTS = 1024
"""Elements a program computes: four for each thread of four warps, and 16-byte accesses of float16."""

MOST_AXES = 7
"""Axes beside the batch that a kernel has letters for."""


def flat(region: Region, model: CostModel) -> list[Schedule]:
    return [Schedule(ELEMENTS, 1, warps=4)]


def _accepts_pointwise(region: Region) -> Refusal:
    return pointwise(region, region.nodes, region.nodes[-1].type.shape, ANYHOW)


def _pointwise_seconds(region: Region, schedule: Schedule, model: CostModel) -> float:
    return seconds(region, one_by_one(region), model)


def _accepts_after(region: Region) -> Refusal:
    """An anchor and the pointwise members that follow it."""
    if beside := [*region.prologue, *region.siblings]:
        return cannot_share(region, beside[0])
    return pointwise(region, region.epilogue, region.anchor.type.shape, ANYHOW)


def _axes(region: Region) -> Refusal:
    node = region.anchor
    if node.type.rank - node.type.batched > MOST_AXES:
        return f"{node.name}: {node.type} has more than {MOST_AXES} axes"
    return None


def _accepts_movement(region: Region) -> Refusal:
    return alone(region) or _axes(region)


def _accepts_resize(region: Region) -> Refusal:
    return _accepts_after(region) or _axes(region)


def _look_up_grad(region: Region, model: CostModel) -> list[Schedule]:
    """A program owns rows of the table, as wide as a row where it is no wider than a tile."""
    return [Schedule(32, min(64, max(16, power_of_two(region.anchor.type.channels))), block_k=64, warps=4)]


def _warp_grad(region: Region, model: CostModel) -> list[Schedule]:
    return [Schedule(32, 16, block_k=32, warps=4)]


ALL = range(1 << 31)
"""Each operand."""

FLAT = (
    Form("look up", (LookUp,), _accepts_after, flat, row_by_row=True, reads_rows=range(0)),
    Form("look up gradient", (LookUpGrad,), alone, _look_up_grad),
    Form("warp", (Warp,), _accepts_after, flat, row_by_row=True, reads_rows=range(0)),
    Form("warp gradient", (WarpGrad,), alone, _warp_grad),
    Form("resize", (Resize, ResizeGrad), _accepts_resize, flat, row_by_row=True, reads_rows=range(1)),
    Form("movement", (Concat, Pad, Slice, Flip, Transpose), _accepts_movement, flat, reads_rows=ALL),
    Form(
        "pointwise",
        Kind.POINTWISE,
        _accepts_pointwise,
        flat,
        row_by_row=True,
        reads_rows=range(0),
        cost=_pointwise_seconds,
    ),
)
