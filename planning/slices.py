"""Concatenation for free: each producer writes its part where it belongs, into its slice of the whole. And
slices for free, which are concatenation's gradient: each reader finds its part in the whole.

Along the channels, where all who make a part or read it go by pixel and channel, and so step over the rest of
the rows. A part may be a concatenation itself. One with a part that does not allow it is a kernel.
"""

from __future__ import annotations

from ..graph.decisions import Decision
from ..graph.ir import Graph, Node
from ..graph.ops import Concat, Slice
from .forms import read_row_by_row, stored_row_by_row
from .regions import Partition, Region

EQUATION = "concat(f(x), g(y)) -> f and g write into their slices"
CUT = "f(x[..., a:b]) -> f reads its slice of x"


def write_into_slices(partition: Partition) -> None:
    """Mark the concatenations and slices of a partition that need no kernel, and who makes and reads the
    parts."""
    slices = _Slices(partition)
    joined = []
    for region in partition:
        if len(region.nodes) > 1 or not isinstance(region.anchor.op, Concat):
            continue
        whole = region.anchor
        reason = slices.reason_against(whole)
        partition.decisions.append(Decision(EQUATION, whole.name, reason is None, reason or ""))
        if reason is None:
            region.joined = True
            slices.home.update(dict.fromkeys(whole.inputs, whole.name))
            joined.append(region)
    for region in reversed(joined):  # the rows of the outermost are the widest
        pitch = region.pitches.get(region.anchor.name, region.anchor.type.channels)
        for name in region.anchor.inputs:
            for other in slices.touching(name):
                other.pitches[name] = pitch
    for region in partition:
        if len(region.nodes) == 1 and isinstance(region.anchor.op, Slice):
            part = region.anchor
            reason = slices.reason_to_cut(part)
            partition.decisions.append(Decision(CUT, part.name, reason is None, reason or ""))
            if reason is None:
                region.joined = True
                for other in slices.touching(part.name):
                    other.pitches[part.name] = partition.graph[part.inputs[0]].type.channels


class _Slices:
    """Who makes and who reads each value of a partition. home: of a part, the whole that it lies in."""

    def __init__(self, partition: Partition) -> None:
        self.graph: Graph = partition.graph
        self.home: dict[str, str] = {}
        self.maker = {node.name: region for region in partition for node in region.outputs}
        self.readers: dict[str, list[Region]] = {}
        for region in partition:
            for node in region.inputs:
                self.readers.setdefault(node.name, []).append(region)

    def touching(self, name: str) -> list[Region]:
        return [self.maker[name], *self.readers[name]]

    def reason_against(self, whole: Node) -> str | None:
        op = whole.op
        assert isinstance(op, Concat)
        if op.axis % whole.type.rank != whole.type.rank - 1:
            return f"{whole.name} is not along the channels"
        for name in whole.inputs:
            if reason := self._against_part(name, whole):
                return reason
        return None

    def reason_to_cut(self, part: Node) -> str | None:
        """Why a slice is a kernel, which makes a value of its own."""
        op, whole = part.op, self.graph[part.inputs[0]]
        assert isinstance(op, Slice)
        if part.type.shape[:-1] != whole.type.shape[:-1]:
            return f"{part.name} is not cut along the channels alone"
        region = self.maker.get(whole.name)
        if region is None or not (region.launches or isinstance(region.anchor.op, Concat)):
            return f"{whole.name} is not computed by a kernel"
        if region.phase != part.phase:
            return f"{whole.name} belongs to the {region.phase} pass"
        if leaving := next(filter(self._leaves, (part.name, whole.name)), None):
            return f"{leaving} is an output of the network"
        if whole.name in self.home:
            return f"{whole.name} lies in {self.home[whole.name]}"
        return self._against_readers(part)

    def _leaves(self, name: str) -> bool:
        """Whether a value, or a view of it, is handed out."""
        views = (region.anchor.name for region in self.readers.get(name, ()) if region.is_view)
        return self.graph.is_output(name) or any(map(self._leaves, views))

    def _against_part(self, name: str, whole: Node) -> str | None:
        region, node = self.maker.get(name), self.graph[name]
        if region is None:
            return f"{name} is not computed by a kernel"
        if region.is_view:
            return f"{name} is a view of {region.anchor.inputs[0]}"
        if region.phase != whole.phase:
            return f"{name} belongs to the {region.phase} pass"
        if self.graph.is_output(name):
            return f"{name} is an output of the network"
        if whole.inputs.count(name) > 1:
            return f"{name} is there twice"
        if name in self.home:
            return f"{name} lies in {self.home[name]}"
        if not region.joined and not stored_row_by_row(region):
            return f"{region.name} writes its result in one piece"
        return self._against_readers(node, whole)

    def _against_readers(self, node: Node, whole: Node | None = None) -> str | None:
        for reader in self.readers[node.name]:
            if reader.anchor is whole:
                continue
            if reader.is_view:
                return f"{node.name} is seen as {reader.anchor.name}"
            if not read_row_by_row(reader, node):
                return f"{reader.name} reads {node.name} in one piece"
        return None
