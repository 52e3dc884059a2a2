"""Pattern rewriting: rules named by their equation, applied until nothing changes, refusals kept.

A rule is a pattern over ops, a condition that may refuse with a reason, and a builder that returns the node
replacing the pattern's root. Two things hold for every rule, so no rule has to check them: a value inside the
pattern that somebody else reads, or that is an output, is not rewritten away; and the rewritten graph is
verified.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from .decisions import Decision
from .ir import Graph, Node
from .op import Op


@dataclass(frozen=True)
class Pattern:
    """A node of one of these ops whose first operands match `operands` (None matches anything)."""

    ops: tuple[type[Op], ...]
    operands: tuple[Pattern | None, ...] = ()

    @property
    def levels(self) -> int:
        """How far it looks: 1 for a node alone, 2 for one and its operands."""
        return 1 + max((p.levels for p in self.operands if p is not None), default=0)

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
    return _Sweeps(graph, rules).run()


class _Sweeps:
    """Rules on their way over a graph: first over all of it, then over what has changed.

    A rule visits its nodes in the order of the graph. What a rewrite puts in a node's place is visited by the
    rules that come after it, and by its own in the next sweep. A refusal may follow from what is far away:
    once no rule applies any more, those that were given before the last rewrite are asked for again.
    """

    def __init__(self, graph: Graph, rules: tuple[Rule, ...]) -> None:
        self.graph, self.rules = graph, rules
        self.levels = max((rule.pattern.levels for rule in rules), default=1)
        self.known: dict[str, Node] = {}
        """The nodes as they were when they were last made to wait."""
        self.order: dict[str, tuple[int, int]] = {}
        """What is new stands where the node stood that it replaces, behind what stands there already."""
        self.waiting: list[set[str]] = [set() for _ in rules]
        """For each rule, the nodes to visit."""
        self.refused: list[dict[str, tuple[int, str]]] = [{} for _ in rules]
        """For each rule, the nodes it left as they are: after how many rewrites, and why."""
        self.applied: list[Decision] = []
        for rank, node in enumerate(graph.nodes()):
            self.order[node.name] = rank, 0
            self._wait(node)

    def run(self) -> list[Decision]:
        while any(self.waiting):
            for place in range(len(self.rules)):
                self._visit_all(place)
            if not any(self.waiting):
                self._ask_again()
        return self.applied + self._refusals()

    def _wait(self, node: Node) -> None:
        self.known[node.name] = node
        for rule, waiting in zip(self.rules, self.waiting, strict=True):
            if isinstance(node.op, rule.pattern.ops):
                waiting.add(node.name)

    def _visit_all(self, place: int) -> None:
        """Take one rule over the nodes that wait for it."""
        todo, later = self.waiting[place], set[str]()
        self.waiting[place] = later
        heap = [(self.order[name], name) for name in todo]
        heapify(heap)
        while todo:
            here, name = heappop(heap)
            if name not in todo:
                continue
            todo.remove(name)
            for touched in self._visit(place, name):
                if touched in later and self.order[touched][0] > here[0]:
                    later.remove(touched)
                    todo.add(touched)
                    heappush(heap, (self.order[touched], touched))

    def _visit(self, place: int, name: str) -> Iterable[str]:
        """Apply a rule at a node, or note why not. Returns the nodes that were made to wait."""
        rule = self.rules[place]
        self.refused[place].pop(name, None)
        nodes = rule.pattern.match(self.graph, self.graph[name]) if name in self.graph else None
        if nodes is None:
            return ()
        reason = rule.reason_against(self.graph, nodes)
        if reason is not None:
            self.refused[place][name] = len(self.applied), reason
            return ()
        moment, (rank, _) = self.graph.changes(), self.order[name]
        decision, added = _rewrite(self.graph, rule, nodes)
        self.applied.append(decision)
        for new in added:
            self.order[new] = rank, len(self.order) + len(self.applied)
        return self._touched(moment)

    def _touched(self, moment: int) -> dict[str, None]:
        """Let all wait at whose place a rule may see something new since that moment."""
        touched: dict[str, None] = {}
        for name in self.graph.changed_since(moment):
            # Of what merely has other readers: the one that has become its only one.
            if self.known.get(name) is not self.graph[name] or len(self.graph.readers(name)) == 1:
                touched[name] = None
        front = list(touched)
        for _ in range(self.levels - 1):
            front = [reader.name for name in front for reader in self.graph.readers(name)]
            touched.update(dict.fromkeys(front))
        for name in touched:
            self._wait(self.graph[name])
        return touched

    def _ask_again(self) -> None:
        """Let those wait whose refusals are older than the last rewrite."""
        for waiting, refused in zip(self.waiting, self.refused, strict=True):
            waiting.update(name for name, (when, _) in refused.items() if when < len(self.applied))

    def _refusals(self) -> list[Decision]:
        found = []
        place = {node.name: i for i, node in enumerate(self.graph.nodes())} if any(self.refused) else {}
        for rule, refused in zip(self.rules, self.refused, strict=True):
            for name in sorted(refused.keys() & place.keys(), key=place.__getitem__):
                found.append(Decision(rule.equation, name, False, refused[name][1]))
        return found


def _rewrite(graph: Graph, rule: Rule, nodes: list[Node]) -> tuple[Decision, list[str]]:
    """Returns what was done, and the names of the nodes that are new."""
    root = nodes[0]
    last = graph.latest()
    replacement = rule.build(graph, nodes)
    added = graph.added_since(last)
    graph.replace_uses(root.name, replacement)
    removed = _drop_dead(graph, root.name)
    added = [name for name in added if name in graph]
    for i, name in enumerate(added):
        base, _, count = name.rpartition("_")
        if count.isdigit() and base in removed:  # the new node takes over the name of the one it stands for
            graph.rename(name, base)
            added[i] = base
            replacement = base if name == replacement else replacement
    now = "" if replacement == root.name else f"now {replacement}"
    return Decision(rule.equation, root.name, True, now), added


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
