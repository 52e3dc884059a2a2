"""How long a tiled product is believed to take on a card, and what it waits for.

A processor works on the blocks that it holds at once. A step of one keeps its matrix units, its shared
memory, its schedulers and its way to the L2 cache busy, each for a time of its own; the longest counts,
unless the loads of the next steps take longer still to come. All of a kernel takes at least what its bytes
take to and from memory. Each number below has a source, or is marked as a guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import ceil

from .geometry import ceil_div
from .products import Product
from .schedules import Schedule
from .splits import product_split
from .targets import Device, Target

LAUNCH_SECONDS = 1e-6
"""From the end of a kernel to the start of the next in a CUDA graph. A guess: NVIDIA's posts on graphs give
one to two microseconds a node, most of which lies under the kernel before."""

MEMORY_SECONDS = 8e-7
"""From asking for an operand to having it; a pipeline of n stages has n - 1 steps under way. Published
latencies of a load from memory are 500 to 800 ns; the upper end, since all processors ask at once."""

SECOND_LAUNCH_SECONDS = 3e-6
"""The same of a kernel that would not have to be: the host spends several microseconds on it where no graph
replays it. A guess."""

FIRST_SECONDS = 5e-7
"""The same for a kernel's first load, when memory has nothing else to do: the lower end."""

STEP_CYCLES = 60
"""A step of a block takes, beside its work, for the two barriers at which its warps meet. A guess; another
block on the processor works meanwhile."""

CACHE_WIDTH = 64
"""Bytes that the way from the L2 cache brings one processor in a cycle at most (NVIDIA A100 white paper)."""

START_INSTRUCTIONS = 300
"""Instructions of a warp before its first step: a compiled 3x3 kernel of 128 x 128 has 280."""

SHARED_WIDTH = 128
"""Bytes that a processor's shared memory moves in a cycle: 32 banks of 4 (CUDA C++ Programming Guide; AMD's
CDNA3 guide gives its local data share the same)."""

SCHEDULERS = 4
"""Of a processor; each issues one instruction of one warp in a cycle."""

ALONE = 0.5
"""Of the matrix units' rate, that instructions of single warps reach where groups of four reach all of it. A
guess: published figures for mma on an H100 are 0.6 of wgmma's and less."""

IDLE_SECONDS = 2e-6
"""What a schedule loses by leaving processors without a program, beside what its time says: a guess, which
tips the scales on small maps, where loads under way are all that counts, and more processors have more."""

FINISH_ELEMENTS = 1024
"""Sums that a program of the kernel that adds up a split sum's parts computes."""

EPILOGUE_INSTRUCTIONS = 5
"""For an element of the result: a compiled kernel with bias and relu has 290 for 64 elements of a thread."""

STEP_INSTRUCTIONS, OF_ROWS, OF_TAPS, OF_COLUMNS = 55, 8, 20, 3.5
"""Instructions of a step's loop, and for each load of 16 bytes of plain rows, of rows gathered by taps, and
of columns; fitted to 250 compiled loops (tests/data/static_counts.json), which its test holds them to."""

OF_ELEMENT = 12
"""For each element whose tap and channel are taken apart on their own: a compiled loop of a first layer."""

OF_COMPUTED = 15
"""For each element that is computed with before it is multiplied: compiled loops of 1x1 convolutions behind a
batch norm and a ReLU have 15 to 18 (sm_90, bfloat16)."""

REGISTERS, OF_TAP_LOADS, OF_ROW_LOADS, OF_COLUMN_LOADS, OF_TILES_BESIDE = 24, 5, 2.5, 1, 0.25
"""Registers of a thread beside its sums: of any kernel; for each load of 16 bytes of a step, of rows by taps,
of plain rows and of columns; and for each of its sums that a value loaded beside them stands for. Fitted to
compiled loops of sm_90 that multiply in groups, and to kernels of ResNet-50 and U-Net with what follows."""

MATRIX_INSTRUCTION = 16 * 8 * 32
"""Products and bytes: 16 x 8 x 16 of 16 bits in one warp's instruction (PTX: mma.m16n8k16), 32 bytes deep."""


