"""Identifiers of an emitted file: roles of operands and names of values, all from a fixed alphabet.

No name of a user's model becomes source text. What a person may want to know of it stands in the header,
through `escaped`.
"""

from __future__ import annotations

import builtins
import keyword
import re

from ...graph.errors import CompileError
from ...graph.ir import Node
from ...graph.op import Kind
from ...graph.ops import Add, Constant, MaxPoolIndex2D, Pointwise
from ...planning.geometry import broadcast_kind
from ...planning.regions import Region
from .helpers import HELPERS

RESERVED = frozenset(
    [
        *keyword.kwlist, *dir(builtins), *HELPERS, *"abcdefghijklmnopqrstuvz",
        "tl", "triton", "torch", "os", "F", "math", "launch", "reference", "example", "results", "batch",
        "device", "seed", "generator", "acc", "row", "column", "rows", "columns", "pixel", "pixels", "offset",
        "offsets", "image", "images", "channel", "channels", "lane", "start", "first", "inside", "row_ok",
        "column_ok", "tap", "taps", "best", "value", "values", "position", "chunk", "partial", "partials",
        "block", "tile", "program", "count", "source", "place", "at", "top", "left", "reach", "element",
        "wanted", "found", "expected", "inputs", "outputs", "grid", "result", "term", "step", "padded",
        "sums", "sums2", "averages", "squares", "seen", "apart", "steps", "rest",
        "tile_m", "tile_n", "band", "band_size", "group", "col", "col_ok", "col_in_group", "phase",
        "candidate", "pooled", "pooled_ok", "windows", "largest", "broken", "average", "real", "power",
        "split", "splits", "begin", "end", "part", "parts", "w_tap", "tap_offset", "pixel_ok", "w_tile",
        "half", "halves", "matrix", "k0", "k_ok", "a_tile", "b_tile",
        "a0", "a1", "a2", "b0", "b1", "b2", "c0", "c1", "i0", "i1", "j0", "j1", "down", "across", "owned",
        "lane_ok", "strip", "source_row", "ahead", "loaded", "under_way", "nothing", "ok", "residue", "rest",
        "origin", "shift", "h_meets", "p_meets", "left_meets", "piece", "piece_ok", "pieces", "given", "more",
        "whole", "total",
        "share", "weights", "weight", "index", "hits", "known", "named", "places", "tiles",
        "laid", "laid_tile", "laid_pixels", "lay_out", "r0", "r_ok", "w_ok", "tap_ok",
    ]
)  # fmt: skip
"""Words that no operand and no value is called: Python's, the file's own, and the kernels' variables."""


def escaped(name: str) -> str:
    r"""A user's name as it may stand in a comment: all but letters, digits and ._/- becomes \\x escapes.

    The backslash is doubled, so that the text is also harmless inside a string.
    """
    return re.sub(r"[^A-Za-z0-9_./-]", lambda match: f"\\\\x{ord(match.group()):02x}", name)


class Names:
    """Who is called what in one file.

    role: node name -> the operand's name, for every input and output of the region. In a kernel `<role>_ptr`
    is its pointer and `<role>` its loaded value.
    """

    def __init__(self, region: Region) -> None:
        self.region = region
        self._taken: set[str] = set()
        self.role: dict[str, str] = {}
        for node in region.inputs:
            self.role[node.name] = self.fresh(_input_role(region, node))
        for node in region.outputs:
            self.role[node.name] = self.fresh(_output_role(region, node))

    def fresh(self, hint: str) -> str:
        """An identifier like `hint` that nothing else in the file has."""
        if not re.fullmatch(r"[a-z][a-z0-9_]*", hint):
            raise CompileError(f"{hint!r} is not an identifier of the emitted alphabet")
        name, count = hint, 1
        while name in self._taken or name in RESERVED:
            count += 1
            name = f"{hint}{count}"
        self._taken.add(name)
        return name

    def value(self, node: Node) -> str:
        """A fresh name for the value a member computes; an output keeps its role's name."""
        return self.role.get(node.name) or self.fresh(value_hint(self.region, node))

    def pointer(self, node: Node) -> str:
        return f"{self.role[node.name]}_ptr"


def value_hint(region: Region, node: Node) -> str:
    """What the value of a member is called, by what was done to it."""
    if isinstance(node.op, Add) and _second_kind(region, node) == "channel":
        return "biased"
    return node.op.value_name or node.op.op_name()


def _second_kind(region: Region, node: Node) -> str | None:
    return broadcast_kind(region.graph[node.inputs[1]].type.shape, node.type.shape)


def _input_role(region: Region, node: Node) -> str:
    """What an operand is to the first member that reads it."""
    if node.op.kind is Kind.SOURCE and node.op.role():
        return node.op.role()
    reader = next(member for member in region.nodes if node.name in member.inputs)
    place = reader.inputs.index(node.name)
    if isinstance(reader.op, Pointwise) and any(reader.op.beside):
        return _role_beside(region, reader, reader.op, node)
    names = reader.op.operands
    name = names[min(place, len(names) - 1)]
    if name.endswith("*") and len(reader.inputs) > 1:
        return f"x{place}"
    return name.rstrip("?*")


def _role_beside(region: Region, reader: Node, op: Pointwise, node: Node) -> str:
    """Of an operand of arithmetic, which may stand on either side."""
    of_channels, other = op.beside
    if isinstance(node.op, Constant):
        return "constant"
    kind = broadcast_kind(node.type.shape, reader.type.shape)
    if kind == "channel" and node.type.shape != reader.type.shape:
        return of_channels
    return "x" if reader.inputs[0] == node.name and reader is region.nodes[0] else other


def _output_role(region: Region, node: Node) -> str:
    if node.op.role():
        return node.op.role()
    real = [n for n in region.outputs if not isinstance(n.op, MaxPoolIndex2D)]
    if node is not real[-1]:
        return "kept"
    return "dx" if region.phase == "backward" and node.type.batched else "y"
