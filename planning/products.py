"""A contraction seen as a matrix product, one per group: rows x columns, summed over an inner axis."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from ..graph.errors import CompileError
from ..graph.ir import Node
from ..graph.op import Kind
from ..graph.ops import (
    Activation,
    ActivationGrad,
    Add,
    AveragePool2D,
    AverageUnpool2D,
    Cast,
    Conv2D,
    Conv2DDataGrad,
    Conv2DWeightGrad,
    Dense,
    DenseDataGrad,
    DenseWeightGrad,
    LeakyRelu,
    MatMul,
    Maximum,
    MaxPool2D,
    MaxPoolIndex2D,
    MaxUnpool2D,
    Minimum,
    Multiply,
    Relu,
    Relu6,
    Scale,
    Softmax,
    Subtract,
)
from .geometry import broadcast_kind, ceil_div
from .regions import Region

POOLS = (MaxPool2D, MaxPoolIndex2D, AveragePool2D)
UNPOOLS = (MaxUnpool2D, AverageUnpool2D)

LEAN = (
    *(Add, Subtract, Multiply, Maximum, Minimum, Scale, Cast, Relu, Relu6, LeakyRelu),
    *(MaxPool2D, AveragePool2D),
)
"""Members of an epilogue that keep nothing in registers beside the sums."""

NARROW = 16
"""Channels below which the taps and channels of a sum are walked as one flattened axis."""


@dataclass(frozen=True)
class Product:
    """rows, inner: for one image, except that the axis the batch does not belong to is counted whole.

    channels: the run of neighbouring elements on the inner axis (input channels of a group); taps: such runs.
    window: rows that a fused pooling makes one of. whole_row: a softmax needs all columns in one tile.
    phases: parts of a strided data gradient, each of which has such rows, and meets its own taps.
    transposed: whether the weight is read across its rows (a data gradient).
    row_taps, row_channels: of a weight gradient, whose rows are the kernel's taps and channels.
    spreads: whether a pooling's gradient spreads each row over a window, whose pixels the epilogue reads.
    matrices: products that each image has of its own, rows being those of one; 0 where all images share one.
    plain: whether the members that follow are all of LEAN.
    costly: whether one of them is an activation with exponentials, or the gradient of one.
    beside: values of a tile's size that follow-up members load; each result after the first counts as two.
    lean: whether what stands around the product keeps little in registers beside the sums.
    computed: whether what is gathered is computed with, in registers, before it is multiplied.
    """

    rows: int
    columns: int
    taps: int
    channels: int
    groups: int
    dtype: str
    itemsize: int
    is_convolution: bool
    sums_over_batch: bool = False
    window: int = 1
    whole_row: bool = False
    phases: int = 1
    transposed: bool = False
    row_taps: int = 1
    row_channels: int = 0
    spreads: bool = False
    matrices: int = 0
    plain: bool = False
    costly: bool = False
    beside: int = 0
    lean: bool = False
    computed: bool = False

    def row_tiles(self, block_m: int, batch: int) -> int:
        """Tiles that the rows of a batch are cut into; none reaches from one product into the next."""
        if self.matrices:
            return ceil_div(self.rows, block_m) * self.matrices * batch
        return ceil_div(self.rows * (1 if self.sums_over_batch else batch), block_m)

    @property
    def inner(self) -> int:
        return self.taps * self.channels

    @property
    def flattened(self) -> bool:
        return self.taps > 1 and self.channels < NARROW

    def scattered(self, block_m: int) -> bool:
        """Whether neighbouring elements of operand A may belong to different taps."""
        return self.flattened or (self.row_taps > 1 and self.row_channels % block_m != 0)

    def steps(self, block_k: int) -> int:
        """Steps of the sum: channel blocks of each tap, or blocks of the flattened axis."""
        return (
            ceil_div(self.inner, block_k) if self.flattened else self.taps * ceil_div(self.channels, block_k)
        )


def product(region: Region) -> Product:
    """The product that a region's anchor computes. Raises CompileError where the anchor is no contraction."""
    node = region.anchor
    op: Any = node.op
    if node.op.kind is not Kind.CONTRACTION:
        raise CompileError(
            f"{node.name}: {node.op.op_name()} is no contraction and has no tiles of a product"
        )
    first = region.graph[node.inputs[0]].type
    second = region.graph[node.inputs[1]].type
    groups = getattr(node.op, "groups", 1)
    convolution = isinstance(node.op, Conv2D | Conv2DDataGrad | Conv2DWeightGrad)
    shared: dict[str, Any] = {
        "groups": groups,
        "dtype": first.dtype,
        "itemsize": first.torch_dtype.itemsize,
        "is_convolution": convolution,
        "plain": all(isinstance(member.op, LEAN) for member in region.epilogue),
        "costly": any(_is_costly(member) for member in region.epilogue),
        "beside": len(_tiles_read(region)) + 2 * (len(region.outputs) - 1),
        "lean": lean(region),
        "computed": any(not isinstance(member.op, Cast) for member in region.prologue),
    }
    out = pixels(node)
    match node.op:
        case Conv2D() | Dense():
            taps = prod(second.size()[:-2])
            rows = max(out, *(pixels(pool) * window_size(region) for pool in pools(region)), 0)
            return Product(rows, node.type.channels // groups, taps, first.channels // groups, **shared,
                           window=window_size(region), whole_row=ends_in_softmax(region))  # fmt: skip
        case Conv2DDataGrad() | DenseDataGrad():
            phases = prod(op.strides) if convolution else 1
            taps = prod(second.size()[:-2])
            rows = prod(map(ceil_div, node.type.size(1)[1:-1], op.strides)) if convolution else out
            return Product(
                rows,
                node.type.channels // groups,
                taps,
                first.channels // groups,
                **shared,
                phases=phases,
                transposed=True,
                spreads=any(isinstance(member.op, UNPOOLS) for member in region.epilogue),
            )
        case Conv2DWeightGrad() | DenseWeightGrad():
            rows = prod(node.type.size()[:-1])
            reduced = prod(first.with_shape(second.shape[:-1]).size(1))
            row_channels = first.channels // groups
            return Product(rows, second.channels // groups, 1, reduced, **shared, sums_over_batch=True,
                           row_taps=rows // row_channels, row_channels=row_channels)  # fmt: skip
        case MatMul():
            lead, rows, inner, columns = node.op.sizes(first, second)
            return Product(rows, columns, 1, inner, **shared, matrices=prod(lead),
                           transposed=node.op.transpose_b, whole_row=ends_in_softmax(region))  # fmt: skip
    raise CompileError(f"{node.name}: no kernel is known for {node.op.op_name()}")


def source_operand(region: Region) -> Node:
    """The operand a contraction gathers from: its first, or what the members before it are made from."""
    graph, source = region.graph, region.graph[region.anchor.inputs[0]]
    if not region.prologue:
        return source
    read = [graph[i] for node in region.prologue for i in node.inputs if i not in region.members]
    return next(n for n in read if broadcast_kind(n.type.shape, source.type.shape) == "full")


def _is_costly(member: Node) -> bool:
    op = member.op.activation if isinstance(member.op, ActivationGrad) else member.op
    return isinstance(op, Activation) and not isinstance(op, LEAN)


def lean(region: Region) -> bool:
    """Whether a thread needs few registers beside its sums: nothing is computed of what is gathered, and what
    follows is plain and loads channel vectors at most."""
    if region.prologue or len(region.outputs) > 1:
        return False
    return all(isinstance(node.op, LEAN) for node in region.epilogue) and not _tiles_read(region)


def _tiles_read(region: Region) -> set[str]:
    """What the members that follow read from elsewhere, channel vectors and single numbers aside."""
    shape = region.anchor.type.shape
    outside = {name for node in region.epilogue for name in node.inputs if name not in region.members}
    kinds = {name: broadcast_kind(region.graph[name].type.shape, shape) for name in outside}
    return {name for name, kind in kinds.items() if kind not in ("channel", "scalar")}


def pixels(node: Node) -> int:
    """Rows of one image: the elements of all axes but the batch and the channels."""
    return prod(node.type.size(1)[:-1])


def pools(region: Region) -> list[Node]:
    """The pooling members of an epilogue; all have one geometry and read one value."""
    return [node for node in region.epilogue if isinstance(node.op, POOLS)]


def window_size(region: Region) -> int:
    found = pools(region)
    return prod(found[0].op.size) if found else 1  # type: ignore[attr-defined]


def ends_in_softmax(region: Region) -> bool:
    return any(isinstance(node.op, Softmax) for node in region.epilogue)
