"""Activations as text, one row an op: in Triton for the kernels, in PyTorch for the references beside them.

NaN passes through every activation as it does in torch, which is why a ReLU is `tl.where(v < 0, 0.0, v)` and
not `tl.maximum(v, 0)`; gradients pass where a value is NaN, which is why they are tested for where none does.
What takes Triton more than one line is a function of HELPERS in `expressions.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...graph.errors import CompileError
from ...graph.ops import (
    Abs,
    Activation,
    Clip,
    Elu,
    Exp,
    Gelu,
    GeneralRelu,
    HardShrink,
    HardSigmoid,
    HardSwish,
    LeakyRelu,
    Log,
    LogSigmoid,
    Mish,
    Relu,
    Relu6,
    Sigmoid,
    Softplus,
    SoftShrink,
    Softsign,
    SparsePlus,
    Sqrt,
    Squareplus,
    Swish,
    Tanh,
    TanhShrink,
    Threshold,
)
from .writer import number


@dataclass(frozen=True)
class Row:
    """The texts of an activation f.

    value: f(x) in Triton. slope: dy * f'(saved) in Triton, saved being x or y as the op says.
    torch: f(x) in PyTorch. torch_slope: f'(y); for an op that saves x, PyTorch differentiates `torch` itself.
    """

    value: Callable[[Any, str], str]
    slope: Callable[[Any, str, str], str]
    torch: Callable[[Any, str], str]
    torch_slope: Callable[[Any, str], str] | None = None


def row_of(activation: Activation) -> Row:
    """Raises CompileError for an activation that has no row."""
    row = ROWS.get(type(activation))
    if row is None:
        name = activation.op_name()
        raise CompileError(f"no kernel computes {name}; add a row to codegen/text/activations.py")
    return row


# -- rows of several lines -----------------------------------------------------------------------------------
def _general_relu(f: Any, x: str) -> str:
    away = f"({x} - {number(f.threshold)})" if f.threshold else x
    below = f"{number(f.negative_slope)} * {away}" if f.negative_slope else "0.0"
    kept = x
    if f.max_value is not None:
        kept = f"tl.where({x} > {number(f.max_value)}, {number(f.max_value)}, {x})"
    return f"tl.where({x} <= {number(f.threshold)}, {below}, {kept})"


def _general_relu_slope(f: Any, dy: str, x: str) -> str:
    below = f"{number(f.negative_slope)} * {dy}" if f.negative_slope else "0.0"
    kept = dy if f.max_value is None else f"tl.where({x} >= {number(f.max_value)}, 0.0, {dy})"
    return f"tl.where({x} <= {number(f.threshold)}, {below}, {kept})"


def _clip(f: Any, x: str) -> str:
    low, high = number(f.low), number(f.high)
    return f"tl.where({x} < {low}, {low}, tl.where({x} > {high}, {high}, {x}))"


def _times(factor: float, text: str) -> str:
    return text if factor == 1 else f"{number(factor)} * {text}"


def _elu(f: Any, x: str) -> str:
    below = f"{number(f.alpha * f.scale)} * expm1({_times(f.input_scale, x)})"
    return f"tl.where({x} > 0, {_times(f.scale, x)}, {below})"


def _elu_slope(f: Any, dy: str, y: str) -> str:
    below = _times(f.input_scale, f"{dy} * ({y} + {number(f.alpha * f.scale)})")
    return f"tl.where({y} > 0, {_times(f.scale, dy)}, {below})"


def _general_relu_in_torch(f: Any, x: str) -> str:
    kept = x if f.max_value is None else f"{x}.clamp(max={number(f.max_value)})"
    below = f"{number(f.negative_slope)} * ({x} - {number(f.threshold)})"
    return f"torch.where({x} <= {number(f.threshold)}, {below}, {kept})"


def _elu_in_torch(f: Any, x: str) -> str:
    below = f"{number(f.scale * f.alpha)} * torch.expm1({number(f.input_scale)} * {x}.clamp(max=0))"
    return f"torch.where({x} > 0, {number(f.scale)} * {x}, {below})"


def _elu_slope_in_torch(f: Any, y: str) -> str:
    below = f"{number(f.input_scale)} * ({y} + {number(f.scale * f.alpha)})"
    return f"torch.where({y} > 0, {number(f.scale)}, {below})"


ROWS: dict[type[Activation], Row] = {
    Relu: Row(
        lambda f, x: f"tl.where({x} < 0, 0.0, {x})",
        lambda f, dy, y: f"tl.where({y} <= 0, 0.0, {dy})",
        lambda f, x: f"torch.relu({x})",
        lambda f, y: f"~({y} <= 0)",
    ),
    Relu6: Row(
        lambda f, x: f"tl.where({x} < 0, 0.0, tl.where({x} > 6, 6.0, {x}))",
        lambda f, dy, y: f"tl.where(({y} <= 0) | ({y} >= 6), 0.0, {dy})",
        lambda f, x: f"F.relu6({x})",
        lambda f, y: f"~(({y} <= 0) | ({y} >= 6))",
    ),
    LeakyRelu: Row(
        lambda f, x: f"tl.where({x} < 0, {number(f.slope)} * {x}, {x})",
        lambda f, dy, y: f"tl.where({y} > 0, {dy}, {number(f.slope)} * {dy})",
        lambda f, x: f"F.leaky_relu({x}, {number(f.slope)})",
        lambda f, y: f"torch.where({y} > 0, 1.0, torch.full_like({y}, {number(f.slope)}))",
    ),
    Sigmoid: Row(
        lambda f, x: f"sigmoid({x})",
        lambda f, dy, y: f"{dy} * {y} * (1.0 - {y})",
        lambda f, x: f"torch.sigmoid({x})",
        lambda f, y: f"{y} * (1 - {y})",
    ),
    Tanh: Row(
        lambda f, x: f"tanh({x})",
        lambda f, dy, y: f"{dy} * (1.0 - {y} * {y})",
        lambda f, x: f"torch.tanh({x})",
        lambda f, y: f"(1 - {y} * {y})",
    ),
    Swish: Row(
        lambda f, x: f"{x} * sigmoid({x})",
        lambda f, dy, x: f"{dy} * swish_slope({x})",
        lambda f, x: f"F.silu({x})",
    ),
    Gelu: Row(
        lambda f, x: f"gelu_tanh({x})" if f.approximate else f"gelu({x})",
        lambda f, dy, x: f"{dy} * gelu_tanh_slope({x})" if f.approximate else f"{dy} * gelu_slope({x})",
        lambda f, x: f'F.gelu({x}, approximate="tanh")' if f.approximate else f"F.gelu({x})",
    ),
    Elu: Row(
        _elu,
        _elu_slope,
        lambda f, x: (
            f"F.elu({x}, {number(f.alpha)})" if f.scale == f.input_scale == 1 else _elu_in_torch(f, x)
        ),
        _elu_slope_in_torch,
    ),
    GeneralRelu: Row(
        _general_relu,
        _general_relu_slope,
        _general_relu_in_torch,
    ),
    HardSigmoid: Row(
        lambda f, x: f"hard_sigmoid({x}, {number(f.slope)}, {number(f.offset)})",
        lambda f, dy, y: f"tl.where(({y} <= 0) | ({y} >= 1), 0.0, {number(f.slope)} * {dy})",
        lambda f, x: f"({x} * {number(f.slope)} + {number(f.offset)}).clamp(0.0, 1.0)",
        lambda f, y: f"{number(f.slope)} * (~(({y} <= 0) | ({y} >= 1))).to({y}.dtype)",
    ),
    HardSwish: Row(
        lambda f, x: f"{x} * hard_sigmoid({x}, {number(1 / 6)}, 0.5)",
        lambda f, dy, x: f"tl.where({x} <= -3, 0.0, {dy} * hard_swish_slope({x}))",
        lambda f, x: f"F.hardswish({x})",
    ),
    Softplus: Row(
        lambda f, x: f"softplus({x})",
        lambda f, dy, x: f"{dy} * sigmoid({x})",
        lambda f, x: f"torch.logaddexp({x}, torch.zeros_like({x}))",
    ),
    Softsign: Row(
        lambda f, x: f"{x} / (1.0 + tl.abs({x}))",
        lambda f, dy, x: f"{dy} * softsign_slope({x})",
        lambda f, x: f"F.softsign({x})",
    ),
    Mish: Row(
        lambda f, x: f"{x} * tanh(softplus({x}))",
        lambda f, dy, x: f"{dy} * mish_slope({x})",
        lambda f, x: f"F.mish({x})",
    ),
    Clip: Row(
        _clip,
        lambda f, dy, y: f"tl.where(({y} <= {number(f.low)}) | ({y} >= {number(f.high)}), 0.0, {dy})",
        lambda f, x: f"{x}.clamp({number(f.low)}, {number(f.high)})",
        lambda f, y: f"~(({y} <= {number(f.low)}) | ({y} >= {number(f.high)}))",
    ),
    HardShrink: Row(
        lambda f, x: f"tl.where(tl.abs({x}) <= {number(f.threshold)}, 0.0, {x})",
        lambda f, dy, y: f"tl.where({y} == 0, 0.0, {dy})",
        lambda f, x: f"F.hardshrink({x}, {number(f.threshold)})",
        lambda f, y: f"({y} != 0)",
    ),
    SoftShrink: Row(
        lambda f, x: f"soft_shrink({x}, {number(f.threshold)})",
        lambda f, dy, y: f"tl.where({y} == 0, 0.0, {dy})",
        lambda f, x: f"F.softshrink({x}, {number(f.threshold)})",
        lambda f, y: f"({y} != 0)",
    ),
    Threshold: Row(
        lambda f, x: f"tl.where({x} <= {number(f.threshold)}, {number(f.value)}, {x})",
        lambda f, dy, x: f"tl.where({x} <= {number(f.threshold)}, 0.0, {dy})",
        lambda f, x: f"F.threshold({x}, {number(f.threshold)}, {number(f.value)})",
    ),
    SparsePlus: Row(
        lambda f, x: f"sparse_plus({x})",
        lambda f, dy, y: f"tl.where({y} < 1, {dy} * tl.sqrt({y}), {dy})",
        lambda f, x: f"torch.where({x} < 1, ({x} + 1).clamp(min=0).square() / 4, {x})",
        lambda f, y: f"{y}.clamp(max=1).sqrt()",
    ),
    LogSigmoid: Row(
        lambda f, x: f"-softplus(-{x})",
        lambda f, dy, y: f"-{dy} * expm1({y})",
        lambda f, x: f"F.logsigmoid({x})",
        lambda f, y: f"-torch.expm1({y})",
    ),
    Squareplus: Row(
        lambda f, x: f"squareplus({x}, {number(f.b)})",
        lambda f, dy, y: f"{dy} / (1.0 + {number(f.b / 4)} / ({y} * {y}))",
        lambda f, x: f"({x} + torch.sqrt({x} * {x} + {number(f.b)})) / 2",
        lambda f, y: f"1 / (1 + {number(f.b)} / (4 * {y} * {y}))",
    ),
    TanhShrink: Row(
        lambda f, x: f"tanh_shrink({x})",
        lambda f, dy, x: f"{dy} * tanh_shrink_slope({x})",
        lambda f, x: f"F.tanhshrink({x})",
    ),
    Exp: Row(
        lambda f, x: f"tl.exp({x})",
        lambda f, dy, y: f"{dy} * {y}",
        lambda f, x: f"torch.exp({x})",
        lambda f, y: y,
    ),
    Log: Row(
        lambda f, x: f"tl.log({x})",
        lambda f, dy, x: f"{dy} / {x}",
        lambda f, x: f"torch.log({x})",
    ),
    Sqrt: Row(
        lambda f, x: f"tl.sqrt({x})",
        lambda f, dy, y: f"0.5 * {dy} / {y}",
        lambda f, x: f"torch.sqrt({x})",
        lambda f, y: f"0.5 / {y}",
    ),
    Abs: Row(
        lambda f, x: f"tl.abs({x})",
        lambda f, dy, x: f"tl.where({x} == 0, 0.0, tl.where({x} < 0, -{dy}, {dy}))",
        lambda f, x: f"{x}.abs()",
    ),
}
