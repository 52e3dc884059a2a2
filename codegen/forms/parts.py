"""The second step of a sum that is cut into parts: each program adds the parts of some results.

A tile of parts is one load, and its rows are added as a tree when all parts are in: what a program does one
after another is short, and always the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...graph.ir import Node
from ...planning.splits import Split
from ..text.writer import Writer
from .tile import rounded


def parts_told(split: Split, sums: int) -> str:
    """The bytes of the parts of so many sums, side by side as they are cut, in words."""
    return f"at most {2 * 4 * split.most * sums:,} bytes a launch"


def emit_add_parts(w: Writer, written: Sequence[tuple[Node, str, str]]) -> None:
    """written: of each result its node, its name, and the name of how many elements it has."""
    c = w.uses
    lanes = f"tl.arange(0, {c.BESIDE})[None, :]"
    w.line(f"at = tl.program_id(0) * {c.BESIDE} + {lanes}", "[1, BESIDE]")
    sums = ["sums", *(f"sums{place}" for place in range(2, len(written) + 1))]
    for name in sums:
        w.line(f"{name} = tl.zeros([{c.TOGETHER}, {c.BESIDE}], tl.float32)")
    w.line("first = 0")
    with w.block("while first < splits:"):
        w.line(f"split = first + tl.arange(0, {c.TOGETHER})[:, None]", "[TOGETHER, 1]")
        for name, (_, role, size) in zip(sums, written, strict=True):
            part = f"{role}_parts_ptr + split * {c[size]} + at"
            w.line(f"{name} += tl.load({part}, mask=(split < splits) & (at < {c[size]}), other=0.0)")
        w.line(f"first += {c.TOGETHER}")
    for name, (node, role, size) in zip(sums, written, strict=True):
        w.line(f"{role} = tl.sum({name}, axis=0)[None, :]", "[1, BESIDE]")
        w.line(f"tl.store({role}_ptr + at, {rounded(role, node)}, mask=at < {c[size]})")
