"""The kernel that writes a first layer's map with its border of zeros and LANES channels a pixel.

What stands before the convolution is computed here, once for each element.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...graph.ir import Node
from ...planning.forms.first import LANES, Laid
from ...planning.products import source_operand
from ...planning.regions import Region
from ..text.indices import plus, times
from ..text.jit_function import JitFunction
from ..text.names import Names
from ..text.source import TRITON_TYPES
from ..text.writer import Uses, Writer
from .contraction import Constants, spatial
from .tile import Tile

BLOCK = 256
"""Pixels of the laid map that a program writes: eight elements a thread."""


@dataclass(frozen=True)
class LayOut:
    """Of one file: its operand, how its map lies, and the element type it is laid out in.

    beyond: pixels of zeros behind the last image.
    """

    region: Region
    names: Names
    map: Laid
    dtype: str
    beyond: int = 0

    @property
    def source(self) -> Node:
        """The anchor's operand, as it is laid out."""
        return self.region.graph[self.region.anchor.inputs[0]]

    @property
    def operands(self) -> list[Node]:
        """What it reads: the map, or what the members before the anchor are made from."""
        if not self.region.prologue:
            return [self.source]
        read = {name for node in self.region.prologue for name in node.inputs}
        return [node for node in self.region.inputs if node.name in read]

    @property
    def others(self) -> list[Node]:
        """Operands of the region that are read when the map has been laid out."""
        before = {node.name for node in self.region.prologue}
        read = {
            name
            for node in self.region.nodes
            if node.name not in before
            for name in (node.inputs[1:] if node is self.region.anchor else node.inputs)
        }
        return [node for node in self.region.inputs if node.name in read]

    def constants(self) -> Constants:
        """What the laid map brings to the top of the file."""
        return {
            "LAID_H": (self.map.height, "height of the map as it is laid out, with its border"),
            "LAID_W": (self.map.width, "width"),
            "LANES": (LANES, "channels of its pixels, those beyond C being 0"),
            "BLOCK_L": (BLOCK, "pixels that a program lays out"),
            "BEYOND": (self.beyond, "pixels of zeros behind the last image"),
        }

    def plan(self) -> str:
        """What the file's header says of it."""
        m = self.map
        return (
            f"A first kernel writes the map of {self.source.type.channels} channels with its border, "
            f"{m.height}x{m.width}, and {LANES} channels a pixel, so that a row of {m.axes[1].taps} taps is "
            f"a run of neighbours and none lies outside."
        )

    def lane(self, c: Uses) -> str:
        """Text of where element `e` of a row of taps, (s, c), lies behind the first."""
        step = self.map.axes[1].step
        return "e" if step == 1 else f"e // {c.LANES} * ({step} * {c.LANES}) + e % {c.LANES}"

    def row(self, c: Uses) -> str:
        """Text of the elements from one row of taps to the next."""
        return f"{c.LAID_W} * {c.LANES}{times(self.map.axes[0].step)}"

    def function(self, constants: Constants) -> JitFunction:
        """constants: all of the file."""
        w = Writer()
        c = w.uses
        h, width = spatial(self.source)
        size = f"({c.LAID_H} * {c.LAID_W})"
        w.line("first = tl.program_id(0).to(tl.int64) * BLOCK_L", "first pixel of the block")
        w.line("lane = tl.arange(0, BLOCK_L)[:, None]", "[BLOCK_L, 1]")
        w.line(f"channel = tl.arange(0, {c.LANES})[None, :]", "[1, LANES]")
        w.line(f"place = (first % {size}).to(tl.int32) + lane", "counted from the block's first image")
        w.line(f"image = (first // {size}).to(tl.int32) + place // {size}")
        w.line(f"i = place // {c.LAID_W} % {c.LAID_H}{plus(-self.map.top)}", "row of the map")
        w.line(f"j = place % {c.LAID_W}{plus(-self.map.left)}", "column")
        w.line(f"pixel = (image * {c.H} + i) * {c.W} + j")
        w.line(f"row_ok = {' & '.join(['(first + lane < laid_pixels)', *self._inside(c)])}", "[BLOCK_L, 1]")
        channels = self.source.type.channels
        if channels < LANES:
            w.line(f"column_ok = channel < {c.C}", "[1, LANES]")
        self._value(w, channels < LANES)
        c.note("BLOCK_L")
        pointers = [(self.names.pointer(node), node.type.dtype) for node in self.operands]
        return JitFunction(
            "lay_out",
            [*pointers, ("laid_ptr", self.dtype)],
            ["laid_pixels", *(["batch"] if "batch" in c else [])],
            {name: value for name, (value, _) in constants.items() if name in c},
            w,
            f"{h} x {width} pixels within a border of zeros, each of LANES channels.",
        )

    def _inside(self, c: Uses) -> list[str]:
        """Comparisons that tell the map from its border."""
        (h, width), m, tests = spatial(self.source), self.map, []
        for place, before, size, extent, all_of_it in (
            ("i", m.top, h, "H", m.height), ("j", m.left, width, "W", m.width),
        ):  # fmt: skip
            tests += [f"({place} >= 0)"] if before > 0 else []
            tests += [f"({place} < {c[extent]})"] if all_of_it - before > size else []
        return tests

    def _value(self, w: Writer, narrow: bool) -> None:
        """Compute what is laid out, and store it; zeros where there is no element."""
        tile = Tile(
            self.names,
            self.source.type.shape,
            column="channel",
            column_ok="column_ok" if narrow else "",
            note="[BLOCK_L, LANES]",
            row_note="[BLOCK_L, 1]",
            column_note="[1, LANES]",
        )
        tile.emit(w, self.region.prologue)
        value = tile.load(w, self.source)
        if self.region.prologue:  # of a 0 outside it need not be 0
            value = f"tl.where({tile.ok}, {value}, 0.0)"
        cast = "" if self.dtype == "float32" else f".to({TRITON_TYPES[self.dtype]})"
        at = f"laid_ptr + (first + lane) * {w.uses.LANES} + channel"
        w.line(f"tl.store({at}, {value}{cast}, mask=first + lane < {self._all(w.uses)})")

    def _all(self, c: Uses) -> str:
        """Text of the pixels there are."""
        return f"laid_pixels + {c.BEYOND}" if self.beyond else "laid_pixels"

    def call(self, w: Writer, function: JitFunction, c: Uses) -> None:
        """Lines of a launch that make `laid`; `batch` is known."""
        x = self.names.role[source_operand(self.region).name]
        pixels = self._all(c)
        w.line(f"laid_pixels = batch * {c.LAID_H} * {c.LAID_W}")
        size = f"({pixels}, {c.LANES})"
        w.line(f"laid = torch.empty({size}, dtype=torch.{self.dtype}, device={x}.device)")
        tensors = [*(self.names.role[node.name] for node in self.operands), "laid"]
        c.note(*function.body.uses)
        w.line(function.call(f"(triton.cdiv({pixels}, {c.BLOCK_L}),)", tensors))
