"""Arithmetic on tensors and constants, and reductions: keras.ops.numpy and keras.ops.math."""

from __future__ import annotations

import math
from collections.abc import Sequence
from math import prod
from typing import Any, ClassVar

from ...graph import ops
from ...graph.errors import ShapeError
from ...graph.op import Op
from .. import fields as f
from ..lowering import Builder
from .base import Operation, same_rank

NUMPY, MATH = "keras.src.ops.numpy", "keras.src.ops.math"
LARGEST_POWER = 64


# -- two operands --------------------------------------------------------------------------------------------
class _Elementwise(Operation):
    """Base of the operations on two operands, one of which may be a number or an array."""

    operands = ("x1", "x2")
    op: ClassVar[type[Op]]

    def compute(self, b: Builder, *given: Any) -> str:
        x1, x2 = given
        if isinstance(x1, str) and isinstance(x2, str):
            same_rank(self, x1, x2, b)
            return b.add(self.op(), x1, x2)
        known = _constant(self, x2 if isinstance(x1, str) else x1)
        if isinstance(known, float) and (scale := self.scale(known, isinstance(x1, str))) is not None:
            return b.add(scale, x1 if isinstance(x1, str) else x2)
        size = (len(known),) if isinstance(known, tuple) else (1,)
        node = b.add(ops.Constant(size, known), suffix="constant")
        pair = (x1, node) if isinstance(x1, str) else (node, x2)
        return b.add(self.op(), *pair)

    def scale(self, value: float, tensor_is_left: bool) -> ops.Scale | None:
        """The same with a number as one op of the other operand, where there is one."""
        return None


def _constant(operation: Operation, value: Any) -> float | tuple[float, ...]:
    """A number, or numbers along the last axis."""
    try:
        known = f.array(value)
        shape, numbers = f.array_shape(known), f.array_numbers(known)
        if prod(shape[:-1]) == 1:
            return numbers if shape else numbers[0]
    except ShapeError:
        pass
    raise operation.fail(f"takes tensors, numbers, and arrays along the last axis, got {str(value)[:60]}")


class Add(_Elementwise):
    """x1 + x2."""

    module = NUMPY
    exact = True
    op = ops.Add

    def scale(self, value: float, tensor_is_left: bool) -> ops.Scale:
        return ops.Scale(1.0, value)


class Subtract(_Elementwise):
    """x1 - x2."""

    module = NUMPY
    exact = True
    op = ops.Subtract

    def scale(self, value: float, tensor_is_left: bool) -> ops.Scale:
        return ops.Scale(1.0, -value) if tensor_is_left else ops.Scale(-1.0, value)


class Multiply(_Elementwise):
    """x1 * x2."""

    module = NUMPY
    exact = True
    op = ops.Multiply

    def scale(self, value: float, tensor_is_left: bool) -> ops.Scale:
        return ops.Scale(value)


class TrueDivide(_Elementwise):
    """x1 / x2."""

    module = NUMPY
    op = ops.Divide

    def scale(self, value: float, tensor_is_left: bool) -> ops.Scale | None:
        if not tensor_is_left:
            return None
        if value == 0:
            raise self.fail("can be divided by a number other than 0 only, got 0")
        return ops.Scale(1.0 / value)


class Divide(TrueDivide):
    """x1 / x2."""


class Maximum(_Elementwise):
    """The larger of x1 and x2."""

    module = NUMPY
    exact = True
    op = ops.Maximum


class Minimum(_Elementwise):
    """The smaller of x1 and x2."""

    module = NUMPY
    exact = True
    op = ops.Minimum


class Power(Operation):
    """x1 ** x2 for a number x2 that is a multiple of 1/2, or a positive number x1."""

    module = NUMPY
    exact = True
    operands = ("x1", "x2")

    def compute(self, b: Builder, *given: Any) -> str:
        x1, x2 = given
        if isinstance(x1, str) and isinstance(x2, str):
            raise self.fail("takes a tensor and a number, got two tensors")
        if isinstance(x2, str):
            return self._exponential(b, _constant(self, x1), x2)
        exponent = _constant(self, x2)
        if isinstance(exponent, tuple) or exponent * 2 % 1 or abs(exponent) > LARGEST_POWER:
            raise self.fail(
                f"the exponent must be a multiple of 1/2 from -{LARGEST_POWER} to {LARGEST_POWER}, got {x2}"
            )
        return self._power(b, x1, exponent)

    def _exponential(self, b: Builder, base: float | tuple[float, ...], x: str) -> str:
        if isinstance(base, tuple) or base <= 0:
            raise self.fail(f"the base must be a tensor or a positive number, got {base}")
        return b.add(ops.Exp(), b.add(ops.Scale(math.log(base)), x, suffix="exponent"))

    def _power(self, b: Builder, x: str, exponent: float) -> str:
        """By repeated squaring, times a root where the exponent is not whole."""
        whole, half = divmod(abs(exponent), 1)
        factors = [b.add(ops.Sqrt(), x, suffix="root")] if half else []
        square, rest = x, int(whole)
        while rest:
            factors += [square] if rest % 2 else []
            rest //= 2
            square = b.add(ops.Square(), square, suffix="square") if rest else square
        if not factors:
            return b.add(ops.Scale(0.0, 1.0), x)
        result = factors[0]
        for factor in factors[1:]:
            result = b.add(ops.Multiply(), result, factor, suffix="product")
        return result if exponent > 0 else _reciprocal(b, result)


