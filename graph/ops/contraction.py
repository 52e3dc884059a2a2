"""Contractions: convolution and matrix product, the gradients of both, and products of two activations.

Layouts: images are (N, H, W, C), convolution kernels (R, S, C / groups, K) as Keras keeps them, matrices
(C, K). The table names, for each of the three products of a convolution, what is summed over:

    forward          y[n,p,q,k]  = sum over r,s,c  of  x[n, p*st + r*d - pad, ...] * w[r,s,c,k]
    data gradient    x'[n,h,w,c] = sum over r,s,k  of  y'[n, (h + pad - r*d) / st, ...] * w[r,s,c,k]
    weight gradient  w'[r,s,c,k] = sum over n,p,q  of  x[n, p*st + r*d - pad, ...] * y'[n,p,q,k]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch.nn.grad import conv2d_input, conv2d_weight

from ..errors import ShapeError
from ..op import Kind, Op
from ..types import BATCH, Dim, TensorType, accumulated
from ..windows import NO_PADDING, Padding, Pair, window_output
from .pointwise import Cast

if TYPE_CHECKING:
    from ..gradients import GradientBuilder
    from ..ir import Node


@dataclass(frozen=True)
class _Contraction(Op):
    kind: ClassVar[Kind] = Kind.CONTRACTION


@dataclass(frozen=True)
class _Convolution(_Contraction):
    """The attributes a convolution and its two gradients share. padding: ((top, bottom), (left, right))."""

    strides: Pair = (1, 1)
    padding: Padding = NO_PADDING
    dilation: Pair = (1, 1)
    groups: int = 1

    def _stepping(self) -> str:
        """Strides, dilation and groups in words, where they are not plain."""
        parts = []
        if self.strides != (1, 1):
            parts.append(f" at steps of {self.strides[0]}x{self.strides[1]}")
        if self.dilation != (1, 1):
            parts.append(f" dilated {self.dilation[0]}x{self.dilation[1]}")
        if self.groups > 1:
            parts.append(f" in {self.groups} groups")
        return "".join(parts)

    def _forward(self, x: torch.Tensor, w: torch.Tensor, b: torch.Tensor | None) -> torch.Tensor:
        (top, bottom), (left, right) = self.padding
        image = F.pad(x.permute(0, 3, 1, 2), (left, right, top, bottom))
        kernel = w.permute(3, 2, 0, 1).contiguous()  # torch fails at a view's gradient for one filter
        y = F.conv2d(image, kernel, b, self.strides, 0, self.dilation, self.groups)
        return y.permute(0, 2, 3, 1)

    def _macs(self, y: TensorType, w: TensorType, batch: int) -> int:
        return y.elements(batch) * prod(w.size()[:3])


def _window(kernel: TensorType) -> str:
    return "x".join(map(str, kernel.shape[:2]))


def _bias(operands: Sequence[TensorType]) -> str:
    return " + bias" if len(operands) > 2 else ""


def _is_image(where: str, t: TensorType) -> None:
    if t.rank != 4 or not t.batched:
        raise ShapeError(f"{where} must be an image (N, height, width, channels), found {t}")


@dataclass(frozen=True)
class Conv2D(_Convolution):
    """Cross-correlation of x (N, H, W, C) with w (R, S, C / groups, K), plus a bias (K,) where given."""

    operands: ClassVar[tuple[str, ...]] = ("x", "w", "bias?")

    def words(self, *operands: TensorType) -> str:
        return f"{_window(operands[1])} convolution{self._stepping()}{_bias(operands)}"

    def infer(self, *inputs: TensorType) -> TensorType:
        x, w, *bias = inputs
        _is_image("conv2d's input", x)
        if w.rank != 4:
            raise ShapeError(f"a convolution kernel is (height, width, in, out), found {w}")
        r, s, c, k = w.size()
        if self.groups < 1 or k % self.groups or x.channels != c * self.groups:
            raise ShapeError(
                f"input {x} has {x.channels} channels, but kernel {w} with {self.groups} groups takes "
                f"{c * self.groups} and gives {k}; channels in and out must divide into the groups"
            )
        if bias and bias[0].shape != (k,):
            raise ShapeError(f"bias must be ({k},), found {bias[0]}")
        spatial = (int(x.shape[1]), int(x.shape[2]))
        p, q = window_output("conv2d", spatial, (r, s), self.strides, self.padding, self.dilation)
        return x.with_shape((BATCH, p, q, k))

    def flops(self, inputs: Sequence[TensorType], output: TensorType, batch: int) -> int:
        return 2 * self._macs(output, inputs[1], batch) + (output.elements(batch) if len(inputs) > 2 else 0)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self._forward(inputs[0], inputs[1], inputs[2] if len(inputs) > 2 else None)

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        x, w = build.operand(node, 0), build.operand(node, 1)
        shared = (self.strides, self.padding, self.dilation, self.groups)
        size = (int(x.type.shape[1]), int(x.type.shape[2]))
        kernel = (int(w.type.shape[0]), int(w.type.shape[1]))
        dx = build.if_needed(x, Conv2DDataGrad(*shared, input_size=size), dy, w.name)
        dw = build.if_needed(w, Conv2DWeightGrad(*shared, kernel_size=kernel), x.name, dy)
        return dx, dw, *build.bias_gradient(node, 2, dy)


@dataclass(frozen=True)
class Conv2DDataGrad(_Convolution):
    """Gradient of a convolution with respect to its input: dy (N, P, Q, K), w -> (N, H, W, C)."""

    operands: ClassVar[tuple[str, ...]] = ("dy", "w")
    input_size: Pair = (0, 0)

    def words(self, *operands: TensorType) -> str:
        product = f"{_window(operands[1])} convolution{self._stepping()}"
        return f"gradient of a {product} with respect to its input"

    def infer(self, *inputs: TensorType) -> TensorType:
        dy, w = inputs
        _is_image("conv2d_data_grad's dy", dy)
        return dy.with_shape((BATCH, *self.input_size, int(w.shape[2]) * self.groups))

    def flops(self, inputs: Sequence[TensorType], output: TensorType, batch: int) -> int:
        return 2 * self._macs(inputs[0], inputs[1], batch)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        dy, w = inputs
        (top, bottom), (left, right) = self.padding
        h, width = self.input_size
        padded = (dy.shape[0], int(w.shape[2]) * self.groups, h + top + bottom, width + left + right)
        dx: torch.Tensor = conv2d_input(  # type: ignore[no-untyped-call]
            padded, w.permute(3, 2, 0, 1), dy.permute(0, 3, 1, 2), self.strides, 0, self.dilation, self.groups
        )
        return dx[:, :, top : top + h, left : left + width].permute(0, 2, 3, 1)


@dataclass(frozen=True)
class Conv2DTranspose(Conv2DDataGrad):
    """Transposed convolution: the linear map whose transpose is a convolution with this geometry.

    x (N, P, Q, K) and w (R, S, C / groups, K), which is Keras's (height, width, out, in), to (N, H, W, C).
    input_size: (H, W), any size that the convolution takes to (P, Q). Padding is cut off the result.
    """

    operands: ClassVar[tuple[str, ...]] = ("x", "w")

    def words(self, *operands: TensorType) -> str:
        return f"{_window(operands[1])} transposed convolution{self._stepping()}"

    def infer(self, *inputs: TensorType) -> TensorType:
        x, w = inputs
        _is_image("conv2d_transpose's input", x)
        if w.rank != 4 or x.channels != w.shape[3] or self.groups < 1 or x.channels % self.groups:
            raise ShapeError(
                f"a transposed convolution of {x} in {self.groups} groups takes a kernel "
                f"(height, width, out / groups, {x.channels}), found {w}"
            )
        kernel = (int(w.shape[0]), int(w.shape[1]))
        taken = window_output(
            "conv2d_transpose", self.input_size, kernel, self.strides, self.padding, self.dilation
        )
        if taken != x.shape[1:3]:
            raise ShapeError(
                f"a convolution takes {self.input_size} to {taken}, so its transpose cannot take {x} there"
            )
        return super().infer(x, w)

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        x, w = build.operand(node, 0), build.operand(node, 1)
        shared = (self.strides, self.padding, self.dilation, self.groups)
        kernel = (int(w.type.shape[0]), int(w.type.shape[1]))
        dx = build.if_needed(x, Conv2D(*shared), dy, w.name)
        dw = build.if_needed(w, Conv2DWeightGrad(*shared, kernel_size=kernel), dy, x.name)
        return dx, dw


@dataclass(frozen=True)
class Conv2DWeightGrad(_Convolution):
    """Gradient of a convolution with respect to its kernel.

    x (N, H, W, C), dy (N, P, Q, K) -> (R, S, C / groups, K).
    """

    operands: ClassVar[tuple[str, ...]] = ("x", "dy")
    role_name: ClassVar[str] = "dw"
    kernel_size: Pair = (1, 1)

    def words(self, *operands: TensorType) -> str:
        product = f"{self.kernel_size[0]}x{self.kernel_size[1]} convolution{self._stepping()}"
        return f"gradient of a {product} with respect to its kernel"

    def infer(self, *inputs: TensorType) -> TensorType:
        x, dy = inputs
        _is_image("conv2d_weight_grad's x", x)
        return x.accumulated().with_shape((*self.kernel_size, x.channels // self.groups, dy.channels))

    def flops(self, inputs: Sequence[TensorType], output: TensorType, batch: int) -> int:
        return 2 * self._macs(inputs[1], output, batch)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        x, dy = accumulated(*inputs)
        (top, bottom), (left, right) = self.padding
        image = F.pad(x.permute(0, 3, 1, 2), (left, right, top, bottom))
        shape = (dy.shape[3], x.shape[3] // self.groups, *self.kernel_size)
        dw: torch.Tensor = conv2d_weight(  # type: ignore[no-untyped-call]
            image, shape, dy.permute(0, 3, 1, 2), self.strides, 0, self.dilation, self.groups
        )
        return dw.permute(2, 3, 1, 0)


@dataclass(frozen=True)
class Dense(_Contraction):
    """Matrix product over the last axis: x (..., C) times w (C, K), plus a bias (K,) where given."""

    operands: ClassVar[tuple[str, ...]] = ("x", "w", "bias?")

    def words(self, *operands: TensorType) -> str:
        return f"matrix product{_bias(operands)}"

    def infer(self, *inputs: TensorType) -> TensorType:
        x, w, *bias = inputs
        if x.rank < 2 or w.rank != 2 or x.channels != w.shape[0]:
            raise ShapeError(f"dense takes (..., C) times (C, K), found {x} times {w}")
        if bias and bias[0].shape != (w.shape[1],):
            raise ShapeError(f"bias must be ({w.shape[1]},), found {bias[0]}")
        return x.with_shape((*x.shape[:-1], w.shape[1]))

    def flops(self, inputs: Sequence[TensorType], output: TensorType, batch: int) -> int:
        macs = output.elements(batch) * inputs[0].channels
        return 2 * macs + (output.elements(batch) if len(inputs) > 2 else 0)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        x, w, *bias = inputs
        return F.linear(x, w.t(), bias[0] if bias else None)

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        x, w = build.operand(node, 0), build.operand(node, 1)
        dx = build.if_needed(x, DenseDataGrad(), dy, w.name)
        dw = build.if_needed(w, DenseWeightGrad(), x.name, dy)
        return dx, dw, *build.bias_gradient(node, 2, dy)


@dataclass(frozen=True)
class DenseDataGrad(_Contraction):
    """dy (..., K) times w (C, K) transposed -> (..., C)."""

    operands: ClassVar[tuple[str, ...]] = ("dy", "w")
    title: ClassVar[str] = "gradient of a matrix product with respect to its input"

    def infer(self, *inputs: TensorType) -> TensorType:
        dy, w = inputs
        return dy.with_shape((*dy.shape[:-1], w.shape[0]))

    def flops(self, inputs: Sequence[TensorType], output: TensorType, batch: int) -> int:
        return 2 * output.elements(batch) * inputs[0].channels

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        dy, w = inputs
        return F.linear(dy, w)


@dataclass(frozen=True)
class DenseWeightGrad(_Contraction):
    """x (..., C) transposed times dy (..., K), summed over every leading axis -> (C, K)."""

    operands: ClassVar[tuple[str, ...]] = ("x", "dy")
    title: ClassVar[str] = "gradient of a matrix product with respect to its weights"
    role_name: ClassVar[str] = "dw"

    def infer(self, *inputs: TensorType) -> TensorType:
        x, dy = inputs
        return x.accumulated().with_shape((x.channels, dy.channels))

    def flops(self, inputs: Sequence[TensorType], output: TensorType, batch: int) -> int:
        return 2 * inputs[1].elements(batch) * inputs[0].channels

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        x, dy = accumulated(*inputs)
        return x.reshape(-1, x.shape[-1]).t() @ dy.reshape(-1, dy.shape[-1])


@dataclass(frozen=True)
class MatMul(_Contraction):
    """Products of pairs of matrices that both come from the data: y[n, ..., m, p] = sum over k of
    a[n, ..., m, k] * b[n, ..., k, p], one for each place of the leading axes, which are equal in lhs a and
    rhs b.

    transpose_a, transpose_b: the operand's matrices lie as (K, M), as (P, K). split_a, split_b, split_y: the
    last leading axis, H, lies between the two axes of the matrix, (N, ..., M, H, K): heads of attention then
    are read and written where a matrix product over channels puts them, and nothing is transposed in memory.
    factor: of every sum, so that scaled scores need no pass of their own on the way back either. wide: the
    result keeps the dtype of its sums.
    """

    operands: ClassVar[tuple[str, ...]] = ("lhs", "rhs")
    transpose_a: bool = False
    transpose_b: bool = False
    split_a: bool = False
    split_b: bool = False
    split_y: bool = False
    factor: float = 1.0
    wide: bool = field(default=False, metadata={"rare": True})

    def words(self, *operands: TensorType) -> str:
        return "product of two activations" + ("" if self.factor == 1.0 else ", scaled")

    def infer(self, *inputs: TensorType) -> TensorType:
        a, b = inputs
        least = 4 if self.split_a or self.split_b or self.split_y else 3
        if a.rank < least or a.rank != b.rank or not (a.batched and b.batched):
            raise ShapeError(f"takes two values (N, ..., rows, columns) of one rank, found {a} and {b}")
        lead, m, k = self._axes(a, self.transpose_a, self.split_a)
        other, inner, p = self._axes(b, self.transpose_b, self.split_b)
        if lead != other or k != inner:
            raise ShapeError(
                f"a product of {a} and {b} takes matrices (M, K) and (K, P) for equal leading axes, "
                f"found ({m}, {k}) and ({inner}, {p}) for {lead} and {other}"
            )
        kind = a.accumulated() if self.wide else a
        return kind.with_shape((*lead[:-1], m, lead[-1], p) if self.split_y else (*lead, m, p))

    @staticmethod
    def _axes(t: TensorType, transposed: bool, split: bool) -> tuple[tuple[Dim, ...], Dim, Dim]:
        """Leading axes, rows and columns of an operand."""
        *lead, rows, columns = t.shape
        if split:
            lead[-1], rows = rows, lead[-1]
        return (tuple(lead), columns, rows) if transposed else (tuple(lead), rows, columns)

    def sizes(self, a: TensorType, b: TensorType) -> tuple[tuple[int, ...], int, int, int]:
        """Leading axes but the batch, rows, inner size and columns of each product."""
        lead, m, k = self._axes(a, self.transpose_a, self.split_a)
        _, _, p = self._axes(b, self.transpose_b, self.split_b)
        return tuple(int(d) for d in lead[1:]), int(m), int(k), int(p)

    def flops(self, inputs: Sequence[TensorType], output: TensorType, batch: int) -> int:
        return 2 * output.elements(batch) * self.sizes(*inputs)[2]

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        a, b = (
            self._plain(x, transposed, split)
            for x, transposed, split in zip(
                accumulated(*inputs),
                (self.transpose_a, self.transpose_b),
                (self.split_a, self.split_b),
                strict=True,
            )
        )
        y = a @ b if self.factor == 1.0 else a @ b * self.factor
        y = y if self.wide else y.to(inputs[0].dtype)
        return y.transpose(-3, -2) if self.split_y else y

    @staticmethod
    def _plain(x: torch.Tensor, transposed: bool, split: bool) -> torch.Tensor:
        """An operand as (..., rows, columns)."""
        x = x.transpose(-3, -2) if split else x
        return x.mT if transposed else x

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        """da = dy b^T and db = a^T dy, each as its operand lies: its transpose is that of the product."""
        a, b = build.operand(node, 0), build.operand(node, 1)
        if build.graph[dy].type.dtype != a.type.dtype:
            dy = build.add(Cast(a.type.dtype), dy)
        ta, tb, sa, sb, sy, factor = (
            self.transpose_a, self.transpose_b, self.split_a, self.split_b, self.split_y, self.factor,
        )  # fmt: skip
        if ta:
            da = build.if_needed(a, MatMul(tb, True, sb, sy, sa, factor), b.name, dy)
        else:
            da = build.if_needed(a, MatMul(False, not tb, sy, sb, sa, factor), dy, b.name)
        if tb:
            return da, build.if_needed(b, MatMul(True, ta, sy, sa, sb, factor), dy, a.name)
        return da, build.if_needed(b, MatMul(not ta, False, sa, sy, sb, factor), a.name, dy)
