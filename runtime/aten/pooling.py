"""Pooling and its gradients."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import torch
import torch.nn.functional as F

from ...graph.ops import AveragePool2D, AverageUnpool2D, MaxPool2D, MaxPoolIndex2D, MaxUnpool2D
from ...graph.windows import Padding, Pair, output_size
from .forms import Form, form
from .layout import pad_image, to_nchw, to_nhwc


@dataclass(frozen=True)
class Native:
    """Windows in the operators' terms: they pad both sides alike; ceil_mode adds a last, partial window."""

    padding: Pair
    ceil_mode: bool


@lru_cache(maxsize=1024)
def native(spatial: Pair, size: Pair, strides: Pair, padding: Padding) -> Native | None:
    """The operators' terms for these windows, or None where they have none.

    What lies outside the image neither wins a maximum nor counts in a mean, so only where windows start and
    how many there are matters: padding after the data is the operators' ceil_mode.
    """
    before = (padding[0][0], padding[1][0])
    axes = list(zip(spatial, size, strides, padding, strict=True))
    if any(2 * p > f for p, f in zip(before, size, strict=True)):
        return None
    wanted = [output_size(n, f, s, p) for n, f, s, p in axes]
    for ceil_mode in (False, True):
        given = [_outputs(n, f, s, p[0], ceil_mode) for n, f, s, p in axes]
        if given == wanted:
            return Native(before, ceil_mode)
    return None


