"""Resizing by PyTorch's operators: its own where they mean the same, else a product an axis."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ...graph.ops import Resize, ResizeGrad
from .forms import Form, form, wide


@form(Resize)
def _resize(op: Resize) -> Form:
    if op.method == "nearest":
        return lambda x: _copied(op, x)
    if (order := _bilinear_order(op)) is not None:
        return lambda x, *weights: (
            _bilinear(op, order, x) if x.dim() == 4 else _products(op, x, [w.t() for w in weights])
        )
    return lambda x, *weights: _products(op, x, [w.t() for w in weights])


@form(ResizeGrad)
def _resize_grad(op: ResizeGrad) -> Form:
    if op.method == "nearest":
        return lambda dy: _added(op, dy)
    if (order := _bilinear_order(op)) is not None:
        return lambda dy, *weights: (
            _bilinear_grad(op, order, dy) if dy.dim() == 4 else _products(op, dy, list(weights))
        )
    return lambda dy, *weights: _products(op, dy, list(weights))


# -- nearest ----------
def _copied(op: Resize, x: torch.Tensor) -> torch.Tensor:
    """Repeated in one pass along all axes that grow by a whole factor, picked by index along others."""
    shape, sizes = x.shape, dict(zip(op.axes, op.sizes, strict=True))
    times = {axis: size // shape[axis] for axis, size in sizes.items() if size % shape[axis] == 0}
    apart = [part for dim in shape for part in (dim, 1)]
    spread = [part for axis, dim in enumerate(shape) for part in (dim, times.get(axis, 1))]
    copies = x.reshape(apart).expand(spread).clone(memory_format=torch.contiguous_format)
    x = copies.view([dim * times.get(axis, 1) for axis, dim in enumerate(shape)])
    for axis, size in sizes.items():
        if axis not in times:
            x = x.index_select(axis, _nearest(shape[axis], size, x.device))
    return x


def _added(op: ResizeGrad, dy: torch.Tensor) -> torch.Tensor:
    """The copies of a place summed, in one pass along all axes where they are equally many."""
    shape, sizes = dy.shape, dict(zip(op.axes, op.sizes, strict=True))
    times = {axis: shape[axis] // size for axis, size in sizes.items() if shape[axis] % size == 0}
    total = dy.to(wide(dy.dtype))
    if times:
        parts = [(dim // times.get(axis, 1), times.get(axis, 1)) for axis, dim in enumerate(shape)]
        total = total.reshape([part for pair in parts for part in pair])
        total = total.sum([2 * axis + 1 for axis in range(len(shape))])
    for axis, size in sizes.items():
        if axis not in times:
            made = (*total.shape[:axis], size, *total.shape[axis + 1 :])
            index = _nearest(size, shape[axis], dy.device)
            total = total.new_zeros(made).index_add_(axis, index, total)
    return total.to(dy.dtype)


def _nearest(source: int, size: int, device: torch.device) -> torch.Tensor:
    """floor((i + 1/2) source / size) for each i below `size`."""
    return (2 * torch.arange(size, device=device) + 1) * source // (2 * size)


# -- bilinear images ----------
def _bilinear_order(op: Resize | ResizeGrad) -> tuple[int, ...] | None:
    """The axes of an image as PyTorch's operator takes them, or None where it does not mean the same."""
    orders: dict[tuple[int, ...], tuple[int, ...]] = {(1, 2): (0, 3, 1, 2), (2, 3): (0, 1, 2, 3)}
    return None if op.method != "bilinear" or op.antialias else orders.get(op.axes)


def _bilinear(op: Resize, order: tuple[int, ...], x: torch.Tensor) -> torch.Tensor:
    image = F.interpolate(x.permute(order), size=op.sizes, mode="bilinear", align_corners=False)
    return image.permute([order.index(axis) for axis in range(4)])


def _bilinear_grad(op: ResizeGrad, order: tuple[int, ...], dy: torch.Tensor) -> torch.Tensor:
    given = dy.permute(order)
    shape = [given.shape[0], given.shape[1], *op.sizes]
    backward = torch.ops.aten.upsample_bilinear2d_backward.default
    dx: torch.Tensor = backward(given, given.shape[2:], shape, False)
    return dx.permute([order.index(axis) for axis in range(4)])


# -- any weights ----------
def _products(op: Resize | ResizeGrad, x: torch.Tensor, matrices: list[torch.Tensor]) -> torch.Tensor:
    """Matrices (new size, size) times x along the axes, sums in float32 at least."""
    result = x.to(wide(x.dtype))
    for axis, matrix in zip(op.axes, matrices, strict=True):
        shape = result.shape
        rows = result.reshape(shape[:axis].numel(), shape[axis], -1)
        product = torch.matmul(matrix.to(rows.dtype), rows)
        result = product.reshape(*shape[:axis], matrix.shape[0], *shape[axis + 1 :])
    return result.to(x.dtype)
