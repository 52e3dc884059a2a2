"""Sequences, images and volumes with every step repeated, or interpolated, a whole number of times."""

from __future__ import annotations

from collections.abc import Sequence

from ...graph import ops
from ...graph.ops.source import METHODS
from .. import fields as f
from ..lowering import Builder
from .base import Layer
from .parts import resized, spatial_axes


class UpSampling1D(Layer):
    """Every step of a sequence (N, steps, channels) `size` times in a row."""

    rank = 3
    said_training = True

    size: int = f.option(f.count, default=2)

    def build(self, b: Builder, *inputs: str) -> str:
        steps = int(b.type(inputs[0]).shape[1])
        return resized(b, inputs[0], (1,), (steps * self.size,), "nearest")


class UpSampling2D(Layer):
    """An image size[0] times as high and size[1] times as wide.

    interpolation: "nearest" repeats pixels, the others are those of `Resizing`, bicubic with a = -1/2.
    """

    rank = 4
    said_training = True

    size: f.PairLike = f.option(f.pair, default=(2, 2))
    data_format: str | None = f.option(f.data_format, default=None)
    interpolation: str = f.option(f.choice(*METHODS), default="nearest")

    def build(self, b: Builder, *inputs: str) -> str:
        return _grown(b, inputs[0], f.pair(self.size), self.data_format, self.interpolation)


class UpSampling3D(Layer):
    """Every voxel repeated size[0], size[1] and size[2] times along depth, height and width."""

    rank = 5
    said_training = True

    size: int | Sequence[int] = f.option(f.triple, default=(2, 2, 2))
    data_format: str | None = f.option(f.data_format, default=None)

    def build(self, b: Builder, *inputs: str) -> str:
        return _grown(b, inputs[0], f.triple(self.size), self.data_format, "nearest")


def _grown(b: Builder, x: str, times: Sequence[int], data_format: str | None, method: str) -> str:
    kind = b.type(x)
    axes = spatial_axes(kind, data_format)
    sizes = [int(kind.shape[axis]) * n for axis, n in zip(axes, times, strict=True)]
    return resized(b, x, axes, sizes, method)


class RepeatVector(Layer):
    """(N, features) n times: (N, n, features)."""

    rank = 2

    n: int = f.option(f.count)

    def build(self, b: Builder, *inputs: str) -> str:
        row = b.add(ops.Reshape((1, b.type(inputs[0]).channels)), inputs[0], suffix="row")
        return resized(b, row, (1,), (self.n,), "nearest")
