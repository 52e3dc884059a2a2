"""Sums, means and variances over all axes but the channels.

A first kernel sums parts of the pixels and a second adds the parts up, in one fixed order: the same numbers
give the same result, bit for bit. Where an image is one pixel, one kernel walks the rows.
"""

from __future__ import annotations

from math import prod

from ...graph.ir import Node
from ...graph.ops import Reduce, Variance
from ...planning.forms.sums import channel_split, sums
from ...planning.regions import Region
from ...planning.schedules import Schedule
from ..text.formulas import Values, compose, known
from ..text.jit_function import JitFunction
from ..text.names import Names
from ..text.printers import mathematics
from ..text.source import KernelFile
from ..text.writer import Writer
from .general_reduction import in_brackets, times
from .moments import COLUMNS, carried
from .parts import parts_told
from .tile import Tile, masked, rounded

TILE, ROWS = "[BLOCK_R, BLOCK_C]", "[BLOCK_R, 1]"


def emit_channel_sums(region: Region, schedule: Schedule) -> KernelFile:
    """A region of sums over all pixels, with a pointwise prologue."""
    return _ChannelSums(region, sums(region), schedule).file()


class _ChannelSums:
    """total[c] = sum over all pixels of value[pixel, c]."""

    def __init__(self, region: Region, sums: list[Node], schedule: Schedule) -> None:
        self.region, self.sums, self.schedule = region, sums, schedule
        self.names = Names(region)
        self.before = [node for node in region.nodes if node not in sums]
        self.source = region.graph[sums[0].inputs[0]]
        self.shape = self.source.type.shape
        self.channels = self.source.type.channels
        self.pixels = times("batch", prod(int(d) for d in self.shape[1:-1]))
        self.column_ok = "column_ok" if self.channels % schedule.block_n else ""
        self.two_stages = self.pixels != "batch"
        self.split = channel_split(region, schedule)
        self.carried = carried(sums)
        self.counted = any(one.counted for one in self.carried)

    def file(self) -> KernelFile:
        jitted = [self._parts(), self._finish()] if self.two_stages else [self._at_once()]
        used = {name for function in jitted for name in function.constants}
        return KernelFile(
            self.region,
            self.names,
            summary=f"{self._words()} over all pixels, one for each channel.",
            formula=self._formula(),
            plan=[self._plan()],
            constants={n: v for n, v in self._constants().items() if n in used or n in AT_LAUNCH},
            functions=jitted,
            launch=self._launch(jitted),
            schedule=self.schedule,
            sum_length=16 * self.source.type.elements(1) // self.channels,
            parts=parts_told(self.split, self.channels * len(self._partials())) if self.two_stages else "",
        )

    def _words(self) -> str:
        return "Means and variances" if any(isinstance(n.op, Variance) for n in self.sums) else "Sums"

    def _constants(self) -> dict[str, tuple[object, str]]:
        s = self.schedule
        tile: dict[str, tuple[object, str]] = {
            "BLOCK_R": (s.block_m, "pixels of a tile"),
            "BLOCK_C": (s.block_n, "channels of a tile"),
        }
        if not self.two_stages:
            return tile
        return tile | {
            "CHUNK": (s.chunk, "pixels of a part at least"),
            "MOST_CHUNKS": (self.split.most, "parts, enough to fill the GPU"),
            "TOGETHER": (self.split.together, "parts that the second kernel takes at a time"),
            "BESIDE": (self.split.beside, "channels of a program of it"),
        }

    def _plan(self) -> str:
        s = self.schedule
        if not self.two_stages:
            return f"a program takes the rows of {s.block_n} channels, {s.block_m} at a time."
        return (
            f"a program of the first kernel takes its part of the pixels in tiles of {s.block_m} by "
            f"{s.block_n} channels; the second puts these parts, {self.split.most} at most, together, always "
            f"in the same order."
        )

    def _formula(self) -> list[str]:
        values: Values = {}
        lines = compose(self.names, self.before, values)
        for node in self.sums:
            value = mathematics(known(self.names, values, node.inputs[0]))
            mean = isinstance(node.op, Reduce) and node.op.mean
            word = "variance" if isinstance(node.op, Variance) else "mean" if mean else "sum"
            lines.append(f"{self.names.role[node.name]}[c] = {word} over the pixels of {value}")
        return lines

    # -- kernels ----------------------------------------------------------------------------------------
    def _function(
        self, name: str, doc: str, tensors: list[tuple[str, str]], numbers: list[str], constants: list[str]
    ) -> JitFunction:
        values = self._constants()
        return JitFunction(
            f"{self.region.name}_{name}",
            tensors,
            numbers,
            {constant: values[constant][0] for constant in constants},
            doc=doc,
            warps=self.schedule.warps,
        )

    def _operands(self, nodes: list[Node]) -> list[tuple[str, str]]:
        return [(self.names.pointer(node), node.type.dtype) for node in nodes]

    def _read(self) -> list[Node]:
        kept = [node for node in self.region.outputs if node not in self.sums]
        return [*self.region.inputs, *kept]

    def _partials(self) -> list[str]:
        return [name for one in self.carried for name in one.parts]

    def _columns(self, body: Writer, axis: int, block: str) -> None:
        lanes = f"tl.arange(0, {block})[None, :]"
        body.line(f"channel = tl.program_id({axis}) * {block} + {lanes}", f"[1, {block}]")
        if self.channels % (self.schedule.block_n if block == "BLOCK_C" else self.split.beside):
            body.line(f"column_ok = channel < {self.channels}", f"[1, {block}]")

    def _walk(self, body: Writer, first: str) -> None:
        """Lines that carry all along over `steps` tiles. first: text of the first of them, "" for 0."""
        body.line("lane = tl.arange(0, BLOCK_R)[:, None]", ROWS)
        for one in self.carried:
            one.begin(body, TILE)
        with body.block("for step in range(steps):"):
            block = f"({first} + step)" if first else "step"
            body.line(f"pixel = {block} * BLOCK_R + lane", ROWS)
            body.line(f"row_ok = pixel < {self.pixels}", ROWS)
            if self.counted:
                body.line("share = 1.0 / (step + 1)", "of the new value in the mean")
            tile = Tile(
                self.names, self.shape, column="channel", column_ok=self.column_ok, note=TILE,
                row_note=ROWS, column_note=COLUMNS,
            )  # fmt: skip
            tile.emit(body, self.before)
            for one in self.carried:
                value = tile.load(body, self.region.graph[one.source])
                # A masked element need not have become 0, and is no value of a mean.
                anything = one.counted or one.source in self.region.members
                one.add(body, value, tile.ok if anything else "", TILE)
        if self.counted:
            begin = f"{first} * BLOCK_R - " if first else ""
            body.line(f"rest = {self.pixels} - {begin}lane", "pixels from each row on")
            body.line("seen = tl.minimum(tl.maximum(tl.cdiv(rest, BLOCK_R), 0), steps)", "values of each row")

    def _results(self, body: Writer, folded: list[list[str]], ok: str, note: str) -> None:
        for one, values in zip(self.carried, folded, strict=True):
            for node, text in one.results(values, in_brackets(self.pixels)):
                role = self.names.role[node.name]
                body.line(f"{role} = {text}", note)
                body.line(f"tl.store({role}_ptr + channel, {rounded(role, node)}{masked(ok, None)})")

    def _at_once(self) -> JitFunction:
        jit = self._function(
            "kernel",
            "Each program takes all rows of BLOCK_C channels.",
            [*self._operands(self._read()), *self._operands(self.sums)],
            ["batch"],
            ["BLOCK_R", "BLOCK_C"],
        )
        self._columns(jit.body, 0, "BLOCK_C")
        jit.body.line("steps = tl.cdiv(batch, BLOCK_R)")
        self._walk(jit.body, "")
        self._results(jit.body, [one.fold(jit.body) for one in self.carried], self.column_ok, COLUMNS)
        return jit

    def _parts(self) -> JitFunction:
        partials = [(f"{name}_ptr", "float32") for name in self._partials()]
        jit = self._function(
            "kernel",
            "Each program takes one part of the pixels.",
            [*self._operands(self._read()), *partials],
            ["batch", "steps"],
            ["BLOCK_R", "BLOCK_C"],
        )
        body = jit.body
        body.line("chunk = tl.program_id(0)")
        self._columns(body, 1, "BLOCK_C")
        self._walk(body, "chunk * steps")
        for one in self.carried:
            for name, text in zip(one.parts, one.fold(body), strict=True):
                at = f"{name}_ptr + chunk * {self.channels} + channel"
                body.line(f"tl.store({at}, {text}{masked(self.column_ok, None)})")
        return jit

    def _finish(self) -> JitFunction:
        partials = [(f"{name}_ptr", "float32") for name in self._partials()]
        means = self.counted or any(isinstance(n.op, Reduce) and n.op.mean for n in self.sums)
        numbers = ["chunks", *(["batch"] if means else []), *(["steps"] if self.counted else [])]
        jit = self._function(
            "finish",
            "Each program puts the parts of BESIDE channels together.",
            [*partials, *self._operands(self.sums)],
            numbers,
            [*(["BLOCK_R"] if self.counted else []), "TOGETHER", "BESIDE"],
        )
        body, note = jit.body, "[TOGETHER, BESIDE]"
        self._columns(body, 0, "BESIDE")
        for one in self.carried:
            one.begin(body, note)
        if self.counted:
            body.line("seen = tl.zeros([TOGETHER, 1], tl.int32)", "values of each row so far")
        ragged = "column_ok" if self.channels % self.split.beside else ""
        body.line("first = 0")
        with body.block("while first < chunks:"):
            body.line("chunk = first + tl.arange(0, TOGETHER)[:, None]", "[TOGETHER, 1]")
            body.line(f"inside = (chunk < chunks){f' & {ragged}' if ragged else ''}")
            if self.counted:
                self._counts(body)
            for one in self.carried:
                at = f"chunk * {self.channels} + channel"
                loads = [f"tl.load({name}_ptr + {at}, mask=inside, other=0.0)" for name in one.parts]
                one.merge(body, loads, note)
            if self.counted:
                body.line("seen += count")
            body.line("first += TOGETHER")
        self._results(body, [one.fold(body) for one in self.carried], ragged, "[1, BESIDE]")
        return jit

    def _counts(self, body: Writer) -> None:
        """How many values the parts have, and their share of all so far."""
        body.line(f"rest = tl.where(chunk < chunks, {self.pixels} - chunk * (steps * BLOCK_R), 0)")
        body.line("count = tl.minimum(tl.maximum(rest, 0), steps * BLOCK_R)", "values of each part")
        body.line("share = count / tl.maximum(seen + count, 1)")

    def _launch(self, jitted: list[JitFunction]) -> Writer:
        writer, roles = Writer(), self.names.role
        first = next(n for n in self.region.inputs if n.type.batched)
        read, written = [roles[n.name] for n in self._read()], [roles[n.name] for n in self.sums]
        columns = f"triton.cdiv({self.channels}, BLOCK_C)"
        writer.line(f"batch = {roles[first.name]}.shape[0]")
        if not self.two_stages:
            writer.line(jitted[0].call(f"({columns},)", [*read, *written]))
            return writer
        writer.line(f"chunks = max(1, min(triton.cdiv({self.pixels}, CHUNK), MOST_CHUNKS))")
        writer.line(f"steps = max(1, triton.cdiv(triton.cdiv({self.pixels}, BLOCK_R), chunks))", "of each")
        writer.line(f"chunks = max(1, triton.cdiv({self.pixels}, steps * BLOCK_R))")
        device = f"dtype=torch.float32, device={roles[first.name]}.device"
        partials = self._partials()
        for partial in partials:
            writer.line(f"{partial} = torch.empty((chunks, {self.channels}), {device})")
        writer.line(jitted[0].call(f"(chunks, {columns})", [*read, *partials]))
        writer.line(jitted[1].call(f"(triton.cdiv({self.channels}, BESIDE),)", [*partials, *written]))
        return writer


AT_LAUNCH = ("CHUNK", "MOST_CHUNKS")
"""Constants that no kernel takes."""
