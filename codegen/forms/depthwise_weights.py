"""Gradients of convolutions of few channels a group with respect to their weights, without products.

A piece is a strip of the map: some rows of dy by some columns, and the pixels of x that its taps read. A lane
keeps a sum for each tap of its channel over all its pieces; a program adds those of its lanes at the end.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ...planning.depthwise import Sliding, sliding, weight_split
from ...planning.regions import Region
from ...planning.schedules import Schedule
from ...planning.splits import Split
from ..text.indices import times
from ..text.source import KernelFile
from ..text.writer import Uses, Writer
from .contraction import Constants, spatial
from .places import emit_place
from .tile import masked
from .weight_gradient import WeightGrad


def emit_direct_weight_grad(region: Region, schedule: Schedule) -> KernelFile:
    """The kernel of a region whose anchor is a Conv2DWeightGrad; its sum is split as that of a product is."""
    return _DirectWeightGrad(region, schedule, "ieee").file()


class _DirectWeightGrad(WeightGrad):
    terms = "pieces"

    def split_sum(self) -> Split:
        self.slid: Sliding = sliding(self.region)
        return weight_split(self.slid, self.schedule)

    @property
    def _summed(self) -> int:
        return self.slid.summed

    @property
    def _names(self) -> tuple[tuple[str, str], tuple[str, str]]:
        """Of the positions in x and in dy, along the way down and across it."""
        rows, columns = ("h", "p"), ("left", "q")
        return (columns, rows) if self.slid.swapped else (rows, columns)

    def shape_constants(self) -> Constants:
        s, work = self.schedule, self.slid
        (h, w), (p, q), (r, t) = spatial(self.x), spatial(self.dy), spatial(self.anchor, 0)
        size = work.taps * work.summed * work.lanes
        return {
            "H": (h, "height of x"),
            "W": (w, "width of x"),
            "P": (p, "height of dy"),
            "Q": (q, "width of dy"),
            "R": (r, "kernel height"),
            "S": (t, "kernel width"),
            "C": (self.x.type.channels, "channels of x"),
            "K": (work.lanes, "channels of dy"),
            "SIZE": (size, "elements of dw"),
            "BLOCK_K": (s.block_k, "pieces a step takes"),
            "BLOCK_N": (s.block_n, "channels of a program"),
            "DEEP": (s.walk, "rows of a piece, of dy" if not work.swapped else "columns of a piece, of dy"),
            "WIDE": (s.strip, "columns of it" if not work.swapped else "rows of it"),
            "STRIPS": (work.strips(s), "pieces of an image side by side"),
            "WALKS": (work.walks(s), "pieces one below the other"),
            "CHUNK": (s.chunk, "pieces of a part of the sum, at least"),
            "TILES_N": (-(-work.lanes // s.block_n), "tiles of channels"),
            "MOST_SPLITS": (self.split.most, "parts of the sum over pieces, enough to fill the GPU"),
            "TOGETHER": (self.split.together, "parts that the finishing kernel adds at a time"),
            "BESIDE": (self.split.beside, "elements that a program of it computes"),
        }

    def plan(self) -> list[str]:
        s = self.schedule
        parts = (
            f"At most {self.split.most} parts, which a second kernel adds in one order: the same bits on "
            f"every run."
        )
        return [
            f"Each program takes {s.block_n} channels of its part of the pieces, {s.block_k} a step, each "
            f"{s.walk} by {s.strip} pixels of dy, with {s.many_warps}.",
            parts if self.split.most > 1 else "It writes the result itself.",
        ]

    def count(self, c: Uses) -> str:
        return f"{self.role(self.dy)}.shape[0] * {c.STRIPS} * {c.WALKS}"

    def tiles_text(self, c: Uses) -> list[str]:
        return [c.TILES_N]

    # -- the kernel ------------------------------------------------------------------------------------------
    def body(self) -> Writer:
        w = Writer()
        c = w.uses
        w.line(f"col = tl.program_id(0) * {c.BLOCK_N} + tl.arange(0, {c.BLOCK_N})[None, :]", "[1, BLOCK_N]")
        if self._ragged:
            w.line(f"col_ok = col < {c.K}")
        w.line("split = tl.program_id(1)", "which part of the pieces")
        zero = f"tl.zeros(({c.BLOCK_K}, {c.BLOCK_N}), tl.float32)"
        w.line("sums = ()", "one for each tap, [BLOCK_K, BLOCK_N]")
        with w.block(f"for tap in tl.static_range({self._taps_text(c)}):"):
            w.line(f"sums = sums + ({zero},)")
        if self.biases:
            w.line(f"total = {zero}", "the bias gradient")
        w.line("end = tl.minimum(split * part + part, pieces)")
        with w.block(f"for begin in range(split * part, end, {c.BLOCK_K}):"):
            self._piece(w)
        w.line()
        self._store_sums(w)
        return w

    @property
    def _ragged(self) -> bool:
        return self.slid.lanes % self.schedule.block_n != 0

    def _taps_text(self, c: Uses) -> str:
        return f"{c.R} * {c.S}{times(self._summed)}"

    def _piece(self, w: Writer) -> None:
        c, work = w.uses, self.slid
        w.line(f"piece = begin + tl.arange(0, {c.BLOCK_K})[:, None]", "[BLOCK_K, 1]")
        ok = "(piece < pieces)" + (" & col_ok" if self._ragged else "")
        w.line(f"piece_ok = {ok}")
        w.line(f"strip = piece % {c.STRIPS}")
        w.line(f"down = piece // {c.STRIPS} % {c.WALKS}")
        w.line(f"image = (piece // ({c.STRIPS} * {c.WALKS})).to(tl.int64)")
        (down, down_out), (across, across_out) = self._names
        emit_place(w, work.across, "strip", f"{{}}{times(self.schedule.strip)}", 0, across, across_out)
        emit_place(w, work.down, "down", f"{{}}{times(self.schedule.walk)}", 0, down, down_out)
        group = f" // {work.group}" if work.group > 1 else ""
        w.line(
            f"x_at = {self.role(self.x)}_ptr + ((image * {c.H} + h) * {c.W} + left) * {c.C} "
            f"+ col{group}{times(work.summed)}"
        )
        w.line(f"dy_at = {self.role(self.dy)}_ptr + ((image * {c.P} + p) * {c.Q} + q) * {c.K} + col")
        w.line()
        self._load_dy_piece(w)
        w.line()
        self._add_rows(w)

    def _offset(self, c: Uses, position: str, spacing: int, along: bool, sizes: tuple[str, str]) -> str:
        """Text of a position's distance. along: the way down; sizes: width and channels of the map."""
        by_row = along != self.slid.swapped
        factors = [*([str(spacing)] if spacing > 1 else []), *([c[sizes[0]]] if by_row else []), c[sizes[1]]]
        return f"{position} * {factors[0]}" if len(factors) == 1 else f"{position} * ({' * '.join(factors)})"

    def _load_dy_piece(self, w: Writer) -> None:
        """given: dy of the piece, row by row."""
        c, work, s = w.uses, self.slid, self.schedule
        (_, down), (_, across) = self._names
        tests = ["piece_ok"]
        for name, at, d, count, parts, size in (
            (down, "t", work.down, s.walk, work.walks(s), "Q" if work.swapped else "P"),
            (across, "u", work.across, s.strip, work.strips(s), "P" if work.swapped else "Q"),
        ):
            _, last = d.made(0, (parts // d.classes - 1) * count, count)
            tests += [f"({name} + {at}{times(d.output_spacing)} < {c[size]})"] if last >= d.outputs else []
        first = self._offset(c, "t", work.down.output_spacing, True, ("Q", "K"))
        second = self._offset(c, "u", work.across.output_spacing, False, ("Q", "K"))
        w.line("given = ()", "dy")
        with (
            w.block(f"for t in tl.static_range({c.DEEP}):"),
            w.block(f"for u in tl.static_range({c.WIDE}):"),
        ):
            w.line(f"ok = {' & '.join(tests)}")
            w.line(f"loaded = tl.load(dy_at + {first} + {second}{masked('ok')}).to(tl.float32)")
            w.line("given = given + (loaded,)", "[BLOCK_K, BLOCK_N]")
            if self.biases:
                w.line("total += loaded")

    def _inside(self, c: Uses) -> str:
        """Text of the lanes whose x at row f and column j of the piece is on the map and under a tap of some
        dy: the rest may be no numbers, which the zeros for dy behind its map would not undo."""
        work, s, tests = self.slid, self.schedule, ["piece_ok"]
        (down, _), (across, _) = self._names
        for name, at, d, count, parts, size in (
            (down, "f", work.down, s.walk, work.walks(s), "W" if work.swapped else "H"),
            (across, "j", work.across, s.strip, work.strips(s), "H" if work.swapped else "W"),
        ):
            low, high = d.sources(0, (parts // d.classes - 1) * count, d.span(count))
            place = f"{name} + {at}{times(d.source_spacing)}"
            tests += [f"({place} >= 0)"] if low < 0 else []
            read = (d.outputs - 1) * d.stride - d.padding + (d.taps - 1) * d.dilation + 1
            end = c[size] if read >= d.source else str(read)
            tests += [f"({place} < {end})"] if high >= min(read, d.source) else []
        return " & ".join(tests)

    def _add_rows(self, w: Writer) -> None:
        """Row by row of x: loaded, and added to the sums of all taps it is under."""
        c, work, s = w.uses, self.slid, self.schedule
        n = self._summed
        first = self._offset(c, "f", work.down.source_spacing, True, ("W", "C"))
        second = self._offset(c, "j", work.across.source_spacing, False, ("W", "C"))
        with w.block(f"for f in tl.static_range({work.down.span(s.walk)}):"):
            w.line("values = ()", "row f of x")
            with w.block(f"for j in tl.static_range({work.across.span(s.strip)}):"), self._each_summed(w):
                w.line(f"inside = {self._inside(c)}")
                at = f"x_at + {first} + {second}{' + i' if n > 1 else ''}"
                w.line(f"loaded = tl.load({at}{masked('inside')})")
                w.line("values = values + (loaded.to(tl.float32),)", "[BLOCK_K, BLOCK_N]")
            w.line("more = ()")
            with (
                w.block(f"for r in tl.static_range({c.R}):"),
                w.block(f"for s in tl.static_range({c.S}):"),
                self._each_summed(w),
            ):
                self._add_tap(w)
            w.line("sums = more")

    @contextlib.contextmanager
    def _each_summed(self, w: Writer) -> Iterator[None]:
        if self._summed == 1:
            yield
            return
        with w.block(f"for i in tl.static_range({self._summed}):"):
            yield

    def _add_tap(self, w: Writer) -> None:
        c, work, n = w.uses, self.slid, self._summed
        down, across = ("s", "r") if work.swapped else ("r", "s")
        tap = f"r * {c.S} + s"
        w.line(f"acc = sums[{tap if n == 1 else f'({tap}) * {n} + i'}]")
        e = work.down.unit
        meets = f"(f >= {down}) & (f - {down} < {c.DEEP}{times(e)})"
        meets += f" & ((f - {down}) % {e} == 0)" if e > 1 else ""
        with w.block(f"if {meets}:"), w.block(f"for u in tl.static_range({c.WIDE}):"):
            row = f"(f - {down}) // {e}" if e > 1 else f"(f - {down})"
            place = f"u{times(work.across.unit)} + {across}"
            place = place if n == 1 else f"({place}) * {n} + i"
            w.line(f"acc += values[{place}] * given[{row} * {c.WIDE} + u]")
        w.line("more = more + (acc,)")

    def _store_sums(self, w: Writer) -> None:
        c = w.uses
        dw = f"{self.role(self.anchor)}_ptr"
        mask = masked("col_ok" if self._ragged else "", None)
        w.note("This split's part: the sums of its lanes")
        with w.block(f"for tap in tl.static_range({self._taps_text(c)}):"):
            w.line("whole = tl.sum(sums[tap], axis=0)[None, :]", "[1, BLOCK_N]")
            at = f"{dw} + split * {c.SIZE} + tap * {c.K} + col"
            w.line(f"tl.store({at}, whole.to({dw}.dtype.element_ty){mask})")
        if self.biases:
            w.line("whole = tl.sum(total, axis=0)[None, :]")
            for bias in (f"{self.role(node)}_ptr" for node in self.biases):
                w.line(f"tl.store({bias} + split * {c.K} + col, whole.to({bias}.dtype.element_ty){mask})")
