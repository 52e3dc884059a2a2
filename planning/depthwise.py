"""Convolutions whose groups have few channels, as sums over taps in registers, without a product of matrices.

A thread keeps the kernel of its channels in registers and goes down a strip of a few columns, row by row:
what it reads once serves all outputs around it. Which of a map's axes it goes along, what it keeps and how
many instructions that takes is counted here, for the forms to choose by and the emitter to write.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..graph.ops import Conv2DDataGrad, Conv2DWeightGrad
from .geometry import ceil_div
from .regions import Region
from .schedules import Schedule
from .sliding import Slide
from .splits import Split

WIDE = 16
"""Bytes of the widest access of a thread."""


@dataclass(frozen=True)
class Sliding:
    """A convolution or one of its gradients as a walk along one axis of the map, in strips of the other.

    down, across: those axes; swapped: whether the walk is along the width. lanes: channels of the result (of
    dy in a weight gradient), `group` neighbours of which read the same `summed` channels of the source.
    """

    down: Slide
    across: Slide
    swapped: bool
    lanes: int
    group: int
    summed: int
    itemsize: int

    @property
    def taps(self) -> int:
        return self.down.taps * self.across.taps

    @property
    def wide(self) -> bool:
        """Whether neighbouring lanes read neighbouring channels."""
        return self.group == self.summed == 1

    def strips(self, schedule: Schedule) -> int:
        """Strips that an image is cut into."""
        return self.across.classes * ceil_div(self.across.steps, self.strip_steps(schedule))

    def strip_steps(self, schedule: Schedule) -> int:
        return schedule.strip // self.across.finished

    def span(self, schedule: Schedule) -> int:
        """Columns of the source that a strip reads."""
        return self.across.span(self.strip_steps(schedule))

    def walks(self, schedule: Schedule) -> int:
        """Parts that the way down is cut into."""
        return self.down.classes * ceil_div(self.down.steps, schedule.walk)

    def before(self, schedule: Schedule) -> int:
        """Steps of a program that only begin outputs, before those in which it finishes some.

        A program that goes all the way leaves out those that read nothing but the border.
        """
        steps, down = self.down.depth - 1, self.down
        if schedule.walk < down.steps:
            return steps
        lead = 0 if down.transposed else (down.taps - 1) * down.dilation
        while steps and all(down.first_source(c, -steps) + lead < 0 for c in range(down.classes)):
            steps -= 1
        return steps

    def iterations(self, schedule: Schedule) -> int:
        """Steps of a program."""
        return schedule.walk + self.before(schedule)


def sliding(region: Region) -> Sliding:
    """The walk of a region whose anchor is a convolution over images, or a gradient of one."""
    anchor, graph = region.anchor, region.graph
    op: Any = anchor.op
    first, second = (graph[name].type for name in anchor.inputs[:2])
    transposed = isinstance(op, Conv2DDataGrad)
    if isinstance(op, Conv2DWeightGrad):
        kernel: tuple[int, ...] = op.kernel_size
        source, result = first, second
    else:
        kernel, source, result = second.size()[:2], first, anchor.type
    axes = [
        Slide(
            int(result.shape[1 + i]),
            int(source.shape[1 + i]),
            kernel[i],
            op.strides[i],
            op.dilation[i],
            op.padding[i][0],
            transposed,
        )
        for i in range(2)
    ]
    swapped = kernel[0] == 1 and result.shape[1] == 1  # a sequence is an image of one row
    down, across = axes[::-1] if swapped else axes
    return Sliding(
        down,
        across,
        swapped,
        result.channels,
        result.channels // op.groups,
        source.channels // op.groups,
        source.torch_dtype.itemsize,
    )


def weight_split(work: Sliding, schedule: Schedule) -> Split:
    """How a weight gradient's sum over pieces of the map, strips of some rows, is cut into parts."""
    pieces = work.strips(schedule) * work.walks(schedule)
    tiles = ceil_div(work.lanes, schedule.block_n)
    results = work.taps * work.summed * work.lanes
    return Split(pieces, schedule.block_k, schedule.chunk, max(1, schedule.programs // tiles), results)
