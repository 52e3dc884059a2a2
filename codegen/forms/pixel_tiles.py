"""Kernels whose programs compute a tile of [pixels, channels]: its size, its first lines and its launch."""

from __future__ import annotations

from dataclasses import dataclass

from ...graph.ir import Node
from ...planning.schedules import Schedule
from ..text.jit_function import JitFunction
from ..text.names import Names
from ..text.writer import Writer
from .tile import Tile

UNROLLED = 16
"""Steps up to which a loop over a window is written out by the compiler."""


@dataclass
class PixelTile:
    """A tile of a result (N, ..., C): which pixels and channels a program computes."""

    names: Names
    node: Node
    schedule: Schedule

    @property
    def pixels(self) -> int:
        """Pixels of one image."""
        size = self.node.type.size(1)
        return self.node.type.elements(1) // size[-1]

    @property
    def shape(self) -> tuple[int | str, ...]:
        return self.node.type.shape

    def constants(self) -> dict[str, tuple[object, str]]:
        return {
            "BLOCK_P": (self.schedule.block_m, "pixels of a tile"),
            "BLOCK_C": (self.schedule.block_n, "channels of a tile"),
        }

    def function(self, name: str, doc: str) -> JitFunction:
        """A jitted function over the region's operands, with the tile's first lines written."""
        region = self.names.region
        jit = JitFunction(
            name,
            [(self.names.pointer(n), n.type.dtype) for n in [*region.inputs, *region.outputs]],
            ["batch"],
            {"BLOCK_P": self.schedule.block_m, "BLOCK_C": self.schedule.block_n},
            doc=doc,
            warps=self.schedule.warps,
            stages=self.schedule.stages,
        )
        body, channels = jit.body, self.node.type.channels
        body.line("pixel = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)[:, None]", "[BLOCK_P, 1]")
        body.line("channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)[None, :]", "[1, BLOCK_C]")
        body.line(f"row_ok = pixel < batch * {self.pixels}", "[BLOCK_P, 1]")
        if self.column_ok:
            body.line(f"column_ok = channel < {channels}", "[1, BLOCK_C]")
        return jit

    @property
    def column_ok(self) -> str:
        return "column_ok" if self.node.type.channels % self.schedule.block_n else ""

    def tile(
        self, values: dict[str, str], node: Node | None = None, pixel: str = "pixel", ok: str = "row_ok"
    ) -> Tile:
        """A tile of pointwise members with the shape of `node`, whose pixels are called `pixel`."""
        return Tile(
            self.names,
            (node or self.node).type.shape,
            pixel=pixel,
            column="channel",
            row_ok=ok,
            column_ok=self.column_ok,
            note="[BLOCK_P, BLOCK_C]",
            row_note="[BLOCK_P, 1]",
            column_note="[1, BLOCK_C]",
            values=values,
        )

    def launch(self, jit: JitFunction) -> Writer:
        """Lines of `launch`: one program a tile."""
        region, channels = self.names.region, self.node.type.channels
        writer = Writer()
        roles = [self.names.role[n.name] for n in [*region.inputs, *region.outputs]]
        result = next((n for n in [*region.outputs, *region.inputs] if n.type.batched), self.node)
        writer.line(f"batch = {self.names.role[result.name]}.shape[0]")
        writer.line(f"grid = (triton.cdiv(batch * {self.pixels}, BLOCK_P), triton.cdiv({channels}, BLOCK_C))")
        writer.line(jit.call("grid", roles))
        return writer

    def plan(self, what: str) -> list[str]:
        return [
            f"each program computes {self.schedule.block_m} {what} of {self.schedule.block_n} channels with "
            f"{self.schedule.many_warps};",
            "neighbouring threads read neighbouring channels.",
        ]
