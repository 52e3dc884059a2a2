"""Concatenation for free: each producer writes its part where it belongs, into its slice of the whole.

Along the channels, of values that nobody else reads: who reads a part would have to know that it lies in
wider rows. A concatenation of which one part does not allow it is a kernel, as before.
"""

from __future__ import annotations

from ..graph.decisions import Decision
from ..graph.ir import Node
from ..graph.ops import Concat
from .forms import stored_row_by_row
from .regions import Partition, Region

EQUATION = "concat(f(x), g(y)) -> f and g write into their slices"


def write_into_slices(partition: Partition) -> None:
    """Mark the concatenations of a partition that need no kernel, and their producers."""
    maker = {node.name: region for region in partition for node in region.outputs}
    for region in partition:
        if len(region.nodes) > 1 or not isinstance(region.anchor.op, Concat):
            continue
        whole = region.anchor
        reason = _reason_against(partition, maker, whole)
        partition.decisions.append(Decision(EQUATION, whole.name, reason is None, reason or ""))
        if reason is None:
            region.joined = True
            for name in whole.inputs:
                maker[name].pitches[name] = whole.type.channels


def _reason_against(partition: Partition, maker: dict[str, Region], whole: Node) -> str | None:
    graph, op = partition.graph, whole.op
    assert isinstance(op, Concat)
    if op.axis % whole.type.rank != whole.type.rank - 1:
        return f"{whole.name} is not along the channels"
    for name in whole.inputs:
        region = maker.get(name)
        if region is None:
            return f"{name} is not computed by a kernel"
        if region.is_view:
            return f"{name} is a view of {region.anchor.inputs[0]}"
        if region.phase != whole.phase:
            return f"{name} belongs to the {region.phase} pass"
        if graph.is_output(name):
            return f"{name} is an output of the network"
        readers = [reader.name for reader in graph.readers(name) if reader.name not in region.members]
        if readers != [whole.name] or whole.inputs.count(name) > 1:
            others = ", ".join(reader for reader in readers if reader != whole.name)
            return f"{name} also feeds {others}" if others else f"{name} is there twice"
        if not stored_row_by_row(region):
            return f"{region.name} writes its result in one piece"
    return None
