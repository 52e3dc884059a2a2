"""Pattern rewriting: rules named by their equation, applied until nothing changes, refusals kept.

A rule is a pattern over ops, a condition that may refuse with a reason, and a builder that returns the node
replacing the pattern's root. Two things hold for every rule, so no rule has to check them: a value inside the
pattern that somebody else reads, or that is an output, is not rewritten away; and the rewritten graph is
verified.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .decisions import Decision
from .ir import Graph, Node
from .op import Op


@dataclass(frozen=True)
class Pattern:
    """A node of one of these ops whose first operands match `operands` (None matches anything)."""

    ops: tuple[type[Op], ...]
    operands: tuple[Pattern | None, ...] = ()

    def match(self, graph: Graph, node: Node) -> list[Node] | None:
        """The matched nodes, root first, or None."""
        if not isinstance(node.op, self.ops) or len(node.inputs) < len(self.operands):
            return None
        found = [node]
        for pattern, name in zip(self.operands, node.inputs, strict=False):
            if pattern is not None:
                inner = pattern.match(graph, graph[name])
                if inner is None:
                    return None
                found += inner
        return found


def pattern(*ops: type[Op], over: tuple[Pattern | None, ...] = ()) -> Pattern:
    return Pattern(ops, over)


Condition = Callable[[Graph, list[Node]], str | None]
Builder = Callable[[Graph, list[Node]], str]


@dataclass(frozen=True)
class Rule:
    """equation: its name. build: adds nodes and returns the one that replaces the root.

    keeps_inner: the inner nodes survive (their other readers do not matter).
    """

    equation: str
    pattern: Pattern
    build: Builder
    refuse: Condition = lambda graph, nodes: None
    keeps_inner: bool = False

    def reason_against(self, graph: Graph, nodes: list[Node]) -> str | None:
        if not self.keeps_inner:
            for inner, outer in zip(nodes[1:], nodes, strict=False):
                if graph.is_output(inner.name):
                    return f"{inner.name} is an output of the network"
                others = [r.name for r in graph.readers(inner.name) if r.name != outer.name]
                if others:
                    return f"{inner.name} also feeds {', '.join(others)}"
        return self.refuse(graph, nodes)


def apply_rules(graph: Graph, rules: tuple[Rule, ...]) -> list[Decision]:
    """Rewrite `graph` in place, sweep by sweep, until no rule applies. Returns what was done and refused."""
    applied: list[Decision] = []
    while True:
        refused: list[Decision] = []
        before = len(applied)
        for rule in rules:
            for name in [node.name for node in graph.nodes()]:
                nodes = rule.pattern.match(graph, graph[name]) if name in graph else None
                if nodes is None:
                    continue
                reason = rule.reason_against(graph, nodes)
                if reason is None:
                    applied.append(_rewrite(graph, rule, nodes))
                else:
                    refused.append(Decision(rule.equation, name, False, reason))
        if len(applied) == before:
            return applied + refused


def _rewrite(graph: Graph, rule: Rule, nodes: list[Node]) -> Decision:
    root = nodes[0]
    last = graph.latest()
    replacement = rule.build(graph, nodes)
    added = graph.added_since(last)
    graph.replace_uses(root.name, replacement)
    removed = _drop_dead(graph, root.name)
    for name in [name for name in added if name in graph]:
        base, _, count = name.rpartition("_")
        if count.isdigit() and base in removed:  # the new node takes over the name of the one it stands for
            graph.rename(name, base)
            replacement = base if name == replacement else replacement
    return Decision(rule.equation, root.name, True, "" if replacement == root.name else f"now {replacement}")


def _drop_dead(graph: Graph, name: str) -> set[str]:
    """Remove a node nobody reads, then its operands where nobody reads them either. Returns their names."""
    stack, removed = [name], set()
    while stack:
        dead = stack.pop()
        if dead in graph and not graph.readers(dead) and not graph.is_output(dead):
            operands = graph[dead].inputs
            graph.remove(dead)
            removed.add(dead)
            stack += [o for o in operands if o in graph and graph[o].inputs]
    return removed
