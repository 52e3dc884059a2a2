"""Forms of convolutions whose groups have few channels: sums over taps in registers, along strips of the map.

    prologue -> convolution -> pointwise members

They compete with the products, whose tiles hold one group's channels and are mostly padding for such groups.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from ...graph.ops import Conv2D, Conv2DDataGrad
from ..cost import CACHE_SPEED, MEMORY_SECONDS, TILE_SECONDS, CostModel
from ..depthwise import WIDE, Sliding, sliding
from ..geometry import ceil_div
from ..products import product
from ..regions import Region
from ..schedules import Schedule
from .form import Form, Refusal
from .products import PLAIN, epilogue, no_prologue, prologue

MOST_SUMMED = 16
"""Channels of a group that are summed: beyond them their taps fill no thread's registers with sense."""

REGISTERS = 224
"""Of a thread, as estimated: compiled kernels took up to 16 more, and beyond 255 they would spill."""

MOST_PARTS = 65535
"""Programs on a grid's second axis."""

WIDEST_STRIP = 8


# -- what is accepted --------------------------------------------------------------------------------------
def _few(region: Region) -> Refusal:
    work, op = sliding(region), region.anchor.op
    if op.groups == 1 and (work.lanes > 1 or work.summed > 1):  # type: ignore[attr-defined]
        return f"{region.anchor.name}: all channels are summed, which is a product of matrices"
    if work.summed > MOST_SUMMED:
        return (
            f"{region.anchor.name}: groups of {work.summed} channels are summed, "
            f"more than the {MOST_SUMMED} that a thread takes"
        )
    if _registers(work, 1, Schedule(1, 1, strip=work.across.finished, walk=1)) > REGISTERS:
        return f"{region.anchor.name}: {work.taps} taps of {work.summed} channels do not fit into registers"
    return None


def _accepts_forward(region: Region) -> Refusal:
    if reason := _few(region):
        return reason
    plain = PLAIN if sliding(region).summed == 1 else PLAIN[1:]  # a lane's own channel, or any of several
    return prologue(region, plain, plain) or epilogue(region, (), softmax=False)


def _accepts_data_gradient(region: Region) -> Refusal:
    return _few(region) or no_prologue(region) or epilogue(region, (), softmax=False)


# -- schedules ---------------------------------------------------------------------------------------------
def _registers(work: Sliding, lanes: int, schedule: Schedule) -> int:
    """Those of a thread with so many lanes: the kernel, what is begun, what is read now and next.

    Compiled for sm_90, bfloat16, 3x3: 8 lanes of 2 columns 173, of 4 230; 4 lanes of 4 columns 128.
    """
    span = work.span(schedule) * work.summed * work.down.fresh
    begun = (work.down.carried + work.down.finished) * schedule.strip
    ahead = ceil_div(span * lanes * work.itemsize, 4)
    return lanes * (work.taps * work.summed + begun + span + 1) + ahead + 12


