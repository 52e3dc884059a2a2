"""Images under a geometric transform: each pixel of the result is looked up in the image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from ..errors import ShapeError
from ..op import Kind, Op
from ..types import BATCH, TensorType
from ..windows import Pair

if TYPE_CHECKING:
    from ..gradients import GradientBuilder
    from ..ir import Node

FILL_MODES = ("constant", "nearest", "reflect", "wrap")
"""What lies outside an image: fill_value; the pixel at the edge; the image mirrored about its edge, so that
the edge pixel comes twice; the image again."""

INTERPOLATIONS = ("nearest", "bilinear")

Tap = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Index of a pixel in its image, its weight, and whether it lies inside: each (N, height, width)."""


@dataclass(frozen=True)
class _Warp(Op):
    """The places of the result's pixels in the image, which both directions share.

    With the transform's numbers a0, a1, a2, b0, b1, b2, c0, c1, the pixel in column x of row y is found at

        ((a0 x + a1 y + a2) / k, (b0 x + b1 y + b2) / k),  k = c0 x + c1 y + 1

    pixels lying at whole numbers. interpolation: "nearest", halves away from 0, or "bilinear". fill_mode: one
    of FILL_MODES, applied to each pixel that is read; an interpolation reads beyond the edge like this too.
    """

    kind: ClassVar[Kind] = Kind.MOVEMENT
    interpolation: str = "bilinear"
    fill_mode: str = "constant"
    fill_value: float = 0.0

    def _check(self, image: TensorType, transform: TensorType) -> None:
        if self.interpolation not in INTERPOLATIONS:
            raise ShapeError(f"interpolation must be one of {INTERPOLATIONS}, got {self.interpolation!r}")
        if self.fill_mode not in FILL_MODES:
            raise ShapeError(f"fill_mode must be one of {FILL_MODES}, got {self.fill_mode!r}")
        if image.rank != 4 or transform.shape not in ((BATCH, 8), (8,)):
            raise ShapeError(
                f"{self.op_name()} takes images (N, height, width, channels) and transforms (N, 8) or (8,), "
                f"found {image} and {transform}"
            )

    def places(
        self, transform: torch.Tensor, batch: int, size: Pair, image: Pair
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Row and column at which each pixel of a result of `size` lies in an image, (batch, *size) each."""
        a0, a1, a2, b0, b1, b2, c0, c1 = transform.expand(batch, 8)[..., None, None].unbind(1)
        y = torch.arange(size[0], dtype=transform.dtype, device=transform.device)[:, None]
        x = torch.arange(size[1], dtype=transform.dtype, device=transform.device)
        k = c0 * x + c1 * y + 1
        down, across = (b0 * x + b1 * y + b2) / k, (a0 * x + a1 * y + a2) / k
        if self.fill_mode in ("constant", "nearest"):  # farther out there is nothing else
            return down.clamp(-2, image[0] + 1), across.clamp(-2, image[1] + 1)
        return down, across

    def taps(self, transform: torch.Tensor, batch: int, size: Pair, image: Pair) -> Iterator[Tap]:
        """What each pixel of a result of `size` reads of an image: one tap, or four."""
        down, across = self.places(transform, batch, size, image)
        columns = list(self._along(across, image[1]))
        for i, of_row, row_inside in self._along(down, image[0]):
            for j, of_column, column_inside in columns:
                yield i * image[1] + j, of_row * of_column, row_inside & column_inside

    def _along(self, place: torch.Tensor, size: int) -> Iterator[Tap]:
        """The taps along one axis."""
        if self.interpolation == "nearest":
            below = (place.abs() + 0.5).floor() * place.sign()
            weights = [torch.ones_like(place)]
        else:
            below = place.floor()
            weights = [1 - (place - below), place - below]
        for step, weight in enumerate(weights):
            index = below.long() + step
            inside = (index >= 0) & (index < size)
            match self.fill_mode:
                case "wrap":
                    index = index % size
                case "reflect":
                    index = index % (2 * size)
                    index = torch.where(index < size, index, 2 * size - 1 - index)
            yield index.clamp(0, size - 1), weight, inside | (self.fill_mode != "constant")


@dataclass(frozen=True)
class Warp(_Warp):
    """Images under a transform each, or all under one: an image of `size`, looked up as `_Warp` says."""

    operands: ClassVar[tuple[str, ...]] = ("x", "transform")
    size: Pair = (1, 1)

    def infer(self, *inputs: TensorType) -> TensorType:
        self._check(*inputs)
        return inputs[0].with_shape((BATCH, *self.size, inputs[0].channels))

    def flops(self, inputs: Sequence[TensorType], output: TensorType, batch: int) -> int:
        return (8 if self.interpolation == "bilinear" else 1) * output.elements(batch)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        x, transform = inputs
        batch, height, width, channels = x.shape
        pixels = x.reshape(batch, height * width, channels)
        image = torch.arange(batch, device=x.device)[:, None, None]
        total = x.new_zeros(batch, *self.size, channels)
        for index, weight, inside in self.taps(transform, batch, self.size, (height, width)):
            found = pixels[image, index]
            if self.fill_mode == "constant":
                found = torch.where(inside[..., None], found, self.fill_value)
            total = total + weight[..., None].to(x.dtype) * found
        return total

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        x = build.operand(node, 0)
        height, width = x.type.size()[1:3]
        op = WarpGrad(self.interpolation, self.fill_mode, self.fill_value, (height, width))
        return [build.if_needed(x, op, dy, node.inputs[1]), None]


@dataclass(frozen=True)
class WarpGrad(_Warp):
    """Gradient of Warp: each pixel of dy goes back, by its weights, to the pixels it was read from."""

    operands: ClassVar[tuple[str, ...]] = ("dy", "transform")
    input_size: Pair = (1, 1)

    def infer(self, *inputs: TensorType) -> TensorType:
        self._check(*inputs)
        return inputs[0].with_shape((BATCH, *self.input_size, inputs[0].channels))

    def flops(self, inputs: Sequence[TensorType], output: TensorType, batch: int) -> int:
        return (8 if self.interpolation == "bilinear" else 1) * inputs[0].elements(batch)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        dy, transform = inputs
        batch, *size, channels = dy.shape
        pixels = self.input_size[0] * self.input_size[1]
        first = pixels * torch.arange(batch, device=dy.device)[:, None, None]
        total = dy.new_zeros(batch * pixels, channels)
        for index, weight, inside in self.taps(transform, batch, (size[0], size[1]), self.input_size):
            share = (weight * inside)[..., None].to(dy.dtype) * dy
            total.index_add_(0, (first + index).flatten(), share.flatten(0, 2))
        return total.reshape(batch, *self.input_size, channels)
