"""Losses: one number, the mean over the batch, and their gradients.

Each program leaves its part of the mean; where there are several, a second kernel adds them up in one fixed
order. A cross-entropy of logits computes their softmax anyway, and stores it where it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...graph.ir import Node
from ...graph.op import Op
from ...graph.ops import BinaryCrossEntropy, CategoricalCrossEntropy, MeanSquaredError, SoftmaxCrossEntropy
from ...planning.forms.rows import BY_ROWS, loss_of
from ...planning.regions import Region
from ...planning.schedules import Schedule
from ..text.jit_function import JitFunction
from ..text.names import Names
from ..text.source import KernelFile, image_size
from ..text.writer import Writer
from .general_reduction import in_brackets
from .pointwise import FlatTile
from .row_tiles import RowTile
from .tile import rounded

BLOCK = 1024
"""Parts the second kernel adds at a time, behind a loss by rows."""

OF_ELEMENTS = "batch.to(tl.int64) * IMAGE"
"""Text of the number that the mean of a loss by elements divides by; a batch may hold more than 2^31."""

CLIP = "1e-7"
"""Keras keeps probabilities within [1e-7, 1 - 1e-7]."""

_FORMULA: dict[type[Op], Callable[[Any], str]] = {
    SoftmaxCrossEntropy: lambda op: (
        "mean over the rows of -sum over c of target[c] * log softmax(prediction)[c]"
    ),
    CategoricalCrossEntropy: lambda op: (
        "mean over the rows of -sum over c of target[c] * log p[c], "
        "p = prediction / its sum over c, within [1e-7, 1 - 1e-7]"
    ),
    MeanSquaredError: lambda op: "mean of (prediction - target)^2",
    BinaryCrossEntropy: lambda op: (
        "mean of -(t log p + (1 - t) log(1 - p)), t = target, p = "
        + ("sigmoid(prediction)" if op.from_logits else "prediction within [1e-7, 1 - 1e-7]")
    ),
}


def emit_loss(region: Region, schedule: Schedule) -> KernelFile:
    """A region of one loss, and the softmax of its logits."""
    node = loss_of(region)
    assert node is not None
    prediction, target = (region.graph[name] for name in node.inputs)
    names = Names(region)
    rowwise = isinstance(node.op, BY_ROWS)
    softmax = next((other for other in region.outputs if other is not node), None)
    operands = [*region.inputs, *([softmax] if softmax else [])]
    tensors = [(names.pointer(n), n.type.dtype) for n in operands] + [("part_ptr", "float32")]
    if rowwise:
        rows = RowTile(names, prediction, schedule)
        jit = rows.function(f"{region.name}_kernel", "Each program sums the loss of BLOCK_R rows.", tensors)
        _cross_entropy(jit.body, rows, node.op, prediction, target, softmax)
        constants, programs = rows.constants(), f"triton.cdiv({rows.rows}, BLOCK_R)"
        constants = {**constants, "BLOCK": (BLOCK, "parts added at a time")}
    else:
        jit = _flat(names, prediction, tensors, schedule)
        _elementwise(jit.body, names, node.op, prediction, target)
        size = image_size(prediction)
        constants = _flat_constants(size, schedule)
        programs = "triton.cdiv(batch * IMAGE, BLOCK)"
    finish = _finish(names, node, int(constants["BLOCK"][0]))  # type: ignore[call-overload]
    launch = Writer()
    x, result = names.role[prediction.name], names.role[node.name]
    launch.line(f"batch = {x}.shape[0]")
    launch.line(f"programs = {programs}")
    launch.line(f"part = {result}", "where there is one program, its part is all")
    with launch.block("if programs > 1:"):
        launch.line(f"part = torch.empty(programs, dtype=torch.float32, device={x}.device)")
    launch.line(jit.call("(programs,)", [*(names.role[n.name] for n in operands), "part"]))
    with launch.block("if programs > 1:"):
        launch.line(finish.call("(1,)", ["part", result]))
    return KernelFile(
        region,
        names,
        summary=f"Loss: {node.op.op_name().replace('_', ' ')}.",
        formula=[
            f"{result} = {_FORMULA[type(node.op)](node.op)}",
            *([f"{names.role[softmax.name]} = softmax({x})"] if softmax else []),
        ],
        plan=["each program of the first kernel leaves its part of the mean; where there are several, one",
              "program of a second kernel adds them up, always in the same order."],
        constants=constants,
        functions=[jit, finish],
        launch=launch,
        schedule=schedule,
        sum_length=image_size(prediction) * 64,
    )  # fmt: skip


def emit_loss_grad(region: Region, schedule: Schedule) -> KernelFile:
    """A region of one loss's gradient with respect to its prediction."""
    node = region.anchor
    op: Any = node.op
    loss: Any = op.loss
    prediction, target, d_loss = (region.graph[name] for name in node.inputs)
    names = Names(region)
    operands = [*region.inputs, *region.outputs]
    tensors = [(names.pointer(n), n.type.dtype) for n in operands]
    launch = Writer()
    launch.line(f"batch = {names.role[prediction.name]}.shape[0]")
    roles = [names.role[n.name] for n in operands]
    if isinstance(loss, BY_ROWS):
        rows = RowTile(names, prediction, schedule)
        jit = rows.function(f"{region.name}_kernel", "Each program computes BLOCK_R rows.", tensors)
        constants = rows.constants()
        tile, count = rows.tile(), rows.rows
        x, t, scale = (tile.load(jit.body, n) for n in (prediction, target, d_loss))
        slope = _logits_slope if isinstance(loss, SoftmaxCrossEntropy) else _probabilities_slope
        value = slope(jit.body, rows, x, t)
        grid = f"(triton.cdiv({rows.rows}, BLOCK_R),)"
    else:
        size = image_size(prediction)
        jit = _flat(names, prediction, tensors, schedule)
        constants, count = _flat_constants(size, schedule), OF_ELEMENTS
        tile = FlatTile(names, prediction.type.shape)
        tile.start(jit.body)
        x, t, scale = (tile.load(jit.body, n) for n in (prediction, target, d_loss))
        value = _slope(jit.body, loss, x, t)
        grid = "(triton.cdiv(batch * IMAGE, BLOCK),)"
    result = names.role[node.name]
    jit.body.line(f"{result} = {value} * ({scale} / {in_brackets(count)})", tile.note)
    tile.values[node.name] = result
    tile.store(jit.body, node)
    launch.line(jit.call(grid, roles))
    return KernelFile(
        region,
        names,
        summary=f"Gradient of the loss {loss.op_name().replace('_', ' ')} with respect to the prediction.",
        formula=[
            f"loss = {_FORMULA[type(loss)](loss)}",
            f"{result} = {names.role[d_loss.name]} * d loss / d prediction",
        ],
        plan=["one pass; the number of rows or elements that the mean divides by follows from the batch."],
        constants=constants,
        functions=[jit],
        launch=launch,
        schedule=schedule,
        sum_length=prediction.type.channels,
    )


