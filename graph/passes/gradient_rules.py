"""Rules on the backward pass: work moved to where it is cheaper."""

from __future__ import annotations

from ..ir import Graph, Node
from ..op import Kind
from ..ops import ActivationGrad, BroadcastTo, MaxPool2D, MaxUnpool2D, Reshape
from ..rewrite import Rule, pattern


def _pooled(graph: Graph, nodes: list[Node]) -> str | None:
    """The max pooling of the saved activation with the unpooling's own windows, where there is one."""
    gradient, unpool = nodes
    assert isinstance(unpool.op, MaxUnpool2D)
    for reader in graph.readers(gradient.inputs[1]):
        if isinstance(reader.op, MaxPool2D) and reader.op.geometry() == unpool.op.geometry():
            return reader.name
    return None


def _refusal(graph: Graph, nodes: list[Node]) -> str | None:
    gradient, unpool = nodes
    assert isinstance(gradient.op, ActivationGrad)
    assert isinstance(unpool.op, MaxUnpool2D)
    if gradient.inputs[0] != unpool.name:
        return "the unpooled value is not the gradient"
    if gradient.op.activation.saves != "output":
        name = gradient.op.activation.op_name()
        return f"the derivative of {name} is written in its input, which pooling does not keep"
    if unpool.op.overlapping:
        return "windows overlap, so one position may win several of them"
    return None if _pooled(graph, nodes) else "no max pooling of the saved activation has these windows"


def _commute(graph: Graph, nodes: list[Node]) -> str:
    gradient, unpool = nodes
    pooled = _pooled(graph, nodes)
    assert pooled is not None
    dy, index = unpool.inputs
    masked = graph.add(gradient.op, (dy, pooled), gradient.name, gradient.layer, "backward")
    return graph.add(unpool.op, (masked, index), unpool.name, unpool.layer, "backward")


def _view_refusal(graph: Graph, nodes: list[Node]) -> str | None:
    gradient, view = nodes
    if gradient.inputs[0] != view.name:
        return "the reshaped value is not the gradient"
    return None if graph[view.inputs[0]].type.batched else f"{view.inputs[0]} has no batch axis"


def _before_view(graph: Graph, nodes: list[Node]) -> str:
    gradient, view = nodes
    dy, saved = graph[view.inputs[0]], gradient.inputs[1]
    shape = tuple(int(d) for d in dy.type.shape[1:])
    viewed = graph.add(Reshape(shape), (saved,), f"{saved}/reshape", gradient.layer, "backward")
    masked = graph.add(gradient.op, (dy.name, viewed), gradient.name, gradient.layer, "backward")
    return graph.add(view.op, (masked,), view.name, view.layer, "backward")


def _unequal_shares(graph: Graph, nodes: list[Node]) -> str | None:
    outer, inner = (node.op for node in nodes)
    assert isinstance(outer, BroadcastTo)
    assert isinstance(inner, BroadcastTo)
    return None if outer.mean == inner.mean else "one gives shares, the other the whole"


def _broadcast_at_once(graph: Graph, nodes: list[Node]) -> str:
    outer, inner = nodes
    inputs = (inner.inputs[0], *outer.inputs[1:])
    return graph.add(outer.op, inputs, outer.name, outer.layer, outer.phase)


def _kept_instead(graph: Graph, nodes: list[Node]) -> str | None:
    """A value of the same shape, behind the one that only tells a batch size, which is kept anyway."""
    broadcast, like = nodes[0], graph[nodes[0].inputs[1]]
    if any(r.phase == "backward" and r.name != broadcast.name for r in graph.readers(like.name)):
        return None
    while like.op.kind is Kind.POINTWISE and graph[like.inputs[0]].type.shape == like.type.shape:
        like = graph[like.inputs[0]]
        if like.op.kind is Kind.SOURCE or any(r.phase == "backward" for r in graph.readers(like.name)):
            return like.name
    return None


def _no_other(graph: Graph, nodes: list[Node]) -> str | None:
    if len(nodes[0].inputs) < 2:
        return "it takes its batch from the gradient"
    return None if _kept_instead(graph, nodes) else f"{nodes[0].inputs[1]} is kept anyway, or nothing else is"


def _like_another(graph: Graph, nodes: list[Node]) -> str:
    node, other = nodes[0], _kept_instead(graph, nodes)
    assert other is not None
    return graph.add(node.op, (node.inputs[0], other), node.name, node.layer, node.phase)


GRADIENT_RULES: tuple[Rule, ...] = (
    Rule(
        # Only the window's winner receives gradient, and there the activation equals the pooled value: so the
        # derivative can be taken after pooling, and the activation before it need not be kept.
        "f'(unpool(dy, i), y) -> unpool(f'(dy, max_pool(y)), i)",
        pattern(ActivationGrad, over=(pattern(MaxUnpool2D),)),
        _commute,
        _refusal,
    ),
    Rule(
        # Before the view, the derivative can ride in the kernel that computes dy.
        "f'(reshape(dy), y) -> reshape(f'(dy, reshape(y)))",
        pattern(ActivationGrad, over=(pattern(Reshape),)),
        _before_view,
        _view_refusal,
    ),
    Rule(
        # The gradient of a sum of sums: what leads to it is read by the kernel that reads the gradient.
        "broadcast_to(broadcast_to(dy)) -> broadcast_to(dy)",
        pattern(BroadcastTo, over=(pattern(BroadcastTo),)),
        _broadcast_at_once,
        _unequal_shares,
    ),
    Rule(
        # A value that is read for its batch size alone need not be stored: it can be summed as it is made.
        "broadcast_to(dy, like f(x)) -> broadcast_to(dy, like x)",
        pattern(BroadcastTo),
        _like_another,
        _no_other,
    ),
)
