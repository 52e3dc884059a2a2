"""Gradients of convolution and matrix product with respect to their input, with epilogue, as one kernel."""

from __future__ import annotations

from math import prod
from typing import Any, ClassVar

from ...graph.ops import Conv2DDataGrad, Conv2DTranspose
from ...planning.geometry import Axis, PhasedAxis, phased_axes, transposed_axes
from ...planning.products import UNPOOLS
from ...planning.regions import Region
from ...planning.schedules import Schedule
from ..text.indices import index, plus, times
from ..text.source import KernelFile
from ..text.writer import Uses, Writer
from .contraction import IDENTITY, Constants, Contraction, spatial
from .gather import (
    Gather,
    emit_columns,
    emit_loop,
    emit_source,
    emit_tap_loop,
    emit_tile_order,
    emit_weight,
    start_text,
)


def emit_data_grad(region: Region, schedule: Schedule, precision: str) -> KernelFile:
    """The kernel of a region whose anchor is a Conv2DDataGrad (or Conv2DTranspose) or a DenseDataGrad.

    With stride 1 this is a convolution of dy with the kernel's taps in reverse order. With a stride, rows are
    sorted by phase (h % stride, w % stride): each phase meets its own taps, and nothing multiplies a zero.
    """
    return _DataGrad(region, schedule, precision).file()