# -- categorical cross-entropy, of logits and of probabilities -----------------------------------------------
def _cross_entropy(
    body: Writer, rows: RowTile, op: Op, prediction: Node, target: Node, softmax: Node | None
) -> None:
    tile = rows.tile()
    x, t = tile.load(body, prediction), tile.load(body, target)
    if isinstance(op, SoftmaxCrossEntropy):
        likely, logarithm = rows.both_softmax(body, x, stored=softmax is not None)
        if softmax is not None:
            tile.values[softmax.name] = rows.names.value(softmax)
            body.line(f"{tile.values[softmax.name]} = {likely}", tile.note)
            tile.store(body, softmax)
        body.line(f"log_likely = {logarithm}", tile.note)
    else:
        _clipped(body, _normalised(body, rows, x), tile.note)
        body.line("log_likely = tl.log(p)", tile.note)
    body.line(f"losses = tl.where({tile.ok}, -{t} * log_likely, 0.0)", tile.note)
    body.line(f"part = tl.sum(tl.sum(losses, axis=1), axis=0) / {in_brackets(rows.rows)}", "of the mean")
    body.line("tl.store(part_ptr + tl.program_id(0), part)")


def _logits_slope(body: Writer, rows: RowTile, x: str, t: str) -> str:
    """Text of a row's derivative: softmax(x) * sum of t - t."""
    body.line(f"likely = {rows.softmax(body, x)}", rows.tile().note)
    body.line(f"weight = tl.sum({t}, axis=1)[:, None]", "[BLOCK_R, 1]")
    return f"(likely * weight - {t})"


def _probabilities_slope(body: Writer, rows: RowTile, x: str, t: str) -> str:
    """Text of a row's derivative: (sum of t where p is not clipped - t / p there) / total."""
    note, share = rows.tile().note, _normalised(body, rows, x)
    _clipped(body, share, note)
    body.line(f"kept = tl.where({_unclipped(share)}, {t}, 0.0)", note)
    body.line("weight = tl.sum(kept, axis=1)[:, None]", "[BLOCK_R, 1]")
    return "(weight - kept / p) / total"


