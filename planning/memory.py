"""Where each value lies: which share memory, when their memory is needed, and at which offsets of one arena.

First the values are gathered into *buffers*, runs of memory that hold one value or several: a view lies where
its operand lies, a result may take the place of an operand that dies with it, and the parts of a
concatenation lie in their slices of the whole. This is the same for every batch. Then, for the batch at hand,
the buffers are laid into one arena, where a later buffer takes the place of one that is no longer needed.

What the caller gives, what follows from the weights, what is handed out and what is kept for the backward
pass lie in memory of their own, which nothing here is laid over.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from itertools import accumulate

from ..graph.ir import Graph, Node
from ..graph.op import Kind
from ..graph.ops import BroadcastTo, Slice
from .forms import stored_row_by_row
from .products import POOLS, UNPOOLS
from .regions import Region

ALIGNMENT = 256
"""Bytes that every buffer begins at a multiple of: the widest that a GPU's copies and PyTorch ask for."""


class Home(Enum):
    """Whose memory a buffer is."""

    GIVEN = "given"  # by the caller, or kept from the forward pass
    KNOWN = "known"  # weights, and what follows from them
    OWN = "own"  # handed out, or kept for the backward pass
    ARENA = "arena"


@dataclass(frozen=True)
class Place:
    """Where a value lies. buffer: the name of the value that the buffer is called after.

    how: "" for a buffer of its own, else "view of %x", "in place of %x" or "slice of %x".
    start, pitch: of a slice: elements before it in each row, and elements of a whole row; 0 elsewhere.
    """

    home: Home
    buffer: str
    how: str = ""
    start: int = 0
    pitch: int = 0

    def __str__(self) -> str:
        cut = f" [{self.start}:] of rows of {self.pitch}" if self.pitch else ""
        return f"{self.how}{cut}" or self.home.value


