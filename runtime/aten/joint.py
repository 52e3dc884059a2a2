"""Members of a region that one call computes together.

Each matcher looks at one node of a region and says which members it would take together, or None. What a
matcher takes never leaves the region it is in: an unfused network runs one operator an op.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...graph.ir import Node
from ...graph.ops import (
    Activation,
    Add,
    Conv2D,
    Conv2DTranspose,
    Conv2DWeightGrad,
    Dense,
    MaxPool2D,
    MaxPoolIndex2D,
    Multiply,
    Normalize,
    Reduce,
    Variance,
)
from ...planning.regions import Region
from ..instructions import Instruction
from .contraction import Convolution, Product
from .contraction_gradients import ConvolutionWeightGrad
from .pooling import max_pool_with_index
from .statistics import norm_gradient_sums, statistics
from .transposed import TransposedConvolution


@dataclass
class Operation(Instruction):
    """An instruction and what it computes.

    at: the member at whose turn it runs. covers: the members it computes, kept or not. packed: whether what
    it gives is contiguous by itself.
    """

    at: str
    covers: tuple[str, ...]
    node: Node | None = None
    """The member, where it is only one and has a form of its own."""
    overwrites: bool = False
    """Whether `run` may write over the first value it reads."""
    packed: bool = False


def _only_reader(region: Region, node: Node) -> Node | None:
    """The one member that reads `node`, if nothing else needs its value."""
    if region.graph.is_output(node.name):
        return None
    readers = region.graph.readers(node.name)
    return readers[0] if len(readers) == 1 and readers[0].name in region.members else None


def _residual(region: Region, node: Node) -> tuple[Node, str] | None:
    """The addition of a tensor of the node's own shape, and that tensor."""
    reader = _only_reader(region, node)
    if reader is None or not isinstance(reader.op, Add) or len(set(reader.inputs)) != 2:
        return None
    other = reader.inputs[1] if reader.inputs[0] == node.name else reader.inputs[0]
    return (reader, other) if region.graph[other].type.shape == node.type.shape else None


def _convolution(region: Region, node: Node, remember: bool) -> Operation | None:
    """activation(conv(x, w) + bias + residual), where those follow."""
    op = node.op
    assert isinstance(op, Conv2D)
    last, reads, covers = node, list(node.inputs), [node.name]
    residual = _residual(region, node)
    if residual is not None:
        last = residual[0]
        reads.append(residual[1])
        covers.append(last.name)
    activation = _activation_of(region, last)
    if activation is not None:
        last = activation
        covers.append(last.name)
    run = Convolution(
        op,
        activation.op if activation else None,
        with_bias=len(node.inputs) > 2,
        with_residual=residual is not None,
        remember=remember,
    )
    return Operation(run, tuple(reads), (last.name,), last.name, tuple(covers), packed=True)


def _product(region: Region, node: Node, remember: bool) -> Operation | None:
    """activation(x @ w + bias), where one follows."""
    activation = _activation_of(region, node)
    last = activation or node
    run = Product(activation.op if activation else None, with_bias=len(node.inputs) > 2, remember=remember)
    covers = (node.name,) if activation is None else (node.name, activation.name)
    return Operation(run, node.inputs, (last.name,), last.name, covers, packed=True)


def _transposed(region: Region, node: Node, remember: bool) -> Operation | None:
    """conv_transpose(x, w) + bias, where one is added to each channel."""
    op = node.op
    assert isinstance(op, Conv2DTranspose)
    if not remember or op.groups != 1:
        return None
    reader = _only_reader(region, node)
    bias = None
    if reader is not None and isinstance(reader.op, Add) and reader.type == node.type:
        other = reader.inputs[1] if reader.inputs[0] == node.name else reader.inputs[0]
        bias = other if region.graph[other].type.shape == node.type.shape[-1:] else None
    run = TransposedConvolution(op, with_bias=bias is not None)
    if bias is None or reader is None:
        return Operation(run, node.inputs, (node.name,), node.name, (node.name,), packed=True)
    covers = (node.name, reader.name)
    return Operation(run, (*node.inputs, bias), (reader.name,), reader.name, covers, packed=True)


