"""The convolution of one small image with a large kernel as one matrix product, windows side by side.

Measured in float32 with one thread: 5x5 from 6 channels to 16 at 14x14 takes 15 us here and 34 us in oneDNN,
from 1 channel to 6 at 28x28 24 and 38 us. For kernels up to 3x3 torch.conv2d has a fast path of its own.
"""

from __future__ import annotations

import torch

from ...graph.windows import Pair
from .layout import pad_image

SMALL = 1_000_000
"""Multiply-adds up to which the copy of the windows costs less than a call of oneDNN."""
FEW_CHANNELS = 4
"""Channels below which a row of a window is too short to be copied by itself: whole rows of pixels are."""


def worthwhile(x: torch.Tensor, kernel: Pair, macs: int) -> bool:
    return x.device.type == "cpu" and x.shape[0] == 1 and max(kernel) > 3 and macs <= SMALL


def convolve(
    x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor | None, padding: Pair, strides: Pair
) -> torch.Tensor:
    """x (1, H, W, C), w (R, S, C, K), bias (K,) -> (1, P, Q, K)."""
    if padding != (0, 0):
        x = pad_image(x, ((padding[0], padding[0]), (padding[1], padding[1])))
    _, height, width, c = x.shape
    r, s, _, k = w.shape
    p, q = (height - r) // strides[0] + 1, (width - s) // strides[1] + 1
    matrix = w.permute(3, 0, 1, 2).reshape(k, -1).t()  # a view of a weight that is `laid_out`
    line = width * c
    down, right = strides[0] * line, strides[1] * c
    if c < FEW_CHANNELS:
        windows = x.as_strided((r, s * c, p, q), (line, 1, down, right)).reshape(-1, p * q)
        columns = _product(matrix.t(), windows, None if bias is None else bias[:, None])
        return columns.t().contiguous().view(1, p, q, k)
    windows = x.as_strided((p, q, r, s * c), (down, right, line, 1)).reshape(p * q, -1)
    return _product(windows, matrix, bias).view(1, p, q, k)


def _product(a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return a @ b if bias is None else torch.addmm(bias, a, b)
