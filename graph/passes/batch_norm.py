"""Batch norm: folded into the weights before it in inference, over the batch's statistics in training."""

from __future__ import annotations

from ..decisions import Decision
from ..ir import Graph, Node
from ..leaving import Update
from ..op import Op
from ..ops import (
    Add,
    BatchNorm,
    Cast,
    Conv2D,
    Dense,
    Multiply,
    Parameter,
    Reduce,
    RsqrtPlus,
    Scale,
    Square,
    StopGradient,
    Subtract,
)
from ..rewrite import Condition, Rule, pattern


def _fold(graph: Graph, nodes: list[Node]) -> str:
    """conv(x, w) + b, normalised: kernel w * s, bias (b - mean) * s + beta, s = gamma / sqrt(var + eps).

    Both are graph nodes over parameters alone, so they follow the parameters' current values. A weight that
    is cast for a product of half precision is cast after it is scaled.
    """
    norm, contraction = nodes
    op = norm.op
    assert isinstance(op, BatchNorm)
    x, weight, *bias = contraction.inputs
    gamma, beta, mean, variance = norm.inputs[1:]

    def add(made: Op, *inputs: str, role: str) -> str:
        return graph.add(made, inputs, f"{norm.name}/{role}", norm.layer)

    scale = add(Multiply(), gamma, add(RsqrtPlus(op.epsilon), variance, role="rstd"), role="scale")
    made = graph[weight]
    cast = made.op if isinstance(made.op, Cast) else None
    kernel = add(Multiply(), made.inputs[0] if cast else weight, scale, role="folded_kernel")
    if cast:
        kernel = add(cast, kernel, role=f"folded_kernel/{cast.dtype}")
    if bias:
        centred = add(Subtract(), bias[0], mean, role="centred")
        shift = add(Add(), add(Multiply(), centred, scale, role="scaled_bias"), beta, role="folded_bias")
    else:
        shift = add(Subtract(), beta, add(Multiply(), mean, scale, role="scaled_mean"), role="folded_bias")
    return graph.add(contraction.op, (x, kernel, shift), contraction.name, contraction.layer)


def _batch_statistics(graph: Graph, nodes: list[Node]) -> str | None:
    op = nodes[0].op
    assert isinstance(op, BatchNorm)
    return "it uses the statistics of the batch" if op.batch_statistics else None


def _trained(graph: Graph, nodes: list[Node]) -> str | None:
    """In training a fold pays where it is computed once, and not for every step's weights."""
    if reason := _batch_statistics(graph, nodes):
        return reason
    if not all(isinstance(graph[name].op, Parameter) for name in nodes[0].inputs[3:]):
        return "its statistics have moved in this very step"
    behind = [name for node in nodes for name in node.inputs[1:]]
    while behind:
        node = graph[behind.pop()]
        if isinstance(node.op, Parameter) and node.op.trainable:
            return f"{node.name} is trained"
        behind += node.inputs
    return None


def _folds(refusal: Condition) -> tuple[Rule, ...]:
    return (
        Rule(
            "batch_norm(conv(x, w) + b) -> conv(x, w * s) + ((b - mean) * s + beta)",
            pattern(BatchNorm, over=(pattern(Conv2D),)),
            _fold,
            refusal,
        ),
        Rule(
            "batch_norm(dense(x, w) + b) -> dense(x, w * s) + ((b - mean) * s + beta)",
            pattern(BatchNorm, over=(pattern(Dense),)),
            _fold,
            refusal,
        ),
    )


FOLD = _folds(_batch_statistics)
FOLD_FROZEN = _folds(_trained)
"""For training: where neither the contraction nor the batch norm is trained, as in transfer learning."""


def use_batch_statistics(graph: Graph) -> list[Decision]:
    """Training: a batch norm that is not frozen takes its batch's mean and biased variance, and both
    move the stored statistics: moving <- momentum * moving + (1 - momentum) * batch (Keras's convention);
    where it is called several times, once for each call, in order. A frozen call that comes after others
    reads what those have moved."""
    decisions = []
    moved: dict[str, str] = {}
    for node in list(graph.nodes()):
        op = node.op
        if not isinstance(op, BatchNorm) or op.batch_statistics:
            continue
        if op.frozen:
            now = [moved.get(name, name) for name in node.inputs[3:]]
            graph.update_node(node.name, inputs=(*node.inputs[:3], *now))
            continue
        x = node.inputs[0]
        over = Reduce(tuple(range(node.type.rank - 1)), mean=True)
        mean = graph.add(over, (x,), f"{node.name}/mean", node.layer)
        centred = graph.add(Subtract(), (x, mean), f"{node.name}/centred", node.layer)
        squared = graph.add(Square(), (centred,), f"{node.name}/squared", node.layer)
        variance = graph.add(over, (squared,), f"{node.name}/variance", node.layer)
        for moving, batch in zip(node.inputs[3:], (mean, variance), strict=True):
            graph.updates.append(Update(moving, batch, op.momentum))
            if any(_is_frozen(reader) for reader in graph.readers(moving)):
                moved[moving] = _moved(graph, node, moved.get(moving, moving), batch)
        trained = BatchNorm(op.epsilon, True, op.momentum)
        graph.update_node(node.name, op=trained, inputs=(*node.inputs[:3], mean, variance))
        decisions.append(Decision("batch_norm(x, moving) -> batch_norm(x, statistics of x)", node.name, True))
    return decisions


def _is_frozen(node: Node) -> bool:
    return isinstance(node.op, BatchNorm) and node.op.frozen


def _moved(graph: Graph, node: Node, moving: str, batch: str) -> str:
    """A statistic as the update leaves it, through which no gradient passes."""
    assert isinstance(node.op, BatchNorm)
    momentum, layer = node.op.momentum, node.layer
    batch = graph.add(StopGradient(), (batch,), f"{batch}/fixed", layer)
    parts = [
        graph.add(Scale(factor), (value,), f"{node.name}/{value}/part", layer)
        for value, factor in ((moving, momentum), (batch, 1 - momentum))
    ]
    return graph.add(Add(), parts, f"{node.name}/moved", layer)