def _outputs(n: int, size: int, stride: int, pad: int, ceil_mode: bool) -> int:
    """PyTorch's count of windows: in ceil_mode a last one may be partial, if it starts inside the data."""
    if not ceil_mode:
        return output_size(n, size, stride, (pad, pad))
    count = -((size - n - 2 * pad) // stride) + 1
    return count - 1 if (count - 1) * stride >= n + pad else count


def _terms(op: Any, x: torch.Tensor) -> Native | None:
    return native((x.shape[1], x.shape[2]), op.size, op.strides, op.padding)


@form(MaxPool2D)
def _max_pool(op: MaxPool2D) -> Form:
    def run(x: torch.Tensor) -> torch.Tensor:
        if _worth_slicing(op, x):
            rows = torch.maximum(*_halves(x, axis=1))
            return torch.maximum(*_halves(rows, axis=2))
        terms = _terms(op, x)
        if terms is None:
            x, terms = pad_image(x, op.padding, float("-inf")), Native((0, 0), False)
        return to_nhwc(torch.max_pool2d(to_nchw(x), op.size, op.strides, terms.padding, 1, terms.ceil_mode))

    return run


def max_pool_with_index(op: MaxPool2D | MaxPoolIndex2D) -> Form:
    """x -> (its maxima, the winners' positions in their windows)."""
    dtype = torch.uint8 if prod(op.size) <= 255 else torch.int32

    def run(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if x.shape[3] < VECTOR and _worth_slicing(op, x):
            values, place = _maxima_of_pairs(x)
            if not values.sum().isnan():  # comparisons do not find NaN's place: the operator does
                return values, place
        padding, terms = op.padding, _terms(op, x)
        first = None
        # A flat position tells row and column apart only where the window is no wider than the image.
        if terms is None or op.size[1] > x.shape[2]:
            first = _first_on_map(op, x.device)
            x, padding, terms = pad_image(x, padding, float("-inf")), ((0, 0), (0, 0)), Native((0, 0), False)
        values, flat = torch.ops.aten.max_pool2d_with_indices.default(
            to_nchw(x), op.size, op.strides, terms.padding, (1, 1), terms.ceil_mode
        )
        narrow = _narrow(op.size, x.shape[2])
        starts = _starts(flat.shape[2:], op.strides, padding, x.shape[2], x.device, narrow)
        offset = to_nhwc(flat).to(narrow).sub_(starts)
        row = _quotient(offset, x.shape[2], op.size[0])
        values, place = to_nhwc(values), offset.sub_(row.mul_(x.shape[2] - op.size[1])).to(dtype)
        return values, place if first is None else torch.where(values == float("-inf"), first(place), place)

    return run


def _first_on_map(op: MaxPool2D | MaxPoolIndex2D, device: torch.device) -> Form:
    """Positions -> the first in each window that is no padding, which a window of nothing but -inf names."""

    def run(place: torch.Tensor) -> torch.Tensor:
        down, across = (
            (pads[0] - torch.arange(count, device=device) * step).clamp(min=0)
            for pads, count, step in zip(op.padding, place.shape[1:3], op.strides, strict=True)
        )
        return (down[:, None] * op.size[1] + across)[..., None].to(place.dtype)

    return run


# -- 2x2 windows side by side: a maximum over columns, then over rows ----------
VECTOR = 16
"""Channels below which the operator's loop over them is not vector code: six take it as long as sixty."""
SMALL_MAP = 40_000
SMALL_MAP_OF_FEW_CHANNELS = 4_000
"""Elements of a map below which one operator call beats the several that slices take.

Measured in float32 with one thread: 32 x 28 x 28 x 6 takes 354 us in the operator and 50 us here,
32 x 32 x 32 x 64 takes 535 and 263 us.
"""


def _worth_slicing(op: MaxPool2D | MaxPoolIndex2D, x: torch.Tensor) -> bool:
    apart = op.size == op.strides == (2, 2) and op.padding == ((0, 0), (0, 0))
    whole = x.shape[1] % 2 == x.shape[2] % 2 == 0
    least = SMALL_MAP_OF_FEW_CHANNELS if x.shape[3] < VECTOR else SMALL_MAP
    return apart and whole and x.device.type == "cpu" and x.numel() >= least


def _halves(x: torch.Tensor, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The even and the odd slices of axis 1 or 2."""
    return (x[:, 0::2], x[:, 1::2]) if axis == 1 else (x[:, :, 0::2], x[:, :, 1::2])


def _maxima_of_pairs(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Maxima of 2x2 windows and their positions 2 * row + column, the first of equal ones."""
    left, right = _halves(x, axis=2)
    upper, lower = _halves(torch.maximum(left, right), axis=1)
    column_above, column_below = _halves((right > left).view(torch.uint8), axis=1)
    row = (lower > upper).view(torch.uint8)
    # Bits, since a choice by torch.where takes four times as long: above ^ (above ^ below) is below.
    column = (column_above ^ column_below).bitwise_and_(row).bitwise_xor_(column_above)
    return torch.maximum(upper, lower), column.bitwise_or_(row.bitwise_left_shift_(1))


def _narrow(size: Pair, width: int) -> torch.dtype:
    """The narrowest integers for places counted from a window's first element, in an image of this width.

    The operator's own int64 takes up to eight times as long to work through. What is cut off of it wraps
    around, and is back after the subtraction of a start that was cut off alike.
    """
    last = (size[0] - 1) * width + size[1] - 1
    return torch.uint8 if last < 2**8 else torch.int16 if last < 2**15 else torch.int32


@lru_cache(maxsize=256)
def _starts(
    outputs: Pair, strides: Pair, padding: Padding, width: int, device: torch.device, dtype: torch.dtype
) -> torch.Tensor:
    """Flat position in the image of every window's first element: (P, Q, 1)."""
    rows = torch.arange(outputs[0], device=device) * strides[0] - padding[0][0]
    cols = torch.arange(outputs[1], device=device) * strides[1] - padding[1][0]
    return (rows[:, None] * width + cols)[..., None].to(dtype)


@form(MaxPoolIndex2D)
def _max_pool_index(op: MaxPoolIndex2D) -> Form:
    both = max_pool_with_index(op)
    return lambda x: both(x)[1]


@form(MaxUnpool2D)
def _max_unpool(op: MaxUnpool2D) -> Form:
    terms = native(op.input_size, *op.geometry())
    if terms is None:
        return op.reference
    height, width = op.input_size
    place = (op.size, op.strides, terms.padding, (1, 1), terms.ceil_mode)
    backward = torch.ops.aten.max_pool2d_with_indices_backward.default
    inside = terms.padding == (0, 0) and not terms.ceil_mode
    narrow = _narrow(op.size, max(width, op.size[1]))  # a window may be wider than the image

    def run(dy: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        starts = _starts((dy.shape[1], dy.shape[2]), op.strides, op.padding, width, dy.device, torch.int64)
        index = index.to(narrow)
        row = _quotient(index, op.size[1], op.size[0])
        flat = torch.add(row.mul_(width - op.size[1]).add_(index), starts)
        if not inside:
            # Our own forward pass names places on the map; the operator does not check what another names.
            flat.clamp_(0, height * width - 1)
        image = dy.new_empty(dy.shape[0], height, width, dy.shape[3])
        return to_nhwc(backward(to_nchw(dy), to_nchw(image), *place, to_nchw(flat)))

    return run


def _quotient(value: torch.Tensor, step: int, count: int) -> torch.Tensor:
    """value // step for integers in [0, count * step): bounds and sums run as vector code, division and most
    comparisons not."""
    if count > 8:
        return value.div(step, rounding_mode="floor")
    parts = [value.clamp(k * step - 1, k * step).sub_(k * step - 1) for k in range(1, count)]
    total = parts[0] if parts else torch.zeros_like(value)
    for part in parts[1:]:
        total += part
    return total


@form(AveragePool2D)
def _average_pool(op: AveragePool2D) -> Form:
    def run(x: torch.Tensor) -> torch.Tensor:
        terms = _terms(op, x)
        if terms is None:
            return op.reference(x)
        place = (op.size, op.strides, terms.padding, terms.ceil_mode)
        return to_nhwc(F.avg_pool2d(to_nchw(x), *place, count_include_pad=False))

    return run


@form(AverageUnpool2D)
def _average_unpool(op: AverageUnpool2D) -> Form:
    terms = native(op.input_size, *op.geometry())
    if terms is None:
        return op.reference
    padding, ceil_mode = terms.padding, terms.ceil_mode

    def run(dy: torch.Tensor) -> torch.Tensor:
        image = dy.new_empty(dy.shape[0], *op.input_size, dy.shape[3])
        dx = torch.ops.aten.avg_pool2d_backward.default(
            to_nchw(dy), to_nchw(image), op.size, op.strides, padding, ceil_mode, False, None
        )
        return to_nhwc(dx)

    return run
