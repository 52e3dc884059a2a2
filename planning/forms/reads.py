"""What reading and writing elements costs beside memory: the lines that pass through the first-level caches.

A thread computes eight neighbouring elements, a warp 256. Where what they read lies side by side, one
instruction fetches 16 bytes a thread; where it does not, each of the eight takes an instruction of its own,
and each instruction looks at every line that any thread of the warp asks for.
"""

from __future__ import annotations

from math import gcd

from ...graph.ir import Node
from ..cost import CostModel
from ..geometry import broadcast_kind
from ..product_time import LAUNCH_SECONDS
from ..regions import Region
from .members import read

LINE = 128
"""Bytes of a line of the first-level cache, which looks at one a cycle. NVIDIA's profiler counts so; taken to
hold for others."""

WIDE = 16
"""Bytes of the widest load of a thread."""

SHOWS = 0.1
"""How much shows of the shorter of two things that a card does at once. A guess."""

THREAD, WARP = 8, 256
"""Elements of a thread and of a warp."""


def seconds(region: Region, lines: float, model: CostModel) -> float:
    """What a pointwise kernel takes each of whose elements costs so many lines."""
    moving = model.moving(region.cost(model.batch).bytes)
    looking = model.issuing(LINE * lines * region.nodes[-1].type.elements(model.batch))
    return LAUNCH_SECONDS + max(moving, looking) + SHOWS * min(moving, looking)


def lines(run: int, spread: int, itemsize: int) -> float:
    """Lines that an element costs. run: how many that a thread reads lie side by side, and begin where so
    many do; spread: different elements among those of a warp."""
    wide = max(1, min(gcd(run, THREAD), WIDE // itemsize))
    return THREAD // wide * max(1.0, min(spread, WARP) * itemsize / LINE) / WARP


def loaded(region: Region) -> list[Node]:
    """The operands whose elements are read: of what a value is spread like, only the shape counts."""
    names = {name for node in region.nodes for name in read(node)}
    return [node for node in region.inputs if node.name in names]


def one_by_one(region: Region) -> float:
    """Lines that an element of a pointwise region costs where neighbouring threads compute neighbouring
    elements, and each finds what it reads by its own number."""
    result = region.nodes[-1].type
    whole = gcd(result.elements(), THREAD)  # where an image ends, a load may have to end too
    found = sum(lines(whole, WARP, node.type.torch_dtype.itemsize) for node in region.outputs)
    for node in loaded(region):
        size = node.type.torch_dtype.itemsize
        match broadcast_kind(node.type.shape, result.shape):
            case "full":
                found += lines(whole, WARP, size)
            case "scalar":
                pass
            case "pixel":
                found += lines(1, max(1, WARP // result.channels), size)
            case "channel" | "image":
                found += lines(1, result.channels, size)
            case _:
                found += lines(1, WARP, size)
    return found
