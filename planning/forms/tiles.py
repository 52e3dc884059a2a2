"""Tiles of matrix products: those that a target's shared memory and registers hold, ranked by the cost model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from ...graph.types import HALF
from ..cost import CostModel
from ..geometry import power_of_two
from ..products import Product, product
from ..regions import Region
from ..schedules import Schedule
from ..splits import LEAST_STEPS, fullest


def tiles(region: Region, model: CostModel) -> list[Schedule]:
    """Schedules of a product's region that fit the target, the one expected to be fastest first."""
    return list(_ranked(product(region), model))


@lru_cache(maxsize=1024)
def _ranked(work: Product, model: CostModel) -> tuple[Schedule, ...]:
    """Kept, since most products of a network are the same as some other one of it."""
    fit = _Fit(work, model)
    fitting = [
        s
        for s in _all(fit)
        if shared_bytes(s, work) <= model.target.shared_per_block and _registers_fit(s, fit)
    ]
    return tuple(sorted(fitting, key=lambda s: (model.product_seconds(work, s), s.block_m, s.block_n)))


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


def _all(fit: _Fit) -> Iterator[Schedule]:
    work = fit.product
    rows = work.rows * (1 if work.sums_over_batch or work.matrices else fit.model.batch)
    depths = (16, 32, 64) if fit.on_matrix_units else (16,)
    stage_counts = (2,) if fit.on_amd else (2, 3, 4) if fit.on_matrix_units else (2,)
    for block_m in _powers(rows, _least_rows(fit), 128):
        for block_n in _columns(work):
            for block_k in depths:
                for stages in stage_counts:
                    plain = Schedule(
                        block_m, block_n, block_k, warps=_warps(block_m, block_n, fit), stages=stages
                    )
                    yield from _with_parts(plain, fit) if work.sums_over_batch else (plain,)


def _least_rows(fit: _Fit) -> int:
    """Warp-group matrix instructions (sm_90) take 64 rows at a time; smaller tiles cannot use them."""
    return 64 if fit.product.is_convolution and fit.dtype in HALF else 16


def _powers(size: int, least: int, most: int) -> list[int]:
    """Powers of two from `least` to what covers `size`, at most `most`."""
    last = max(least, min(most, power_of_two(size)))
    return [least << i for i in range((last // least).bit_length())]


def _columns(work: Product) -> list[int]:
    return [max(16, power_of_two(work.columns))] if work.whole_row else _powers(work.columns, 16, 128)


def _warps(block_m: int, block_n: int, fit: _Fit) -> int:
    area = block_m * block_n
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
    regrouped = 4 * schedule.block_m * schedule.block_n if work.window > 1 else 0
    return max(stages, regrouped)


def _registers_fit(schedule: Schedule, fit: _Fit) -> bool:
    """Whether the values a thread keeps stay below limits beyond which compiled kernels spilled."""
    threads = schedule.warps * fit.model.target.warp_size
    sums = schedule.block_m * schedule.block_n // threads
    if sums > _most_sums(fit):
        return False
    if fit.product.scattered(schedule.block_m):  # every element has an address and a mask of its own
        most = 8 if fit.on_amd else 16
        return schedule.block_m * schedule.block_k // threads <= most
    if not fit.operands_in_registers:
        return True
    return schedule.block_k <= 32 if _crowded(fit) else sums < 64 or schedule.block_k <= 32


def _most_sums(fit: _Fit) -> int:
    """Sums of a tile that one thread may keep."""
    phased = fit.product.transposed and fit.product.phases > 1
    if not fit.on_matrix_units:
        return 16 if _crowded(fit) or phased else 32
    if _crowded(fit) and phased:
        return 16
    return 32 if fit.product.spreads and fit.product.itemsize == 4 else 64  # beside each operand's as many
