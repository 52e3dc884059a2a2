"""The IR's layouts against PyTorch's: both channels-last in memory, with other names for the axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from ...graph.windows import Padding, Pair

Lay = Callable[[torch.Tensor], torch.Tensor]


def to_nchw(x: torch.Tensor) -> torch.Tensor:
    """(N, H, W, C) -> the same memory seen as (N, C, H, W) in channels_last."""
    return x.permute(0, 3, 1, 2)


def to_nhwc(x: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W) -> (N, H, W, C), contiguous; a copy only where x was not channels_last."""
    return x.permute(0, 2, 3, 1).contiguous()


def kernel_to_torch(w: torch.Tensor) -> torch.Tensor:
    """(R, S, C, K) -> (K, C, R, S) in channels_last; a copy only where w is not `laid_out` so.

    As a transpose of one matrix: PyTorch has a blocked copy for that, 2 to 7 times as fast for large kernels
    as its copy along permuted axes.
    """
    seen = w.permute(3, 2, 0, 1)
    if seen.is_contiguous(memory_format=torch.channels_last):
        return seen
    r, s, c, k = w.shape
    return w.reshape(r * s * c, k).t().contiguous().view(k, r, s, c).permute(0, 3, 1, 2)


def kernel_to_ir(w: torch.Tensor) -> torch.Tensor:
    """The inverse: (K, C, R, S) -> (R, S, C, K), laid out as a weight."""
    return w.contiguous(memory_format=torch.channels_last).permute(2, 3, 1, 0)


def pad_image(x: torch.Tensor, padding: Padding, value: float = 0.0) -> torch.Tensor:
    """x (N, H, W, C) with `value` around it."""
    (top, bottom), (left, right) = padding
    return F.pad(x, (0, 0, left, right, top, bottom), value=value)


def split_padding(padding: Padding) -> tuple[Padding | None, Pair]:
    """Padding as (what must be laid around the image first, what the operator pads by itself)."""
    (top, bottom), (left, right) = padding
    if top == bottom and left == right:
        return None, (top, left)
    return padding, (0, 0)


def contiguous(run: Callable[..., Any], ways: Sequence[Lay]) -> Callable[..., Any]:
    """A call whose results, one or a tuple, are laid out in these ways."""
    if len(ways) == 1:
        lay = ways[0]
        return lambda *operands: lay(run(*operands))
    return lambda *operands: tuple(lay(value) for lay, value in zip(ways, run(*operands), strict=True))
