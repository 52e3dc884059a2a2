"""Pointwise ops: fewer passes over memory than their definitions take, in place where the operand is ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from ...graph.ops import (
    Abs,
    Activation,
    ActivationGrad,
    Add,
    BatchNorm,
    BatchNormGrad,
    BroadcastTo,
    Cast,
    Clip,
    Divide,
    Elu,
    Exp,
    Gelu,
    GeneralRelu,
    HardShrink,
    HardSigmoid,
    HardSwish,
    InTraining,
    LeakyRelu,
    Log,
    LogSigmoid,
    Maximum,
    Minimum,
    Mish,
    Multiply,
    Normalize,
    Prelu,
    PreluGrad,
    Relu,
    Relu6,
    Scale,
    Sigmoid,
    Softplus,
    SoftShrink,
    Sqrt,
    Square,
    StopGradient,
    Subtract,
    Swish,
    Tanh,
    Threshold,
)
from .forms import Form, form, inplace, like, wide

MIXED = (Add, BatchNorm, BatchNormGrad, Divide, Maximum, Minimum, Multiply, Normalize, Subtract)
"""Ops whose forms take vectors and statistics in float32 where activations are narrower."""


def _kept(compute: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Form:
    """Arithmetic of two dtypes in the wider; the result's is that of the operand of its shape."""

    def run(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        y = compute(a, b)
        if a.dtype == b.dtype or (a.shape == y.shape) == (b.shape == y.shape):
            return y
        return like(a if a.shape == y.shape else b, y)

    return run


ARITHMETIC: dict[type, tuple[Form, Form]] = {
    Add: (_kept(torch.add), torch.Tensor.add_),
    Subtract: (_kept(torch.sub), torch.Tensor.sub_),
    Multiply: (_kept(torch.mul), torch.Tensor.mul_),
    Divide: (_kept(torch.div), torch.Tensor.div_),
    Maximum: (_kept(torch.maximum), lambda a, b: torch.maximum(a, like(a, b), out=a)),
    Minimum: (_kept(torch.minimum), lambda a, b: torch.minimum(a, like(a, b), out=a)),
    Square: (torch.square, torch.Tensor.square_),
}


@form(*ARITHMETIC)
def _arithmetic(op: Any) -> Form:
    return ARITHMETIC[type(op)][0]


@inplace(*ARITHMETIC)
def _arithmetic_in_place(op: Any) -> Form:
    return ARITHMETIC[type(op)][1]


@form(Scale)
def _scale(op: Scale) -> Form:
    if op.offset == 0:
        return lambda x: x * op.factor
    return lambda x: (x * op.factor).add_(op.offset)


@inplace(Scale)
def _scale_in_place(op: Scale) -> Form:
    if op.offset == 0:
        return lambda x: x.mul_(op.factor)
    return lambda x: x.mul_(op.factor).add_(op.offset)


@form(BroadcastTo, Cast, InTraining, StopGradient, passing=True)
def _as_defined(op: BroadcastTo | Cast | InTraining | StopGradient) -> Form:
    return op.reference


# -- activations ----------
@inplace(Clip, Relu, Relu6, LeakyRelu, Sigmoid, Tanh, Swish, Elu, HardSwish, Mish, Exp, Log, Sqrt, Abs)
def _activation_in_place(op: Activation) -> Form:
    match op:
        case Relu6():
            return lambda x: F.hardtanh_(x, 0.0, 6.0)
        case Clip(low=low, high=high):
            return lambda x: x.clamp_(low, high)
        case LeakyRelu(slope=slope):
            return lambda x: F.leaky_relu_(x, slope)
        case Sigmoid():
            return torch.sigmoid_
        case Tanh():
            return torch.tanh_
        case Swish():
            return lambda x: F.silu(x, inplace=True)
        case Elu(alpha=alpha, scale=scale, input_scale=inner):
            return lambda x: torch.ops.aten.elu_.default(x, alpha, scale, inner)
        case HardSwish():
            return lambda x: F.hardswish(x, inplace=True)
        case Mish():
            return lambda x: F.mish(x, inplace=True)
        case Exp() | Log() | Sqrt() | Abs():
            return {Exp: torch.exp_, Log: torch.log_, Sqrt: torch.sqrt_, Abs: torch.abs_}[type(op)]
    return torch.relu_


@inplace(HardSigmoid)
def _hard_sigmoid_in_place(op: HardSigmoid) -> Form:
    return lambda x: x.mul_(op.slope).add_(op.offset).clamp_(0.0, 1.0)


def _one_clamp(op: GeneralRelu) -> bool:
    """Whether there is neither a slope nor a threshold."""
    return op.max_value is not None and op.max_value >= 0 and not op.negative_slope and not op.threshold


@form(GeneralRelu)
def _general_relu(op: GeneralRelu) -> Form:
    return (lambda x: x.clamp(0.0, op.max_value)) if _one_clamp(op) else op.reference


@inplace(GeneralRelu)
def _general_relu_in_place(op: GeneralRelu) -> Form:
    return (lambda x: x.clamp_(0.0, op.max_value)) if _one_clamp(op) else op.reference


@form(Gelu)
def _gelu(op: Gelu) -> Form:
    """On a CPU, PyTorch's operator for the error function is oneDNN's, which gives NaN at infinity."""
    if op.approximate:
        return lambda x: F.gelu(x, approximate="tanh")
    return lambda x: F.gelu(x.clamp_max(torch.finfo(x.dtype).max) if _through_onednn(x) else x)


@inplace(Gelu)
def _gelu_in_place(op: Gelu) -> Form:
    gelu = torch.ops.aten.gelu_.default
    if op.approximate:
        return lambda x: gelu(x, approximate="tanh")
    return lambda x: gelu(x.clamp_max_(torch.finfo(x.dtype).max) if _through_onednn(x) else x)


def _through_onednn(x: torch.Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16)


@form(Softplus)
def _softplus(op: Softplus) -> Form:
    return lambda x: F.softplus(x, threshold=40.0)  # beyond which exp(-x) is below float64's resolution


@form(Elu, HardShrink, LogSigmoid, SoftShrink, Threshold)
def _torch_s_own(op: Activation) -> Form:
    """PyTorch's operators where the definitions take several: one pass each."""
    match op:
        case Elu(alpha=alpha, scale=scale, input_scale=inner):
            return lambda x: torch.ops.aten.elu.default(x, alpha, scale, inner)
        case HardShrink(threshold=threshold):
            return lambda x: F.hardshrink(x, threshold)
        case SoftShrink(threshold=threshold):
            return lambda x: F.softshrink(x, threshold)
        case Threshold(threshold=threshold, value=value):
            return lambda x: F.threshold(x, threshold, value)
    return F.logsigmoid


@form(ActivationGrad)
def _activation_grad(op: ActivationGrad) -> Form:
    """PyTorch's own derivatives: one pass each."""
    aten = torch.ops.aten
    match op.activation:
        case Relu():
            return lambda dy, y: aten.threshold_backward.default(dy, like(dy, y), 0)
        case Relu6():
            return _clip_grad(0.0, 6.0)
        case Clip(low=low, high=high):
            return _clip_grad(low, high)
        case LeakyRelu(slope=slope):
            return lambda dy, y: aten.leaky_relu_backward.default(dy, like(dy, y), slope, False)
        case Sigmoid():
            return lambda dy, y: aten.sigmoid_backward.default(dy, like(dy, y))
        case Tanh():
            return lambda dy, y: aten.tanh_backward.default(dy, like(dy, y))
        case Swish():
            return lambda dy, x: aten.silu_backward.default(dy, like(dy, x))
        case Gelu(approximate=approximate):
            method = "tanh" if approximate else "none"
            return lambda dy, x: aten.gelu_backward.default(dy, like(dy, x), approximate=method)
        case HardSwish():
            return lambda dy, x: aten.hardswish_backward.default(dy, like(dy, x))
        case Mish():
            return lambda dy, x: aten.mish_backward.default(dy, like(dy, x))
        case Softplus():
            return lambda dy, x: aten.softplus_backward.default(dy, like(dy, x), 1.0, 40.0)
        case Threshold(threshold=threshold):
            return lambda dy, x: aten.threshold_backward.default(dy, like(dy, x), threshold)
        case Elu(alpha=alpha, scale=scale, input_scale=inner):
            return lambda dy, y: aten.elu_backward.default(dy, alpha, scale, inner, True, like(dy, y))
    return op.reference


@inplace(ActivationGrad)
def _activation_grad_in_place(op: ActivationGrad) -> Form:
    backward = torch.ops.aten.threshold_backward.grad_input
    match op.activation:
        case Relu():
            return lambda dy, y: backward(dy, like(dy, y), 0, grad_input=dy)
        case Relu6():
            return _clip_grad(0.0, 6.0, overwrite=True)
        case Clip(low=low, high=high):
            return _clip_grad(low, high, overwrite=True)
    return _activation_grad(op)


def _clip_grad(low: float, high: float, overwrite: bool = False) -> Form:
    """dy where low < y < high, and where y is NaN; 0 elsewhere.

    hardtanh_backward is one pass, and gives 0 or dy at NaN, as vectors fall. So y, which is no larger than
    its bounds, is summed first: that takes a third of the time that masks do.
    """
    new, into = torch.ops.aten.hardtanh_backward.default, torch.ops.aten.hardtanh_backward.grad_input

    def run(dy: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        y = like(dy, y)
        if y.device.type != "cpu" or y.sum().isnan():
            outside = (y <= low).logical_or_(y >= high)
            return dy.masked_fill_(outside, 0) if overwrite else dy.masked_fill(outside, 0)
        found: torch.Tensor = into(dy, y, low, high, grad_input=dy) if overwrite else new(dy, y, low, high)
        return found

    return run


# -- trained slopes ----------
@form(Prelu)
def _prelu(op: Prelu) -> Form:
    return lambda x, alpha: torch.where(x > 0, x, x * like(x, alpha))


@form(PreluGrad)
def _prelu_grad(op: PreluGrad) -> Form:
    return lambda dy, x, alpha: torch.where(x > 0, dy, dy * like(dy, alpha))


# -- batch norm: x times a vector plus a vector ----------
def _affine(x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor, overwrite: bool) -> torch.Tensor:
    """x * scale + shift per channel in one pass, computed in float32 at least."""
    return torch.addcmul(shift, x, scale, out=x if overwrite else torch.empty_like(x))


def _wide(*vectors: torch.Tensor) -> list[torch.Tensor]:
    return [v.to(wide(v.dtype)) for v in vectors]


def _batch_norm(op: BatchNorm, overwrite: bool) -> Form:
    def run(
        x: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor
    ) -> torch.Tensor:
        gamma, beta, mean, variance = _wide(gamma, beta, mean, variance)
        scale = gamma * torch.rsqrt(variance + op.epsilon)
        return _affine(x, scale, torch.addcmul(beta, mean, scale, value=-1), overwrite)

    return run


@form(BatchNorm)
def _batch_norm_new(op: BatchNorm) -> Form:
    return _batch_norm(op, overwrite=False)


@inplace(BatchNorm)
def _batch_norm_in_place(op: BatchNorm) -> Form:
    return _batch_norm(op, overwrite=True)


def _normalize(op: Normalize, overwrite: bool) -> Form:
    def run(x: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
        mean, variance = _wide(mean, variance)
        scale = torch.rsqrt(variance + op.epsilon)
        return _affine(x, scale, -mean * scale, overwrite)

    return run


@form(Normalize)
def _normalize_new(op: Normalize) -> Form:
    return _normalize(op, overwrite=False)


@inplace(Normalize)
def _normalize_in_place(op: Normalize) -> Form:
    return _normalize(op, overwrite=True)


def _batch_norm_grad(op: BatchNormGrad, overwrite: bool) -> Form:
    """With a = gamma / sqrt(var + eps) the gradient is dy * a + x * b + c, b and c vectors: two passes."""

    def run(
        dy: torch.Tensor,
        x: torch.Tensor,
        gamma: torch.Tensor,
        mean: torch.Tensor,
        variance: torch.Tensor,
        d_gamma: torch.Tensor,
        d_beta: torch.Tensor,
    ) -> torch.Tensor:
        gamma, mean, variance, d_gamma, d_beta = _wide(gamma, mean, variance, d_gamma, d_beta)
        count = x.numel() // x.shape[-1]
        rstd = torch.rsqrt(variance + op.epsilon)
        a = gamma * rstd
        b = a * rstd * d_gamma / -count
        c = torch.addcmul(a * d_beta / -count, mean, b, value=-1)
        rest = torch.addcmul(c, x, b)
        if overwrite or rest.dtype != dy.dtype:
            return torch.addcmul(rest, dy, a, out=dy if overwrite else torch.empty_like(dy))
        return rest.addcmul_(dy, a)

    return run


@form(BatchNormGrad)
def _batch_norm_grad_new(op: BatchNormGrad) -> Form:
    return _batch_norm_grad(op, overwrite=False)


@inplace(BatchNormGrad)
def _batch_norm_grad_in_place(op: BatchNormGrad) -> Form:
    return _batch_norm_grad(op, overwrite=True)
