"""Steps that several layers share: activations, layouts, and working on another axis than the last."""

from __future__ import annotations

from collections.abc import Callable

from ...graph import ops
from ...graph.types import TensorType
from ..activations import ACTIVATIONS
from ..lowering import Builder


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


def in_layout(b: Builder, x: str, data_format: str | None, body: Callable[[str], str]) -> str:
    """body(x) on channels-last data: a channels-first layer transposes in and out."""
    result = body(to_channels_last(b, x, data_format))
    if data_format != "channels_first":
        return result
    rank = b.type(result).rank
    return b.add(ops.Transpose((0, rank - 1, *range(1, rank - 1))), result, suffix="to_channels_first")


def on_last_axis(b: Builder, x: str, axis: int, body: Callable[[str], str]) -> str:
    """body(x) with `axis` moved to the end, and back."""
    rank = b.type(x).rank
    if axis == rank - 1:
        return body(x)
    order = (*(i for i in range(rank) if i != axis), axis)
    inverse = tuple(order.index(i) for i in range(rank))
    result = body(b.add(ops.Transpose(order), x, suffix="to_last_axis"))
    return b.add(ops.Transpose(inverse), result, suffix="from_last_axis")
