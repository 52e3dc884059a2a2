"""The order of a graph: operands before their readers, otherwise as their places say."""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heapify, heappop, heappush

import networkx as nx


def in_order(dag: nx.MultiDiGraph, places: Mapping[str, float]) -> list[str]:
    """The names of a graph's nodes: at each step the first, by its place, of those whose operands are there.

    Raises NetworkXUnfeasible for a graph with a cycle.
    """
    names = sorted(dag, key=lambda name: places[name])
    return names if _operands_first(dag, names) else _sorted(dag, names)


def _operands_first(dag: nx.MultiDiGraph, names: list[str]) -> bool:
    """Whether the order of the places will do, as it does until a rewrite adds nodes."""
    seen: set[str] = set()
    for name in names:
        if not seen.issuperset(dag.predecessors(name)):
            return False
        seen.add(name)
    return True


def _sorted(dag: nx.MultiDiGraph, names: list[str]) -> list[str]:
    rank = {name: i for i, name in enumerate(names)}
    missing = {name: sum(1 for _ in dag.predecessors(name)) for name in names}
    ready = [rank[name] for name, count in missing.items() if not count]
    heapify(ready)
    order: list[str] = []
    while ready:
        name = names[heappop(ready)]
        order.append(name)
        for reader in dag.successors(name):
            missing[reader] -= 1
            if not missing[reader]:
                heappush(ready, rank[reader])
    if len(order) < len(names):
        raise nx.NetworkXUnfeasible("the graph has a cycle")
    return order
