"""Sums over pixels in two steps: parts by programs of their own, then a kernel that adds the parts up.

The parts depend on how many pixels there are and on nothing that a run may change, and they are added in one
order: the same numbers give the same bits. How many a call has is known when it is launched, since a batch
may be any; these are the formulas that emitted files hold as text.
"""

from __future__ import annotations

from dataclasses import dataclass

from .geometry import ceil_div, power_of_two
from .products import Product
from .schedules import Schedule

FINISHED_AT_ONCE = 2048
"""Elements of parts that an iteration of a finishing program adds: 16 for each of its threads."""

LEAST_STEPS = 4
"""Of a part of a product's sum, which takes as long to begin and to be stored."""

MOST_WAVES = 12
"""Of programs on a card's processors: with more, what is lost at the end of the last one is little."""

RESIDENT = 2
"""Programs that a processor holds at once, which hide what the other waits for."""

WORTH = 0.95
"""Of the time, that a split into more parts is to take: each is written and read once more."""

NEIGHBOURS = 8
"""Columns of a finishing tile at least, where there are as many: 32 bytes, which memory hands out at once."""


@dataclass(frozen=True)
class Split:
    """How one sum is cut into parts.

    pixels: terms that an image gives. step: pixels that a program of the first kernel takes at a time. least:
    pixels of a part at least; the last may have fewer. most: parts at most. columns: sums side by side.
    """

    pixels: int
    step: int
    least: int
    most: int
    columns: int

    def part(self, batch: int) -> int:
        """Pixels of each part."""
        pixels = self.pixels * batch
        parts = max(1, min(ceil_div(pixels, self.least), self.most))
        return max(1, ceil_div(ceil_div(pixels, self.step), parts)) * self.step

    def parts(self, batch: int) -> int:
        return max(1, ceil_div(self.pixels * batch, self.part(batch)))

    @property
    def together(self) -> int:
        """Parts that an iteration of the finishing kernel adds, one below the other."""
        return min(power_of_two(self.most), FINISHED_AT_ONCE // min(NEIGHBOURS, power_of_two(self.columns)))

    @property
    def beside(self) -> int:
        """Columns of a program of the finishing kernel."""
        return FINISHED_AT_ONCE // self.together

    def iterations(self, batch: int) -> int:
        """Of a program of the finishing kernel, one after another; 0 where one part is all."""
        parts = self.parts(batch)
        return ceil_div(parts, self.together) if parts > 1 else 0


def product_split(work: Product, schedule: Schedule) -> Split:
    """Of a weight gradient's sum over pixels."""
    most = max(1, schedule.programs // product_tiles(work, schedule))
    results = work.rows * work.columns * work.groups
    return Split(work.inner, schedule.block_k, schedule.chunk, most, results)


def product_tiles(work: Product, schedule: Schedule) -> int:
    """Tiles of a weight gradient."""
    columns = ceil_div(work.columns, schedule.block_n) * work.groups
    return work.row_tiles(schedule.block_m, 1) * columns


def fullest(work: Product, schedule: Schedule, batch: int, processors: int) -> list[int]:
    """Programs that the sum of a product may be cut up to: what fills waves of them, one for each of a card's
    processors. A part has a few steps at least, and more parts than before fill the waves better."""
    tiles = product_tiles(work, schedule)
    most = ceil_div(work.inner * batch, schedule.block_k) // LEAST_STEPS
    found: dict[int, float] = {}
    for wave in range(1, MOST_WAVES + 1):
        parts = max(1, min(processors * wave // tiles, most))
        rounds = ceil_div(tiles * parts, processors) / parts
        if wave <= RESIDENT or rounds < WORTH * min(found.values()):
            found[tiles * parts] = rounds
    return list(found)
