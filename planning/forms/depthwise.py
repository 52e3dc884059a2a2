"""Forms of convolutions whose groups have few channels: sums over taps in registers, along strips of the map.

    prologue -> convolution -> pointwise members

They compete with the products, whose tiles hold one group's channels and are mostly padding for such groups.

Of 7x7 taps the multiplications alone take 1.6 times as long as the bytes (an H200's rates, bfloat16), all
instructions 2.6 times. Loads of 16 bytes would need a thread to hold 8 x 49 weights. Banded products on the
matrix units would take about a third of the instructions, but their zeros meet what no tap reads, and 0 times
an infinity there is NaN.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

from ...graph.ops import Conv2D, Conv2DDataGrad, Conv2DWeightGrad
from ..cost import CostModel
from ..depthwise import WIDE, Sliding, sliding, weight_split
from ..geometry import ceil_div, power_of_two
from ..product_time import FIRST_SECONDS, LAUNCH_SECONDS, MEMORY_SECONDS
from ..products import product
from ..regions import Region
from ..schedules import Schedule
from .form import Form, Refusal
from .products import PLAIN, accepts_weight_gradient, epilogue_refusal, no_prologue, prologue_refusal

MOST_SUMMED = 16
"""Channels of a group that are summed: beyond them their taps fill no thread's registers with sense."""

REGISTERS = 224
"""Of a thread, as estimated: compiled kernels took up to 16 more, and beyond 255 they would spill."""

MOST_PARTS = 65535
"""Programs on a grid's second axis."""

WIDEST_STRIP = 8
"""Columns of a thread at most."""

MOST_ADDED = 300
"""Products of a piece and a lane that a weight gradient's loop spells out: compiling takes 10 ms for each."""

LARGEST_PIECE = 16
"""Pixels of dy in a piece at most: compiled with 64, 3x3 took all registers and 20 seconds."""

STARTING = LAUNCH_SECONDS + FIRST_SECONDS
"""Until the first row of a kernel is there."""

WIDEST_TILE = 128
"""Channels of a program of a weight gradient at most."""

ISSUING, MOVING, WAITING = "its instructions", "its bytes", "rows under way"
"""What a kernel may wait for."""


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
    return prologue_refusal(region, plain) or epilogue_refusal(region, (), softmax=False)


def _accepts_data_gradient(region: Region) -> Refusal:
    return _few(region) or no_prologue(region) or epilogue_refusal(region, (), softmax=False)


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
    return list(_ranked(sliding(region), _around(region), region.cost(model.batch).bytes, model))


Around = tuple[int, int]
"""Instructions of the members before the anchor for each number it reads, and after it for each result."""


def _around(region: Region) -> Around:
    """Two a FLOP of the members', as compiled; what is read is also tested again for being on the map."""
    graph = region.graph
    source = graph[region.anchor.inputs[0]].type
    before = sum(graph.cost(node.name).flops for node in region.prologue)
    after = sum(graph.cost(node.name).flops for node in region.epilogue)
    read = 1 + 2 * ceil_div(before, max(1, source.elements())) if region.prologue else 0
    return read, 1 + 2 * ceil_div(after, max(1, region.anchor.type.elements()))


@lru_cache(maxsize=1024)
def _ranked(work: Sliding, around: Around, num_bytes: int, model: CostModel) -> tuple[Schedule, ...]:
    found = {s: _seconds(work, s, around, num_bytes, model) for s in _all(work, model)}
    return tuple(sorted(found, key=lambda s: (found[s], s.strip, s.walk)))


