"""What the members around an anchor may be: the limits that several forms share."""

from __future__ import annotations

from collections.abc import Iterable

from ...graph.ir import Node
from ...graph.op import Kind
from ...graph.ops import BroadcastTo
from ...graph.types import Dim
from ..geometry import broadcast_kind
from ..regions import Region
from .form import Refusal

ANYHOW = ("full", "channel", "image", "pixel", "scalar", "repeated", None)
ON_TILES = ANYHOW[:-1]
"""How an operand may lie against a tile of pixels and channels: in any of the ways that have a name."""


def alone(region: Region) -> Refusal:
    """A kernel that computes its anchor and nothing else."""
    other = next((node for node in region.nodes if node is not region.anchor), None)
    return None if other is None else cannot_share(region, other)


def cannot_share(region: Region, node: Node) -> str:
    anchor = region.anchor
    return f"{node.name}: {node.op.op_name()} cannot share a kernel with {anchor.op.op_name()}"


def late_refusal(before: Iterable[Node], after: Iterable[Node]) -> Refusal:
    """Why members after an anchor cannot read those before it, which are computed as it gathers them; None
    where they do not."""
    gathered = {node.name for node in before}
    for node in after:
        if read := gathered.intersection(node.inputs):
            return f"{node.name} reads {min(read)}, which is computed as it is gathered and is nowhere whole"
    return None


def pointwise(
    region: Region,
    nodes: Iterable[Node],
    shape: tuple[Dim, ...],
    lying: tuple[str | None, ...] = ON_TILES,
) -> Refusal:
    """Whether all of these are pointwise and have the shape, and their operands lie against it in these ways.

    A kernel that walks flat elements finds any operand's place: lying=ANYHOW.
    """
    for node in nodes:
        if node.op.kind is not Kind.POINTWISE:
            return cannot_share(region, node)
        if refusal := on_shape(region, node, shape, lying):
            return refusal
    return None


def read(node: Node) -> tuple[str, ...]:
    """The operands whose elements a node reads: of what a value is spread like, only the batch counts."""
    return node.inputs[:1] if isinstance(node.op, BroadcastTo) else node.inputs


def on_shape(
    region: Region, node: Node, shape: tuple[Dim, ...], lying: tuple[str | None, ...] = ON_TILES
) -> Refusal:
    """`pointwise` for one node that is known to be it."""
    operands = [region.graph[name] for name in read(node)]
    for operand in operands:
        if operand.name in region.members and operand.type.shape != node.type.shape:
            return f"{node.name} broadcasts {operand.name} from {operand.type} to {node.type}"
    for operand in operands if None not in lying else ():
        outside = operand.name not in region.members
        if outside and broadcast_kind(operand.type.shape, shape) not in lying:
            return f"{operand.name} of {operand.type} broadcasts along an axis no kernel handles"
    return None if node.type.shape == shape else f"{node.name} has another shape than {region.anchor.name}"
