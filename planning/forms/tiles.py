"""Tiles of matrix products: those that a target's shared memory and registers hold, ranked by the cost model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from ...graph.types import HALF
from ..cost import CostModel
from ..geometry import ceil_div, power_of_two
from ..product_time import ProductTime
from ..products import Product, product
from ..regions import Region
from ..schedules import Schedule
from ..splits import LEAST_STEPS, fullest

SPREAD_DEPTH = 128
"""Bytes of a step's rows at most where each row spreads over a window."""

COMPUTED = 32
"""Elements of a step's rows that a thread computes with at most before they are multiplied: with 64 of them a
64 x 128 x 128 tile took all registers and spilled 72 bytes on sm_90, with 32 one of 64 took 144."""

MOST_REGISTERS = 240
"""Of a thread, as the model counts them, beyond which compiled kernels may have spilled."""

SPLITS = (2, 3, 4, 6, 8, 12, 16, 24, 32)
"""Parts that a sum may be cut into; each result adds up as many in order."""


def tiles(region: Region, model: CostModel) -> list[Schedule]:
    """Schedules of a product's region that fit the target, the one expected to be fastest first."""
    return list(ranked(product(region), model, region.cost(model.batch).bytes))


@lru_cache(maxsize=4096)
def ranked(work: Product, model: CostModel, num_bytes: int) -> tuple[Schedule, ...]:
    """`tiles` of a product. Kept, since most products of a network are the same as some other one of it."""
    fit = _Fit(work, model)
    fitting = [
        s
        for s in _all(fit)
        if shared_bytes(s, work) <= model.target.shared_per_block and _registers_fit(s, fit)
    ]
    times = {s: model.product(work, s, num_bytes) for s in fitting}
    times |= {s: model.product(work, s, num_bytes) for one in times.values() for s in _split(one)}
    return tuple(sorted(times, key=lambda s: _order(times[s])))


def _order(time: ProductTime) -> tuple[float, ...]:
    """By the time; of those that memory keeps waiting alike, by what the processors are kept busy with."""
    s = time.schedule
    return time.rank, time.busy, s.block_m, s.block_n, s.splits


