"""Pointwise ops: arithmetic with broadcasting, and batch norm as a per-channel affine map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from ..errors import CompileError, ShapeError
from ..op import Kind, Op
from ..types import DTYPES, Dim, TensorType, broadcast, elementwise

if TYPE_CHECKING:
    from ..gradients import GradientBuilder
    from ..ir import Node


@dataclass(frozen=True)
class _Pointwise(Op):
    kind: ClassVar[Kind] = Kind.POINTWISE

    def infer(self, *inputs: TensorType) -> TensorType:
        return elementwise(inputs, self.op_name())


# -- arithmetic ----------
@dataclass(frozen=True)
class Add(_Pointwise):
    """a + b, broadcasting as NumPy does."""

    operands: ClassVar[tuple[str, ...]] = ("a", "b")

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return inputs[0] + inputs[1]

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        return [build.sum_to(dy, build.operand(node, i)) for i in range(2)]


@dataclass(frozen=True)
class Subtract(_Pointwise):
    """a - b, broadcasting as NumPy does."""

    operands: ClassVar[tuple[str, ...]] = ("a", "b")

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return inputs[0] - inputs[1]

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        negative = build.if_needed(build.operand(node, 1), Scale(-1.0), dy)
        return [
            build.sum_to(dy, build.operand(node, 0)),
            negative and build.sum_to(negative, build.operand(node, 1)),
        ]


@dataclass(frozen=True)
class Multiply(_Pointwise):
    """a * b, broadcasting as NumPy does."""

    operands: ClassVar[tuple[str, ...]] = ("a", "b")

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return inputs[0] * inputs[1]

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        gradients: list[str | None] = []
        for mine, other in ((0, 1), (1, 0)):
            product = build.if_needed(build.operand(node, mine), Multiply(), dy, node.inputs[other])
            gradients.append(product and build.sum_to(product, build.operand(node, mine)))
        return gradients


@dataclass(frozen=True)
class Divide(_Pointwise):
    """a / b, broadcasting as NumPy does."""

    operands: ClassVar[tuple[str, ...]] = ("a", "b")

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return inputs[0] / inputs[1]

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        """dy / b, and -(dy / b) y."""
        a, b = build.operand(node, 0), build.operand(node, 1)
        share = build.add(Divide(), dy, b.name)
        if b.name not in build.needed:
            return [build.sum_to(share, a), None]
        negative = build.add(Scale(-1.0), build.add(Multiply(), share, node.name))
        return [build.sum_to(share, a), build.sum_to(negative, b)]


@dataclass(frozen=True)
class _Extremum(_Pointwise):
    operands: ClassVar[tuple[str, ...]] = ("a", "b")

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        gradients: list[str | None] = []
        for mine, other in ((0, 1), (1, 0)):
            x, op = build.operand(node, mine), ExtremumGrad(isinstance(self, Minimum))
            part = build.if_needed(x, op, dy, x.name, node.inputs[other])
            gradients.append(part and build.sum_to(part, x))
        return gradients


@dataclass(frozen=True)
class Maximum(_Extremum):
    """The larger of a and b, broadcasting as NumPy does; NaN where either is."""

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return torch.maximum(inputs[0], inputs[1])


@dataclass(frozen=True)
class Minimum(_Extremum):
    """The smaller of a and b, broadcasting as NumPy does; NaN where either is."""

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return torch.minimum(inputs[0], inputs[1])


@dataclass(frozen=True)
class ExtremumGrad(_Pointwise):
    """dy where x is the larger (smallest: the smaller) of x and other, half of it where they are equal.

    All of it where either is NaN, so that NaN is not lost.
    """

    operands: ClassVar[tuple[str, ...]] = ("dy", "x", "other")
    smallest: bool = False

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        dy, x, other = inputs
        loses = x > other if self.smallest else x < other
        return torch.where(loses, 0, torch.where(x == other, 0.5 * dy, dy))


@dataclass(frozen=True)
class Scale(_Pointwise):
    """x * factor + offset with two numbers known at compile time."""

    operands: ClassVar[tuple[str, ...]] = ("x",)
    factor: float = 1.0
    offset: float = 0.0

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return inputs[0] * self.factor + self.offset

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        return [build.if_needed(build.operand(node, 0), Scale(self.factor), dy)]


@dataclass(frozen=True)
class Cast(_Pointwise):
    """The same numbers in another dtype. No gradient passes through integers."""

    operands: ClassVar[tuple[str, ...]] = ("x",)
    whole: ClassVar[tuple[str, ...]] = ("x",)
    dtype: str = "float32"

    def infer(self, *inputs: TensorType) -> TensorType:
        return inputs[0].with_dtype(self.dtype)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return inputs[0].to(DTYPES[self.dtype])

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        """As it is: `differentiate` rounds gradients that are wider than the values they are of."""
        return [dy if node.inputs[0] in build.needed else None]


@dataclass(frozen=True)
class Square(_Pointwise):
    """x * x."""

    operands: ClassVar[tuple[str, ...]] = ("x",)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return inputs[0] * inputs[0]

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        x = build.operand(node, 0)
        if x.name not in build.needed:
            return [None]
        return [build.add(Scale(2.0), build.add(Multiply(), dy, x.name))]


@dataclass(frozen=True)
class Step(_Pointwise):
    """1 where x > 0, else 0; no gradient passes."""

    operands: ClassVar[tuple[str, ...]] = ("x",)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return (inputs[0] > 0).to(inputs[0].dtype)

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        return [None]


@dataclass(frozen=True)
class Floor(_Pointwise):
    """The largest whole number that is not above x; no gradient passes."""

    operands: ClassVar[tuple[str, ...]] = ("x",)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return torch.floor(inputs[0])

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        return [None]


@dataclass(frozen=True)
class StopGradient(_Pointwise):
    """x, through which no gradient passes."""

    operands: ClassVar[tuple[str, ...]] = ("x",)
    whole: ClassVar[tuple[str, ...]] = ("x",)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return inputs[0].detach()

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        return [None]


@dataclass(frozen=True)
class RsqrtPlus(_Pointwise):
    """1 / sqrt(x + epsilon), the scale of a normalisation."""

    operands: ClassVar[tuple[str, ...]] = ("x",)
    epsilon: float = 1e-3

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return torch.rsqrt(inputs[0] + self.epsilon)

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        """-dy y^3 / 2."""
        if node.inputs[0] not in build.needed:
            return [None]
        cube = build.add(Multiply(), build.add(Square(), node.name), node.name)
        return [build.add(Multiply(), dy, build.add(Scale(-0.5), cube))]


@dataclass(frozen=True)
class BroadcastTo(_Pointwise):
    """x repeated along new axes and along those of size 1: the gradient of a sum.

    shape: of the result. mean: divided by the number of repeats too: the gradient of a mean. `like`, a value
    of that shape, tells the batch size where x does not have it.
    """

    operands: ClassVar[tuple[str, ...]] = ("x", "like?")
    whole: ClassVar[tuple[str, ...]] = ("x", "like")
    shape: tuple[Dim, ...] = ()
    mean: bool = False

    def takes_whole(self, position: int) -> bool:
        return position == 1 or not self.mean

    def infer(self, *inputs: TensorType) -> TensorType:
        x, *like = inputs
        result = x.with_shape(self.shape)
        if broadcast(result, x, "broadcast_to").shape != self.shape:
            raise ShapeError(f"{x} does not broadcast to {result}")
        if result.batched and not x.batched and [t.shape for t in like] != [self.shape]:
            raise ShapeError(f"broadcast_to {result} needs a second operand of that shape, for its batch")
        return result

    def repeats(self, x: TensorType) -> tuple[int, bool]:
        """Elements of the result for each of x, in one image; and whether they are so many in every image."""
        result = x.with_shape(self.shape)
        return result.elements() // x.elements(), result.batched and not x.batched

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        x, batch = inputs[0], inputs[-1].shape[0] if inputs[-1].dim() else 1
        result = x.expand(TensorType(self.shape).size(batch))
        return result / (result.numel() / x.numel()) if self.mean else result

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        x = build.operand(node, 0)
        total = build.sum_to(dy, x)
        if total is not None and self.mean:
            repeats, per_image = self.repeats(x.type)
            if per_image:
                raise CompileError(f"{node.name}: no gradient of a share that depends on the batch size")
            total = build.add(Scale(1.0 / repeats), total)
        return [total, *[None for _ in node.inputs[1:]]]


# -- batch norm ----------
@dataclass(frozen=True)
class BatchNorm(_Pointwise):
    """gamma * (x - mean) / sqrt(variance + epsilon) + beta, per channel (Ioffe & Szegedy 2015).

    batch_statistics: mean and variance are those of x itself (training), so the gradient flows through them.
    frozen: it normalises with the stored statistics in training too, and leaves them as they are.
    """

    operands: ClassVar[tuple[str, ...]] = ("x", "gamma", "beta", "mean", "variance")
    epsilon: float = 1e-3
    batch_statistics: bool = False
    momentum: float = 0.99
    frozen: bool = False

    def infer(self, *inputs: TensorType) -> TensorType:
        x, *vectors = inputs
        for operand, vector in zip(self.operands[1:], vectors, strict=True):
            if vector.shape != (x.channels,):
                raise ShapeError(
                    f"batch_norm of {x} needs {operand} of shape ({x.channels},), found {vector}"
                )
        return x

    def flops(self, inputs: Sequence[TensorType], output: TensorType, batch: int) -> int:
        return 4 * output.elements(batch)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        x, gamma, beta, mean, variance = inputs
        return (x - mean) * torch.rsqrt(variance + self.epsilon) * gamma + beta

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        x, gamma, beta = (build.operand(node, i) for i in range(3))
        mean, variance = node.inputs[3:]
        normalized = build.add(Normalize(self.epsilon), x.name, mean, variance)
        moved = build.needed if not self.batch_statistics else set()
        of_mean, of_variance = mean in moved, variance in moved
        d_beta = build.sum_to(dy, beta, always=self.batch_statistics or of_mean)
        d_gamma = build.sum_to(
            build.add(Multiply(), dy, normalized), gamma, always=self.batch_statistics or of_variance
        )
        if self.batch_statistics:
            op = BatchNormGrad(self.epsilon)
            dx = build.if_needed(x, op, dy, x.name, gamma.name, mean, variance, str(d_gamma), str(d_beta))
        else:
            scale = build.add(Multiply(), gamma.name, build.add(RsqrtPlus(self.epsilon), variance))
            dx = build.if_needed(x, Multiply(), dy, scale)
        d_mean = d_variance = None
        if of_mean:  # -gamma r d_beta, r = 1 / sqrt(variance + epsilon)
            d_mean = build.add(Scale(-1.0), build.add(Multiply(), str(d_beta), scale))
        if of_variance:  # -gamma r^2 d_gamma / 2
            rstd = build.add(RsqrtPlus(self.epsilon), variance)
            inner = build.add(Multiply(), scale, build.add(Scale(-0.5), rstd))
            d_variance = build.add(Multiply(), str(d_gamma), inner)
        return dx, d_gamma, d_beta, d_mean, d_variance


@dataclass(frozen=True)
class Normalize(_Pointwise):
    """(x - mean) / sqrt(variance + epsilon), in the dtype of x, whatever that of its statistics."""

    operands: ClassVar[tuple[str, ...]] = ("x", "mean", "variance")
    epsilon: float = 1e-3

    def infer(self, *inputs: TensorType) -> TensorType:
        return super().infer(*inputs).with_dtype(inputs[0].dtype)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        x, mean, variance = inputs
        return (x - mean) * torch.rsqrt(variance + self.epsilon)

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        """With r = 1 / sqrt(variance + epsilon): dy r, -dy r, and -dy y r^2 / 2."""
        x, mean, variance = (build.operand(node, i) for i in range(3))
        rstd = build.add(RsqrtPlus(self.epsilon), variance.name)
        dx = build.add(Multiply(), dy, rstd)
        d_mean = build.if_needed(mean, Scale(-1.0), dx)
        d_variance = None
        if variance.name in build.needed:
            half = build.add(Scale(-0.5), build.add(Multiply(), node.name, rstd))
            d_variance = build.sum_to(build.add(Multiply(), dx, half), variance)
        return build.sum_to(dx, x), d_mean and build.sum_to(d_mean, mean), d_variance


@dataclass(frozen=True)
class BatchNormGrad(_Pointwise):
    """Gradient of training-mode batch norm with respect to x, given the sums d_gamma and d_beta.

    dx = gamma / sqrt(var + eps) * (dy - d_beta / M - normalized * d_gamma / M), M = values per channel
    (Ioffe & Szegedy 2015, section 3, collected).
    """

    operands: ClassVar[tuple[str, ...]] = ("dy", "x", "gamma", "mean", "variance", "d_gamma", "d_beta")
    epsilon: float = 1e-3

    def flops(self, inputs: Sequence[TensorType], output: TensorType, batch: int) -> int:
        return 8 * output.elements(batch)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        dy, x, gamma, mean, variance, d_gamma, d_beta = inputs
        count = x.numel() / x.shape[-1]
        rstd = torch.rsqrt(variance + self.epsilon)
        return gamma * rstd * (dy - d_beta / count - (x - mean) * rstd * d_gamma / count)
