"""How far kernels count, and what is refused because it is larger.

Rows (the pixels of a batch, the rows of a product, what a sum runs over) have 32-bit numbers, and an address
64 bits where a tile begins and 32 inside it: divisions and additions of 64 bits take a GPU several
instructions each. So an operand may have any number of elements, but an image of it only as many as 32 bits
tell apart, and the rows of one launch are counted up to `MOST_ROWS`.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

from ..graph.ir import Node
from ..graph.op import Kind
from ..graph.ops import Conv2D, Conv2DDataGrad, Conv2DWeightGrad, DenseWeightGrad, MatMul, Reduce
from .depthwise import sliding
from .geometry import ceil_div
from .products import POOLS, pixels, product
from .regions import Region

MOST_ROWS = 2**30
"""Half of what 32 bits count: the last tile, or the last part of a sum, reaches beyond the last row."""

MOST_ELEMENTS = 2**31 - 2**20
"""Of an image, or of a value that has no batch; the last block reaches beyond the last element."""

LONGEST_TILE = 256
"""Rows of a product's tile at most, and therefore images that one may reach over."""

LONGEST_STEP = 128
"""Pixels of a step of a weight gradient at most."""

SECTION = 32
"""Steps of it that have one 64-bit address, where their images are not too large."""

MOST_PROGRAMS_ACROSS = 65_535
"""Programs along a grid's second and third axis."""


def too_large(region: Region) -> str | None:
    """Why the numbers in a kernel would leave 32 bits whatever the batch is, as a sentence; or None."""
    for node in (*region.inputs, *region.nodes):
        count = node.type.elements(1)
        if count > MOST_ELEMENTS:
            whole = "an image" if node.type.batched else "a value"
            return f"{node.name} is {node.type}: {whole} of {count:,} elements, and {_COUNTED}"
    if region.anchor.op.kind is not Kind.CONTRACTION:
        return None
    groups = getattr(region.anchor.op, "groups", 1)
    if groups > MOST_PROGRAMS_ACROSS:
        return f"{region.anchor.name} has {groups:,} groups, a launch at most {MOST_PROGRAMS_ACROSS:,}"
    return _tile_too_large(region)


_COUNTED = f"kernels count up to {MOST_ELEMENTS:,} within one"


def _tile_too_large(region: Region) -> str | None:
    """Of the images that one tile of a product gathers from."""
    anchor = region.anchor
    if isinstance(anchor.op, MatMul):
        return None
    source = region.graph[anchor.inputs[0]]
    images = images_of_a_tile(region)
    count = images * source.type.elements(1)
    if count <= MOST_ELEMENTS:
        return None
    return (
        f"{source.name} is {source.type}: a tile of {anchor.op.op_name()} reaches over {images:,} images, "
        f"{count:,} elements, and {_COUNTED}"
    )


def images_of_a_tile(region: Region, longest: int = 0) -> int:
    """Images that a product gathers from with one 64-bit address. longest: pixels of it, where they are not
    the rows of the largest tile or the pixels of a weight gradient's longest step."""
    anchor = region.anchor
    sums = isinstance(anchor.op, Conv2DWeightGrad | DenseWeightGrad)
    longest = longest or (LONGEST_STEP if sums else LONGEST_TILE)
    rows = region.graph[anchor.inputs[1]] if sums else anchor
    return 1 + ceil_div(longest, max(1, pixels(rows)))


def section(region: Region, step: int, elements: int) -> int:
    """Pixels that a weight gradient adds up from one 64-bit address, `step` at a time. elements: of an image
    of what it gathers from."""
    dy = region.graph[region.anchor.inputs[1]].type
    largest, steps = max(elements, dy.elements(1)), SECTION
    while steps > 1 and images_of_a_tile(region, steps * step) * largest > MOST_ELEMENTS:
        steps //= 2
    return steps * step


def rows_an_image(region: Region) -> int:
    """Rows that a kernel counts for each image: of the value with most of them."""
    counts = [pixels(node) for node in (*region.inputs, *region.nodes) if node.type.batched]
    counts += [_summed(region, node) for node in region.nodes if isinstance(node.op, Reduce)]
    if region.anchor.op.kind is Kind.CONTRACTION and any(isinstance(n.op, POOLS) for n in region.nodes):
        counts.append(product(region).rows)
    if isinstance(region.anchor.op, Conv2D | Conv2DDataGrad):
        counts.append(_lanes(region))
    return max(counts, default=0)


def _lanes(region: Region) -> int:
    """Channels of strips one column wide, which a direct form counts where a group has few channels."""
    work = sliding(region)
    grouped = work.group < work.lanes or work.lanes == work.summed == 1
    return work.across.classes * work.across.steps * work.lanes if grouped else 0


def _summed(region: Region, node: Node) -> int:
    """Of a sum over the batch its terms, of any other its results."""
    op, source = node.op, region.graph[node.inputs[0]].type
    assert isinstance(op, Reduce)
    over_batch = source.batched and 0 in op.axes
    sizes = enumerate(source.size(1))
    return prod(size for axis, size in sizes if (axis in op.axes) is over_batch)


def most_images(region: Region) -> int | None:
    """The largest batch that a region's kernel takes; None where the batch does not count."""
    rows = rows_an_image(region)
    return MOST_ROWS // rows if rows else None


def batch_refusal(regions: Iterable[Region], batch: int) -> str | None:
    """Why a batch is too large for the kernels of these regions, as a sentence; or None."""
    for region in regions:
        most = most_images(region)
        if most is not None and batch > most:
            layers = ", ".join(region.layers) or region.name
            return (
                f"a batch of {batch:,} has {batch * rows_an_image(region):,} rows in {layers}, and kernels "
                f"count up to {MOST_ROWS:,}; call with at most {most:,} examples at a time"
            )
    return None
