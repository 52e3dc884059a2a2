"""oneDNN's fused operators: convolution or matrix product with residual and activation in one call.

Measured with torch 2.13 on a CPU with AVX-512, float32, one image: a call costs 20 to 25 us before any work,
torch.conv2d on a small map 4 to 13 us (it has a path of its own for kernels up to 3x3 and few images). A 3x3
convolution of 32 channels to 32 at 16x16 (2.4 million multiply-adds) takes 39 us natively and 48 us here, one
of 256 channels at 8x8 (38 million) 821 and 603 us, of 512 at 4x4 1094 and 550 us. Matrix products gain only
where rows share the weight: 32 x 25088 x 4096 takes 106 ms in addmm and 65 ms here, 32 x 400 x 120 takes 38
and 45 us.

Of the activations oneDNN could add, only those are used that treat NaN and infinity as PyTorch's own do: its
ReLU and hard tanh make a number of NaN. They follow as one operator in place, which costs LeNet-5 nothing,
ResNet-50 -1 to 5 % and MobileNetV2 2 to 13 % (benchmarks/activations.py, one thread of a shared machine).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from ...graph.op import Op
from ...graph.ops import Gelu, LeakyRelu, Sigmoid, Swish, Tanh
from ...graph.windows import Pair

SMALL_CONVOLUTION = 3_000_000
"""Multiply-adds below which PyTorch's own small convolution is faster."""
SMALL_PRODUCT = 4_000_000
FEW_ROWS = 8
"""Rows below which a matrix product is bound by reading the weight, however it is laid out."""


@cache
def available(dtype: torch.dtype) -> bool:
    """Whether this build of PyTorch has the fused operators for this dtype."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    named = ("_convolution_pointwise", "_linear_pointwise", "_reorder_linear_weight")
    if not all(hasattr(torch.ops.mkldnn, name) for name in named):
        return False
    if not hasattr(torch._C._nn, "mkldnn_reorder_conv2d_weight"):
        return False
    if dtype == torch.bfloat16:
        supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
        return bool(supported and supported())
    return dtype == torch.float32


def usable(x: torch.Tensor) -> bool:
    return x.device.type == "cpu" and available(x.dtype) and bool(torch.backends.mkldnn.enabled)


def worth_convolving(x: torch.Tensor, kernel: Pair, macs: int) -> bool:
    """Whether the fused call beats torch.conv2d and an activation in place.

    For kernels over 3x3 and for 16 images and more torch.conv2d calls oneDNN itself: fusing costs nothing.
    """
    return macs >= SMALL_CONVOLUTION or max(kernel) > 3 or x.shape[0] >= 16


def worth_multiplying(rows: int, macs: int) -> bool:
    return rows >= FEW_ROWS and macs >= SMALL_PRODUCT


@dataclass(frozen=True)
class Attribute:
    """How oneDNN's operators name an activation."""

    name: str = "none"
    scalars: tuple[float, ...] = ()
    algorithm: str = ""


def attribute(op: Op | None) -> Attribute | None:
    """The activation's name in oneDNN; None where it has none, or one that means something else.

    "relu" and "hardtanh" give their lower bound where they meet NaN, "leaky_relu" of slope 0 is "relu", and
    "gelu" by the error function gives NaN at infinity.
    """
    match op:
        case None:
            return Attribute()
        case LeakyRelu(slope=slope) if slope != 0:
            return Attribute("leaky_relu", (slope,))
        case Sigmoid():
            return Attribute("sigmoid")
        case Tanh():
            return Attribute("tanh")
        case Swish():
            return Attribute("swish")
        case Gelu(approximate=True):
            return Attribute("gelu", (), "tanh")
    return None


@dataclass(frozen=True)
class Geometry:
    """Padding, strides and dilation of a convolution as the operators take them."""

    padding: Pair
    strides: Pair
    dilation: Pair
    groups: int


def pack_convolution(w: torch.Tensor, geometry: Geometry, input_size: Sequence[int]) -> torch.Tensor:
    """w (K, C / groups, R, S) in oneDNN's blocked layout for inputs of (N, C, H, W)."""
    g = geometry
    reorder: Any = torch._C._nn.mkldnn_reorder_conv2d_weight  # the stub lacks the input size
    place = (g.padding, g.strides, g.dilation, g.groups)
    packed: torch.Tensor = reorder(w.to_mkldnn(), *place, list(input_size))
    return packed


def convolve(
    x: torch.Tensor,
    w: torch.Tensor,
    bias: torch.Tensor | None,
    geometry: Geometry,
    attribute: Attribute,
    residual: torch.Tensor | None,
) -> torch.Tensor:
    """activation(conv(x, w) + bias), or conv(x, w) + bias + residual, over (N, C, H, W) views, w packed."""
    g, a = geometry, attribute
    place = (g.padding, g.strides, g.dilation, g.groups)
    run = torch.ops.mkldnn._convolution_pointwise
    result: torch.Tensor
    if residual is None:
        result = run.default(x, w, bias, *place, a.name, a.scalars, a.algorithm)
    else:
        result = run.binary(x, residual, w, bias, *place, "add", 1.0, None, (), None)
    return result


def transposing(dtype: torch.dtype) -> bool:
    """Whether this build of PyTorch has transposed convolutions by packed weights."""
    named = ("_convolution_transpose_pointwise", "_reorder_convolution_transpose_weight")
    return available(dtype) and all(hasattr(torch.ops.mkldnn, name) for name in named)


def pack_transposed(
    w: torch.Tensor, geometry: Geometry, rest: Pair, input_size: Sequence[int]
) -> torch.Tensor:
    """w (C, K, R, S) in oneDNN's blocked layout for inputs of (N, C, P, Q); see `transpose` for `rest`."""
    g = geometry
    reorder = torch.ops.mkldnn._reorder_convolution_transpose_weight
    packed: torch.Tensor = reorder(w, g.padding, rest, g.strides, g.dilation, g.groups, list(input_size))
    return packed


def transpose(
    x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor | None, geometry: Geometry, rest: Pair
) -> torch.Tensor:
    """The transposed convolution + bias over (N, C, P, Q) views, w packed.

    rest: rows and columns of the result that the windows of a whole number of strides leave over.
    """
    g = geometry
    run = torch.ops.mkldnn._convolution_transpose_pointwise.default
    result: torch.Tensor = run(x, w, bias, g.padding, rest, g.strides, g.dilation, g.groups, "none", (), "")
    return result


def pack_linear(w: torch.Tensor, rows: int) -> torch.Tensor:
    """w (C, K) in oneDNN's layout for products of this many rows."""
    packed: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(w.t().contiguous(), rows)
    return packed


def multiply(x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor | None, a: Attribute) -> torch.Tensor:
    """activation(x @ w + bias), w packed."""
    run = torch.ops.mkldnn._linear_pointwise.default
    result: torch.Tensor = run(x, w, bias, a.name, a.scalars, a.algorithm)
    return result
