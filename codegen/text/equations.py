"""A contraction's region as lines of mathematics for the header: the product, then what becomes of it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from ...graph.formula import Name
from ...graph.ir import Node
from ...graph.ops import AverageUnpool2D, MaxPool2D, MaxPoolIndex2D, MaxUnpool2D, Softmax
from ...planning.products import POOLS
from ...planning.regions import Region
from .formulas import Values, compose
from .names import Names
from .printers import mathematics

_OTHERS = (*POOLS, MaxUnpool2D, AverageUnpool2D, Softmax)


def equations(region: Region, names: Names, product: str, index: str) -> list[str]:
    """Lines such as "y[n,p,q,k] = max over 2x2 of relu(t + bias)".

    product: text of the contraction itself; index: of its result, such as "[n,p,q,k]".
    """
    anchor = region.anchor
    values: Values = {}
    lines = compose(names, region.prologue, values)
    if region.prologue:
        lines.append(f"a = {mathematics(values[anchor.inputs[0]])}")
        product = product.replace("x[", "a[", 1)
    bias = f" + {names.role[anchor.inputs[2]]}" if len(anchor.inputs) > 2 else ""
    result = f"{{}}{index}"
    lines.append(f"t{index} = {product}{bias}")
    values[anchor.name] = Name("t")
    if anchor in region.outputs:
        lines.append(f"{result.format(names.role[anchor.name])} = t")
    pending: Sequence[Node] = region.epilogue
    while pending:
        run = list(takewhile(lambda node: not isinstance(node.op, _OTHERS), pending))
        lines += compose(names, run, values, result)
        rest = pending[len(run) :]
        if rest:
            _other(region, names, rest[0], values, lines, result)
        pending = rest[1:]
    return lines


def _other(region: Region, names: Names, node: Node, values: Values, lines: list[str], result: str) -> None:
    """One pooling, unpooling or softmax."""
    operand = mathematics(values[node.inputs[0]])
    text = _text(node.op, operand, [names.role.get(name, "") for name in node.inputs], result[-2])
    values[node.name] = Name(text, loose=not text.startswith("("))
    if node in region.outputs:
        lines.append(f"{result.format(names.role[node.name])} = {text}")
        values[node.name] = Name(names.role[node.name])


def _text(op: Any, operand: str, roles: list[str], last: str) -> str:
    """last: letter of the last axis."""
    if isinstance(op, Softmax):
        return f"softmax over {last} of {operand if operand.isidentifier() else f'({operand})'}"
    window = f"{op.size[0]}x{op.size[1]}"
    if isinstance(op, MaxUnpool2D):
        return f"({operand} where {roles[1]} names the pixel of the {window} window, else 0)"
    if isinstance(op, AverageUnpool2D):
        return f"({operand} / {op.size[0] * op.size[1]} at each pixel of the {window} window)"
    word = (
        "max"
        if isinstance(op, MaxPool2D)
        else "place of the max"
        if isinstance(op, MaxPoolIndex2D)
        else "mean"
    )
    return f"{word} over {window} of {operand}"
