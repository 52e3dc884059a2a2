"""Fusion: growing regions along the table of rules in `fusion_rules.py`.

Where a rule matches, three questions follow, each answered with a reason. Is it right? May it: would a form
accept the region as it would then be? Is it worth it: does the cost model believe that it saves more than it
does again?

Three guards make it right, for every rule: a value that another forward node reads, or that is an output of
the network, is never fused away; regions never mix the forward and the backward phase; and a fusion may not
close a cycle. A forward value that only the backward pass reads is stored by the kernel beside its result, so
training fuses as well as inference does; so is a value that a pooling reads, whoever else reads it.
"""

from __future__ import annotations

from ..graph.averages import apart
from ..graph.decisions import Decision
from ..graph.ir import Graph, Node
from ..graph.op import Kind
from ..graph.ops import MaxPool2D, MaxPoolIndex2D
from .cost import CostModel
from .forms import refusal, slower
from .fusion_rules import RULES, SIBLINGS, FusionRule, Worth
from .groups import Group, Merge
from .regions import Partition, Region, order_regions


class Fuser:
    """Grows the regions of one graph; `decisions` collects what happened."""

    def __init__(self, graph: Graph, model: CostModel) -> None:
        self.graph, self.model = graph, model
        self.owner: dict[str, Group] = {}
        self.position: dict[str, int] = {}
        self.order: list[str] = []
        self.groups: dict[int, Group] = {}
        self.decisions: list[Decision] = []

    def run(self) -> Partition:
        outside = self.graph.parameter_only() | apart(self.graph)
        for node in self.graph.nodes():
            if node.op.kind is Kind.SOURCE or node.name in outside:
                continue
            group = Group(node)
            self.owner[node.name] = group
            group.first = self.position[node.name] = len(self.order)
            self.order.append(node.name)
            self.groups[id(group)] = group
            if node.op.kind is not Kind.VIEW:
                self._grow(node)
        groups = list(self.groups.values())
        regions = order_regions(self.graph, [g.nodes for g in groups], [g.anchor for g in groups])
        return Partition(self.graph, regions, self.decisions)

    def _grow(self, node: Node) -> None:
        """Try the rules at `node`; the latest operand first, since its region can wait for the others."""
        producers = [name for name in reversed(dict.fromkeys(node.inputs)) if name in self.owner]
        for rule in RULES:
            for name in sorted(producers, key=self.position.__getitem__, reverse=True):
                group, mine = self.owner[name], self.owner[node.name]
                if group is mine or not self._concerns(rule, node, mine, group):
                    continue
                decision = self._decide(rule, self.graph[name], node, group)
                self.decisions.append(decision)
                if decision.applied:
                    self._merge(node, group, rule.into_producer)
        if not self._has_joined(node, self.owner[node.name]):
            self._join_sibling(node)

    @staticmethod
    def _has_joined(node: Node, mine: Group) -> bool:
        """Whether the node stands behind an anchor, beside which its kernel can have no second one."""
        return mine.anchor is not node and mine.kind is not Kind.POINTWISE

    def _concerns(self, rule: FusionRule, node: Node, mine: Group, group: Group) -> bool:
        if self._has_joined(node, mine):
            return rule.beside and group.kind is Kind.POINTWISE and rule.matches(node, mine)
        return not rule.beside and rule.matches(node, group)

    def _join_sibling(self, node: Node) -> None:
        for rule in SIBLINGS:
            for group in self._neighbours(node) if isinstance(node.op, rule.op) else ():
                if not rule.matches(node, self.owner[node.name], group):
                    continue
                reason = self._cycle(node, group)
                if reason is not None:
                    decision = Decision(rule.equation, node.name, False, reason)
                else:
                    decision = self._ask(rule.equation, node, group.anchor, self._regions(node, group, []))
                self.decisions.append(decision)
                if decision.applied:
                    self._merge(node, group, into_producer=True)
                    return

    def _neighbours(self, node: Node) -> list[Group]:
        """The other regions that read what the node's own region reads of a shape the node reads."""
        mine = self.owner[node.name]
        shapes = {self.graph[name].type.shape for name in node.inputs}
        found: dict[int, Group] = {}
        for name in dict.fromkeys(i for member in mine.nodes for i in member.inputs if i not in mine.names):
            if self.graph[name].type.shape not in shapes:
                continue
            for reader in self.graph.readers(name):
                group = self.owner.get(reader.name)
                if group is not None and group is not mine and group.anchor.phase == node.phase:
                    found[id(group)] = group
        return list(found.values())

    # -- the questions ----------
    def _decide(self, rule: FusionRule, producer: Node, node: Node, group: Group) -> Decision:
        reason = self._guard(rule, producer, node, group)
        if reason is not None:
            return Decision(rule.equation, node.name, False, reason)
        # A pooling and its index read one value and join one region: the first is asked for both.
        beside = [r for r in self.graph.readers(producer.name) if self._rides_along(r, node)]
        parts = self._regions(node, group, [r for r in beside if r.name not in group.names | {node.name}])
        anchor = group.anchor if rule.into_producer else self.owner[node.name].anchor
        return self._ask(rule.equation, node, anchor, parts, producer, rule.worth)

    def _regions(self, node: Node, group: Group, beside: list[Node]) -> tuple[Region, ...]:
        """The parts of a merge as regions."""
        mine = self.owner[node.name]
        parts = [(group.anchor, group.nodes), (mine.anchor, mine.nodes), *((n, [n]) for n in beside)]
        return tuple(Region(self.graph, anchor, nodes) for anchor, nodes in parts)

    def _ask(
        self,
        equation: str,
        node: Node,
        anchor: Node,
        parts: tuple[Region, ...],
        producer: Node | None = None,
        worth: Worth | None = None,
    ) -> Decision:
        """May it, and is it worth it?"""
        merged = Region(self.graph, anchor, [member for part in parts for member in part.nodes])
        if reason := refusal(merged):
            return Decision(equation, node.name, False, reason, "may")
        if reason := slower(merged, parts, self.model):
            return Decision(equation, node.name, False, reason, "worth")
        if producer is not None and worth is not None:
            reason = worth(Merge(self.model, producer, node, parts, merged))
        return Decision(equation, node.name, reason is None, reason or "", "worth" if reason else "")

    def _merge(self, node: Node, group: Group, into_producer: bool) -> None:
        mine = self.owner[node.name]
        keep, gone = (group, mine) if into_producer else (mine, group)
        keep.nodes = group.nodes + mine.nodes
        keep.names |= gone.names
        keep.first = min(group.first, mine.first)
        for member in gone.nodes:
            self.owner[member.name] = keep
        del self.groups[id(gone)]

    # -- guards ----------
    def _guard(self, rule: FusionRule, producer: Node, node: Node, group: Group) -> str | None:
        if producer.phase != node.phase:
            return f"{producer.name} belongs to the {producer.phase} pass"
        if self.graph.is_output(producer.name) and not rule.stores:
            return f"{producer.name} is an output of the network"
        mine = self.owner[node.name].names
        others = [
            reader
            for reader in self.graph.readers(producer.name)
            if reader.name not in mine and not self._rides_along(reader, node)
        ]
        here = [reader.name for reader in others if reader.phase == producer.phase]
        if here and not rule.stores:
            return f"{producer.name} also feeds {', '.join(here)}"
        if not rule.into_producer and (kept := self._read_elsewhere(group, node)):
            return f"{kept[0]} is kept for the backward pass"
        return self._cycle(node, group)

    def _read_elsewhere(self, group: Group, node: Node) -> list[str]:
        """Members of the group that others than the group and the node read."""
        inside = group.names | {node.name}
        return [
            member.name
            for member in group.nodes
            if any(
                reader.name not in inside and not self._rides_along(reader, node)
                for reader in self.graph.readers(member.name)
            )
        ]

    @staticmethod
    def _rides_along(reader: Node, node: Node) -> bool:
        """Whether both readers are one pooling and its index, which live in the same kernel."""
        pools = (MaxPool2D, MaxPoolIndex2D)
        return (
            isinstance(reader.op, pools)
            and isinstance(node.op, pools)
            and reader.op.geometry() == node.op.geometry()
        )

    def _reach(self, *groups: Group) -> int:
        """A position at which no region begins before and goes on after, not after the groups begin.

        What lies before it reads only what lies before it, so no path leads from the groups to there.
        """
        reach = min(group.first for group in groups)
        at = len(self.order)
        while (at := at - 1) >= reach:
            reach = min(reach, self.owner[self.order[at]].first)
        return reach

    def _cycle(self, node: Node, group: Group) -> str | None:
        """A reason if an operand of the merged region depends on it by a path outside."""
        mine = self.owner[node.name]
        inside = {id(group), id(mine)}
        reach = self._reach(group, mine)
        stack = [i for n in (*mine.nodes, *group.nodes) for i in n.inputs]
        seen: set[int] = set()
        while stack:
            name = stack.pop()
            owner = self.owner.get(name)
            if owner is None or id(owner) in seen or id(owner) in inside or self.position[name] < reach:
                continue
            seen.add(id(owner))
            for member in owner.nodes:
                for operand in member.inputs:
                    source = self.owner.get(operand)
                    if source is not None and id(source) in inside:
                        return f"another path leads from {group.anchor.name} to {node.name}"
                    stack.append(operand)
        return None


def fuse(graph: Graph, model: CostModel | None = None) -> Partition:
    """Cut the graph into regions along RULES. model: what fusing is worth; by default, on an H100."""
    return Fuser(graph, model or CostModel.of()).run()


def leave_unfused(graph: Graph) -> Partition:
    """One region an op: what an eager framework runs, and the yardstick of every comparison."""
    outside = graph.parameter_only() | apart(graph)
    nodes = [n for n in graph.nodes() if n.op.kind is not Kind.SOURCE and n.name not in outside]
    return Partition(graph, order_regions(graph, [[n] for n in nodes], nodes))
