"""The functions that formulas call, a row each.

Those that a kernel cannot compute in a line have a function of their own in codegen, by the same name; a
slope without one of PyTorch's is written here, and in the careful form there.
"""

from __future__ import annotations

from typing import Any

import torch

from .formula import Function, where

# -- of the languages themselves ----------
exp: Function = Function("exp", "torch.exp", slope=lambda x: exp(x))
expm1 = Function("expm1", "torch.expm1", slope=lambda x: exp(x))
log = Function("log", "torch.log", slope=lambda x: 1.0 / x)
log1p = Function("log1p", "torch.log1p", lambda x: log(1.0 + x))
sqrt: Function = Function("sqrt", "torch.sqrt", slope=lambda x: 0.5 / sqrt(x))
rsqrt = Function("rsqrt", "torch.rsqrt", lambda x: 1.0 / sqrt(x))
erf = Function("erf", "torch.erf", slope=lambda x: 1.1283791670955126 * exp(-x * x))  # 2 / sqrt(pi)
sinc = Function("sinc", "torch.sinc")
floor = Function("floor", "torch.floor", slope=lambda x: 0.0)
remainder = Function("remainder", "torch.remainder")  # never negative, for a positive divisor
absolute = Function(
    "abs", "torch.abs", slope=lambda x: where(x == 0, 0.0, where(x < 0, -1.0, 1.0, like=x), like=x)
)

# -- in pieces; NaN passes, which is why the conditions stand the way they do ----------
logical_not = Function("not", "torch.logical_not", lambda x: x == 0)
maximum = Function("max", "torch.maximum", lambda a, b: where(a != a, a, where(a > b, a, b)))
minimum = Function("min", "torch.minimum", lambda a, b: where(a != a, a, where(a < b, a, b)))
clamp = Function("clamp", "torch.clamp", lambda x, low, high: where(x < low, low, where(x > high, high, x)))
at_least = Function("at_least", "torch.clamp_min", lambda x, least: where(x < least, least, x))
at_most = Function("at_most", "torch.clamp_max", lambda x, most: where(x > most, most, x))
relu = Function("relu", "torch.relu", lambda x: where(x < 0, 0.0, x))
relu6 = Function("relu6", "F.relu6", lambda x: where(x < 0, 0.0, where(x > 6, 6.0, x)))
leaky_relu = Function("leaky_relu", "F.leaky_relu", lambda x, slope: where(x < 0, slope * x, x))
threshold = Function("threshold", "F.threshold", lambda x, least, value: where(x <= least, value, x))
hard_shrink = Function("hard_shrink", "F.hardshrink", lambda x, most: where(absolute(x) <= most, 0.0, x))
soft_shrink = Function("soft_shrink", "F.softshrink")
hard_sigmoid = Function(
    "hard_sigmoid", definition=lambda x, slope, offset: clamp(x * slope + offset, 0.0, 1.0)
)
hard_swish_slope = Function(
    "hard_swish_slope", definition=lambda x: where(x <= -3, 0.0, where(x >= 3, 1.0, x / 3 + 0.5))
)
hard_swish = Function(
    "hard_swish", "F.hardswish", lambda x: x * hard_sigmoid(x, 1 / 6, 0.5), slope=hard_swish_slope
)
sparse_plus = Function(
    "sparse_plus",
    definition=lambda x: where(x <= -1, 0.0, where(x < 1, 0.25 * (x + 1.0) * (x + 1.0), x)),
)

# -- smooth ----------
sigmoid: Function = Function("sigmoid", "torch.sigmoid", slope=lambda x: sigmoid(x) * (1.0 - sigmoid(x)))
tanh: Function = Function("tanh", "torch.tanh", slope=lambda x: 1.0 - tanh(x) * tanh(x))
elu = Function("elu", "F.elu", lambda x, alpha: where(x > 0, x, alpha * expm1(x)))
_zeros_like = Function("zeros_like", "torch.zeros_like")
_logaddexp = Function("logaddexp", "torch.logaddexp")
softplus = Function("softplus", definition=lambda x: _logaddexp(x, _zeros_like(x)), slope=sigmoid)
log_sigmoid = Function("log_sigmoid", "F.logsigmoid", lambda x: -softplus(-x))


def _swish_slope(x: Any) -> Any:
    s = sigmoid(x)
    return s * (1.0 + x * (1.0 - s))


swish_slope = Function("swish_slope", definition=_swish_slope)
swish = Function("swish", "F.silu", lambda x: x * sigmoid(x), slope=swish_slope)


def _mish_slope(x: Any) -> Any:
    t = tanh(softplus(x))
    return t + x * sigmoid(x) * (1.0 - t * t)


mish_slope = Function("mish_slope", definition=_mish_slope)
mish = Function("mish", "F.mish", lambda x: x * tanh(softplus(x)), slope=mish_slope)


def _gelu_slope(x: Any) -> Any:
    below = 0.5 * (1.0 + erf(x * 0.7071067811865476))
    return below + x * (0.3989422804014327 * exp(-0.5 * x * x))  # 1 / sqrt(2 pi)


gelu_slope = Function("gelu_slope", definition=_gelu_slope)
gelu = Function("gelu", "F.gelu", slope=gelu_slope)


def _gelu_tanh_slope(x: Any) -> Any:
    k = 0.7978845608028654  # sqrt(2 / pi)
    t = tanh(k * (x + 0.044715 * x * x * x))
    return 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * (k * (1.0 + 0.134145 * x * x))


gelu_tanh_slope = Function("gelu_tanh_slope", definition=_gelu_tanh_slope)
gelu_tanh = Function("gelu_tanh", "F.gelu", slope=gelu_tanh_slope, options=(("approximate", "tanh"),))

softsign_slope = Function(
    "softsign_slope", definition=lambda x: 1.0 / ((1.0 + absolute(x)) * (1.0 + absolute(x)))
)
softsign = Function("softsign", "F.softsign", lambda x: x / (1.0 + absolute(x)), slope=softsign_slope)
tanh_shrink_slope = Function("tanh_shrink_slope", definition=lambda x: tanh(x) * tanh(x))
tanh_shrink = Function("tanh_shrink", "F.tanhshrink", slope=tanh_shrink_slope)


# -- of whole rows, along the last axis; the first two leave one number a row ----------
row_sum = Function("row_sum", "torch.sum", options=(("dim", -1), ("keepdim", True)))
row_max = Function("row_max", "torch.amax", options=(("dim", -1), ("keepdim", True)))
softmax = Function("softmax", "torch.softmax", options=(("dim", -1),))
log_softmax = Function("log_softmax", "torch.log_softmax", options=(("dim", -1),))
one_hot = Function(  # 1 at the place in the row that a whole number names, else 0; x: a row as long
    "one_hot",
    definition=lambda number, x: (torch.arange(x.shape[-1], device=x.device) == number).to(x.dtype),
)
NARROW = ("row_sum", "row_max")


def power(x: Any, exponent: float) -> Any:
    """x ** exponent for x >= 0 and a number known beforehand: products and roots where they do."""
    if exponent in (0, 1, 2, 3):
        return {0: 1.0, 1: x, 2: x * x, 3: x * x * x}[int(exponent)]
    if exponent == 0.5:
        return sqrt(x)
    return where(x <= 0, 0.0 if exponent > 0 else float("inf"), exp(exponent * log(where(x <= 0, 1.0, x))))


def _squareplus(x: Any, b: float) -> Any:
    root = sqrt(x * x + b)
    return where(x < 0, 0.5 * b / (root - x), 0.5 * (x + root))  # where the sum would cancel


squareplus = Function("squareplus", definition=_squareplus)
