"""Images under a geometric transform: each pixel of the result is looked up in the image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from ..errors import ShapeError
from ..formula import converted, where
from ..functions import clamp, floor, remainder
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

NUMBERS = ("a0", "a1", "a2", "b0", "b1", "b2", "c0", "c1")
"""What the numbers of a transform are called."""

Tap = tuple[Any, Any, Any]
"""Where a pixel is read: its number, its weight (1.0 for one tap alone), and whether it lies inside (True
where all do)."""

Let = Callable[[str, Any, str], Any]
"""(name, value, remark) -> the value, which text may call by the name from there on."""


def _plain(name: str, value: Any, remark: str) -> Any:
    return value


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

    # -- said once, of tensors and of formulas alike; see `graph/formula.py` ----------
    def at(
        self, numbers: Sequence[Any], p: Any, q: Any, image: Sequence[Any], let: Let = _plain
    ) -> list[Any]:
        """Row and column at which the pixel in row p and column q of the result lies in an image.

        numbers: of the transform. image: its rows and columns.
        """
        a0, a1, a2, b0, b1, b2, c0, c1 = numbers  # NUMBERS
        k = let("k", c0 * q + c1 * p + 1.0, "")
        down = let("down", (b0 * q + b1 * p + b2) / k, "row in the image")
        across = let("across", (a0 * q + a1 * p + a2) / k, "column in the image")
        if self.fill_mode not in ("constant", "nearest"):
            return [down, across]
        return [
            let(name, clamp(place, -2.0, size + 1.0), "farther is no different")
            for name, place, size in zip(("down", "across"), (down, across), image, strict=True)
        ]

    def taps_at(self, place: Sequence[Any], image: Sequence[Any], let: Let = _plain) -> Iterator[Tap]:
        """What is read of an image at such a place: one tap, or four."""
        rows, columns = (
            list(self._along(*axis, let))
            for axis in zip(("down", "across"), ("i", "j"), place, image, strict=True)
        )
        for i, of_row, row_inside in rows:
            for j, of_column, column_inside in columns:
                yield i * image[1] + j, of_row * of_column, row_inside & column_inside

    def _along(self, name: str, index: str, place: Any, size: Any, let: Let) -> Iterator[Tap]:
        """The taps along one axis."""
        if self.interpolation == "nearest":
            below = where(place < 0, -floor(0.5 - place), floor(place + 0.5))
            yield self._within(f"{index}0", let(f"{index}0", converted(below, "int32"), ""), 1.0, size, let)
            return
        first = let(f"{index}0", converted(floor(place), "int32"), "")
        rest = let(name, place - floor(place), "what is left of it, in [0, 1)")
        second = let(f"{index}1", first + 1, "")
        yield self._within(f"{index}0", first, 1.0 - rest, size, let)
        yield self._within(f"{index}1", second, rest, size, let)

    def _within(self, name: str, index: Any, weight: Any, size: Any, let: Let) -> Tap:
        """A tap along one axis with its place as the fill mode has it."""
        match self.fill_mode:
            case "constant":
                return index, weight, (index >= 0) & (index < size)
            case "nearest":
                index = let(name, clamp(index, 0, size - 1), "")
            case "wrap":
                index = let(name, remainder(index, size), "")
            case "reflect":
                index = let(name, remainder(index, 2 * size), "")
                index = let(name, where(index < size, index, 2 * size - 1 - index), "")
        return index, weight, True

    # -- of tensors ----------
    def places(self, transform: torch.Tensor, batch: int, size: Pair, image: Pair) -> list[torch.Tensor]:
        """`at` for all pixels of results of `size`: two of (batch, *size)."""
        numbers = transform.expand(batch, 8)[..., None, None].unbind(1)
        p = torch.arange(size[0], dtype=transform.dtype, device=transform.device)[:, None]
        q = torch.arange(size[1], dtype=transform.dtype, device=transform.device)
        return self.at(numbers, p, q, image)

    def taps(self, transform: torch.Tensor, batch: int, size: Pair, image: Pair) -> Iterator[Tap]:
        """`taps_at` for all pixels of results of `size`; one outside has the number 0."""
        places = self.places(transform, batch, size, image)
        one = torch.ones_like(places[0])
        for index, weight, inside in self.taps_at(places, image):
            known = inside & (one > 0)
            yield torch.where(known, index, 0).long(), weight * one, known


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
