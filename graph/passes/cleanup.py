"""Removing what computes nothing: dead nodes, identities, padding that a convolution can take over."""

from __future__ import annotations

from ..decisions import Decision
from ..errors import CompileError
from ..ir import Graph
from ..op import Kind
from ..ops import (
    Conv2D,
    Input,
    InTraining,
    Pad,
    Reshape,
    Scale,
)
from ..rewrite import Match, Rule, pattern


def remove_dead_code(graph: Graph) -> list[Decision]:
    """Drop every node no output depends on; inputs stay, they are the network's signature."""
    roots = [*graph.outputs.values(), *(name for u in graph.updates for name in (u.parameter, u.value))]
    live = graph.behind(roots)
    dead = [n for n in graph.nodes() if n.name not in live and not isinstance(n.op, Input)]
    for node in reversed(dead):
        graph.remove(node.name)
    return [
        Decision("unread(x) -> nothing", node.name, True) for node in dead if node.op.kind is not Kind.SOURCE
    ]


def _operand(m: Match) -> str:
    return m["x"].name


def _merge_reshapes(m: Match) -> str:
    return m.add(m["outer"].op, (m["x"].name,), like=m["outer"])


def _pad_into_convolution(m: Match) -> str:
    conv, zeros = m.op("conv", Conv2D), m.op("pad", Pad)
    (top, bottom), (left, right) = conv.padding
    (pad_top, pad_bottom), (pad_left, pad_right) = zeros.padding[:2]
    padding = ((top + pad_top, bottom + pad_bottom), (left + pad_left, right + pad_right))
    merged = Conv2D(conv.strides, padding, conv.dilation, conv.groups)
    return m.add(merged, (m["x"].name, *m["conv"].inputs[1:]), like=m["conv"])


def _pad_refusal(m: Match) -> str | None:
    zeros = m.op("pad", Pad)
    if zeros.value != 0.0:
        return f"{m['pad'].name} pads with {zeros.value}, a convolution pads with zeros"
    return "it pads the channels" if zeros.padding[2] != (0, 0) else None


def _scale_refusal(m: Match) -> str | None:
    op = m.op("scale", Scale)
    return None if (op.factor, op.offset) == (1.0, 0.0) else "it changes the values"


def _training_operand(m: Match) -> str:
    if "y" not in m:
        raise CompileError(m.op("branches", InTraining).refusal)
    return m["y"].name


def _same_shape(m: Match) -> str | None:
    return None if m["x"].type == m["reshape"].type else "the shape changes"


IDENTITIES: tuple[Rule, ...] = (
    Rule("reshape(x) of x's own shape -> x", pattern("reshape", Reshape, "x"), _operand, _same_shape),
    Rule(
        "reshape(reshape(x)) -> reshape(x)",
        pattern("outer", Reshape, pattern("inner", Reshape, "x")),
        _merge_reshapes,
    ),
    Rule("scale(x, 1) -> x", pattern("scale", Scale, "x"), _operand, _scale_refusal),
)

INFERENCE_IDENTITIES: tuple[Rule, ...] = (
    Rule("in_training(x, y) -> x  (inference)", pattern("branches", InTraining, "x"), _operand),
)

TRAINING_BRANCHES: tuple[Rule, ...] = (
    Rule("in_training(x, y) -> y  (training)", pattern("branches", InTraining, "x", "y?"), _training_operand),
)

PAD_INTO_CONVOLUTION: tuple[Rule, ...] = (
    Rule(
        "conv(pad(x), w) -> conv(x, w) with wider padding",
        pattern("conv", Conv2D, pattern("pad", Pad, "x"), "w"),
        _pad_into_convolution,
        _pad_refusal,
    ),
)
