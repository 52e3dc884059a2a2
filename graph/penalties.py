"""The penalties of a graph as nodes of it: one number, to be added to a loss."""

from __future__ import annotations

from collections.abc import Container

from .ir import Graph
from .op import Op
from .ops import Abs, Add, Cast, Parameter, Reduce, Scale, SizePenalty, Square


def add_penalties(graph: Graph, without: Container[str] = ()) -> str | None:
    """Append what computes the sum of `graph.penalties`; returns its node, None where nothing is to be added.

    A parameter that is not trained, or is among `without`, is not counted, as Keras has it. The penalties
    have become nodes afterwards: `graph.penalties` is empty.
    """
    alike: dict[Op, list[str]] = {}
    parts: list[str] = []
    for value, ops in graph.penalties.items():
        source = graph[value].op
        if isinstance(source, Parameter):
            for op in ops if source.trainable and value not in without else ():
                alike.setdefault(op, []).append(value)
        else:
            for op in ops:
                assert isinstance(op, SizePenalty)
                parts += mean_penalties(graph, value, op)
    graph.penalties = {}
    for op, weights in alike.items():
        if isinstance(op, SizePenalty):  # of all weights at once
            parts.append(graph.add(op, weights, "penalty"))
        else:
            parts += [graph.add(op, [weight], "penalty") for weight in weights]
    return _sum(graph, parts)


def mean_penalties(graph: Graph, value: str, op: SizePenalty) -> list[str]:
    """l1 * sum of |x| and l2 * sum of x^2 over an activation, each divided by the size of the batch."""
    kind = graph[value].type

    def then(op: Op, *operands: str, suffix: str) -> str:
        return graph.add(op, operands, f"{value}/{suffix}", graph[value].layer)

    x = value if kind.accumulated() == kind else then(Cast("float32"), value, suffix="wide")
    # Each factor on the elements, so that one kernel makes and sums them; the mean of one image's worth of
    # each element is their sum divided by the batch.
    count, parts = float(kind.elements()), []
    for factor, measure, word in ((op.l1, Abs(), "l1"), (op.l2, Square(), "l2")):
        if factor:
            terms = then(Scale(factor * count), then(measure, x, suffix=word), suffix=f"{word}/terms")
            if kind.rank > 1:  # for each channel first: those sums many programs make together
                terms = then(Reduce(tuple(range(kind.rank - 1)), mean=True), terms, suffix=f"{word}/channels")
            parts.append(then(Reduce((0,), mean=True), terms, suffix=f"{word}/penalty"))
    return parts


def _sum(graph: Graph, parts: list[str]) -> str | None:
    total = None
    for part in parts:
        total = part if total is None else graph.add(Add(), [total, part], "penalties")
    return total
