"""Gradients of convolution and matrix product with respect to weight and bias."""

from __future__ import annotations

from typing import Any

from ...graph.ops import Conv2DWeightGrad
from ...planning.geometry import Axis, ceil_div, forward_axes
from ...planning.limits import section
from ...planning.products import Product, product
from ...planning.regions import Region
from ...planning.schedules import Schedule
from ...planning.splits import Split, product_split
from ..text.indices import checks, index, times
from ..text.names import Names
from ..text.source import KernelFile
from ..text.writer import Uses, Writer
from .contraction import IDENTITY, OF_A_TILE, Constants, spatial
from .gather import emit_multiply
from .split_file import SplitFile
from .tile import masked


def emit_weight_grad(region: Region, schedule: Schedule, precision: str) -> KernelFile:
    """The kernel of a region whose anchor is a Conv2DWeightGrad or a DenseWeightGrad.

    The sum over pixels is split over programs, each of which writes a float32 part of its own; a second
    kernel adds the parts in one order, so that the result does not depend on which program ends first. Where
    one program a tile is enough, it writes the result itself.
    """
    return WeightGrad(region, schedule, precision).file()


class WeightGrad(SplitFile):
    """dw[(r, s, c), k] = sum over pixels of x gathered, transposed, times dy."""

    def __init__(self, region: Region, schedule: Schedule, precision: str) -> None:
        self.region, self.schedule, self.precision = region, schedule, precision
        self.anchor = region.anchor
        self.op: Any = region.anchor.op
        self.work: Product = self.product()
        self.names = Names(region)
        self.x, self.dy = (region.graph[name] for name in self.anchor.inputs)
        self.is_map = isinstance(self.anchor.op, Conv2DWeightGrad)
        self.biases = [*region.siblings, *region.epilogue]
        """Sums of dy over all pixels."""
        self.axes = self.gathered()
        self.per_group = self.x.type.channels // self.work.groups
        self.split = self.split_sum()
        self.constants = self.shape_constants()
        self.at_launch = Uses()

    def product(self) -> Product:
        return product(self.region)

    def split_sum(self) -> Split:
        return product_split(self.work, self.schedule)

    def gathered(self) -> tuple[Axis, Axis]:
        """How pixels of dy and taps meet on the map that the loop reads."""
        return self.axes_of_map()

    def axes_of_map(self) -> tuple[Axis, Axis]:
        if not self.is_map:
            return IDENTITY, IDENTITY
        return forward_axes(self.op, spatial(self.x), spatial(self.anchor, 0), spatial(self.dy))

    @property
    def gathered_elements(self) -> int:
        """Of an image of what the loop reads."""
        return self.x.type.elements(1)

    @property
    def plain(self) -> bool:
        """Whether pixels of x and of dy are the same: a matrix product, a 1x1 convolution."""
        return all(axis.is_identity for axis in self.axes)

    @property
    def by_tap(self) -> bool:
        """Whether a row tile lies within one tap of the kernel, which then is a number and not a vector."""
        return (
            self.plain
            or self.axes[0].taps * self.axes[1].taps == 1
            or self.per_group % self.schedule.block_m == 0
        )

    def shape_constants(self) -> Constants:
        s, constants = self.schedule, Constants()
        groups, per_group, columns = self.work.groups, self.per_group, self.work.columns
        if self.is_map:
            (h, w), (p, q), (r, t) = spatial(self.x), spatial(self.dy), spatial(self.anchor, 0)
            constants |= {"H": (h, "height of x"), "W": (w, "width of x")}
            constants |= {"P": (p, "height of dy"), "Q": (q, "width of dy")}
            constants |= {"R": (r, "kernel height"), "S": (t, "kernel width")}
        constants |= {"C": (self.x.type.channels, "channels of x")}
        constants |= {"K": (self.dy.type.channels, "channels of dy")}
        if groups > 1:
            constants |= {"GROUPS": (groups, "groups of channels")}
            constants |= {"CG": (per_group, "channels of x of a group")}
            constants |= {"KG": (columns, "channels of dy of a group")}
        constants |= {
            "SIZE": (self.anchor.type.elements(), "elements of dw"),
            "BLOCK_M": (s.block_m, "rows (r, s, c) of a tile"),
            "BLOCK_N": (s.block_n, "columns k of a tile"),
            "BLOCK_K": (s.block_k, "pixels a step takes"),
            "CHUNK": (s.chunk, "pixels of a part of the sum, at least"),
            "SECTION": (
                section(self.region, s.block_k, self.gathered_elements),
                "pixels whose addresses are counted from one place",
            ),
            "BLOCKS": (ceil_div(per_group, s.block_m), "row tiles of one tap"),
            "TILES_M": (self.work.row_tiles(s.block_m, 1), "row tiles"),
            "TILES_N": (ceil_div(columns, s.block_n), "column tiles" + (" of a group" if groups > 1 else "")),
            "MOST_SPLITS": (self.split.most, "parts of the sum over pixels, enough to fill the GPU"),
            "TOGETHER": (self.split.together, "parts that the finishing kernel adds at a time"),
            "BESIDE": (self.split.beside, "elements that a program of it computes"),
        }
        return constants

    # -- the product -----------------------------------------------------------------------------------------
    def body(self) -> Writer:
        w = Writer()
        c = w.uses
        c.note(*OF_A_TILE)
        self._tiles(w)
        row_ok = self.rows(w)
        col_ok = self._columns(w)
        w.line()
        w.note("The sum over this split's pixels, section by section")
        w.line("acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)")
        if self.biases:
            w.line("total = tl.zeros((BLOCK_N,), tl.float32)", "the bias gradient")
        w.line("begin = split * part", "a multiple of BLOCK_K, as all parts but the last are")
        w.line("end = tl.minimum(begin + part, pixels)")
        with w.block("while begin < end:"):
            self._section(w, row_ok, col_ok)
        w.line()
        self._store(w, row_ok, col_ok)
        return w

    def _tiles(self, w: Writer) -> None:
        c = w.uses
        w.line("tile_m = tl.program_id(0)")
        if self.work.groups > 1:
            w.line(f"group = tl.program_id(1) // {c.TILES_N}")
            w.line(f"tile_n = tl.program_id(1) % {c.TILES_N}")
        else:
            w.line("tile_n = tl.program_id(1)")
        w.line("split = tl.program_id(2)", "which part of the pixels")

    def rows(self, w: Writer) -> str:
        """The rows of the tile; returns the name of their mask, "" where all exist."""
        c = w.uses
        run = "CG" if self.work.groups > 1 else "C"
        single = self.axes[0].taps * self.axes[1].taps == 1
        if self.by_tap:
            block = "tile_m" if single else f"tile_m % {c.BLOCKS}"
            w.line(f"c = {block} * BLOCK_M + tl.arange(0, BLOCK_M)", "[BLOCK_M] channel of x")
            if not single:
                w.lines(
                    f"tap = tile_m // {c.BLOCKS}",
                    f"r = tap // {c.S}{times(self.axes[0].step)}",
                    f"s = tap % {c.S}{times(self.axes[1].step)}",
                )
            w.line("row = c" if single else f"row = tap * {c[run]} + c", "row (r, s, c) of dw")
            if self.per_group % self.schedule.block_m == 0:
                return ""
            w.line(f"row_ok = c < {c[run]}", "[BLOCK_M]")
            return "row_ok"
        w.line("row = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)", "[BLOCK_M] row (r, s, c) of dw")
        w.line(f"r = row // ({c.S} * {c[run]}){times(self.axes[0].step)}")
        w.line(f"s = row // {c[run]} % {c.S}{times(self.axes[1].step)}")
        w.line(f"c = row % {c[run]}")
        w.line(f"tap_offset = (r * {c.W} + s) * {c.C} + c", "[BLOCK_M] from a pixel's first tap")
        if self.work.rows % self.schedule.block_m == 0:
            return ""
        w.line(f"row_ok = row < {c.R} * {c.S} * {c[run]}")
        return "row_ok"

    def _columns(self, w: Writer) -> str:
        c = w.uses
        run = "KG" if self.work.groups > 1 else "K"
        lanes = "tile_n * BLOCK_N + tl.arange(0, BLOCK_N)"
        if self.work.groups > 1:
            w.line(f"col_in_group = {lanes}", "[BLOCK_N]")
            w.line(f"col = group * {c.KG} + col_in_group", "[BLOCK_N] channel of dy")
        else:
            w.line(f"col = {lanes}", "[BLOCK_N] channel of dy")
        if self.work.columns % self.schedule.block_n == 0:
            return ""
        w.line(f"col_ok = {'col_in_group' if self.work.groups > 1 else 'col'} < {c[run]}")
        return "col_ok"

    def _section(self, w: Writer, row_ok: str, col_ok: str) -> None:
        c = w.uses
        w.line(f"steps = tl.cdiv(tl.minimum(end - begin, {c.SECTION}), BLOCK_K)")
        self.start_x(w)
        w.line(f"dy_tile = {self.role(self.dy)}_ptr + begin.to(tl.int64) * {c.K}")
        with w.block("for step in range(steps):"):
            w.line("lane = step * BLOCK_K + tl.arange(0, BLOCK_K)", "[BLOCK_K]")
            w.line("pixel = begin + lane")
            w.line("pixel_ok = pixel < pixels")
            self.load_x(w, row_ok)
            self._load_dy(w, col_ok)
            options = f', input_precision="{self.precision}"' if self.work.dtype == "float32" else ""
            emit_multiply(w, self.work.dtype == "bfloat16", options, "tl.trans(a)")
        if self.biases:
            with (
                w.block("if tile_m == 0:", "the first row tile also sums dy, which is in the cache by now"),
                w.block("for step in range(steps):"),
            ):
                w.line("lane = step * BLOCK_K + tl.arange(0, BLOCK_K)")
                w.line("pixel_ok = begin + lane < pixels")
                self._load_dy(w, col_ok)
                w.line("total += tl.sum(b.to(tl.float32), axis=0)")
        w.line(f"begin += {c.SECTION}")

    def start_x(self, w: Writer) -> None:
        """x_tile: where the section begins in x."""
        c, x = w.uses, self.role(self.x)
        group = f" + group * {c.CG}" if self.work.groups > 1 else ""
        if self.plain:
            w.line(f"x_tile = {x}_ptr + begin.to(tl.int64) * {c.C}{group}")
            return
        note = "the section's first image; addresses within it fit into 32 bits"
        w.line(f"first = begin // ({c.P} * {c.Q})", note)
        w.line(f"x_tile = {x}_ptr + first.to(tl.int64) * ({c.H} * {c.W} * {c.C}){group}")

    def _load_dy(self, w: Writer, col_ok: str) -> None:
        c = w.uses
        ok = "pixel_ok[:, None]" + (f" & {col_ok}[None, :]" if col_ok else "")
        place = f"lane[:, None] * {c.K} + col[None, :]"
        w.line(f"b = tl.load(dy_tile + {place}{masked(ok)})", "[BLOCK_K, BLOCK_N]")

    def load_x(self, w: Writer, row_ok: str) -> None:
        c = w.uses
        rows = [f"{row_ok}[None, :]"] if row_ok else []
        if self.plain:
            ok = " & ".join(["pixel_ok[:, None]", *rows])
            place = f"lane[:, None] * {c.C} + c[None, :]"
            w.line(f"a = tl.load(x_tile + {place}{masked(ok)})", "[BLOCK_K, BLOCK_M]")
            return
        w.line(f"top = {index(self.axes[0], f'pixel // {c.Q} % {c.P}')}", "row of x under tap 0")
        w.line(f"left = {index(self.axes[1], f'pixel % {c.Q}')}", "column of x")
        if self.by_tap:
            self._load_tap(w, rows)
        else:
            self._load_flat(w, rows)

    def _start(self, w: Writer, i: str, j: str) -> None:
        """Where in the section's images the pixel in row i and column j lies."""
        c = w.uses
        image = f"pixel // ({c.P} * {c.Q}) - first"
        w.line(f"start = ((({image}) * {c.H} + {i}) * {c.W} + {j}) * {c.C}", "[BLOCK_K]")

    def _load_tap(self, w: Writer, rows: list[str]) -> None:
        """All rows of the tile belong to one tap: its position is one for each pixel."""
        c = w.uses
        single = self.axes[0].taps * self.axes[1].taps == 1
        if not single:
            w.lines("i = top + r", "j = left + s")
        i, j = ("top", "left") if single else ("i", "j")
        tests = [*checks(self.axes[0], i, c, "H"), *checks(self.axes[1], j, c, "W")]
        inside = "pixel_ok"
        if tests:
            inside = "inside"
            w.line(f"inside = {' & '.join(['pixel_ok', *tests])}", "[BLOCK_K]")
        self._start(w, i, j)
        ok = " & ".join([f"{inside}[:, None]", *rows])
        w.line(f"a = tl.load(x_tile + start[:, None] + c[None, :]{masked(ok)})", "[BLOCK_K, BLOCK_M]")

    def _load_flat(self, w: Writer, rows: list[str]) -> None:
        """Rows of several taps: the position is one for each pixel and row."""
        c = w.uses
        tests: list[str] = []
        down, across = self.axes
        for name, origin, tap, axis, size in (("i", "top", "r", down, "H"), ("j", "left", "s", across, "W")):
            if found := checks(axis, name, c, size):
                w.line(f"{name} = {origin}[:, None] + {tap}[None, :]", "[BLOCK_K, BLOCK_M]")
                tests += found
        self._start(w, "top", "left")
        w.line(f"inside = {' & '.join(['pixel_ok[:, None]', *rows, *tests])}")
        w.line(
            "a = tl.load(x_tile + start[:, None] + tap_offset[None, :], mask=inside, other=0.0)",
            "[BLOCK_K, BLOCK_M]",
        )

    def _store(self, w: Writer, row_ok: str, col_ok: str) -> None:
        c = w.uses
        dw = f"{self.role(self.anchor)}_ptr"
        part = f"split * {c.SIZE} + row[:, None] * {c.K} + col[None, :]"
        w.line(f"at = {part}", "this split's part, [BLOCK_M, BLOCK_N]")
        masks = [*([f"{row_ok}[:, None]"] if row_ok else []), *([f"{col_ok}[None, :]"] if col_ok else [])]
        w.line(f"tl.store({dw} + at, acc.to({dw}.dtype.element_ty){masked(' & '.join(masks), None)})")
        if self.biases:
            mask = masked(col_ok, None)
            with w.block("if tile_m == 0:"):
                for bias in (f"{self.role(node)}_ptr" for node in self.biases):
                    w.line(f"tl.store({bias} + split * {c.K} + col, total.to({bias}.dtype.element_ty){mask})")
