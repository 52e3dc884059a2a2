"""Reductions: sums and means over axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch

from ..errors import ShapeError
from ..op import Kind, Op
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
