"""Transposed convolution with its bias, by a weight packed once."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from ...graph.ops import Conv2DTranspose
from . import onednn
from .forms import form_of, like
from .layout import kernel_to_torch, split_padding, to_nchw, to_nhwc
from .packing import PackedWeight


@dataclass
class TransposedConvolution:
    """conv_transpose(x, w) + bias, where a bias is given; for weights that stay the same over many calls.

    PyTorch's own operator packs the weight anew at each call, and adds the bias in a pass of its own.
    """

    op: Conv2DTranspose
    with_bias: bool = False
    _packed: PackedWeight = field(default_factory=PackedWeight)

    def __post_init__(self) -> None:
        op = self.op
        self.outer, inner = split_padding(op.padding)
        self.geometry = onednn.Geometry(inner, op.strides, op.dilation, op.groups)
        self.plain = form_of(op)

    def __call__(self, x: torch.Tensor, w: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        bias = like(x, rest[0]) if self.with_bias else None
        if self.outer is None and onednn.usable(x) and onednn.transposing(x.dtype):
            return self._packed_product(x, w, bias)
        y: torch.Tensor = self.plain(x, w)
        return y if bias is None else y.add_(bias)

    def _packed_product(self, x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        image, g, over = to_nchw(x), self.geometry, self._left_over(x, w)
        size = image.shape
        packed = self._packed.get(
            w, size, lambda w: onednn.pack_transposed(kernel_to_torch(like(x, w)), g, over, size)
        )
        return to_nhwc(onednn.transpose(image, packed, bias, g, over))

    def _left_over(self, x: torch.Tensor, w: torch.Tensor) -> tuple[int, int]:
        """Rows and columns of the result that lie behind its last window."""
        g = self.geometry
        rows, columns = (
            wanted - ((n - 1) * stride - 2 * pad + dilation * (size - 1) + 1)
            for wanted, n, stride, pad, dilation, size in zip(
                self.op.input_size, x.shape[1:3], g.strides, g.padding, g.dilation, w.shape[:2], strict=True
            )
        )
        return rows, columns
