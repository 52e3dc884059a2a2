"""How the rows of a tile lie on feature maps, and where the elements they multiply come from.

Every contraction gathers: along an axis, row position i and tap t read position
`i * stride + shift + t * step` of the source map. The three products of a convolution differ only in these
numbers:

                    rows    source    stride    step        shift
    forward         P       H         stride    dilation    -padding
    data gradient   H       P         1         -dilation   padding        (stride 1)
    ... by phase    H / st  P         1         -dilation   (phase + padding - first tap) / stride
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..graph.types import BATCH, Dim
from ..graph.windows import Pair


@dataclass(frozen=True)
class Axis:
    """One spatial axis of a gather. rows: row positions; source: positions of the map that is read; taps: of
    the kernel. A row and a tap meet at source position row * stride + shift + tap * step.
    """

    rows: int
    source: int
    taps: int
    stride: int = 1
    step: int = 1
    shift: int = 0

    @property
    def reaches_below(self) -> bool:
        """Whether some tap of some row lies before the map."""
        return self.shift + min(0, (self.taps - 1) * self.step) < 0

    @property
    def reaches_above(self) -> bool:
        """Whether some tap of some row lies behind the map."""
        return (self.rows - 1) * self.stride + self.shift + max(0, (self.taps - 1) * self.step) >= self.source

    @property
    def is_identity(self) -> bool:
        return self.taps == 1 and self.rows == self.source and self.stride == 1 and self.shift == 0


def forward_axes(op: Any, source: Pair, kernel: Pair, rows: Pair) -> tuple[Axis, Axis]:
    """Axes of a convolution's forward product: rows are output pixels, the source is x."""
    first, second = (
        Axis(rows[i], source[i], kernel[i], op.strides[i], op.dilation[i], -op.padding[i][0])
        for i in range(2)
    )
    return first, second


def transposed_axes(op: Any, source: Pair, kernel: Pair, rows: Pair) -> tuple[Axis, Axis]:
    """Axes of a stride-1 convolution's data gradient: rows are input pixels, the source is dy."""
    first, second = (
        Axis(rows[i], source[i], kernel[i], 1, -op.dilation[i], op.padding[i][0]) for i in range(2)
    )
    return first, second


@dataclass(frozen=True)
class PhasedAxis(Axis):
    """An axis of a strided convolution's data gradient, all phases together.

    Rows of phase a are the positions h = i * stride + a. Since h + padding - r * dilation must be divisible
    by the stride, they meet the taps r = first, first + stride, ... and no others; `inverse` is that of the
    dilation modulo the stride, so that first = (a + padding) * inverse % stride. Axis.stride is 1: the next
    h of a phase reads the next source position.
    """

    phases: int = 1
    padding: int = 0
    inverse: int = 1
    kernel: int = 1
    size: int = 1

    def first(self, phase: int) -> int:
        return (phase + self.padding) * self.inverse % self.phases

    def taps_of(self, phase: int) -> int:
        return max(0, ceil_div(self.kernel - self.first(phase), self.phases))

    def origin(self, h: int, phase: int) -> int:
        """Source position under the phase's first tap."""
        return (h + self.padding + self.first(phase) * self.step) // self.phases

    @property
    def reaches_below(self) -> bool:
        return any(
            self.origin(a, a) + (self.taps_of(a) - 1) * self.step < 0
            for a in range(self.phases)
            if self.taps_of(a)
        )

    @property
    def reaches_above(self) -> bool:
        last = [a + (self.rows - 1) * self.phases for a in range(self.phases)]
        return any(self.origin(last[a], a) >= self.source for a in range(self.phases) if self.taps_of(a))

    @property
    def is_identity(self) -> bool:
        return False


def phased_axes(op: Any, source: Pair, kernel: Pair, rows: Pair) -> tuple[PhasedAxis, PhasedAxis]:
    """Axes of a strided convolution's data gradient; stride and dilation must have no common factor."""

    def one(i: int) -> PhasedAxis:
        stride, dilation = op.strides[i], op.dilation[i]
        return PhasedAxis(
            ceil_div(rows[i], stride), source[i], ceil_div(kernel[i], stride), 1, -dilation, 0,
            stride, op.padding[i][0], pow(dilation, -1, stride) if stride > 1 else 1, kernel[i], rows[i],
        )  # fmt: skip

    return one(0), one(1)


def power_of_two(n: int) -> int:
    """The smallest power of two that is at least n."""
    return 1 << max(0, n - 1).bit_length()


def ceil_div(n: int, d: int) -> int:
    return -(-n // d)


def broadcast_kind(operand: tuple[Dim, ...], result: tuple[Dim, ...]) -> str | None:
    """How an operand lies against a result (N, ..., C): "full", "channel", "image" (N,1,1,C), "pixel"
    (N,H,W,1), "scalar", "repeated" (1,H,W,C), its last axes those of the result and all before them 1; None
    where it broadcasts in a way no kernel handles.
    """
    padded = (1,) * (len(result) - len(operand)) + tuple(operand)
    if padded == tuple(result):
        return "full"
    if all(d == 1 for d in padded):
        return "scalar"
    if all(d == 1 for d in padded[:-1]) and padded[-1] == result[-1]:
        return "channel"
    if padded[0] == BATCH and all(d == 1 for d in padded[1:-1]) and padded[-1] == result[-1]:
        return "image"
    if padded[:-1] == tuple(result[:-1]) and padded[-1] == 1:
        return "pixel"
    first = next((i for i, d in enumerate(padded) if d != 1), 0)
    if padded[first:] == tuple(result[first:]):
        return "repeated"
    return None
