"""What is written back after a forward pass, and the moving averages among it, which no kernel computes.

A moving average is nodes like any others: momentum * p + (1 - momentum) * v. Where nothing but its update
reads them, the parameter is moved in its place instead, all averages at once, and its nodes are in no kernel.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from .ir import Graph
from .leaving import Update
from .ops.pointwise import Add, Scale
from .rewrite import Match, pattern

AVERAGE = pattern("moved", Add, pattern("kept", Scale, "p"), pattern("new", Scale, "v"))


@dataclass(frozen=True)
class Write:
    """A parameter and the value it takes; with a momentum: the value that it moves towards.

    apart: the nodes that nobody has to compute for it.
    """

    parameter: str
    value: str
    momentum: float | None = None
    apart: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.momentum is None:
            return f"%{self.parameter} <- %{self.value}"
        m = self.momentum
        return f"%{self.parameter} <- {m:g} * %{self.parameter} + {1 - m:g} * %{self.value}"


def move(graph: Graph, parameter: str, value: str, momentum: float, layer: str, now: str = "") -> str:
    """Let a training step move a parameter towards a value. Returns the parameter as it is afterwards.

    now: the parameter as earlier updates of the same step leave it.
    """
    kept = graph.add(Scale(momentum), (now or parameter,), f"{parameter}/kept", layer)
    new = graph.add(Scale(1 - momentum), (value,), f"{parameter}/new", layer)
    moved = graph.add(Add(), (kept, new), f"{parameter}/moved", layer)
    graph.updates.append(Update(parameter, moved))
    return moved


def writes(graph: Graph) -> list[Write]:
    """The updates, in order, as they are done: moving averages in place, all others by their values."""
    found = [Write(update.parameter, update.value) for update in graph.updates]
    now: dict[str, str] = {}
    before = []
    for update in graph.updates:
        before.append(now.get(update.parameter, update.parameter))
        now[update.parameter] = update.value
    taken = Counter([*graph.outputs.values(), *(update.value for update in graph.updates)])
    continued: set[str] = set()
    """The nodes through which a later average goes on from an earlier one."""
    for place, update in reversed(list(enumerate(graph.updates))):
        for match in AVERAGE.matches(graph, graph[update.value]):
            own = {match.root.name, *match.inner}
            readers = {reader.name for name in own for reader in graph.readers(name)}
            alone = readers <= own | (continued & readers) and sum(taken[name] for name in own) == 1
            if alone and _is_plain(match, before[place]):
                momentum = match.op("kept", Scale).factor
                found[place] = Write(update.parameter, match["v"].name, momentum, tuple(sorted(own)))
                continued.add(match["kept"].name)
                break
    return found


def _is_plain(m: Match, now: str) -> bool:
    kept, new = m.op("kept", Scale), m.op("new", Scale)
    return m["p"].name == now and not kept.offset and not new.offset and new.factor == 1 - kept.factor


def apart(graph: Graph) -> set[str]:
    """The nodes that nobody has to compute, because a parameter is moved in its place."""
    return {name for write in writes(graph) for name in write.apart}
