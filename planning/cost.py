"""What is believed about a device: how long a schedule takes, and what fusing saves and costs.

`CostModel` is all that stands between what is scheduled and what it is believed to cost: whoever ranks or
decides asks it and knows no rates, and a better model, or measurements, take its place without a change
elsewhere. It estimates in order to compare; none of its seconds was ever on a clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import ceil

from ..graph.types import HALF
from .geometry import ceil_div
from .products import Product
from .regions import Region
from .schedules import Schedule
from .splits import product_split
from .targets import DEVICES, Device, Target, target_and_device

TUNING_BATCH = 32
"""Images that the model assumes; the emitted kernel takes any batch."""

STEP_SECONDS = 5e-8
"""What a step of a product's loop costs beside its arithmetic: a hundred instructions of addresses and masks,
as compiled kernels have them, at one a cycle."""

MEMORY_SECONDS = 8e-7
"""From asking for an operand to having it; a pipeline of n stages has n - 1 steps under way. Published
latencies of a load from memory are 500 to 800 ns; the upper end, since all processors ask at once."""

TILE_SECONDS = 1e-6
"""From the start of a block to its first step. A guess."""

CACHE_SPEED = 2.0
"""The L2 cache's rate over the memory's. A guess: vendors do not publish it."""

SQUARE_RATE, SQUARE_REUSE = 0.8, 64
"""A tile of 128 x 128, whose operands are used 64 times each, reaches 0.8 of the matrix units' rate: what the
bytes that its instructions read come to at the shared memory's width."""

REGISTER_INSTRUCTIONS = 8
"""Instructions an element takes, beside its arithmetic, where a prologue stands between shared memory and
matrix units that would have read it there: a compiled 3x3 kernel of 128 x 128 x 64 with batch norm and relu
before it has 338 instructions a step more, for 32 elements a thread, of which two or three each compute."""


class CostModel:
    """What a target costs. precision: of float32 products. batch: images of a call."""

    def __init__(
        self, target: Target, device: Device, precision: str = "ieee", batch: int = TUNING_BATCH
    ) -> None:
        self.target, self.device = target, device
        self.precision, self.batch = precision, batch

    @staticmethod
    def of(target: str = "sm_90", precision: str = "ieee", batch: int = TUNING_BATCH) -> CostModel:
        """The model of an architecture or a card, by name. Raises CompileError for an unknown one."""
        return _model(target, precision, batch)

    # -- kernels -------------------------------------------------------------------------------------------
    def seconds(self, region: Region, schedule: Schedule, work: Product | None = None) -> float:
        """The time of one kernel. work: the product its anchor computes, for a contraction."""
        if work is not None:
            return self.product_seconds(work, schedule)
        return self.moving(region.cost(self.batch).bytes)

    def product_seconds(self, work: Product, schedule: Schedule) -> float:
        """A rough time: waves of tiles, each as long as its arithmetic or the way of its operands from L2.

        Larger tiles reuse operands more often, and the rate falls with block_m * block_n / (block_m +
        block_n), since shared memory feeds the matrix units.
        """
        device = self.device
        steps, programs = self._steps_and_programs(work, schedule)
        reuse = schedule.block_m * schedule.block_n / (schedule.block_m + schedule.block_n)
        rate = self.rate(work.dtype) / device.processors * min(1.0, SQUARE_RATE * reuse / SQUARE_REUSE)
        arithmetic = 2 * schedule.block_m * schedule.block_n * schedule.block_k / rate
        from_cache = CACHE_SPEED * device.bandwidth / device.processors
        operands = (schedule.block_m + schedule.block_n) * schedule.block_k * work.itemsize / from_cache
        latency = MEMORY_SECONDS / (schedule.stages - 1) if schedule.stages > 1 else MEMORY_SECONDS
        result = 4 * schedule.block_m * schedule.block_n / from_cache
        tile = steps * (max(arithmetic, operands, latency) + STEP_SECONDS) + result + TILE_SECONDS
        return ceil(programs / device.processors) * tile + self._finish_seconds(work, schedule)

    def _finish_seconds(self, work: Product, schedule: Schedule) -> float:
        """Of the kernel that adds up the parts of a weight gradient, which lie in the L2 cache."""
        parts = product_split(work, schedule).parts(self.batch) if work.sums_over_batch else 1
        if parts == 1:
            return 0.0
        written = 8 * parts * work.rows * work.columns * work.groups
        return 2 * TILE_SECONDS + written / (CACHE_SPEED * self.device.bandwidth)

    def _steps_and_programs(self, work: Product, schedule: Schedule) -> tuple[float, float]:
        """Steps of one tile's sum, and tiles."""
        columns = ceil_div(work.columns, schedule.block_n) * work.groups * work.phases
        tiles = work.row_tiles(schedule.block_m, self.batch) * columns
        if not work.sums_over_batch:
            return work.steps(schedule.block_k) / work.phases, tiles
        steps = ceil_div(work.inner * self.batch, schedule.block_k)
        parts = product_split(work, schedule).parts(self.batch)
        return ceil_div(steps, parts), tiles * parts

    # -- rates ---------------------------------------------------------------------------------------------
    def compute_dtype(self, dtype: str) -> str:
        """What numbers of this type are multiplied as."""
        return "tf32" if dtype == "float32" and self.precision == "tf32" else dtype

    def rate(self, dtype: str) -> float:
        """FLOP/s of products of this type; of float64, which no card is bought for, half of float32's."""
        found = self.device.flops.get(self.compute_dtype(dtype))
        return self.device.flops["float32"] / 2 if found is None else found

    def moving(self, num_bytes: float) -> float:
        """Seconds that so many bytes take to or from memory."""
        return num_bytes / self.device.bandwidth

    def computing(self, flops: float, dtype: str) -> float:
        """Seconds of a product of so many FLOPs, at the rate a good tile reaches."""
        return flops / (SQUARE_RATE * self.rate(dtype))

    def issuing(self, instructions: float) -> float:
        """Seconds of so many instructions on single numbers; the float32 rate counts two FLOPs each."""
        return instructions / (self.device.flops["float32"] / 2)

    def operands_in_registers(self, dtype: str) -> bool:
        """Whether matrix instructions read their operands from registers, not from shared memory (sm_90)."""
        from_shared = self.compute_dtype(dtype) in HALF and self.target.name in ("sm_90", "sm_100")
        return self.on_matrix_units(dtype) and not from_shared

    def on_matrix_units(self, dtype: str) -> bool:
        """Whether tl.dot becomes matrix instructions; NVIDIA has none for plain float32."""
        return self.compute_dtype(dtype) != "float32" or self.target.gpu.backend == "hip"

    # -- fusing --------------------------------------------------------------------------------------------
    def through_registers(self, work: Product) -> int:
        """Instructions an element that is gathered takes because something is computed of it first."""
        there = work.flattened or not self.on_matrix_units(work.dtype)
        return 0 if there or self.operands_in_registers(work.dtype) else REGISTER_INSTRUCTIONS

    @staticmethod
    def saved_bytes(merged: Region, parts: Sequence[Region]) -> int:
        """Bytes an image that cross between memory and the parts apart, but not where they are one kernel."""
        return sum(part.cost(1).bytes for part in parts) - merged.cost(1).bytes


@lru_cache(maxsize=256)
def _model(target: str, precision: str, batch: int) -> CostModel:
    """One model for all who ask, so that what was ranked with it can be kept under it."""
    found, card = target_and_device(target, "H100")
    return CostModel(found, card or DEVICES["A100"], precision, batch)
