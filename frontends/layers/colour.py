"""Colours of images changed at random in training, a factor an image; the identity in inference.

value_range: the least and the largest value that the images have; results are clipped to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...graph import ops
from ...graph.errors import ShapeError
from .. import fields as f
from .. import ranges as r
from ..lowering import Builder
from .augmentation import Factor, _Augmentation
from .drawn import clipped, per_element, per_sample
from .parts import spatial

GREY = (0.2989, 0.5870, 0.1140)
"""Parts of red, green and blue in brightness (ITU-R BT.601)."""


class RandomBrightness(_Augmentation):
    """Plus a part of the range of values, drawn from `factor`."""

    factor: Factor = f.option(r.factor(-1, 1))
    value_range: Sequence[float] = f.option(r.value_range, default=(0, 255))
    seed: int | None = f.option(f.maybe(f.integer), default=None)

    def augment(self, b: Builder, x: str) -> str:
        low, high = r.value_range(self.value_range)
        lower, upper = r.ends(self.factor)
        added = per_sample(b, x, "uniform", (lower * (high - low), upper * (high - low)))
        return clipped(b, b.add(ops.Add(), x, added, suffix="brighter"), (low, high))


class RandomContrast(_Augmentation):
    """Distances from each channel's mean times a number from 1 - factor[0] to 1 + factor[1].

    One number stands for (0, number), as in Keras, so that contrast only grows.
    """

    factor: Factor = f.option(r.factor(0, 1))
    value_range: Sequence[float] = f.option(r.value_range, default=(0, 255))
    seed: int | None = f.option(f.maybe(f.integer), default=None)

    def augment(self, b: Builder, x: str) -> str:
        lower, upper = r.ends(self.factor)
        mean = b.add(ops.Reduce((1, 2), mean=True, keepdims=True), x, suffix="mean")
        away = b.add(ops.Subtract(), x, mean, suffix="away")
        factor = per_sample(b, x, "uniform", (1 - lower, 1 + upper))
        scaled = b.add(ops.Multiply(), away, factor, suffix="scaled")
        return clipped(b, b.add(ops.Add(), scaled, mean, suffix="contrast"), r.value_range(self.value_range))


def _towards_grey(b: Builder, x: str, factor: str) -> str:
    """x - factor * (x - grey)."""
    weighted = b.add(ops.Multiply(), x, b.add(ops.Constant((3,), GREY), suffix="grey_parts"), suffix="parts")
    grey = b.add(ops.Reduce((3,), keepdims=True), weighted, suffix="grey")
    colour = b.add(ops.Subtract(), x, grey, suffix="colour")
    return b.add(ops.Subtract(), x, b.add(ops.Multiply(), colour, factor, suffix="taken"), suffix="greyer")


class _Grey(_Augmentation):
    """Base of the layers that need the grey image: of three channels, or of one, which is grey already."""

    def augment(self, b: Builder, x: str) -> str:
        count = b.type(x).channels
        if count not in (1, 3):
            raise self.fail(f"takes images of 1 or 3 channels, found {count}")
        return self.greyer(b, x) if count == 3 else self.grey(b, x)

    def grey(self, b: Builder, x: str) -> str:
        return x

    def greyer(self, b: Builder, x: str) -> str:
        raise NotImplementedError


class RandomGrayscale(_Grey):
    """Grey, in all three channels, with probability `factor`."""

    factor: float = f.option(f.within(0, 1), default=0.5)
    seed: int | None = f.option(f.maybe(f.integer), default=None)

    def greyer(self, b: Builder, x: str) -> str:
        return _towards_grey(b, x, per_sample(b, x, "bernoulli", (self.factor, 1.0), suffix="chosen"))


class RandomColorDegeneration(_Grey):
    """Moved towards grey by a part drawn from `factor`, 1 being grey and below 0 more colour."""

    factor: Factor = f.option(r.factor(-1, 1))
    value_range: Sequence[float] = f.option(r.value_range, default=(0, 255))
    seed: int | None = f.option(f.maybe(f.integer), default=None)

    def grey(self, b: Builder, x: str) -> str:
        return clipped(b, x, r.value_range(self.value_range))

    def greyer(self, b: Builder, x: str) -> str:
        factor = per_sample(b, x, "uniform", r.ends(self.factor))
        return clipped(b, _towards_grey(b, x, factor), r.value_range(self.value_range))


class RandomInvert(_Augmentation):
    """The largest value minus the image, with the probability `factor` or one drawn from it."""

    factor: Factor = f.option(r.factor(0, 1), default=1.0)
    value_range: Sequence[float] = f.option(r.value_range, default=(0, 255))
    seed: int | None = f.option(f.maybe(f.integer), default=None)

    def augment(self, b: Builder, x: str) -> str:
        """x - chosen * (2 x - largest)."""
        chosen = per_sample(b, x, "bernoulli", (r.mean(self.factor), 1.0), suffix="chosen")
        change = b.add(ops.Scale(2.0, -r.value_range(self.value_range)[1]), x, suffix="change")
        change = b.add(ops.Multiply(), change, chosen, suffix="changed")
        return b.add(ops.Subtract(), x, change, suffix="inverted")


class RandomSharpness(_Augmentation):
    """Between smoothed (0), itself (1/2) and sharpened (1), by a number drawn from `factor`.

    Smoothed is the mean of 3x3 pixels with the middle one five times, zeros lying outside, as in PIL.
    """

    factor: Factor = f.option(r.factor(0, 1))
    value_range: Sequence[float] = f.option(r.value_range, default=(0, 255))
    seed: int | None = f.option(f.maybe(f.integer), default=None)

    def augment(self, b: Builder, x: str) -> str:
        """x + (1 - 2 factor) (smoothed - x), where smoothed - x is 9/13 (mean - x)."""
        lower, upper = r.ends(self.factor)
        padded = b.add(ops.Pad(((1, 1), (1, 1), (0, 0))), x, suffix="padded")
        mean = b.add(ops.AveragePool2D((3, 3), (1, 1)), padded, suffix="mean")
        away = b.add(ops.Subtract(), mean, x, suffix="away")
        part = per_sample(b, x, "uniform", ((1 - 2 * upper) * 9 / 13, (1 - 2 * lower) * 9 / 13))
        change = b.add(ops.Multiply(), away, part, suffix="change")
        return clipped(b, b.add(ops.Add(), x, change, suffix="sharper"), r.value_range(self.value_range))


WIDEST_BLUR = 255


def _odd(value: Any) -> tuple[int, int]:
    """An odd number, or two -> two."""
    size: tuple[int, int] = f.pair(value)
    if any(n % 2 == 0 or n > WIDEST_BLUR for n in size):
        raise ShapeError(f"must be odd and at most {WIDEST_BLUR}, got {value!r}")
    return size


class RandomGaussianBlur(_Augmentation):
    """Blurred, with the probability `factor` or one drawn from it; zeros lie outside.

    kernel_size: an odd number of pixels, or (across, down). sigma: standard deviations of the weights across
    and down, drawn for each batch; one number stands for (0, number).
    """

    factor: Factor = f.option(r.factor(0, 1), default=1.0)
    kernel_size: int | tuple[int, int] = f.option(_odd, default=3)
    sigma: Factor = f.option(r.factor(0, 1), default=1.0)
    value_range: Sequence[float] = f.option(r.value_range, default=(0, 255))
    seed: int | None = f.option(f.maybe(f.integer), default=None)

    def augment(self, b: Builder, x: str) -> str:
        """x + chosen * (blurred - x)."""
        kind, (columns, rows) = b.type(x), _odd(self.kernel_size)
        source = ops.RandomBlur((rows, columns), kind.channels, r.ends(self.sigma), kind.dtype)
        down, across = rows // 2, columns // 2
        op = ops.Conv2D(padding=((down, down), (across, across)), groups=kind.channels)
        blurred = b.add(op, x, b.add(source, suffix="kernel"), suffix="blurred")
        change = b.add(ops.Subtract(), blurred, x, suffix="change")
        chosen = per_sample(b, x, "bernoulli", (r.mean(self.factor), 1.0), suffix="chosen")
        change = b.add(ops.Multiply(), change, chosen, suffix="changed")
        return clipped(b, b.add(ops.Add(), x, change, suffix="softer"), r.value_range(self.value_range))


class RandomErasing(_Augmentation):
    """A box of each image overwritten, with the probability `factor` or one drawn from it.

    scale: range of the squares of the box's sides, as parts of the image's. fill_value: a number, one for
    each of three channels, or None for normal noise as large as the largest value.
    """

    factor: Factor = f.option(r.factor(0, 1), default=1.0)
    scale: Factor = f.option(r.factor(0, 1), default=(0.02, 0.33))
    fill_value: f.Array | None = f.option(f.maybe(f.array), default=None)
    value_range: Sequence[float] = f.option(r.value_range, default=(0, 255))
    seed: int | None = f.option(f.maybe(f.integer), default=None)

    def augment(self, b: Builder, x: str) -> str:
        """x + inside * (filling - x)."""
        height, width = spatial(b.type(x))
        source = ops.RandomBox((height, width), r.ends(self.scale), r.mean(self.factor), b.type(x).dtype)
        change = b.add(ops.Subtract(), x, self._filling(b, x), suffix="change")
        change = b.add(ops.Multiply(), change, b.add(source, suffix="inside"), suffix="changed")
        return b.add(ops.Subtract(), x, change, suffix="erased")

    def _filling(self, b: Builder, x: str) -> str:
        low, high = r.value_range(self.value_range)
        if self.fill_value is None:
            return clipped(b, per_element(b, x, "normal", (0.0, abs(high))), (low, high))
        count, fill = b.type(x).channels, f.array(self.fill_value)
        if isinstance(fill, tuple):
            if len(fill) != count:
                raise self.fail(f"fill_value has {len(fill)} values for {count} channels")
            inside = tuple(min(max(v, low), high) for v in fill)
            return b.add(ops.Constant((count,), inside), suffix="filling")
        return b.add(ops.Constant((), min(max(fill, low), high)), suffix="filling")
