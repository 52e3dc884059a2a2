"""Pointwise ops as Triton expressions, all in float32."""

from __future__ import annotations

from collections.abc import Sequence

from ...graph.errors import CompileError
from ...graph.formula import Name, formula
from ...graph.op import Op
from ...graph.ops import Pointwise
from .printers import triton
from .writer import Uses


def expression(op: Op, operands: Sequence[str], uses: Uses, *, count: str = "") -> str:
    """Triton text of a pointwise op applied to values named `operands`: float32 ones, but for integers and
    truth values, which are what they are.

    uses: takes a note of the helpers that the text calls. count: text of the number of values that a formula
    which is `counted` divides by.
    Raises CompileError for an op that has no formula, or one with a function that no kernel computes.
    """
    if not isinstance(op, Pointwise):
        raise CompileError(f"no kernel computes {op.op_name()} element by element: it has no formula")
    if op.counted and not count:
        raise CompileError(f"{op.op_name()} needs a number of values")
    names = [Name(text) for text in (*operands, *([count] if op.counted else []))]
    return triton(formula(op.formula(*names)), uses)
