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
        terms = _terms(op, x)
        if terms is None:
            x, terms = pad_image(x, op.padding, float("-inf")), Native((0, 0), False)
        return to_nhwc(torch.max_pool2d(to_nchw(x), op.size, op.strides, terms.padding, 1, terms.ceil_mode))

    return run


def max_pool_with_index(op: MaxPool2D | MaxPoolIndex2D) -> Form:
    """x -> (its maxima, the winners' positions in their windows)."""
    dtype = torch.uint8 if prod(op.size) <= 255 else torch.int32

    def run(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        padding, terms = op.padding, _terms(op, x)
        # A flat position tells row and column apart only where the window is no wider than the image.
        if terms is None or op.size[1] > x.shape[2]:
            x, padding, terms = pad_image(x, padding, float("-inf")), ((0, 0), (0, 0)), Native((0, 0), False)
        values, flat = torch.ops.aten.max_pool2d_with_indices.default(
            to_nchw(x), op.size, op.strides, terms.padding, (1, 1), terms.ceil_mode
        )
        width = x.shape[2]
        offset = to_nhwc(flat) - _starts(flat.shape[2:], op.strides, padding, width, x.device)
        row = offset.div(width, rounding_mode="floor")
        return to_nhwc(values), offset.sub_(row.mul_(width - op.size[1])).to(dtype)

    return run


@lru_cache(maxsize=256)
def _starts(outputs: Pair, strides: Pair, padding: Padding, width: int, device: torch.device) -> torch.Tensor:
    """Flat position in the image of every window's first element: (P, Q, 1)."""
    rows = torch.arange(outputs[0], device=device) * strides[0] - padding[0][0]
    cols = torch.arange(outputs[1], device=device) * strides[1] - padding[1][0]
    return (rows[:, None] * width + cols)[..., None]


@form(MaxPoolIndex2D)
def _max_pool_index(op: MaxPoolIndex2D) -> Form:
    both = max_pool_with_index(op)
    return lambda x: both(x)[1]


@form(MaxUnpool2D)
def _max_unpool(op: MaxUnpool2D) -> Form:
    if op.size == op.strides and op.padding == ((0, 0), (0, 0)):
        return _unpool_tiles(op)
    terms = native(op.input_size, *op.geometry())
    if terms is None:
        return op.reference
    height, width = op.input_size

    def run(dy: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        starts = _starts((dy.shape[1], dy.shape[2]), op.strides, op.padding, width, dy.device)
        flat = index.long()
        row = flat.div(op.size[1], rounding_mode="floor")
        # A window of nothing but -inf may name a place outside the image; the operator does not check.
        flat = flat.add_(row.mul_(width - op.size[1])).add_(starts).clamp_(0, height * width - 1)
        image = dy.new_empty(dy.shape[0], height, width, dy.shape[3])
        place = (op.size, op.strides, terms.padding, (1, 1), terms.ceil_mode)
        backward = torch.ops.aten.max_pool2d_with_indices_backward.default
        dx = backward(to_nchw(dy), to_nchw(image), *place, to_nchw(flat))
        return to_nhwc(dx)

    return run


def _unpool_tiles(op: MaxUnpool2D) -> Form:
    """Windows that lie side by side: one product with a mask, written where it belongs."""
    (r, s), (height, width) = op.size, op.input_size

    def run(dy: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        n, p, q, c = dy.shape
        place = torch.arange(r * s, dtype=index.dtype, device=dy.device).view(1, 1, r, 1, s, 1)
        chosen = index.reshape(n, p, 1, q, 1, c) == place
        tiles = (dy.reshape(n, p, 1, q, 1, c) * chosen).view(n, p * r, q * s, c)
        return _with_border(tiles, height, width)

    return run


def _with_border(tiles: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Zeros for the rows and columns that no window covers."""
    bottom, right = height - tiles.shape[1], width - tiles.shape[2]
    return F.pad(tiles, (0, 0, 0, right, 0, bottom)) if bottom or right else tiles


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
