"""A form of pointwise regions: tiles of rows and channels, which load what belongs to a channel once a tile.

A value (..., C) is seen as a matrix whose rows hold some neighbouring pixels each, so that rows of few or odd
channels fill tiles as well, and begin where wide loads may.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import gcd, prod

from ...graph.op import Kind
from ...graph.types import TensorType
from ..cost import CostModel
from ..geometry import broadcast_kind, ceil_div
from ..regions import Region
from ..schedules import Schedule
from .form import Form, Refusal
from .members import pointwise
from .reads import THREAD, WARP, lines, loaded, seconds

COLUMNS, WARPS = (64, 32, 16), 4
"""Columns of a tile: at most half its threads. Triton then lets each thread load the channels that it needs,
where it would share out wider vectors among the threads, and pass them on through shared memory. Narrower
ones are for channels that do not fill 64, beside operands of one number a pixel."""

ELEMENTS = (4096, 2048, 1024)
"""Elements of a tile; of the fewest, each thread computes one run of eight."""

HELD = 144
"""Numbers that a thread holds at once, at most: of two batch norms that are added, 160 spilled on sm_80."""

PADDING = 16
"""At most one column in so many may lie behind a row's end."""


@dataclass(frozen=True)
class Rows:
    """How a value is seen. pixels: of a row. channels: of a pixel. count: rows of an image, or of the whole
    value where it has no batch axis; 0 where images do not end with a row."""

    pixels: int
    channels: int
    count: int

    @property
    def pitch(self) -> int:
        """Elements of a row."""
        return self.pixels * self.channels

    def tiles(self, columns: int) -> int:
        """Tiles that a row is cut into."""
        return ceil_div(self.pitch, columns)


def rows_of(value: TensorType, columns: int) -> Rows:
    """As few pixels a row as let it fill tiles of so many columns and begin where wide loads may."""
    each = _pixels_of_a_row(value.channels, columns)
    pixels = value.elements() // value.channels
    return Rows(each, value.channels, pixels // each if pixels % each == 0 else 0)


@lru_cache(maxsize=1024)
def _pixels_of_a_row(channels: int, columns: int) -> int:
    pixels = 1
    while pixels < columns:
        wide = pixels * channels
        if wide % min(THREAD, columns) == 0 and ceil_div(wide, columns) * columns - wide <= wide // PADDING:
            break
        pixels *= 2
    return pixels


def _accepts(region: Region) -> Refusal:
    result = region.nodes[-1].type
    if result.rank < 2:
        return f"{region.nodes[-1].name}: {result} has no rows of channels"
    if refusal := pointwise(region, region.nodes, result.shape):
        return refusal
    reasons = [_ends_within_a_row(region, columns) for columns in COLUMNS]
    return None if None in reasons else reasons[0]


def _ends_within_a_row(region: Region, columns: int) -> Refusal:
    """An operand of one number a channel and image, or the same for every image, is read row by row."""
    result = region.nodes[-1].type
    rows = rows_of(result, columns)
    for node in loaded(region):
        kind = broadcast_kind(node.type.shape, result.shape)
        if kind == "image" and not rows.count:
            return f"{node.name} of {node.type}: rows of {rows.pixels} pixels do not end with an image"
        if kind == "repeated" and prod(int(d) for d in node.type.shape[:-1]) % rows.pixels:
            return f"{node.name} of {node.type} does not end with a row of {rows.pixels} pixels"
    return None


def _schedules(region: Region, model: CostModel) -> list[Schedule]:
    fitting = [columns for columns in COLUMNS if _ends_within_a_row(region, columns) is None]
    offered = [_schedule(region, columns, model) for columns in fitting]
    return sorted(offered, key=lambda schedule: _seconds(region, schedule, model))


def _schedule(region: Region, columns: int, model: CostModel) -> Schedule:
    """As many rows as leave every processor two tiles: what belongs to the channels is loaded for each."""
    result = region.nodes[-1].type
    rows = rows_of(result, columns)
    total = ceil_div(result.elements(model.batch), rows.pitch)
    heights = [elements // columns for elements in ELEMENTS if _held(region, elements) <= HELD]
    heights = heights or [ELEMENTS[-1] // columns]
    tiles = (ceil_div(total, height) * rows.tiles(columns) for height in heights)
    enough = (h for h, count in zip(heights, tiles, strict=True) if count >= 2 * model.device.processors)
    return Schedule(next(enough, heights[-1]), columns, warps=WARPS)


def _held(region: Region, elements: int) -> int:
    """Numbers of a thread: the channels' of a run of elements, and all of other operands and the result."""
    shape, each = region.nodes[-1].type.shape, elements // (WARPS * 32)
    kinds = [broadcast_kind(node.type.shape, shape) for node in loaded(region)]
    vectors, others = kinds.count("channel"), len(kinds) - kinds.count("channel") - kinds.count("scalar")
    return THREAD * vectors + each * (others + 1)


def _takes(region: Region, schedule: Schedule) -> Refusal:
    return _ends_within_a_row(region, schedule.block_n)


def _lines(region: Region, schedule: Schedule) -> float:
    """Lines that an element costs."""
    result = region.nodes[-1].type
    rows = rows_of(result, schedule.block_n)
    # Of rows that an image does not end with, the last element is looked for one by one.
    whole = THREAD if rows.count else gcd(result.elements(), THREAD)
    a_tile = WARP * schedule.warps / (schedule.block_m * schedule.block_n)
    # A warp's part of a narrow tile lies in more lines than its bytes would fill.
    apart = 0.0 if rows.pitch == schedule.block_n else 1 / schedule.block_n
    found = sum(max(apart, lines(whole, WARP, node.type.torch_dtype.itemsize)) for node in region.outputs)
    for node in loaded(region):
        size = node.type.torch_dtype.itemsize
        side_by_side = gcd(rows.channels, THREAD)
        match broadcast_kind(node.type.shape, result.shape):
            case "full":
                found += max(apart, lines(whole, WARP, size))
            case "channel":
                found += a_tile * lines(side_by_side, min(rows.channels, schedule.block_n), size)
            case "pixel" if rows.pixels == 1:
                found += lines(THREAD, WARP // schedule.block_n, size)
            case "pixel":
                found += lines(1, max(1, WARP // rows.channels), size)
            case "image" | "repeated":
                found += lines(side_by_side, WARP, size)
    return found


def _seconds(region: Region, schedule: Schedule, model: CostModel) -> float:
    return seconds(region, _lines(region, schedule), model)


CHANNEL_TILES = (
    Form(
        "channel tiles",
        Kind.POINTWISE,
        _accepts,
        _schedules,
        _takes,
        row_by_row=True,
        reads_rows=range(0),
        cost=_seconds,
    ),
)