@dataclass
class Buffer:
    """A run of memory. first, last: the steps between which it is needed, both included.

    fixed, an_image: bytes that do not and that do grow with the batch: the most that any of its values asks.
    """

    name: str
    first: int
    last: int
    sizes: set[tuple[int, int]] = field(default_factory=set)

    def nbytes(self, batch: int) -> int:
        """Bytes for a batch, rounded up to whole alignments."""
        wanted = max((fixed + image * batch for fixed, image in self.sizes), default=0)
        return -(-wanted // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True)
class Layout:
    """The arena for one batch. offsets: buffer -> byte. nbytes: of the arena. live: the bytes needed at each
    step, of which the largest is the least that any layout could take. separate: what all buffers would
    take side by side."""

    batch: int
    offsets: Mapping[str, int]
    nbytes: int
    live: tuple[int, ...]
    separate: int

    @property
    def least(self) -> int:
        return max(self.live, default=0)


class Memory:
    """The places of all values of a list of steps, and the arena's buffers."""

    def __init__(self, places: dict[str, Place], buffers: list[Buffer], steps: int) -> None:
        self.places = places
        self.buffers = buffers
        self.steps = steps
        self.layout = lru_cache(maxsize=8)(self._layout)

    def _layout(self, batch: int) -> Layout:
        """Offsets in the order of the steps: each buffer where it fits best among what is free by then."""
        free = _Free()
        ends: list[list[Buffer]] = [[] for _ in range(self.steps + 1)]
        begins: list[list[Buffer]] = [[] for _ in range(self.steps)]
        for buffer in self.buffers:
            begins[buffer.first].append(buffer)
            ends[buffer.last + 1].append(buffer)
        offsets: dict[str, int] = {}
        separate = 0
        for step in range(self.steps):
            for buffer in ends[step]:
                free.give(offsets[buffer.name], buffer.nbytes(batch))
            for buffer in sorted(begins[step], key=lambda b: -b.nbytes(batch)):
                size = buffer.nbytes(batch)
                offsets[buffer.name] = free.take(size)
                separate += size
        return Layout(batch, offsets, free.end, self.live(batch), separate)

    def live(self, batch: int) -> tuple[int, ...]:
        """The bytes needed at each step."""
        more = [0] * (self.steps + 1)
        for buffer in self.buffers:
            size = buffer.nbytes(batch)
            more[buffer.first] += size
            more[buffer.last + 1] -= size
        return tuple(accumulate(more))[:-1]

    def held(self, step: int, batch: int) -> list[tuple[str, int]]:
        """The buffers that are needed at a step, the largest first, with their bytes."""
        here = [(b.name, b.nbytes(batch)) for b in self.buffers if b.first <= step <= b.last]
        return sorted(here, key=lambda pair: -pair[1])

    def summary(self, batch: int) -> str:
        """What the arena takes, what reuse saved, and what holds its peak, in a sentence or two."""
        layout = self.layout(batch)
        if not self.buffers:
            return "no memory between the steps"
        peak = layout.live.index(layout.least)
        holders = ", ".join(f"%{name} {readable(size)}" for name, size in self.held(peak, batch)[:3])
        ways = [place.how.split(" of ")[0] for place in self.places.values() if place.how]
        words = {"view": "seen as views", "in place": "in the place of operands", "slice": "in slices"}
        counts = ", ".join(f"{ways.count(way)} {text}" for way, text in words.items() if way in ways)
        return (
            f"arena of {readable(layout.nbytes)} at batch {batch}, {readable(layout.separate)} without reuse "
            f"(at step {peak + 1} {readable(layout.least)} are needed: {holders})"
            + (f"; {counts}" if counts else "")
        )


def readable(nbytes: int) -> str:
    """12 B, 3.4 kB, 56.7 MB: in powers of a thousand."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if nbytes >= size:
            return f"{nbytes / size:.1f} {unit}"
    return f"{nbytes} B"


class _Free:
    """The free gaps of an arena that grows at its end."""

    def __init__(self) -> None:
        self.end = 0
        self.gaps: list[tuple[int, int]] = []
        """(offset, size), by offset; no two touch."""

    def take(self, size: int) -> int:
        """The offset of the smallest gap that is large enough, or of the arena's end."""
        best = min((gap for gap in self.gaps if gap[1] >= size), key=lambda gap: gap[1], default=None)
        if best is None:
            start = self.end
            if self.gaps and sum(self.gaps[-1]) == self.end:  # the gap at the end grows
                start = self.gaps.pop()[0]
            self.end = start + size
            return start
        self.gaps.remove(best)
        if best[1] > size:
            insort(self.gaps, (best[0] + size, best[1] - size))
        return best[0]

    def give(self, offset: int, size: int) -> None:
        if not size:
            return
        insort(self.gaps, (offset, size))
        at = self.gaps.index((offset, size))
        for left in (at, at - 1):
            if 0 <= left < len(self.gaps) - 1:
                (first, length), (second, more) = self.gaps[left], self.gaps[left + 1]
                if first + length == second:
                    self.gaps[left : left + 2] = [(first, length + more)]


class _Planner:
    """Gathers values into buffers. given, known, kept: values by name; see `Home`. apart: whether each value
    that is no view has a buffer of its own, the kept ones to the end."""

    def __init__(
        self,
        graph: Graph,
        regions: Sequence[Region],
        given: set[str],
        known: set[str],
        kept: set[str],
        apart: bool = False,
    ) -> None:
        self.graph, self.regions = graph, regions
        self.parent: dict[str, str] = {}
        self.how: dict[str, tuple[str, int, int]] = {}
        self.home: dict[str, Home] = {}
        self.first: dict[str, int] = {}
        self.last: dict[str, int] = {}
        self.kept, self.apart = kept, apart
        for name in given:
            self._add(name, Home.GIVEN, -1)
        for name in known:
            self._add(name, Home.KNOWN, -1)

    def _add(self, name: str, home: Home, step: int) -> None:
        self.parent[name] = name
        self.home[name] = home
        self.first[name] = self.last[name] = step

    def root(self, name: str) -> str:
        while (above := self.parent[name]) != name:
            self.parent[name] = name = self.parent[above]
        return name

    def _join(self, name: str, into: str, how: str, start: int = 0, pitch: int = 0) -> None:
        """Let a value, with its whole buffer, lie in the buffer of another."""
        a, b = self.root(name), self.root(into)
        self.how[name] = (f"{how} of %{into}", start, pitch)
        if a == b:
            return
        self.parent[a] = b
        self.first[b] = min(self.first[a], self.first[b])
        self.last[b] = max(self.last[a], self.last[b])
        if self.home[a] is Home.OWN and self.home[b] is Home.ARENA:
            self.home[b] = Home.OWN

    def run(self) -> Memory:
        for step, region in enumerate(self.regions):
            for node in region.outputs:
                own = node.name in self.kept and not self.apart
                self._add(node.name, Home.OWN if own else Home.ARENA, step)
            if region.is_view:
                self._join(region.outputs[0].name, region.anchor.inputs[0], "view")
        for step, region in enumerate(self.regions):
            for node in region.inputs:
                root = self.root(node.name)
                self.last[root] = max(self.last[root], step)
        if self.apart:
            made = self.kept & self.parent.keys()
            self.last.update({self.root(name): len(self.regions) - 1 for name in made})
            return self._finish()
        for region in reversed(self.regions):  # a part may be a concatenation itself
            self._slices(region)
        for step, region in enumerate(self.regions):
            self._in_place(step, region)
        return self._finish()

    def _slices(self, region: Region) -> None:
        """The operands of a concatenation whose producers write them where they belong, and a slice that
        its readers find in the whole."""
        if not region.joined:
            return
        if isinstance(region.anchor.op, Slice):
            part, (whole_name,) = region.anchor, region.anchor.inputs
            pitch = self.graph[whole_name].type.channels
            self._join(part.name, whole_name, "slice", region.anchor.op.starts[-1], pitch)
        else:
            whole = region.anchor
            _, start, pitch = self.how.get(whole.name, ("", 0, 0))
            for operand in whole.inputs:
                self._join(operand, whole.name, "slice", start, pitch or whole.type.channels)
                start += self.graph[operand].type.channels

    def _in_place(self, step: int, region: Region) -> None:
        """Give a result the place of an operand that nobody needs afterwards."""
        if not region.launches:
            return
        for node in region.outputs:
            able = _overwritable(region, node)
            free = (n.name for n in able if self._dies(n.name, step) and self._alone(n.name, region))
            place = next(free, None)
            if place is not None and node.name not in self.how:
                self._join(node.name, place, "in place")
                root = self.root(place)  # which no second result of this step may take
                self.last[root] = max(self.last[root], min(step + 1, len(self.regions) - 1))

    def _alone(self, name: str, region: Region) -> bool:
        """Whether a region reads a buffer through this value only, and not through a view of it as well."""
        root = self.root(name)
        return all(self.root(other.name) != root for other in region.inputs if other.name != name)

    def _dies(self, name: str, step: int) -> bool:
        """Whether a value is a buffer's only one, or a view of it, and needed last at this step."""
        root = self.root(name)
        whole = not self.how.get(name, ("", 0, 0))[2]
        return whole and self.last[root] == step and self.home[root] is Home.ARENA

    def _finish(self) -> Memory:
        places = {}
        buffers: dict[str, Buffer] = {}
        for name in self.parent:
            root = self.root(name)
            how, start, pitch = self.how.get(name, ("", 0, 0))
            places[name] = Place(self.home[root], root, how, start, pitch)
            if self.home[root] is Home.ARENA:
                buffer = buffers.setdefault(root, Buffer(root, self.first[root], self.last[root]))
                one, two = (self.graph[name].type.nbytes(n) for n in (1, 2))
                buffer.sizes.add((2 * one - two, two - one))
        return Memory(places, list(buffers.values()), len(self.regions))


def _overwritable(region: Region, node: Node) -> list[Node]:
    """The operands whose memory the kernel may write this output over.

    An operand that is read where the output is written, element by element, by the very program that writes
    it, and before it does: not one that the anchor walks, nor one that a later member reads, nor, where the
    output comes from a window, one that is read at each place of the window.
    """
    if not stored_row_by_row(region):
        return []
    walked = {region.anchor.name, *(member.name for member in region.prologue)}
    if region.anchor.op.kind is Kind.POINTWISE:
        walked = set()
    at = {member.name: place for place, member in enumerate(region.nodes)}
    riding = (n.name for n in region.nodes if isinstance(n.op, POOLS + UNPOOLS) and n is not region.anchor)
    window = min((at[name] for name in riding), default=len(at))
    if at[node.name] >= window:
        walked.update(name for name, place in at.items() if place < window)
    found = []
    for operand in region.inputs:
        reads = [member.name for member in region.nodes if operand.name in _loaded(member)]
        same = operand.type.shape == node.type.shape and operand.type.nbytes() == node.type.nbytes()
        if same and reads and walked.isdisjoint(reads) and at[reads[0]] <= at[node.name]:
            found.append(operand)
    return found


def _loaded(node: Node) -> tuple[str, ...]:
    """The operands whose numbers count: of what a value is spread like, only the shape does."""
    return node.inputs[:1] if isinstance(node.op, BroadcastTo) else node.inputs


def plan_memory(
    graph: Graph,
    regions: Sequence[Region],
    given: Iterable[str],
    known: Iterable[str],
    kept: Iterable[str],
    apart: bool = False,
) -> Memory:
    """Places for all that the regions, run in this order, read and write.

    given: values that the caller brings; known: weights and what follows from them; kept: values that are
    handed out or saved, which get memory of their own. apart: as if each value took memory of its own, which
    is what PyTorch's operators do; then that of the kept ones is counted too.
    """
    return _Planner(graph, regions, set(given), set(known), set(kept), apart).run()
