"""Steps that several layers share: activations, layouts, and working on another axis than the last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from ...graph import ops
from ...graph.op import Op
from ...graph.types import TensorType
from ...graph.windows import Pair
from ..activations import ACTIVATIONS
from ..fields import ActivationLike
from ..lowering import Builder
from .base import Layer

TO_LAST = (0, 2, 3, 1)
TO_FIRST = (0, 3, 1, 2)


def activate(b: Builder, x: str, activation: ActivationLike, alone: bool = False) -> str:
    """x through an activation; its node is "<layer>/<activation>", or the layer's own if alone."""
    if isinstance(activation, Layer):
        return activation.build(b if alone else b.within(activation.name), x)
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


def affine(b: Builder, x: str, scale: float | tuple[float, ...], offset: float | tuple[float, ...]) -> str:
    """x * scale + offset along the last axis, with numbers known now."""
    size = (b.type(x).channels,)
    scaled = b.add(ops.Multiply(), x, b.add(ops.Constant(size, scale), suffix="scale"), suffix="scaled")
    return b.add(ops.Add(), scaled, b.add(ops.Constant(size, offset), suffix="offset"))


def late_activation(activation: ActivationLike) -> tuple[ActivationLike, ActivationLike]:
    """An activation as (within the layout of the layer's work, after it).

    Softmax runs over the last axis of the result, whichever that is, and PReLU has a weight for each place.
    """
    return (activation, None) if is_pointwise(activation) else (None, activation)


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
