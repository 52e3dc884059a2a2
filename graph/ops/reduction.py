"""Reductions: sums and means over axes, and the losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F

from ..errors import ShapeError
from ..op import Kind, Op, Sample
from ..types import DTYPES, TensorType, accumulated
from .movement import Reshape
from .pointwise import BroadcastTo, Multiply, Scale, Subtract

if TYPE_CHECKING:
    from ..gradients import GradientBuilder
    from ..ir import Node


@dataclass(frozen=True)
class _Reduction(Op):
    kind: ClassVar[Kind] = Kind.REDUCTION


@dataclass(frozen=True)
class _Sums(_Reduction):
    """Base of the ops whose results are made of sums, which are kept in float32 at least.

    dtype: what the results are rounded to, "" where they stay as they are.
    """

    dtype: str = field(default="", kw_only=True, metadata={"rare": True})

    def rounded(self, result: TensorType) -> TensorType:
        return result.with_dtype(self.dtype) if self.dtype else result

    def round(self, result: torch.Tensor) -> torch.Tensor:
        return result.to(DTYPES[self.dtype]) if self.dtype else result


@dataclass(frozen=True)
class Reduce(_Sums):
    """Sum, or mean, over `axes`, which vanish, or stay with size 1 where keepdims.

    The result has the dtype of the sums where nothing else is said: float32 at least.
    """

    operands: ClassVar[tuple[str, ...]] = ("x",)
    axes: tuple[int, ...] = (0,)
    mean: bool = False
    keepdims: bool = False

    def role(self) -> str:
        return "mean" if self.mean else "total"

    def infer(self, *inputs: TensorType) -> TensorType:
        x = inputs[0]
        if any(not 0 <= axis < x.rank for axis in self.axes):
            raise ShapeError(f"reduce over axes {self.axes} of {x}, which has {x.rank} axes")
        left = [(i, d) for i, d in enumerate(x.shape) if self.keepdims or i not in self.axes]
        return self.rounded(x.accumulated().with_shape(1 if i in self.axes else d for i, d in left))

    def flops(self, inputs: Sequence[TensorType], output: TensorType, batch: int) -> int:
        return inputs[0].elements(batch)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        reduce = torch.mean if self.mean else torch.sum
        return self.round(reduce(accumulated(inputs[0])[0], dim=self.axes, keepdim=self.keepdims))

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        """dy spread over the axes that were summed."""
        x = build.operand(node, 0)
        if x.name not in build.needed:
            return [None]
        kept = x.type.with_shape(1 if i in self.axes else d for i, d in enumerate(x.type.shape))
        if not self.keepdims and self.axes != tuple(range(len(self.axes))):
            dy = build.add(Reshape(kept.size()[1:] if kept.batched else kept.size(), kept.batched), dy)
        like = [x.name] if x.type.batched and not kept.batched else []
        return [build.add(BroadcastTo(x.type.shape, self.mean), dy, *like)]


@dataclass(frozen=True)
class Variance(_Sums):
    """Of each channel: the mean, over all axes but the last, of the squared distance from the mean."""

    operands: ClassVar[tuple[str, ...]] = ("x",)

    def role(self) -> str:
        return "variance"

    def infer(self, *inputs: TensorType) -> TensorType:
        return self.rounded(_mean_of_channels(inputs[0]).infer(*inputs))

    def flops(self, inputs: Sequence[TensorType], output: TensorType, batch: int) -> int:
        return 4 * inputs[0].elements(batch)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        x = accumulated(inputs[0])[0]
        return self.round(torch.var(x, dim=tuple(range(x.ndim - 1)), correction=0))

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        """2 dy (x - mean) / count."""
        x = build.operand(node, 0)
        if x.name not in build.needed:
            return [None]
        over = _mean_of_channels(x.type)
        slope = build.add(Scale(2.0), build.add(Subtract(), x.name, build.add(over, x.name)))
        (spread,) = over.gradient(build, node, dy)
        return [build.add(Multiply(), slope, str(spread))]


def _mean_of_channels(x: TensorType) -> Reduce:
    return Reduce(tuple(range(x.rank - 1)), mean=True)


# -- losses: a prediction and a target of one shape -> one number, the mean over the batch ----------
@dataclass(frozen=True)
class Loss(_Reduction):
    operands: ClassVar[tuple[str, ...]] = ("prediction", "target")
    role_name: ClassVar[str] = "loss"

    def infer(self, *inputs: TensorType) -> TensorType:
        prediction, target = inputs
        if prediction.shape != target.shape:
            raise ShapeError(
                f"{self.op_name()} takes prediction and target of one shape, found {prediction} and {target}"
            )
        return TensorType((), "float64" if prediction.dtype == "float64" else "float32")

    def flops(self, inputs: Sequence[TensorType], output: TensorType, batch: int) -> int:
        return 5 * inputs[0].elements(batch)

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        return [build.if_needed(build.operand(node, 0), LossGrad(self), *node.inputs, dy), None]

    def derivative(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Derivative of the loss with respect to the prediction."""
        raise NotImplementedError


