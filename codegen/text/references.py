"""Ops as plain PyTorch text, for the `reference` of an emitted file.

Pointwise ops from their formulas, the others by a table, op class -> lines; the last line gives the value its
name. Tensors are float64 and channels last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any

from ...graph.errors import CompileError
from ...graph.formula import Name, evaluate, formula
from ...graph.ir import Node
from ...graph.op import REGISTRY, Op
from ...graph.ops import (
    ActivationGrad,
    AveragePool2D,
    AverageUnpool2D,
    BroadcastTo,
    CircleLoss,
    CircleLossGrad,
    Concat,
    Conv2D,
    Conv2DDataGrad,
    Conv2DTranspose,
    Conv2DWeightGrad,
    Dense,
    DenseDataGrad,
    DenseWeightGrad,
    Flip,
    LookUp,
    LookUpGrad,
    MatMul,
    MaxPool2D,
    MaxPoolIndex2D,
    MaxUnpool2D,
    Pad,
    Pointwise,
    Reduce,
    Resize,
    ResizeGrad,
    RowLoss,
    RowLossGrad,
    Slice,
    Transpose,
    Variance,
)
from .printers import in_torch
from .row_references import ROWS
from .warp_references import WARPS
from .writer import number, tuple_text

Lines = list[str]


def reference_lines(node: Node, operands: Sequence[str], result: str) -> Lines:
    """Statements that compute a node from the named operands and call the value `result`.

    Raises CompileError for an op without a row in the table.
    """
    row = _TABLE.get(type(node.op))
    if row is None and isinstance(node.op, Pointwise):
        return _pointwise(node.op, result, *operands)
    if row is None:
        raise CompileError(
            f"{node.op.op_name()} has no reference text; add a row to codegen/text/references.py"
        )
    text = row(node.op, result, *operands)
    return [f"{result} = {text}"] if isinstance(text, str) else text


# -- pointwise -----------------------------------------------------------------------------------------------
def _pointwise(op: Pointwise, result: str, *operands: str) -> Lines:
    names, lines = [Name(text) for text in operands], []
    if op.counted:  # BatchNormGrad's: the values per channel
        lines.append(f"count = {operands[1]}.numel() / {operands[1]}.shape[-1]")
        names.append(Name("count"))
    return [*lines, f"{result} = {in_torch(formula(op.formula(*names)))}"]


def _activation_grad(op: ActivationGrad, result: str, dy: str, saved: str) -> Lines:
    """By PyTorch's own differentiation where it can, which is another way than the kernel's."""
    if op.activation.saves == "output":
        return _pointwise(op, result, dy, saved)
    value = in_torch(formula(op.activation.formula(Name(result))))
    return [
        "with torch.enable_grad():",
        f"    {result} = {saved}.detach().requires_grad_()",
        f"    ({result},) = torch.autograd.grad({value}, {result}, {dy})",
    ]


# -- contractions --------------------------------------------------------------------------------------------
def _padded(x: str, padding: Any, value: str = "") -> str:
    """x as (N, C, H, W), with its padding."""
    (top, bottom), (left, right) = padding
    image = f"{x}.permute(0, 3, 1, 2)"
    return (
        f"F.pad({image}, {(left, right, top, bottom)}{value})"
        if top + bottom + left + right or value
        else image
    )


def _geometry(op: Any) -> str:
    return f"stride={op.strides}, padding=0, dilation={op.dilation}, groups={op.groups}"


def _conv(op: Conv2D, result: str, x: str, w: str, *bias: str) -> Lines:
    lines = [
        f"{result} = F.conv2d({_padded(x, op.padding)}, {w}.permute(3, 2, 0, 1), {_geometry(op)})",
        f"{result} = {result}.permute(0, 2, 3, 1)",
    ]
    return [*lines, f"{result} = {result} + {bias[0]}"] if bias else lines


def _conv_data_grad(op: Conv2DDataGrad, result: str, dy: str, w: str) -> Lines:
    (top, bottom), (left, right) = op.padding
    h, width = op.input_size
    padded = f"({dy}.shape[0], {w}.shape[2] * {op.groups}, {h + top + bottom}, {width + left + right})"
    operands = f"{w}.permute(3, 2, 0, 1), {dy}.permute(0, 3, 1, 2)"
    inside = f"[:, :, {top} : {top + h}, {left} : {left + width}]"
    return [
        f"padded = {padded}",
        f"{result} = torch.nn.grad.conv2d_input(padded, {operands}, {_geometry(op)})",
        f"{result} = {result}{inside}.permute(0, 2, 3, 1)",
    ]


def _conv_weight_grad(op: Conv2DWeightGrad, result: str, x: str, dy: str) -> Lines:
    r, s = op.kernel_size
    shape = f"({dy}.shape[3], {x}.shape[3] // {op.groups}, {r}, {s})"
    operands = f"{_padded(x, op.padding)}, {shape}, {dy}.permute(0, 3, 1, 2)"
    return [
        f"{result} = torch.nn.grad.conv2d_weight({operands}, {_geometry(op)})",
        f"{result} = {result}.permute(2, 3, 1, 0)",
    ]


def _dense(op: Dense, result: str, x: str, w: str, *bias: str) -> str:
    return f"{x} @ {w}" + (f" + {bias[0]}" if bias else "")


# -- windows -------------------------------------------------------------------------------------------------
def _windows(op: Any, result: str, x: str, outside: str) -> Lines:
    """Lines that make `result` the windows of x: (N, P, Q, C, window)."""
    (size_h, size_w), (step_h, step_w) = op.size, op.strides
    return [
        f"{result} = {_padded(x, op.padding, f', value={outside}')}",
        f"{result} = {result}.unfold(2, {size_h}, {step_h}).unfold(3, {size_w}, {step_w})",
        f"{result} = {result}.permute(0, 2, 3, 1, 4, 5).flatten(4)",
    ]


def _max_pool(op: MaxPool2D, result: str, x: str) -> Lines:
    return [*_windows(op, result, x, 'float("-inf")'), f"{result} = {result}.amax(-1)"]


def _max_pool_index(op: MaxPoolIndex2D, result: str, x: str) -> Lines:
    padded, hits = any(map(any, op.padding)), f"{result} == {result}.amax(-1, keepdim=True)"
    return [
        *_windows(op, result, x, 'float("-inf")'),
        *(_windows(op, "real", f"torch.ones_like({x})", "0.0") if padded else ()),
        f"place = torch.where({result}.isnan(), torch.arange({result}.shape[-1], device={x}.device), -1)",
        f"{result} = {f'(({hits}) & (real > 0))' if padded else f'({hits})'}.int().argmax(-1)",
        f"{result} = torch.where(place.amax(-1) < 0, {result}, place.amax(-1))",
    ]


def _average_pool(op: AveragePool2D, result: str, x: str) -> Lines:
    return [
        *_windows(op, "counted", f"torch.ones_like({x})", "0.0"),
        *_windows(op, result, x, "0.0"),
        f"{result} = {result}.sum(-1) / counted.sum(-1)",
    ]


def _scattered(op: Any, result: str, share: str) -> Lines:
    """Lines that add share(position), (N, P, Q, C) for each position of a window, into the map."""
    (top, bottom), (left, right) = op.padding
    (h, w), (size_h, size_w), (step_h, step_w) = op.input_size, op.size, op.strides
    chosen = isinstance(op, MaxUnpool2D)
    return [
        f"n, p, q, c = {share}.shape",
        f"{result} = {share}.new_zeros(n, {h + top + bottom + size_h}, {w + left + right + size_w}, c)",
        f"for t in range({size_h * size_w}):",
        f"    r, s = divmod(t, {size_w})",
        f"    part = {result}[:, r : r + p * {step_h} : {step_h}, s : s + q * {step_w} : {step_w}]",
        f"    part[:, :p, :q] += {f'torch.where(chosen == t, {share}, 0)' if chosen else share}",
        f"{result} = {result}[:, {top} : {top + h}, {left} : {left + w}]",
    ]


def _max_unpool(op: MaxUnpool2D, result: str, dy: str, index: str) -> Lines:
    return [f"chosen = {index}.long()", *_scattered(op, result, dy)]


def _average_unpool(op: AverageUnpool2D, result: str, dy: str) -> Lines:
    h, w = op.input_size
    return [
        *_windows(op, "counted", f"{dy}.new_ones(1, {h}, {w}, {dy}.shape[3])", "0.0"),
        f"share = {dy} / counted.sum(-1)",
        *_scattered(op, result, "share"),
    ]


# -- losses --------------------------------------------------------------------------------------------------
def _matmul(op: MatMul, result: str, lhs: str, rhs: str) -> str:
    def plain(x: str, transposed: bool, split: bool) -> str:
        return x + (".transpose(-3, -2)" if split else "") + (".mT" if transposed else "")

    product = f"{plain(lhs, op.transpose_a, op.split_a)} @ {plain(rhs, op.transpose_b, op.split_b)}"
    product = product if op.factor == 1.0 else f"{product} * {number(op.factor)}"
    return f"({product}).transpose(-3, -2)" if op.split_y else product


def _row_loss(op: RowLoss, result: str, x: str, t: str) -> str:
    tree = evaluate(op.of_operands(), {"x": Name(x), "t": Name(t)})
    return in_torch(tree)


def _row_loss_grad(op: RowLossGrad, result: str, x: str, t: str, dy: str) -> Lines:
    """By torch's own differentiation of the loss, which is another way than the kernel's."""
    return [
        "with torch.enable_grad():",
        f"    at = {x}.detach().requires_grad_()",
        f"    ({result},) = torch.autograd.grad({_row_loss(op.loss, '', 'at', t)}, at, {dy})",
    ]


def _circle_loss(op: CircleLoss, result: str, x: str, labels: str) -> Lines:
    g, m = number(op.gamma), number(op.margin)
    alone = f" & ~torch.eye(len({x}), dtype=torch.bool, device={x}.device)" if op.alone else ""
    return [
        f"d = (1 - {x} @ {x}.T).clamp(min=0)",
        f"same = {labels} == {labels}.T",
        f"like, unlike = same{alone}, ~same",
        f"a = -{g} * ({m} + d).clamp(min=0) * ({m} - d)",
        f"b = {g} * (1 + {m} - d).clamp(min=0) * (1 - {m} - d)",
        "a = torch.where(like, a, -torch.inf).logsumexp(1, keepdim=True)",
        "b = torch.where(unlike, b, -torch.inf).logsumexp(1, keepdim=True)",
        "both = like.any(1, keepdim=True) & unlike.any(1, keepdim=True)",
        "total = torch.where(both, a + b, 0.0)",
        f"{result} = torch.where(both, torch.logaddexp(total, torch.zeros_like(total)), 0.0)",
    ]


def _circle_loss_grad(op: CircleLossGrad, result: str, x: str, labels: str, dy: str) -> Lines:
    """By torch's own differentiation of the loss, which is another way than the kernel's."""
    return [
        "with torch.enable_grad():",
        f"    at = {x}.detach().requires_grad_()",
        *(f"    {line}" for line in _circle_loss(op.loss, "losses", "at", labels)),
        f"    ({result},) = torch.autograd.grad(losses, at, {dy})",
        f"{result} = {result}.nan_to_num(0.0)",
    ]


# -- the rest ------------------------------------------------------------------------------------------------
def _broadcast_to(op: BroadcastTo, result: str, x: str, *like: str) -> Lines:
    sizes = [f"{(like or (x,))[0]}.shape[0]" if d == "N" else str(d) for d in op.shape]
    lines = [f"{result} = {x}.expand({', '.join(sizes)})"]
    return [*lines, f"{result} = {result} * {x}.numel() / {result}.numel()"] if op.mean else lines


def _slice(op: Slice, result: str, x: str) -> str:
    ranges = [f"{a}:{b}" for a, b in zip(op.starts, op.stops, strict=True)]
    return f"{x}[:, {', '.join(ranges)}]"


def _pad(op: Pad, result: str, x: str) -> str:
    flat = [n for pair in reversed(op.padding) for n in pair]
    return f"F.pad({x}, {tuple_text(flat)}, value={number(op.value)})"


def _reduce(op: Reduce, result: str, x: str) -> str:
    keep = ", keepdim=True" if op.keepdims else ""
    return f"{x}.{'mean' if op.mean else 'sum'}({tuple_text(op.axes)}{keep})"


def _resize(op: Resize | ResizeGrad, result: str, x: str, *weights: str) -> Lines:
    """Products with the matrices along the axes; "nearest" has none, and is an index."""
    backwards = isinstance(op, ResizeGrad)
    lines = [f"{result} = {x}"]
    for axis, size, matrix in zip_longest(op.axes, op.sizes, weights):
        if matrix:
            product = f"{result}.movedim({axis}, -1) @ {matrix}{'.t()' if backwards else ''}"
            lines.append(f"{result} = ({product}).movedim(-1, {axis})")
        elif backwards:
            lines += [
                f"nearest = ((2 * torch.arange({x}.shape[{axis}], device={x}.device) + 1) * {size})",
                f"nearest = nearest // (2 * {x}.shape[{axis}])",
                f"shape = [{size} if d == {axis} else n for d, n in enumerate({result}.shape)]",
                f"{result} = {result}.new_zeros(shape).index_add({axis}, nearest, {result})",
            ]
        else:
            lines += [
                f"nearest = ((2 * torch.arange({size}, device={x}.device) + 1) * {x}.shape[{axis}])",
                f"{result} = {result}.index_select({axis}, nearest // {2 * size})",
            ]
    return lines


def _named_rows(indices: str, rows: str) -> Lines:
    """Lines for the rows `named` by numbers, and whether those are `known`."""
    return [
        f"named = {indices}.long()",
        f"named = torch.where(named < 0, named + {rows}, named)",
        f"known = (named >= 0) & (named < {rows})",
    ]


def _look_up(op: LookUp, result: str, table: str, indices: str) -> Lines:
    return [
        *_named_rows(indices, f"len({table})"),
        f'{result} = torch.where(known[..., None], {table}[named * known], float("nan"))',
    ]


def _look_up_grad(op: LookUpGrad, result: str, dy: str, indices: str) -> Lines:
    return [
        *_named_rows(indices, str(op.rows)),
        f"{result} = {dy}.new_zeros({op.rows}, {dy}.shape[-1])",
        f"{result} = {result}.index_add(0, named[known], {dy}[known])",
    ]


_TABLE: dict[type[Op], Callable[..., Lines | str]] = {
    LookUp: _look_up,
    LookUpGrad: _look_up_grad,
    BroadcastTo: _broadcast_to,
    ActivationGrad: _activation_grad,
    Conv2D: _conv,
    Conv2DDataGrad: _conv_data_grad,
    Conv2DTranspose: _conv_data_grad,
    Conv2DWeightGrad: _conv_weight_grad,
    Dense: _dense,
    DenseDataGrad: lambda op, result, dy, w: f"{dy} @ {w}.t()",
    MatMul: _matmul,
    DenseWeightGrad: lambda op, result, x, dy: f"{x}.flatten(0, -2).t() @ {dy}.flatten(0, -2)",
    MaxPool2D: _max_pool,
    MaxPoolIndex2D: _max_pool_index,
    AveragePool2D: _average_pool,
    MaxUnpool2D: _max_unpool,
    Resize: _resize,
    ResizeGrad: _resize,
    AverageUnpool2D: _average_unpool,
    Reduce: _reduce,
    Variance: lambda op, result, x: f"{x}.flatten(0, -2).var(0, correction=0)",
    **ROWS,
    **{op: _row_loss for op in REGISTRY.values() if issubclass(op, RowLoss)},
    RowLossGrad: _row_loss_grad,
    CircleLoss: _circle_loss,
    CircleLossGrad: _circle_loss_grad,
    Concat: lambda op, result, *xs: f"torch.cat({tuple_text(xs)}, {op.axis})",
    Pad: _pad,
    Flip: lambda op, result, x: f"{x}.flip({op.axes})",
    Slice: _slice,
    Transpose: lambda op, result, x: f"{x}.permute({', '.join(map(str, op.permutation))})",
    **WARPS,
}
