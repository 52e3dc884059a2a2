"""Steps that several layers share: activations, layouts, and working on another axis than the last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from ...graph import ops
from ...graph.errors import ShapeError
from ...graph.op import Op
from ...graph.types import TensorType, broadcast
from ...graph.windows import Pair
from ..activations import ACTIVATIONS
from ..fields import ActivationLike, Array, array_numbers, array_shape
from ..lowering import Builder
from .base import Layer


def activate(b: Builder, x: str, activation: ActivationLike, alone: bool = False) -> str:
    """x through an activation; its node is "<layer>/<activation>", or the layer's own if alone."""
    if isinstance(activation, Layer):
        return activation.build_one(b if alone else b.within(activation.name), x)
    name = str(activation or "linear")
    known = ACTIVATIONS[name]
    if known is None:
        return x
    if isinstance(known, Op):
        return b.add(known, x, suffix="" if alone else known.op_name())
    return known(b if alone else b.within(name), x)


def is_pointwise(activation: ActivationLike) -> bool:
    """Whether it commutes with transposes: one formula for every value, wherever that stands."""
    if isinstance(activation, Layer):
        return activation.pointwise()
    known = ACTIVATIONS[str(activation or "linear")]
    return known is None or isinstance(known, ops.Activation)


def sample_axes(layer: Layer, axes: int | Sequence[int], kind: TensorType) -> tuple[int, ...]:
    """A layer's argument `axis` as axes from 1 on, in their order.

    Raises ShapeError for the batch, axes that are not there, and axes named twice.
    """
    given = (axes,) if isinstance(axes, int) else tuple(axes)
    found = tuple(sorted(axis + kind.rank if axis < 0 else axis for axis in given))
    if len(set(found)) < len(found) or not all(1 <= axis < kind.rank for axis in found):
        raise layer.fail(f"axis must name axes 1 to {kind.rank - 1} of {kind} once each, got {given}")
    return found


def known(b: Builder, value: Array, suffix: str) -> str:
    """Numbers known now, as a value that broadcasts as NumPy does."""
    shape, numbers = array_shape(value), array_numbers(value)
    if not shape:
        return b.add(ops.Constant((1,), numbers[0]), suffix=suffix)
    flat = b.add(ops.Constant((len(numbers),), numbers), suffix=suffix)
    return flat if len(shape) == 1 else b.add(ops.Reshape(shape, False), flat, suffix=f"shaped_{suffix}")


def fits_in(layer: Layer, key: str, shape: tuple[int, ...], kind: TensorType) -> None:
    """Raise ShapeError, in the name of a layer's argument, where its array would stretch x or not fit."""
    try:
        fits = broadcast(kind, kind.with_shape(shape), key).shape == kind.shape
    except ShapeError:
        fits = False
    if not fits:
        what = f"{len(shape)} axes" if len(shape) > kind.rank else f"shape {shape}"
        raise layer.fail(f"{key} of {what} does not broadcast to {kind}; its last axes must be 1 or as long")


def affine(b: Builder, x: str, scale: Array, offset: Array) -> str:
    """x * scale + offset, with numbers known now."""
    scaled = b.add(ops.Multiply(), x, known(b, scale, "scale"), suffix="scaled")
    return b.add(ops.Add(), scaled, known(b, offset, "offset"))


MOST_TERMS = 16
"""Elements that may count for one of a resized image before its axes are resized one after another."""


def resized(
    b: Builder, x: str, axes: Sequence[int], sizes: Sequence[int], method: str, antialias: bool = False
) -> str:
    """x with these sizes along these axes; x itself where it has them.

    All axes go in one pass over memory while few elements count for each of the result. Doubling 32x32x64
    bilinearly then moves 1.3 MB in one launch: the image is read once and the result written once. One axis
    after the other moves 2.4 MB in two, a transposed convolution with its borders 4.4 MB in three, products
    over transposed views 6.0 MB in five.
    """
    shape = b.type(x).shape
    changes = [(axis, size) for axis, size in zip(axes, sizes, strict=True) if shape[axis] != size]
    shrinks = any(size < int(shape[axis]) for axis, size in changes)
    antialias = antialias and shrinks and method != "nearest"
    whole = ops.Resize(tuple(a for a, _ in changes), tuple(s for _, s in changes), method, antialias)
    terms = prod(whole.taps(int(shape[axis]), size).count for axis, size in changes)
    # The axis that shrinks most comes first: what follows then has less to read.
    by_growth = sorted(changes, key=lambda change: change[1] / int(shape[change[0]]))
    steps = [changes] if terms <= MOST_TERMS else [[change] for change in by_growth]
    for step in steps if changes else []:
        op = ops.Resize(tuple(a for a, _ in step), tuple(s for _, s in step), method, antialias)
        x = b.add(op, x, *_matrices(b, x, op), suffix="" if step is steps[-1] else "first_axis")
    return x


def _matrices(b: Builder, x: str, op: ops.Resize) -> list[str]:
    """The weights along each axis; axes of the same sizes share them."""
    if op.method == "nearest":
        return []
    made: dict[tuple[int, int], str] = {}
    for axis, size in zip(op.axes, op.sizes, strict=True):
        here = int(b.type(x).shape[axis])
        if (here, size) not in made:
            matrix = ops.InterpolationMatrix(here, size, op.method, op.antialias)
            made[here, size] = b.add(matrix, suffix="weights")
    return [made[int(b.type(x).shape[a]), s] for a, s in zip(op.axes, op.sizes, strict=True)]


