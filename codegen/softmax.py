"""Softmax over the last axis, its logarithm, and its gradient."""

from __future__ import annotations

from ..graph.ops import LogSoftmax, Softmax
from ..graph.regions import Region
from .errors import NotEmittable
from .names import Names
from .row_tiles import RowTile
from .schedules import Schedule
from .source import KernelFile
from .titles import title
from .writer import Writer


def emit_softmax(region: Region, schedule: Schedule | None = None) -> KernelFile:
    """A region of one softmax, its logarithm or its gradient.

    Raises NotEmittable with other members, or for huge rows.
    """
    node = region.anchor
    if len(region.nodes) > 1 or not node.type.batched:
        raise NotEmittable(f"{node.name}: {node.op.op_name()} shares no kernel and needs a batch axis")
    names = Names(region)
    rows = RowTile.of(names, node, schedule)
    forward = isinstance(node.op, Softmax | LogSoftmax)
    operands = [*region.inputs, *region.outputs]
    name = f"{region.name}_kernel"
    jit = rows.function(
        name, "Each program computes BLOCK_R rows.", [(names.pointer(n), n.type.dtype) for n in operands]
    )
    tile, body, result = rows.tile(), jit.body, names.role[node.name]
    loaded = [tile.load(body, region.graph[operand]) for operand in node.inputs]
    x = loaded[0]
    if isinstance(node.op, LogSoftmax):
        body.line(f"{result} = {rows.log_softmax(body, x)}", tile.note)
        formula = [f"{result}[row, c] = {x}[row, c] - max - log of the sum over k of exp({x}[row, k] - max)"]
    elif forward:
        body.line(f"{result} = {rows.softmax(body, x)}", tile.note)
        formula = [f"{result}[row, c] = exp({x}[row, c] - max) / sum over k of exp({x}[row, k] - max)"]
    else:
        dy, y = loaded
        body.line(f"dot = tl.sum({dy} * {y}, axis=1)[:, None]", "[BLOCK_R, 1]")
        body.line(f"{result} = {y} * ({dy} - dot)", tile.note)
        formula = [
            f"{result}[row, c] = {y}[row, c] * ({dy}[row, c] - sum over k of {dy}[row, k] * {y}[row, k])"
        ]
    tile.values[node.name] = result
    tile.store(body, node)
    launch = Writer()
    launch.line(f"batch = {result}.shape[0]")
    launch.line(jit.call(f"(triton.cdiv({rows.rows}, BLOCK_R),)", [names.role[n.name] for n in operands]))
    return KernelFile(
        region,
        names,
        summary=f"{title(region)} over the last axis."
        if forward
        else "Gradient of softmax over the last axis.",
        formula=formula,
        plan=rows.plan(),
        constants=rows.constants(),
        functions=[jit],
        launch=launch,
        schedule=rows.schedule,
        sum_length=node.type.channels,
    )
