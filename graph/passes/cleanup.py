"""Removing what computes nothing: dead nodes, identities, padding that a convolution can take over."""

from __future__ import annotations

from ..decisions import Decision
from ..errors import CompileError
from ..ir import Graph, Node
from ..op import Kind
from ..ops import (
    Conv2D,
    Input,
    InTraining,
    Pad,
    Reshape,
    Scale,
)
from ..rewrite import Rule, pattern


def remove_dead_code(graph: Graph) -> list[Decision]:
    """Drop every node no output depends on; inputs stay, they are the network's signature."""
    roots = [*graph.outputs.values(), *(name for u in graph.updates for name in (u.parameter, u.value))]
    live: set[str] = set()
    stack = list(roots)
    while stack:
        name = stack.pop()
        if name not in live:
            live.add(name)
            stack.extend(graph[name].inputs)
    dead = [n for n in graph.nodes() if n.name not in live and not isinstance(n.op, Input)]
    for node in reversed(dead):
        graph.remove(node.name)
    return [
        Decision("unread(x) -> nothing", node.name, True) for node in dead if node.op.kind is not Kind.SOURCE
    ]


def _operand(graph: Graph, nodes: list[Node]) -> str:
    return nodes[0].inputs[0]


def _merge_reshapes(graph: Graph, nodes: list[Node]) -> str:
    outer, inner = nodes
    return graph.add(outer.op, inner.inputs, outer.name, outer.layer, outer.phase)


def _pad_into_convolution(graph: Graph, nodes: list[Node]) -> str:
    convolution, pad = nodes
    conv, zeros = convolution.op, pad.op
    assert isinstance(conv, Conv2D)
    assert isinstance(zeros, Pad)
    (top, bottom), (left, right) = conv.padding
    (pad_top, pad_bottom), (pad_left, pad_right) = zeros.padding[:2]
    padding = ((top + pad_top, bottom + pad_bottom), (left + pad_left, right + pad_right))
    merged = Conv2D(conv.strides, padding, conv.dilation, conv.groups)
    inputs = (pad.inputs[0], *convolution.inputs[1:])
    return graph.add(merged, inputs, convolution.name, convolution.layer, convolution.phase)


def _pad_refusal(graph: Graph, nodes: list[Node]) -> str | None:
    zeros = nodes[1].op
    assert isinstance(zeros, Pad)
    if zeros.value != 0.0:
        return f"{nodes[1].name} pads with {zeros.value}, a convolution pads with zeros"
    return "it pads the channels" if zeros.padding[2] != (0, 0) else None


def _scale_refusal(graph: Graph, nodes: list[Node]) -> str | None:
    op = nodes[0].op
    assert isinstance(op, Scale)
    return None if (op.factor, op.offset) == (1.0, 0.0) else "it changes the values"


def _training_operand(graph: Graph, nodes: list[Node]) -> str:
    node = nodes[0]
    assert isinstance(node.op, InTraining)
    if len(node.inputs) < 2:
        raise CompileError(node.op.refusal)
    return node.inputs[1]


def _same_shape(graph: Graph, nodes: list[Node]) -> str | None:
    same = graph[nodes[0].inputs[0]].type == nodes[0].type
    return None if same else "the shape changes"


IDENTITIES: tuple[Rule, ...] = (
    Rule("reshape(x) of x's own shape -> x", pattern(Reshape), _operand, _same_shape),
    Rule("reshape(reshape(x)) -> reshape(x)", pattern(Reshape, over=(pattern(Reshape),)), _merge_reshapes),
    Rule("scale(x, 1) -> x", pattern(Scale), _operand, _scale_refusal),
)

INFERENCE_IDENTITIES: tuple[Rule, ...] = (
    Rule("in_training(x, y) -> x  (inference)", pattern(InTraining), _operand),
)

TRAINING_BRANCHES: tuple[Rule, ...] = (
    Rule("in_training(x, y) -> y  (training)", pattern(InTraining), _training_operand),
)

PAD_INTO_CONVOLUTION: tuple[Rule, ...] = (
    Rule(
        "conv(pad(x), w) -> conv(x, w) with wider padding",
        pattern(Conv2D, over=(pattern(Pad),)),
        _pad_into_convolution,
        _pad_refusal,
    ),
)