class Matmul(Operation):
    """Products of the matrices of two tensors, (N, ..., M, K) and (N, ..., K, P), alike on all other axes.

    (N, ..., M, P) comes of it. Raises ShapeError for tensors of different ranks, or of a rank below 3.
    """

    module = NUMPY
    exact = True
    operands = ("x1", "x2")

    def compute(self, b: Builder, *given: Any) -> str:
        return b.add(ops.MatMul(), *map(self.tensor, given))


def _reciprocal(b: Builder, x: str) -> str:
    return b.add(ops.Divide(), b.add(ops.Constant((1,), 1.0), suffix="one"), x)


# -- one operand ---------------------------------------------------------------------------------------------
class _Pointwise(Operation):
    """Base of the functions that are one op."""

    op: ClassVar[Op]

    def compute(self, b: Builder, *given: Any) -> str:
        return b.add(self.op, self.tensor(given[0]))


class Negative(_Pointwise):
    """-x."""

    module = NUMPY
    exact = True
    op = ops.Scale(-1.0)


class Absolute(_Pointwise):
    """|x|."""

    module = NUMPY
    exact = True
    op = ops.Abs()


class Abs(Absolute):
    """|x|."""


class Square(_Pointwise):
    """x * x."""

    module = NUMPY
    exact = True
    op = ops.Square()


class Sqrt(_Pointwise):
    """Square root."""

    module = NUMPY
    op = ops.Sqrt()


class Exp(_Pointwise):
    """e ** x."""

    module = NUMPY
    op = ops.Exp()


class Log(_Pointwise):
    """The natural logarithm."""

    module = NUMPY
    op = ops.Log()


class Tanh(_Pointwise):
    """Hyperbolic tangent."""

    module = NUMPY
    op = ops.Tanh()


class Rsqrt(_Pointwise):
    """1 / sqrt(x)."""

    module = MATH
    op = ops.RsqrtPlus(0.0)


class Reciprocal(Operation):
    """1 / x."""

    module = NUMPY

    def compute(self, b: Builder, *given: Any) -> str:
        return _reciprocal(b, self.tensor(given[0]))


class Clip(Operation):
    """x where it lies between x_min and x_max, else the nearer of the two."""

    module = NUMPY
    exact = True

    x_min: float | None = f.option(f.maybe(f.number))
    x_max: float | None = f.option(f.maybe(f.number))

    def compute(self, b: Builder, *given: Any) -> str:
        x = self.tensor(given[0])
        for op, bound in ((ops.Maximum(), self.x_min), (ops.Minimum(), self.x_max)):
            if bound is not None:
                x = b.add(op, x, b.add(ops.Constant((1,), bound), suffix="bound"))
        return x


# -- reductions ----------------------------------------------------------------------------------------------
class _Reduction(Operation):
    """Base of the reductions along axes, which vanish or, with keepdims, stay with size 1."""

    module = NUMPY

    axis: Sequence[int] | None = f.option(f.maybe(f.axes), default=None)
    keepdims: bool = f.option(f.flag, default=False)

    def compute(self, b: Builder, *given: Any) -> str:
        x = self.tensor(given[0])
        kind = b.type(x)
        axes = self.axes_of(self.axis, kind.rank)
        result = self.reduce(b, x, axes)
        sizes = [int(d) for d in kind.shape[1:]]
        kept = tuple(1 if i in axes else n for i, n in enumerate(sizes, start=1))
        left = kept if self.keepdims else tuple(n for i, n in enumerate(sizes, start=1) if i not in axes)
        if b.type(result).size()[1:] == left:
            return result
        return b.add(ops.Reshape(left), result, suffix="reshape")

    def reduce(self, b: Builder, x: str, axes: tuple[int, ...]) -> str:
        """The values in their order, whatever the shape."""
        raise NotImplementedError


class Sum(_Reduction):
    """Sum along axes."""

    exact = True
    def reduce(self, b: Builder, x: str, axes: tuple[int, ...]) -> str:
        return b.add(ops.Reduce(axes, keepdims=True), x)


class Mean(_Reduction):
    """Mean along axes."""

    def reduce(self, b: Builder, x: str, axes: tuple[int, ...]) -> str:
        return b.add(ops.Reduce(axes, mean=True, keepdims=True), x)


class Max(_Reduction):
    """The largest value along axes."""

    exact = True
    neutral: ClassVar[dict[str, tuple[Any, ...]]] = {"initial": (None,)}

    def reduce(self, b: Builder, x: str, axes: tuple[int, ...]) -> str:
        """One pooling window over the axes, brought side by side before: (outer, window, inner)."""
        kind = b.type(x)
        others = [i for i in range(1, kind.rank) if i not in axes]
        before = [i for i in others if i < axes[0]]
        order = (0, *before, *axes, *others[len(before) :])
        if order != tuple(range(kind.rank)):
            x = b.add(ops.Transpose(order), x, suffix="side_by_side")
        sizes = b.type(x).size()
        first, last = 1 + len(before), 1 + len(before) + len(axes)
        outer, window, inner = (math.prod(part) for part in (sizes[1:first], sizes[first:last], sizes[last:]))
        x = b.add(ops.Reshape((outer, window, inner)), x, suffix="windows")
        return b.add(ops.MaxPool2D((1, window), (1, window)), x)


class Min(Max):
    """The smallest value along axes."""

    def reduce(self, b: Builder, x: str, axes: tuple[int, ...]) -> str:
        largest = super().reduce(b, b.add(ops.Scale(-1.0), x, suffix="negative"), axes)
        return b.add(ops.Scale(-1.0), largest)
