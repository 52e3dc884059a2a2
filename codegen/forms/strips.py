"""The lines of a kernel that goes down strips of a map: where they lie, what they read ahead, their sums.

Its numbers are those of `planning/sliding.py`: along each axis a class of positions, within which the
convolution is undilated, and steps that read some sources and finish some outputs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ...graph.ops import Conv2DDataGrad
from ...planning.depthwise import sliding
from ...planning.regions import Region
from ...planning.schedules import Schedule
from ..text.indices import plus, times
from ..text.writer import Uses, Writer
from .contraction import Constants, spatial
from .places import emit_place


class Strips:
    """channels: of a pixel of the source; source: its role. pitch: from one of its pixels to the next, where
    they are parts of wider rows."""

    def __init__(
        self, region: Region, schedule: Schedule, channels: int, source: str, pitch: int | None = None
    ) -> None:
        self.region, self.schedule, self.source = region, schedule, source
        self.work = sliding(region)
        self.channels = channels
        self.transposed = isinstance(region.anchor.op, Conv2DDataGrad)
        self.steps = self.work.strip_steps(schedule)
        rows, columns = (("p", "h"), ("left", "v")) if self.transposed else (("h", "p"), ("left", "q"))
        both = ((rows, ("H", "P"), ("W", "C")), (columns, ("W", "Q"), ("C",)))
        down, across = both[::-1] if self.work.swapped else both
        self.down_at, self.down_out = down[0]
        self.across_at, self.across_out = across[0]
        self.extents = {name: sizes for names, sizes, _ in both for name in [names]}
        self.read = ("P", "Q", "K") if self.transposed else ("H", "W", "C")
        self.out = ("H", "W", "C") if self.transposed else ("P", "Q", "K")
        self.pitch = pitch
        self.lying = (*self.read[:2], self.read[2] if pitch is None else "PITCH")

    # -- constants -------------------------------------------------------------------------------------------
    @property
    def lanes(self) -> str:
        """Name of the number of channels of the result."""
        return self.out[2]

    def constants(self, called: tuple[str, str]) -> Constants:
        """called: what the source and the result are called."""
        read, made = called
        anchor, s = self.region.anchor, self.schedule
        source = self.region.graph[anchor.inputs[0]]
        (h, w), (p, q) = spatial(source), spatial(anchor)
        sizes = dict(zip((*self.read, *self.out), (h, w, self.channels, p, q, self.work.lanes), strict=True))
        words = dict(zip((*self.read, *self.out), [f"{what} of {name}" for name in (read, made)
                         for what in ("height", "width", "channels")], strict=True))  # fmt: skip
        kernel = self.region.graph[anchor.inputs[1]]
        r, t = spatial(kernel, 0)
        constants: Constants = {name: (sizes[name], words[name]) for name in "HWPQCK"}
        if self.pitch is not None:
            constants["PITCH"] = (self.pitch, f"channels of the rows that {read} is a part of")
        constants |= {"R": (r, "kernel height"), "S": (t, "kernel width")}
        constants |= {
            "BLOCK": (s.block_n, "lanes of a program"),
            "WIDE": (s.strip, "columns of a strip" if not self.work.swapped else "rows of a strip"),
            "SPAN": (self.work.span(s), f"of {read} that a strip reads side by side"),
            "STRIPS": (self.work.strips(s), "of an image"),
            "STEPS": (s.walk, "steps down that a program finishes something in"),
            "WALKS": (self.work.walks(s), "programs that share the way down"),
        }
        return constants

    def plan(self) -> list[str]:
        s, work = self.schedule, self.work
        way = "along the row" if work.swapped else "down the map"
        return [
            f"Each program takes {s.block_n} lanes, each a channel of a strip {s.strip} wide, {s.walk} steps "
            f"{way}, with {s.many_warps}.",
            f"Neighbouring lanes are neighbouring channels. What a step reads, {work.span(s)} places side by "
            f"side, is loaded one step ahead and used for all sums it belongs to.",
        ]

    # -- where a lane is -------------------------------------------------------------------------------------
    def lanes_and_places(self, w: Writer) -> None:
        """lane, channel, image; the positions of the source and of the result that a program begins at."""
        c = w.uses
        k = c[self.lanes]
        w.line(
            f"lane = tl.program_id(0) * {c.BLOCK} + tl.arange(0, {c.BLOCK})",
            "[BLOCK] (image, strip, channel)",
        )
        w.line(f"channel = lane % {k}")
        w.line(f"strip = lane // {k} % {c.STRIPS}")
        w.line(f"image = lane // ({k} * {c.STRIPS})")
        w.line("lane_ok = image < batch", "[BLOCK]")
        self._place_across(w)
        self._place_down(w)

    @property
    def source_channel(self) -> str:
        """Text of the first channel of the source that a lane sums."""
        work = self.work
        if work.group == 1:
            return f"channel{times(work.summed)}"
        return f"channel // {work.group}{times(work.summed)}"

    def _place_across(self, w: Writer) -> None:
        slide, lead = self.work.across, 0
        if slide.transposed:
            lead = -(slide.depth - 1)
        emit_place(w, slide, "strip", f"{{}}{times(self.steps)}", lead, self.across_at, self.across_out)

    def _place_down(self, w: Writer) -> None:
        c, slide = w.uses, self.work.down
        before = self.work.before(self.schedule)
        w.note("Rows before the first only begin its sums" if before else "The first step down")
        step = f"{{}} * {c.STEPS}{plus(-before)}"
        lead = 0 if slide.transposed else slide.taps - slide.fresh
        emit_place(w, slide, "tl.program_id(1)", step, lead, self.down_at, self.down_out)

    # -- before the loop -------------------------------------------------------------------------------------
    def load_weights(self, w: Writer, pointer: str) -> None:
        """weights: of each tap and summed channel, the lanes' own."""
        c, work = w.uses, self.work
        w.line("weights = ()")
        if work.summed == 1 and (not self.transposed or work.group == 1):
            at = f"tap * {c[self.lanes]} + channel"
        elif not self.transposed:
            at = f"(tap{times(work.summed)} + i) * {c.K} + channel"
        else:
            row = f"tap{times(work.group)} + channel % {work.group}" if work.group > 1 else "tap"
            at = f"({row}) * {c.K} + {self.source_channel}{' + i' if work.summed > 1 else ''}"
        with w.block(f"for tap in tl.static_range({c.R} * {c.S}):"), self._summed(w):
            w.line(f"weight = tl.load({pointer} + {at}).to(tl.float32)")
            w.line("weights = weights + (weight,)")

    @contextlib.contextmanager
    def _summed(self, w: Writer) -> Iterator[None]:
        if self.work.summed == 1:
            yield
            return
        with w.block(f"for i in tl.static_range({self.work.summed}):"):
            yield

    def begin_sums(self, w: Writer, first: str) -> None:
        """nothing: what a sum begins with; sums: those that are begun when the loop does."""
        w.line(f"nothing = {first}", "what a sum begins with")
        if not self.work.down.carried:
            return
        w.line("sums = ()")
        with w.block(f"for t in tl.static_range({self.work.down.carried} * {w.uses.WIDE}):"):
            w.line("sums = sums + (nothing,)")

    def start(self, w: Writer) -> None:
        """source_row: where the lane reads; at: where it writes."""
        c = w.uses
        w.note("Where the lane reads and writes, and what the first step reads")
        rows, columns = ("p", "left") if self.transposed else ("h", "left")
        h, v, k = (c[name] for name in self.lying)
        w.line(
            f"source_row = {self.source}_ptr + ((image.to(tl.int64) * {h} + {rows}) * {v} + {columns}) * {k} "
            f"+ {self.source_channel}"
        )
        rows, columns = ("h", "v") if self.transposed else ("p", "q")
        h, v, k = (c[name] for name in self.out)
        w.line(f"at = ((image.to(tl.int64) * {h} + {rows}) * {v} + {columns}) * {k} + channel")

    def iterations(self, w: Writer) -> str:
        return f"{w.uses.STEPS}{plus(self.work.before(self.schedule))}"

    # -- reading ---------------------------------------------------------------------------------------------
    def _pitch(self, c: Uses, maps: tuple[str, str, str], down: bool) -> str:
        """Elements from one position to the next along an axis of the walk."""
        by_row = down != self.work.swapped
        return f"{c[maps[1]]} * {c[maps[2]]}" if by_row else c[maps[2]]

    @property
    def place(self) -> str:
        """Text of the number of what is read at position j of fresh row f, channel i."""
        span = self.work.span(self.schedule)
        index = f"f * {span} + j" if self.work.down.fresh > 1 else "j"
        if self.work.summed == 1:
            return index
        return f"({index}) * {self.work.summed} + i" if "+" in index else f"{index} * {self.work.summed} + i"

    @contextlib.contextmanager
    def each_place(self, w: Writer) -> Iterator[None]:
        """Loops over fresh rows f, places j and channels i of a step."""
        with contextlib.ExitStack() as stack:
            if self.work.down.fresh > 1:
                stack.enter_context(w.block(f"for f in tl.static_range({self.work.down.fresh}):"))
            stack.enter_context(w.block(f"for j in tl.static_range({w.uses.SPAN}):"))
            stack.enter_context(self._summed(w))
            yield

    def inside(self, w: Writer) -> str:
        """Text of the lanes whose place j of row f lies on the map."""
        c, tests = w.uses, ["lane_ok"]
        down, across = self.work.down, self.work.across
        tests += [f"{at}_meets" for at, d in ((self.down_at, down), (self.across_at, across))
                  if d.transposed and d.common > 1]  # fmt: skip
        last = self.work.strips(self.schedule) // across.classes - 1
        lead = -(across.depth - 1) * across.sparse if across.transposed else 0
        found = across.sources(0, last * self.steps, self.work.span(self.schedule))
        at = f"{self.across_at} + j{times(across.source_spacing)}"
        tests += self._tests(c, at, (found[0] + lead, found[1] + lead), not self.work.swapped)
        lead = 0 if down.transposed else (down.taps - down.fresh) * down.dilation
        steps = self.work.walks(self.schedule) // down.classes * self.schedule.walk
        found = down.sources(-self.work.before(self.schedule), steps, down.fresh)
        at = self.down_at + (f" + f{times(down.source_spacing)}" if down.fresh > 1 else "")
        tests += self._tests(c, at, (found[0] + lead, found[1] + lead), self.work.swapped)
        return " & ".join(tests)

    def _tests(self, c: Uses, at: str, span: tuple[int, int], columns: bool) -> list[str]:
        """Comparisons of a source position that may be anything in `span` with the map."""
        slide = self.work.across if columns != self.work.swapped else self.work.down
        extent = self.read[1 if columns else 0]
        below = [f"({at} >= 0)"] if span[0] < 0 else []
        return below + ([f"({at} < {c[extent]})"] if span[1] >= slide.source else [])

    def load_ahead(self, w: Writer) -> None:
        """ahead: what the next step reads."""
        c, down, across = w.uses, self.work.down, self.work.across
        w.line("ahead = ()")
        with self.each_place(w):
            w.line(f"inside = {self.inside(w)}", "[BLOCK]")
            offset = f"j * ({across.source_spacing} * {self._pitch(c, self.lying, False)})"
            if across.source_spacing == 1 and not self.work.swapped:
                offset = f"j * {self._pitch(c, self.lying, False)}"
            if down.fresh > 1:
                offset += f" + f * ({down.source_spacing} * {self._pitch(c, self.lying, True)})"
            offset += " + i" if self.work.summed > 1 else ""
            w.line(f"loaded = tl.load(source_row + {offset}, mask=inside, other=0.0)")
            w.line("ahead = ahead + (loaded,)")

    def convert(self, w: Writer) -> None:
        """values: what was loaded, in float32."""
        w.line("values = ()")
        count, span = self.work.down.fresh * self.work.summed, w.uses.SPAN
        with w.block(f"for j in tl.static_range({f'{count} * {span}' if count > 1 else span}):"):
            w.line("values = values + (ahead[j].to(tl.float32),)")

    def go_on(self, w: Writer) -> None:
        """To the source rows of the next step."""
        down = self.work.down
        step = down.sparse if down.transposed else down.sparse * down.stride
        w.note("What the next step reads")
        w.line(f"{self.down_at} += {step}")
        w.line(f"source_row += {_times(step, self._pitch(w.uses, self.lying, True))}")

    # -- summing ---------------------------------------------------------------------------------------------
    def add(self, w: Writer) -> None:
        """under_way: all sums that this step adds to, the finished ones first."""
        w.note("The sums that this step adds to, finished ones first")
        w.line("under_way = ()")
        if self.transposed:
            self._add_transposed(w)
        else:
            self._add_forward(w)

    def _add_forward(self, w: Writer) -> None:
        """Fresh row f is under tap r of the row that is m steps from its end."""
        c, down, across = w.uses, self.work.down, self.work.across
        r = f"{down.taps - down.fresh}{' + f' if down.fresh > 1 else ''} - m{times(down.unit)}"
        last = down.depth - 1
        with (
            w.block(f"for m in tl.static_range({down.depth}):"),
            w.block(f"for t in tl.static_range({c.WIDE}):"),
        ):
            begun = f"sums[m * {c.WIDE} + t] if m < {last} else nothing"
            w.line(f"acc = {begun if last else 'nothing'}")
            with contextlib.ExitStack() as stack:
                if down.fresh > 1:
                    stack.enter_context(w.block(f"for f in tl.static_range({down.fresh}):"))
                    if last:
                        stack.enter_context(w.block(f"if {r} >= 0:"))
                stack.enter_context(w.block(f"for s in tl.static_range({c[self._across_taps]}):"))
                place = f"t{times(across.unit)} + s"
                tap = f"({r}) * {c.S} + s" if not self.work.swapped else f"s * {c.S} + {r}"
                self._product(w, f"f * {c.SPAN} + {place}" if down.fresh > 1 else place, tap)
            w.line("under_way = under_way + (acc,)")

    def _add_transposed(self, w: Writer) -> None:
        """The row is under tap r of the output that is r rows before the last it adds to."""
        c, down, across = w.uses, self.work.down, self.work.across
        rows = max(down.taps, down.unit)
        with w.block(f"for r in tl.static_range({rows}):"), w.block(f"for t in tl.static_range({c.WIDE}):"):
            if down.carried:
                w.line(f"acc = sums[r * {c.WIDE} + t] if r < {down.carried} else nothing")
            else:
                w.line("acc = nothing")
            with contextlib.ExitStack() as stack:
                if rows > down.taps:
                    stack.enter_context(w.block(f"if r < {down.taps}:"))
                stack.enter_context(w.block(f"for s in tl.static_range({c[self._across_taps]}):"))
                e = across.unit
                if e > 1:
                    stack.enter_context(w.block(f"if s % {e} == t % {e}:"))
                place = f"t // {e} - s // {e}" if e > 1 else "t - s"
                tap = f"r * {c.S} + s" if not self.work.swapped else f"s * {c.S} + r"
                self._product(w, place + plus(across.depth - 1), tap)
            w.line("under_way = under_way + (acc,)")

    @property
    def _across_taps(self) -> str:
        return "R" if self.work.swapped else "S"

    def _product(self, w: Writer, place: str, tap: str) -> None:
        n = self.work.summed
        if n == 1:
            w.line(f"acc += values[{place}] * weights[{tap}]")
            return
        with w.block(f"for i in tl.static_range({n}):"):
            w.line(f"acc += values[({place}) * {n} + i] * weights[({tap}) * {n} + i]")

    # -- writing ---------------------------------------------------------------------------------------------
    @property
    def finished(self) -> str:
        """Text of the number of the finished sum of column t, in row f."""
        return f"f * {self.schedule.strip} + t" if self.work.down.finished > 1 else "t"

    @contextlib.contextmanager
    def each_finished(self, w: Writer) -> Iterator[None]:
        """Loops over the rows f and columns t that a step finishes."""
        with contextlib.ExitStack() as stack:
            if self.work.down.finished > 1:
                stack.enter_context(w.block(f"for f in tl.static_range({self.work.down.finished}):"))
            stack.enter_context(w.block(f"for t in tl.static_range({w.uses.WIDE}):"))
            yield

    def _out_at(self) -> tuple[str, str]:
        """Texts of the position along the walk and across it."""
        down, across = self.work.down, self.work.across
        row = self.down_out + (f" + f{times(down.output_spacing)}" if down.finished > 1 else "")
        return row, f"{self.across_out} + t{times(across.output_spacing)}"

    def stored(self, w: Writer) -> str:
        """Text of the lanes whose result is on the map and complete."""
        c, down, across, tests = w.uses, self.work.down, self.work.across, ["lane_ok"]
        row, column = self._out_at()
        last = (self.work.strips(self.schedule) // across.classes - 1) * self.steps
        made = across.made(0, last, self.schedule.strip)
        name = self.out[0 if self.work.swapped else 1]
        tests += [f"({column} >= 0)"] if made[0] < 0 else []
        tests += [f"({column} < {c[name]})"] if made[1] >= across.outputs else []
        last = self.work.walks(self.schedule) // down.classes * self.schedule.walk - 1
        made = down.made(0, last, down.finished)
        name = self.out[1 if self.work.swapped else 0]
        before = self.work.before(self.schedule)
        tests += [f"(step >= {before})"] if before else []
        tests += [f"({row} >= 0)"] if made[0] < 0 else []
        tests += [f"({row} < {c[name]})"] if made[1] >= down.outputs else []
        return " & ".join(tests)

    def offset(self, w: Writer) -> str:
        """Text of where the result of column t, in row f, is stored."""
        c, down, across = w.uses, self.work.down, self.work.across
        text = f"at + t * {_factor(across.output_spacing, self._pitch(c, self.out, False))}"
        if down.finished > 1:
            text += f" + f * {_factor(down.output_spacing, self._pitch(c, self.out, True))}"
        return text

    def pixel(self, w: Writer) -> str:
        """Text of the number of the pixel of column t, in row f."""
        c = w.uses
        row, column = self._out_at()
        if self.work.swapped:
            row, column = column, row
        return f"(image * {c[self.out[0]]} + {row}) * {c[self.out[1]]} + {column}"

    def hand_on(self, w: Writer) -> None:
        """To the results of the next step."""
        down = self.work.down
        step = down.unit * down.dilation if down.transposed else down.sparse
        w.line()
        if down.carried:
            first = f"{down.finished} * {w.uses.WIDE}" if down.finished > 1 else w.uses.WIDE
            w.line(f"sums = under_way[{first}:]")
        w.line(f"{self.down_out} += {step}")
        w.line(f"at += {_times(step, self._pitch(w.uses, self.out, True))}")


def _times(count: int, pitch: str) -> str:
    return pitch if count == 1 else f"{count} * {pitch}"


def _factor(count: int, pitch: str) -> str:
    """The same as a factor."""
    text = _times(count, pitch)
    return f"({text})" if "*" in text else text
