"""The gradient of a first layer's weight: the map is laid out first, so that a row of taps is one run."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

from ...planning.forms.first import LANES, first_product, laid
from ...planning.geometry import Axis, ceil_div
from ...planning.products import Product
from ...planning.regions import Region
from ...planning.schedules import Schedule
from ..text.indices import index
from ..text.jit_function import JitFunction
from ..text.source import KernelFile
from ..text.titles import title
from ..text.writer import Writer
from .contraction import Constants
from .lay_out import LayOut
from .tile import masked
from .weight_gradient import WeightGrad


def emit_first_weight_grad(region: Region, schedule: Schedule, precision: str) -> KernelFile:
    """The kernels of a region whose anchor is a Conv2DWeightGrad of few channels.

    Its tiles have a row for every element of a row of taps, padding and all. What those of the padding sum up
    is not stored, so that they may read whatever lies there.
    """
    return _First(region, schedule, precision).file()


class _First(WeightGrad):
    """dw[(r, s, c), k] = sum over pixels of rows of taps of the laid map, transposed, times dy."""

    def __init__(self, region: Region, schedule: Schedule, precision: str) -> None:
        self.map = laid(region)
        super().__init__(region, schedule, precision)

    def product(self) -> Product:
        return first_product(self.region)

    def gathered(self) -> tuple[Axis, Axis]:
        return self.map.axes

    @property
    def gathered_elements(self) -> int:
        return self.map.elements

    @property
    def by_tap(self) -> bool:
        return False

    def shape_constants(self) -> Constants:
        run = {"RUN": (self.map.run, "rows of dw's tiles for a row of taps, (s, c), with padding")}
        return {**super().shape_constants(), **run, **self.lay_out.constants()}

    @cached_property
    def lay_out(self) -> LayOut:
        return LayOut(self.region, self.names, self.map, self.x.type.dtype, self._beyond)

    @cached_property
    def layer(self) -> JitFunction:
        """The kernel that runs first."""
        return self.lay_out.function(self.constants)

    def factors(self) -> list[tuple[str, str]]:
        return [("laid", self.x.type.dtype), (self.names.role[self.dy.name], self.dy.type.dtype)]

    def prepare(self, w: Writer) -> None:
        w.line(f"batch = {self.names.role[self.dy.name]}.shape[0]")
        self.lay_out.call(w, self.layer, self.at_launch)

    @property
    def _beyond(self) -> int:
        """Pixels behind the last image that the padding of its last rows of taps may read."""
        m = self.map
        rows = ceil_div(self.work.rows, self.schedule.block_m) * self.schedule.block_m // m.run
        below = (rows - m.rows) * m.axes[0].step
        return max(0, below) * m.width + m.axes[1].step * m.run // LANES

    def file(self) -> KernelFile:
        file = super().file()
        summary = f"{title(self.region)}: of a map laid out first, in parts, which a last kernel adds up."
        return replace(file, functions=[self.layer, *file.functions], summary=summary)

    def plan(self) -> list[str]:
        return [self.lay_out.plan(), *super().plan()]

    # -- the loop --------------------------------------------------------------------------------------------
    def rows(self, w: Writer) -> str:
        c = w.uses
        w.line("place = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)", "[BLOCK_M] among the rows of taps")
        w.line(f"r = place // {c.RUN}", "which row of taps")
        w.line(f"e = place % {c.RUN}", "element (s, c) of it")
        w.line(f"row = (r * {c.S} + e // {c.LANES}) * {c.C} + e % {c.LANES}", "row (r, s, c) of dw")
        w.line(f"row_ok = (r < {c.R}) & (e < {c.S} * {c.LANES}) & (e % {c.LANES} < {c.C})", "not padding")
        tap = f"r * ({self.lay_out.row(c)}) + {self.lay_out.lane(c)}"
        w.line(f"tap_offset = {tap}", "[BLOCK_M] from a pixel's first tap")
        return "row_ok"

    def start_x(self, w: Writer) -> None:
        c = w.uses
        note = "the section's first image; addresses within it fit into 32 bits"
        w.line(f"first = begin // ({c.P} * {c.Q})", note)
        size = f"({c.LAID_H} * {c.LAID_W} * {c.LANES})"
        w.line(f"laid_tile = laid_ptr + first.to(tl.int64) * {size}")

    def load_x(self, w: Writer, row_ok: str) -> None:
        c = w.uses
        image = f"pixel // ({c.P} * {c.Q}) - first"
        w.line(f"top = {index(self.axes[0], f'pixel // {c.Q} % {c.P}')}", "row of the laid map under tap 0")
        w.line(f"left = {index(self.axes[1], f'pixel % {c.Q}')}", "column")
        w.line(f"start = ((({image}) * {c.LAID_H} + top) * {c.LAID_W} + left) * {c.LANES}", "[BLOCK_K]")
        place = "laid_tile + start[:, None] + tap_offset[None, :]"
        w.line(f"a = tl.load({place}{masked('pixel_ok[:, None]')})", "[BLOCK_K, BLOCK_M]")