class _DataGrad(Contraction):
    """dx = epilogue of dy gathered, times w transposed."""

    channels: ClassVar[str] = "C"

    def __init__(self, region: Region, schedule: Schedule, precision: str) -> None:
        super().__init__(region, schedule, precision)
        self.is_map = isinstance(self.anchor.op, Conv2DDataGrad)
        self.made, self.read = ("y", "x") if isinstance(self.anchor.op, Conv2DTranspose) else ("dx", "dy")
        self.strides: tuple[int, int] = self.op.strides if self.is_map else (1, 1)
        self.axes: tuple[Axis, Axis] = self._axes()
        if self.phased:
            self.pixel, self.all_rows = "pixel", "pixels"
        self.constants = {**self._shape_constants(), **self.tile_constants()}

    @property
    def phased(self) -> bool:
        return prod(self.strides) > 1

    def _axes(self) -> tuple[Axis, Axis]:
        if not self.is_map:
            return IDENTITY, IDENTITY
        sizes = spatial(self.source), spatial(self.weight, 0), spatial(self.anchor)
        if not self.phased:
            return transposed_axes(self.op, *sizes)
        return phased_axes(self.op, *sizes)

    def _shape_constants(self) -> Constants:
        constants: Constants = {}
        if self.is_map:
            (h, w), (p, q), (r, s) = spatial(self.anchor), spatial(self.source), spatial(self.weight, 0)
            constants |= {"H": (h, f"height of {self.made}"), "W": (w, f"width of {self.made}")}
            constants |= {"P": (p, f"height of {self.read}"), "Q": (q, f"width of {self.read}")}
            constants |= {"R": (r, "kernel height"), "S": (s, "kernel width")}
        constants |= {
            "C": (self.anchor.type.channels, f"channels of {self.made}"),
            "K": (self.source.type.channels, f"of {self.read}"),
        }
        if self.work.groups > 1:
            constants |= {"GROUPS": (self.work.groups, "groups of channels")}
            constants |= {"CG": (self.work.columns, f"channels of {self.made} of a group")}
            constants |= {"KG": (self.work.channels, f"channels of {self.read} of a group")}
        if self.phased:
            rows, columns = self.axes
            constants |= {"PHASES": (prod(self.strides), "of pixels (h % stride, w % stride)")}
            constants |= {
                "PHASE_H": (rows.rows, "rows of one phase"),
                "PHASE_W": (columns.rows, "columns of one phase"),
            }
        for node in self.region.epilogue:
            if isinstance(node.op, UNPOOLS):
                constants["WINDOW"] = (prod(node.op.size), "pixels of a pooling window")
        return constants

    def file(self) -> KernelFile:
        functions, c = self.functions(self._body()), self.at_launch
        grid = [*self.grid(), *([c.PHASES] if self.phased else [])]
        return self.frame(functions, self.launch(functions, self._rows_text(), grid), self._formula())

    def _rows_text(self) -> str:
        c = self.at_launch
        if not self.is_map:
            return f"{self.names.role[self.source.name]}.numel() // {c.K}"
        return f"batch * {c.PHASE_H} * {c.PHASE_W}" if self.phased else f"batch * {c.H} * {c.W}"

    def pixels_text(self, c: Uses) -> str:
        return f"batch * {c.H} * {c.W}"

    # -- the kernel ------------------------------------------------------------------------------------------
    def _body(self) -> Writer:
        w = Writer()
        grouped = self.work.groups > 1
        emit_tile_order(w, self.work, self.schedule)
        if self.phased:
            w.line(f"phase = tl.program_id({2 if grouped else 1})", "h % stride and w % stride of its pixels")
        self.emit_split(w, 1 + grouped + self.phased)
        w.line()
        self._rows(w)
        col_ok = emit_columns(w, self.work, self.schedule, self.run, f"channel of {self.made}")
        w.line()
        gather = Gather(
            work=self.work,
            axes=self.axes,
            source=self.names.role[self.source.name],
            extent=("P", "Q"),
            channels=self.row("K"),
            run="KG" if grouped else "K",
            lane="k",
            first=self._first_image,
            transposed=True,
            dot_options=self.dot_options(),
            upcast=self.upcast,
        )
        w.note(f"The sum over taps and channels of {self.read}")
        if self.phased:
            self._phases(w, gather, col_ok)
        else:
            emit_loop(w, gather, self.schedule, col_ok)
        w.line()
        self.end(w, col_ok)
        return w

    def _first_image(self, c: Uses) -> str:
        return "tile_m * BLOCK_M // " + (
            f"({c.PHASE_H} * {c.PHASE_W})" if self.phased else f"({c.H} * {c.W})"
        )

    def _rows(self, w: Writer) -> None:
        c = w.uses
        made = f"pixel of {self.made}" if self.is_map else "row of the matrix"
        note = "pixel of a phase" if self.phased else made
        w.line("row = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)", f"[BLOCK_M] {note}")
        w.line("row_ok = row < rows")
        if self.phased:
            self._phase_rows(w)
        elif not all(axis.is_identity for axis in self.axes):
            w.line(f"image = row // ({c.H} * {c.W})")
            under = f"row of {self.read} under tap 0, may lie outside"
            w.line(f"top = {index(self.axes[0], f'row // {c.W} % {c.H}')}", under)
            w.line(f"left = {index(self.axes[1], f'row % {c.W}')}", f"column of {self.read}")

    def _phase_rows(self, w: Writer) -> None:
        c = w.uses
        (down, across), (height, width) = self.strides, spatial(self.anchor)
        w.line(f"image = row // ({c.PHASE_H} * {c.PHASE_W})")
        high = f" + phase // {across}" if across > 1 else " + phase"
        w.line(
            f"h = row // {c.PHASE_W} % {c.PHASE_H}{times(down)}{high if down > 1 else ''}",
            f"pixel of {self.made}",
        )
        wide = (" + phase" + (f" % {across}" if down > 1 else "")) if across > 1 else ""
        w.line(f"v = row % {c.PHASE_W}{times(across)}{wide}")
        outside = [f"({name} < {c[extent]})" for name, extent, size, stride in
                   (("h", "H", height, down), ("v", "W", width, across)) if size % stride]  # fmt: skip
        if outside:
            w.line(f"row_ok = {' & '.join(['row_ok', *outside])}")
        w.line(f"pixel = (image * {c.H} + h) * {c.W} + v")

    def _phases(self, w: Writer, gather: Gather, col_ok: str) -> None:
        """One loop for each phase; the program runs that of its own."""
        c = w.uses
        across = self.strides[1]
        w.line("acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)")
        emit_source(w, gather)
        w.line("k = tl.arange(0, BLOCK_K)", "[BLOCK_K] channels of one step")
        emit_weight(w, gather)
        with (
            w.block(
                f"for candidate in tl.static_range({c.PHASES}):", "compiled for each phase, whose taps differ"
            ),
            w.block("if phase == candidate:"),
        ):
            self._phase_axis(
                w, self.axes[0], "r", "R", f"candidate // {across}" if across > 1 else "candidate", "h", "top"
            )
            self._phase_axis(
                w, self.axes[1], "s", "S", f"candidate % {across}" if across > 1 else "0", "v", "left"
            )
            w.line(f"start = {start_text(gather, c)}", "[BLOCK_M]")
            tap_r, tap_s = (name if -axis.step == 1 else text for name, text, axis in zip(
                ("r", "s"), ("tap // taps_s", "tap % taps_s"), self.axes, strict=True))  # fmt: skip
            tap = f"(r0 + {tap_r}{times(self.strides[0])}) * {c.S} + s0 + {tap_s}{times(self.strides[1])}"
            emit_tap_loop(w, gather, self.schedule, col_ok, ("taps_r", "taps_s"), tap)

    def _phase_axis(
        self, w: Writer, axis: Any, tap: str, count: str, phase: str, position: str, origin: str
    ) -> None:
        """First tap and number of taps of a phase along one axis, and the position of dy under the first."""
        c = w.uses
        phased: PhasedAxis = axis
        stride, step = phased.phases, -phased.step
        if stride == 1:
            w.lines(f"{tap}0 = 0", f"taps_{tap} = {c[count]}", f"{origin} = {position}{plus(phased.padding)}")
            return
        shifted = (
            f"({phase}{plus(phased.padding)})" if phased.padding or "/" in phase or "%" in phase else phase
        )
        w.line(
            f"{tap}0 = {shifted}{times(phased.inverse)} % {stride}", f"taps {tap}0, {tap}0 + {stride}, ..."
        )
        w.line(f"taps_{tap} = ({c[count]} - {tap}0 + {stride - 1}) // {stride}")
        w.line(f"{origin} = ({position}{plus(phased.padding)} - {tap}0{times(step)}) // {stride}")

    def _formula(self) -> list[str]:
        if not self.is_map:
            return self.equations("sum over k of dy[n,k] * w[c,k]", "[n,c]")
        (top, _), (left, _) = self.op.padding
        down, across = self.op.dilation
        p, q = f"h{plus(top)} - r{times(down)}", f"v{plus(left)} - s{times(across)}"
        p = f"({p}) / {self.strides[0]}" if self.strides[0] > 1 else p
        q = f"({q}) / {self.strides[1]}" if self.strides[1] > 1 else q
        lines = self.equations(f"sum over r,s,k of {self.read}[n, {p}, {q}, k] * w[r,s,c,k]", "[n,h,v,c]")
        return [*lines, "over those r and s that leave no rest in the divisions"] if self.phased else lines
