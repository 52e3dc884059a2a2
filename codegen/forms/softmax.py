"""Softmax and its like over the last axis, and their gradients."""

from __future__ import annotations

from collections.abc import Callable

from ...graph.op import Op
from ...graph.ops import LogSoftmax, Softmax, SoftmaxGrad, Sparsemax, SparsemaxGrad
from ...planning.regions import Region
from ...planning.schedules import Schedule
from ..text.names import Names
from ..text.source import KernelFile
from ..text.titles import title
from ..text.writer import Writer
from .row_tiles import RowTile


def _softmax_grad(rows: RowTile, body: Writer, dy: str, y: str) -> str:
    body.line(f"dot = tl.sum({dy} * {y}, axis=1)[:, None]", "[BLOCK_R, 1]")
    return f"{y} * ({dy} - dot)"


def _sparsemax_grad(rows: RowTile, body: Writer, dy: str, y: str) -> str:
    body.line(f"kept = tl.where({y} <= 0, 0.0, 1.0)", "[BLOCK_R, BLOCK_C] the support")
    body.line(f"inside = tl.where({y} <= 0, 0.0, {dy})", "[BLOCK_R, BLOCK_C]")
    body.line("mean = tl.sum(inside, axis=1)[:, None] / tl.sum(kept, axis=1)[:, None]", "[BLOCK_R, 1]")
    return f"tl.where({y} <= 0, 0.0, {dy} - mean)"


_VALUE: dict[type[Op], Callable[..., str]] = {
    Softmax: RowTile.softmax,
    LogSoftmax: RowTile.log_softmax,
    SoftmaxGrad: _softmax_grad,
    Sparsemax: RowTile.sparsemax,
    SparsemaxGrad: _sparsemax_grad,
}
"""Lines for the steps before the last, and the text of the last."""

_FORMULA: dict[type[Op], str] = {
    Softmax: "exp({0}[row, c] - max) / sum over k of exp({0}[row, k] - max)",
    LogSoftmax: "{0}[row, c] - max - log of the sum over k of exp({0}[row, k] - max)",
    SoftmaxGrad: "{1}[row, c] * ({0}[row, c] - sum over k of {0}[row, k] * {1}[row, k])",
    Sparsemax: "max({0}[row, c] - t, 0), t such that the sum over c is 1",
    SparsemaxGrad: "{0}[row, c] - mean of {0}[row, k] over k with {1}[row, k] > 0, or 0 where {1}[row, c] is",
}


def emit_softmax(region: Region, schedule: Schedule) -> KernelFile:
    """A region of one op of the table."""
    node = region.anchor
    names = Names(region)
    rows = RowTile(names, node, schedule)
    operands = [*region.inputs, *region.outputs]
    name = f"{region.name}_kernel"
    jit = rows.function(
        name, "Each program computes BLOCK_R rows.", [(names.pointer(n), n.type.dtype) for n in operands]
    )
    tile, body, result = rows.tile(), jit.body, names.role[node.name]
    loaded = [tile.load(body, region.graph[operand]) for operand in node.inputs]
    body.line(f"{result} = {_VALUE[type(node.op)](rows, body, *loaded)}", tile.note)
    formula = [f"{result}[row, c] = {_FORMULA[type(node.op)].format(*loaded)}"]
    tile.values[node.name] = result
    tile.store(body, node)
    launch = Writer()
    launch.line(f"batch = {result}.shape[0]")
    launch.line(jit.call(f"(triton.cdiv({rows.rows}, BLOCK_R),)", [names.role[n.name] for n in operands]))
    return KernelFile(
        region,
        names,
        summary=f"{title(region)} over the last axis.",
        formula=formula,
        plan=rows.plan(),
        constants=rows.constants(),
        functions=[jit],
        launch=launch,
        schedule=rows.schedule,
        sum_length=node.type.channels,
    )
