"""Regions as lines of mathematics, for the header of an emitted file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...graph.ir import Node
from ...graph.op import Op
from ...graph.ops import (
    Activation,
    ActivationGrad,
    Add,
    BatchNorm,
    BatchNormGrad,
    BroadcastTo,
    Cast,
    Compare,
    Divide,
    ExtremumGrad,
    InTraining,
    Logical,
    Maximum,
    Minimum,
    Multiply,
    Normalize,
    Not,
    Prelu,
    PreluGrad,
    RsqrtPlus,
    Scale,
    Square,
    StopGradient,
    Subtract,
    Where,
)
from .expressions import RELATIONS
from .names import Names

LONGEST = 60
"""Text of a value up to which it is written inside its reader, rather than on a line of its own."""

_TEXT: dict[type[Op], Callable[..., str]] = {
    Add: lambda op, a, b: f"{a} + {b}",
    Subtract: lambda op, a, b: f"{a} - {_factor(b)}",
    Multiply: lambda op, a, b: f"{_factor(a)} * {_factor(b)}",
    Scale: lambda op, x: f"{_factor(x)} * {op.factor:g}" + (f" + {op.offset:g}" if op.offset else ""),
    Square: lambda op, x: f"{_factor(x)}^2",
    RsqrtPlus: lambda op, x: f"1 / sqrt({x} + {op.epsilon:g})",
    Divide: lambda op, a, b: f"{_factor(a)} / {_factor(b)}",
    Maximum: lambda op, a, b: f"max({a}, {b})",
    Minimum: lambda op, a, b: f"min({a}, {b})",
    ExtremumGrad: lambda op, dy, x, other: f"({dy} where {x} {'<' if op.smallest else '>'} {other}, else 0)",
    BroadcastTo: lambda op, x, *like: f"{_factor(x)} / repeats" if op.mean else x,
    Cast: lambda op, x: x,
    StopGradient: lambda op, x: x,
    Compare: lambda op, a, b: f"({a} {RELATIONS[op.relation]} {b})",
    Logical: lambda op, a, b: f"({a} {op.connective} {b})",
    Not: lambda op, x: f"(not {x})",
    Where: lambda op, condition, x1, x2: f"({x1} where {condition}, else {x2})",
    Prelu: lambda op, x, alpha: f"({x} where {x} > 0, else {_factor(alpha)} * {_factor(x)})",
    PreluGrad: lambda op, dy, x, alpha: f"({dy} where {x} > 0, else {_factor(alpha)} * {_factor(dy)})",
    InTraining: lambda op, x, *y: x,
    BatchNorm: lambda op, x, gamma, beta, mean, variance: (
        f"({x} - {mean}) / sqrt({variance} + {op.epsilon:g}) * {gamma} + {beta}"
    ),
    Normalize: lambda op, x, mean, variance: f"({x} - {mean}) / sqrt({variance} + {op.epsilon:g})",
    ActivationGrad: lambda op, dy, saved: f"{_factor(dy)} * {op.activation.op_name()}'({saved})",
    BatchNormGrad: lambda op, dy, x, gamma, mean, variance, d_gamma, d_beta: (
        f"{gamma} * rstd * ({dy} - ({d_beta} + ({x} - {mean}) * rstd * {d_gamma}) / count)"
    ),
}


def math_text(op: Op, operands: Sequence[str]) -> str:
    """A pointwise op applied to operands, as mathematics."""
    if isinstance(op, Activation):
        return f"{op.op_name()}({', '.join(operands)})"
    row: Any = _TEXT.get(type(op))
    return row(op, *operands) if row else f"{op.op_name()}({', '.join(operands)})"


def compose(names: Names, nodes: Sequence[Node], values: dict[str, str], result: str = "{}") -> list[str]:
    """Equations for pointwise `nodes`, one for each output of the region among them.

    values: node name -> text, for what is already known; the members' texts are added.
    result: the left side with {} for the operand's name, e.g. "{}[n,p,q,k]".
    """
    region, lines = names.region, []
    outputs = {node.name for node in region.outputs}
    readers = {node.name: sum(node.name in other.inputs for other in nodes) for node in nodes}
    for node in nodes:
        operands = [values.get(name) or names.role[name] for name in node.inputs]
        text = math_text(node.op, operands)
        if node.name in outputs:
            name = names.role[node.name]
            lines.append(f"{result.format(name)} = {text}")
            values[node.name] = result.format(name)
        elif len(text) > LONGEST or readers[node.name] > 1:
            short = f"t{len(lines) + 1}"
            lines.append(f"{short} = {text}")
            values[node.name] = short
        else:
            values[node.name] = text
    return lines


def _factor(text: str) -> str:
    """In brackets where a product needs them."""
    depth = 0
    for index, char in enumerate(text):
        depth += (char in "([") - (char in ")]")
        if depth == 0 and char in "+-" and 0 < index < len(text) - 1 and text[index - 1] == " ":
            return f"({text})"
    return text
