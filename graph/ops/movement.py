"""Views and movement: the same numbers under another shape or at another place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F

from ..errors import ShapeError
from ..op import Kind, Op
from ..types import BATCH, Dim, TensorType
from ..windows import Pair

if TYPE_CHECKING:
    from ..gradients import GradientBuilder
    from ..ir import Node


@dataclass(frozen=True)
class Reshape(Op):
    """The same elements in the same row-major order under another shape.

    shape: without the batch axis, which stays in front. batched=False is for values that have none (weights);
    then it is the whole shape.
    """

    kind: ClassVar[Kind] = Kind.VIEW
    operands: ClassVar[tuple[str, ...]] = ("x",)
    whole: ClassVar[tuple[str, ...]] = ("x",)
    shape: tuple[int, ...] = ()
    batched: bool = True

    def infer(self, *inputs: TensorType) -> TensorType:
        x = inputs[0]
        result = x.with_shape((BATCH, *self.shape) if self.batched else self.shape)
        if x.batched != self.batched or x.elements() != result.elements():
            wanted = ", ".join(map(str, result.shape))
            what = "sizes differ" if x.batched == self.batched else "one of them has no batch axis"
            raise ShapeError(f"cannot reshape {x} to ({wanted}): {what}")
        return result

    def flops(self, inputs: Sequence[TensorType], output: TensorType, batch: int) -> int:
        return 0

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        x = inputs[0]
        return x.reshape(x.shape[0], *self.shape) if self.batched else x.reshape(self.shape)

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        x = build.operand(node, 0)
        size = x.type.size()[1:] if self.batched else x.type.size()
        return [build.if_needed(x, Reshape(size, self.batched), dy)]


@dataclass(frozen=True)
class _Movement(Op):
    kind: ClassVar[Kind] = Kind.MOVEMENT
    operands: ClassVar[tuple[str, ...]] = ("x",)
    whole: ClassVar[tuple[str, ...]] = ("x",)

    def flops(self, inputs: Sequence[TensorType], output: TensorType, batch: int) -> int:
        return 0


@dataclass(frozen=True)
class Concat(_Movement):
    """Operands one after another along `axis` (never the batch)."""

    operands: ClassVar[tuple[str, ...]] = ("x*",)
    alike: ClassVar[tuple[str, ...]] = ("x",)
    axis: int = -1

    def infer(self, *inputs: TensorType) -> TensorType:
        if not inputs:
            raise ShapeError("concat needs at least one operand")
        rank = inputs[0].rank
        axis = self.axis % rank if -rank <= self.axis < rank else 0
        if axis == 0:
            raise ShapeError(
                f"concat along axis {self.axis} of {inputs[0]}: use an axis from 1 to {rank - 1}"
            )
        rest = [t.shape[:axis] + t.shape[axis + 1 :] for t in inputs]
        if any(r != rest[0] for r in rest) or any(t.rank != rank for t in inputs):
            raise ShapeError(
                f"concat along axis {axis} needs shapes equal on every other axis, "
                f"found {', '.join(map(str, inputs))}"
            )
        if len({t.dtype for t in inputs}) > 1:
            raise ShapeError(f"concat needs one dtype, found {', '.join(map(str, inputs))}; cast some before")
        size = sum(int(t.shape[axis]) for t in inputs)
        return inputs[0].with_shape((*inputs[0].shape[:axis], size, *inputs[0].shape[axis + 1 :]))

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return torch.cat(inputs, self.axis)

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        axis, start = self.axis % node.type.rank, 0
        gradients: list[str | None] = []
        for position in range(len(node.inputs)):
            x = build.operand(node, position)
            stops: list[int] = [int(d) for d in node.type.shape[1:]]
            starts = [0] * len(stops)
            starts[axis - 1], stops[axis - 1] = start, start + int(x.type.shape[axis])
            start = stops[axis - 1]
            gradients.append(build.if_needed(x, Slice(tuple(starts), tuple(stops)), dy))
        return gradients


@dataclass(frozen=True)
class Pad(_Movement):
    """`value` before and after the data. padding: (before, after) for each axis but the batch."""

    padding: tuple[Pair, ...] = ()
    value: float = 0.0

    def infer(self, *inputs: TensorType) -> TensorType:
        x = inputs[0]
        if len(self.padding) != x.rank - 1 or any(min(p) < 0 for p in self.padding):
            raise ShapeError(f"pad of {x} needs {x.rank - 1} pairs of sizes >= 0, found {self.padding}")
        sizes: list[Dim] = [int(d) + a + b for d, (a, b) in zip(x.shape[1:], self.padding, strict=True)]
        return x.with_shape((BATCH, *sizes))

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        flat = [n for pair in reversed(self.padding) for n in pair]
        return F.pad(inputs[0], flat, value=self.value)

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        x = build.operand(node, 0)
        starts = tuple(before for before, _ in self.padding)
        stops = tuple(s + int(d) for s, d in zip(starts, x.type.shape[1:], strict=True))
        return [build.if_needed(x, Slice(starts, stops), dy)]


@dataclass(frozen=True)
class Slice(_Movement):
    """x[:, start:stop, ...] for each axis but the batch."""

    starts: tuple[int, ...] = ()
    stops: tuple[int, ...] = ()

    def infer(self, *inputs: TensorType) -> TensorType:
        x = inputs[0]
        bounds = list(zip(self.starts, self.stops, strict=False))
        if not len(self.starts) == len(self.stops) == x.rank - 1 or any(
            not 0 <= a < b <= int(d) for (a, b), d in zip(bounds, x.shape[1:], strict=True)
        ):
            raise ShapeError(f"slice {self.starts}:{self.stops} does not fit {x}")
        return x.with_shape((BATCH, *(b - a for a, b in bounds)))

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return inputs[0][(slice(None), *map(slice, self.starts, self.stops))]

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        x = build.operand(node, 0)
        after = (int(d) - stop for d, stop in zip(x.type.shape[1:], self.stops, strict=True))
        return [build.if_needed(x, Pad(tuple(zip(self.starts, after, strict=True))), dy)]


@dataclass(frozen=True)
class Flip(_Movement):
    """The other way round along `axes` (never the batch)."""

    axes: tuple[int, ...] = ()

    def infer(self, *inputs: TensorType) -> TensorType:
        if any(not 1 <= axis < inputs[0].rank for axis in self.axes):
            raise ShapeError(f"flip of {inputs[0]} along axes {self.axes}: use axes from 1 on")
        return inputs[0]

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return inputs[0].flip(self.axes)

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        return [build.if_needed(build.operand(node, 0), self, dy)]


@dataclass(frozen=True)
class Transpose(_Movement):
    """Axes in another order. permutation: of all axes; the batch, where there is one, stays first."""

    permutation: tuple[int, ...] = ()

    def infer(self, *inputs: TensorType) -> TensorType:
        x = inputs[0]
        if sorted(self.permutation) != list(range(x.rank)) or (x.batched and self.permutation[0] != 0):
            raise ShapeError(f"transpose of {x} needs a permutation of its axes that keeps the batch first")
        return x.with_shape(x.shape[i] for i in self.permutation)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return inputs[0].permute(self.permutation)

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        inverse = tuple(self.permutation.index(i) for i in range(len(self.permutation)))
        return [build.if_needed(build.operand(node, 0), Transpose(inverse), dy)]
