"""Schedules: how a kernel's work is cut into tiles, as data apart from its emission.

Which ones a form of kernel offers for a region, and in which order, is told by `planning/forms`. Nothing is
compiled there, and any schedule may be passed to `emit` instead.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..graph.errors import CompileError

MOST_WARPS = 32
"""Warps of a block of 1024 threads."""


_LEAST = (
    ("group_m", 1), ("stages", 1), ("chunk", 0), ("programs", 0), ("splits", 1), ("pieces", 1),
    ("strip", 0), ("walk", 0),
)  # fmt: skip


@dataclass(frozen=True)
class Schedule:
    """Tile sizes and resources of one kernel.

    block_m, block_n: rows and columns of a tile of the result. block_k: elements of the sum a step takes.
    group_m: row tiles that share the column tiles while they are in the L2 cache.
    warps, stages: of a block, and of its software pipeline. Tiles and warps are powers of two.
    chunk: of a sum over pixels, which is cut into parts (`splits.py`): pixels of a part at least.
    programs: of the same: blocks that it is cut to reach.
    splits: other products: parts of each sum, of programs of their own; a second kernel adds them up.
    pieces: of a tile's columns, that what follows the sums takes one after the other: 1, or the two halves.
    beside: two gradients in one launch: the tiles of the second, of as many warps and stages.
    strip, walk: forms that slide along a map only: columns of a thread, and rows that a program goes down.
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
    splits: int = 1
    pieces: int = 1
    beside: Schedule | None = None
    strip: int = 0
    walk: int = 0

    def __post_init__(self) -> None:
        for name in ("block_m", "block_n", "block_k", "warps"):
            size = getattr(self, name)
            if not _is_whole(size) or size < 1 or size & (size - 1):
                raise CompileError(f"schedule: {name} is {size!r}; tiles and warps are powers of two")
        if self.warps > MOST_WARPS:
            raise CompileError(f"schedule: warps is {self.warps}; a block has at most {MOST_WARPS}")
        for name, least in _LEAST:
            size = getattr(self, name)
            if not _is_whole(size) or size < least:
                raise CompileError(f"schedule: {name} is {size!r}; it must be whole and at least {least}")
        if self.pieces > 2 or self.pieces > 1 < self.splits:
            raise CompileError(
                f"schedule: pieces is {self.pieces}; a tile's columns are taken at once or in halves, and at "
                f"once where sums are split"
            )

    @property
    def many_warps(self) -> str:
        """The number of warps in words."""
        return f"{self.warps} warp{'s' if self.warps > 1 else ''}"

    def __str__(self) -> str:
        if self.strip:
            lanes = f"{self.block_m}x{self.block_n} lanes" if self.block_m > 1 else f"{self.block_n} lanes"
            return f"{lanes} of {self.strip} columns, {self.walk} rows, {self.many_warps}"
        depth = f"x{self.block_k}" if self.block_k > 1 else ""
        parts = f", {self.splits} parts" if self.splits > 1 else ""
        halves = " in halves" if self.pieces > 1 else ""
        tile = f"{self.block_m}x{self.block_n}{depth}{halves}{parts}"
        if (other := self.beside) is not None:
            tile += f" and {other.block_m}x{other.block_n}x{other.block_k}"
        return f"{tile}, {self.many_warps}, {self.stages} stages"


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
