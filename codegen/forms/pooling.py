"""Pooling and its gradients.

Forward, a program walks the positions of its windows; backward, each pixel of the map visits the windows that
cover it, so that overlapping windows add up in one fixed order and nothing is written twice.
"""

from __future__ import annotations

from math import prod
from typing import Any

from ...graph.formula import Name
from ...graph.ir import Node
from ...graph.ops import AveragePool2D, MaxPool2D, MaxPoolIndex2D, MaxUnpool2D
from ...planning.products import POOLS
from ...planning.regions import Region
from ...planning.schedules import Schedule
from ..text.formulas import Values, compose, compose_after, known
from ..text.names import Names
from ..text.printers import mathematics
from ..text.source import KernelFile
from ..text.writer import Writer
from .pixel_tiles import UNROLLED, PixelTile
from .tile import Tile, masked

_TITLES: dict[type, str] = {
    MaxPool2D: "maximum",
    MaxPoolIndex2D: "position of the maximum",
    AveragePool2D: "mean",
}

_WORDS: dict[type, str] = {MaxPool2D: "max", MaxPoolIndex2D: "argmax", AveragePool2D: "mean"}


def emit_pooling(region: Region, schedule: Schedule) -> KernelFile:
    """A region around pooling."""
    return _Pool(region, schedule).file()


def emit_unpooling(region: Region, schedule: Schedule) -> KernelFile:
    """A region around a gradient of pooling."""
    return _Unpool(region, schedule).file()


class _Window:
    """What both directions share: geometry, and which coordinates need a test."""

    def __init__(
        self, region: Region, schedule: Schedule, image: Node, pooled: Node, result: Node
    ) -> None:
        self.region = region
        self.names = Names(region)
        self.op = region.anchor.op
        self.image, self.pooled = image, pooled
        self.h, self.w = (int(d) for d in image.type.shape[1:3])
        self.p, self.q = (int(d) for d in pooled.type.shape[1:3])
        op: Any = region.anchor.op
        self.size_h, self.size_w = op.size
        self.step_h, self.step_w = op.strides
        self.padding = op.padding
        (self.top, self.bottom), (self.left, self.right) = op.padding
        self.tile = PixelTile(self.names, result, schedule)

    @property
    def channels(self) -> int:
        return self.image.type.channels

    @property
    def size(self) -> int:
        return int(self.size_h * self.size_w)

    @property
    def padded(self) -> bool:
        return any((self.top, self.bottom, self.left, self.right))

    def loop(self, steps: int) -> str:
        return f"for t in {'tl.static_range' if steps <= UNROLLED else 'range'}({steps}):"

    def geometry_text(self) -> str:
        padding = f", padding {self.padding}" if self.padded else ""
        return f"windows of {self.size_h}x{self.size_w} at steps of {self.step_h}x{self.step_w}{padding}"

    def counted(self, writer: Writer, p: str, q: str) -> str:
        """Text of the number of real elements in the window of each pooled pixel."""
        if not self.padded:
            return str(float(self.size))
        writer.line(
            f"high = tl.minimum({p} * {self.step_h} + {self.size_h - self.top}, {self.h}) "
            f"- tl.maximum({_affine(p, self.step_h, -self.top)}, 0)",
            "rows inside",
        )
        writer.line(
            f"wide = tl.minimum({q} * {self.step_w} + {self.size_w - self.left}, {self.w}) "
            f"- tl.maximum({_affine(q, self.step_w, -self.left)}, 0)",
            "columns inside",
        )
        return "tl.maximum(high * wide, 1).to(tl.float32)"


