"""Schedules: how a kernel's work is cut into tiles, as data apart from its emission.

`candidates` lists the schedules that fit a region on a target, best first by a simple model of their time;
`choose` takes the first. Nothing is compiled here, and any schedule may be passed to `emit` instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil

from ..graph.errors import CompileError
from .geometry import ceil_div, power_of_two
from .products import Product, product
from .regions import Region
from .targets import DEVICES, Device, Target
from .targets import target as find_target

TUNING_BATCH = 32
"""Images that the model assumes; the emitted kernel takes any batch."""


STEP_SECONDS = 5e-8
"""What a step of the main loop costs beside its arithmetic: a hundred instructions of addresses and masks."""

MEMORY_SECONDS = 8e-7
"""From asking for an operand to having it; a pipeline of n stages has n - 1 steps under way."""


MOST_WARPS = 32
"""Warps of a block of 1024 threads."""


@dataclass(frozen=True)
class Schedule:
    """Tile sizes and resources of one kernel.

    block_m, block_n: rows and columns of a tile of the result. block_k: elements of the sum a step takes.
    group_m: row tiles that share the column tiles while they are in the L2 cache.
    warps, stages: of a block, and of its software pipeline. Tiles and warps are powers of two.
    chunk: weight gradients only: pixels that are summed between two looks at how many there are.
    programs: weight gradients only: blocks that the sum over pixels is split to reach.
    Raises CompileError for sizes that no kernel can have.
    """

    block_m: int
    block_n: int
    block_k: int = 1
    group_m: int = 8
    warps: int = 4
    stages: int = 2
    chunk: int = 0
    programs: int = 0

    def __post_init__(self) -> None:
        for name in ("block_m", "block_n", "block_k", "warps"):
            size = getattr(self, name)
            if not _is_whole(size) or size < 1 or size & (size - 1):
                raise CompileError(
                    f"schedule: {name} is {size!r}; tiles and warps are powers of two"
                )
        if self.warps > MOST_WARPS:
            raise CompileError(f"schedule: warps is {self.warps}; a block has at most {MOST_WARPS}")
        for name, least in (("group_m", 1), ("stages", 1), ("chunk", 0), ("programs", 0)):
            size = getattr(self, name)
            if not _is_whole(size) or size < least:
                raise CompileError(
                    f"schedule: {name} is {size!r}; it must be whole and at least {least}"
                )

    @property
    def many_warps(self) -> str:
        """The number of warps in words."""
        return f"{self.warps} warp{'s' if self.warps > 1 else ''}"

    def __str__(self) -> str:
        depth = f"x{self.block_k}" if self.block_k > 1 else ""
        return f"{self.block_m}x{self.block_n}{depth}, {self.many_warps}, {self.stages} stages"


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass(frozen=True)
class _Fit:
    """What a schedule is judged against."""

    product: Product
    target: Target
    device: Device
    precision: str
    batch: int

    @property
    def dtype(self) -> str:
        return "tf32" if self.product.dtype == "float32" and self.precision == "tf32" else self.product.dtype

    @property
    def on_matrix_units(self) -> bool:
        """Whether tl.dot becomes matrix instructions; NVIDIA has none for plain float32."""
        return self.dtype != "float32" or self.target.gpu.backend == "hip"

    @property
    def operands_in_registers(self) -> bool:
        """Whether matrix instructions read their operands from registers, not from shared memory (sm_90)."""
        from_shared = self.dtype in ("bfloat16", "float16") and self.target.name in ("sm_90", "sm_100")
        return self.on_matrix_units and not from_shared


def candidates(
    region: Region, target: str = "sm_90", *, precision: str = "ieee", batch: int = TUNING_BATCH
) -> list[Schedule]:
    """Schedules of a contraction's region that fit the target, the one expected to be fastest first.

    Raises CompileError for an unknown target.
    """
    chosen = find_target(target)
    device = next((d for d in DEVICES.values() if d.target == chosen.name), DEVICES["A100"])
    fit = _Fit(product(region), chosen, device, precision, batch)
    fitting = [
        s
        for s in _all(fit)
        if shared_bytes(s, fit.product) <= chosen.shared_per_block and _registers_fit(s, fit)
    ]
    return sorted(fitting, key=lambda schedule: (_seconds(schedule, fit), schedule.block_m, schedule.block_n))


def choose(
    region: Region, target: str = "sm_90", *, precision: str = "ieee", batch: int = TUNING_BATCH
) -> Schedule:
    """The schedule that the model expects to be the fastest."""
    return candidates(region, target, precision=precision, batch=batch)[0]


def _all(fit: _Fit) -> Iterator[Schedule]:
    work = fit.product
    rows = work.rows * (1 if work.sums_over_batch or work.matrices else fit.batch)
    depths = (16, 32, 64) if fit.on_matrix_units else (16,)
    stage_counts = (2,) if fit.target.gpu.backend == "hip" else (2, 3, 4) if fit.on_matrix_units else (2,)
    for block_m in _tiles(rows, _least_rows(fit), 128):
        for block_n in _columns(work):
            for block_k in depths:
                for stages in stage_counts:
                    plain = Schedule(
                        block_m, block_n, block_k, warps=_warps(block_m, block_n, fit), stages=stages
                    )
                    yield _with_chunks(plain, fit) if work.sums_over_batch else plain


def _least_rows(fit: _Fit) -> int:
    """Warp-group matrix instructions (sm_90) take 64 rows at a time; smaller tiles cannot use them."""
    return 64 if fit.product.is_convolution and fit.dtype in ("bfloat16", "float16") else 16


def _tiles(size: int, least: int, most: int) -> list[int]:
    """Powers of two from `least` to what covers `size`, at most `most`."""
    last = max(least, min(most, power_of_two(size)))
    return [least << i for i in range((last // least).bit_length())]


def _columns(work: Product) -> list[int]:
    return [max(16, power_of_two(work.columns))] if work.whole_row else _tiles(work.columns, 16, 128)


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


def _with_chunks(schedule: Schedule, fit: _Fit) -> Schedule:
    steps = min(16, power_of_two(ceil_div(fit.product.inner * fit.batch, schedule.block_k)))
    return replace(schedule, chunk=steps * schedule.block_k, programs=2 * fit.device.processors)


def shared_bytes(schedule: Schedule, work: Product) -> int:
    """Estimate of shared memory: the operands of every stage, or the result while it is regrouped."""
    stages = schedule.stages * (schedule.block_m + schedule.block_n) * schedule.block_k * work.itemsize
    regrouped = 4 * schedule.block_m * schedule.block_n if work.window > 1 else 0
    return max(stages, regrouped)


def _registers_fit(schedule: Schedule, fit: _Fit) -> bool:
    """Whether the values a thread keeps stay below limits beyond which compiled kernels spilled."""
    threads = schedule.warps * fit.target.warp_size
    sums = schedule.block_m * schedule.block_n // threads
    if sums > _most_sums(fit):
        return False
    if fit.product.scattered(schedule.block_m):  # every element has an address and a mask of its own
        most = 8 if fit.target.gpu.backend == "hip" else 16
        return schedule.block_m * schedule.block_k // threads <= most
    if not fit.operands_in_registers:
        return True
    return schedule.block_k <= 32 if _crowded(fit) else sums < 64 or schedule.block_k <= 32


def _most_sums(fit: _Fit) -> int:
    """Sums of a tile that one thread may keep."""
    phased = fit.product.transposed and fit.product.phases > 1
    if not fit.on_matrix_units:
        return 16 if _crowded(fit) or phased else 32
    return 16 if _crowded(fit) and phased else 64


def _seconds(schedule: Schedule, fit: _Fit) -> float:
    """A rough time: waves of tiles, each as long as its arithmetic or its operands' way from the L2 cache.

    Larger tiles reuse operands more often; a 128 x 128 tile reaches about 0.8 of the matrix units' rate
    (shared memory feeds them), and the rate falls with block_m * block_n / (block_m + block_n).
    """
    work, device = fit.product, fit.device
    steps, programs = _steps_and_programs(schedule, fit)
    reuse = schedule.block_m * schedule.block_n / (schedule.block_m + schedule.block_n)
    rate = device.flops[fit.dtype] / device.processors * min(1.0, 0.8 * reuse / 64)
    arithmetic = 2 * schedule.block_m * schedule.block_n * schedule.block_k / rate
    from_cache = 2 * device.bandwidth / device.processors
    operands = (schedule.block_m + schedule.block_n) * schedule.block_k * work.itemsize / from_cache
    latency = MEMORY_SECONDS / (schedule.stages - 1)
    result = 4 * schedule.block_m * schedule.block_n / from_cache
    tile = steps * (max(arithmetic, operands, latency) + STEP_SECONDS) + result + 1e-6
    return ceil(programs / device.processors) * tile


def _steps_and_programs(schedule: Schedule, fit: _Fit) -> tuple[float, float]:
    """Steps of one tile's sum, and tiles."""
    work = fit.product
    columns = ceil_div(work.columns, schedule.block_n) * work.groups * work.phases
    tiles = work.row_tiles(schedule.block_m, fit.batch) * columns
    if not work.sums_over_batch:
        return work.steps(schedule.block_k) / work.phases, tiles
    steps = ceil_div(work.inner * fit.batch, schedule.block_k)
    splits = max(1, min(ceil_div(work.inner * fit.batch, schedule.chunk), schedule.programs // tiles))
    return steps / splits, tiles * splits
