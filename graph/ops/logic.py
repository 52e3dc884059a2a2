"""Comparisons, logic on truth values, and choosing between two values by them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import ShapeError
from ..formula import OPERATORS, where
from ..functions import logical_not
from ..types import TensorType, elementwise, widest
from .pointwise import Pointwise
from .source import Constant

if TYPE_CHECKING:
    from ..gradients import GradientBuilder
    from ..ir import Node

RELATIONS = {
    "greater": ">",
    "greater_equal": ">=",
    "less": "<",
    "less_equal": "<=",
    "equal": "==",
    "not_equal": "!=",
}

CONNECTIVES = {"and": "&", "or": "|", "xor": "^"}


def _alike(op: str, first: TensorType, second: TensorType) -> None:
    """Raise ShapeError for values of two kinds, of which one would have to become the other."""
    if first.dtype != second.dtype and not (first.is_floating and second.is_floating):
        raise ShapeError(f"{op} takes two values of one dtype, found {first} and {second}; cast one before")


@dataclass(frozen=True)
class Compare(Pointwise):
    """Whether `relation`, one of RELATIONS, holds between a and b, broadcasting as NumPy does.

    A truth value, through which no gradient passes. With NaN all relations but "not_equal" are false.
    """

    operands: ClassVar[tuple[str, ...]] = ("a", "b")
    value_name: ClassVar[str] = "truth"
    whole: ClassVar[tuple[str, ...]] = ("a", "b")
    alike: ClassVar[tuple[str, ...]] = ("a", "b")
    relation: str = "greater"

    def infer(self, *inputs: TensorType) -> TensorType:
        if self.relation not in RELATIONS:
            raise ShapeError(f"no relation is called {self.relation!r}; known: {', '.join(RELATIONS)}")
        _alike(self.relation, *inputs)
        return super().infer(*inputs).with_dtype("bool")

    def formula(self, a: Any, b: Any) -> Any:
        return OPERATORS[RELATIONS[self.relation]](a, b)

    def words(self, *operands: TensorType) -> str:
        return f"comparison ({self.relation.replace('_', ' ')})"


@dataclass(frozen=True)
class Logical(Pointwise):
    """Truth values joined by `connective`, one of CONNECTIVES, broadcasting as NumPy does."""

    operands: ClassVar[tuple[str, ...]] = ("a", "b")
    commutes: ClassVar[bool] = True
    value_name: ClassVar[str] = "truth"
    whole: ClassVar[tuple[str, ...]] = ("a", "b")
    connective: str = "and"

    def infer(self, *inputs: TensorType) -> TensorType:
        if self.connective not in CONNECTIVES:
            raise ShapeError(f"no connective is called {self.connective!r}; known: {', '.join(CONNECTIVES)}")
        _truths(f"logical_{self.connective}", *inputs)
        return super().infer(*inputs)

    def formula(self, a: Any, b: Any) -> Any:
        return OPERATORS[CONNECTIVES[self.connective]](a, b)

    def words(self, *operands: TensorType) -> str:
        return f"logical {self.connective}"


@dataclass(frozen=True)
class Not(Pointwise):
    """Whether a truth value is false."""

    operands: ClassVar[tuple[str, ...]] = ("x",)
    value_name: ClassVar[str] = "truth"
    whole: ClassVar[tuple[str, ...]] = ("x",)

    def infer(self, *inputs: TensorType) -> TensorType:
        _truths("not", *inputs)
        return inputs[0]

    def formula(self, x: Any) -> Any:
        return logical_not(x)


@dataclass(frozen=True)
class Where(Pointwise):
    """x1 where the truth value `condition` is true, else x2, broadcasting as NumPy does."""

    operands: ClassVar[tuple[str, ...]] = ("condition", "x1", "x2")
    value_name: ClassVar[str] = "selected"
    title: ClassVar[str] = "choice of two"
    whole: ClassVar[tuple[str, ...]] = ("condition", "x1", "x2")
    alike: ClassVar[tuple[str, ...]] = ("x1", "x2")

    def infer(self, *inputs: TensorType) -> TensorType:
        condition, x1, x2 = inputs
        _truths("where", condition)
        _alike("where", x1, x2)
        result = elementwise([condition, x1, x2], "where")
        chosen = [kind for kind in (x1, x2) if kind.shape == result.shape] or [x1, x2]
        return result.with_dtype(widest(chosen))

    def formula(self, condition: Any, x1: Any, x2: Any) -> Any:
        return where(condition, x1, x2)

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        """dy where it was chosen, else 0: no product, so that an infinite dy leaves the other side alone."""
        condition, x1, x2 = (build.operand(node, i) for i in range(3))
        gradients: list[str | None] = [None]
        for operand, first in ((x1, True), (x2, False)):
            if operand.name not in build.needed:
                gradients.append(None)
                continue
            zero = build.add(Constant((1,), 0.0, node.type.dtype))
            chosen = build.add(Where(), condition.name, *((dy, zero) if first else (zero, dy)))
            gradients.append(build.sum_to(chosen, operand))
        return gradients


def _truths(op: str, *inputs: TensorType) -> None:
    for kind in inputs:
        if kind.dtype != "bool":
            raise ShapeError(f"{op} takes truth values, found {kind}; cast it to bool before")