def _normalised(body: Writer, rows: RowTile, x: str) -> str:
    """Lines for the rows of x divided by their sums, whose masked columns are 0; the name of the result."""
    body.line(f"total = tl.sum({x}, axis=1)[:, None]", "[BLOCK_R, 1]")
    body.line("total = tl.where(row_ok, total, 1.0)", "rows beyond the last")
    body.line(f"share = {x} / total", rows.tile().note)
    return "share"


# -- elementwise losses --------------------------------------------------------------------------------------
def _flat(
    names: Names,
    node: Node,
    tensors: list[tuple[str, str]],
    schedule: Schedule,
) -> JitFunction:
    constants: dict[str, object] = {"IMAGE": image_size(node), "BLOCK": schedule.block_m}
    doc = "Each program takes BLOCK neighbouring elements."
    name = f"{names.region.name}_kernel"
    return JitFunction(name, tensors, ["batch"], constants, doc=doc, warps=schedule.warps)


def _flat_constants(size: int, schedule: Schedule) -> dict[str, tuple[object, str]]:
    return {"IMAGE": (size, "elements of one image"), "BLOCK": (schedule.block_m, "elements a program takes")}


def _elementwise(body: Writer, names: Names, op: Any, prediction: Node, target: Node) -> None:
    tile = FlatTile(names, prediction.type.shape)
    tile.start(body)
    x, t = tile.load(body, prediction), tile.load(body, target)
    if isinstance(op, MeanSquaredError):
        body.line(f"losses = ({x} - {t}) * ({x} - {t})", tile.note)
    elif op.from_logits:
        body.line(f"powers = tl.exp(-tl.abs({x}))", "never above 1")
        body.line(f"losses = tl.where({x} < 0, 0.0, {x}) - {x} * {t} + tl.log(1.0 + powers)", tile.note)
    else:
        _clipped(body, x, tile.note)
        body.line(f"losses = -({t} * tl.log(p) + (1.0 - {t}) * tl.log(1.0 - p))", tile.note)
    body.line("losses = tl.where(inside, losses, 0.0)", tile.note)
    body.line(f"part = tl.sum(losses, axis=0) / ({OF_ELEMENTS})", "of the mean")
    body.line("tl.store(part_ptr + tl.program_id(0), part)")


def _clipped(body: Writer, x: str, note: str) -> None:
    body.line(f"p = tl.where({x} < {CLIP}, {CLIP}, {x})", f"{note} Keras's clipping")
    body.line(f"p = tl.where(p > 1.0 - {CLIP}, 1.0 - {CLIP}, p)", note)


def _unclipped(x: str) -> str:
    """Text of where x keeps its gradient, the bounds included."""
    return f"({x} >= {CLIP}) & ({x} <= 1.0 - {CLIP})"


def _slope(body: Writer, op: Any, x: str, t: str) -> str:
    """Text of the derivative of an elementwise loss, apart from the division by the number of elements."""
    if isinstance(op, MeanSquaredError):
        return f"2.0 * ({x} - {t})"
    if op.from_logits:
        return f"({body.uses.sigmoid}({x}) - {t})"
    _clipped(body, x, "[BLOCK]")
    return f"tl.where({_unclipped(x)}, (p - {t}) / (p * (1.0 - p)), 0.0)"


def _finish(names: Names, node: Node, block: int) -> JitFunction:
    role = names.role[node.name]
    tensors = [("part_ptr", "float32"), (f"{role}_ptr", node.type.dtype)]
    doc = "One program adds up the parts of the others."
    jit = JitFunction(f"{names.region.name}_finish", tensors, ["programs"], {"BLOCK": block}, doc=doc)
    body = jit.body
    body.line("lane = tl.arange(0, BLOCK)", "[BLOCK]")
    body.line("sums = tl.zeros([BLOCK], tl.float32)")
    body.line("first = 0")
    with body.block("while first < programs:"):
        body.line("inside = first + lane < programs", "[BLOCK]")
        body.line("sums += tl.load(part_ptr + first + lane, mask=inside, other=0.0)", "[BLOCK]")
        body.line("first += BLOCK")
    body.line(f"{role} = tl.sum(sums, axis=0)", "one number")
    body.line(f"tl.store({role}_ptr, {rounded(role, node)})")
    return jit
