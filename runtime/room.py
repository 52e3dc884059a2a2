"""Room for what kernels write: the arena of a memory plan, and what leaves it, as tensors for one call."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch

from ..graph.errors import ShapeError
from ..graph.ir import Graph
from ..planning.limits import batch_refusal
from ..planning.memory import Home, Memory
from ..planning.regions import Region
from .instructions import Instruction

ALIGNMENT = 16
"""Bytes of the widest loads: a kernel is compiled for pointers to multiples of it, and anew for others."""


def aligned(value: torch.Tensor) -> torch.Tensor:
    """The tensor as kernels read it, row-major and at a multiple of 16 bytes: itself where it is so."""
    value = value.contiguous()
    return value if value.data_ptr() % ALIGNMENT == 0 else value.clone()


class Cut(NamedTuple):
    """A value's part of a run of memory, counted in elements of its dtype."""

    dtype: torch.dtype
    size: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int


def room(
    graph: Graph, memory: Memory, regions: Sequence[Region], device: torch.device
) -> Instruction | None:
    """The instruction that takes memory for all that the regions' kernels write, and cuts it into values.

    It reads one value that has the batch, and writes every output of the regions: those in the arena as parts
    of one run of memory, which lives as long as one of them does, the others in memory of their own. Every
    call takes memory anew, from what the current stream has: calls on several streams share none. None where
    nothing is written. The instruction raises ShapeError for a batch that the kernels cannot count.
    """
    writes = [n.name for region in regions if not region.is_view for n in region.outputs]
    if not writes:
        return None
    given = (name for name, place in memory.places.items() if place.home is Home.GIVEN)
    batched = next((name for name in given if graph[name].type.batched), None)

    @lru_cache(maxsize=8)
    def cuts(batch: int) -> tuple[list[int], list[tuple[int, Cut]]]:
        if reason := batch_refusal(regions, batch):
            raise ShapeError(reason)
        return _cuts(graph, memory, writes, batch)

    def take(*one: torch.Tensor) -> Any:
        sizes, parts = cuts(one[0].shape[0] if one else 1)
        runs = [torch.empty(size, dtype=torch.uint8, device=device).untyped_storage() for size in sizes]
        found = [_cut(runs[run], part, device) for run, part in parts]
        return found[0] if len(found) == 1 else found

    return Instruction(take, () if batched is None else (batched,), tuple(writes))


def _cut(run: torch.UntypedStorage, part: Cut, device: torch.device) -> torch.Tensor:
    """A tensor of its own over a part of the run: no view, which nobody could write to after autograd."""
    tensor = torch.empty(0, dtype=part.dtype, device=device)
    return tensor.set_(run, part.offset, part.size, part.strides)


def _cuts(
    graph: Graph, memory: Memory, writes: Sequence[str], batch: int
) -> tuple[list[int], list[tuple[int, Cut]]]:
    """The sizes of the runs in bytes, the arena first; of each value its run and its part of it."""
    layout = memory.layout(batch)
    sizes = [layout.nbytes]
    own: dict[str, int] = {}
    parts = []
    for name in writes:
        kind, place = graph[name].type, memory.places[name]
        width = kind.torch_dtype.itemsize
        if place.home is Home.ARENA:
            run, start = 0, layout.offsets[place.buffer] // width
        else:
            run, start = own.setdefault(place.buffer, len(own) + 1), 0
            sizes += [0] * (run + 1 - len(sizes))
            rows = kind if not place.pitch else kind.with_shape((*kind.shape[:-1], place.pitch))
            sizes[run] = max(sizes[run], rows.nbytes(batch))
        size = kind.size(batch)
        strides = _strides(size, place.pitch)
        parts.append((run, Cut(kind.torch_dtype, size, strides, start + place.start)))
    return sizes, parts


def _strides(size: Sequence[int], pitch: int) -> tuple[int, ...]:
    """Row-major strides, of rows of `pitch` elements where that is not 0."""
    strides = [1]
    for axis in range(len(size) - 1, 0, -1):
        strides.append(strides[-1] * (pitch if pitch and axis == len(size) - 1 else size[axis]))
    return tuple(reversed(strides[: len(size)]))