def lanes_of(schedule: Schedule, model: CostModel) -> int:
    """Lanes of a thread."""
    return max(1, schedule.block_m * schedule.block_n // (schedule.warps * model.target.warp_size))


def _takes(region: Region, schedule: Schedule) -> Refusal:
    step = sliding(region).across.finished
    if schedule.strip < 1 or schedule.walk < 1 or schedule.strip % step or schedule.block_m > 1:
        return (
            f"{region.name}: a schedule of this form needs block_m=1, a walk, and a strip that is a multiple "
            f"of {step}; found {schedule.block_m}, {schedule.walk} and {schedule.strip}"
        )
    return None


def _schedules(region: Region, model: CostModel) -> list[Schedule]:
    return list(_ranked(sliding(region), _after(region), region.cost(model.batch).bytes, model))


def _after(region: Region) -> int:
    """Instructions of the members around the anchor for each result: two a FLOP of theirs, as compiled."""
    around = sum(region.graph.cost(node.name).flops for node in region.nodes if node is not region.anchor)
    return 1 + 2 * ceil_div(around, max(1, region.anchor.type.elements()))


@lru_cache(maxsize=1024)
def _ranked(work: Sliding, after: int, num_bytes: int, model: CostModel) -> tuple[Schedule, ...]:
    found = {s: _seconds(work, s, after, num_bytes, model) for s in _all(work, model)}
    return tuple(sorted(found, key=lambda s: (found[s], s.strip, s.walk)))


def _all(work: Sliding, model: CostModel) -> Iterator[Schedule]:
    widest = max(1, WIDE // work.itemsize) if work.wide else 2
    for lanes in (n for n in (8, 4, 2, 1) if n <= widest):
        for strip in _strips(work):
            for warps in (4, 2):
                for walk in _walks(work):
                    block = lanes * warps * model.target.warp_size
                    s = Schedule(1, block, warps=warps, strip=strip, walk=walk)
                    fits = _registers(work, lanes, s) <= REGISTERS and work.walks(s) <= MOST_PARTS
                    if fits or (lanes == 1 and strip == work.across.finished):
                        yield s


def _strips(work: Sliding) -> list[int]:
    step = work.across.finished
    most = min(max(1, WIDEST_STRIP // step), work.across.steps)
    return [step * steps for steps in range(1, most + 1)]


def _walks(work: Sliding) -> list[int]:
    """All the way down, or equal parts of it."""
    steps = work.down.steps
    return sorted({ceil_div(steps, parts) for parts in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, steps)})


# -- what it costs -----------------------------------------------------------------------------------------
def _cost(region: Region, schedule: Schedule, model: CostModel) -> float:
    return _seconds(sliding(region), schedule, _after(region), region.cost(model.batch).bytes, model)


def _seconds(work: Sliding, s: Schedule, after: int, num_bytes: int, model: CostModel) -> float:
    """The longest of what moving, issuing and waiting take.

    Moving: the region's bytes, and what neighbouring walks read again, which the cache holds. Issuing: the
    instructions of all threads. Waiting: a program asks for a row while it computes the one before.
    """
    lanes, device = lanes_of(s, model), model.device
    programs = ceil_div(work.strips(s) * work.lanes * model.batch, s.block_n) * work.walks(s)
    per_program = work.iterations(s) * _step(work, s, lanes, after) + _once(work, lanes)
    threads = s.warps * model.target.warp_size
    resident = max(1, model.target.blocks_resident(_registers(work, lanes, s), 0, s.warps))
    waves = ceil_div(programs, device.processors * resident)
    each = ceil_div(programs, device.processors)
    issuing = model.issuing(per_program * threads * each * device.processors)
    again = num_bytes * (work.iterations(s) / s.walk - 1) / 2
    moving = model.moving(num_bytes) + model.moving(again) / CACHE_SPEED
    waiting = waves * (work.iterations(s) + 1) * MEMORY_SECONDS
    return max(issuing, moving, waiting) + TILE_SECONDS


def _step(work: Sliding, s: Schedule, lanes: int, after: int) -> int:
    """Instructions of a thread in one step of its loop, as compiled kernels have them."""
    reads = work.span(s) * work.summed * work.down.fresh
    made = s.strip * work.down.finished * lanes
    sums = ceil_div(
        made * work.taps * work.summed, work.down.unit * work.across.unit if work.down.transposed else 1
    )
    converted = reads * lanes if work.itemsize < 4 else 0
    accesses = _accesses(work, lanes)
    return sums + converted + reads * accesses * 4 + made * after + s.strip * work.down.finished * 6 + 20


def _once(work: Sliding, lanes: int) -> int:
    return work.taps * work.summed * (lanes + 2 * _accesses(work, lanes)) + 80


def _accesses(work: Sliding, lanes: int) -> int:
    """Loads of a thread for one place of the source."""
    return ceil_div(lanes * work.itemsize, WIDE) if work.wide else lanes


DIRECT = (
    Form(
        "direct convolution",
        (Conv2D,),
        _accepts_forward,
        _schedules,
        _takes,
        product,
        row_by_row=True,
        cost=_cost,
    ),
    Form(
        "direct data gradient",
        (Conv2DDataGrad,),
        _accepts_data_gradient,
        _schedules,
        _takes,
        product,
        row_by_row=True,
        cost=_cost,
    ),
)
