"""Images under transforms: as they are defined, with sums in float32 at least."""

from __future__ import annotations

import torch

from ...graph.ops import Warp, WarpGrad
from .forms import Form, form, like, wide


@form(Warp, WarpGrad)
def _warp(op: Warp | WarpGrad) -> Form:
    def run(x: torch.Tensor, transform: torch.Tensor) -> torch.Tensor:
        return like(x, op.reference(x.to(wide(x.dtype)), transform))

    return run
