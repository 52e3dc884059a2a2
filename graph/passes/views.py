"""Pointwise work before a view or a slice, into the kernel that computes what is viewed or cut.

Sequences and volumes are computed as images of another shape: a view stands after each such layer, and after
one of volumes also a slice. What follows, value by value, does not mind the shape, but a region ends there.
"""

from __future__ import annotations

from ..ir import Graph, Node
from ..op import Kind, Op
from ..ops import (
    Activation,
    Add,
    BatchNorm,
    Divide,
    Maximum,
    Minimum,
    Multiply,
    Reshape,
    Scale,
    Slice,
    Subtract,
)
from ..rewrite import Match, Rule, pattern
from ..types import Dim

ONE_OPERAND: tuple[type[Op], ...] = (Activation, BatchNorm, Scale)
"""What works on its first operand, with at most numbers for each channel beside it."""

TWO_OPERANDS: tuple[type[Op], ...] = (Add, Subtract, Multiply, Divide, Maximum, Minimum)

NOT_COMMUTING = tuple(op for op in TWO_OPERANDS if not op.commutes)


def _made_by_a_kernel(graph: Graph, name: str) -> bool:
    """Whether a contraction or a window computes the value, perhaps with pointwise work and views after."""
    node = graph[name]
    while node.op.kind in (Kind.POINTWISE, Kind.VIEW):
        node = graph[node.inputs[0]]
    return node.op.kind in (Kind.CONTRACTION, Kind.WINDOW)


def _refusal(m: Match) -> str | None:
    node, view, source = m["f"], m["view"], m["x"]
    if not source.type.batched or not _made_by_a_kernel(m.graph, source.name):
        return f"no contraction or window computes {source.name}"
    if node.type.shape != view.type.shape:
        return f"{node.name} broadcasts {view.name}"
    for name in node.inputs:
        if name != view.name and (reason := _operand_refusal(m.graph, m.graph[name], view, source)):
            return reason
    return None


def _operand_refusal(graph: Graph, operand: Node, view: Node, source: Node) -> str | None:
    """Why an operand cannot be had in the shape before the view, or None."""
    if operand.type.shape == ():
        return None
    if operand.type.rank == 1 and view.type.channels == source.type.channels:
        return None
    if operand.type.shape == view.type.shape and (
        operand.op.kind is Kind.SOURCE or _viewed(graph, operand) == source.type.shape
    ):
        return None
    return f"{operand.name} is not a view of the shape of {source.name}"


def _viewed(graph: Graph, node: Node) -> tuple[Dim, ...] | None:
    """The shape that a view is of; None for what is no view."""
    return graph[node.inputs[0]].type.shape if isinstance(node.op, Reshape) else None


def _move(m: Match) -> str:
    inputs = [_before(m.graph, m.graph[name], m["view"], m["x"]) for name in m["f"].inputs]
    moved = m.add(m["f"].op, inputs, like=m["f"])
    return m.add(m["view"].op, (moved,), like=m["view"])


def _before(graph: Graph, operand: Node, view: Node, source: Node) -> str:
    """The operand in the shape before the view."""
    if operand.type.shape != view.type.shape:
        return operand.name
    if _viewed(graph, operand) == source.type.shape:
        return operand.inputs[0]
    shape = tuple(int(d) for d in source.type.shape[1:])
    return graph.add(Reshape(shape), (operand.name,), f"{operand.name}/reshape", operand.layer, view.phase)


def _slice_refusal(m: Match) -> str | None:
    part, source = m["slice"], m["x"]
    if not _made_by_a_kernel(m.graph, source.name):
        return f"no contraction or window computes {source.name}"
    if others := [reader.name for reader in m.graph.readers(source.name) if reader.name != part.name]:
        return f"{source.name} also feeds {', '.join(others)}"
    if len(m["f"].inputs) > 1 and part.type.channels != source.type.channels:
        return f"{part.name} takes {part.type.channels} of {source.type.channels} channels"
    if 2 * part.type.elements() < source.type.elements():
        return f"{part.name} drops more than half of {source.name}"
    return None


def _move_before_slice(m: Match) -> str:
    moved = m.add(m["f"].op, (m["x"].name, *m["f"].inputs[1:]), like=m["f"])
    return m.add(m["slice"].op, (moved,), like=m["slice"])


BEFORE_SLICES: tuple[Rule, ...] = (
    Rule(
        # Not in training: there a batch norm's statistics are of what the slice leaves.
        "f(slice(x)) -> slice(f(x))  (inference)",
        pattern("f", ONE_OPERAND, pattern("slice", Slice, "x")),
        _move_before_slice,
        _slice_refusal,
    ),
)

BEFORE_VIEWS: tuple[Rule, ...] = (
    Rule(
        "f(reshape(x)) -> reshape(f(x))",
        pattern("f", ONE_OPERAND, pattern("view", Reshape, "x")),
        _move,
        _refusal,
    ),
    Rule(
        "f(reshape(x), y) -> reshape(f(x, y))",
        pattern("f", TWO_OPERANDS, pattern("view", Reshape, "x"), "y"),
        _move,
        _refusal,
    ),
    Rule(
        "f(y, reshape(x)) -> reshape(f(y, x))",
        pattern("f", NOT_COMMUTING, "y", pattern("view", Reshape, "x")),
        _move,
        _refusal,
    ),
)
