"""Comparisons, logic on truth values, and choices by them: keras.ops.numpy."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from ...graph import ops
from ...graph.op import Op
from ...graph.types import DTYPES
from ..lowering import CAST, Builder
from .base import Operation, same_rank

NUMPY = "keras.src.ops.numpy"


# -- operands that may be constants --------------------------------------------------------------------------
def in_one_dtype(operation: Operation, b: Builder, *values: Any) -> list[str]:
    """Tensors and constants as nodes of one dtype, as Keras's rules have it for them.

    That of the tensors; where they differ, the smallest that holds both, and a floating-point one where one
    is. A number in Python takes the tensors' dtype, unless that cannot hold it.
    """
    nodes = [value for value in values if isinstance(value, str)]
    for other in nodes[1:]:
        same_rank(operation, nodes[0], other, b)
    dtypes = [b.type(node).dtype for node in nodes]
    dtypes += [_own_dtype(_numbers(operation, v), dtypes) for v in values if not isinstance(v, str)]
    wanted = _common(dtypes)
    return [
        _converted(b, value, wanted) if isinstance(value, str) else _constant(operation, b, value, wanted)
        for value in values
    ]


def _numbers(operation: Operation, value: Any) -> list[Any]:
    """The numbers of a constant, one or a row along the last axis."""
    rows = value
    while isinstance(rows, (list, tuple)) and len(rows) == 1 and isinstance(rows[0], (list, tuple)):
        rows = rows[0]
    row = list(rows) if isinstance(rows, (list, tuple)) else [rows]
    if not row or not all(isinstance(n, (bool, int, float)) for n in row):
        raise operation.fail(f"takes tensors, numbers, and arrays along the last axis, got {str(value)[:60]}")
    return row


def _own_dtype(numbers: list[Any], tensors: list[str]) -> str:
    """The least dtype a constant asks for beside tensors of these dtypes."""
    if all(isinstance(n, bool) for n in numbers):
        return "bool"
    if any(isinstance(n, float) for n in numbers):
        return "float32"
    for dtype in tensors or ["int32"]:
        if not DTYPES[dtype].is_floating_point and not all(_holds(dtype, n) for n in numbers):
            return "int32" if all(_holds("int32", n) for n in numbers) else "int64"
    return tensors[0] if tensors else "int32"


def _holds(dtype: str, number: int) -> bool:
    if dtype == "bool":
        return isinstance(number, bool)
    limits = torch.iinfo(DTYPES[dtype])
    return limits.min <= number <= limits.max


def _common(dtypes: list[str]) -> str:
    if any(DTYPES[dtype].is_floating_point for dtype in dtypes):
        return "float32"  # or what else the network computes in
    found = DTYPES[dtypes[0]]
    for dtype in dtypes[1:]:
        found = torch.promote_types(found, DTYPES[dtype])
    return next(name for name, dtype in DTYPES.items() if dtype == found)


def _converted(b: Builder, node: str, dtype: str) -> str:
    kind = b.type(node)
    if kind.dtype == dtype or (kind.is_floating and dtype == "float32"):
        return node
    return b.add(CAST if dtype == "float32" else ops.Cast(dtype), node, suffix="cast")


def _constant(operation: Operation, b: Builder, value: Any, dtype: str) -> str:
    numbers = tuple(float(n) for n in _numbers(operation, value))
    known = numbers[0] if len(numbers) == 1 else numbers
    return b.add(ops.Constant((len(numbers),), known, dtype), suffix="constant")


def as_truth(operation: Operation, b: Builder, value: Any) -> str:
    """A tensor or a constant as truth values: whether it is not 0."""
    if isinstance(value, str):
        return _converted(b, value, "bool")
    known = [bool(n) for n in _numbers(operation, value)]
    return _constant(operation, b, known, "bool")


# -- comparisons ---------------------------------------------------------------------------------------------
class _Comparison(Operation):
    """Base of the six relations between two operands, one of which may be a number or an array."""

    takes_truths = True
    operands = ("x1", "x2")
    relation: ClassVar[str]

    def compute(self, b: Builder, *given: Any) -> str:
        return b.add(ops.Compare(self.relation), *in_one_dtype(self, b, *given))


class Greater(_Comparison):
    """Whether x1 > x2, a truth value."""

    module = NUMPY
    relation = "greater"


class GreaterEqual(_Comparison):
    """Whether x1 >= x2, a truth value."""

    module = NUMPY
    relation = "greater_equal"


class Less(_Comparison):
    """Whether x1 < x2, a truth value."""

    module = NUMPY
    relation = "less"


class LessEqual(_Comparison):
    """Whether x1 <= x2, a truth value."""

    module = NUMPY
    relation = "less_equal"


class Equal(_Comparison):
    """Whether x1 = x2, a truth value."""

    module = NUMPY
    relation = "equal"


class NotEqual(_Comparison):
    """Whether x1 and x2 differ, a truth value."""

    module = NUMPY
    relation = "not_equal"


# -- logic ---------------------------------------------------------------------------------------------------
class _Logical(Operation):
    """Base of the connectives; what is no truth value counts as whether it is not 0."""

    takes_truths = True
    operands = ("x1", "x2")
    op: ClassVar[Op]

    def compute(self, b: Builder, *given: Any) -> str:
        tensors = [value for value in given if isinstance(value, str)]
        if len(tensors) == 2:
            same_rank(self, tensors[0], tensors[1], b)
        return b.add(self.op, *(as_truth(self, b, value) for value in given))


class LogicalAnd(_Logical):
    """Whether both x1 and x2 are true."""

    module = NUMPY
    op = ops.Logical("and")


class LogicalOr(_Logical):
    """Whether x1 or x2 is true."""

    module = NUMPY
    op = ops.Logical("or")


class LogicalXor(_Logical):
    """Whether one of x1 and x2 is true, and not the other."""

    module = NUMPY
    op = ops.Logical("xor")


class LogicalNot(Operation):
    """Whether x is false, or 0."""

    module = NUMPY

    def compute(self, b: Builder, *given: Any) -> str:
        return b.add(ops.Not(), as_truth(self, b, self.tensor(given[0])))


class Where(Operation):
    """x1 where the condition is true, or not 0, else x2; each of the three may be a constant."""

    module = NUMPY
    takes_truths = True
    operands = ("condition", "x1?", "x2?")

    def compute(self, b: Builder, *given: Any) -> str:
        condition, x1, x2 = given
        if x1 is None or x2 is None:
            raise self.fail("needs x1 and x2: where a condition is true alone has no shape before it runs")
        tensors = [value for value in given if isinstance(value, str)]
        for other in tensors[1:]:
            same_rank(self, tensors[0], other, b)
        chosen = in_one_dtype(self, b, x1, x2)
        return b.add(ops.Where(), as_truth(self, b, condition), *chosen)
