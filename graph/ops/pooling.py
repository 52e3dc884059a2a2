"""Windows: max and average pooling with their gradients.

Global pooling is pooling with a window of the whole map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F

from ..errors import ShapeError
from ..op import Kind, Op
from ..types import BATCH, TensorType
from ..windows import NO_PADDING, Padding, Pair, window_output

if TYPE_CHECKING:
    from ..gradients import GradientBuilder
    from ..ir import Node


@dataclass(frozen=True)
class _Window(Op):
    """size, strides: (height, width) of the window and its step. padding: ((top, bottom), (left, right))."""

    kind: ClassVar[Kind] = Kind.WINDOW
    operands: ClassVar[tuple[str, ...]] = ("x",)
    size: Pair = (2, 2)
    strides: Pair = (2, 2)
    padding: Padding = NO_PADDING

    @property
    def window(self) -> str:
        """The window's size in words."""
        return f"{self.size[0]}x{self.size[1]}"

    @property
    def overlapping(self) -> bool:
        return self.size[0] > self.strides[0] or self.size[1] > self.strides[1]

    def geometry(self) -> tuple[Pair, Pair, Padding]:
        return self.size, self.strides, self.padding

    def infer(self, *inputs: TensorType) -> TensorType:
        x = inputs[0]
        if x.rank != 4 or not x.batched:
            raise ShapeError(f"{self.op_name()} takes an image (N, height, width, channels), found {x}")
        spatial = (int(x.shape[1]), int(x.shape[2]))
        for pair, size in zip(self.padding, self.size, strict=True):
            if max(pair) >= size:
                raise ShapeError(
                    f"{self.op_name()}: padding {self.padding} reaches the window's size {self.size}, so a "
                    f"window could lie outside the image; use a smaller padding"
                )
        p, q = window_output(self.op_name(), spatial, self.size, self.strides, self.padding)
        return x.with_shape((BATCH, p, q, x.shape[3]))

    def flops(self, inputs: Sequence[TensorType], output: TensorType, batch: int) -> int:
        return output.elements(batch) * prod(self.size)

    def _windows(self, x: torch.Tensor, fill: float) -> torch.Tensor:
        """x (N, H, W, C) -> its windows (N, P, Q, C, size), what lies outside the image being `fill`."""
        (top, bottom), (left, right) = self.padding
        padded = F.pad(x.permute(0, 3, 1, 2), (left, right, top, bottom), value=fill)
        tiles = padded.unfold(2, self.size[0], self.strides[0]).unfold(3, self.size[1], self.strides[1])
        return tiles.permute(0, 2, 3, 1, 4, 5).flatten(4)

    def _winners(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The windows of x and the place in each that a maximum takes: the first of equal ones on the map.

        Padding is -inf, and wins nowhere, not even where all of a window is. Where there is NaN, the last one
        wins, as PyTorch's own operator has it.
        """
        tiles = self._windows(x, float("-inf"))
        position = torch.arange(tiles.shape[-1], device=tiles.device)
        real = self._windows(torch.ones_like(x[:1, :, :, :1]), 0.0) > 0
        hits = (tiles == tiles.amax(-1, keepdim=True)) & real
        largest = torch.where(hits, position, tiles.shape[-1]).amin(-1)
        broken = torch.where(tiles.isnan(), position, -1).amax(-1)
        return tiles, torch.where(broken >= 0, broken, largest)

    def _scatter(self, values: torch.Tensor, input_size: Pair) -> torch.Tensor:
        """The transpose of `_windows`: values (N, P, Q, C, size) summed back into (N, H, W, C)."""
        (top, bottom), (left, right) = self.padding
        n, p, q, c, _ = values.shape
        (h, w), (step_h, step_w) = input_size, self.strides
        rows = max(h + top + bottom, (p - 1) * step_h + self.size[0])
        cols = max(w + left + right, (q - 1) * step_w + self.size[1])
        image = values.new_zeros(n, rows, cols, c)
        for position in range(prod(self.size)):
            r, s = divmod(position, self.size[1])
            under = image[:, r : r + p * step_h : step_h, s : s + q * step_w : step_w]
            under[:, :p, :q].add_(values[..., position])
        return image[:, top : top + h, left : left + w]


@dataclass(frozen=True)
class MaxPool2D(_Window):
    """Largest value of each window; padding never wins."""

    def words(self, *operands: TensorType) -> str:
        return f"{self.window} max pooling"

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        # not amax, whose derivative shares among equal ones: one of them wins
        tiles, place = self._winners(inputs[0])
        return tiles.gather(-1, place.unsqueeze(-1)).squeeze(-1)

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        x = build.operand(node, 0)
        index = build.add(MaxPoolIndex2D(*self.geometry()), x.name, phase="forward")
        size = (int(x.type.shape[1]), int(x.type.shape[2]))
        return [build.if_needed(x, MaxUnpool2D(*self.geometry(), input_size=size), dy, index)]


@dataclass(frozen=True)
class MaxPoolIndex2D(_Window):
    """Row-major position within its window of each window's largest value, which is always on the map.

    The first of equal ones; where there is NaN, the last NaN, as PyTorch's own operator has it.
    """

    title: ClassVar[str] = "the position of each maximum"
    role_name: ClassVar[str] = "index"

    def infer(self, *inputs: TensorType) -> TensorType:
        return super().infer(*inputs).with_dtype("uint8" if prod(self.size) <= 255 else "int32")

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        dtype = torch.uint8 if prod(self.size) <= 255 else torch.int32
        return self._winners(inputs[0])[1].to(dtype)


@dataclass(frozen=True)
class MaxUnpool2D(_Window):
    """Gradient of max pooling: each dy goes to the position its index names; overlapping windows add up."""

    operands: ClassVar[tuple[str, ...]] = ("dy", "index")
    whole: ClassVar[tuple[str, ...]] = ("index",)
    value_name: ClassVar[str] = "spread"
    input_size: Pair = (0, 0)

    def words(self, *operands: TensorType) -> str:
        return f"gradient of {self.window} max pooling"

    def infer(self, *inputs: TensorType) -> TensorType:
        return inputs[0].with_shape((BATCH, *self.input_size, inputs[0].shape[3]))

    def flops(self, inputs: Sequence[TensorType], output: TensorType, batch: int) -> int:
        return inputs[0].elements(batch) * (prod(self.size) if self.overlapping else 1)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        dy, index = inputs
        position = torch.arange(prod(self.size), device=dy.device)
        chosen = index.long().unsqueeze(-1) == position
        return self._scatter(torch.where(chosen, dy.unsqueeze(-1), 0), self.input_size)


@dataclass(frozen=True)
class AveragePool2D(_Window):
    """Mean of each window over the elements that lie inside the image, as Keras counts them."""

    def words(self, *operands: TensorType) -> str:
        return f"{self.window} average pooling"

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        total = self._windows(inputs[0], 0.0).sum(-1)
        return total / self._windows(torch.ones_like(inputs[0]), 0.0).sum(-1)

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        x = build.operand(node, 0)
        size = (int(x.type.shape[1]), int(x.type.shape[2]))
        return [build.if_needed(x, AverageUnpool2D(*self.geometry(), input_size=size), dy)]


@dataclass(frozen=True)
class AverageUnpool2D(_Window):
    """Gradient of average pooling: each dy, over its window's number of real elements, to all of them.

    Times the window's size, over windows that tile the map, it is up-sampling by repetition.
    """

    operands: ClassVar[tuple[str, ...]] = ("dy",)
    value_name: ClassVar[str] = "spread"
    input_size: Pair = (0, 0)

    def words(self, *operands: TensorType) -> str:
        return f"gradient of {self.window} average pooling"

    def infer(self, *inputs: TensorType) -> TensorType:
        return inputs[0].with_shape((BATCH, *self.input_size, inputs[0].shape[3]))

    def flops(self, inputs: Sequence[TensorType], output: TensorType, batch: int) -> int:
        return inputs[0].elements(batch) * prod(self.size)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        dy = inputs[0]
        ones = dy.new_ones(1, *self.input_size, dy.shape[3])
        share = dy / self._windows(ones, 0.0).sum(-1)
        return self._scatter(share.unsqueeze(-1).expand(*share.shape, prod(self.size)), self.input_size)

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        """Spreading is the transpose of averaging, and so averaging that of spreading."""
        return [build.if_needed(build.operand(node, 0), AveragePool2D(*self.geometry()), dy)]
