"""Pointwise ops as Triton expressions, all in float32.

One table, op class -> text. NaN passes through every activation as it does in torch, which is why a ReLU is
`tl.where(v < 0, 0.0, v)` and not `tl.maximum(v, 0)`. What takes more than one line is a small jitted function
(HELPERS) that the file frame copies into a file whose kernel calls it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from ..graph.errors import CompileError
from ..graph.op import Op
from ..graph.ops import (
    Abs,
    Activation,
    ActivationGrad,
    Add,
    BatchNorm,
    BatchNormGrad,
    BroadcastTo,
    Divide,
    Elu,
    Exp,
    ExtremumGrad,
    Gelu,
    GeneralRelu,
    HardSigmoid,
    HardSwish,
    InTraining,
    LeakyRelu,
    Log,
    Maximum,
    Minimum,
    Mish,
    Multiply,
    Normalize,
    Prelu,
    PreluGrad,
    Relu,
    Relu6,
    RsqrtPlus,
    Scale,
    Sigmoid,
    Softplus,
    Softsign,
    Sqrt,
    Square,
    Subtract,
    Swish,
    Tanh,
)

HELPERS: dict[str, str] = {
    "sigmoid": '''
@triton.jit
def sigmoid(x):
    """1 / (1 + exp(-x)), in a form that never overflows."""
    small = tl.exp(-tl.abs(x))
    return tl.where(x < 0, small, 1.0) / (1.0 + small)
''',
    "tanh": '''
@triton.jit
def tanh(x):
    """Hyperbolic tangent; its Taylor series near 0, where 1 - exp(-2 |x|) would cancel."""
    square = x * x
    series = 1.0 - square * (1 / 3 - square * (2 / 15 - square * (17 / 315 - square * (62 / 2835))))
    small = tl.exp(-2.0 * tl.abs(x))
    far = (1.0 - small) / (1.0 + small)
    return tl.where(square < 0.0625, x * series, tl.where(x < 0, -far, far))
''',
    "expm1": '''
@triton.jit
def expm1(x):
    """exp(x) - 1 for x <= 0; its Taylor series near 0, where the difference would cancel."""
    series = x * (1.0 + x * (1 / 2 + x * (1 / 6 + x * (1 / 24 + x * (1 / 120)))))
    return tl.where(x > -0.1, series, tl.exp(-tl.abs(x)) - 1.0)
''',
    "gelu": '''
@triton.jit
def gelu(x):
    """x * Phi(x), Phi being the normal distribution function."""
    return 0.5 * x * (1.0 + tl.math.erf(x * 0.7071067811865476))
''',
    "gelu_slope": '''
@triton.jit
def gelu_slope(x):
    """Derivative of x * Phi(x): Phi(x) + x * phi(x)."""
    below = 0.5 * (1.0 + tl.math.erf(x * 0.7071067811865476))
    density = 0.3989422804014327 * tl.exp(-0.5 * x * x)
    return below + x * density
''',
    "gelu_tanh": '''
@triton.jit
def gelu_tanh(x):
    """The tanh form of gelu."""
    return 0.5 * x * (1.0 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)))
''',
    "gelu_tanh_slope": '''
@triton.jit
def gelu_tanh_slope(x):
    """Derivative of the tanh form of gelu."""
    t = tanh(0.7978845608028654 * (x + 0.044715 * x * x * x))
    inner = 0.7978845608028654 * (1.0 + 0.134145 * x * x)
    return 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * inner
''',
    "swish_slope": '''
@triton.jit
def swish_slope(x):
    """Derivative of x * sigmoid(x)."""
    s = sigmoid(x)
    return s * (1.0 + x * (1.0 - s))
''',
    "softplus": '''
@triton.jit
def softplus(x):
    """log(1 + exp(x)); the logarithm as its Taylor series where 1 + exp(-|x|) would cancel."""
    small = tl.exp(-tl.abs(x))
    series = small * (1.0 - small * (1 / 2 - small * (1 / 3 - small * (1 / 4))))
    return tl.where(x < 0, 0.0, x) + tl.where(small < 0.01, series, tl.log(1.0 + small))
''',
    "mish_slope": '''
@triton.jit
def mish_slope(x):
    """Derivative of x * tanh(softplus(x))."""
    t = tanh(softplus(x))
    return t + x * sigmoid(x) * (1.0 - t * t)
''',
    "softsign_slope": '''
@triton.jit
def softsign_slope(x):
    """Derivative of x / (1 + |x|)."""
    below = 1.0 + tl.abs(x)
    return 1.0 / (below * below)
''',
    "hard_sigmoid": '''
@triton.jit
def hard_sigmoid(x, slope: tl.constexpr, offset: tl.constexpr):
    """slope * x + offset between 0 and 1."""
    line = x * slope + offset
    return tl.where(line < 0, 0.0, tl.where(line > 1, 1.0, line))
''',
    "hard_swish_slope": '''
@triton.jit
def hard_swish_slope(x):
    """Derivative of x * relu6(x + 3) / 6."""
    return tl.where(x <= -3, 0.0, tl.where(x >= 3, 1.0, x * (1 / 3) + 0.5))
''',
}
"""Jitted functions a kernel may call, by name; each may call those above it."""


def helpers_called(text: str) -> list[str]:
    """Names of the HELPERS that a kernel's text calls, directly or through one another, in their order."""
    called: set[str] = set()
    pending = [text]
    while pending:
        body = pending.pop()
        for name, source in HELPERS.items():
            if name not in called and re.search(rf"(?<![\w.]){name}\(", body):
                called.add(name)
                pending.append(source.split("\n", 3)[3])
    return [name for name in HELPERS if name in called]