@dataclass(frozen=True)
class SoftmaxCrossEntropy(Loss):
    """Mean over the rows of -sum(target * log_softmax(prediction)); the prediction being logits."""

    examples: ClassVar[dict[str, Sample]] = {"target": "one hot"}

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        logits, target = accumulated(*inputs)
        return -(target * torch.log_softmax(logits, -1)).sum(-1).mean()

    def derivative(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        rows = prediction.numel() // prediction.shape[-1]
        return (torch.softmax(prediction, -1) * target.sum(-1, keepdim=True) - target) / rows


@dataclass(frozen=True)
class CategoricalCrossEntropy(Loss):
    """Mean over the rows of -sum(target * log p), p the predicted probabilities divided by their sum.

    p is clipped to [1e-7, 1 - 1e-7] as Keras does; beyond these bounds it has no gradient.
    """

    examples: ClassVar[dict[str, Sample]] = {"prediction": "part", "target": "one hot"}

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        prediction, target = accumulated(*inputs)
        p = (prediction / prediction.sum(-1, keepdim=True)).clamp(1e-7, 1 - 1e-7)
        return -(target * torch.log(p)).sum(-1).mean()

    def derivative(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        rows = prediction.numel() // prediction.shape[-1]
        total = prediction.sum(-1, keepdim=True)
        p = prediction / total
        inside = ((p >= 1e-7) & (p <= 1 - 1e-7)).to(p.dtype)
        ratio = target * inside / p.clamp(1e-7, 1 - 1e-7)
        return ((ratio * p).sum(-1, keepdim=True) - ratio) / total / rows


@dataclass(frozen=True)
class BinaryCrossEntropy(Loss):
    """Mean of -(t log p + (1 - t) log(1 - p)).

    from_logits: p = sigmoid(prediction), in the form max(x, 0) - x t + log(1 + exp(-|x|)) that cannot
    overflow; otherwise p = prediction, clipped to [1e-7, 1 - 1e-7] as Keras does.
    """

    from_logits: bool = False

    def example(self, operand: str) -> Sample:
        if operand == "target":
            return "coin"
        return "normal" if self.from_logits else "share"

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        prediction, target = accumulated(*inputs)
        if self.from_logits:
            return F.binary_cross_entropy_with_logits(prediction, target)
        p = prediction.clamp(1e-7, 1 - 1e-7)
        return -(target * torch.log(p) + (1 - target) * torch.log(1 - p)).mean()

    def derivative(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        if self.from_logits:
            return (torch.sigmoid(prediction) - target) / prediction.numel()
        p = prediction.clamp(1e-7, 1 - 1e-7)
        inside = ((prediction >= 1e-7) & (prediction <= 1 - 1e-7)).to(p.dtype)
        return inside * (p - target) / (p * (1 - p)) / prediction.numel()


@dataclass(frozen=True)
class MeanSquaredError(Loss):
    """Mean of (prediction - target)^2 over all elements."""

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        prediction, target = accumulated(*inputs)
        return F.mse_loss(prediction, target)

    def derivative(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return 2 * (prediction - target) / prediction.numel()


@dataclass(frozen=True)
class LossGrad(_Reduction):
    """Derivative of a loss with respect to its prediction, times the loss's own gradient d_loss ()."""

    operands: ClassVar[tuple[str, ...]] = ("prediction", "target", "d_loss")
    loss: Loss = SoftmaxCrossEntropy()

    def example(self, operand: str) -> Sample:
        return self.loss.example(operand)

    def infer(self, *inputs: TensorType) -> TensorType:
        return inputs[0]

    def flops(self, inputs: Sequence[TensorType], output: TensorType, batch: int) -> int:
        return 5 * output.elements(batch)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        prediction, target, d_loss = inputs
        wide = self.loss.derivative(*accumulated(prediction, target)) * d_loss
        return wide.to(prediction.dtype)