def _split(time: ProductTime) -> list[Schedule]:
    """The same tiles with each sum cut into parts, where they are too few for the card's processors."""
    work = time.work
    if work.sums_over_batch or (work.groups > 1 and work.phases > 1) or time.tiles >= time.device.processors:
        return []
    most = min(time.steps, 2 * time.device.processors // time.tiles)
    counts = [n for n in SPLITS if n <= most]
    return [replace(time.schedule, splits=n, pieces=1) for n in counts]


@dataclass(frozen=True)
class _Fit:
    """What a schedule is judged against."""

    product: Product
    model: CostModel

    @property
    def dtype(self) -> str:
        return self.model.compute_dtype(self.product.dtype)

    @property
    def on_amd(self) -> bool:
        return self.model.target.gpu.backend == "hip"

    @property
    def on_matrix_units(self) -> bool:
        return self.model.on_matrix_units(self.product.dtype)

    @property
    def operands_in_registers(self) -> bool:
        return self.model.operands_in_registers(self.product.dtype)

    @property
    def wide(self) -> bool:
        """Whether a thread may keep 128 sums: where nothing else needs many registers."""
        work = self.product
        return work.lean and not (work.sums_over_batch or work.flattened or _crowded(self))

    @property
    def grouped(self) -> bool:
        """Whether groups of four warps multiply, and read both operands from shared memory."""
        return self.model.target.groups_of_warps and self.dtype in HALF

    def pieces(self, block_m: int, block_n: int) -> int:
        """What the columns of a tile that is not `wide` are cut into after the product, so that a thread may
        keep 128 sums all the same: at once, what follows two residuals' loads spilled 336 bytes on sm_90."""
        work = self.product
        if self.wide or not self.grouped or work.sums_over_batch or work.whole_row:
            return 1
        if work.flattened or work.computed or work.spreads:
            return 1
        # Half of 256 x 128 spilled up to 350 bytes where it finds places or multiplies with gradients, half
        # of 256 x 64 up to 208 where it finds places, 40 where a forward product meets a gradient, 312 where
        # GELU's gradient follows, and 336 where the phases of a strided gradient do.
        narrow = work.beside <= 2 and work.phases == 1 and (work.plain or work.transposed) and not work.costly
        halved = {(128, 256): True, (256, 128): work.plain, (256, 64): narrow}
        return 2 if halved.get((block_m, block_n)) else 1

    @property
    def deepest_wide(self) -> int:
        """Bytes of a row in a step of such a tile: matrix instructions of single warps hold the operands of
        all that is under way in registers (a 256 x 128 x 64 tile spilled 32 bytes on sm_80)."""
        if self.model.target.groups_of_warps:
            return 256 if self.wide and self.grouped else 128
        return 128 if self.on_amd else 64


def _all(fit: _Fit) -> Iterator[Schedule]:
    work = fit.product
    rows = work.rows * (1 if work.sums_over_batch or work.matrices else fit.model.batch)
    most = 128 if work.sums_over_batch or not fit.on_matrix_units else 256
    few = fit.on_amd or (work.sums_over_batch and not fit.on_matrix_units)
    stage_counts = (2,) if few else (2, 3, 4)
    for block_m in _powers(rows, _least_rows(fit), most):
        for block_n in _columns(work, most):
            for block_k in _depths(fit):
                for stages in stage_counts:
                    warps = _warps(block_m, block_n, fit)
                    pieces = fit.pieces(block_m, block_n)
                    plain = Schedule(block_m, block_n, block_k, warps=warps, stages=stages, pieces=pieces)
                    yield from _with_parts(plain, fit) if work.sums_over_batch else (plain,)


def _depths(fit: _Fit) -> list[int]:
    """Elements of the sum that a step may take: no more than a tap has; of 32 bits, 128 bytes (a tf32 tile of
    32 x 32 x 64 spilled 8 bytes on sm_90)."""
    work = fit.product
    if not fit.on_matrix_units:
        return [16]
    if work.sums_over_batch:
        return [16, 32, 64]
    run = work.inner if work.flattened else work.channels
    return _powers(run, 16, 128 if work.itemsize == 2 else 32)


def _least_rows(fit: _Fit) -> int:
    """Warp-group matrix instructions (sm_90) take 64 rows at a time; smaller tiles cannot use them, and are
    for maps so small that they are computed by too few programs."""
    work = fit.product
    if not work.is_convolution or fit.dtype not in HALF:
        return 16
    columns = ceil_div(work.columns, 64) * work.groups * work.phases
    few = work.row_tiles(64, fit.model.batch) * columns < fit.model.device.processors
    return 16 if few and not work.sums_over_batch else 64


def _powers(size: int, least: int, most: int) -> list[int]:
    """Powers of two from `least` to what covers `size`, at most `most`."""
    last = max(least, min(most, power_of_two(size)))
    return [least << i for i in range((last // least).bit_length())]


def _columns(work: Product, most: int) -> list[int]:
    return [max(16, power_of_two(work.columns))] if work.whole_row else _powers(work.columns, 16, most)


def _warps(block_m: int, block_n: int, fit: _Fit) -> int:
    area = block_m * block_n
    if (block_m, block_n) == (64, 256) and fit.wide:
        return 4
    if (block_m, block_n) == (256, 64) and fit.grouped and (fit.wide or fit.pieces(256, 64) > 1):
        return 4  # 8 have 1.3 to 1.6 times as many instructions a product, compiled
    most = 64 * 64 if _crowded(fit) else 128 * 128
    return 8 if area >= most else 4 if area >= 2048 or block_m >= 64 else 2 if area >= 512 else 1


def _crowded(fit: _Fit) -> bool:
    """Whether the loop itself needs many registers, so that a tile is shared by more warps.

    That is a transposed operand without matrix units, or with units that take both operands from registers.
    """
    if not fit.on_matrix_units:
        return fit.product.sums_over_batch
    return fit.product.transposed and fit.operands_in_registers


def _with_parts(schedule: Schedule, fit: _Fit) -> Iterator[Schedule]:
    """The same tiles, their sum over pixels cut into parts that fill the card."""
    least = LEAST_STEPS * schedule.block_k
    for programs in fullest(fit.product, schedule, fit.model.batch, fit.model.device.processors):
        yield replace(schedule, chunk=least, programs=programs)


def shared_bytes(schedule: Schedule, work: Product) -> int:
    """Estimate of shared memory: the operands of every stage, or the result while it is regrouped."""
    stages = schedule.stages * (schedule.block_m + schedule.block_n) * schedule.block_k * work.itemsize
    regrouped = 4 * schedule.block_m * schedule.block_n // schedule.pieces if work.window > 1 else 0
    return max(stages, regrouped)


def _registers_fit(schedule: Schedule, fit: _Fit) -> bool:
    """Whether the values a thread keeps stay below limits beyond which compiled kernels spilled."""
    threads = schedule.warps * fit.model.target.warp_size
    sums = schedule.block_m * schedule.block_n // threads
    most = 128 if schedule.pieces > 1 else _most_sums(fit)
    if sums > most or _written_out(schedule, fit) or _many_stages(schedule, fit):
        return False
    if fit.grouped and fit.model.product(fit.product, schedule).wanted_registers > MOST_REGISTERS:
        return False
    depth = schedule.block_k * fit.product.itemsize
    if (sums > 64 and depth > fit.deepest_wide) or (fit.product.spreads and depth > SPREAD_DEPTH):
        return False
    if fit.product.computed and schedule.block_m * schedule.block_k // threads > COMPUTED:
        return False
    if fit.product.scattered(schedule.block_m):  # every element has an address and a mask of its own
        most = 8 if fit.on_amd else 16
        return schedule.block_m * schedule.block_k // threads <= most
    if not fit.operands_in_registers:
        return True
    return schedule.block_k <= 32 if _crowded(fit) else sums < 64 or schedule.block_k <= 32


def _written_out(schedule: Schedule, fit: _Fit) -> bool:
    """Whether the loop of two warps ends as its pipeline has filled, so that the compiler writes it out: of
    120 small tiles on sm_90, 16 x 32 and 32 x 32 spilled 8 bytes in 3 steps of 128 with 3 stages; on sm_80,
    which multiplies from registers, 32 x 32 did in 2 steps."""
    work = fit.product
    if schedule.warps != 2 or work.sums_over_batch:
        return False
    steps, filled = work.steps(schedule.block_k), work.phases * schedule.stages
    return steps <= filled if fit.operands_in_registers else steps == filled


def _many_stages(schedule: Schedule, fit: _Fit) -> bool:
    """Whether the places of the stages, which take registers to tell, are too many beside the rest.

    256 x 128 x 64 in halves spilled 176 and 288 bytes on sm_90 in three and four stages (two: 0, at 235
    registers). On sm_80 weight gradients of 64 x 64 and 64 x 16 spilled up to 48 (two: 0), and 64 x 128 in
    four stages of 16 pixels 24 beside a bias's sum (three: 0).
    """
    size = schedule.block_m, schedule.block_n
    most = 4
    if fit.product.sums_over_batch and fit.operands_in_registers:
        most = 2 if max(size) <= 64 else 3 if schedule.block_k <= 16 else 4
    elif schedule.pieces > 1 and size == (256, 128):
        most = 2
    return schedule.stages > most


def _most_sums(fit: _Fit) -> int:
    """Sums of a tile that one thread may keep."""
    phased = fit.product.transposed and fit.product.phases > 1
    if not fit.on_matrix_units:
        return 16 if _crowded(fit) or phased else 32
    if _crowded(fit) and phased:
        return 16
    if fit.product.spreads:  # beside each operand's as many
        return 32 if fit.product.itemsize == 4 else 64
    return 128 if fit.wide else 64