def number(value: float) -> str:
    """A Python float as source text that is always a float."""
    value = float(value)
    if value != value or value in (float("inf"), float("-inf")):
        return f'float("{value}")'
    return repr(value)


def expression(op: Op, operands: Sequence[str], *, count: str = "") -> str:
    """Triton text of a pointwise op applied to float32 values named `operands`.

    count: text of the number of values per channel, which BatchNormGrad needs; for BroadcastTo, how often a
    value is repeated.
    Raises CompileError for an op that has no row in the table.
    """
    if isinstance(op, ActivationGrad):
        dy, saved = operands
        return _derivative(op.activation, dy, saved)
    if isinstance(op, BatchNormGrad):
        return _batch_norm_grad(op, operands, count)
    if isinstance(op, BroadcastTo):
        return f"{operands[0]} / {count}" if op.mean else operands[0]
    text = _TEXT.get(type(op))
    if text is None:
        raise CompileError(f"no kernel computes {op.op_name()}; add a row to codegen/expressions.py")
    return text(op, *operands)


def _scale(op: Any, x: str) -> str:
    text = x if op.factor == 1 else f"-{x}" if op.factor == -1 else f"{x} * {number(op.factor)}"
    return text if op.offset == 0 else f"{text} + {number(op.offset)}"


def _general_relu(op: Any, x: str) -> str:
    away = f"({x} - {number(op.threshold)})" if op.threshold else x
    below = f"{number(op.negative_slope)} * {away}" if op.negative_slope else "0.0"
    kept = x
    if op.max_value is not None:
        kept = f"tl.where({x} > {number(op.max_value)}, {number(op.max_value)}, {x})"
    return f"tl.where({x} <= {number(op.threshold)}, {below}, {kept})"


def _general_relu_grad(f: Any, dy: str, x: str) -> str:
    below = f"{number(f.negative_slope)} * {dy}" if f.negative_slope else "0.0"
    kept = dy if f.max_value is None else f"tl.where({x} < {number(f.max_value)}, {dy}, 0.0)"
    return f"tl.where({x} > {number(f.threshold)}, {kept}, {below})"


