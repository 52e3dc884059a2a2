"""Images under a transform each, and the gradient of that.

Each element of the result is looked up where the transform says: one tap, or four with their weights. The
gradient asks the other way round, so that every sum has one order: a program owns some pixels of the image
and goes over all pixels of the result, whose taps make a matrix of weights, and the sum a matrix product.
"""

from __future__ import annotations

from typing import Any

from ...graph.formula import Name, formula
from ...graph.ir import Node
from ...graph.ops import Warp, WarpGrad
from ...graph.ops.warp import NUMBERS
from ...planning.regions import Region
from ...planning.schedules import Schedule
from ..text.formulas import compose_after
from ..text.jit_function import JitFunction
from ..text.names import Names
from ..text.printers import triton
from ..text.source import KernelFile, image_size
from ..text.titles import title
from ..text.writer import Writer, number
from .pointwise import FlatTile
from .tile import rounded

Tap = tuple[str, str, str]
"""Texts of a pixel's number in its image, of its weight, "" for 1, and of the test for being inside, "" for
always."""


def emit_warp(region: Region, schedule: Schedule) -> KernelFile:
    """A region of a Warp and the pointwise members after it."""
    names, node, last = Names(region), region.anchor, region.nodes[-1]
    op = node.op
    assert isinstance(op, Warp)
    source, transform = (region.graph[name] for name in node.inputs)
    height, width, channels = source.type.size()[1:]
    tile = FlatTile(names, last.type.shape)
    operands = [*region.inputs, *region.outputs]
    constants: dict[str, tuple[object, str]] = {
        "IMAGE": (image_size(last), "elements of one image of the result"),
        "H": (height, "rows of an image"),
        "W": (width, "columns of an image"),
        "C": (channels, "channels"),
        "Q": (op.size[1], "columns of the result"),
        "BLOCK": (schedule.block_m, "elements a program looks up"),
    }
    jit = JitFunction(
        f"{region.name}_kernel",
        [(names.pointer(n), n.type.dtype) for n in operands],
        ["batch"],
        {name: value for name, (value, _) in constants.items()},
        doc="Each program looks up BLOCK neighbouring elements.",
        warps=schedule.warps,
    )
    body = jit.body
    tile.start(body)
    element, image = tile.image_element(body), tile.image_number(body)
    body.line(f"c = {element} % C", "[BLOCK] channel")
    body.line(f"q = {element} // C % Q", "column of the result")
    body.line(f"p = {element} // (C * Q)", "row of the result")
    own = transform.type.batched
    mask = ", mask=inside, other=0.0" if own else ""
    _load_transform(body, names.pointer(transform), image if own else "", mask)
    taps = _taps(body, op)
    body.line(f"source = {names.pointer(source)} + {image} * (H * W * C) + c", "[BLOCK]")
    value = names.value(node)
    for position, (index, weight, ok) in enumerate(taps):
        mask = " & ".join(part for part in ("inside", ok) if part)
        load = f"tl.load(source + ({index}) * C, mask={mask}, other={number(op.fill_value)})"
        load += "" if source.type.dtype == "float32" else ".to(tl.float32)"
        text = f"{weight} * {load}" if weight else load
        body.line(f"{value} {'+=' if position else '='} {text}")
    tile.values[node.name] = value
    tile.store_if_output(body, node)
    tile.emit(body, [member for member in region.nodes if member is not node])
    launch = Writer()
    launch.line(f"batch = {names.role[last.name]}.shape[0]")
    launch.line(jit.call("(triton.cdiv(batch * IMAGE, BLOCK),)", [names.role[n.name] for n in operands]))
    return KernelFile(
        region,
        names,
        summary=f"{title(region)}.",
        formula=[
            *compose_after(names, f"{names.role[source.name]} at T(q, p)", "{}[n,p,q,c]"),
            *_meaning(names, op, transform),
        ],
        plan=[f"each program looks up {schedule.block_m} neighbouring elements with {schedule.many_warps}."],
        constants=constants,
        functions=[jit],
        launch=launch,
        schedule=schedule,
        sum_length=4 * max(height, width) ** 2,  # a place of some hundred pixels has fewer digits left
    )