def _activation_of(region: Region, node: Node) -> Node | None:
    reader = _only_reader(region, node)
    return reader if reader is not None and isinstance(reader.op, Activation) else None


def _pool_and_index(region: Region, node: Node, remember: bool) -> Operation | None:
    op = node.op
    assert isinstance(op, MaxPool2D)
    for other in region.nodes:
        if not isinstance(other.op, MaxPoolIndex2D) or other.inputs != node.inputs:
            continue
        if other.op.geometry() == op.geometry():
            both = (node.name, other.name)
            return Operation(max_pool_with_index(op), node.inputs, both, node.name, both)
    return None


def _weight_and_bias_grad(region: Region, node: Node, remember: bool) -> Operation | None:
    op = node.op
    assert isinstance(op, Conv2DWeightGrad)
    dy = node.inputs[1]
    for other in region.nodes:
        total = other.op
        if isinstance(total, Reduce) and other.inputs == (dy,) and total.axes == (0, 1, 2):
            if total.mean or total.keepdims or _read_inside(region, other):
                continue
            both = (node.name, other.name)
            return Operation(ConvolutionWeightGrad(op, with_bias=True), node.inputs, both, node.name, both)
    return None


def _statistics(region: Region, node: Node) -> Operation | None:
    """The mean and the variance of each channel."""
    if not (isinstance(node.op, Reduce) and node.op.mean) or not _of_channels(region, node):
        return None
    for other in region.nodes:
        if other.op == Variance() and other.inputs == node.inputs:
            both = (node.name, other.name)
            return Operation(statistics, node.inputs, both, node.name, both, packed=True)
    return None


def _of_channels(region: Region, node: Node) -> bool:
    """Whether this is a plain sum or mean over all axes of a batch but the last."""
    op, x = node.op, region.graph[node.inputs[0]].type
    return op == Reduce(tuple(range(x.rank - 1)), getattr(op, "mean", False)) and x.batched


def _channel_sums(region: Region, node: Node, remember: bool) -> Operation | None:
    return _statistics(region, node) or _norm_gradient_sums(region, node)


def _norm_gradient_sums(region: Region, node: Node) -> Operation | None:
    """sum(dy) and sum(dy * normalized x) for each channel."""
    dy = region.graph[node.inputs[0]]
    if not over_pixels(node, mean=False) or not batch_norm_takes(dy):
        return None
    for normalize in region.nodes:
        if not isinstance(normalize.op, Normalize) or region.members.keys() & set(normalize.inputs):
            continue
        product = _only_reader(region, normalize)
        if product is None or not isinstance(product.op, Multiply) or dy.name not in product.inputs:
            continue
        total = _only_reader(region, product)
        if total is None or not over_pixels(total, mean=False):
            continue
        both = (node.name, total.name)
        covers = (*both, normalize.name, product.name)
        run = norm_gradient_sums(normalize.op)
        return Operation(run, (dy.name, *normalize.inputs), both, node.name, covers, packed=True)
    return None


def over_pixels(node: Node, mean: bool) -> bool:
    """Whether this is a sum, or a mean, of each channel over a batch of images."""
    op = node.op
    return isinstance(op, Reduce) and op.axes == (0, 1, 2) and op.mean == mean and not op.keepdims


def batch_norm_takes(x: Node) -> bool:
    return len(x.type.shape) == 4 and x.type.dtype in ("float32", "float64")


def _read_inside(region: Region, node: Node) -> bool:
    return any(reader.name in region.members for reader in region.graph.readers(node.name))


Matcher = Callable[[Region, Node, bool], Operation | None]

JOINT: dict[type, Matcher] = {
    Conv2D: _convolution,
    Conv2DTranspose: _transposed,
    Dense: _product,
    MaxPool2D: _pool_and_index,
    Conv2DWeightGrad: _weight_and_bias_grad,
    Reduce: _channel_sums,
}
