"""Batch norm: folded into the weights before it in inference, over the batch's statistics in training."""

from __future__ import annotations

from ..averages import move
from ..decisions import Decision
from ..ir import Graph, Node
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
    StopGradient,
    Subtract,
    Variance,
)
from ..rewrite import Condition, Match, Rule, pattern


def _fold(m: Match) -> str:
    """f(x, w) + b, normalised: weight w * s, bias (b - mean) * s + beta, s = gamma / sqrt(var + eps).

    Both are graph nodes over parameters alone, so they follow the parameters' current values. A weight that
    is cast for a product of half precision is cast after it is scaled.
    """
    norm, weight, beta, mean = m["norm"], m["w"], m["beta"].name, m["mean"].name

    def add(made: Op, *inputs: str, role: str) -> str:
        return m.graph.add(made, inputs, f"{norm.name}/{role}", norm.layer)

    rstd = add(RsqrtPlus(m.op("norm", BatchNorm).epsilon), m["variance"].name, role="rstd")
    scale = add(Multiply(), m["gamma"].name, rstd, role="scale")
    cast = weight.op if isinstance(weight.op, Cast) else None
    kernel = add(Multiply(), weight.inputs[0] if cast else weight.name, scale, role="folded_kernel")
    if cast:
        kernel = add(cast, kernel, role=f"folded_kernel/{cast.dtype}")
    if "b" in m:
        centred = add(Subtract(), m["b"].name, mean, role="centred")
        shift = add(Add(), add(Multiply(), centred, scale, role="scaled_bias"), beta, role="folded_bias")
    else:
        shift = add(Subtract(), beta, add(Multiply(), mean, scale, role="scaled_mean"), role="folded_bias")
    return m.add(m["f"].op, (m["x"].name, kernel, shift), like=m["f"])


def _batch_statistics(m: Match) -> str | None:
    of_the_batch = m.op("norm", BatchNorm).batch_statistics
    return "it uses the statistics of the batch" if of_the_batch else None


def _trained(m: Match) -> str | None:
    """In training a fold pays where it is computed once, and not for every step's weights."""
    if reason := _batch_statistics(m):
        return reason
    if not all(isinstance(m[name].op, Parameter) for name in ("mean", "variance")):
        return "its statistics have moved in this very step"
    behind = [name for node in (m["norm"], m["f"]) for name in node.inputs[1:]]
    while behind:
        node = m.graph[behind.pop()]
        if isinstance(node.op, Parameter) and node.op.trainable:
            return f"{node.name} is trained"
        behind += node.inputs
    return None


def _folds(refusal: Condition) -> tuple[Rule, ...]:
    vectors = ("gamma", "beta", "mean", "variance")
    return tuple(
        Rule(
            f"batch_norm({name}(x, w) + b) -> {name}(x, w * s) + ((b - mean) * s + beta)",
            pattern("norm", BatchNorm, pattern("f", kind, "x", "w", "b?"), *vectors),
            _fold,
            refusal,
        )
        for name, kind in (("conv", Conv2D), ("dense", Dense))
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
    now: dict[str, str] = {}
    moved: dict[str, str] = {}
    """A statistic as the updates so far leave it, and the same for frozen calls to read."""
    for node in list(graph.nodes()):
        op = node.op
        if not isinstance(op, BatchNorm) or op.batch_statistics:
            continue
        if op.frozen:
            read = [moved.get(name, name) for name in node.inputs[3:]]
            graph.update_node(node.name, inputs=(*node.inputs[:3], *read))
            continue
        x = node.inputs[0]
        over = Reduce(tuple(range(node.type.rank - 1)), mean=True)
        mean = graph.add(over, (x,), f"{node.name}/mean", node.layer)
        variance = graph.add(Variance(), (x,), f"{node.name}/variance", node.layer)
        for moving, batch in zip(node.inputs[3:], (mean, variance), strict=True):
            now[moving] = move(graph, moving, batch, op.momentum, node.layer, now.get(moving, ""))
            if any(_is_frozen(reader) for reader in graph.readers(moving)):
                moved[moving] = _moved(graph, node, op.momentum, moved.get(moving, moving), batch)
        trained = BatchNorm(op.epsilon, True, op.momentum)
        graph.update_node(node.name, op=trained, inputs=(*node.inputs[:3], mean, variance))
        decisions.append(Decision("batch_norm(x, moving) -> batch_norm(x, statistics of x)", node.name, True))
    return decisions


def _is_frozen(node: Node) -> bool:
    return isinstance(node.op, BatchNorm) and node.op.frozen


def _moved(graph: Graph, node: Node, momentum: float, moving: str, batch: str) -> str:
    """A statistic as the update leaves it, for kernels to read; no gradient passes through it."""
    batch = graph.add(StopGradient(), (batch,), f"{batch}/fixed", node.layer)
    parts = [
        graph.add(Scale(factor), (value,), f"{node.name}/{value}/part", node.layer)
        for value, factor in ((moving, momentum), (batch, 1 - momentum))
    ]
    return graph.add(Add(), parts, f"{node.name}/moved", node.layer)
