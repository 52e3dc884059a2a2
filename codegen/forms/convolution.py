"""Forward convolution and matrix product, with prologue, epilogue and fused pooling, as one kernel."""

from __future__ import annotations

from typing import Any

from ...graph.ops import Conv2D
from ...graph.windows import Pair
from ...planning.geometry import Axis, forward_axes
from ...planning.products import UNPOOLS, pools
from ...planning.regions import Region
from ...planning.schedules import Schedule
from ..text.indices import checks, index, plus, times
from ..text.source import KernelFile
from ..text.writer import Uses, Writer
from .contraction import IDENTITY, Constants, Contraction, spatial
from .gather import Gather, emit_columns, emit_loop, emit_tile_order


def emit_forward(region: Region, schedule: Schedule, precision: str) -> KernelFile:
    """The kernel of a region whose anchor is a Conv2D or a Dense."""
    return Forward(region, schedule, precision).file()


class Forward(Contraction):
    """y = epilogue of x gathered, times w."""

    def __init__(self, region: Region, schedule: Schedule, precision: str) -> None:
        super().__init__(region, schedule, precision)
        self.pool: Any = next(iter(pools(region)), None)  # with windows of one pixel too, which may lie apart
        self.pixel = "row" if self.pool is None else "pixel"
        # A matrix product over the channels of a map is a convolution by one pixel where the map is pooled.
        self.is_map = isinstance(self.anchor.op, Conv2D) or self.pool is not None
        self.axes = self.gathered()
        self.constants = {**self._shape_constants(), **self.tile_constants()}

    def gathered(self) -> tuple[Axis, Axis]:
        """How rows of the product lie on the map that the loop reads."""
        return self._axes()

    def _axes(self) -> tuple[Axis, Axis]:
        if not self.is_map:
            return IDENTITY, IDENTITY
        op = self.op if isinstance(self.op, Conv2D) else Conv2D()
        return forward_axes(op, spatial(self.source), self._kernel_size(), spatial(self.anchor))

    def _kernel_size(self) -> Pair:
        return spatial(self.weight, 0) if isinstance(self.op, Conv2D) else (1, 1)

    def _shape_constants(self) -> Constants:
        k = self.anchor.type.channels
        constants: Constants = {}
        if self.is_map:
            (h, w), (p, q), (r, s) = spatial(self.source), spatial(self.anchor), self._kernel_size()
            constants |= {"H": (h, "input height"), "W": (w, "input width")}
            constants |= {"P": (p, "output height"), "Q": (q, "output width")}
            constants |= {"R": (r, "kernel height"), "S": (s, "kernel width")}
        constants |= {"C": (self.source.type.channels, "input channels"), "K": (k, "output channels")}
        if self.work.groups > 1:
            constants |= {"GROUPS": (self.work.groups, "groups of channels")}
            constants |= {"CG": (self.work.channels, "input channels of a group")}
            constants |= {"KG": (self.work.columns, "output channels of a group")}
        if self.pool is not None:
            p2, q2 = spatial(self.pool)
            constants |= {"POOLED_H": (p2, "pooled height"), "POOLED_W": (q2, "pooled width")}
        window = self.work.window
        for node in self.region.epilogue:
            if isinstance(node.op, UNPOOLS):
                window = node.op.size[0] * node.op.size[1]
        constants["WINDOW"] = (window, "pixels of a pooling window")
        return constants

    def file(self) -> KernelFile:
        functions = self.functions(self._body(), self._ragged())
        return self.frame(functions, self.launch(functions, self._rows_text(), self.grid()), self._formula())

    def _rows_text(self) -> str:
        c = self.at_launch
        if self.pool is not None:
            return f"batch * {c.POOLED_H} * {c.POOLED_W} * {c.WINDOW}"
        if self.is_map:
            return f"batch * {c.P} * {c.Q}"
        return f"{self.names.role[self.source_operand.name]}.numel() // {c.C}"

    @property
    def part_row(self) -> str:
        return "row"  # a pixel may lie in several windows

    # -- the kernel ------------------------------------------------------------------------------------------
    def _body(self) -> Writer:
        w = Writer()
        emit_tile_order(w, self.work, self.schedule)
        self.emit_split(w, 2 if self.work.groups > 1 else 1)
        w.line()
        self._rows(w)
        col_ok = emit_columns(w, self.work, self.schedule, self.run, "output channel")
        w.line()
        self.loop(w, col_ok)
        w.line()
        self.end(w, col_ok, self._ragged())
        return w

    def loop(self, w: Writer, col_ok: str) -> None:
        """Lines that compute acc; row, row_ok, col and where the rows lie on the map stand before them."""
        w.note("The sum over taps and channels")
        gather = Gather(
            work=self.work,
            axes=self.axes,
            source=self.names.role[self.source_operand.name],
            extent=("H", "W"),
            channels=self.row("C"),
            run="CG" if self.work.groups > 1 else "C",
            lane="c",
            first=self.first_image,
            rows_are_pixels=self.pool is None,
            dot_options=self.dot_options(),
            upcast=self.upcast,
            prologue=self.prologue if self.region.prologue else None,
        )
        emit_loop(w, gather, self.schedule, col_ok)

    def finish_rows(self, w: Writer) -> None:
        if self.pool is None:
            super().finish_rows(w)
            return
        w.line("row = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)", f"[BLOCK_M] {self._row_note()}")
        w.line("row_ok = row < rows")
        self._window_pixels(w)

    def first_image(self, c: Uses) -> str:
        if self.pool is None:
            return f"tile_m * BLOCK_M // ({c.P} * {c.Q})"
        return f"tile_m * BLOCK_M // ({c.POOLED_H} * {c.POOLED_W} * {c.WINDOW})"

    def _ragged(self) -> bool:
        """Whether some window of the fused pooling reaches beyond the map."""
        return self.pool is not None and any(
            axis.reaches_below or axis.reaches_above for axis in self._pool_axes()
        )

    def _pool_axes(self) -> tuple[Axis, Axis]:
        """The pooling as a gather: rows are pooled pixels, taps the positions of a window."""
        op, size, pooled = self.pool.op, spatial(self.anchor), spatial(self.pool)
        first, second = (
            Axis(pooled[i], size[i], op.size[i], op.strides[i], 1, -op.padding[i][0]) for i in range(2)
        )
        return first, second

    def _rows(self, w: Writer) -> None:
        c = w.uses
        w.line("row = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)", "[BLOCK_M] " + self._row_note())
        w.line("row_ok = row < rows")
        if self.pool is not None:
            self._window_rows(w)
        elif not all(axis.is_identity for axis in self.axes):
            w.line(f"image = row // ({c.P} * {c.Q})")
            self._origin(w, f"row // {c.Q} % {c.P}", f"row % {c.Q}")

    def _row_note(self) -> str:
        if self.pool is not None:
            return "(pooled pixel, position in its window)"
        return "output pixel" if self.is_map else "row of the matrix"

    def _origin(self, w: Writer, p: str, q: str) -> None:
        """top, left: the input position under tap (0, 0) of each row."""
        padding = any(axis.shift for axis in self.axes)
        w.line(
            f"top = {index(self.axes[0], p)}",
            "first input row under the kernel" + (", may be < 0" if padding else ""),
        )
        w.line(f"left = {index(self.axes[1], q)}", "first input column")

    def _window_rows(self, w: Writer) -> None:
        self._window_pixels(w)
        self._origin(w, "p", "q")

    def _window_pixels(self, w: Writer) -> None:
        """Rows ordered by window: p, q is the pixel of the convolution's map a row stands for."""
        c = w.uses
        op, (_, width) = self.pool.op, self.pool.op.size
        w.line(f"image = row // ({c.POOLED_H} * {c.POOLED_W} * {c.WINDOW})")
        rows, columns = self._pool_axes()
        in_row = f"row % {c.WINDOW} // {width}" if width > 1 else f"row % {c.WINDOW}"
        at = f"row // ({c.WINDOW} * {c.POOLED_W}) % {c.POOLED_H}"
        p = f"{at}{times(op.strides[0])} + {in_row}{plus(rows.shift)}"
        q = (
            f"row // {c.WINDOW} % {c.POOLED_W}{times(op.strides[1])}"
            + (f" + row % {width}" if width > 1 else "")
            + plus(columns.shift)
        )
        w.line(f"p = {p}", "row of the map before pooling")
        w.line(f"q = {q}", "column")
        tests = [*checks(rows, "p", c, "P"), *checks(columns, "q", c, "Q")]
        if tests:
            w.line(f"row_ok = {' & '.join(['row_ok', *tests])}", "a window may reach over the map's border")
        w.line(f"pixel = (image * {c.P} + p) * {c.Q} + q")

    def _formula(self) -> list[str]:
        if not isinstance(self.op, Conv2D):
            place, made = ("n,p,q,c", "[n,p,q,k]") if self.is_map else ("n,c", "[n,k]")
            return self.equations(f"sum over c of x[{place}] * w[c,k]", made)
        down, across = self._axes()
        rows, columns = (f"{v}{times(a.stride)} + {t}{times(a.step)}{plus(a.shift)}" for v, t, a in
                         (("p", "r", down), ("q", "s", across)))  # fmt: skip
        where = "of the group of k " if self.work.groups > 1 else ""
        product_text = f"sum over r,s,c {where}of x[n, {rows}, {columns}, c] * w[r,s,c,k]"
        return self.equations(product_text, "[n,p,q,k]")
