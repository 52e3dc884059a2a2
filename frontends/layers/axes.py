"""Windows along each spatial axis, and sequences seen as images of one row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...graph import ops
from ...graph.windows import Pair, axis_padding, extent, output_size, window_output
from ..lowering import Builder


@dataclass(frozen=True)
class Axis:
    """A window of `size` taps over n positions of one axis. padding: (before, after)."""

    n: int
    size: int = 1
    stride: int = 1
    dilation: int = 1
    padding: Pair = (0, 0)

    @property
    def reach(self) -> int:
        """Positions from the window's first tap to its last."""
        return extent(self.size, self.dilation)

    @property
    def outputs(self) -> int:
        return output_size(self.n, self.size, self.stride, self.padding, self.dilation)

    @property
    def trivial(self) -> bool:
        """Whether every window holds the one element at its place."""
        return self.size == self.stride == 1 and self.padding == (0, 0)


Axes = tuple[Axis, ...]

ONE_ROW = Axis(1)
"""The rows of a sequence seen as an image."""


def window_axes(
    where: str,
    spatial: tuple[int, ...],
    size: tuple[int, ...],
    strides: tuple[int, ...],
    padding: str | tuple[Pair, ...],
    dilation: tuple[int, ...] | None = None,
) -> Axes:
    """The windows of a layer over data of these sizes. padding: a mode, or a pair for each axis.

    Raises ShapeError, which begins with `where`, where a window does not fit into the data.
    """
    apart = dilation or (1,) * len(spatial)
    shapes = zip(spatial, size, strides, apart, strict=True)
    pads = tuple(axis_padding(padding, *axis) for axis in shapes) if isinstance(padding, str) else padding
    window_output(where, spatial, size, strides, pads, apart)
    return tuple(
        Axis(n, f, s, d, p) for n, f, s, d, p in zip(spatial, size, strides, apart, pads, strict=True)
    )


def rows_and_columns(axes: Axes) -> tuple[Axis, Axis]:
    """The axes of an image, or of a sequence seen as one."""
    rows, columns = (ONE_ROW, *axes)[-2:]
    return rows, columns


def as_image(b: Builder, x: str, body: Callable[[str], str]) -> str:
    """body(x): a sequence (N, steps, C) is an image of one row there, by views that cost nothing."""
    if b.type(x).rank == 4:
        return body(x)
    image = b.add(ops.Reshape((1, *b.type(x).size()[1:])), x, suffix="one_row")
    result = body(image)
    return b.add(ops.Reshape(b.type(result).size()[2:]), result, suffix="steps")


def kernel_as_image(b: Builder, name: str) -> str:
    """A weight (steps, in, out) as a kernel (1, steps, in, out); one of an image as it is."""
    weight = b.weight(name)
    size = b.type(weight).size()
    if len(size) != 3:
        return weight
    return b.add(ops.Reshape((1, *size), batched=False), weight, suffix=f"{name}_in_one_row")
