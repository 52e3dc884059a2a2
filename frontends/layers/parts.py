"""Steps that several layers share: activations, layouts, and working on another axis than the last."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...graph import ops
from ...graph.types import TensorType
from ...graph.windows import Pair
from ..activations import ACTIVATIONS
from ..lowering import Builder

TO_LAST = (0, 2, 3, 1)
TO_FIRST = (0, 3, 1, 2)


def activate(b: Builder, x: str, name: str | None, alone: bool = False) -> str:
    """x through an activation of the table; its node is "<layer>/<activation>", or the layer's if alone."""
    op = ACTIVATIONS[name or "linear"]
    return x if op is None else b.add(op, x, suffix="" if alone else op.op_name())


def affine(b: Builder, x: str, scale: float | tuple[float, ...], offset: float | tuple[float, ...]) -> str:
    """x * scale + offset along the last axis, with numbers known now."""
    size = (b.type(x).channels,)
    scaled = b.add(ops.Multiply(), x, b.add(ops.Constant(size, scale), suffix="scale"), suffix="scaled")
    return b.add(ops.Add(), scaled, b.add(ops.Constant(size, offset), suffix="offset"))


def late_activation(name: str | None) -> tuple[str | None, str | None]:
    """An activation as (within the layout of the layer's work, after it).

    Softmax runs over the last axis of the result, whichever that is; others commute with transposes.
    """
    late = name in ("softmax", "log_softmax")
    return (None, name) if late else (name, None)


def channels(kind: TensorType, data_format: str | None) -> int:
    """Channels of an image in either layout."""
    return int(kind.shape[1]) if data_format == "channels_first" else kind.channels


def spatial(b: Builder, x: str) -> Pair:
    """Height and width of a channels-last image."""
    shape = b.type(x).shape
    return int(shape[1]), int(shape[2])


def in_layout(b: Builder, x: str, data_format: str | None, body: Callable[[str], str]) -> str:
    """body(x) on channels-last data: a channels-first layer transposes in and out."""
    if data_format != "channels_first":
        return body(x)
    result = body(b.add(ops.Transpose(TO_LAST), x, suffix="to_channels_last"))
    return b.add(ops.Transpose(TO_FIRST), result, suffix="to_channels_first")


def on_last_axis(b: Builder, x: str, axis: int, body: Callable[[str], str]) -> str:
    """body(x) with `axis` moved to the end, and back."""
    rank = b.type(x).rank
    if axis == rank - 1:
        return body(x)
    order = (*(i for i in range(rank) if i != axis), axis)
    inverse = tuple(order.index(i) for i in range(rank))
    result = body(b.add(ops.Transpose(order), x, suffix="to_last_axis"))
    return b.add(ops.Transpose(inverse), result, suffix="from_last_axis")


def ordered(b: Builder, x: str, order: Sequence[int], suffix: str) -> str:
    """x with its axes in another order; x itself where that is the order they are in."""
    if list(order) == list(range(len(order))):
        return x
    return b.add(ops.Transpose(tuple(order)), x, suffix=suffix)


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
