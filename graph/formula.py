"""Formulas: what a pointwise op computes, written once.

An op's `formula` is plain Python over its operands. With tensors for operands it computes; with `Name`s it
builds the tree that codegen prints, in Triton, in PyTorch and as mathematics, and that `slopes.py`
differentiates. A number that changes nothing (x * 1, x + 0) is left out of the tree.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F

from .types import DTYPES


class Formula:
    """A node of the tree. `==` and the other comparisons build nodes too: compare formulas by their texts."""

    __hash__ = object.__hash__

    def __add__(self, other: Any) -> Formula:
        return self if _is(other, 0) else Binary("+", self, formula(other))

    def __radd__(self, other: Any) -> Formula:
        return self if _is(other, 0) else Binary("+", formula(other), self)

    def __sub__(self, other: Any) -> Formula:
        return self if _is(other, 0) else Binary("-", self, formula(other))

    def __rsub__(self, other: Any) -> Formula:
        return Binary("-", formula(other), self)

    def __mul__(self, other: Any) -> Formula:
        return self._times(other) or Binary("*", self, formula(other))

    def __rmul__(self, other: Any) -> Formula:
        return self._times(other) or Binary("*", formula(other), self)

    def _times(self, other: Any) -> Formula | None:
        return self if _is(other, 1) else -self if _is(other, -1) else None

    def __truediv__(self, other: Any) -> Formula:
        return self if _is(other, 1) else Binary("/", self, formula(other))

    def __rtruediv__(self, other: Any) -> Formula:
        return Binary("/", formula(other), self)

    def __neg__(self) -> Formula:
        return Negative(self)

    def __gt__(self, other: Any) -> Formula:
        return Binary(">", self, formula(other))

    def __ge__(self, other: Any) -> Formula:
        return Binary(">=", self, formula(other))

    def __lt__(self, other: Any) -> Formula:
        return Binary("<", self, formula(other))

    def __le__(self, other: Any) -> Formula:
        return Binary("<=", self, formula(other))

    def __eq__(self, other: Any) -> Formula:  # type: ignore[override]
        return Binary("==", self, formula(other))

    def __ne__(self, other: Any) -> Formula:  # type: ignore[override]
        return Binary("!=", self, formula(other))

    def __and__(self, other: Any) -> Formula:
        return Binary("&", self, formula(other))

    def __or__(self, other: Any) -> Formula:
        return Binary("|", self, formula(other))

    def __xor__(self, other: Any) -> Formula:
        return Binary("^", self, formula(other))


@dataclass(frozen=True, eq=False)
class Name(Formula):
    """An operand, by the text it is called. loose: the text is a phrase, which needs brackets in a sum.
    narrow: it has one number for each row of the others.
    """

    text: str
    loose: bool = False
    narrow: bool = False


@dataclass(frozen=True, eq=False)
class Number(Formula):
    value: float


@dataclass(frozen=True, eq=False)
class Negative(Formula):
    of: Formula


@dataclass(frozen=True, eq=False)
class Binary(Formula):
    """left symbol right, the symbol being one of OPERATORS."""

    symbol: str
    left: Formula
    right: Formula


@dataclass(frozen=True, eq=False)
class Choice(Formula):
    """x1 where the condition holds, else x2. like: whose dtype the result has where both are numbers."""

    condition: Formula
    x1: Formula
    x2: Formula
    like: Formula | None = None


@dataclass(frozen=True, eq=False)
class Conversion(Formula):
    of: Formula
    dtype: str


@dataclass(frozen=True, eq=False)
class Call(Formula):
    function: Function
    arguments: tuple[Formula, ...]


OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    "&": operator.and_,
    "|": operator.or_,
    "^": operator.xor,
}
COMPARISONS = (">", ">=", "<", "<=", "==", "!=")


@dataclass(frozen=True)
class Function:
    """A function with a name of its own. Called with tensors it computes, with formulas it is a node.

    torch: PyTorch's function of that meaning, "" where there is none, and its keyword arguments.
    definition: the same in simpler terms, which is what a kernel computes unless codegen has a function of
    that name. slope: the derivative with respect to the first argument, given all of them (0.0 where it
    is 0 everywhere); that of the definition where it is not said.
    """

    name: str
    torch: str = ""
    definition: Callable[..., Any] | None = None
    slope: Callable[..., Any] | None = None
    options: tuple[tuple[str, Any], ...] = ()

    def __call__(self, *arguments: Any) -> Any:
        if any(isinstance(argument, Formula) for argument in arguments):
            return Call(self, tuple(map(formula, arguments)))
        return self._computed(*arguments)

    @cached_property
    def _computed(self) -> Callable[..., Any]:
        """What it is for tensors."""
        if not self.torch:
            assert self.definition is not None
            return self.definition
        room, _, name = self.torch.partition(".")
        found: Callable[..., Any] = getattr({"torch": torch, "F": F}[room], name)
        options = dict(self.options)
        return (lambda *arguments: found(*arguments, **options)) if options else found


def formula(value: Any) -> Formula:
    """A formula as it is, a number as one."""
    return value if isinstance(value, Formula) else Number(value)


def _is(value: Any, number: float) -> bool:
    return isinstance(value, (int, float)) and value == number


def where(condition: Any, x1: Any, x2: Any, like: Any = None) -> Any:
    """x1 where the condition is true, else x2. like: an operand whose dtype two numbers take."""
    if isinstance(condition, Formula):
        return Choice(condition, formula(x1), formula(x2), like)
    chosen = torch.where(condition, x1, x2)
    return chosen if like is None else chosen.to(like.dtype)


def converted(x: Any, dtype: str) -> Any:
    """The same numbers in another dtype of the IR."""
    return Conversion(x, dtype) if isinstance(x, Formula) else x.to(DTYPES[dtype])


def evaluate(tree: Formula, values: Mapping[str, Any]) -> Any:
    """The tree with each name's value, tensors or other formulas, in its place; what stands in it at several
    places is computed once."""
    known: dict[int, Any] = {}

    def at(node: Formula) -> Any:
        if id(node) not in known:
            known[id(node)] = once(node)
        return known[id(node)]

    def once(node: Formula) -> Any:
        match node:
            case Name(text):
                return values[text]
            case Number(value):
                return value
            case Negative(of):
                return -at(of)
            case Binary(symbol, left, right):
                return OPERATORS[symbol](at(left), at(right))
            case Choice(condition, x1, x2, like):
                return where(at(condition), at(x1), at(x2), None if like is None else at(like))
            case Conversion(of, dtype):
                return converted(at(of), dtype)
            case Call(function, arguments):
                return function(*map(at, arguments))
        raise TypeError(f"{node!r} is no formula")

    return at(tree)


def parts_of(tree: Formula) -> tuple[Formula, ...]:
    """What a node of the tree is made of."""
    match tree:
        case Negative(of) | Conversion(of):
            return (of,)
        case Binary(_, left, right):
            return left, right
        case Choice(condition, x1, x2):
            return condition, x1, x2
        case Call(_, arguments):
            return arguments
    return ()
