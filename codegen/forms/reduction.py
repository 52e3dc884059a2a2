"""Sums and means over axes.

Over all axes but the channels, a first kernel sums chunks of constant length and a second adds the chunks up,
in one fixed order: the same numbers give the same result, bit for bit. Every other choice of axes is one
kernel whose programs walk what they sum over.
"""

from __future__ import annotations

from math import prod

from ...graph.ir import Node
from ...graph.ops import Reduce
from ...planning.forms.sums import sums
from ...planning.regions import Region
from ...planning.schedules import Schedule
from ..text.formulas import Values, compose, known
from ..text.jit_function import JitFunction
from ..text.names import Names
from ..text.printers import mathematics
from ..text.source import KernelFile
from ..text.writer import Writer
from .general_reduction import in_brackets, times
from .tile import Tile, rounded

STEPS = 8
"""Tiles a program of the first kernel adds up."""


def emit_channel_sums(region: Region, schedule: Schedule) -> KernelFile:
    """A region of sums over all pixels, with a pointwise prologue."""
    return _ChannelSums(region, sums(region), schedule).file()


class _ChannelSums:
    """total[c] = sum over all pixels of value[pixel, c]."""

    def __init__(self, region: Region, sums: list[Node], schedule: Schedule) -> None:
        self.region, self.sums = region, sums
        self.names = Names(region)
        self.before = [node for node in region.nodes if node not in sums]
        self.source = region.graph[sums[0].inputs[0]]
        self.shape = self.source.type.shape
        self.channels = self.source.type.channels
        self.pixels = prod(int(d) for d in self.shape[1:-1])
        self.schedule = schedule
        self.column_ok = "column_ok" if self.channels % self.schedule.block_n else ""
        self.two_stages = self.pixels > 1

    def file(self) -> KernelFile:
        jitted = [self._chunks(), self._finish()] if self.two_stages else [self._at_once()]
        per_chunk = STEPS * self.schedule.block_m
        plan = [
            f"a program of the first kernel adds {STEPS} tiles of {self.schedule.block_m} pixels and "
            f"{self.schedule.block_n} channels; the second adds these chunks up, always in the same order."
            if self.two_stages
            else f"a program adds the rows of {self.schedule.block_n} channels, "
            f"{self.schedule.block_m} at a time."
        ]
        constants: dict[str, tuple[object, str]] = {
            "BLOCK_R": (self.schedule.block_m, "pixels of a tile"),
            "BLOCK_C": (self.schedule.block_n, "channels of a tile"),
        }
        if self.two_stages:
            constants["STEPS"] = (STEPS, f"tiles a program adds up: chunks of {per_chunk} pixels")
        return KernelFile(
            self.region,
            self.names,
            summary="Sums over all pixels, one for each channel.",
            formula=self._formula(),
            plan=plan,
            constants=constants,
            functions=jitted,
            launch=self._launch(jitted),
            schedule=self.schedule,
            sum_length=16 * self.pixels,
        )

    def _formula(self) -> list[str]:
        values: Values = {}
        lines = compose(self.names, self.before, values)
        for node in self.sums:
            value = mathematics(known(self.names, values, node.inputs[0]))
            word = "mean" if node.op.mean else "sum"  # type: ignore[attr-defined]
            lines.append(f"{self.names.role[node.name]}[c] = {word} over the pixels of {value}")
        return lines

    # -- kernels ----------------------------------------------------------------------------------------
    def _function(
        self, name: str, doc: str, tensors: list[tuple[str, str]], numbers: list[str]
    ) -> JitFunction:
        constants: dict[str, object] = {"BLOCK_R": self.schedule.block_m, "BLOCK_C": self.schedule.block_n}
        return JitFunction(name, tensors, numbers, constants, doc=doc, warps=self.schedule.warps)

    def _operands(self, nodes: list[Node]) -> list[tuple[str, str]]:
        return [(self.names.pointer(node), node.type.dtype) for node in nodes]

    def _read(self) -> list[Node]:
        kept = [node for node in self.region.outputs if node not in self.sums]
        return [*self.region.inputs, *kept]

    def _partial(self, node: Node) -> str:
        place = self.sums.index(node)
        return "partial" if place == 0 else f"partial{place + 1}"

    def _columns(self, body: Writer, axis: int) -> None:
        body.line(
            f"channel = tl.program_id({axis}) * BLOCK_C + tl.arange(0, BLOCK_C)[None, :]", "[1, BLOCK_C]"
        )
        if self.column_ok:
            body.line(f"column_ok = channel < {self.channels}", "[1, BLOCK_C]")

    def _accumulators(self, body: Writer) -> dict[str, str]:
        made = {}
        for node in self.sums:
            made[node.name] = "sums" + self._partial(node).removeprefix("partial")
            body.line(f"{made[node.name]} = tl.zeros([BLOCK_R, BLOCK_C], tl.float32)")
        return made

    def _add_tile(self, body: Writer, made: dict[str, str]) -> None:
        """Lines that add one tile of pixels to the accumulators."""
        body.line(f"row_ok = pixel < {times('batch', self.pixels)}", "[BLOCK_R, 1]")
        tile = Tile(
            self.names, self.shape, column="channel", column_ok=self.column_ok, note="[BLOCK_R, BLOCK_C]",
            row_note="[BLOCK_R, 1]", column_note="[1, BLOCK_C]",
        )  # fmt: skip
        tile.emit(body, self.before)
        for node in self.sums:
            value = tile.load(body, self.region.graph[node.inputs[0]])
            if node.inputs[0] in self.region.members:  # a masked element need not have become 0
                value = f"tl.where({tile.ok}, {value}, 0.0)"
            body.line(f"{made[node.name]} += {value}", tile.note)

    def _result(self, body: Writer, node: Node, sums: str) -> None:
        role = self.names.role[node.name]
        body.line(f"{role} = tl.sum({sums}, axis=0)[None, :]", "[1, BLOCK_C]")
        if node.op.mean:  # type: ignore[attr-defined]
            body.line(f"{role} = {role} / {in_brackets(times('batch', self.pixels))}", "[1, BLOCK_C]")
        mask = f", mask={self.column_ok}" if self.column_ok else ""
        body.line(f"tl.store({role}_ptr + channel, {rounded(role, node)}{mask})")

    def _at_once(self) -> JitFunction:
        outputs = [*self._operands(self._read()), *self._operands(self.sums)]
        jit = self._function(
            f"{self.region.name}_kernel",
            "Each program adds all rows of BLOCK_C channels.",
            outputs,
            ["batch"],
        )
        self._columns(jit.body, 0)
        made = self._accumulators(jit.body)
        jit.body.line("first = 0")
        with jit.body.block("while first < batch:"):
            jit.body.line("pixel = first + tl.arange(0, BLOCK_R)[:, None]", "[BLOCK_R, 1]")
            self._add_tile(jit.body, made)
            jit.body.line("first += BLOCK_R")
        for node in self.sums:
            self._result(jit.body, node, made[node.name])
        return jit

    def _chunks(self) -> JitFunction:
        partials = [(f"{self._partial(node)}_ptr", "float32") for node in self.sums]
        tensors = [*self._operands(self._read()), *partials]
        jit = self._function(
            f"{self.region.name}_kernel", "Each program adds one chunk of the pixels.", tensors, ["batch"]
        )
        jit.constants["STEPS"] = STEPS
        body = jit.body
        body.line("chunk = tl.program_id(0)")
        self._columns(body, 1)
        made = self._accumulators(body)
        with body.block("for step in range(STEPS):"):
            body.line("block = chunk * STEPS + step")
            body.line("pixel = block * BLOCK_R + tl.arange(0, BLOCK_R)[:, None]", "[BLOCK_R, 1]")
            self._add_tile(body, made)
        mask = f", mask={self.column_ok}" if self.column_ok else ""
        for node in self.sums:
            total = f"tl.sum({made[node.name]}, axis=0)[None, :]"
            body.line(
                f"tl.store({self._partial(node)}_ptr + chunk * {self.channels} + channel, {total}{mask})"
            )
        return jit

    def _finish(self) -> JitFunction:
        partials = [(f"{self._partial(node)}_ptr", "float32") for node in self.sums]
        means = any(isinstance(n.op, Reduce) and n.op.mean for n in self.sums)
        numbers = ["chunks", "batch"] if means else ["chunks"]
        tensors = [*partials, *self._operands(self.sums)]
        jit = self._function(
            "add_chunks",
            "Each program adds up the chunks of BLOCK_C channels.",
            tensors,
            numbers,
        )
        body = jit.body
        self._columns(body, 0)
        made = self._accumulators(body)
        body.line("first = 0")
        with body.block("while first < chunks:"):
            body.line("chunk = first + tl.arange(0, BLOCK_R)[:, None]", "[BLOCK_R, 1]")
            ok = "(chunk < chunks)" + (f" & {self.column_ok}" if self.column_ok else "")
            for node in self.sums:
                address = f"{self._partial(node)}_ptr + chunk * {self.channels} + channel"
                body.line(
                    f"{made[node.name]} += tl.load({address}, mask={ok}, other=0.0)", "[BLOCK_R, BLOCK_C]"
                )
            body.line("first += BLOCK_R")
        for node in self.sums:
            self._result(body, node, made[node.name])
        return jit

    def _launch(self, jitted: list[JitFunction]) -> Writer:
        writer, roles = Writer(), self.names.role
        first = next(n for n in self.region.inputs if n.type.batched)
        read, written = [roles[n.name] for n in self._read()], [roles[n.name] for n in self.sums]
        columns = f"triton.cdiv({self.channels}, BLOCK_C)"
        writer.line(f"batch = {roles[first.name]}.shape[0]")
        if not self.two_stages:
            writer.line(jitted[0].call(f"({columns},)", [*read, *written]))
            return writer
        partials = [self._partial(node) for node in self.sums]
        writer.line(f"chunks = triton.cdiv(batch * {self.pixels}, STEPS * BLOCK_R)")
        writer.line(f"columns = {columns}")
        device = f"dtype=torch.float32, device={roles[first.name]}.device"
        for partial in partials:
            writer.line(f"{partial} = torch.empty((chunks, {self.channels}), {device})")
        writer.line(jitted[0].call("(chunks, columns)", [*read, *partials]))
        writer.line(jitted[1].call("(columns,)", [*partials, *written]))
        return writer
