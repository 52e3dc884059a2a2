"""Pointwise ops as Triton expressions, all in float32.

One table, op class -> text; that of the activations is in `activations.py`. What takes more than one line is
a small jitted function (HELPERS) that the file frame copies into a file whose kernel calls it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from ...graph.errors import CompileError
from ...graph.op import Op
from ...graph.ops import (
    Activation,
    ActivationGrad,
    Add,
    BatchNorm,
    BatchNormGrad,
    BroadcastTo,
    Cast,
    Compare,
    Divide,
    ExtremumGrad,
    Floor,
    InTraining,
    Logical,
    Maximum,
    Minimum,
    Multiply,
    Normalize,
    Not,
    Prelu,
    PreluGrad,
    RsqrtPlus,
    Scale,
    Square,
    Step,
    StopGradient,
    Subtract,
    Where,
)
from ...graph.types import DTYPES
from .activations import row_of
from .writer import number

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
    "tanh_shrink": '''
@triton.jit
def tanh_shrink(x):
    """x - tanh(x); its Taylor series near 0, where the difference would cancel."""
    square = x * x
    series = square * (1 / 3 - square * (2 / 15 - square * (17 / 315 - square * (62 / 2835))))
    return tl.where(square < 0.0625, x * series, x - tanh(x))
''',
    "tanh_shrink_slope": '''
@triton.jit
def tanh_shrink_slope(x):
    """Derivative of x - tanh(x)."""
    t = tanh(x)
    return t * t
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
    "squareplus": '''
@triton.jit
def squareplus(x, b: tl.constexpr):
    """(x + sqrt(x^2 + b)) / 2; where the sum would cancel, b / 2 over the difference."""
    root = tl.sqrt(x * x + b)
    return tl.where(x < 0, 0.5 * b / (root - x), 0.5 * (x + root))
''',
    "sparse_plus": '''
@triton.jit
def sparse_plus(x):
    """0 up to -1, (x + 1)^2 / 4 up to 1, x from there on."""
    bend = 0.25 * (x + 1.0) * (x + 1.0)
    return tl.where(x <= -1, 0.0, tl.where(x < 1, bend, x))
''',
    "soft_shrink": '''
@triton.jit
def soft_shrink(x, threshold: tl.constexpr):
    """x moved towards 0 by threshold, and 0 where it would cross it."""
    moved = tl.where(x > 0, x - threshold, x + threshold)
    return tl.where(tl.abs(x) <= threshold, 0.0, moved)
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


def expression(op: Op, operands: Sequence[str], *, count: str = "") -> str:
    """Triton text of a pointwise op applied to values named `operands`: float32 ones, but for integers and
    truth values, which are what they are.

    count: text of the number of values per channel, which BatchNormGrad needs; for BroadcastTo, how often a
    value is repeated.
    Raises CompileError for an op that has no row in the table.
    """
    if isinstance(op, ActivationGrad):
        return row_of(op.activation).slope(op.activation, *operands)
    if isinstance(op, Activation):
        return row_of(op).value(op, *operands)
    if isinstance(op, BatchNormGrad):
        return _batch_norm_grad(op, operands, count)
    if isinstance(op, BroadcastTo):
        return f"{operands[0]} / {count}" if op.mean else operands[0]
    text = _TEXT.get(type(op))
    if text is None:
        raise CompileError(f"no kernel computes {op.op_name()}; add a row to codegen/text/expressions.py")
    return text(op, *operands)


RELATIONS = {"greater": ">", "greater_equal": ">=", "less": "<", "less_equal": "<="}
RELATIONS |= {"equal": "==", "not_equal": "!="}
CONNECTIVES = {"and": "&", "or": "|", "xor": "^"}


def _cast(op: Cast, x: str) -> str:
    """What a floating-point number rounds to is rounded where it is stored."""
    if op.dtype == "bool":
        return f"{x} != 0"
    return f"{x}.to({'tl.float32' if DTYPES[op.dtype].is_floating_point else f'tl.{op.dtype}'})"


def _scale(op: Any, x: str) -> str:
    text = x if op.factor == 1 else f"-{x}" if op.factor == -1 else f"{x} * {number(op.factor)}"
    return text if op.offset == 0 else f"{text} + {number(op.offset)}"


_TEXT: dict[type[Op], Callable[..., str]] = {
    Add: lambda op, a, b: f"{a} + {b}",
    Cast: _cast,
    Subtract: lambda op, a, b: f"{a} - {b}",
    Multiply: lambda op, a, b: f"{a} * {b}",
    Scale: _scale,
    Step: lambda op, x: f"tl.where({x} > 0, 1.0, 0.0)",
    StopGradient: lambda op, x: x,
    Compare: lambda op, a, b: f"{a} {RELATIONS[op.relation]} {b}",
    Logical: lambda op, a, b: f"{a} {CONNECTIVES[op.connective]} {b}",
    Not: lambda op, x: f"{x} == 0",
    Where: lambda op, condition, x1, x2: f"tl.where({condition}, {x1}, {x2})",
    Floor: lambda op, x: f"tl.floor({x})",
    Square: lambda op, x: f"{x} * {x}",
    RsqrtPlus: lambda op, x: f"1.0 / tl.sqrt({x} + {number(op.epsilon)})",
    InTraining: lambda op, x, *y: x,
    BatchNorm: lambda op, x, gamma, beta, mean, variance: (
        f"({x} - {mean}) / tl.sqrt({variance} + {number(op.epsilon)}) * {gamma} + {beta}"
    ),
    Normalize: lambda op, x, mean, variance: f"({x} - {mean}) / tl.sqrt({variance} + {number(op.epsilon)})",
    Divide: lambda op, a, b: f"{a} / {b}",
    Maximum: lambda op, a, b: f"tl.where({a} != {a}, {a}, tl.where({a} > {b}, {a}, {b}))",
    Minimum: lambda op, a, b: f"tl.where({a} != {a}, {a}, tl.where({a} < {b}, {a}, {b}))",
    ExtremumGrad: lambda op, dy, x, other: (
        f"tl.where({x} {'>' if op.smallest else '<'} {other}, 0.0, "
        f"tl.where({x} == {other}, 0.5 * {dy}, {dy}))"
    ),
    Prelu: lambda op, x, alpha: f"tl.where({x} > 0, {x}, {alpha} * {x})",
    PreluGrad: lambda op, dy, x, alpha: f"tl.where({x} > 0, {dy}, {alpha} * {dy})",
}


def _batch_norm_grad(op: BatchNormGrad, operands: Sequence[str], count: str) -> str:
    dy, x, gamma, mean, variance, d_gamma, d_beta = operands
    if not count:
        raise CompileError("batch_norm_grad needs the number of values per channel")
    rstd = f"(1.0 / tl.sqrt({variance} + {number(op.epsilon)}))"
    return f"{gamma} * {rstd} * ({dy} - ({d_beta} + ({x} - {mean}) * {rstd} * {d_gamma}) / {count})"
