"""Values of one process joined with those of all others that train the same network: batch norm's statistics.

Alone a process has what is joined already. Each process counts by its batch: `image` is an input of the
network, of which only the number of examples is read, and `each` says how many values an example brings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.distributed as dist

from ..errors import CompileError
from ..op import Kind, Op
from ..types import TensorType


class Presence:
    """counts: whether this process has examples of its own in the batch, or only keeps pace."""

    counts: bool = True


presence = Presence()


@dataclass(frozen=True)
class _Across(Op):
    """Base: the first operand, joined. each: values of a channel that one example brings."""

    kind: ClassVar[Kind] = Kind.COLLECTIVE
    each: int = 1

    def infer(self, *inputs: TensorType) -> TensorType:
        return inputs[0]

    def flops(self, inputs: Sequence[TensorType], output: TensorType, batch: int) -> int:
        return 0

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        *values, image = inputs
        if not _together():
            return values[0]
        if torch.is_grad_enabled() and any(value.requires_grad for value in values):
            raise CompileError(
                "batch norm over all processes has no second derivative; leave create_graph=True out, or "
                "sync_batch_norm"
            )
        return self.joined(*values, count=float(len(image) * self.each if presence.counts else 0))

    def joined(self, *values: torch.Tensor, count: float) -> torch.Tensor:
        raise NotImplementedError


@dataclass(frozen=True)
class MeanAcross(_Across):
    """The mean of each channel over the values of all processes, given that of this one."""

    operands: ClassVar[tuple[str, ...]] = ("mean", "image")
    whole: ClassVar[tuple[str, ...]] = ("image",)

    def joined(self, *values: torch.Tensor, count: float) -> torch.Tensor:
        counts, (means,) = _gathered(count, values)
        return _mean(counts, means).to(values[0].dtype)


@dataclass(frozen=True)
class VarianceAcross(_Across):
    """The biased variance of each channel over the values of all processes, given both of this one.

    The mean of the variances and of the means' squared distances from the joined mean (Chan, Golub & LeVeque
    1983): no difference of large squares.
    """

    operands: ClassVar[tuple[str, ...]] = ("variance", "mean", "image")
    whole: ClassVar[tuple[str, ...]] = ("image",)

    def joined(self, *values: torch.Tensor, count: float) -> torch.Tensor:
        counts, (variances, means) = _gathered(count, values)
        spread = (means - _mean(counts, means)).square()
        return _mean(counts, variances + spread).to(values[0].dtype)


@dataclass(frozen=True)
class SumAcross(_Across):
    """Sums over all processes, times this one's part of all values: over the count of this process they give
    the mean over all."""

    operands: ClassVar[tuple[str, ...]] = ("total", "image")
    whole: ClassVar[tuple[str, ...]] = ("image",)

    def joined(self, *values: torch.Tensor, count: float) -> torch.Tensor:
        counts, (totals,) = _gathered(count, values)
        return (totals.sum(0) * (count / counts.sum())).to(values[0].dtype)


def _together() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _gathered(count: float, values: Sequence[torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The counts of all processes (P, 1), and of each value those of all of them (P, C), in float64."""
    wide = [value.reshape(-1).to(torch.float64) for value in values]
    own = torch.cat([wide[0].new_full((1,), count), *wide])
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, own)
    counts, *found = torch.stack(parts).split([1, *map(len, wide)], dim=1)
    return counts, found


def _mean(counts: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Of the processes, by their counts; what a process without examples has is not looked at."""
    seen = torch.where(counts > 0, values, 0.0)
    return (seen * counts).sum(0) / counts.sum()
