"""Regions while they grow, and what two of them would become: what fusion rules are asked about."""

from __future__ import annotations

from dataclasses import dataclass

from ..graph.ir import Node
from ..graph.op import Kind
from .cost import CostModel
from .regions import Region


class Group:
    """A region while it grows."""

    def __init__(self, node: Node) -> None:
        self.nodes = [node]
        self.names = {node.name}
        self.anchor = node
        self.first = 0
        """Position of the earliest member in the graph's order."""

    @property
    def kind(self) -> Kind:
        return self.anchor.op.kind

    def has(self, op: type) -> bool:
        return any(isinstance(node.op, op) for node in self.nodes)


@dataclass(frozen=True)
class Merge:
    """A fusion at `node`, whose operand `producer` would no longer be stored for it.

    parts: the regions as they are; merged: the one they would become.
    """

    model: CostModel
    producer: Node
    node: Node
    parts: tuple[Region, ...]
    merged: Region

    def worth(self, lost: float, what: str) -> str | None:
        """None if the memory traffic that is saved takes longer than the seconds lost on an image; else why
        not. what: the work that is done again, as a sentence."""
        saved = self.model.saved_bytes(self.merged, self.parts)
        gained = self.model.moving(saved)
        if lost < gained:
            return None
        return (
            f"{what}: {lost * 1e6:.3g} us more an image on the {self.model.device.name}, to save "
            f"{saved / 1e6:.3g} MB of memory traffic, {gained * 1e6:.3g} us"
        )

    def flops(self, nodes: list[Node]) -> float:
        """FLOPs of nodes on an image, for each element of the producer."""
        graph = self.merged.graph
        return sum(graph.cost(node.name).flops for node in nodes) / max(1, self.producer.type.elements())
