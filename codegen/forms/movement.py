"""Movement: padding, slices, transposes and concatenation, one pass over what is written.

An element's number within the result is cut into coordinates, and these into the place where it lies in the
operand. Concatenation asks each operand in turn; exactly one has the element. A value without a batch axis (a
weight) is moved as one image.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from ...graph.errors import CompileError
from ...graph.ir import Node
from ...graph.ops import Concat, Flip, Pad, Slice, Transpose
from ...planning.regions import Region
from ...planning.schedules import Schedule
from ..text.jit_function import JitFunction
from ..text.names import Names
from ..text.source import KernelFile, image_size
from ..text.writer import Writer, number
from .tile import rounded

AXES = "ijklmno"
"""Coordinates of the axes, the batch aside."""


def emit_movement(region: Region, schedule: Schedule) -> KernelFile:
    """A region of one movement op."""
    node = region.anchor
    batched = node.type.batched
    names = Names(region)
    image = image_size(node)
    operands = [*region.inputs, *region.outputs]
    jit = JitFunction(
        f"{region.name}_kernel",
        [(names.pointer(n), n.type.dtype) for n in operands],
        ["batch"] if batched else [],
        {"IMAGE": image, "BLOCK": schedule.block_m},
        doc="Each program writes BLOCK neighbouring elements.",
        warps=schedule.warps,
    )
    _body(jit.body, names, node)
    launch = Writer()
    if batched:
        launch.line(f"batch = {names.role[node.name]}.shape[0]")
    size = "batch * IMAGE" if batched else "IMAGE"
    launch.line(jit.call(f"(triton.cdiv({size}, BLOCK),)", [names.role[n.name] for n in operands]))
    return KernelFile(
        region,
        names,
        summary=_summary(node),
        formula=_formula(names, node),
        plan=[f"each program writes {schedule.block_m} neighbouring elements with {schedule.many_warps}."],
        constants={
            "IMAGE": (image, "elements of one image of the result" if batched else "elements of the result"),
            "BLOCK": (schedule.block_m, "elements a program writes"),
        },
        functions=[jit],
        launch=launch,
        schedule=schedule,
    )


def _summary(node: Node) -> str:
    op: Any = node.op
    match op:
        case Concat():
            return f"Concatenation along axis {op.axis % node.type.rank}."
        case Pad():
            return f"Padding of {op.padding} with {op.value:g}."
        case Slice():
            return f"The part from {op.starts} to {op.stops} of each image."
        case Flip():
            return f"The other way round along axes {op.axes}."
        case Transpose():
            return f"Axes in the order {op.permutation}."
    raise CompileError(f"{node.name}: {op.op_name()} moves nothing")


def _formula(names: Names, node: Node) -> list[str]:
    lead = ["n"] if node.type.batched else []
    axes = [*lead, *AXES[: node.type.rank - len(lead)]]
    left = f"{names.role[node.name]}[{','.join(axes)}]"
    if isinstance(node.op, Concat):
        parts = ", ".join(names.role[name] for name in node.inputs)
        return [
            f"{names.role[node.name]} = {parts}, one after another along axis {node.op.axis % node.type.rank}"
        ]
    source, _ = _source(node, node.inputs[0], names)
    where = [source[axis].replace(" ", "") for axis in sorted(source)]
    rest = f", or {node.op.value:g} outside" if isinstance(node.op, Pad) else ""
    return [f"{left} = {names.role[node.inputs[0]]}[{','.join([*lead, *where])}]{rest}"]


def _body(body: Writer, names: Names, node: Node) -> None:
    result = names.role[node.name]
    body.line("first = tl.program_id(0).to(tl.int64) * BLOCK", "first element of the block")
    body.line("lane = tl.arange(0, BLOCK)", "[BLOCK]")
    if node.type.batched:
        body.line("inside = first + lane < batch.to(tl.int64) * IMAGE", "[BLOCK]")
        body.line("place = (first % IMAGE).to(tl.int32) + lane", "counted from the block's first image")
        body.line("image = first // IMAGE + place // IMAGE", "[BLOCK]")
        body.line("element = place % IMAGE", "[BLOCK]")
    else:
        body.line("element = first + lane", "[BLOCK]")
        body.line("inside = element < IMAGE", "[BLOCK]")
    write_coordinates(body, node.type.size(1)[_first(node) :])
    value = ""
    start = 0
    for name in node.inputs:
        source = names.region.graph[name]
        coordinates, tests = _source(node, name, names, start)
        start += int(source.type.shape[node.op.axis]) if isinstance(node.op, Concat) else 0
        value = _load(body, names, node, source, coordinates, tests, value)
    body.line(f"tl.store({result}_ptr + first + lane, {rounded(value, node)}, mask=inside)")


def _first(node: Node) -> int:
    """The first axis that is not the batch."""
    return int(node.type.batched)


def write_coordinates(body: Writer, sizes: Sequence[int]) -> None:
    """Lines that cut `element`, a number within an image of these sizes, into coordinates: the AXES."""
    following = 1
    for letter, size in reversed(list(zip(AXES, sizes, strict=False))):
        text = f"element // {following}" if following > 1 else "element"
        text += f" % {size}" if following * size < prod(sizes) else ""
        body.line(f"{letter} = {text}", "[BLOCK]")
        following *= size


def _source(node: Node, operand: str, names: Names, start: int = 0) -> tuple[dict[int, str], list[str]]:
    """Where an element of the result lies in an operand: axis -> coordinate, and tests that it does."""
    op: Any = node.op
    shape = names.region.graph[operand].type.shape
    axes = range(_first(node), node.type.rank)
    at = {axis: AXES[axis - _first(node)] for axis in axes}
    match op:
        case Transpose():
            return {op.permutation[axis]: at[axis] for axis in axes}, []
        case Flip():
            last = {axis: int(shape[axis]) - 1 for axis in op.axes}
            return {axis: f"{last[axis]} - {at[axis]}" if axis in last else at[axis] for axis in axes}, []
        case Slice():
            return {axis: _plus(at[axis], op.starts[axis - 1]) for axis in axes}, []
        case Pad():
            moved = {axis: _plus(at[axis], -op.padding[axis - 1][0]) for axis in axes}
            tests = []
            for axis in axes:
                before, after = op.padding[axis - 1]
                tests += [f"({at[axis]} >= {before})"] if before else []
                tests += [f"({at[axis]} < {before + int(shape[axis])})"] if after else []
            return moved, tests
        case Concat():
            axis = op.axis % node.type.rank
            stop = start + int(shape[axis])
            tests = [f"({at[axis]} >= {start})"] if start else []
            tests += [f"({at[axis]} < {stop})"] if stop < int(node.type.shape[axis]) else []
            return {**at, axis: _plus(at[axis], -start)}, tests
    raise CompileError(f"{node.name}: {op.op_name()} moves nothing")


def _load(
    body: Writer, names: Names, node: Node, source: Node, at: dict[int, str], tests: list[str], before: str
) -> str:
    """Load one operand's elements; returns the name of what the result holds so far."""
    sizes = source.type.size(1)
    sizes = (*sizes[:-1], names.region.pitches.get(source.name, sizes[-1]))
    terms = [f"image * {prod(sizes)}"] if source.type.batched else []
    for axis in sorted(at):
        stride = prod(sizes[axis + 1 :])
        text = at[axis]
        simple = " " not in text or stride == 1
        terms.append(text if stride == 1 else f"{text} * {stride}" if simple else f"({text}) * {stride}")
    value = names.fresh("moved")
    mask = " & ".join(["inside", *tests])
    outside = number(node.op.value) if isinstance(node.op, Pad) else "0.0"
    if not source.type.is_floating:
        outside = outside.split(".")[0]
    body.line(
        f"{value} = tl.load({names.pointer(source)} + {' + '.join(terms)}, mask={mask}, other={outside})"
    )
    if source.type.is_floating and source.type.dtype != "float32":
        body.line(f"{value} = {value}.to(tl.float32)")
    if not before:
        return value
    body.line(f"{value} = tl.where({' & '.join(tests) or 'inside'}, {value}, {before})", "[BLOCK]")
    return value


def _plus(name: str, offset: int) -> str:
    return name if not offset else f"{name} + {offset}" if offset > 0 else f"{name} - {-offset}"
