"""Pattern rewriting: rules named by their equation, applied until nothing changes, refusals kept.

A rule is a pattern that gives names to what it finds, a condition that may refuse with a reason, and a
builder that returns the node replacing the pattern's root. Two things hold for every rule, so no rule has to
check them: a value inside the pattern that somebody else reads, or that is an output, is not rewritten away;
and the rewritten graph is verified.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import TypeVar

from .decisions import Decision
from .ir import Graph, Node
from .op import Op

Wanted = TypeVar("Wanted", bound=Op)


@dataclass(frozen=True)
class Match:
    """What a pattern found. names: variable -> node name. inner: the names that the pattern gives an op."""

    graph: Graph
    root: Node
    names: dict[str, str]
    inner: tuple[str, ...]

    def __contains__(self, variable: str) -> bool:
        return variable in self.names

    def __getitem__(self, variable: str) -> Node:
        return self.graph[self.names[variable]]

    def op(self, variable: str, kind: type[Wanted]) -> Wanted:
        """The op of a node, of the kind that the pattern asks for."""
        op = self[variable].op
        if not isinstance(op, kind):
            raise TypeError(f"the pattern lets {variable} be {op.op_name()}, not only {kind.op_name()}")
        return op

    def add(self, op: Op, inputs: Iterable[str], like: Node) -> str:
        """Append a node that takes over the name, the layer and the phase of another."""
        return self.graph.add(op, inputs, like.name, like.layer, like.phase)


@dataclass(frozen=True)
class Pattern:
    """A node of one of these ops, called `variable`, whose first operands match `operands`.

    An operand is a pattern, or a variable that takes any value: the same one wherever it is named. "b?" may
    be missing. Where the op commutes, its two operands are tried both ways round.
    """

    variable: str
    ops: tuple[type[Op], ...]
    operands: tuple[Pattern | str, ...] = ()

    @property
    def levels(self) -> int:
        """How far it looks: 1 for a node alone, 2 for one and its operands."""
        return 1 + max((p.levels for p in self.operands if isinstance(p, Pattern)), default=0)

    @property
    def variables(self) -> tuple[str, ...]:
        """Those that have an op, the root's first."""
        inner = (p.variables for p in self.operands if isinstance(p, Pattern))
        return (self.variable, *(name for names in inner for name in names))

    def matches(self, graph: Graph, node: Node) -> Iterator[Match]:
        """All the ways in which it matches a node."""
        for names in self._bind(graph, node.name, {}):
            yield Match(graph, node, names, tuple(names[variable] for variable in self.variables[1:]))

    def _bind(self, graph: Graph, name: str, names: dict[str, str]) -> Iterator[dict[str, str]]:
        """The names with those of this node and its operands; nothing where it does not match."""
        node = graph[name]
        if isinstance(node.op, self.ops) and names.get(self.variable, name) == name:
            names = {**names, self.variable: name}
            yield from _bind_operands(graph, self.operands, node.inputs, names)
            if node.op.commutes and len(set(node.inputs)) == 2 and self.operands:
                yield from _bind_operands(graph, self.operands, node.inputs[::-1], names)


def _bind_operands(
    graph: Graph, wanted: tuple[Pattern | str, ...], inputs: tuple[str, ...], names: dict[str, str]
) -> Iterator[dict[str, str]]:
    if not wanted:
        yield names
        return
    first, *others = wanted
    found: Iterable[dict[str, str]] = ()
    if not inputs:
        found = (names,) if isinstance(first, str) and first.endswith("?") else ()
    elif isinstance(first, Pattern):
        found = first._bind(graph, inputs[0], names)
    elif names.get(variable := first.removesuffix("?"), inputs[0]) == inputs[0]:
        found = ({**names, variable: inputs[0]},)
    for bound in found:
        yield from _bind_operands(graph, tuple(others), inputs[1:], bound)


def pattern(variable: str, ops: type[Op] | tuple[type[Op], ...], *operands: Pattern | str) -> Pattern:
    return Pattern(variable, ops if isinstance(ops, tuple) else (ops,), operands)


Condition = Callable[[Match], str | None]
Builder = Callable[[Match], str]


@dataclass(frozen=True)
class Rule:
    """equation: its name. build: adds nodes and returns the one that replaces the root."""

    equation: str
    pattern: Pattern
    build: Builder
    refuse: Condition = lambda match: None

    def reason_against(self, match: Match) -> str | None:
        graph, own = match.graph, {match.root.name, *match.inner}
        for inner in match.inner:
            if graph.is_output(inner):
                return f"{inner} is an output of the network"
            others = [reader.name for reader in graph.readers(inner) if reader.name not in own]
            if others:
                return f"{inner} also feeds {', '.join(others)}"
        return self.refuse(match)

    def look(self, graph: Graph, node: Node) -> tuple[Match | None, str]:
        """The first match at a node that nothing speaks against; or None, and what speaks against the first
        that there is, "" where there is none."""
        reason = ""
        for match in self.pattern.matches(graph, node):
            against = self.reason_against(match)
            if against is None:
                return match, ""
            reason = reason or against
        return None, reason


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
        match, reason = rule.look(self.graph, self.graph[name]) if name in self.graph else (None, "")
        if match is None:
            if reason:
                self.refused[place][name] = len(self.applied), reason
            return ()
        moment, (rank, _) = self.graph.changes(), self.order[name]
        decision, added = _rewrite(rule, match)
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


def _rewrite(rule: Rule, match: Match) -> tuple[Decision, list[str]]:
    """Returns what was done, and the names of the nodes that are new."""
    graph, root = match.graph, match.root
    last = graph.latest()
    replacement = rule.build(match)
    added = graph.added_since(last)
    graph.replace_uses(root.name, replacement)
    removed = _drop_dead(graph, root.name)
    added = [name for name in added if name in graph]
    for i, name in enumerate(added):
        base, _, count = name.rpartition("_")
        if count.isdigit() and base in removed and base not in graph:
            # the new node takes over the name of the one it stands for
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
