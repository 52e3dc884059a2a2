"""A graph computed node by node from its ops' definitions: slow, and what everything faster is held to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from .ir import Graph
from .ops import KNOWN


def walk(
    graph: Graph, values: Mapping[str, torch.Tensor], wanted: Iterable[str] | None = None
) -> dict[str, torch.Tensor]:
    """The values of the nodes `wanted` (by default those of the outputs), by name.

    values: of the inputs, parameters and drawn sources that they follow from, and of any node that is not to
    be computed. Everything goes through plain torch operators, so that autograd, `torch.func` and
    forward-mode differentiation see through it, to any order. Computed in float32 at least, in float64 where
    the graph is (`with_dtype`), and rounded to each node's type.
    """
    names = list(dict.fromkeys(graph.outputs.values() if wanted is None else wanted))
    live, stack = set(values), list(names)
    while stack:
        name = stack.pop()
        if name not in live:
            live.add(name)
            stack.extend(graph[name].inputs)
    device = next((value.device for value in values.values()), torch.device("cpu"))
    found = dict(values)
    for node in graph.nodes():
        if node.name not in live or node.name in found:
            continue
        if isinstance(node.op, KNOWN):
            found[node.name] = node.op.reference().to(device)
        else:
            found[node.name] = node.evaluate(*(found[name] for name in node.inputs))
    return {name: found[name] for name in names}