def _all(work: Sliding, model: CostModel) -> Iterator[Schedule]:
    widest = max(1, WIDE // work.itemsize) if work.wide else 2
    for lanes in (n for n in (8, 4, 2, 1) if n <= widest):
        for strip in _strips(work):
            for warps in (4, 2):
                for walk in _walks(work):
                    block = lanes * warps * model.target.warp_size
                    s = Schedule(1, block, warps=warps, strip=strip, walk=walk)
                    fits = _registers(work, lanes, s) <= REGISTERS
                    least = lanes == 1 and strip == work.across.finished
                    if (fits or least) and work.walks(s) <= MOST_PARTS:
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
    return _seconds(sliding(region), schedule, _around(region), region.cost(model.batch).bytes, model)


def _seconds(work: Sliding, s: Schedule, around: Around, num_bytes: int, model: CostModel) -> float:
    """The longest of what moving, issuing and waiting take."""
    return max(_parts(work, s, around, num_bytes, model).values()) + STARTING


def _parts(work: Sliding, s: Schedule, around: Around, num_bytes: int, model: CostModel) -> dict[str, float]:
    """What a kernel may wait for, and how long each would take alone.

    Moving: the region's bytes, and what neighbouring walks read again, which the cache holds. Issuing: the
    instructions of all threads. Waiting: a program asks for a row while it computes the one before.
    """
    lanes, device = lanes_of(s, model), model.device
    programs = ceil_div(work.strips(s) * work.lanes * model.batch, s.block_n) * work.walks(s)
    per_program = work.iterations(s) * _step(work, s, lanes, around) + _once(work, lanes)
    threads = s.warps * model.target.warp_size
    resident = max(1, model.target.blocks_resident(_registers(work, lanes, s), 0, s.warps))
    waves = ceil_div(programs, device.processors * resident)
    each = ceil_div(programs, device.processors)
    issuing = model.issuing(per_program * threads * each * device.processors)
    again = num_bytes * (work.iterations(s) / s.walk - 1) / 2
    moving = model.moving(num_bytes) + again / device.cache
    waiting = waves * (work.iterations(s) + 1) * MEMORY_SECONDS
    return {ISSUING: issuing, MOVING: moving, WAITING: waiting}


def _waits_for(region: Region, schedule: Schedule, model: CostModel) -> str:
    parts = _parts(sliding(region), schedule, _around(region), region.cost(model.batch).bytes, model)
    return _longest(parts)


def _longest(parts: dict[str, float]) -> str:
    longest = max(parts, key=lambda what: parts[what])
    return longest if parts[longest] > STARTING else f"launches and first loads take {1e6 * STARTING:.1f} us"


def _step(work: Sliding, s: Schedule, lanes: int, around: Around) -> int:
    """Instructions of a thread in one step of its loop, as compiled kernels have them."""
    before, after = around
    reads = work.span(s) * work.summed * work.down.fresh
    made = s.strip * work.down.finished * lanes
    sums = ceil_div(
        made * work.taps * work.summed, work.down.unit * work.across.unit if work.down.transposed else 1
    )
    converted = reads * lanes * ((1 if work.itemsize < 4 else 0) + before)
    accesses = _accesses(work, lanes)
    return sums + converted + reads * accesses * 4 + made * after + s.strip * work.down.finished * 6 + 20


def _once(work: Sliding, lanes: int) -> int:
    return work.taps * work.summed * (lanes + 2 * _accesses(work, lanes)) + 80


def _accesses(work: Sliding, lanes: int) -> int:
    """Loads of a thread for one place of the source."""
    return ceil_div(lanes * work.itemsize, WIDE) if work.wide else lanes


# -- weight gradients ----------------------------------------------------------------------------------------
def _accepts_weights(region: Region) -> Refusal:
    return _few(region) or accepts_weight_gradient(region)


def _weight_registers(work: Sliding, lanes: int, s: Schedule) -> int:
    """Those of a thread: a sum for each tap, dy of a piece, and a row of x."""
    span = work.across.span(s.strip) * work.summed
    return lanes * (work.taps * work.summed + s.strip * s.walk + span + 1) + 16


def _takes_pieces(region: Region, schedule: Schedule) -> Refusal:
    s = schedule
    if min(s.strip, s.walk, s.programs, s.chunk) < 1 or s.chunk % s.block_k or s.block_m > 1:
        return (
            f"{region.name}: a schedule of this form needs block_m=1, a walk, a strip, programs, and a chunk "
            f"that is a multiple of block_k; found {s}"
        )
    return None


def _weight_schedules(region: Region, model: CostModel) -> list[Schedule]:
    return list(_ranked_weights(sliding(region), region.cost(model.batch).bytes, model))


@lru_cache(maxsize=1024)
def _ranked_weights(work: Sliding, num_bytes: int, model: CostModel) -> tuple[Schedule, ...]:
    found = {s: _weight_seconds(work, s, num_bytes, model) for s in _all_weights(work, model)}
    return tuple(sorted(found, key=lambda s: (found[s], s.strip, s.walk, s.programs)))


def _all_weights(work: Sliding, model: CostModel) -> Iterator[Schedule]:
    widest = max(1, WIDE // work.itemsize) if work.wide else 2
    columns = min(power_of_two(work.lanes), WIDEST_TILE)
    for lanes in (n for n in (8, 4, 2, 1) if n <= widest):
        for strip in range(1, min(WIDEST_STRIP, work.across.steps) + 1):
            for walk in (n for n in (1, 2, 3, 4, 7, 8) if n <= work.down.steps):
                for beside in {columns, min(columns, 64), min(columns, 32)}:
                    rows = max(1, lanes * 4 * model.target.warp_size // beside)
                    s = Schedule(1, beside, rows, warps=4, strip=strip, walk=walk, chunk=rows, programs=1)
                    added = strip * walk * work.taps * work.summed
                    fits = (
                        added <= MOST_ADDED
                        and strip * walk <= LARGEST_PIECE
                        and _weight_registers(work, lanes, s) <= REGISTERS
                    )
                    if fits or lanes == strip == walk == 1:
                        for waves in (1, 2, 4):
                            yield replace(s, programs=waves * model.device.processors)


def _weight_cost(region: Region, schedule: Schedule, model: CostModel) -> float:
    return _weight_seconds(sliding(region), schedule, region.cost(model.batch).bytes, model)


def _weight_seconds(work: Sliding, s: Schedule, num_bytes: int, model: CostModel) -> float:
    """As of the forward form; a program then adds up its lanes, and a second kernel the parts."""
    parts = _weight_parts(work, s, num_bytes, model)
    return max(parts.values()) + _finishing(work, s, model) + STARTING


def _weights_wait_for(region: Region, schedule: Schedule, model: CostModel) -> str:
    work = sliding(region)
    parts = _weight_parts(work, schedule, region.cost(model.batch).bytes, model)
    return _longest({**parts, "adding up parts": _finishing(work, schedule, model)})


def _finishing(work: Sliding, s: Schedule, model: CostModel) -> float:
    """Of the kernel that adds up the parts."""
    split = weight_split(work, s)
    parts = split.parts(model.batch)
    return 8 * parts * split.columns / model.device.cache + STARTING if parts > 1 else 0.0


def _weight_parts(work: Sliding, s: Schedule, num_bytes: int, model: CostModel) -> dict[str, float]:
    threads = s.warps * model.target.warp_size
    lanes = max(1, s.block_n * s.block_k // threads)
    split, device = weight_split(work, s), model.device
    parts = split.parts(model.batch)
    programs = parts * ceil_div(work.lanes, s.block_n)
    steps = split.part(model.batch) // s.block_k
    reads = work.across.span(s.strip) * work.down.span(s.walk) * work.summed
    made = s.strip * s.walk
    converted = (reads + made) * lanes if work.itemsize < 4 else 0
    each = made * work.taps * work.summed * lanes + converted
    each += (reads * _accesses(work, lanes) + made * ceil_div(lanes * work.itemsize, WIDE)) * 5 + 60
    once = work.taps * work.summed * (12 * lanes + 20)
    rounds = ceil_div(programs, device.processors)
    issuing = model.issuing((steps * each + once) * threads * rounds * device.processors)
    source = reads / (work.summed * made * work.down.stride * work.across.stride)
    moving = model.moving(num_bytes) + num_bytes / 2 * max(0.0, source - 1) / (4 * device.cache)
    resident = max(1, model.target.blocks_resident(_weight_registers(work, lanes, s), 0, s.warps))
    alone = MEMORY_SECONDS + model.issuing(each * threads * device.processors)  # a step reads, then adds
    waiting = ceil_div(programs, device.processors * resident) * steps * alone
    return {ISSUING: issuing, MOVING: moving, WAITING: waiting}


DIRECT = (
    Form(
        "direct convolution",
        (Conv2D,),
        _accepts_forward,
        _schedules,
        _takes,
        product,
        row_by_row=True,
        reads_rows=range(1),
        counts_prologue=True,
        cost=_cost,
        waits_for=_waits_for,
    ),
    Form(
        "direct data gradient",
        (Conv2DDataGrad,),
        _accepts_data_gradient,
        _schedules,
        _takes,
        product,
        row_by_row=True,
        reads_rows=range(1),
        counts_prologue=True,
        cost=_cost,
        waits_for=_waits_for,
    ),
    Form(
        "direct weight gradient",
        (Conv2DWeightGrad,),
        _accepts_weights,
        _weight_schedules,
        _takes_pieces,
        product,
        split=lambda region, schedule: weight_split(sliding(region), schedule),
        cost=_weight_cost,
        waits_for=_weights_wait_for,
    ),
)
