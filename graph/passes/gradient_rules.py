"""Rules on the backward pass: work moved to where it is cheaper."""

from __future__ import annotations

from ..op import Kind
from ..ops import ActivationGrad, BroadcastTo, MaxPool2D, MaxUnpool2D, Reshape, RowLoss
from ..rewrite import Match, Rule, pattern


def _pooled(m: Match) -> list[str]:
    """The max poolings of the saved activation with the unpooling's own windows."""
    windows = m.op("unpool", MaxUnpool2D).geometry()
    readers = m.graph.readers(m["y"].name)
    return [r.name for r in readers if isinstance(r.op, MaxPool2D) and r.op.geometry() == windows]


def _refusal(m: Match) -> str | None:
    activation = m.op("gradient", ActivationGrad).activation
    if activation.saves != "output":
        name = activation.op_name()
        return f"the derivative of {name} is written in its input, which pooling does not keep"
    if m.op("unpool", MaxUnpool2D).overlapping:
        return "windows overlap, so one position may win several of them"
    return None if _pooled(m) else "no max pooling of the saved activation has these windows"


def _commute(m: Match) -> str:
    masked = m.add(m["gradient"].op, (m["dy"].name, _pooled(m)[0]), like=m["gradient"])
    return m.add(m["unpool"].op, (masked, m["i"].name), like=m["unpool"])


def _view_refusal(m: Match) -> str | None:
    return None if m["dy"].type.batched else f"{m['dy'].name} has no batch axis"


def _before_view(m: Match) -> str:
    gradient, dy, saved = m["gradient"], m["dy"], m["y"].name
    shape = tuple(int(d) for d in dy.type.shape[1:])
    viewed = m.graph.add(Reshape(shape), (saved,), f"{saved}/reshape", gradient.layer, gradient.phase)
    masked = m.add(gradient.op, (dy.name, viewed), like=gradient)
    return m.add(m["view"].op, (masked,), like=m["view"])


def _unequal_shares(m: Match) -> str | None:
    same = m.op("outer", BroadcastTo).mean == m.op("inner", BroadcastTo).mean
    return None if same else "one gives shares, the other the whole"


def _broadcast_at_once(m: Match) -> str:
    return m.add(m["outer"].op, (m["dy"].name, *m["outer"].inputs[1:]), like=m["outer"])


def _kept_instead(m: Match) -> list[str]:
    """A value of the same batch, behind the one that only tells its size, which is kept anyway."""
    graph, like = m.graph, m["y"]
    if any(r.phase == "backward" and r.name != m.root.name for r in graph.readers(like.name)):
        return []
    while isinstance(like.op, RowLoss) or (
        like.op.kind is Kind.POINTWISE and graph[like.inputs[0]].type.shape == like.type.shape
    ):
        like = graph[like.inputs[0]]
        if like.op.kind is Kind.SOURCE or any(r.phase == "backward" for r in graph.readers(like.name)):
            return [like.name]
    return []


def _no_other(m: Match) -> str | None:
    if "y" not in m:
        return "it takes its batch from the gradient"
    return None if _kept_instead(m) else f"{m['y'].name} is kept anyway, or nothing else is"


def _like_another(m: Match) -> str:
    return m.add(m.root.op, (m["dy"].name, *_kept_instead(m)), like=m.root)


GRADIENT_RULES: tuple[Rule, ...] = (
    Rule(
        # Only the window's winner receives gradient, and there the activation equals the pooled value: so the
        # derivative can be taken after pooling, and the activation before it need not be kept.
        "f'(unpool(dy, i), y) -> unpool(f'(dy, max_pool(y)), i)",
        pattern("gradient", ActivationGrad, pattern("unpool", MaxUnpool2D, "dy", "i"), "y"),
        _commute,
        _refusal,
    ),
    Rule(
        # Before the view, the derivative can ride in the kernel that computes dy.
        "f'(reshape(dy), y) -> reshape(f'(dy, reshape(y)))",
        pattern("gradient", ActivationGrad, pattern("view", Reshape, "dy"), "y"),
        _before_view,
        _view_refusal,
    ),
    Rule(
        # The gradient of a sum of sums: what leads to it is read by the kernel that reads the gradient.
        "broadcast_to(broadcast_to(dy)) -> broadcast_to(dy)",
        pattern("outer", BroadcastTo, pattern("inner", BroadcastTo, "dy")),
        _broadcast_at_once,
        _unequal_shares,
    ),
    Rule(
        # A value that is read for its batch size alone need not be stored: it can be summed as it is made.
        "broadcast_to(dy, like f(x)) -> broadcast_to(dy, like x)",
        pattern("broadcast", BroadcastTo, "dy", "y?"),
        _like_another,
        _no_other,
    ),
)
