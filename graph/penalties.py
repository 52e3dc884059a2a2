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
            parts += [mean_penalty(graph, value, op) for op in ops if isinstance(op, SizePenalty)]
    graph.penalties = {}
    for op, weights in alike.items():
        if isinstance(op, SizePenalty):  # of all weights at once
            parts.append(graph.add(op, weights, "penalty"))
        else:
            parts += [graph.add(op, [weight], "penalty") for weight in weights]
    return _sum(graph, parts)


def mean_penalty(graph: Graph, value: str, op: SizePenalty) -> str:
    """l1 * sum of |x| + l2 * sum of x^2 over an activation, divided by the size of the batch."""
    layer, kind = graph[value].layer, graph[value].type
    if kind.accumulated() != kind:
        value = graph.add(Cast("float32"), [value], f"{value}/wide", layer)
    terms = []
    for factor, measure, word in ((op.l1, Abs(), "size"), (op.l2, Square(), "square")):
        if factor or not (op.l1 or op.l2):
            measured = graph.add(measure, [value], f"{value}/{word}", layer)
            terms.append(graph.add(Scale(factor), [measured], f"{value}/scaled", layer))
    total = terms[0] if len(terms) == 1 else graph.add(Add(), terms, f"{value}/sum", layer)
    # The mean over all but the channels first: that sum is made by many programs at once.
    if kind.rank > 1:
        total = graph.add(Reduce(tuple(range(kind.rank - 1)), mean=True), [total], f"{value}/means", layer)
    total = graph.add(Reduce((0,), mean=True), [total], f"{value}/mean", layer)
    return graph.add(Scale(float(kind.elements())), [total], f"{value}/penalty", layer)


def _sum(graph: Graph, parts: list[str]) -> str | None:
    total = None
    for part in parts:
        total = part if total is None else graph.add(Add(), [total, part], "penalties")
    return total
