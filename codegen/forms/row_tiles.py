"""Kernels that need whole rows: softmax and its losses. A tile holds BLOCK_R rows of all C columns."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from ...graph.ir import Node
from ...planning.schedules import Schedule
from ..text.jit_function import JitFunction
from ..text.names import Names
from ..text.writer import Writer
from .tile import Tile


@dataclass
class RowTile:
    """Rows of a value (..., C)."""

    names: Names
    node: Node
    schedule: Schedule

    @property
    def rows_per_image(self) -> int:
        return prod(self.node.type.size(1)[:-1])

    @property
    def rows(self) -> str:
        """Text of the number of rows."""
        return f"batch * {self.rows_per_image}" if self.rows_per_image > 1 else "batch"

    @property
    def column_ok(self) -> str:
        return "column_ok" if self.node.type.channels < self.schedule.block_n else ""

    def constants(self) -> dict[str, tuple[object, str]]:
        return {
            "BLOCK_R": (self.schedule.block_m, "rows of a tile"),
            "BLOCK_C": (self.schedule.block_n, f"columns of a tile, at least {self.node.type.channels}"),
        }

    def function(self, name: str, doc: str, tensors: list[tuple[str, str]]) -> JitFunction:
        jit = JitFunction(
            name,
            tensors,
            ["batch"],
            {"BLOCK_R": self.schedule.block_m, "BLOCK_C": self.schedule.block_n},
            doc=doc,
            warps=self.schedule.warps,
        )
        self.rows_from(jit.body, "tl.program_id(0)")
        self.columns(jit.body)
        return jit

    def rows_from(self, w: Writer, block: str) -> None:
        """Which rows a tile holds. block: text of its number."""
        w.line(f"pixel = {block} * BLOCK_R + tl.arange(0, BLOCK_R)[:, None]", "row: [BLOCK_R, 1]")
        w.line(f"row_ok = pixel < {self.rows}", "[BLOCK_R, 1]")

    def columns(self, w: Writer) -> None:
        w.line("column = tl.arange(0, BLOCK_C)[None, :]", "[1, BLOCK_C]")
        if self.column_ok:
            w.line(f"column_ok = column < {self.node.type.channels}", "[1, BLOCK_C]")

    def tile(self, values: dict[str, str] | None = None) -> Tile:
        return Tile(
            self.names, self.node.type.shape, column_ok=self.column_ok, note="[BLOCK_R, BLOCK_C]",
            row_note="[BLOCK_R, 1]", column_note="[1, BLOCK_C]", values=values,
        )  # fmt: skip

    def softmax(self, body: Writer, x: str) -> str:
        """Lines for the softmax of the tile x; returns the name of the value."""
        largest, powers = self.names.fresh("largest"), self.names.fresh("powers")
        return softmax_of(body, x, powers, self.column_ok, "[BLOCK_R, BLOCK_C]", (largest, "[BLOCK_R, 1]"))

    def log_softmax(self, body: Writer, x: str) -> str:
        """Lines for the logarithm of the softmax of the tile x; returns the text of the value."""
        return self.both_softmax(body, x)[1]

    def both_softmax(self, body: Writer, x: str, stored: bool = False) -> tuple[str, str]:
        """Texts of the softmax of the tile x and of its logarithm. stored: whether both are asked for."""
        note, row = "[BLOCK_R, BLOCK_C]", "[BLOCK_R, 1]"
        largest, total = self.names.fresh("largest"), self.names.fresh("total")
        shifted = shifted_rows(body, x, self.column_ok, note, (largest, row))
        powers = f"tl.exp({shifted})"
        if stored:
            body.line(f"powers = {powers}", note)
            powers = "powers"
        body.line(f"{total} = tl.sum({powers}, axis=1)[:, None]", row)
        return f"{powers} / {total}", f"{shifted} - tl.log({total})"

    def sparsemax(self, body: Writer, x: str) -> str:
        """Lines for the sparsemax of the tile x; returns the text of the value.

        What lies at or below the threshold leaves the support, which moves the threshold up, until nothing
        leaves any more: exact, and without sorting (Michelot 1986). With the largest value at 0 the threshold
        is -1 at least, which the largest alone would give.
        """
        note, row, z = "[BLOCK_R, BLOCK_C]", "[BLOCK_R, 1]", self.names.fresh("shifted")
        body.line(f'lost = ({x} != {x}) | ({x} == float("inf"))', "no difference to these is a number")
        body.line("broken = tl.max(lost.to(tl.int32), axis=1)", "[BLOCK_R]")
        if self.column_ok:
            body.line(f'{x} = tl.where(column_ok, {x}, float("-inf"))', note)
        body.line(f'largest = tl.where(broken > 0, float("nan"), tl.max({x}, axis=1))', "[BLOCK_R]")
        body.line(f"{z} = {x} - largest[:, None]", note)
        body.line(f"kept = {z} > -1.0", "[BLOCK_R, BLOCK_C] the support lies among these")
        body.line("threshold = tl.full((BLOCK_R, 1), -1.0, tl.float32)", row)
        body.line("leaving = 1.0", "values that leave the support of any row")
        with body.block("while leaving > 0.0:"):
            body.line("count = tl.sum(kept.to(tl.float32), axis=1)[:, None]", row)
            body.line(f"total = tl.sum(tl.where(kept, {z}, 0.0), axis=1)[:, None]", row)
            body.line("threshold = (total - 1.0) / count", row)
            body.line(f"kept = kept & ({z} > threshold)", note)
            body.line("leaving = tl.max(count - tl.sum(kept.to(tl.float32), axis=1)[:, None])")
        return f"tl.where({z} <= threshold, 0.0, {z} - threshold)"

    def plan(self) -> list[str]:
        return [
            f"each program holds {self.schedule.block_m} whole rows of {self.node.type.channels} in its "
            f"registers, with {self.schedule.many_warps}; memory is read once and written once."
        ]


def shifted_rows(w: Writer, x: str, column_ok: str, note: str, largest: tuple[str, str] = ("", "")) -> str:
    """Text of the tile x less the largest value of each of its rows, which are whole.

    column_ok: mask of the columns that exist, "" for all. note: comment for values of the tile. largest: the
    name of the largest values and their comment, where they get a line of their own.
    """
    if column_ok:
        w.line(f'{x} = tl.where({column_ok}, {x}, float("-inf"))', note)
    text, (name, row_note) = f"tl.max({x}, axis=1)[:, None]", largest
    if name:
        w.line(f"{name} = {text}", row_note)
    return f"{x} - {name or text}"


def softmax_of(
    w: Writer, x: str, powers: str, column_ok: str, note: str, largest: tuple[str, str] = ("", "")
) -> str:
    """Text of the softmax of the tile x. powers: name for its exponentials; the rest as in `shifted_rows`."""
    w.line(f"{powers} = tl.exp({shifted_rows(w, x, column_ok, note, largest)})", note)
    return f"{powers} / tl.sum({powers}, axis=1)[:, None]"
