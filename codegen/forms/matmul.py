"""Products of two activations, each program a tile of one of them, with epilogue, as one kernel."""

from __future__ import annotations

from math import prod
from typing import ClassVar

from ...planning.geometry import ceil_div
from ...planning.regions import Region
from ...planning.schedules import Schedule
from ..text.source import KernelFile
from ..text.writer import Uses, Writer, number
from .contraction import Constants, Contraction
from .gather import emit_blocks, emit_columns
from .tile import masked


def emit_matmul(region: Region, schedule: Schedule, precision: str) -> KernelFile:
    """The kernel of a region whose anchor is a MatMul.

    Its programs are numbered product by product, so that those that run together read the same matrices.
    """
    return _MatMul(region, schedule, precision).file()


class _MatMul(Contraction):
    """y = epilogue of lhs times rhs, for each pair of matrices."""

    run_time: ClassVar[tuple[str, ...]] = ()
    channels: ClassVar[str] = "P"
    pixel, all_rows = "pixel", "pixels"

    def __init__(self, region: Region, schedule: Schedule, precision: str) -> None:
        super().__init__(region, schedule, precision)
        lead, rows, inner, columns = self.op.sizes(self.source.type, self.weight.type)
        self.constants = {
            "M": (rows, "rows of a product"),
            "K": (inner, "terms of its sums"),
            "P": (columns, "columns"),
            "MATRICES": (prod(lead), "products of an image"),
            "HEADS": (lead[-1] if lead else 1, "of them whose rows lie side by side"),
            "TILES_M": (ceil_div(rows, schedule.block_m), "row tiles of a product"),
            **self.tile_constants(),
        }

    @property
    def tiles(self) -> list[str]:
        """The names of the numbers of tiles, where there is more than one."""
        return [name for name in ("TILES_M", "TILES_N") if self.constants[name][0] != 1]

    def tile_constants(self) -> Constants:
        shared = super().tile_constants()
        left = ("BLOCKS", "GROUP_M")
        return {key: value for key, value in shared.items() if key not in left}

    def file(self) -> KernelFile:
        functions, c = self.functions(self._body()), self.at_launch
        many = [c.MATRICES] if self.work.matrices > 1 else []
        launch = self.launch(functions, None, [" * ".join(["batch", *many, *map(c.__getitem__, self.tiles)])])
        return self.frame(functions, launch, self._formula())

    def pixels_text(self, c: Uses) -> str:
        return f"batch * {c.MATRICES} * {c.M}"

    def scale(self, w: Writer) -> None:
        if self.op.factor != 1.0:
            w.line(f"acc *= {number(self.op.factor)}")

    # -- the kernel ------------------------------------------------------------------------------------------
    def _body(self) -> Writer:
        w = Writer()
        c = w.uses
        self._tile(w)
        self.emit_split(w, 1)
        w.line()
        row = "tile_m * BLOCK_M + " if "TILES_M" in self.tiles else ""
        w.line(f"row = {row}tl.arange(0, BLOCK_M)", "[BLOCK_M] row of the product")
        w.line(f"row_ok = row < {c.M}")
        w.line(f"pixel = {self._pixel(c)}", "[BLOCK_M] row among those of all products")
        col_ok = emit_columns(w, self.work, self.schedule, self.run, "column")
        w.line()
        self._loop(w, col_ok)
        w.line()
        self.end(w, col_ok)
        return w

    def _tile(self, w: Writer) -> None:
        """Which product and which tile of it this program computes."""
        c = w.uses
        if not self.tiles:
            w.line("matrix = tl.program_id(0)", "which product")
            return
        w.line("tile = tl.program_id(0)")
        w.line(f"matrix = tile // ({' * '.join(map(c.__getitem__, self.tiles))})", "which product")
        if len(self.tiles) == 2:
            w.line(f"tile_m = tile // {c.TILES_N} % {c.TILES_M}")
        elif "TILES_M" in self.tiles:
            w.line(f"tile_m = tile % {c.TILES_M}")
        if "TILES_N" in self.tiles:
            w.line(f"tile_n = tile % {c.TILES_N}")

    def _pixel(self, c: Uses) -> str:
        if self.op.split_y:
            return f"(matrix // {c.HEADS} * {c.M} + row) * {c.HEADS} + matrix % {c.HEADS}"
        return f"matrix * {c.M} + row"

    def _loop(self, w: Writer, col_ok: str) -> None:
        steps = ceil_div(self.work.inner, self.schedule.block_k)
        partial = self.work.inner % self.schedule.block_k != 0
        w.note("The sum over k; addresses within one matrix fit into 32 bits")
        w.line("acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)")
        w.line("k = tl.arange(0, BLOCK_K)", "[BLOCK_K]")
        lhs = self._operand(w, 0, self.op.transpose_a, self.op.split_a)
        rhs = self._operand(w, 1, self.op.transpose_b, self.op.split_b)
        if steps == 1:
            self._step(w, lhs, rhs, "", partial, col_ok)
            return
        blocks = emit_blocks(w, self.schedule, "K", steps)
        with w.block(f"for k0 in range({blocks}):"):
            self._step(w, lhs, rhs, "k0", partial, col_ok)

    def _operand(self, w: Writer, place: int, transposed: bool, split: bool) -> tuple[str, str]:
        """The pointers to a tile of one operand at the first step, and the stride of k, as text."""
        c = w.uses
        row, rows, column, columns = ("row", "M", "k", "K") if place == 0 else ("k", "K", "col", "P")
        role = self.names.role[self.anchor.inputs[place]]
        first, second = (c[columns], c[rows]) if transposed else (c[rows], c[columns])
        stride, base = second, f"matrix.to(tl.int64) * ({first} * {second})"
        if split:
            stride, image = f"({c.HEADS} * {second})", f"({first} * {c.HEADS} * {second})"
            base = f"(matrix // {c.HEADS}).to(tl.int64) * {image} + matrix % {c.HEADS} * {second}"
        tile = "a_tile" if place == 0 else "b_tile"
        w.line(f"{tile} = {role}_ptr + {base}")
        down, across = f"{row}[:, None]", f"{column}[None, :]"
        down, across = (down, f"{across} * {stride}") if transposed else (f"{down} * {stride}", across)
        shape = "[BLOCK_M, BLOCK_K]" if place == 0 else "[BLOCK_K, BLOCK_N]"
        w.line(f"{tile} += {down} + {across}", shape)
        major = (row == "k") != transposed
        return tile, f" * {stride}" if major else ""

    def _step(
        self, w: Writer, lhs: tuple[str, str], rhs: tuple[str, str], block: str, partial: bool, col_ok: str
    ) -> None:
        c = w.uses
        if partial:
            w.line(f"k_ok = {block + ' + ' if block else ''}k < {c.K}")
        for name, (pointer, stride), masks, shape in (
            ("a", lhs, ["row_ok[:, None]", *(["k_ok[None, :]"] if partial else [])], "[BLOCK_M, BLOCK_K]"),
            (
                "b",
                rhs,
                [*(["k_ok[:, None]"] if partial else []), *([f"{col_ok}[None, :]"] if col_ok else [])],
                "[BLOCK_K, BLOCK_N]",
            ),
        ):
            step = f" + {block}{stride}" if block else ""
            w.line(f"{name} = tl.load({pointer}{step}{masked(' & '.join(masks))})", shape)
        self.multiply(w)

    def _formula(self) -> list[str]:
        def index(rows: str, columns: str, transposed: bool, split: bool) -> str:
            first, second = (columns, rows) if transposed else (rows, columns)
            if not heads:
                return f"[i,{first},{second}]"
            return f"[i,{first},h,{second}]" if split else f"[i,h,{first},{second}]"

        op = self.op
        heads = op.split_a or op.split_b or op.split_y
        lhs, rhs = (self.names.role[name] for name in self.anchor.inputs)
        factor = "" if op.factor == 1.0 else f"{op.factor:g} * "
        product = (
            f"{factor}sum over k of {lhs}{index('m', 'k', op.transpose_a, op.split_a)} * "
            f"{rhs}{index('k', 'p', op.transpose_b, op.split_b)}"
        )
        where = "i standing for the axes before" + (", h for the heads" if heads else "")
        return [*self.equations(product, index("m", "p", False, op.split_y)), where]
