"""Forms of first layers: convolutions of one to four channels, and the gradients of their weights.

    all that stands before -> a border of zeros, LANES channels -> rows of taps, each a run of neighbours

The taps of so few channels, walked as one flattened axis, are loads of two bytes at scattered places. Here a
kernel of its own first writes the map with its border and its pixels widened to LANES channels, and computes
what stands before the convolution as it does so. The product then meets a row of taps as one run of
elements, padded to RUN, and never asks what lies outside. That map is scratch of the launch: no other kernel
has to know of it. A weight gradient lays its own out again: of an image of 224 x 224 in 16 bits that moves
0.7 MB, half of what it reads of dy, and 0.4 MB are not kept from the forward pass.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from ...graph.ir import Node
from ...graph.ops import Conv2D, Conv2DWeightGrad
from ..cost import CostModel
from ..geometry import Axis, ceil_div, forward_axes, power_of_two
from ..limits import MOST_ELEMENTS, images_of_a_tile
from ..product_time import LAUNCH_SECONDS
from ..products import Product, product, source_operand
from ..regions import Region
from ..schedules import Schedule
from ..splits import product_split
from .form import Form, Refusal
from .products import beside_refusal, epilogue_refusal, prologue_refusal, takes_chunks, takes_row
from .tiles import ranked, shared_bytes

LANES = 4
"""Channels of a pixel that is laid out: 8 bytes of 16 bits each, which one asynchronous copy takes."""

LINE = 16
"""Bytes that a row of the map is a whole number of, so that what lies in it is aligned as in the first."""

LEAST_RUN, MOST_RUN = 16, 64
"""Elements of a row of taps: what a matrix instruction takes of the sum, and what a step of it may take."""


@dataclass(frozen=True)
class Laid:
    """How the map lies: (N, height, width, LANES), and how rows of the product gather from it.

    top, left: pixels of its border before the map. axes: a row and a tap meet at a place of the laid map, and
    never outside. run: elements of a row of taps with its padding; rows: such rows.
    """

    height: int
    width: int
    top: int
    left: int
    axes: tuple[Axis, Axis]
    run: int
    rows: int

    @property
    def elements(self) -> int:
        """Of one image."""
        return self.height * self.width * LANES


def laid(region: Region) -> Laid:
    """How a first layer's map is laid out. region: of a Conv2D, or of the gradient of its weight."""
    graph, anchor = region.graph, region.anchor
    op: Any = anchor.op
    x, other = (graph[name] for name in anchor.inputs[:2])
    kernel, out = (other, anchor) if isinstance(op, Conv2D) else (anchor, other)
    axes = forward_axes(op, _pair(x, 1), _pair(kernel, 0), _pair(out, 1))
    height, width = ((a.rows - 1) * a.stride + (a.taps - 1) * a.step + 1 for a in axes)
    pixel = LANES * x.type.torch_dtype.itemsize
    width = ceil_div(width * pixel, LINE) * LINE // pixel
    down, across = (replace(a, source=n, shift=0) for a, n in zip(axes, (height, width), strict=True))
    run = max(LEAST_RUN, power_of_two(across.taps * LANES))
    return Laid(height, width, -axes[0].shift, -axes[1].shift, (down, across), run, down.taps)


def _pair(node: Node, first: int) -> tuple[int, int]:
    return int(node.type.shape[first]), int(node.type.shape[first + 1])


def first_product(region: Region) -> Product:
    """The product over the laid map: its sum, or the rows of a weight gradient, are rows of taps."""
    work, form = replace(product(region), computed=False), laid(region)  # what stands before is laid out
    padded = form.rows * form.run
    if work.sums_over_batch:
        return replace(work, rows=padded, row_taps=1, row_channels=padded)
    return replace(work, taps=1, channels=padded)


