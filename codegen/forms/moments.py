"""What a kernel of sums over pixels carries along: sums, or means and squared distances from them.

Each carries a tile [BLOCK_R, BLOCK_C] through a part of the pixels, so that a thread adds up values of its
own. Then the rows become one, which is stored as the part's; the finishing kernel does the same with parts.

No variance is made of a sum of squares, which cancels where a mean is large beside the deviation: a value
moves the mean of those before it, and adds to the squares around it (Welford 1962); rows and parts are merged
by the formula of Chan, Golub and LeVeque (1979).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ...graph.ir import Node
from ...graph.ops import Reduce, Variance
from ..text.writer import Writer

COLUMNS = "[1, BLOCK_C]"


@dataclass
class Total:
    """The sum of one value, or its mean. place: "" for the first of a kernel, then "2" and so on."""

    node: Node
    place: str

    counted = False
    """Whether it needs to know how many values a row and a part have."""

    @property
    def source(self) -> str:
        return self.node.inputs[0]

    @property
    def parts(self) -> list[str]:
        """Names of what the first kernel stores of a part."""
        return [f"partial{self.place}"]

    @property
    def made(self) -> list[Node]:
        return [self.node]

    def begin(self, w: Writer, shape: str) -> None:
        w.line(f"sums{self.place} = tl.zeros({shape}, tl.float32)")

    def add(self, w: Writer, value: str, ok: str, note: str) -> None:
        """One tile. ok: the mask of values that may be anything where they do not exist."""
        w.line(f"sums{self.place} += {f'tl.where({ok}, {value}, 0.0)' if ok else value}", note)

    def merge(self, w: Writer, loads: list[str], note: str) -> None:
        """One tile of parts."""
        w.line(f"sums{self.place} += {loads[0]}", note)

    def fold(self, w: Writer) -> list[str]:
        """The rows as one: its value for each of `parts`."""
        return [f"tl.sum(sums{self.place}, axis=0)[None, :]"]

    def results(self, folded: list[str], count: str) -> list[tuple[Node, str]]:
        mean = isinstance(self.node.op, Reduce) and self.node.op.mean
        return [(self.node, f"{folded[0]} / {count}" if mean else folded[0])]


@dataclass
class Moments:
    """The variance of one value, and its mean where that is asked for too."""

    variance: Node
    place: str
    means: list[Node] = field(default_factory=list)

    counted = True

    @property
    def source(self) -> str:
        return self.variance.inputs[0]

    @property
    def parts(self) -> list[str]:
        return [f"averages{self.place}", f"squares{self.place}"]

    @property
    def made(self) -> list[Node]:
        return [*self.means, self.variance]

    def begin(self, w: Writer, shape: str) -> None:
        for name in (f"average{self.place}", f"squares{self.place}"):
            w.line(f"{name} = tl.zeros({shape}, tl.float32)")

    def add(self, w: Writer, value: str, ok: str, note: str) -> None:
        average, squares = f"average{self.place}", f"squares{self.place}"
        apart = f"{value} - {average}"
        w.line(f"apart = {f'tl.where({ok}, {apart}, 0.0)' if ok else apart}", note)
        w.line(f"{average} += apart * share")
        # In this order: the first square may be beyond all numbers, and counts 0 times.
        w.line(f"{squares} += apart * (apart * (1.0 - share))")

    def merge(self, w: Writer, loads: list[str], note: str) -> None:
        average, squares = f"average{self.place}", f"squares{self.place}"
        w.line(f"apart = {loads[0]}", note)
        w.line(f"apart -= {average}")
        w.line(f"{average} += apart * share")
        w.line(f"{squares} += {loads[1]}")
        w.line(f"{squares} += apart * (apart * (seen * share))")

    def fold(self, w: Writer) -> list[str]:
        average, squares = f"average{self.place}", f"squares{self.place}"
        merged = f"{w.uses.merge_moments}(seen, {average}, {squares})"
        w.line(f"{average}, {squares} = {merged}", COLUMNS)
        return [average, squares]

    def results(self, folded: list[str], count: str) -> list[tuple[Node, str]]:
        return [*((node, folded[0]) for node in self.means), (self.variance, f"{folded[1]} / {count}")]


Carried = Total | Moments


def carried(sums: list[Node]) -> list[Carried]:
    """What a kernel carries for these: the mean of what has a variance there comes with it."""
    found: list[Carried] = []
    moments: dict[str, Moments] = {}

    def place() -> str:
        return str(len(found) + 1) if found else ""

    for node in (n for n in sums if isinstance(n.op, Variance)):
        moments[node.inputs[0]] = Moments(node, place())
        found.append(moments[node.inputs[0]])
    for node in (n for n in sums if isinstance(n.op, Reduce)):
        if node.op.mean and node.inputs[0] in moments:  # type: ignore[attr-defined]
            moments[node.inputs[0]].means.append(node)
        else:
            found.append(Total(node, place()))
    return found
