"""Sums of a product that are cut into parts: what each program writes, and the kernel that adds the parts up.

On a small map a product has few tiles with long sums, which leaves most of a card idle. Several programs then
share each tile: every one adds up some of the steps and writes its sums as they are, in float32. A second
kernel adds these parts in order, so that the same bits come out on every run, and does what follows the
product.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...planning.geometry import ceil_div, power_of_two
from ...planning.products import Product
from ...planning.schedules import Schedule
from ..text.source import JitFunction
from ..text.writer import Uses, Writer
from .tile import masked

ELEMENTS, WIDEST = 512, 64
"""Of a tile of the second kernel: so few, that it has programs for all processors on a small map too."""

WRITTEN_OUT = 16
"""Parts up to which the compiler writes the loop over them out, so that all loads are under way at once."""

ADD_PARTS = "add_parts"


@dataclass(frozen=True)
class SplitSums:
    """How the parts of one product lie: [split, row, channel].

    rows: text of the number of their rows, a number that both kernels take at run time. row: of the
    rows of a program's tile. channels: the constant that is the length of a row.
    """

    work: Product
    schedule: Schedule
    rows: str
    row: str
    channels: str
    width: int

    # -- the first kernel ------------------------------------------------------------------------------------
    def store(self, w: Writer, col_ok: str) -> None:
        """Write the sums of this program's share."""
        c = w.uses
        w.note("The sums of this part of the steps, as they are")
        row = f"(split.to(tl.int64) * {self.rows} + {self.row}[:, None])"
        w.line(f"at = {row} * {c[self.channels]} + col[None, :]")
        ok = "row_ok[:, None]" + (f" & {col_ok}[None, :]" if col_ok else "")
        w.line(f"tl.store(parts_ptr + at, acc{masked(ok, None)})")

    # -- the second kernel -----------------------------------------------------------------------------------
    @property
    def tile(self) -> tuple[int, int]:
        """Its rows and columns: whole windows, and whole rows where a softmax needs them."""
        whole = power_of_two(self.width)
        columns = whole if self.work.whole_row else min(whole, WIDEST)
        return max(self.work.window, ELEMENTS // columns, 1), columns

    def constants(self) -> dict[str, tuple[object, str]]:
        """Constants of both kernels and of the launch."""
        rows, columns = self.tile
        return {
            "SPLITS": (self.schedule.splits, "parts of each sum"),
            "FINISH_M": (rows, "rows of a tile of the second kernel"),
            "FINISH_N": (columns, "its columns"),
        }

    def columns(self, w: Writer) -> str:
        """col: the channels of its tile. Returns the name of their mask, "" where all exist."""
        _, columns = self.tile
        lanes = "tl.arange(0, BLOCK_N)"
        many = self.width > columns
        w.line(f"col = {'tl.program_id(1) * BLOCK_N + ' if many else ''}{lanes}", "[BLOCK_N] channel")
        if self.width % columns == 0:
            return ""
        w.line(f"col_ok = col < {w.uses[self.channels]}", "[BLOCK_N]")
        return "col_ok"

    def add(self, w: Writer, row: str, col_ok: str) -> None:
        """acc: the sums of all parts."""
        c = w.uses
        ok = "row_ok[:, None]" + (f" & {col_ok}[None, :]" if col_ok else "")
        w.note("Add the parts in order")
        w.line("acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)")
        w.line(f"at = {row}[:, None].to(tl.int64) * {c[self.channels]} + col[None, :]", "[BLOCK_M, BLOCK_N]")
        loop = "tl.static_range" if self.schedule.splits <= WRITTEN_OUT else "range"
        with w.block(f"for split in {loop}({c.SPLITS}):"):
            w.line(f"acc += tl.load(parts_ptr + at{masked(ok)})")
            w.line(f"at += tl.cast({self.rows}, tl.int64) * {c[self.channels]}")

    def function(
        self,
        body: Writer,
        pointers: list[tuple[str, str]],
        constants: Callable[[Uses], dict[str, object]],
        numbers: list[str],
    ) -> JitFunction:
        rows, columns = self.tile
        body.uses.note("BLOCK_M", "BLOCK_N")
        values = {**constants(body.uses), "BLOCK_M": rows, "BLOCK_N": columns}
        doc = "Add the parts of each sum, and do what follows the product."
        return JitFunction(
            ADD_PARTS, [("parts_ptr", "float32"), *pointers], [self.rows, *numbers], values, body, doc,
            warps=4 if rows * columns > ELEMENTS else 2, given={"BLOCK_M": "FINISH_M", "BLOCK_N": "FINISH_N"},
        )  # fmt: skip

    def grid(self, c: Uses) -> str:
        """Its programs."""
        _, columns = self.tile
        many = f", {ceil_div(self.width, columns)}" if self.width > columns else ","
        return f"(triton.cdiv({self.rows}, {c.FINISH_M}){many})"

    def plan(self) -> str:
        return (
            f"Each sum is cut into {self.schedule.splits} parts, which programs of their own compute; a "
            f"second kernel adds them in order, the same bits on every run, and does what follows."
        )
