"""The form of both gradients of a matrix product: of its input and of its weights, in one launch.

Both read dy, and in small networks neither fills a GPU or takes longer than its launch. The first programs
compute tiles of the one, all others tiles of the other, each with the tiles that suit it.
"""

from __future__ import annotations

from dataclasses import replace

from ...graph.ir import Node
from ...graph.ops import DenseDataGrad, DenseWeightGrad, Reduce
from ..cost import CostModel
from ..product_time import LAUNCH_SECONDS
from ..products import product
from ..regions import Region
from ..schedules import Schedule
from .form import Form, Refusal
from .members import cannot_share, pointwise
from .tiles import tiles


def weight_gradient_of(region: Region) -> Node | None:
    """The weight gradient beside the anchor."""
    return next((node for node in region.siblings if isinstance(node.op, DenseWeightGrad)), None)


def _accepts(region: Region) -> Refusal:
    anchor, weights = region.anchor, weight_gradient_of(region)
    dy = anchor.inputs[0]
    if weights is None or region.prologue:
        return f"{anchor.name}: no gradient of weights stands beside it"
    if anchor.type.rank != 2:
        return f"{anchor.name} has several rows an image, whose sum {weights.name} needs parts of its own"
    for node in region.siblings:
        op = node.op
        same = node is weights and node.inputs[1] == dy
        total = isinstance(op, Reduce) and node.inputs == (dy,) and op.axes == (0,)
        if not same and (not total or op.mean or op.keepdims):  # type: ignore[attr-defined]
            return cannot_share(region, node)
    return pointwise(region, region.epilogue, anchor.type.shape)


def _schedules(region: Region, model: CostModel) -> list[Schedule]:
    """The best tiles for the one and for the other, for each number of warps that both have."""
    data, weights = _halves(region)
    first, second = _by_warps(data, model), _by_warps(weights, model)
    found = []
    for warps, own in first.items():
        if (other := second.get(warps)) is not None:
            stages = min(own.stages, other.stages)
            found.append(replace(own, stages=stages, beside=replace(other, stages=stages)))
    return sorted(found, key=lambda schedule: _seconds(region, schedule, model))


def _halves(region: Region) -> tuple[Region, Region]:
    graph, weights = region.graph, weight_gradient_of(region)
    assert weights is not None
    return Region(graph, region.anchor, [region.anchor]), Region(graph, weights, [weights])


def _by_warps(half: Region, model: CostModel) -> dict[int, Schedule]:
    """The best tiles for each number of warps; one program sums a tile over the whole batch."""
    work = product(half)
    whole = [replace(s, programs=1) if work.sums_over_batch else s for s in tiles(half, model)]
    found: dict[int, Schedule] = {}
    whole = [s for s in whole if s.splits == s.pieces == 1]
    for schedule in sorted(whole, key=lambda s: model.seconds(half, s, work)):
        found.setdefault(schedule.warps, schedule)
    return found


def _seconds(region: Region, schedule: Schedule, model: CostModel) -> float:
    """As if one came after the other, but for the second launch."""
    data, weights = _halves(region)
    assert schedule.beside is not None
    each = (data, schedule), (weights, schedule.beside)
    return sum(model.seconds(half, s, product(half)) for half, s in each) - LAUNCH_SECONDS


def _takes(region: Region, schedule: Schedule) -> Refusal:
    if schedule.beside is None:
        return f"{region.name}: a schedule of two gradients says in `beside` the tiles of the weights'"
    return None


DENSE_GRADIENTS = (
    Form("dense gradients", (DenseDataGrad,), _accepts, _schedules, _takes, product, cost=_seconds),
)
