"""Rows of a table by their numbers, and the gradient of that.

Each element of the result is read where its number says. The gradient asks the other way round, so that every
sum has one order: a program owns some rows of the table and goes over all places of the result; those that
name its rows make a matrix of zeros and ones, and the sum is a matrix product. Where none does, as nearly
everywhere in a large table, only the numbers are read.
"""

from __future__ import annotations

from ...graph.ir import Node
from ...graph.ops import LookUp, LookUpGrad
from ...planning.regions import Region
from ...planning.schedules import Schedule
from ..text.formulas import compose_after
from ..text.jit_function import JitFunction
from ..text.names import Names
from ..text.source import KernelFile, image_size
from ..text.titles import title
from ..text.writer import Writer
from .pointwise import FlatTile
from .tile import rounded


def emit_look_up(region: Region, schedule: Schedule) -> KernelFile:
    """A region of a LookUp and the pointwise members after it."""
    names, node, last = Names(region), region.anchor, region.nodes[-1]
    assert isinstance(node.op, LookUp)
    table, indices = (region.graph[name] for name in node.inputs)
    tile = FlatTile(names, last.type.shape)
    operands = [*region.inputs, *region.outputs]
    constants: dict[str, tuple[object, str]] = {
        "IMAGE": (image_size(last), "elements of one image of the result" if tile.batched else "elements"),
        "ROWS": (int(table.type.shape[0]), "rows of the table"),
        "C": (table.type.channels, "features of a row"),
        "BLOCK": (schedule.block_m, "elements a program looks up"),
    }
    jit = JitFunction(
        f"{region.name}_kernel",
        [(names.pointer(n), n.type.dtype) for n in operands],
        ["batch"] if tile.batched else [],
        {name: value for name, (value, _) in constants.items()},
        doc="Each program looks up BLOCK neighbouring elements.",
        warps=schedule.warps,
    )
    body = jit.body
    tile.start(body)
    element = tile.image_element(body)
    place = f"{element} // C"
    if tile.batched and indices.type.batched:
        place = f"{tile.image_number(body)} * (IMAGE // C) + {place}"
    body.line(f"row = tl.load({names.pointer(indices)} + {place}, mask=inside, other=0).to(tl.int64)")
    body.line("row = tl.where(row < 0, row + ROWS, row)", "counted from the end")
    body.line("known = (row >= 0) & (row < ROWS)")
    value = names.value(node)
    narrow = "" if table.type.dtype == "float32" else ".to(tl.float32)"
    address = f"{names.pointer(table)} + row * C + {element} % C"
    body.line(f"{value} = tl.load({address}, mask=inside & known, other=0.0){narrow}", "[BLOCK]")
    body.line(f'{value} = tl.where(known, {value}, float("nan"))', "[BLOCK]")
    tile.values[node.name] = value
    tile.store_if_output(body, node)
    tile.emit(body, [member for member in region.nodes if member is not node])
    launch = Writer()
    if tile.batched:
        launch.line(f"batch = {names.role[last.name]}.shape[0]")
    size = "batch * IMAGE" if tile.batched else "IMAGE"
    launch.line(jit.call(f"(triton.cdiv({size}, BLOCK),)", [names.role[n.name] for n in operands]))
    return KernelFile(
        region,
        names,
        summary=f"{title(region)}.",
        formula=compose_after(
            names, f"{names.role[table.name]}[{names.role[indices.name]}[...],c]", "{}[...,c]"
        ),
        plan=[f"each program looks up {schedule.block_m} neighbouring elements with {schedule.many_warps}."],
        constants=constants,
        functions=[jit],
        launch=launch,
        schedule=schedule,
    )


def emit_look_up_grad(region: Region, schedule: Schedule) -> KernelFile:
    """The gradient of a LookUp with respect to its table."""
    names, node = Names(region), region.anchor
    assert isinstance(node.op, LookUpGrad)
    given, indices = (region.graph[name] for name in node.inputs)
    features = node.type.channels
    operands = [*region.inputs, *region.outputs]
    constants: dict[str, tuple[object, str]] = {
        "PLACES": (image_size(indices), "numbers of one image" if indices.type.batched else "numbers"),
        "ROWS": (node.op.rows, "rows of the table"),
        "C": (features, "features of a row"),
        "BLOCK_M": (schedule.block_m, "rows of the table a program owns"),
        "BLOCK_N": (schedule.block_n, "features a program owns"),
        "BLOCK_K": (schedule.block_k, "numbers at a time"),
    }
    batched = indices.type.batched
    jit = JitFunction(
        f"{region.name}_kernel",
        [(names.pointer(n), n.type.dtype) for n in operands],
        ["batch"] if batched else [],
        {name: value for name, (value, _) in constants.items()},
        doc="Each program sums what comes back to BLOCK_M rows of the table.",
        warps=schedule.warps,
    )
    _gather_back(jit.body, names, node, given, indices)
    launch = Writer()
    if batched:
        launch.line(f"batch = {names.role[given.name]}.shape[0]")
    grid = "(triton.cdiv(ROWS, BLOCK_M), triton.cdiv(C, BLOCK_N))"
    launch.line(jit.call(grid, [names.role[n.name] for n in operands]))
    dy, dw, numbers = (names.role[n.name] for n in (given, node, indices))
    return KernelFile(
        region,
        names,
        summary="Gradient of rows looked up with respect to the table.",
        formula=[f"{dw}[r,c] = sum of {dy}[i,c] over the places i with {numbers}[i] = r"],
        plan=[
            f"each program owns {schedule.block_m} rows of the table and {schedule.block_n} features, and "
            f"goes over the numbers {schedule.block_k} at a time, so that every sum has one order; dy is "
            f"read where a number names one of its rows."
        ],
        constants=constants,
        functions=[jit],
        launch=launch,
        schedule=schedule,
        sum_length=image_size(indices) * (2 if batched else 1),
    )


def _gather_back(body: Writer, names: Names, node: Node, given: Node, indices: Node) -> None:
    read = names.role[given.name]
    body.line("owned = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)", "[BLOCK_M] row of the table")
    body.line("c = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)", "[BLOCK_N] feature")
    body.line(f"places = {'batch * PLACES' if indices.type.batched else 'PLACES'}")
    body.line("acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)")
    with body.block("for start in range(0, places, BLOCK_K):"):
        body.line("place = start + tl.arange(0, BLOCK_K)", "[BLOCK_K]")
        body.line("inside = place < places")
        body.line(f"row = tl.load({names.pointer(indices)} + place, mask=inside, other=0).to(tl.int64)")
        body.line("row = tl.where(row < 0, row + ROWS, row)", "counted from the end")
        body.line("hits = (owned[:, None] == row[None, :]) & inside[None, :]", "[BLOCK_M, BLOCK_K]")
        with body.block("if tl.max(hits.to(tl.int32)) > 0:"):
            narrow = "" if given.type.dtype == "float32" else ".to(tl.float32)"
            body.line(
                f"{read} = tl.load({names.pointer(given)} + place.to(tl.int64)[:, None] * C + c[None, :], "
                f"mask=inside[:, None] & (c < C)[None, :], other=0.0){narrow}",
                "[BLOCK_K, BLOCK_N]",
            )
            body.line(f'acc = tl.dot(hits.to(tl.float32), {read}, acc, input_precision="ieee")')
    body.line(
        f"tl.store({names.pointer(node)} + owned.to(tl.int64)[:, None] * C + c[None, :], "
        f"{rounded('acc', node)}, mask=(owned < ROWS)[:, None] & (c < C)[None, :])"
    )
