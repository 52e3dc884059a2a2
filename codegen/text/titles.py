"""Regions in words, for the first line of a file: "5x5 convolution + bias, ReLU, 2x2 max pooling"."""

from __future__ import annotations

from ...graph.ir import Node
from ...graph.op import Kind
from ...graph.ops import Reduce
from ...planning.regions import Region


def title(region: Region) -> str:
    """What the region computes, op by op."""
    words = ", ".join(_words(region, node) for node in region.nodes)
    return words[0].upper() + words[1:]


def _words(region: Region, node: Node) -> str:
    if isinstance(node.op, Reduce) and region.anchor.op.kind is Kind.CONTRACTION:
        return "gradient of the bias"
    return node.op.words(*(operand.type for operand in region.graph.operands(node)))
