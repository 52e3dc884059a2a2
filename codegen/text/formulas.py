"""Regions as lines of mathematics, for the header of an emitted file."""

from __future__ import annotations

from collections.abc import Sequence

from ...graph.formula import Formula, Function, Name
from ...graph.ir import Node
from ...graph.op import Op
from ...graph.ops import Pointwise
from .names import Names
from .printers import mathematics

LONGEST = 60
"""Text of a value up to which it is written inside its reader, rather than on a line of its own."""

Values = dict[str, Formula]
"""Node name -> what is known of its value, as the lines that follow may say it."""


def _formula(op: Op, operands: Sequence[Formula]) -> Formula:
    """An op applied to operands."""
    if isinstance(op, Pointwise):
        return op.mathematics(*operands)
    called: Formula = Function(op.op_name())(*operands)
    return called


def compose(names: Names, nodes: Sequence[Node], values: Values, result: str = "{}") -> list[str]:
    """Equations for pointwise `nodes`, one for each output of the region among them.

    values: what is already known; the members' formulas are added.
    result: the left side with {} for the operand's name, e.g. "{}[n,p,q,k]".
    """
    region, lines = names.region, []
    outputs = {node.name for node in region.outputs}
    readers = {node.name: sum(node.name in other.inputs for other in nodes) for node in nodes}
    for node in nodes:
        operands = [known(names, values, name) for name in node.inputs]
        value = _formula(node.op, operands)
        text = mathematics(value)
        if node.name in outputs:
            name = result.format(names.role[node.name])
            lines.append(f"{name} = {text}")
            value = Name(name)
        elif len(text) > LONGEST or readers[node.name] > 1:
            short = f"t{len(lines) + 1}"
            lines.append(f"{short} = {text}")
            value = Name(short)
        values[node.name] = value
    return lines


def compose_after(names: Names, text: str, result: str, inner: str = "") -> list[str]:
    """Equations of a region whose anchor's value is `text`, and of the members behind it.

    inner: what the anchor's value is called where it is not stored; "" for its text, inside its reader.
    """
    region = names.region
    anchor = region.anchor
    lines, value = [], Name(text, loose=True)
    if inner or anchor in region.outputs:
        value = Name(result.format(names.role.get(anchor.name, inner)))
        lines.append(f"{value.text} = {text}")
    after = [member for member in region.nodes if member is not anchor]
    return lines + compose(names, after, {anchor.name: value}, result)


def known(names: Names, values: Values, name: str) -> Formula:
    """What is known of a node's value: a formula, or that it is the operand of that role."""
    return values[name] if name in values else Name(names.role[name])
