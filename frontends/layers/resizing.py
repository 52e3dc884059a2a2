"""Images at another size, whatever the factor: interpolated, cropped or padded to fit."""

from __future__ import annotations

from collections.abc import Sequence

from ...graph import ops
from ...graph.ops.source import METHODS
from ...graph.types import TensorType
from ...graph.windows import Pair
from .. import fields as f
from ..lowering import Builder
from .base import Layer
from .parts import largest_window, middle, resized, spatial_axes


class Resizing(Layer):
    """An image at height x width, its pixels interpolated between those of the input.

    interpolation: "nearest", "bilinear", "bicubic", "lanczos3" or "lanczos5", as Keras computes them on JAX
    and TensorFlow: bicubic is that of Keys 1981 with a = -1/2 (on PyTorch Keras has a = -3/4 without
    antialias, and no Lanczos). antialias: where the image shrinks, each pixel is a mean over all it covers.
    crop_to_aspect_ratio: resize the largest window in the middle that has the new shape, rather than stretch.
    pad_to_aspect_ratio: resize the whole with `fill_value` on two sides. One of them at most.
    """

    rank = 4
    said_training = True

    height: int = f.option(f.count)
    width: int = f.option(f.count)
    interpolation: str = f.option(f.choice(*METHODS), default="bilinear")
    crop_to_aspect_ratio: bool = f.option(f.flag, default=False)
    pad_to_aspect_ratio: bool = f.option(f.flag, default=False)
    fill_mode: str = f.option(f.choice("constant"), default="constant")
    fill_value: float = f.option(f.number, default=0.0)
    antialias: bool = f.option(f.flag, default=False)
    data_format: str | None = f.option(f.data_format, default=None)

    def check(self, inputs: Sequence[TensorType]) -> None:
        if self.crop_to_aspect_ratio and self.pad_to_aspect_ratio:
            raise self.fail("takes crop_to_aspect_ratio or pad_to_aspect_ratio, not both; set one to False")

    def build(self, b: Builder, *inputs: str) -> str:
        x, target = inputs[0], (self.height, self.width)
        axes = spatial_axes(b.type(x), self.data_format)
        if self.crop_to_aspect_ratio:
            x = middle(b, x, axes, largest_window(_sizes(b, x, axes), target))
        elif self.pad_to_aspect_ratio:
            x = self._padded(b, x, axes)
        return resized(b, x, axes, target, self.interpolation, self.antialias)

    def _padded(self, b: Builder, x: str, axes: Sequence[int]) -> str:
        """As much on either side as makes the image's shape that of the result, as far as whole pixels go."""
        height, width = _sizes(b, x, axes)
        wanted = int(width * self.height / self.width), int(height * self.width / self.height)
        padding = [(0, 0)] * (b.type(x).rank - 1)
        for axis, size, whole in zip(axes, (height, width), wanted, strict=True):
            padding[axis - 1] = (max(whole - size, 0) // 2,) * 2
        if not any(before for before, _ in padding):
            return x
        return b.add(ops.Pad(tuple(padding), self.fill_value), x, suffix="padded")


class CenterCrop(Layer):
    """The middle height x width of an image.

    Of an image that is smaller on an axis, the largest window in the middle that has that shape is resized,
    bilinearly, to height x width.
    """

    rank = 4
    said_training = True

    height: int = f.option(f.count)
    width: int = f.option(f.count)
    data_format: str | None = f.option(f.data_format, default=None)

    def build(self, b: Builder, *inputs: str) -> str:
        x, target = inputs[0], (self.height, self.width)
        axes = spatial_axes(b.type(x), self.data_format)
        sizes = _sizes(b, x, axes)
        if self.height <= sizes[0] and self.width <= sizes[1]:
            return middle(b, x, axes, target)
        return resized(b, middle(b, x, axes, largest_window(sizes, target)), axes, target, "bilinear")


def _sizes(b: Builder, x: str, axes: Sequence[int]) -> Pair:
    height, width = (int(b.type(x).shape[axis]) for axis in axes)
    return height, width