def late_activation(activation: ActivationLike) -> tuple[ActivationLike, ActivationLike]:
    """An activation as (within the layout of the layer's work, after it).

    Softmax runs over the last axis of the result, whichever that is, and PReLU has a weight for each place.
    """
    return (activation, None) if is_pointwise(activation) else (None, activation)


def channels(kind: TensorType, data_format: str | None) -> int:
    """Channels of an image, sequence or volume in either layout."""
    return int(kind.shape[1]) if data_format == "channels_first" else kind.channels


def spatial(kind: TensorType, data_format: str | None = None) -> tuple[int, ...]:
    """The sizes between batch and channels, in either layout."""
    return kind.size()[2:] if data_format == "channels_first" else kind.size()[1:-1]


def to_channels_last(b: Builder, x: str, data_format: str | None) -> str:
    """x with its channels on the last axis."""
    if data_format != "channels_first":
        return x
    return b.add(ops.Transpose((0, *range(2, b.type(x).rank), 1)), x, suffix="to_channels_last")


def spatial_axes(kind: TensorType, data_format: str | None) -> tuple[int, ...]:
    """The axes between batch and channels, or after both."""
    return tuple(range(2, kind.rank)) if data_format == "channels_first" else tuple(range(1, kind.rank - 1))


def in_layout(b: Builder, x: str, data_format: str | None, body: Callable[[str], str]) -> str:
    """body(x) on channels-last data: a channels-first layer transposes in and out."""
    result = body(to_channels_last(b, x, data_format))
    if data_format != "channels_first":
        return result
    rank = b.type(result).rank
    return b.add(ops.Transpose((0, rank - 1, *range(1, rank - 1))), result, suffix="to_channels_first")


def on_last_axis(b: Builder, x: str, axes: int | Sequence[int], body: Callable[[str], str]) -> str:
    """body(x) with the axis, or several as one, moved to the end, and back. body keeps the shape."""
    moved = [axes] if isinstance(axes, int) else sorted(axes)
    rank = b.type(x).rank
    order = (*(i for i in range(rank) if i not in moved), *moved)
    if stay := order == tuple(range(rank)):
        last = x
    else:
        last = b.add(ops.Transpose(order), x, suffix="to_last_axis")
    if len(moved) == 1:
        result = body(last)
    else:
        sizes = b.type(last).size()[1:]
        kept = sizes[: rank - 1 - len(moved)]
        joined = b.add(ops.Reshape((*kept, prod(sizes[len(kept) :]))), last, suffix="joined")
        result = b.add(ops.Reshape(sizes), body(joined), suffix="apart")
    if stay:
        return result
    inverse = tuple(order.index(i) for i in range(rank))
    return b.add(ops.Transpose(inverse), result, suffix="from_last_axis")


def ordered(b: Builder, x: str, order: Sequence[int], suffix: str) -> str:
    """x with its axes in another order; x itself where that is the order they are in."""
    if list(order) == list(range(len(order))):
        return x
    return b.add(ops.Transpose(tuple(order)), x, suffix=suffix)


def cut(b: Builder, x: str, starts: Sequence[int], stops: Sequence[int], suffix: str = "") -> str:
    """The part of x from `starts` to `stops`, along all its axes but the batch, or all of x as it is."""
    if not any(starts) and tuple(stops) == b.type(x).size()[1:]:
        return x
    return b.add(ops.Slice(tuple(starts), tuple(stops)), x, suffix=suffix)


def largest_window(sizes: Pair, target: Pair) -> Pair:
    """Height and width of the largest part of an image that has the target's shape, in whole pixels."""
    height, width = sizes
    wanted = int(width * target[0] / target[1]), int(height * target[1] / target[0])
    return max(min(height, wanted[0]), 1), max(min(width, wanted[1]), 1)


def middle(b: Builder, x: str, axes: Sequence[int], window: Pair) -> str:
    """The window in the middle of an image, a pixel nearer to the start where it cannot be quite there."""
    shape = b.type(x).size()[1:]
    starts, stops = [0] * len(shape), list(shape)
    for axis, size in zip(axes, window, strict=True):
        starts[axis - 1] = (shape[axis - 1] - size) // 2
        stops[axis - 1] = starts[axis - 1] + size
    return cut(b, x, starts, stops, "middle")


def unit_length(b: Builder, x: str, axes: tuple[int, ...], least: float, prefix: str = "") -> str:
    """x over its Euclidean length along the axes: x / sqrt(max(sum of x * x, least))."""
    total = b.add(
        ops.Reduce(axes, keepdims=True),
        b.add(ops.Square(), x, suffix=f"{prefix}squared"),
        suffix=f"{prefix}total",
    )
    floor = b.add(ops.Constant((1,) * b.type(total).rank, least), suffix=f"{prefix}least")
    total = b.add(ops.Maximum(), total, floor, suffix=f"{prefix}bounded")
    factor = b.add(ops.RsqrtPlus(0.0), total, suffix=f"{prefix}factor")
    return b.add(ops.Multiply(), x, factor, suffix=f"{prefix}unit")
