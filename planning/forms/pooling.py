"""Forms of pooling and its gradients, and the limits of a window in the epilogue of a product."""

from __future__ import annotations

from math import prod
from typing import Any

from ...graph.ir import Node
from ..cost import CostModel
from ..geometry import power_of_two
from ..products import POOLS, UNPOOLS
from ..regions import Region
from ..schedules import Schedule
from .form import Form, Refusal
from .members import late_refusal, pointwise

ELEMENTS = 1024
"""Elements of a tile of pixels and channels: four warps with eight each."""

WIDEST = 128
"""Channels of such a tile, at most."""

MOST_IN_A_WINDOW = 16
"""Elements of a window that is part of a row tile, or written from one row."""


def _accepts_pool(region: Region) -> Refusal:
    graph, first = region.graph, region.anchor
    op: Any = first.op
    pools = [node for node in region.nodes if isinstance(node.op, POOLS)]
    for pool in pools:
        if pool.inputs != first.inputs or pool.op.geometry() != op.geometry():  # type: ignore[attr-defined]
            return f"{pool.name} and {first.name} pool other windows; put them into two regions"
    prologue, names = region.prologue, {node.name for node in pools}
    names.update(node.name for node in prologue)
    after = [node for node in region.nodes if node.name not in names]
    image = graph[first.inputs[0]]
    refusal = pointwise(region, prologue, image.type.shape) or pointwise(region, after, first.type.shape)
    refusal = refusal or late_refusal(prologue, after)
    if refusal or not prologue:
        return refusal
    stored = [node.name for node in region.outputs if node in prologue]
    if stored and not covers(first, image):
        return f"{stored[0]} is kept whole, but the windows do not cover all of it"
    return None


def covers(pool: Node, image: Node) -> bool:
    """Whether unpadded windows leave no pixel out."""
    op: Any = pool.op
    sizes = zip(pool.type.shape[1:3], image.type.shape[1:3], op.size, op.strides, op.padding, strict=True)
    return all(step <= size and not any(pads) and int(p) * step >= int(h) for p, h, size, step, pads in sizes)


def _accepts_unpool(region: Region) -> Refusal:
    if region.prologue:
        return f"{region.anchor.name}: only pointwise members after it can share its kernel"
    after = [node for node in region.nodes if node is not region.anchor]
    return pointwise(region, after, region.anchor.type.shape)


def _tiles(region: Region, model: CostModel) -> list[Schedule]:
    columns = min(power_of_two(region.anchor.type.channels), WIDEST)
    return [Schedule(max(ELEMENTS // columns, 1), columns, warps=4)]


POOLING = (
    Form("pooling", POOLS, _accepts_pool, _tiles, row_by_row=True, reads_rows=range(1)),
    Form("pooling gradient", UNPOOLS, _accepts_unpool, _tiles, row_by_row=True, reads_rows=range(2)),
)


# -- windows that ride on a product ------------------------------------------------------------------------
def pooled_rows(region: Region, pool: Node, before: list[Node]) -> Refusal:
    """Why a product's rows cannot be ordered by the windows of a pooling. before: members it comes after."""
    op: Any = pool.op
    shape, count = f"{op.size[0]}x{op.size[1]}", prod(op.size)
    if count & (count - 1):
        return f"a window of {shape} has {count} elements, which is no power of two"
    if count > MOST_IN_A_WINDOW:
        return f"a window of {shape} is a row tile of its own"
    full = region.graph[pool.inputs[0]].type.shape[1:3]
    covered = tuple(int(p) * s for p, s in zip(pool.type.shape[1:3], op.strides, strict=True))
    exact = covered == full and op.size == op.strides and op.padding == ((0, 0), (0, 0))
    kept = [] if exact else [node.name for node in region.outputs if node in before]
    return f"{kept[0]} is kept whole, but the windows do not cover it exactly" if kept else None


def spread_rows(region: Region, unpool: Node) -> Refusal:
    """Why a product's rows cannot be spread over the windows of a pooling's gradient."""
    op: Any = unpool.op
    dy = region.graph[unpool.inputs[0]]
    if dy.name not in region.members:
        other = next(name for name in unpool.inputs if name in region.members)
        return f"{other} is not the gradient that spreads over the windows"
    if op.size != op.strides or op.padding != ((0, 0), (0, 0)):
        return (
            f"windows of {op.size[0]}x{op.size[1]} at stride {op.strides[0]}x{op.strides[1]} "
            f"do not tile the map"
        )
    if tuple(int(d) * s for d, s in zip(dy.type.shape[1:3], op.strides, strict=True)) != op.input_size:
        return f"the windows leave a border of the {op.input_size[0]}x{op.input_size[1]} map uncovered"
    if prod(op.size) > MOST_IN_A_WINDOW:
        return f"a window of {op.size[0]}x{op.size[1]} is too large to write from one row"
    return None
