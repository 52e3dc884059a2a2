"""Padding and cropping of sequences, images and volumes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...graph import ops
from ...graph.types import TensorType
from ...graph.windows import Pair
from .. import fields as f
from ..lowering import Builder
from .axes import as_image
from .base import Layer
from .parts import cut

BORDER = f.PerAxis(f.border)


class _ZeroPadding(Layer):
    """Base of the layers that put zeros around the data."""

    padding: f.BorderLike = f.option(BORDER, default=1)
    data_format: str | None = f.option(f.data_format, default=None)

    def build(self, b: Builder, *inputs: str) -> str:
        padding = _on_axes(self, self.padding, self.data_format)
        if self.spatial_rank > 1:
            return b.add(ops.Pad(padding), inputs[0])
        # As an image of one row, a convolution after it can take it over.
        return as_image(b, inputs[0], lambda image: b.add(ops.Pad(((0, 0), *padding)), image))


class ZeroPadding1D(_ZeroPadding):
    """Zeros before and after a sequence. padding: n or (before, after)."""

    rank = 3


class ZeroPadding2D(_ZeroPadding):
    """Zeros around the image. padding: n, (rows, columns) or ((top, bottom), (left, right))."""

    rank = 4


class ZeroPadding3D(_ZeroPadding):
    """Zeros around a volume.

    padding: n, (depth, rows, columns) or a pair (before, after) for each of them.
    """

    rank = 5


def _on_axes(layer: Layer, border: Any, data_format: str | None) -> tuple[Pair, ...]:
    """Pairs for every axis of a sample."""
    pairs = (border,) if layer.spatial_rank == 1 else border
    return ((0, 0), *pairs) if data_format == "channels_first" else (*pairs, (0, 0))


def _check_cropping(layer: Layer, cropping: Any, data_format: str | None, kind: TensorType) -> None:
    borders = _on_axes(layer, cropping, data_format)
    for size, (before, after) in zip(kind.shape[1:], borders, strict=True):
        if before + after >= int(size):
            raise layer.fail(f"cropping {cropping} leaves nothing of {kind}; crop less")


def _crop(b: Builder, x: str, borders: tuple[Pair, ...]) -> str:
    starts = tuple(before for before, _ in borders)
    stops = tuple(size - after for size, (_, after) in zip(b.type(x).size()[1:], borders, strict=True))
    return cut(b, x, starts, stops)


class Cropping1D(Layer):
    """The sequence without its ends, channels last. cropping: n or (before, after)."""

    rank = 3

    cropping: f.BorderLike = f.option(BORDER, default=1)

    def check(self, inputs: Sequence[TensorType]) -> None:
        _check_cropping(self, self.cropping, None, inputs[0])

    def build(self, b: Builder, *inputs: str) -> str:
        return _crop(b, inputs[0], _on_axes(self, self.cropping, None))


class _Cropping(Layer):
    """Base of the layers that cut a border off."""

    cropping: f.BorderLike = f.option(BORDER, default=0)
    data_format: str | None = f.option(f.data_format, default=None)

    def check(self, inputs: Sequence[TensorType]) -> None:
        _check_cropping(self, self.cropping, self.data_format, inputs[0])

    def build(self, b: Builder, *inputs: str) -> str:
        return _crop(b, inputs[0], _on_axes(self, self.cropping, self.data_format))


class Cropping2D(_Cropping):
    """The image without its border. cropping: n, (rows, columns) or ((top, bottom), (left, right))."""

    rank = 4


class Cropping3D(_Cropping):
    """The volume without its border.

    cropping: n, (depth, rows, columns) or a pair (before, after) for each of them.
    """

    rank = 5

    cropping: f.BorderLike = f.option(BORDER, default=1)
