"""The derivative of a formula, as a formula.

It goes backwards from dy, so that a choice hands dy to one side and exactly 0 to the other: a product with 0
would make NaN of an infinite dy. What reaches a number that a whole row shares is summed over the row.
"""

from __future__ import annotations

from .errors import CompileError
from .formula import (
    Binary,
    Call,
    Choice,
    Conversion,
    Formula,
    Function,
    Name,
    Negative,
    Number,
    formula,
    parts_of,
)
from .functions import NARROW, one_hot, row_max, row_sum, softmax
from .types import DTYPES

Slope = Formula | None
"""What reaches an operand; None where nothing does."""


def pull(tree: Formula, name: str, dy: Formula) -> Slope:
    """dy times the derivative of `tree` with respect to the operand of that name, which is not narrow.

    Raises CompileError for a function whose derivative nothing says.
    """
    match tree:
        case Name(text):
            return dy if text == name else None
        case Negative(of):
            return pull(of, name, -dy)
        case Binary("+", left, right):
            return _sum(pull(left, name, dy), pull(right, name, dy))
        case Binary("-", left, right):
            return _sum(pull(left, name, dy), pull(right, name, -dy))
        case Binary("*", left, right):
            return _sum(pull(left, name, dy * right), pull(right, name, left * dy))
        case Binary("/", left, right):
            return _sum(pull(left, name, dy / right), pull(right, name, -dy / right * (left / right)))
        case Choice(condition, x1, x2):
            if (_mixes(x1) or _mixes(x2)) and not is_narrow(condition):  # what was chosen reaches all its row
                first, second = Choice(condition, dy, Number(0.0)), Choice(condition, Number(0.0), dy)
                return _sum(pull(x1, name, first), pull(x2, name, second))
            sides = [pull(x1, name, dy), pull(x2, name, dy)]
            if all(side is None for side in sides):
                return None
            return Choice(condition, *(Number(0.0) if side is None else side for side in sides))
        case Conversion(of, dtype) if DTYPES[dtype].is_floating_point:
            return pull(of, name, dy)
        case Call():
            return _through_call(tree, name, dy)
    return None  # numbers, integers, comparisons and logic


def _through_call(call: Call, name: str, dy: Formula) -> Slope:
    function, (first, *others) = call.function, call.arguments
    if not depends(call, name):
        return None
    if function.name in _OF_ROWS:
        return pull(first, name, _OF_ROWS[function.name](first, dy))
    if function.slope is not None and not any(depends(other, name) for other in others):
        slope = function.slope(*call.arguments)
        return pull(first, name, dy * slope) if isinstance(slope, Formula) else None
    if function.definition is None:
        raise CompileError(f"{function.name} has no derivative; give its row in graph/functions.py one")
    return pull(formula(function.definition(*call.arguments)), name, dy)


def is_narrow(tree: Formula) -> bool:
    """Whether the tree is one number for each row."""
    if isinstance(tree, Name):
        return tree.narrow
    shared = isinstance(tree, Call) and tree.function.name in NARROW
    return shared or all(map(is_narrow, parts_of(tree)))


def _of_sum(x: Formula, dy: Formula) -> Formula:
    total: Formula = dy if is_narrow(dy) else row_sum(dy)
    return total


def _of_max(x: Formula, dy: Formula) -> Formula:
    """Shared among the largest where several are, as torch's amax does."""
    largest = x == row_max(x)
    return Choice(largest, _of_sum(x, dy) / row_sum(Choice(largest, Number(1.0), Number(0.0))), Number(0.0))


def _of_softmax(x: Formula, dy: Formula) -> Formula:
    y: Formula = softmax(x)
    result: Formula = y * (dy - row_sum(dy * y))
    return result


def _of_log_softmax(x: Formula, dy: Formula) -> Formula:
    result: Formula = dy - softmax(x) * row_sum(dy)
    return result


_OF_ROWS = {
    "row_sum": _of_sum,
    "row_max": _of_max,
    "softmax": _of_softmax,
    "log_softmax": _of_log_softmax,
}
"""Of the functions of whole rows: what reaches x, which is as wide as the row."""


def depends(tree: Formula, name: str) -> bool:
    """Whether the operand of that name stands in the tree, other than in its length."""
    if isinstance(tree, Name):
        return tree.text == name
    return not _is_call(tree, one_hot) and any(depends(part, name) for part in parts_of(tree))


def _mixes(tree: Formula) -> bool:
    """Whether a function of whole rows stands in the tree."""
    return (isinstance(tree, Call) and tree.function.name in _OF_ROWS) or any(map(_mixes, parts_of(tree)))


def _is_call(tree: Formula, function: Function) -> bool:
    return isinstance(tree, Call) and tree.function is function


def _sum(first: Slope, second: Slope) -> Slope:
    if first is None or second is None:
        return second if first is None else first
    return first + second
