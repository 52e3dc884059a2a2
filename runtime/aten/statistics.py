"""Batch norm's statistics and its two gradient sums, each in one pass of PyTorch's own batch norm."""

from __future__ import annotations

import torch

from ...graph.ops import Normalize
from .forms import Form, like, wide
from .layout import to_nchw


def statistics(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """x (N, ..., C) -> the mean and the biased variance of each channel: (C,) both, in float32 at least.

    PyTorch's batch norm takes the two together, and over images many times as fast as its own variance.
    """
    x = x.to(wide(x.dtype))
    if x.ndim != 4:
        x = x.reshape(x.shape[0], -1, 1, x.shape[-1])
    mean, found = torch.ops.aten.batch_norm_update_stats.default(to_nchw(x), None, None, 0.0)
    return mean, found


def variance(x: torch.Tensor) -> torch.Tensor:
    """x (N, ..., C) -> the biased variance of each channel: (C,)."""
    return statistics(x)[1]


def norm_gradient_sums(op: Normalize) -> Form:
    """dy, x (N, H, W, C), mean, variance (C,) -> each channel's sums of dy and of dy * normalized x."""
    backward = torch.ops.aten.native_batch_norm_backward.default

    def run(
        dy: torch.Tensor, x: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        # The operator takes one dtype; moving statistics stay float32 where a network computes in float64.
        mean, rstd = like(x, mean), torch.rsqrt(like(x, variance) + op.epsilon)
        unread = (None, None, None)  # weight and moving statistics: the sums do not depend on them
        _, d_gamma, d_beta = backward(
            to_nchw(dy), to_nchw(x), *unread, mean, rstd, True, op.epsilon, [False, True, True]
        )
        return d_beta, d_gamma

    return run
