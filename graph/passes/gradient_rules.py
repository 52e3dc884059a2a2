"""Rules on the backward pass: work moved to where it is cheaper."""

from __future__ import annotations

from ..ir import Graph, Node
from ..ops import ActivationGrad, MaxPool2D, MaxUnpool2D, Reshape
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
)
