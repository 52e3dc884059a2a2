"""Functions of several lines that a kernel may call: Triton's text of rows of `graph/functions.py`, by name.

Each is in a form that neither overflows nor cancels. A file holds those that its kernels call.
"""

from __future__ import annotations

from collections.abc import Iterable

HELPERS: dict[str, str] = {
    "remainder": '''
@triton.jit
def remainder(x, size):
    """x modulo size, from 0 to size - 1 for a negative x too."""
    return (x % size + size) % size
''',
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
    "merge_moments": '''
@triton.jit
def merge_moments(count, average, squares):
    """Moments of rows as those of all that the rows have seen: the mean, and the sum of squares around it.

    A row has `count` values, whose mean and sum of squares around that these are (Chan, Golub, LeVeque 1979).
    The mean is taken twice, the second time of what is left, so that the shares' rounding does not count.
    """
    share = count / tl.sum(count, axis=0)[None, :]
    mean = tl.sum(average * share, axis=0)[None, :]
    mean += tl.sum((average - mean) * share, axis=0)[None, :]
    apart = average - mean
    return mean, tl.sum(squares + count * apart * apart, axis=0)[None, :]
''',
}
"""By name; each may call those above it."""

_CALLS: dict[str, tuple[str, ...]] = {
    "tanh_shrink": ("tanh",),
    "tanh_shrink_slope": ("tanh",),
    "gelu_tanh": ("tanh",),
    "gelu_tanh_slope": ("tanh",),
    "swish_slope": ("sigmoid",),
    "mish_slope": ("sigmoid", "tanh", "softplus"),
}
"""What they call of one another."""


def with_their_own(names: Iterable[str]) -> list[str]:
    """The helpers of these names and those they call, in the order of the table."""
    needed = set(names)
    for name in reversed(HELPERS):
        if name in needed:
            needed.update(_CALLS.get(name, ()))
    return [name for name in HELPERS if name in needed]