_TEXT: dict[type[Op], Callable[..., str]] = {
    Add: lambda op, a, b: f"{a} + {b}",
    Subtract: lambda op, a, b: f"{a} - {b}",
    Multiply: lambda op, a, b: f"{a} * {b}",
    Scale: _scale,
    Square: lambda op, x: f"{x} * {x}",
    RsqrtPlus: lambda op, x: f"1.0 / tl.sqrt({x} + {number(op.epsilon)})",
    Relu: lambda op, x: f"tl.where({x} < 0, 0.0, {x})",
    Relu6: lambda op, x: f"tl.where({x} < 0, 0.0, tl.where({x} > 6, 6.0, {x}))",
    LeakyRelu: lambda op, x: f"tl.where({x} < 0, {number(op.slope)} * {x}, {x})",
    Sigmoid: lambda op, x: f"sigmoid({x})",
    Tanh: lambda op, x: f"tanh({x})",
    Swish: lambda op, x: f"{x} * sigmoid({x})",
    Gelu: lambda op, x: f"gelu_tanh({x})" if op.approximate else f"gelu({x})",
    Elu: lambda op, x: f"tl.where({x} > 0, {x}, {number(op.alpha)} * expm1({x}))",
    InTraining: lambda op, x, *y: x,
    BatchNorm: lambda op, x, gamma, beta, mean, variance: (
        f"({x} - {mean}) / tl.sqrt({variance} + {number(op.epsilon)}) * {gamma} + {beta}"
    ),
    Normalize: lambda op, x, mean, variance: f"({x} - {mean}) / tl.sqrt({variance} + {number(op.epsilon)})",
    Divide: lambda op, a, b: f"{a} / {b}",
    Maximum: lambda op, a, b: f"tl.where({a} != {a}, {a}, tl.where({a} > {b}, {a}, {b}))",
    Minimum: lambda op, a, b: f"tl.where({a} != {a}, {a}, tl.where({a} < {b}, {a}, {b}))",
    ExtremumGrad: lambda op, dy, x, other: (
        f"tl.where({x} == {other}, 0.5 * {dy}, "
        f"tl.where({x} {'<' if op.smallest else '>'} {other}, {dy}, 0.0))"
    ),
    GeneralRelu: _general_relu,
    HardSigmoid: lambda op, x: f"hard_sigmoid({x}, {number(op.slope)}, {number(op.offset)})",
    HardSwish: lambda op, x: f"{x} * hard_sigmoid({x}, {number(1 / 6)}, 0.5)",
    Softplus: lambda op, x: f"softplus({x})",
    Softsign: lambda op, x: f"{x} / (1.0 + tl.abs({x}))",
    Mish: lambda op, x: f"{x} * tanh(softplus({x}))",
    Exp: lambda op, x: f"tl.exp({x})",
    Log: lambda op, x: f"tl.log({x})",
    Sqrt: lambda op, x: f"tl.sqrt({x})",
    Abs: lambda op, x: f"tl.abs({x})",
    Prelu: lambda op, x, alpha: f"tl.where({x} > 0, {x}, {alpha} * {x})",
    PreluGrad: lambda op, dy, x, alpha: f"tl.where({x} > 0, {dy}, {alpha} * {dy})",
}

_SLOPE: dict[type[Activation], Callable[..., str]] = {
    Relu: lambda f, dy, y: f"tl.where({y} > 0, {dy}, 0.0)",
    Relu6: lambda f, dy, y: f"tl.where(({y} > 0) & ({y} < 6), {dy}, 0.0)",
    LeakyRelu: lambda f, dy, y: f"tl.where({y} > 0, {dy}, {number(f.slope)} * {dy})",
    Sigmoid: lambda f, dy, y: f"{dy} * {y} * (1.0 - {y})",
    Tanh: lambda f, dy, y: f"{dy} * (1.0 - {y} * {y})",
    Swish: lambda f, dy, x: f"{dy} * swish_slope({x})",
    Gelu: lambda f, dy, x: f"{dy} * gelu_tanh_slope({x})" if f.approximate else f"{dy} * gelu_slope({x})",
    Elu: lambda f, dy, y: f"tl.where({y} > 0, {dy}, {dy} * ({y} + {number(f.alpha)}))",
    GeneralRelu: _general_relu_grad,
    HardSigmoid: lambda f, dy, y: f"tl.where(({y} > 0) & ({y} < 1), {number(f.slope)} * {dy}, 0.0)",
    HardSwish: lambda f, dy, x: f"{dy} * hard_swish_slope({x})",
    Softplus: lambda f, dy, x: f"{dy} * sigmoid({x})",
    Softsign: lambda f, dy, x: f"{dy} * softsign_slope({x})",
    Mish: lambda f, dy, x: f"{dy} * mish_slope({x})",
    Exp: lambda f, dy, y: f"{dy} * {y}",
    Log: lambda f, dy, x: f"{dy} / {x}",
    Sqrt: lambda f, dy, y: f"0.5 * {dy} / {y}",
    Abs: lambda f, dy, x: f"tl.where({x} == 0, 0.0, tl.where({x} < 0, -{dy}, {dy}))",
}


def _derivative(activation: Activation, dy: str, saved: str) -> str:
    text = _SLOPE.get(type(activation))
    if text is None:
        name = activation.op_name()
        raise CompileError(f"no kernel knows the derivative of {name}; add a row to codegen/expressions.py")
    return text(activation, dy, saved)


def _batch_norm_grad(op: BatchNormGrad, operands: Sequence[str], count: str) -> str:
    dy, x, gamma, mean, variance, d_gamma, d_beta = operands
    if not count:
        raise CompileError("batch_norm_grad needs the number of values per channel")
    rstd = f"(1.0 / tl.sqrt({variance} + {number(op.epsilon)}))"
    return f"{gamma} * {rstd} * ({dy} - ({d_beta} + ({x} - {mean}) * {rstd} * {d_gamma}) / {count})"