# -- what they accept ----------------------------------------------------------------------------------------
def _few_channels(region: Region) -> Refusal:
    anchor = region.anchor
    op: Any = anchor.op
    x = region.graph[anchor.inputs[0]].type
    kernel = anchor if isinstance(op, Conv2DWeightGrad) else region.graph[anchor.inputs[1]]
    height, width = _pair(kernel, 0)
    if x.channels > LANES or op.groups > 1:
        return f"{anchor.name} has {x.channels} channels in {op.groups} groups; a first layer {LANES} in one"
    if height * width == 1:
        return f"{anchor.name} has one tap, and no row of taps to load at once"
    if width * LANES > MOST_RUN:
        return f"{anchor.name}: a row of {width} taps is longer than the {MOST_RUN // LANES} a step takes"
    if images_of_a_tile(region) * laid(region).elements > MOST_ELEMENTS:
        return f"{anchor.name}: with {LANES} channels a pixel its map has more elements than 32 bits count"
    return None


def _accepts_forward(region: Region) -> Refusal:
    return _few_channels(region) or prologue_refusal(region, None) or epilogue_refusal(region)


def _accepts_weight_gradient(region: Region) -> Refusal:
    return _few_channels(region) or prologue_refusal(region, None) or beside_refusal(region)


# -- schedules and cost --------------------------------------------------------------------------------------
def _schedules(region: Region, model: CostModel) -> list[Schedule]:
    work = first_product(region)
    run = 1 if work.sums_over_batch else laid(region).run
    return list(_of(work, run, model, _crossing(region, model.batch)))


@lru_cache(maxsize=256)
def _of(work: Product, run: int, model: CostModel, crossing: int) -> tuple[Schedule, ...]:
    """The tiles of such a product whose steps take whole rows of taps, and sums in one part."""
    unsplit = (s for s in ranked(work, model, crossing) if s.splits == 1)
    whole = dict.fromkeys(replace(s, block_k=max(s.block_k, run)) for s in unsplit)
    fitting = [s for s in whole if shared_bytes(s, work) <= model.target.shared_per_block]
    return tuple(sorted(fitting, key=lambda s: model.product(work, s, crossing).seconds))


def _lying(region: Region, batch: int) -> tuple[int, int]:
    """Bytes that laying the map out reads, and those it writes."""
    size = region.graph[region.anchor.inputs[0]].type.torch_dtype.itemsize
    return source_operand(region).type.nbytes(batch), laid(region).elements * size * batch


def _crossing(region: Region, batch: int) -> int:
    """Bytes between the product's own kernel and memory."""
    read, written = _lying(region, batch)
    return region.cost(batch).bytes - read + written


def _takes_rows_of_taps(region: Region, schedule: Schedule) -> Refusal:
    run = laid(region).run
    if schedule.splits > 1:
        return f"{region.name}: a first convolution keeps each sum in one part, found {schedule.splits}"
    if schedule.block_k % run:
        return (
            f"{region.name}: a step of a first convolution takes whole rows of taps, {run} elements each; "
            f"the schedule has block_k {schedule.block_k}"
        )
    return takes_row(region, schedule)


def _seconds(region: Region, schedule: Schedule, model: CostModel) -> float:
    """Laying the map out, and the product."""
    work = first_product(region)
    lying_out = LAUNCH_SECONDS + model.moving(sum(_lying(region, model.batch)))
    return lying_out + model.product(work, schedule, _crossing(region, model.batch)).seconds


FIRST = (
    Form(
        "first convolution",
        (Conv2D,),
        _accepts_forward,
        _schedules,
        _takes_rows_of_taps,
        first_product,
        row_by_row=True,
        reads_rows=range(1),
        lays_out=True,
        cost=_seconds,
    ),
    Form(
        "first weight gradient",
        (Conv2DWeightGrad,),
        _accepts_weight_gradient,
        _schedules,
        takes_chunks,
        first_product,
        split=lambda region, schedule: product_split(first_product(region), schedule),
        lays_out=True,
        cost=_seconds,
    ),
)
