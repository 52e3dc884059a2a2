"""Padding and cropping of images."""

from __future__ import annotations

from collections.abc import Sequence

from ...graph import ops
from ...graph.types import TensorType
from ...graph.windows import Pair
from .. import fields as f
from ..lowering import Builder
from .base import Layer

Borders = int | Sequence[int] | Sequence[Sequence[int]]


class ZeroPadding2D(Layer):
    """Zeros around the image. padding: n, (rows, columns) or ((top, bottom), (left, right))."""

    rank = 4

    padding: Borders = f.option(f.border, default=(1, 1))
    data_format: str | None = f.option(f.data_format, default=None)

    def build(self, b: Builder, *inputs: str) -> str:
        return b.add(ops.Pad(_on_axes(self.padding, self.data_format)), inputs[0])


class Cropping2D(Layer):
    """The image without its border. cropping: n, (rows, columns) or ((top, bottom), (left, right))."""

    rank = 4

    cropping: Borders = f.option(f.border, default=((0, 0), (0, 0)))
    data_format: str | None = f.option(f.data_format, default=None)

    def check(self, inputs: Sequence[TensorType]) -> None:
        borders = _on_axes(self.cropping, self.data_format)
        for size, (before, after) in zip(inputs[0].shape[1:], borders, strict=True):
            if before + after >= int(size):
                raise self.fail(f"cropping {self.cropping} leaves nothing of {inputs[0]}; crop less")

    def build(self, b: Builder, *inputs: str) -> str:
        borders = _on_axes(self.cropping, self.data_format)
        sizes = b.type(inputs[0]).size()[1:]
        starts = tuple(before for before, _ in borders)
        stops = tuple(size - after for size, (_, after) in zip(sizes, borders, strict=True))
        return b.add(ops.Slice(starts, stops), inputs[0])


def _on_axes(border: Borders, data_format: str | None) -> tuple[Pair, ...]:
    """Pairs for the three axes of a sample."""
    rows, columns = f.border(border)
    return ((0, 0), rows, columns) if data_format == "channels_first" else (rows, columns, (0, 0))
