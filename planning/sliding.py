"""How a window slides along one axis of a map, for kernels that keep in registers what neighbours share.

A convolution relates output o, source u and tap k by `u = o * stride - padding + k * dilation`, its
transpose, the data gradient, by `o = u * stride - padding + k * dilation`. Along an axis both fall into
classes, within each of which they are undilated. With g the common factor of stride and dilation and
e = stride / g,

    convolution    o = c + i * (dilation / g)      u = (i * e + k) units of the dilation further on
    transpose      u = a + i * (dilation / g)      o = (i * e + k) units of the dilation further on

where c < dilation / g and a are the class's own. A *step* is one i. Over steps in order, a convolution reads
up to e new sources and finishes one output, the transpose reads one source and finishes e outputs, and what
is begun and not finished is carried on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import gcd

from .geometry import ceil_div


@dataclass(frozen=True)
class Slide:
    """One axis. outputs, source: positions of the two maps; taps: of the kernel; transposed: a data gradient.

    Positions of a class c: of its step i, `first_source(c, i)` and `first_output(c, i)` begin what the step
    reads and makes; the others follow `source_spacing` and `output_spacing` further on.
    """

    outputs: int
    source: int
    taps: int
    stride: int
    dilation: int
    padding: int
    transposed: bool = False

    @property
    def common(self) -> int:
        """g: in the transpose, outputs that leave a rest on division by it meet no tap."""
        return gcd(self.stride, self.dilation)

    @property
    def unit(self) -> int:
        """The stride within a class, e."""
        return self.stride // self.common

    @property
    def sparse(self) -> int:
        """From one position of a class to the next, on the side that the stride divides."""
        return self.dilation // self.common

    @property
    def inverse(self) -> int:
        """Of the unit, modulo what classes are counted by."""
        return pow(self.unit, -1, self.sparse) if self.sparse > 1 else 0

    @property
    def classes(self) -> int:
        """Some may have no output where the map is small, and are left out."""
        return min(self.outputs, self.dilation if self.transposed else self.sparse)

    @property
    def source_spacing(self) -> int:
        return self.sparse if self.transposed else self.dilation

    @property
    def output_spacing(self) -> int:
        return self.dilation if self.transposed else self.sparse

    @property
    def depth(self) -> int:
        """Steps that a source or an output takes part in."""
        return ceil_div(self.taps, self.unit)

    @property
    def fresh(self) -> int:
        """Sources that a step reads anew."""
        return 1 if self.transposed else min(self.unit, self.taps)

    @property
    def finished(self) -> int:
        """Outputs that a step finishes."""
        return self.unit if self.transposed else 1

    @property
    def carried(self) -> int:
        """Outputs that are begun and not finished between two steps."""
        return max(0, self.taps - self.unit) if self.transposed else self.depth - 1

    def span(self, steps: int) -> int:
        """Sources that so many steps read, all that they need counted."""
        return steps + self.depth - 1 if self.transposed else (steps - 1) * self.unit + self.taps

    # -- classes ---------------------------------------------------------------------------------------------
    @property
    def lift(self) -> int:
        """Steps that are added so that no division meets a negative number."""
        return ceil_div(self.sparse * self.stride, self.dilation * self.unit)

    def _transposed_start(self, c: int) -> tuple[int, int, int]:
        """Of class c: its a, its first step, and how far its outputs are from that in units."""
        rest = (c + self.padding) % self.dilation
        a = rest // self.common * self.inverse % self.sparse
        raised = (c + self.padding - a * self.stride + self.lift * self.unit * self.dilation) // self.dilation
        return a, raised // self.unit - self.lift, raised - self.lift * self.unit

    def first_output(self, c: int, step: int) -> int:
        if not self.transposed:
            return c + step * self.sparse
        _, begin, shift = self._transposed_start(c)
        return c + self.dilation * ((begin + step) * self.unit - shift)

    def first_source(self, c: int, step: int) -> int:
        """Under tap 0 of the step's first output; of the transpose, the one that the step reads."""
        if not self.transposed:
            return self.first_output(c, step) * self.stride - self.padding
        a, begin, _ = self._transposed_start(c)
        return a + (begin + step) * self.sparse

    @cached_property
    def steps(self) -> int:
        """Steps of the longest class."""
        if not self.transposed:
            return ceil_div(self.outputs, self.sparse)
        longest = 1
        for c in range(self.classes):
            _, begin, shift = self._transposed_start(c)
            last = (shift + ceil_div(self.outputs - c, self.dilation) - 1) // self.unit
            longest = max(longest, last - begin + 1)
        return longest

    # -- borders ---------------------------------------------------------------------------------------------
    def sources(self, first: int, last: int, count: int) -> tuple[int, int]:
        """Least and largest source position of steps first to last, each of which begins a run of `count`."""
        span = (count - 1) * self.source_spacing
        return self._least(self.first_source, first), self._most(self.first_source, last) + span

    def made(self, first: int, last: int, count: int) -> tuple[int, int]:
        """The same for outputs."""
        span = (count - 1) * self.output_spacing
        return self._least(self.first_output, first), self._most(self.first_output, last) + span

    def _least(self, at: Callable[[int, int], int], step: int) -> int:
        return min(at(c, step) for c in range(self.classes))

    def _most(self, at: Callable[[int, int], int], step: int) -> int:
        return max(at(c, step) for c in range(self.classes))
