"""Gradients of convolution and matrix product."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ...graph.ops import Conv2DDataGrad, Conv2DTranspose, Conv2DWeightGrad, DenseDataGrad, DenseWeightGrad
from .forms import Form, form, like, wide
from .layout import kernel_to_ir, kernel_to_torch, pad_image, split_padding, to_nchw, to_nhwc

Gradients = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def _backward(op: Conv2DDataGrad | Conv2DWeightGrad) -> Callable[..., Gradients]:
    """aten's convolution_backward with the op's geometry: (dy, x, w, bias sizes, mask) -> (dx, dw, db)."""
    _, padding = split_padding(op.padding)

    def run(
        dy: torch.Tensor, x: torch.Tensor, w: torch.Tensor, bias_sizes: list[int] | None, mask: list[bool]
    ) -> Gradients:
        result: Gradients = torch.ops.aten.convolution_backward.default(
            dy, x, w, bias_sizes, op.strides, padding, op.dilation, False, (0, 0), op.groups, mask
        )
        return result

    return run


def _unread(like: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    """A tensor of which only size and layout matter: the operator asks for it, and does not read it."""
    return torch.empty(size, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


@form(Conv2DDataGrad, Conv2DTranspose)
def _data_grad(op: Conv2DDataGrad) -> Form:
    outer, _ = split_padding(op.padding)
    (top, bottom), (left, right) = outer or ((0, 0), (0, 0))
    height, width = op.input_size
    backward = _backward(op)

    def run(dy: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        channels = w.shape[2] * op.groups
        image = _unread(dy, (dy.shape[0], channels, height + top + bottom, width + left + right))
        dx, _, _ = backward(to_nchw(dy), image, kernel_to_torch(like(dy, w)), None, [True, False, False])
        if outer is not None:
            dx = dx[:, :, top : top + height, left : left + width]
        return to_nhwc(dx)

    return run


@dataclass
class ConvolutionWeightGrad:
    """Gradient of the kernel, and in the same call that of the bias where asked for."""

    op: Conv2DWeightGrad
    with_bias: bool = False

    def __post_init__(self) -> None:
        self.outer, _ = split_padding(self.op.padding)
        self.backward = _backward(self.op)

    def __call__(self, x: torch.Tensor, dy: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.outer is not None:
            x = pad_image(x, self.outer)
        k = dy.shape[3]
        kernel = _unread(dy, (k, x.shape[3] // self.op.groups, *self.op.kernel_size))
        image, mask = to_nchw(like(dy, x)), [False, True, self.with_bias]
        _, dw, db = self.backward(to_nchw(dy), image, kernel, [k] if self.with_bias else None, mask)
        kept = wide(dy.dtype)
        return kernel_to_ir(dw).to(kept), db.to(kept) if self.with_bias else db


@form(Conv2DWeightGrad)
def _weight_grad(op: Conv2DWeightGrad) -> Form:
    joint = ConvolutionWeightGrad(op)
    return lambda x, dy: joint(x, dy)[0]


@form(DenseDataGrad)
def _dense_data_grad(op: DenseDataGrad) -> Form:
    def run(dy: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return dy @ like(dy, w).t()

    return run


@form(DenseWeightGrad)
def _dense_weight_grad(op: DenseWeightGrad) -> Form:
    def run(x: torch.Tensor, dy: torch.Tensor) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1])
        return (rows.t() @ like(x, dy).reshape(-1, dy.shape[-1])).to(wide(x.dtype))

    return run