@dataclass(frozen=True)
class ProductTime:
    """One product on one card. dtype: what its numbers are multiplied as; flops: of that, in a second.

    num_bytes: that cross between the kernel and memory. units: whether matrix instructions multiply; shared:
    whether they read both operands from shared memory, for a group of four warps at once.
    """

    work: Product
    schedule: Schedule
    target: Target
    device: Device
    dtype: str
    flops: float
    batch: int
    num_bytes: float = 0.0
    units: bool = True
    shared: bool = True

    # -- counts --------------------------------------------------------------------------------------------
    @cached_property
    def tiles(self) -> int:
        """Tiles of the result."""
        work, schedule = self.work, self.schedule
        columns = ceil_div(work.columns, schedule.block_n) * work.groups * work.phases
        return work.row_tiles(schedule.block_m, self.batch) * columns

    @cached_property
    def splits(self) -> int:
        """Parts of each sum."""
        if not self.work.sums_over_batch:
            return self.schedule.splits
        return product_split(self.work, self.schedule).parts(self.batch)

    @property
    def programs(self) -> int:
        return self.tiles * self.splits

    @cached_property
    def steps(self) -> float:
        """Of one program."""
        work, depth = self.work, self.schedule.block_k
        if work.sums_over_batch:
            return ceil(ceil_div(work.inner * self.batch, depth) / self.splits)
        return ceil(work.steps(depth) / work.phases / self.splits)

    @cached_property
    def registers(self) -> int:
        """Of a thread."""
        s, work = self.schedule, self.work
        lanes = s.warps * self.target.warp_size
        sums = s.block_m * s.block_n // lanes
        if not (self.shared and self.in_groups) or work.sums_over_batch or work.spreads or work.computed:
            return min(self.target.registers_per_thread, 56 + sums + sums // 4)
        loads = self._loads(s.block_m) * (OF_TAP_LOADS if self.gathers else OF_ROW_LOADS)
        loads += self._loads(s.block_n) * OF_COLUMN_LOADS
        beside = OF_TILES_BESIDE * work.beside * sums / s.pieces
        return min(self.target.registers_per_thread, ceil(REGISTERS + sums + loads / lanes + beside))

    @property
    def gathers(self) -> bool:
        """Whether rows are gathered by taps."""
        return self.work.taps * self.work.row_taps * self.work.phases > 1

    @cached_property
    def resident(self) -> int:
        """Blocks that a processor holds at once."""
        s = self.schedule
        operands = s.stages * (s.block_m + s.block_n) * s.block_k * self.work.itemsize
        operands = min(operands, self.target.shared_per_block)
        return max(1, self.target.blocks_resident(self.registers, operands, s.warps))

    # -- one step, in cycles -------------------------------------------------------------------------------
    @cached_property
    def per_cycle(self) -> float:
        """Products that a processor computes in a cycle."""
        full = self.target.products_a_cycle(self.dtype)
        slower = self.units and self.target.groups_of_warps and not self.in_groups
        return full * ALONE if slower else full

    @property
    def in_groups(self) -> bool:
        """Whether four warps multiply together, 64 rows at a time."""
        return self.target.groups_of_warps and self.schedule.block_m >= 64 and self.schedule.warps >= 4

    @cached_property
    def cycle(self) -> float:
        """Seconds: those at which the card reaches its rate."""
        return 2 * self.target.products_a_cycle(self.dtype) * self.device.processors / self.flops

    @cached_property
    def matrix_cycles(self) -> float:
        s = self.schedule
        return s.block_m * s.block_n * s.block_k / self.per_cycle

    @cached_property
    def shared_cycles(self) -> float:
        """Both operands are written once, and read by each group of warps for its part of the tile."""
        s, size = self.schedule, self.work.itemsize
        rows, columns = self._part()
        parts = (s.block_m // rows) * (s.block_n // columns)
        read = parts * (rows + columns) * s.block_k * size
        return (read + (s.block_m + s.block_n) * s.block_k * size) / SHARED_WIDTH

    def _part(self) -> tuple[int, int]:
        """Rows and columns that one reading of the operands serves: 64 rows of a group of four warps that
        reads from shared memory (PTX: wgmma.m64), elsewhere the part of a warp, as square as it can be."""
        s = self.schedule
        if self.target.whole_tile_products and self.in_groups:
            return s.block_m, s.block_n
        if self.shared and self.in_groups:
            across = max(1, (s.warps // 4) // (s.block_m // 64))
            return 64, max(8, s.block_n // across)
        rows, columns, warps = s.block_m, s.block_n, s.warps
        while warps > 1:
            tall = rows > columns // 2 and rows > 16
            rows, columns = (rows // 2, columns) if tall else (rows, columns // 2)
            warps //= 2
        return max(1, rows), max(1, columns)

    @cached_property
    def instructions(self) -> float:
        """Of a warp in one step."""
        s, work = self.schedule, self.work
        lanes = s.warps * self.target.warp_size
        row_loads = self._loads(s.block_m) / lanes
        column_loads = self._loads(s.block_n) / lanes
        if self.scattered:
            rows = OF_ELEMENT * s.block_m * s.block_k / lanes
        else:
            rows = row_loads * (OF_TAPS if self.gathers else OF_ROWS)
        rows += OF_COMPUTED * s.block_m * s.block_k / lanes if work.computed else 0.0
        columns = column_loads * OF_COLUMNS * (16 // self.column_bytes)
        return STEP_INSTRUCTIONS + rows + columns + self._products()

    def _loads(self, size: int) -> float:
        """Of 16 bytes, that a tile of so many rows or columns takes."""
        return size * self.schedule.block_k * self.work.itemsize / 16

    @property
    def scattered(self) -> bool:
        return self.work.scattered(self.schedule.block_m)

    @property
    def column_bytes(self) -> int:
        """Bytes of a load of the second operand: 4 where matrix instructions want it turned around (PTX:
        wgmma turns operands of 16 bits alone): a compiled tf32 loop has 16 loads where its gradient has 4."""
        turned = self.target.groups_of_warps and self.dtype == "tf32" and not self.work.transposed
        return 4 if turned else 16

    def _products(self) -> float:
        """A warp's instructions that multiply; a group's do so for many at once."""
        s = self.schedule
        if not self.units:
            return s.block_m * s.block_n * s.block_k / (s.warps * self.target.warp_size)
        if self.in_groups:
            return 0.0
        return s.block_m * s.block_n * s.block_k * self.work.itemsize / (MATRIX_INSTRUCTION * s.warps)

    @cached_property
    def issue_cycles(self) -> float:
        return self.instructions * self.schedule.warps / SCHEDULERS

    @property
    def issue_ratio(self) -> float:
        """Cycles of issuing a step over those of its products, as read off compiled loops."""
        return self.issue_cycles / self.matrix_cycles

    @cached_property
    def cache_cycles(self) -> float:
        """The operands' way from the L2 cache."""
        s = self.schedule
        operands = (s.block_m + s.block_n) * s.block_k * self.work.itemsize
        share = self.device.cache * self.cycle / min(self.programs, self.device.processors)
        return operands / min(share, CACHE_WIDTH)

    @property
    def _step(self) -> Mapping[str, float]:
        return {
            "matrix units": self.matrix_cycles,
            "shared memory": self.shared_cycles if self.units else 0.0,
            "instructions": self.issue_cycles,
            "the L2 cache": self.cache_cycles,
        }

    # -- the kernel, in seconds ----------------------------------------------------------------------------
    @cached_property
    def parts(self) -> Mapping[str, float]:
        """What the time would be if it went to one thing alone."""
        s, at_once = self.schedule, min(self.resident, ceil_div(self.programs, self.device.processors))
        each = ceil_div(self.programs, self.device.processors)
        rounds = ceil(each / at_once)
        latency = MEMORY_SECONDS / max(1, s.stages - 1)
        last = self.cycle * EPILOGUE_INSTRUCTIONS * s.block_m * s.block_n
        last /= SCHEDULERS * self.target.warp_size
        step = (max(self._step.values()) + STEP_CYCLES) * self.cycle
        alone = self.steps * max(latency, step) + last
        busy = {what: each * (self.steps * cycles * self.cycle + last) for what, cycles in self._step.items()}
        # What a block issues before its first step counts where the sums are as short as a first layer's.
        busy["instructions"] += each * START_INSTRUCTIONS * s.warps / SCHEDULERS * self.cycle
        share = max(1.0, self.device.processors / self.programs)
        return {
            **busy,
            "memory": share * self.num_bytes / self.device.bandwidth,
            "loads under way": rounds * alone + (rounds - 1) * self.start,
        }

    @property
    def busy(self) -> float:
        """All that the busiest processor does, one after the other."""
        return sum(time for what, time in self.parts.items() if what in self._step)

    @cached_property
    def start(self) -> float:
        """From the start of a block to its first step."""
        s = self.schedule
        return FIRST_SECONDS + START_INSTRUCTIONS * s.warps / SCHEDULERS * self.cycle

    @cached_property
    def finish(self) -> float:
        """Of the kernel that adds up the parts of split sums, which still lie in the L2 cache."""
        if self.splits == 1:
            return 0.0
        work = self.work
        results = work.rows * (1 if work.sums_over_batch else self.batch)
        results *= work.columns * work.groups * work.phases * max(1, work.matrices)
        share = max(1.0, self.device.processors * FINISH_ELEMENTS / results)
        return SECOND_LAUNCH_SECONDS + FIRST_SECONDS + share * 8 * results * self.splits / self.device.cache

    @property
    def seconds(self) -> float:
        return LAUNCH_SECONDS + self.start + max(self.parts.values()) + self.finish

    @property
    def rank(self) -> float:
        """What schedules are compared by."""
        idle = self.programs < self.device.processors
        return self.seconds + IDLE_SECONDS if idle else self.seconds

    @property
    def reason(self) -> str:
        """What most of the time goes to."""
        what, longest = max(self.parts.items(), key=lambda part: part[1])
        fixed = LAUNCH_SECONDS + self.start + self.finish
        if fixed > longest:
            return f"launches and first loads take {1e6 * fixed:.1f} us"
        waves = self.programs / self.device.processors
        return f"{what} ({self.programs} programs, {waves:.2f} waves)"