class _Pool(_Window):
    """y[n,p,q,c] = max or mean of the window of x at (p, q)."""

    def __init__(self, region: Region, schedule: Schedule) -> None:
        image = region.graph[region.anchor.inputs[0]]
        super().__init__(region, schedule, image, region.anchor, region.anchor)
        self.pools = [node for node in region.nodes if isinstance(node.op, POOLS)]
        own = {node.name for node in [*region.prologue, *self.pools]}
        self.after = [node for node in region.nodes if node.name not in own]

    def has(self, op: type) -> bool:
        return any(isinstance(node.op, op) for node in self.pools)

    def file(self) -> KernelFile:
        jit = self.tile.function(
            f"{self.region.name}_kernel", "Each program pools BLOCK_P windows of BLOCK_C channels."
        )
        body = jit.body
        self._corner(body)
        largest = self.has(MaxPool2D) or self.has(MaxPoolIndex2D)
        if largest:
            body.line('best = tl.full([BLOCK_P, BLOCK_C], float("-inf"), tl.float32)')
        if self.has(MaxPoolIndex2D):
            self._first_position(body)
        if self.has(AveragePool2D):
            body.line("sums = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)")
        with body.block(
            self.loop(self.size), f"row {_split('t', self.size_w)[0]}, column {_split('t', self.size_w)[1]}"
        ):
            value, ok = self._value(body, "-inf" if largest else "0.0")
            self._combine(body, value, ok)
        self._finish(body)
        return KernelFile(
            self.region,
            self.names,
            summary=self._title(),
            formula=self._formula(),
            plan=self.tile.plan("windows"),
            constants=self.tile.constants(),
            functions=[jit],
            launch=self.tile.launch(jit),
            schedule=self.tile.schedule,
            sum_length=self.size if self.has(AveragePool2D) else 1,
        )

    def _first_position(self, body: Writer) -> None:
        """Where a window's maximum lies until a larger one is found: a window of -inf names it too."""
        body.line("position = tl.zeros([BLOCK_P, BLOCK_C], tl.int32)")
        if self.top or self.left:
            rows = f"tl.maximum(-top, 0) * {self.size_w}" if self.size_w > 1 else "tl.maximum(-top, 0)"
            body.line(f"position += {rows} + tl.maximum(-left, 0)", "the first pixel that is on the map")

    def _corner(self, body: Writer) -> None:
        """The first pixel of each window."""
        body.line(f"image = pixel // {self.p * self.q}", "[BLOCK_P, 1]")
        row, column = f"pixel // {self.q} % {self.p}", f"pixel % {self.q}"
        if self.has(AveragePool2D) and self.padded:
            body.line(f"p = {row}", "[BLOCK_P, 1]")
            body.line(f"q = {column}", "[BLOCK_P, 1]")
            row, column = "p", "q"
        body.line(f"top = {_affine(row, self.step_h, -self.top)}", "[BLOCK_P, 1]")
        body.line(f"left = {_affine(column, self.step_w, -self.left)}", "[BLOCK_P, 1]")

    def _value(self, body: Writer, outside: str) -> tuple[str, str]:
        """The value at position t of each window: its text, and the mask of those that are real."""
        r, s = _split("t", self.size_w)
        body.line(f"h = top + {r}", "[BLOCK_P, 1]")
        body.line(f"w = left + {s}", "[BLOCK_P, 1]")
        body.line(f"source = (image * {self.h} + h) * {self.w} + w", "[BLOCK_P, 1]")
        ok = "row_ok"
        if self.padded:
            body.line(
                f"inside = row_ok & (h >= 0) & (h < {self.h}) & (w >= 0) & (w < {self.w})", "[BLOCK_P, 1]"
            )
            ok = "inside"
        tile = self.tile.tile({}, self.image, "source", ok)
        if not self.region.prologue:
            other = f'float("{outside}")' if "inf" in outside else outside
            return self._load(body, tile, other), ""
        tile.emit(body, self.region.prologue)
        return tile.load(body, self.image), ok if self.padded else ""

    def _load(self, body: Writer, tile: Tile, other: str) -> str:
        role = self.names.role[self.image.name]
        cast = "" if self.image.type.dtype == "float32" else ".to(tl.float32)"
        where = tile.offset(body, self.image)
        body.line(f"{role} = tl.load({role}_ptr + {where}{masked(tile.ok, other)}){cast}", tile.note)
        return role

    def _combine(self, body: Writer, value: str, ok: str) -> None:
        note = "[BLOCK_P, BLOCK_C]"
        if self.has(AveragePool2D):
            body.line(f"sums += tl.where({ok}, {value}, 0.0)" if ok else f"sums += {value}", note)
        if self.has(MaxPool2D) or self.has(MaxPoolIndex2D):
            if ok:
                body.line(f'{value} = tl.where({ok}, {value}, float("-inf"))', note)
            body.line(f"better = ({value} > best) | ({value} != {value})", "NaN wins")
            if self.has(MaxPoolIndex2D):
                body.line("position = tl.where(better, t, position)", note)
            body.line(f"best = tl.where(better, {value}, best)", note)

    def _finish(self, body: Writer) -> None:
        """Store the pooled values and what follows them."""
        values: dict[str, str] = {}
        tile = self.tile.tile(values)
        for node in self.pools:
            if isinstance(node.op, AveragePool2D):
                count = self.counted(body, "p", "q")
                values[node.name] = self.names.value(node)
                body.line(f"{values[node.name]} = sums / {count}", "[BLOCK_P, BLOCK_C]")
            else:
                values[node.name] = "best" if isinstance(node.op, MaxPool2D) else "position"
            tile.store_if_output(body, node)
        tile.emit(body, self.after)

    def _title(self) -> str:
        what = " and ".join(dict.fromkeys(_TITLES[type(node.op)] for node in self.pools))
        return f"Pooling: the {what} of {self.geometry_text()}."

    def _formula(self) -> list[str]:
        values: Values = {}
        at = (
            f"[n, {_affine('p', self.step_h, -self.top)} + r, {_affine('q', self.step_w, -self.left)} + s, c]"
        )
        lines = compose(self.names, self.region.prologue, values)
        inner = mathematics(known(self.names, values, self.image.name))
        for node in self.pools:
            word = _WORDS[type(node.op)]
            inside = f"{inner}{at}" if inner.isidentifier() else f"({inner}){at}"
            text = f"{word} over r < {self.size_h}, s < {self.size_w} of {inside}"
            stored = node in self.region.outputs
            name = f"{self.names.role[node.name] if stored else 'm'}[n,p,q,c]"
            lines.append(f"{name} = {text}")
            values[node.name] = Name(name)
        return lines + compose(self.names, self.after, values, "{}[n,p,q,c]")


