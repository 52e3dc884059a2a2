"""Images under transforms: torch's own sampling where it knows the filling, else as the op is defined."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ...graph.ops import Warp, WarpGrad
from .forms import Form, form, like, wide

PADDING = {"constant": "zeros", "nearest": "border", "reflect": "reflection"}
"""Fill mode -> torch's name for it, where pixels are squares about whole numbers (align_corners=False)."""


@form(Warp)
def _warp(op: Warp) -> Form:
    if op.interpolation == "nearest" or op.fill_mode not in PADDING:
        return _as_defined(op)

    def run(x: torch.Tensor, transform: torch.Tensor) -> torch.Tensor:
        image = x.to(wide(x.dtype))
        if fill := op.fill_value if op.fill_mode == "constant" else 0.0:
            image = image - fill  # the padding is 0
        batch, height, width, _ = x.shape
        down, across = op.places(transform.to(image.dtype), batch, op.size, (height, width))
        grid = torch.stack([(2 * across + 1) / width - 1, (2 * down + 1) / height - 1], -1)
        found = F.grid_sample(
            image.permute(0, 3, 1, 2), grid, padding_mode=PADDING[op.fill_mode], align_corners=False
        )
        found = found.permute(0, 2, 3, 1)
        return like(x, found + fill if fill else found)

    return run


@form(WarpGrad)
def _as_defined(op: Warp | WarpGrad) -> Form:
    def run(x: torch.Tensor, transform: torch.Tensor) -> torch.Tensor:
        return like(x, op.reference(x.to(wide(x.dtype)), transform))

    return run
