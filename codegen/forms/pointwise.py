"""Pointwise regions: one pass over the elements, whatever their rank.

The result is one flat run of N * IMAGE elements, cut into blocks. An operand of another shape is read at the
place that the element's position within its image tells, so that any broadcasting works.
"""

from __future__ import annotations

from math import prod

from ...graph.ir import Node
from ...planning.geometry import broadcast_kind
from ...planning.regions import Region
from ...planning.schedules import Schedule
from ..text.formulas import compose
from ..text.jit_function import JitFunction
from ..text.names import Names
from ..text.source import KernelFile, image_size
from ..text.titles import title
from ..text.writer import Writer
from .tile import Tile


class FlatTile(Tile):
    """A block of neighbouring elements; operands are addressed by the element's position."""

    def __init__(self, names: Names, shape: tuple[int | str, ...]) -> None:
        super().__init__(names, shape, row_ok="inside", column_ok="", note="[BLOCK]")
        self.batched = bool(shape) and shape[0] == "N"
        self._inner = [int(d) for d in (shape[1:] if self.batched else shape)]
        self._position: set[str] = set()

    @property
    def image(self) -> int:
        return prod(self._inner)

    @property
    def channels(self) -> int:
        return self._inner[-1] if self._inner else 1

    def start(self, writer: Writer) -> None:
        """The block's elements and which of them exist."""
        if self.batched:
            writer.line("first = tl.program_id(0).to(tl.int64) * BLOCK", "first element of the block")
            writer.line("lane = tl.arange(0, BLOCK)", "[BLOCK]")
            writer.line("at = first + lane", "[BLOCK]")
            writer.line("inside = at < batch.to(tl.int64) * IMAGE", "[BLOCK]")
        else:
            writer.line("at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)", "[BLOCK]")
            writer.line("inside = at < IMAGE", "[BLOCK]")

    def offset_in_a_run(self, writer: Writer) -> str:
        return "at"

    def offset_in_rows(self, writer: Writer, pitch: int) -> str:
        element, channels = self.image_element(writer), self.channels
        inner = f"{element} // {channels} * {pitch} + {element} % {channels}"
        if not self.batched:
            return f"({inner})"
        return f"({self.image_number(writer)} * {self.image // channels * pitch} + {inner})"

    def address(self, writer: Writer, node: Node) -> tuple[str, str, str]:
        kind = broadcast_kind(node.type.shape, self.shape)
        if kind == "full":
            return self.offset(writer, node), "inside", "[BLOCK]"
        if kind == "scalar":
            return "", "", "one number"
        return self._broadcast(writer, node), "inside", "[BLOCK]"

    def _broadcast(self, writer: Writer, node: Node) -> str:
        """Offset of an operand of fewer elements, from the position of each element."""
        own = (1,) * (len(self.shape) - node.type.rank) + node.type.shape
        terms, stride = [], 1
        following = 1
        for dim, size in zip(reversed(own[1:] if self.batched else own), reversed(self._inner), strict=True):
            if dim != 1:
                terms.append(self._coordinate(writer, following, size, stride))
            following *= size
            stride *= int(dim)
        if self.batched and own[0] == "N":
            image = self.image_number(writer)
            terms.append(f"{image} * {stride}" if stride > 1 else image)
        return " + ".join(reversed(terms))

    def _coordinate(self, writer: Writer, following: int, size: int, stride: int) -> str:
        """Text of one axis's coordinate times the operand's stride."""
        element = self.image_element(writer)
        text = f"{element} // {following}" if following > 1 else element
        text = f"{text} % {size}" if following > 1 and following * size < self.image else text
        text = f"{text} % {size}" if following == 1 and size < self.image else text
        return text if stride == 1 else f"({text}) * {stride}" if " " in text else f"{text} * {stride}"

    def image_element(self, writer: Writer) -> str:
        """The element's position within its image, in 32 bits: divisions of 64 bits are slow."""
        if not self.batched:
            return "at"
        self._need(writer, "place", "place = (first % IMAGE).to(tl.int32) + lane")
        return self._need(writer, "element", "element = place % IMAGE")

    def image_number(self, writer: Writer) -> str:
        """Which image the element belongs to."""
        self._need(writer, "place", "place = (first % IMAGE).to(tl.int32) + lane")
        return self._need(writer, "image", "image = first // IMAGE + place // IMAGE")

    def _need(self, writer: Writer, name: str, line: str) -> str:
        if name not in self._position:
            self._position.add(name)
            writer.line(line, "[BLOCK]")
        return name


def emit_pointwise(region: Region, schedule: Schedule) -> KernelFile:
    """A region of pointwise members alone."""
    names = Names(region)
    last = region.nodes[-1]
    tile = FlatTile(names, last.type.shape)
    image = image_size(last)
    jit = JitFunction(
        f"{region.name}_kernel",
        [(names.pointer(n), n.type.dtype) for n in [*region.inputs, *region.outputs]],
        ["batch"] if tile.batched else [],
        {"IMAGE": image, "BLOCK": schedule.block_m},
        doc="Each program computes BLOCK neighbouring elements.",
        warps=schedule.warps,
        stages=schedule.stages,
    )
    tile.start(jit.body)
    tile.emit(jit.body, region.nodes)
    launch = Writer()
    out = names.role[last.name]
    if tile.batched:
        launch.line(f"batch = {out}.shape[0]")
    size = "batch * IMAGE" if tile.batched else "IMAGE"
    tensors = [names.role[n.name] for n in [*region.inputs, *region.outputs]]
    launch.line(jit.call(f"(triton.cdiv({size}, BLOCK),)", tensors))
    return KernelFile(
        region,
        names,
        summary=f"{title(region)}, element by element.",
        formula=compose(names, region.nodes, {}),
        plan=[
            f"each program computes {schedule.block_m} neighbouring elements with {schedule.many_warps};",
            "every operand is read once and every result written once, so memory's bandwidth is the limit.",
        ],
        constants={
            "IMAGE": (image, "elements of one image" if tile.batched else "elements"),
            "BLOCK": (schedule.block_m, "elements a program computes"),
        },
        functions=[jit],
        launch=launch,
        schedule=schedule,
    )
