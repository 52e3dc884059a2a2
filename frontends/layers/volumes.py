"""Volumes by the kernels of images: convolution, its transpose and pooling with a depth axis.

A volume (N, depth, height, width, channels) is handled as slabs, its images along the depth. A convolution
sees the slabs stacked in rows, one tall image; the taps along the depth are channels side by side. Slabs are
padded apart so that no window reaches from one into the next. One contraction does the work; the rest are
copies and views.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

from ...graph import ops
from ...graph.windows import Pair, extent
from ..budget import MOST_PARTS
from ..lowering import Builder
from .axes import Axes, Axis
from .parts import cut

NONE: Pair = (0, 0)


def convolve_volume(
    b: Builder,
    x: str,
    kernel: str,
    bias: list[str],
    axes: Axes,
    groups: int,
    activate: Callable[[str], str],
) -> str:
    """x (N, D, H, W, C), kernel (kd, kh, kw, C / groups, K) -> (N, P, Q, R, K).

    One two-dimensional convolution, in the kernel of which bias and activation ride. Beside it: the volume is
    copied once to pad it, and twice kd times (kd taps along the depth) to cut the taps out and lay them side
    by side; the kh - 1 rows between slabs, computed for nothing, are cut off by a copy of the result. A
    kernel of 1 along the depth or the height does without the copies for that axis.
    """
    depth, rows, columns = axes
    height = _whole(max(rows.padding[0] + rows.n, _covered(rows)), rows.stride)
    stacked = _taps_side_by_side(b, x, depth, (rows.padding[0], height - rows.padding[0] - rows.n), groups)
    op = ops.Conv2D(
        (rows.stride, columns.stride),
        ((0, max(0, rows.reach - rows.stride)), columns.padding),
        (rows.dilation, columns.dilation),
        groups,
    )
    y = activate(b.add(op, stacked, _taps_as_channels(b, kernel), *bias))
    filters = b.type(y).channels
    made = height // rows.stride
    y = b.add(ops.Reshape((depth.outputs, made, columns.outputs, filters)), y, suffix="slabs")
    stops = (depth.outputs, rows.outputs, columns.outputs, filters)
    return cut(b, y, (0, 0, 0, 0), stops, "without_rows_between")


def _whole(size: int, step: int) -> int:
    """size rounded up to a multiple of step."""
    return -(-size // step) * step


def _covered(axis: Axis) -> int:
    """Positions that the windows reach, padding included."""
    return (axis.outputs - 1) * axis.stride + axis.reach


def _pad(b: Builder, x: str, padding: tuple[Pair, ...], suffix: str) -> str:
    """x with zeros around it, or x itself where there are none."""
    return b.add(ops.Pad(padding), x, suffix=suffix) if any(map(any, padding)) else x


def _taps_side_by_side(b: Builder, x: str, depth: Axis, around: Pair, groups: int) -> str:
    """x (N, D, H, W, C) -> (N, P * height, W, kd * C): each slab beside those of its window's other taps.

    around: rows added above and below each slab. The channels of a group stay together.
    """
    _few_taps(b, depth.size)
    s, outputs = depth.stride, depth.outputs
    offsets = [tap * depth.dilation for tap in range(depth.size)]
    steps = max(-(-(depth.padding[0] + depth.n) // s), offsets[-1] // s + outputs)
    behind = steps * s - depth.padding[0] - depth.n
    x = _pad(b, x, ((depth.padding[0], behind), around, NONE, NONE), "padded")
    _, height, width, taken = b.type(x).size()[1:]
    # With the depth as (steps, s), tap `offset` of every window is one slice.
    pixels = (height * width * groups, taken // groups)
    x = b.add(ops.Reshape((steps, s, *pixels)), x, suffix="by_step")
    taps = [
        cut(b, x, (offset // s, offset % s, 0, 0), (offset // s + outputs, offset % s + 1, *pixels), "tap")
        for offset in offsets
    ]
    x = b.add(ops.Concat(-1), *taps, suffix="taps") if len(taps) > 1 else taps[0]
    return b.add(ops.Reshape((outputs * height, width, len(taps) * taken)), x, suffix="stacked")


def _few_taps(b: Builder, count: int) -> None:
    """Raise ShapeError for more taps along the depth than copies may be made."""
    if count > MOST_PARTS:
        raise b.fail(f"has a kernel of {count:,} steps in depth; at most {MOST_PARTS:,} are computed")


def _taps_as_channels(b: Builder, kernel: str) -> str:
    """A kernel (kd, kh, kw, a, b) as (kh, kw, kd * a, b)."""
    taps, height, width, first, second = b.type(kernel).size()
    if taps > 1:
        kernel = b.add(ops.Transpose((1, 2, 0, 3, 4)), kernel, suffix="kernel_by_pixel")
    flat = ops.Reshape((height, width, taps * first, second), batched=False)
    return b.add(flat, kernel, suffix="kernel_of_slabs")


# -- the transpose -------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Spread:
    """A transposed window along one axis: n inputs, each spread over `size` taps, `stride` apart.

    outputs: how many positions of the spread there are, from position `before` of it on.
    """

    n: int
    size: int
    stride: int
    dilation: int
    outputs: int
    before: int

    @property
    def full(self) -> int:
        """Positions that some input is spread to."""
        return (self.n - 1) * self.stride + extent(self.size, self.dilation)

    @property
    def padding(self) -> Pair:
        """Of the convolution, from `outputs` to n positions, of which this is the transpose."""
        return self.before, max(0, self.full - self.before - self.outputs)

    @property
    def steps(self) -> int:
        """Steps of `stride` positions that hold both the spread and the outputs."""
        return -(-max(self.full, self.before + self.outputs) // self.stride)


def spread_volume(b: Builder, x: str, kernel: str, axes: tuple[Spread, ...]) -> str:
    """x (N, P, Q, R, K), kernel (kd, kh, kw, C, K) -> (N, D, H, W, C), the transpose of `convolve_volume`.

    One two-dimensional transposed convolution gives kd * C channels of stacked slabs. Beside it: x is copied
    once, its slabs spaced so that their results do not overlap, and the result once, to put the taps in
    front; where taps along the depth overlap, each step's share of them is copied twice and added.
    """
    depth, rows, columns = axes
    _few_taps(b, depth.size)
    taken = b.type(x).channels
    x = _pad(b, x, (NONE, (0, rows.steps - rows.n), NONE, NONE), "spaced")
    x = b.add(ops.Reshape((depth.n * rows.steps, columns.n, taken)), x, suffix="stacked")
    height = rows.steps * rows.stride
    reach = extent(rows.size, rows.dilation)
    op = ops.Conv2DTranspose(
        (rows.stride, columns.stride),
        ((0, max(0, reach - rows.stride)), columns.padding),
        (rows.dilation, columns.dilation),
        input_size=(depth.n * height, columns.outputs),
    )
    y = b.add(op, x, _taps_as_channels(b, kernel), suffix="spread")
    return _taps_to_depth(b, y, depth, rows, columns)


def _taps_to_depth(b: Builder, y: str, depth: Spread, rows: Spread, columns: Spread) -> str:
    """Stacked slabs (N, P * height, W, kd * C) -> (N, D, H, W, C), each tap at the depth it spreads to.

    The first s taps of a slab lie at neighbouring depths, s being the stride, and are one block of a step;
    the next s, a step further, are added to the following slab's first.
    """
    n, s, steps = depth.n, depth.stride, depth.steps
    made = b.type(y).channels // depth.size
    height, width = b.type(y).size()[1] // n, columns.outputs
    if depth.size > 1:
        y = b.add(ops.Reshape((n, height, width, depth.size, made)), y, suffix="slabs")
        y = b.add(ops.Transpose((0, 1, 4, 2, 3, 5)), y, suffix="taps_by_slab")
    y = b.add(ops.Reshape((n, depth.size, height * width * made)), y, suffix="taps")
    blocks = -(-depth.size // s)
    y = _pad(b, y, (NONE, (0, blocks * s - depth.size), NONE), "taps_of_whole_steps")
    y = b.add(ops.Reshape((n, blocks, s, height, width, made)), y, suffix="steps")
    slab = (rows.outputs, width, made)
    total = ""
    for block in range(blocks):
        starts = (0, block, 0, rows.before, 0, 0)
        part = cut(b, y, starts, (n, block + 1, s, rows.before + rows.outputs, width, made), "block")
        part = b.add(ops.Reshape((n, s * prod(slab))), part, suffix="block")
        step = block * depth.dilation
        part = _pad(b, part, ((step, steps - step - n), NONE), "block_in_place")
        total = b.add(ops.Add(), total, part, suffix="blocks") if total else part
    y = b.add(ops.Reshape((steps * s, *slab)), total, suffix="depth")
    return cut(b, y, (depth.before, 0, 0, 0), (depth.before + depth.outputs, *slab), "cut")


# -- pooling -------------------------------------------------------------------------------------------------
PoolOp = type[ops.MaxPool2D] | type[ops.AveragePool2D]


def pool_volume(b: Builder, x: str, op: PoolOp, axes: Axes) -> str:
    """Pooling of (N, D, H, W, C) in two kernels: along the width, then over depth and height.

    Views put the pooled axes first: rows of pixels (N, D * H, W, C), then (N, D, H, W * C). A maximum of
    maxima is the maximum; a mean of means is the mean, since the real elements of a window are as many as the
    product of those along each axis.
    """
    depth, rows, columns = axes
    taken = b.type(x).channels
    if not columns.trivial:
        x = b.add(ops.Reshape((depth.n * rows.n, columns.n, taken)), x, suffix="rows")
        x = b.add(op((1, columns.size), (1, columns.stride), (NONE, columns.padding)), x, suffix="width")
    if not (depth.trivial and rows.trivial):
        x = b.add(ops.Reshape((depth.n, rows.n, columns.outputs * taken)), x, suffix="depth_and_height")
        x = b.add(op((depth.size, rows.size), (depth.stride, rows.stride), (depth.padding, rows.padding)), x)
    shape = (depth.outputs, rows.outputs, columns.outputs, taken)
    return b.add(ops.Reshape(shape), x, suffix="volume")
