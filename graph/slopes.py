"""The derivative of a formula, as a formula.

It goes backwards from dy, so that a choice hands dy to one side and exactly 0 to the other: a product with 0
would make NaN of an infinite dy.
"""

from __future__ import annotations

from .errors import CompileError
from .formula import Binary, Call, Choice, Conversion, Formula, Name, Negative, Number, formula
from .types import DTYPES

Slope = Formula | None
"""What reaches an operand; None where nothing does."""


def pull(tree: Formula, name: str, dy: Formula) -> Slope:
    """dy times the derivative of `tree` with respect to the operand of that name.

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
    if function.slope is not None and not any(depends(other, name) for other in others):
        slope = function.slope(*call.arguments)
        return pull(first, name, dy * slope) if isinstance(slope, Formula) else None
    if function.definition is None:
        raise CompileError(f"{function.name} has no derivative; give its row in graph/functions.py one")
    return pull(formula(function.definition(*call.arguments)), name, dy)


def depends(tree: Formula, name: str) -> bool:
    """Whether the operand of that name stands in the tree."""
    match tree:
        case Name(text):
            return text == name
        case Negative(of) | Conversion(of):
            return depends(of, name)
        case Binary(_, left, right):
            return depends(left, name) or depends(right, name)
        case Choice(condition, x1, x2):
            return any(depends(part, name) for part in (condition, x1, x2))
        case Call(_, arguments):
            return any(depends(argument, name) for argument in arguments)
        case Number():
            return False
    return False


def _sum(first: Slope, second: Slope) -> Slope:
    if first is None or second is None:
        return second if first is None else first
    return first + second
