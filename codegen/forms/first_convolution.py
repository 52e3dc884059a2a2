"""Convolution of one to four channels: the map is laid out first, so that a row of taps is one run."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

from ...planning.forms.first import first_product, laid
from ...planning.geometry import Axis
from ...planning.products import product
from ...planning.regions import Region
from ...planning.schedules import Schedule
from ..text.jit_function import JitFunction
from ..text.source import KernelFile
from ..text.writer import Writer
from .contraction import Constants
from .convolution import Forward
from .gather import Gather, emit_multiply, emit_source, start_text
from .lay_out import LayOut
from .tile import masked


def emit_first(region: Region, schedule: Schedule, precision: str) -> KernelFile:
    """The kernels of a region whose anchor is a Conv2D of few channels: one lays its map out first."""
    return _First(region, schedule, precision).file()


class _First(Forward):
    """y = epilogue of rows of taps of the laid map, times w."""

    def __init__(self, region: Region, schedule: Schedule, precision: str) -> None:
        self.map = laid(region)
        super().__init__(region, schedule, precision)
        self.work = first_product(region)
        self.lay_out = LayOut(region, self.names, self.map, self.weight.type.dtype)
        self.constants |= {**self._run_constants(), **self.lay_out.constants()}

    def gathered(self) -> tuple[Axis, Axis]:
        return self.map.axes

    def _run_constants(self) -> Constants:
        return {
            "RUN": (self.map.run, "elements of a row of taps, (s, c), those beyond S * LANES being padding"),
            "ROWS": (self.schedule.block_k // self.map.run, "rows of taps that a step takes"),
        }

    def tensors(self) -> list[tuple[str, str]]:
        nodes = [*self.lay_out.others, *self.region.outputs]
        named = [(self.names.role[node.name], node.type.dtype) for node in nodes]
        return [("laid", self.lay_out.dtype), *named]

    def prepare(self, w: Writer) -> None:
        self.lay_out.call(w, self.layer, self.at_launch)

    @cached_property
    def layer(self) -> JitFunction:
        """The kernel that runs first."""
        return self.lay_out.function(self.constants)

    def frame(self, functions: list[JitFunction], launch: Writer, formula: list[str]) -> KernelFile:
        file = super().frame(functions, launch, formula)
        return replace(
            file,
            summary=f"{self.summary()}: one kernel, after one that lays the map out.",
            functions=[self.layer, *functions],
            sum_length=product(self.region).inner,
        )

    def plan(self) -> list[str]:
        return [self.lay_out.plan(), *super().plan()]

    # -- the loop --------------------------------------------------------------------------------------------
    def loop(self, w: Writer, col_ok: str) -> None:
        c = w.uses
        w.note("The sum over rows of taps, each a run of elements of the laid map")
        emit_source(w, self._gather())
        w.line(f"start = {start_text(self._gather(), c)}", "[BLOCK_M] where each row's first tap lies in it")
        self._places(w)
        w.line("acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)")
        rows, many = self.schedule.block_k // self.map.run, self.map.rows > 1
        if rows >= self.map.rows:
            self._step(w, "", col_ok)
            return
        head = f"for r0 in range(0, {c.R}, {c.ROWS}):" if rows > 1 else f"for r0 in range({c.R}):"
        with w.block(head):
            self._step(w, "r0" if many else "", col_ok)

    def _gather(self) -> Gather:
        return Gather(
            work=self.work, axes=self.axes, source="laid", extent=("LAID_H", "LAID_W"), channels="LANES",
            run="C", lane="e", first=self.first_image, rows_are_pixels=False,
        )  # fmt: skip

    def _places(self, w: Writer) -> None:
        """a_tile, w_tile: where the elements of the first step lie; tap_ok, w_ok: which there are."""
        c = w.uses
        several = self.schedule.block_k > self.map.run
        lane = "tl.arange(0, BLOCK_K)"
        if several:
            w.line(f"r = {lane} // {c.RUN}", "[BLOCK_K] row of taps, within a step")
            lane += f" % {c.RUN}"
        w.line(f"e = {lane}", "[BLOCK_K] element (s, c) of a row of taps")
        w.line(f"tap_ok = e < {c.S} * {c.LANES}")
        w.line(f"w_ok = tap_ok & (e % {c.LANES} < {c.C})")
        at = self.lay_out.lane(c)
        tap = f"e // {c.LANES} * {c.C} + e % {c.LANES}"
        if several:
            at = f"r * ({self.lay_out.row(c)}) + {at}"
            tap = f"r * ({c.S} * {c.C}) + {tap}"
        w.line(f"a_tile = laid_tile + start[:, None] + ({at})[None, :]", "[BLOCK_M, BLOCK_K]")
        w.line(f"w_tile = w_ptr + ({tap})[:, None] * {c.K} + col[None, :]", "[BLOCK_K, BLOCK_N]")

    def _step(self, w: Writer, r0: str, col_ok: str) -> None:
        c = w.uses
        taps = "tap_ok"
        rows = self.schedule.block_k // self.map.run
        weights = "w_ok"
        if self.map.rows % rows:
            w.line(f"r_ok = {r0 + ' + ' if r0 else ''}r < {c.R}", "[BLOCK_K]")
            taps, weights = "(r_ok & tap_ok)", "(r_ok & w_ok)"
        a = f"a_tile + {r0} * ({self.lay_out.row(c)})" if r0 else "a_tile"
        b = f"w_tile + {r0} * ({c.S} * {c.C} * {c.K})" if r0 else "w_tile"
        ok = f"row_ok[:, None] & {taps}[None, :]"
        w.line(f"a = tl.load({a}{masked(ok)})", "[BLOCK_M, BLOCK_K]")
        ok = f"{weights}[:, None]" + (f" & {col_ok}[None, :]" if col_ok else "")
        w.line(f"b = tl.load({b}{masked(ok)})", "[BLOCK_K, BLOCK_N]")
        emit_multiply(w, self.upcast, self.dot_options())