class _Unpool(_Window):
    """dx[n,h,w,c] = sum over the windows that cover (h, w) of what each hands to it."""

    def __init__(self, region: Region, schedule: Schedule) -> None:
        dy = region.graph[region.anchor.inputs[0]]
        super().__init__(region, schedule, region.anchor, dy, region.anchor)
        reach_h, reach_w = -(-self.size_h // self.step_h), -(-self.size_w // self.step_w)
        self.reach = min(reach_h, self.p), min(reach_w, self.q)

    def file(self) -> KernelFile:
        region, largest = self.region, isinstance(self.op, MaxUnpool2D)
        jit = self.tile.function(
            f"{self.region.name}_kernel", "Each program computes BLOCK_P pixels of BLOCK_C channels."
        )
        body = jit.body
        body.line(f"image = pixel // {self.h * self.w}", "[BLOCK_P, 1]")
        body.line(f"h = {_affine(f'pixel // {self.w} % {self.h}', 1, self.top)}", "row, padding counted")
        body.line(f"w = {_affine(f'pixel % {self.w}', 1, self.left)}", "column, padding counted")
        steps = prod(self.reach)
        if steps == 1:
            sums = self.names.value(region.anchor)
            body.line(f"{sums} = {self._one_window(body, largest)}", "[BLOCK_P, BLOCK_C]")
        else:
            sums = "sums"
            body.line("sums = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)")
            a, b = _split("t", self.reach[1])
            with body.block(self.loop(steps), "the windows that may cover the pixel"):
                body.line(f"sums += {self._one_window(body, largest, a, b)}", "[BLOCK_P, BLOCK_C]")
        values = {region.anchor.name: sums}
        tile = self.tile.tile(values)
        tile.store_if_output(body, region.anchor)
        tile.emit(body, [node for node in region.nodes if node is not region.anchor])
        return KernelFile(
            region,
            self.names,
            summary=f"Gradient of {'max' if largest else 'average'} pooling: {self.geometry_text()}.",
            formula=self._formula(largest),
            plan=[
                *self.tile.plan("pixels"),
                f"A pixel lies in at most {steps} window{'s' if steps > 1 else ''}.",
            ],
            constants=self.tile.constants(),
            functions=[jit],
            launch=self.tile.launch(jit),
            schedule=self.tile.schedule,
            sum_length=steps,
        )

    def _one_window(self, body: Writer, largest: bool, a: str = "0", b: str = "0") -> str:
        """Text of what one window hands to each pixel. a, b: windows before the last that may cover it."""
        last_p = _last("h", self.step_h, self.h + self.top, self.p)
        last_q = _last("w", self.step_w, self.w + self.left, self.q)
        body.line(f"p = {last_p}" + (f" - {a}" if a != "0" else ""), "[BLOCK_P, 1]")
        body.line(f"q = {last_q}" + (f" - {b}" if b != "0" else ""), "[BLOCK_P, 1]")
        tests = self._tests()
        if tests:
            body.line(f"inside = row_ok & {' & '.join(tests)}", "[BLOCK_P, 1]")
        ok = "inside" if tests else "row_ok"
        body.line(f"source = (image * {self.p} + p) * {self.q} + q", "pooled pixel")
        tile = self.tile.tile({}, self.pooled, "source", ok)
        dy = tile.load(body, self.pooled)
        if not largest:
            count = self.counted(body, "p", "q")
            return f"{dy} / {count}" if count[0] != "t" else f"tl.where({ok}, {dy} / {count}, 0.0)"
        index = self.region.graph[self.region.anchor.inputs[1]]
        role = self.names.role[index.name]
        body.line(
            f"{role} = tl.load({role}_ptr + {tile.offset(body, index)}{masked(tile.ok, '0')}).to(tl.int32)",
            tile.note,
        )
        own = f"(h - p * {self.step_h}) * {self.size_w} + w - q * {self.step_w}"
        body.line(f"own = {own}", "the pixel's place in the window")
        return f"tl.where({role} == own, {dy}, 0.0)"

    def _tests(self) -> list[str]:
        """Conditions that (p, q) is a window which covers the pixel, those that always hold left out."""
        tests = []
        for name, at, n, step, size, count, reach in (
            ("p", "h", self.h + self.top, self.step_h, self.size_h, self.p, self.reach[0]),
            ("q", "w", self.w + self.left, self.step_w, self.size_w, self.q, self.reach[1]),
        ):
            if reach > 1:
                tests.append(f"({name} >= 0)")
            if size != step or (n - 1) // step >= count:
                tests.append(f"({at} < {name} * {step} + {size})")
        return tests

    def _formula(self, largest: bool) -> list[str]:
        names, region = self.names, self.region
        dy = names.role[self.pooled.name]
        if largest:
            share = f"{dy}[n,p,q,c] where {names.role[region.anchor.inputs[1]]}[n,p,q,c] names (h, w)"
        else:
            share = f"{dy}[n,p,q,c] / elements of the window inside the image"
        text = f"sum over the windows (p, q) that cover (h, w) of {share}"
        return compose_after(names, text, "{}[n,h,w,c]", "g")


def _affine(name: str, factor: int, offset: int) -> str:
    """name * factor + offset, without what does nothing."""
    text = f"{name} * {factor}" if factor != 1 else name
    if factor != 1 and not name.isidentifier():
        text = f"({name}) * {factor}"
    return text + (f" + {offset}" if offset > 0 else f" - {-offset}" if offset < 0 else "")


def _split(name: str, columns: int) -> tuple[str, str]:
    """Row and column of a position in a window of so many columns."""
    return (f"{name} // {columns}", f"{name} % {columns}") if columns > 1 else (name, "0")


def _last(coordinate: str, step: int, extent: int, count: int) -> str:
    """The last of `count` windows that begins at or before a coordinate below `extent`."""
    text = f"{coordinate} // {step}" if step > 1 else coordinate
    return f"tl.minimum({text}, {count - 1})" if (extent - 1) // step >= count else text
