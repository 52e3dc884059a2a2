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
        starts = _starts(flat.shape[2:], op.strides, padding, x.shape[2], x.device)
        # Half as wide as the operator's own int64, and so half as long to work through.
        offset = to_nhwc(flat).to(torch.int32).sub_(starts)
        row = _quotient(offset, x.shape[2], op.size[0])
        return to_nhwc(values), offset.sub_(row.mul_(x.shape[2] - op.size[1])).to(dtype)

    return run


@lru_cache(maxsize=256)
def _starts(outputs: Pair, strides: Pair, padding: Padding, width: int, device: torch.device) -> torch.Tensor:
    """Flat position in the image of every window's first element: (P, Q, 1)."""
    rows = torch.arange(outputs[0], device=device) * strides[0] - padding[0][0]
    cols = torch.arange(outputs[1], device=device) * strides[1] - padding[1][0]
    return (rows[:, None] * width + cols)[..., None].to(torch.int32)


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

    def run(dy: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        starts = _starts((dy.shape[1], dy.shape[2]), op.strides, op.padding, width, dy.device)
        flat = index.to(torch.int32)
        row = _quotient(flat, op.size[1], op.size[0])
        flat = flat.add_(row.mul_(width - op.size[1])).add_(starts)
        if not inside:
            # A window of nothing but -inf may name a place outside the image; the operator does not check.
            flat.clamp_(0, height * width - 1)
        image = dy.new_empty(dy.shape[0], height, width, dy.shape[3])
        return to_nhwc(backward(to_nchw(dy), to_nchw(image), *place, to_nchw(flat.long())))

    return run


def _quotient(value: torch.Tensor, step: int, count: int) -> torch.Tensor:
    """value // step for values in [0, count * step): comparisons run as vector code, integer division not."""
    if count > 8:
        return value.div(step, rounding_mode="floor")
    total = (value >= step).to(value.dtype)
    for multiple in range(2, count):
        total += value >= multiple * step
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
