"""A sum over any axes: each program computes some results and walks all that each of them is made of."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from ...graph.ir import Node
from ...planning.forms.sums import sums as sums_of
from ...planning.regions import Region
from ...planning.schedules import Schedule
from ..text.formulas import Values, compose, known
from ..text.jit_function import JitFunction
from ..text.names import Names
from ..text.printers import mathematics
from ..text.source import KernelFile
from ..text.writer import Writer
from .pointwise import FlatTile
from .tile import rounded


@dataclass(frozen=True)
class _Walk:
    """Coordinates of a flat number over some axes. axes: (axis, size); the batch has size 0."""

    name: str
    axes: tuple[tuple[int, int], ...]

    @property
    def size(self) -> int:
        """Elements, of one image where the batch is among the axes."""
        return prod(size for _, size in self.axes if size)

    @property
    def over_batch(self) -> bool:
        return any(size == 0 for _, size in self.axes)

    def coordinates(self) -> dict[int, str]:
        """axis -> text of the coordinate."""
        found, following = {}, 1
        for axis, size in reversed(self.axes):
            text = f"{self.name} // {following}" if following > 1 else self.name
            if (size and following * size < self.size) or (size and self.over_batch):
                text += f" % {size}"
            found[axis] = text
            following *= size
        return found


class _ReductionTile(FlatTile):
    """A tile whose elements are told by `image` and `element`."""

    def __init__(self, names: Names, shape: tuple[int | str, ...]) -> None:
        super().__init__(names, shape)
        self.note = "[BLOCK_R, BLOCK_O]"

    def image_element(self, writer: Writer) -> str:
        return "element"

    def image_number(self, writer: Writer) -> str:
        return "image"

    def address(self, writer: Writer, node: Node) -> tuple[str, str, str]:
        offset, ok, note = super().address(writer, node)
        return offset, ok, self.note if note == "[BLOCK]" else note


def emit_sums(region: Region, schedule: Schedule) -> KernelFile:
    """A region of sums over the same axes, whichever they are."""
    names, sums = Names(region), sums_of(region)
    op: Any = sums[0].op
    source = region.graph[sums[0].inputs[0]]
    sizes = [0 if dim == "N" else int(dim) for dim in source.type.shape]
    kept = _Walk("result", tuple((a, s) for a, s in enumerate(sizes) if a not in op.axes))
    gone = _Walk("term", tuple((a, s) for a, s in enumerate(sizes) if a in op.axes))
    operands = [*region.inputs, *region.outputs]
    jit = JitFunction(
        f"{region.name}_kernel",
        [(names.pointer(n), n.type.dtype) for n in operands],
        ["batch"] if 0 in sizes else [],
        {"BLOCK_R": schedule.block_m, "BLOCK_O": schedule.block_n},
        doc="Each program computes BLOCK_O results, walking BLOCK_R of their terms at a time.",
        warps=schedule.warps,
    )
    _body(jit.body, names, sums, source, kept, gone)
    launch = Writer()
    batched = next((n for n in operands if n.type.batched), None)
    if batched is not None:
        launch.line(f"batch = {names.role[batched.name]}.shape[0]")
    launch.line(jit.call(f"(triton.cdiv({_extent(kept)}, BLOCK_O),)", [names.role[n.name] for n in operands]))
    values: Values = {}
    formula = compose(names, [n for n in region.nodes if n not in sums], values)
    word = "mean" if op.mean else "sum"
    for node in sums:
        value = mathematics(known(names, values, node.inputs[0]))
        formula.append(
            f"{names.role[node.name]} = {word} over the axes {', '.join(map(str, op.axes))} of {value}"
        )
    return KernelFile(
        region,
        names,
        summary=f"{word.capitalize()}s over the axes {', '.join(map(str, op.axes))}.",
        formula=formula,
        plan=[
            f"each program computes {schedule.block_n} results, {schedule.block_m} of their terms at a time."
        ],
        constants={
            "BLOCK_R": (schedule.block_m, "terms of a tile"),
            "BLOCK_O": (schedule.block_n, "results of a program"),
        },
        functions=[jit],
        launch=launch,
        schedule=schedule,
        sum_length=gone.size * (16 if gone.over_batch else 1),
    )


def times(name: str, factor: int) -> str:
    return f"{name} * {factor}" if factor > 1 else name


def _extent(walk: _Walk) -> str:
    return times("batch", walk.size) if walk.over_batch else str(walk.size)


def _body(body: Writer, names: Names, sums: list[Node], source: Node, kept: _Walk, gone: _Walk) -> None:
    region, note = names.region, "[BLOCK_R, BLOCK_O]"
    body.line("result = tl.program_id(0) * BLOCK_O + tl.arange(0, BLOCK_O)[None, :]", "[1, BLOCK_O]")
    body.line(f"result_ok = result < {_extent(kept)}", "[1, BLOCK_O]")
    made = {node.name: "sums" if i == 0 else f"sums{i + 1}" for i, node in enumerate(sums)}
    for sum_name in made.values():
        body.line(f"{sum_name} = tl.zeros([BLOCK_R, BLOCK_O], tl.float32)")
    body.line("first = 0")
    with body.block(f"while first < {_extent(gone)}:"):
        body.line("term = first + tl.arange(0, BLOCK_R)[:, None]", "[BLOCK_R, 1]")
        body.line(f"inside = (term < {_extent(gone)}) & result_ok", note)
        _place(body, source, {**kept.coordinates(), **gone.coordinates()}, note)
        tile = _ReductionTile(names, source.type.shape)
        tile.emit(body, [n for n in region.nodes if n not in sums])
        for node in sums:
            value = tile.load(body, region.graph[node.inputs[0]])
            if node.inputs[0] in region.members:  # a masked element need not have become 0
                value = f"tl.where(inside, {value}, 0.0)"
            body.line(f"{made[node.name]} += {value}", note)
        body.line("first += BLOCK_R")
    for node in sums:
        role = names.role[node.name]
        count = f" / {in_brackets(_extent(gone))}" if node.op.mean else ""  # type: ignore[attr-defined]
        body.line(f"{role} = tl.sum({made[node.name]}, axis=0)[None, :]{count}", "[1, BLOCK_O]")
        body.line(f"tl.store({role}_ptr + result, {rounded(role, node)}, mask=result_ok)")


def in_brackets(text: str) -> str:
    """A text that can be divided by."""
    return f"({text})" if " " in text else text


def _place(body: Writer, source: Node, coordinates: dict[int, str], note: str) -> None:
    """Where the elements of the tile lie: `element` of `image`, and `at` in memory."""
    sizes = source.type.size(1)
    terms = []
    for axis in range(1 if source.type.batched else 0, len(sizes)):
        stride = prod(sizes[axis + 1 :])
        text = coordinates[axis]
        terms.append(text if stride == 1 else f"({text}) * {stride}" if " " in text else f"{text} * {stride}")
    inner = " + ".join(terms) or "0"
    if source.type.batched:
        body.line(f"element = {inner}", "place within the image")
        body.line(f"image = ({coordinates[0]}).to(tl.int64)", "which image")
        body.line(f"at = image * {prod(sizes)} + element", note)
    else:
        body.line(f"at = {inner}", note)
