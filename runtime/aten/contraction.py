"""Convolution and matrix product with what follows them: bias, residual, activation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod

import torch
import torch.nn.functional as F

from ...graph.op import Op
from ...graph.ops import Conv2D, Dense
from . import onednn, window_product
from .forms import Form, form, form_of, inplace_form_of, like
from .layout import kernel_to_torch, pad_image, split_padding, to_nchw, to_nhwc
from .packing import PackedWeight

Way = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None], torch.Tensor]
"""x, w, bias, residual -> the convolution with all that follows it."""


@dataclass
class Activated:
    """An activation applied in place where it can be; the identity where there is none."""

    op: Op | None

    def __post_init__(self) -> None:
        self.form: Form = (lambda y: y) if self.op is None else inplace_form_of(self.op) or form_of(self.op)

    def __call__(self, y: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.form(y)
        return result


@dataclass
class Convolution:
    """activation(conv(x, w) + bias + residual); bias and residual where they are given.

    remember: whether the weight stays the same over many calls, so that packing it pays. It is packed anew
    when it changes; see `PackedWeight`.
    """

    op: Conv2D
    activation: Op | None = None
    with_bias: bool = False
    with_residual: bool = False
    remember: bool = False
    _packed: PackedWeight = field(default_factory=PackedWeight)

    def __post_init__(self) -> None:
        self.outer, inner = split_padding(self.op.padding)
        self.geometry = onednn.Geometry(inner, self.op.strides, self.op.dilation, self.op.groups)
        self.activate = Activated(self.activation)
        # Of what may follow a residual, oneDNN has only the ReLU, which loses NaN.
        fused = None if self.with_residual else onednn.attribute(self.activation)
        self.attribute = fused or onednn.Attribute()
        self.after = None if fused else self.activate
        self._choices: dict[tuple[torch.Size, torch.dtype], Way] = {}

    def __call__(self, x: torch.Tensor, w: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        bias = like(x, rest[0]) if self.with_bias else None
        residual = rest[-1] if self.with_residual else None
        if self.outer is not None:
            x = pad_image(x, self.outer)
        if not self.remember:
            return self._apart(x, w, bias, residual)
        # Decided once for each input size: asking takes as long as a small convolution.
        way = self._choices.get((x.shape, x.dtype))
        if way is None:
            way = self._choices[x.shape, x.dtype] = self._way(x, w)
        return way(x, w, bias, residual)

    def _way(self, x: torch.Tensor, w: torch.Tensor) -> Way:
        """The fastest way for inputs like x."""
        kernel = (w.shape[0], w.shape[1])
        # Whole blocks of strides are counted, which is exact enough to choose by.
        macs = x.shape[0] * x.shape[1] * x.shape[2] // prod(self.op.strides) * w.numel()
        plain = self.op.groups == 1 and self.op.dilation == (1, 1)
        if plain and window_product.worthwhile(x, kernel, macs):
            return self._as_product
        # torch.conv2d lays a depthwise kernel out anew at each call.
        worth = self.op.groups > 1 or onednn.worth_convolving(x, kernel, macs)
        if worth and onednn.usable(x):
            return self._fused
        return self._apart

    def _apart(
        self, x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor | None, residual: torch.Tensor | None
    ) -> torch.Tensor:
        return self._finish(to_nhwc(self._plain(x, w, bias)), residual)

    def _as_product(
        self, x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor | None, residual: torch.Tensor | None
    ) -> torch.Tensor:
        g = self.geometry
        return self._finish(window_product.convolve(x, like(x, w), bias, g.padding, g.strides), residual)

    def _finish(self, y: torch.Tensor, residual: torch.Tensor | None) -> torch.Tensor:
        if residual is not None:
            y.add_(residual)
        return self.activate(y)

    def _fused(
        self, x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor | None, residual: torch.Tensor | None
    ) -> torch.Tensor:
        image = to_nchw(x)
        size = image.shape
        packed = self._packed.get(
            w, size, lambda w: onednn.pack_convolution(kernel_to_torch(like(x, w)), self.geometry, size)
        )
        other = None if residual is None else to_nchw(like(x, residual))
        y = to_nhwc(onednn.convolve(image, packed, bias, self.geometry, self.attribute, other))
        return y if self.after is None else self.after(y)

    def _plain(self, x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        def prepare(w: torch.Tensor) -> torch.Tensor:
            return kernel_to_torch(like(x, w))

        kernel = self._packed.get(w, x.dtype, prepare) if self.remember else prepare(w)
        g = self.geometry
        return F.conv2d(to_nchw(x), kernel, bias, g.strides, g.padding, g.dilation, g.groups)


@dataclass
class Product:
    """activation(x @ w + bias) over the last axis of x."""

    activation: Op | None = None
    with_bias: bool = False
    remember: bool = False
    _packed: PackedWeight = field(default_factory=PackedWeight)

    def __post_init__(self) -> None:
        self.activate = Activated(self.activation)
        fused = onednn.attribute(self.activation)
        self.attribute = fused or onednn.Attribute()
        self.after = Activated(None) if fused else self.activate

    def __call__(self, x: torch.Tensor, w: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        bias = like(x, rest[0]) if self.with_bias else None
        rows = x if x.dim() == 2 else x.reshape(-1, x.shape[-1])
        y = self._multiply(rows, w, bias)
        return y if x.dim() == 2 else y.view(*x.shape[:-1], w.shape[1])

    def _multiply(self, x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        count = x.shape[0]
        if self.remember and onednn.worth_multiplying(count, count * w.numel()) and onednn.usable(x):
            packed = self._packed.get(w, count, lambda w: onednn.pack_linear(like(x, w), count))
            return self.after(onednn.multiply(x, packed, bias, self.attribute))
        weight = like(x, w)
        return self.activate(x @ weight if bias is None else torch.addmm(bias, x, weight))


@form(Conv2D)
def _convolution(op: Conv2D) -> Form:
    def run(x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        return without(x, w) if bias is None else with_bias(x, w, bias)

    with_bias, without = Convolution(op, with_bias=True), Convolution(op)
    return run


@form(Dense)
def _product(op: Dense) -> Form:
    def run(x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        return without(x, w) if bias is None else with_bias(x, w, bias)

    with_bias, without = Product(with_bias=True), Product()
    return run
