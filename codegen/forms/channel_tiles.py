"""Pointwise regions as tiles of rows and channels: what belongs to a channel is loaded once a tile.

A value (..., C) is a matrix here whose rows hold one pixel, or several where channels are few.
"""

from __future__ import annotations

from math import prod

from ...graph.ir import Node
from ...planning.forms.channel_tiles import Rows, rows_of
from ...planning.geometry import broadcast_kind
from ...planning.regions import Region
from ...planning.schedules import Schedule
from ..text.formulas import compose
from ..text.indices import times
from ..text.jit_function import JitFunction
from ..text.names import Names
from ..text.source import KernelFile, image_size
from ..text.titles import title
from ..text.writer import Writer
from .tile import Tile

NOTE, ROW_NOTE, COLUMN_NOTE = "[BLOCK_R, BLOCK_C]", "[BLOCK_R, 1]", "[1, BLOCK_C]"


class ChannelTile(Tile):
    """BLOCK_R rows of BLOCK_C columns; a column belongs to the same channel in every row."""

    def __init__(self, names: Names, shape: tuple[int | str, ...], rows: Rows, columns: int) -> None:
        super().__init__(
            names, shape, row_ok="row_ok" if rows.count else "inside",
            column_ok="column_ok" if rows.pitch % columns else "",
            note=NOTE, row_note=ROW_NOTE, column_note=COLUMN_NOTE,
        )  # fmt: skip
        self.rows, self.columns = rows, columns
        self.batched = bool(shape) and shape[0] == "N"
        self._channel = ""

    def start(self, writer: Writer) -> None:
        """Which rows and columns these are, where they lie, and which of them exist."""
        rows, tiles = self.rows, self.rows.tiles(self.columns)
        block = "tl.program_id(0)"
        if tiles > 1:
            writer.line("block = tl.program_id(0)", "tiles of a row follow one another")
            writer.line(f"column = block % {tiles} * BLOCK_C + tl.arange(0, BLOCK_C)[None, :]", COLUMN_NOTE)
            block = f"block // {tiles}"
        else:
            writer.line("column = tl.arange(0, BLOCK_C)[None, :]", COLUMN_NOTE)
        writer.line(f"row = {block} * BLOCK_R + tl.arange(0, BLOCK_R)[:, None]", ROW_NOTE)
        writer.line("at = row.to(tl.int64) * PITCH + column", NOTE)
        if rows.count:
            number = ("batch" if rows.count == 1 else f"batch * {rows.count}") if self.batched else rows.count
            writer.line(f"row_ok = row < {number}", ROW_NOTE)
        else:
            writer.line(f"inside = at < {'batch.to(tl.int64) * ' if self.batched else ''}IMAGE", NOTE)
        if self.column_ok:
            writer.line("column_ok = column < PITCH", COLUMN_NOTE)

    def offset_in_a_run(self, writer: Writer) -> str:
        return "at"

    def offset_in_rows(self, writer: Writer, pitch: int) -> str:
        if self.rows.pixels == 1:
            return f"(row.to(tl.int64) * {pitch} + column)"
        return f"({self._pixel()} * {pitch} + column % {self.channels})"

    def _pixel(self) -> str:
        """Text of the number of each element's pixel."""
        if self.rows.pixels == 1:
            return "row"
        return f"(row.to(tl.int64) * {self.rows.pixels} + column // {self.channels})"

    def channel(self, writer: Writer) -> str:
        """Name of the columns' channels, written the first time."""
        if self.rows.pixels == 1:
            return "column"
        if not self._channel:
            self._channel = "channel"
            writer.line(f"channel = column % {self.channels}", COLUMN_NOTE)
        return self._channel

    def address(self, writer: Writer, node: Node) -> tuple[str, str, str]:
        match broadcast_kind(node.type.shape, self.shape):
            case "full":
                return self.offset(writer, node), self.ok, NOTE
            case "channel":
                return self.channel(writer), self.column_ok, COLUMN_NOTE
            case "image":
                image = f"(row // {self.rows.count})" if self.rows.count > 1 else "row"
                return f"{image}.to(tl.int64) * {self.channels} + {self.channel(writer)}", self.ok, NOTE
            case "pixel" if self.rows.pixels == 1:
                return "row", self.row_ok, ROW_NOTE
            case "pixel":
                return self._pixel(), self.ok, NOTE
            case "repeated":
                rows = prod(int(d) for d in node.type.shape[:-1]) // self.rows.pixels
                return f"row % {rows} * PITCH + column", self.ok, NOTE
        return super().address(writer, node)


def emit_channel_tiles(region: Region, schedule: Schedule) -> KernelFile:
    """A region of pointwise members alone."""
    names = Names(region)
    last = region.nodes[-1]
    rows = rows_of(last.type, schedule.block_n)
    tile = ChannelTile(names, last.type.shape, rows, schedule.block_n)
    constants: dict[str, tuple[object, str]] = {
        "PITCH": (rows.pitch, "elements of a row" + _pixels(rows)),
        "BLOCK_R": (schedule.block_m, "rows of a tile"),
        "BLOCK_C": (schedule.block_n, "columns of a tile"),
    }
    if not rows.count:
        constants["IMAGE"] = (image_size(last), "elements of one image" if tile.batched else "elements")
    operands = [*region.inputs, *region.outputs]
    jit = JitFunction(
        f"{region.name}_kernel",
        [(names.pointer(n), n.type.dtype) for n in operands],
        ["batch"] if tile.batched else [],
        {name: value for name, (value, _) in constants.items()},
        doc="Each program computes a tile of BLOCK_R rows and BLOCK_C columns.",
        warps=schedule.warps,
        stages=schedule.stages,
    )
    tile.start(jit.body)
    tile.emit(jit.body, region.nodes)
    return KernelFile(
        region,
        names,
        summary=f"{title(region)}, in tiles of rows and channels.",
        formula=compose(names, region.nodes, {}),
        plan=[
            f"each program computes a tile of {schedule.block_m} rows and {schedule.block_n} columns with "
            f"{schedule.many_warps};",
            "what belongs to a channel is loaded once a tile, all else once an element, so memory's",
            "bandwidth is the limit.",
        ],
        constants=constants,
        functions=[jit],
        launch=_launch(tile, jit, names, operands),
        schedule=schedule,
    )


def _pixels(rows: Rows) -> str:
    return f": {rows.pixels} pixels" if rows.pixels > 1 else ": the channels of a pixel"


def _launch(tile: ChannelTile, jit: JitFunction, names: Names, operands: list[Node]) -> Writer:
    launch, rows = Writer(), tile.rows
    if tile.batched:
        launch.line(f"batch = {names.role[operands[-1].name]}.shape[0]")
    if rows.count:
        number = (f"batch{times(rows.count)}") if tile.batched else str(rows.count)
        blocks = f"triton.cdiv({number}, BLOCK_R)"
    else:
        blocks = f"triton.cdiv({'batch * ' if tile.batched else ''}IMAGE, PITCH * BLOCK_R)"
    tiles = times(rows.tiles(tile.columns))
    launch.line(jit.call(f"({blocks}{tiles},)", [names.role[n.name] for n in operands]))
    return launch