def emit_warp_grad(region: Region, schedule: Schedule) -> KernelFile:
    """The gradient of a Warp with respect to its images."""
    names, node = Names(region), region.anchor
    op = node.op
    assert isinstance(op, WarpGrad)
    given, transform = (region.graph[name] for name in node.inputs)
    rows, columns, channels = given.type.size()[1:]
    height, width = op.input_size
    operands = [*region.inputs, *region.outputs]
    constants: dict[str, tuple[object, str]] = {
        "H": (height, "rows of an image"),
        "W": (width, "columns of an image"),
        "C": (channels, "channels"),
        "P": (rows, "rows of the result"),
        "Q": (columns, "columns of the result"),
        "BLOCK_M": (schedule.block_m, "pixels of the image a program owns"),
        "BLOCK_N": (schedule.block_n, "channels a program owns"),
        "BLOCK_K": (schedule.block_k, "pixels of the result at a time"),
    }
    jit = JitFunction(
        f"{region.name}_kernel",
        [(names.pointer(n), n.type.dtype) for n in operands],
        [],
        {name: value for name, (value, _) in constants.items()},
        doc="Each program sums what comes back to BLOCK_M pixels of one image.",
        warps=schedule.warps,
    )
    _gather_back(jit.body, names, node, given, transform)
    launch = Writer()
    launch.line(f"batch = {names.role[node.name]}.shape[0]")
    grid = "(batch * triton.cdiv(H * W, BLOCK_M), triton.cdiv(C, BLOCK_N))"
    launch.line(jit.call(grid, [names.role[n.name] for n in operands]))
    result = names.role[node.name]
    return KernelFile(
        region,
        names,
        summary="Gradient of images under transforms with respect to the images.",
        formula=[
            f"{result}[n,y,x,c] = sum of {names.role[given.name]}[n,p,q,c] * weight of (y, x) at T(q, p)",
            *_meaning(names, op, transform),
        ],
        plan=[
            f"each program owns {schedule.block_m} pixels of an image and {schedule.block_n} channels, and "
            f"goes over the result {schedule.block_k} pixels at a time, so that every sum has one order."
        ],
        constants=constants,
        functions=[jit],
        launch=launch,
        schedule=schedule,
        sum_length=4 * max(height, width) ** 2,
    )


def _gather_back(body: Writer, names: Names, node: Node, given: Node, transform: Node) -> None:
    op: Any = node.op
    read = names.role[given.name]
    body.line("tiles = tl.cdiv(H * W, BLOCK_M)", "of an image")
    body.line("image = (tl.program_id(0) // tiles).to(tl.int64)")
    body.line("owned = tl.program_id(0) % tiles * BLOCK_M + tl.arange(0, BLOCK_M)", "[BLOCK_M] its pixels")
    body.line("c = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)", "[BLOCK_N] channel")
    _load_transform(body, names.pointer(transform), "image" if transform.type.batched else "")
    body.line("acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)")
    with body.block("for start in range(0, P * Q, BLOCK_K):"):
        body.line("pixel = start + tl.arange(0, BLOCK_K)", "[BLOCK_K] pixel of the result")
        body.line("inside = pixel < P * Q")
        body.line("q = pixel % Q")
        body.line("p = pixel // Q")
        taps = _taps(body, op)
        for position, (index, weight, ok) in enumerate(taps):
            condition = " & ".join(part for part in ("inside", ok) if part)
            body.line(f"share = tl.where({condition}, {weight or '1.0'}, 0.0)", "[BLOCK_K]")
            text = f"tl.where(owned[:, None] == ({index})[None, :], share[None, :], 0.0)"
            body.line(f"weights {'+=' if position else '='} {text}", "" if position else "[BLOCK_M, BLOCK_K]")
        body.line(
            f"{read} = tl.load({names.pointer(given)} + (image * (P * Q) + pixel[:, None]) * C + c[None, :], "
            f"mask=inside[:, None] & (c < C)[None, :], other=0.0)"
            + ("" if given.type.dtype == "float32" else ".to(tl.float32)"),
            "[BLOCK_K, BLOCK_N]",
        )
        body.line(f'acc = tl.dot(weights, {read}, acc, input_precision="ieee")')
    body.line(
        f"tl.store({names.pointer(node)} + (image * (H * W) + owned[:, None]) * C + c[None, :], "
        f"{rounded('acc', node)}, mask=(owned < H * W)[:, None] & (c < C)[None, :])"
    )


def _meaning(names: Names, op: Warp | WarpGrad, transform: Node) -> list[str]:
    numbers = ", ".join(NUMBERS)
    row = f"{names.role[transform.name]}[n]" if transform.type.batched else names.role[transform.name]
    filled = {
        "constant": f"{op.fill_value:g} outside the image",
        "nearest": "the edge's pixels outside the image",
        "reflect": "the image mirrored outside itself",
        "wrap": "the image repeated outside itself",
    }[op.fill_mode]
    return [
        f"T(q, p) = ((a0 q + a1 p + a2) / k, (b0 q + b1 p + b2) / k) with k = c0 q + c1 p + 1 "
        f"and ({numbers}) = {row}; {op.interpolation}, {filled}"
    ]


# -- the taps ------------------------------------------------------------------------------------------------
def _load_transform(body: Writer, pointer: str, image: str, mask: str = "") -> None:
    """image: text of the image's number, "" where one transform holds for all."""
    for position, name in enumerate(NUMBERS):
        place = f"{image} * 8 + {position}" if image else str(position)
        body.line(f"{name} = tl.load({pointer} + {place}{mask})")


def _taps(body: Writer, op: Warp | WarpGrad) -> list[Tap]:
    """Lines that find the taps of the result's pixel in row p and column q."""

    def let(name: str, value: Any, remark: str) -> Name:
        body.line(f"{name} = {text(value)}", remark)
        return Name(name)

    def text(value: Any) -> str:
        return triton(formula(value), body.uses)

    image = Name("H"), Name("W")
    place = op.at(list(map(Name, NUMBERS)), Name("p"), Name("q"), image, let)
    return [
        (
            text(index),
            "" if isinstance(weight, float) else text(weight),
            "" if inside is True else text(inside),
        )
        for index, weight, inside in op.taps_at(place, image, let)
    ]
