"""Convolutions of few channels a group, and their data gradients, along strips of the map without products.

A lane is one channel of one strip: a few neighbouring columns, over the rows that the program goes down. It
keeps its kernel in registers, loads each row once, a step ahead, and adds it to all the sums it belongs to,
those of rows that are not finished yet included.
"""

from __future__ import annotations

from typing import Any

from ...graph.ir import Node
from ...graph.ops import BroadcastTo, Conv2DDataGrad, Conv2DTranspose
from ...planning.geometry import broadcast_kind
from ...planning.regions import Region
from ...planning.schedules import Schedule
from ..text.indices import plus, times
from ..text.source import KernelFile
from ..text.writer import Writer
from .contraction import Contraction
from .strips import Strips
from .tile import Tile

ONCE = ("channel", "image", "scalar")
"""How operands lie that are the same for all pixels of a strip, and loaded before them."""


def emit_direct(region: Region, schedule: Schedule) -> KernelFile:
    """The kernel of a region whose anchor is a Conv2D or a Conv2DDataGrad (or Conv2DTranspose)."""
    return _Direct(region, schedule).file()


class _Direct(Contraction):
    """Sums over a source map, lane by lane."""

    run_time = ()

    def __init__(self, region: Region, schedule: Schedule) -> None:
        super().__init__(region, schedule, "ieee")
        self.transposed = isinstance(self.op, Conv2DDataGrad)
        role = self.names.role[self.source_operand.name]
        pitch = region.pitches.get(self.source_operand.name)
        self.strips = Strips(region, schedule, self.source.type.channels, role, pitch)
        self.values: dict[str, str] = {}
        """What is loaded once for all pixels of a strip, and then what is known of each."""
        self.constants = self.strips.constants(self._called())

    @property
    def upcast(self) -> bool:
        return False

    @property
    def bias(self) -> Node | None:
        return self.graph[self.anchor.inputs[2]] if len(self.anchor.inputs) > 2 else None

    def _called(self) -> tuple[str, str]:
        """What the two maps are called."""
        if isinstance(self.op, Conv2DTranspose):
            return "x", "y"
        return ("dy", "dx") if self.transposed else ("x", "y")

    def file(self) -> KernelFile:
        function = self.function(self._body(), f"{self.schedule.strip} columns a lane of: {self.summary()}.")
        return self.frame([function], self.launch([function], None, self.grid()), self._formula())

    def grid(self) -> list[str]:
        c = self.at_launch
        return [f"triton.cdiv(batch * {c.STRIPS} * {c[self.strips.lanes]}, {c.BLOCK})", c.WALKS]

    def plan(self) -> list[str]:
        return self.strips.plan()

    # -- the kernel ------------------------------------------------------------------------------------------
    def _body(self) -> Writer:
        w, s = Writer(), self.strips
        w.uses.note("batch")
        s.lanes_and_places(w)
        w.line()
        w.note("The kernel of each lane's channel, and what else is the same for all its pixels")
        s.load_weights(w, self.names.pointer(self.weight))
        self._load_once(w)
        first = self.values[self.bias.name] if self.bias else "tl.zeros((BLOCK,), tl.float32)"
        s.begin_sums(w, first)
        w.line()
        s.start(w)
        s.load_ahead(w)
        with w.block(f"for step in range({s.iterations(w)}):"):
            self._prepare(w)
            s.go_on(w)
            s.load_ahead(w)
            w.line()
            s.add(w)
            self._store_finished(w)
            s.hand_on(w)
        return w

    def _load_once(self, w: Writer) -> None:
        """Operands of channels, images and the whole; and those of a prologue."""
        once = self._tile(self.anchor, pixel="image", shape=("N", 1, 1, self.anchor.type.channels))
        read = self._read_by(self.region.epilogue)
        for node in [*([self.bias] if self.bias else []), *read]:
            if broadcast_kind(node.type.shape, self.anchor.type.shape) in ONCE:
                once.load(w, node)
        before = self._tile(self.source, column=self.strips.source_channel)
        for node in self._read_by(self.region.prologue):
            if node is not self.source_operand:
                before.load(w, node)

    def _read_by(self, nodes: list[Node]) -> list[Node]:
        """Values from outside that these members read."""
        names = dict.fromkeys(
            name
            for node in nodes
            for name in (node.inputs[:1] if isinstance(node.op, BroadcastTo) else node.inputs)
            if name not in self.region.members
        )
        return [self.graph[name] for name in names]

    def _tile(self, node: Node, *, shape: tuple[int | str, ...] = (), **where: Any) -> Tile:
        texts = {"column": "channel", "row_ok": "lane_ok", "values": self.values, **where}
        return Tile(
            self.names, shape or node.type.shape, column_ok="", note="[BLOCK]", row_note="[BLOCK]",
            column_note="[BLOCK]", **texts,
        )  # fmt: skip

    def _prepare(self, w: Writer) -> None:
        """values: what was loaded, in float32, after what stands before the convolution."""
        if not self.region.prologue:
            self.strips.convert(w)
            return
        role = self.names.role[self.source_operand.name]
        w.line("values = ()")
        with self.strips.each_place(w):
            ok = self.strips.inside(w)
            w.line(f"{role} = ahead[{self.strips.place}].to(tl.float32)", "[BLOCK]")
            # A copy: what follows the convolution may read the same operand, at its own pixel.
            before = {**self.values, self.source_operand.name: role}
            tile = self._tile(self.source, column=self.strips.source_channel, values=before)
            tile.emit(w, self.region.prologue)
            w.line(f"values = values + (tl.where({ok}, {before[self.source.name]}, 0.0),)")

    def _store_finished(self, w: Writer) -> None:
        """What happens to the sums of a finished row before they are stored."""
        w.line()
        w.note("Finished sums: what happens to them before they are stored")
        with self.strips.each_finished(w):
            w.line(f"acc = under_way[{self.strips.finished}]", "[BLOCK]")
            w.line(f"ok = {self.strips.stored(w)}", "[BLOCK]")
            w.line(f"offsets = {self.strips.offset(w)}", "[BLOCK]")
            if self._needs_pixel():
                w.line(f"pixel = {self.strips.pixel(w)}", "[BLOCK]")
            self.values[self.anchor.name] = "acc"
            tile = self._tile(self.anchor, row_ok="ok", offset="offsets")
            tile.store_if_output(w, self.anchor)
            tile.emit(w, self.region.epilogue)

    def _needs_pixel(self) -> bool:
        read = self._read_by(self.region.epilogue)
        shape = self.anchor.type.shape
        plain = {broadcast_kind(node.type.shape, shape) for node in read} - {*ONCE, "full"}
        return bool(plain or self.region.pitches)

    def _formula(self) -> list[str]:
        op = self.op
        axes = zip(("r", "s"), op.strides, op.dilation, op.padding, strict=True)
        summed = self.strips.work.summed > 1
        if self.transposed:
            read, _ = self._called()
            places = [
                f"({v}{plus(pad[0])} - {t}{times(step)}){f' / {stride}' if stride > 1 else ''}"
                for v, (t, stride, step, pad) in zip(("h", "v"), axes, strict=True)
            ]
            over = "r,s and k of the group of c" if summed else "r,s"
            channels, weight = ("k", "w[r,s,c,k]") if summed else ("c", "w[r,s,c]")
            text = f"sum over {over} of {read}[n, {', '.join(places)}, {channels}] * {weight}"
            lines = self.equations(text, "[n,h,v,c]")
            rest = max(op.strides) > 1
            return [*lines, "over those r and s that leave no rest in the divisions"] if rest else lines
        places = [
            f"{v}{times(stride)} + {t}{times(step)}{plus(-pad[0])}"
            for v, (t, stride, step, pad) in zip(("p", "q"), axes, strict=True)
        ]
        over = "r,s and c of the group of k" if summed else "r,s"
        group = self.strips.work.group
        channels = "c" if summed else f"k // {group}" if group > 1 else "k"
        weight = "w[r,s,c,k]" if summed else "w[r,s,k]"
        text = f"sum over {over} of x[n, {', '.join(places)}, {channels}] * {weight}"
        return self.equations(text, "[n,p,q,k]")
