"""Hue and saturation of images changed at random in training; the identity in inference.

Hue, saturation and value (Smith 1978, "Color gamut transform pairs") are not computed as such. With `largest`
and `spread` of a pixel's three colours, which are value and value * saturation, a colour x is
largest - spread * d, and d in [0, 1] depends on the hue alone:

- another saturation takes another number for spread;
- another hue h, in sixths of a circle from red, has d = max(0, min(1, 2 - |k - 3|)) with k = h mod 6 for red,
  h + 4 for green and h + 2 for blue. So the d of a pixel tell its hue: 2 + d_red - d_green - d_blue, negative
  where there is more blue than green.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...graph import ops
from .. import fields as f
from .. import ranges as r
from ..lowering import Builder
from .augmentation import Factor, _Augmentation
from .colour import RandomBrightness, RandomContrast
from .drawn import LEAST, clipped, per_sample


class _Pixels(NamedTuple):
    """Of each pixel, as (N, height, width, 1). spread: at least LEAST, which divides."""

    colours: tuple[str, str, str]
    largest: str
    spread: str


def _pixels(b: Builder, x: str) -> _Pixels:
    height, width, count = b.type(x).size()[1:]
    if count != 3:
        raise b.fail(f"takes images of 3 channels, found {count}")
    red, green, blue = (
        b.add(ops.Slice((0, 0, i), (height, width, i + 1)), x, suffix=colour)
        for i, colour in enumerate(("red", "green", "blue"))
    )
    largest, smallest = (
        b.add(op, b.add(op, red, green, suffix=f"{name}_of_two"), blue, suffix=name)
        for op, name in ((ops.Maximum(), "largest"), (ops.Minimum(), "smallest"))
    )
    spread = b.add(ops.Subtract(), largest, smallest, suffix="difference")
    least = b.add(ops.Constant((), LEAST), suffix="least")
    return _Pixels((red, green, blue), largest, b.add(ops.Maximum(), spread, least, suffix="spread"))


class RandomSaturation(_Augmentation):
    """Saturation times u / (1 - u), u being drawn from `factor`: 0 is grey, 1/2 no change, 1 the most.

    One number stands for both ways, and below 0 is grey, as in Keras. It is the saturation that is clipped to
    value_range, so that images with values from 0 to 1 stay within it.
    """

    factor: Factor = f.option(r.factor(-1, 1))
    value_range: Sequence[float] = f.option(r.value_range, default=(0, 255))
    seed: int | None = f.option(f.maybe(f.integer), default=None)

    def augment(self, b: Builder, x: str) -> str:
        """largest - (largest - x) times a ratio: the odds, or the ends of value_range over the saturation."""
        low, high = r.value_range(self.value_range)
        lower, upper = r.ends(self.factor)
        pixels = _pixels(b, x)
        ratio = per_sample(b, x, "odds", (lower, upper))
        ends: list[tuple[ops.Maximum | ops.Minimum, float, str]] = [(ops.Minimum(), high, "clipped")]
        if low > 0 or lower < 0 != low:
            ends = [(ops.Maximum(), low, "raised"), *ends]
        for op, end, name in ends:
            bound = b.add(ops.Divide(), pixels.largest, pixels.spread, suffix=f"{name}/inverse")
            bound = b.add(ops.Relu(), bound, suffix=f"{name}/positive")
            bound = b.add(ops.Scale(end), bound, suffix=f"{name}/bound")
            ratio = b.add(op, bound, ratio, suffix=name)
        if low == 0:
            ratio = b.add(ops.Relu(), ratio, suffix="raised")
        below = b.add(ops.Subtract(), pixels.largest, x, suffix="below")
        below = b.add(ops.Multiply(), below, ratio, suffix="taken")
        return b.add(ops.Subtract(), pixels.largest, below, suffix="saturated")


class RandomHue(_Augmentation):
    """Hue turned one way or the other by half a number drawn from `factor`, in parts of a circle."""

    factor: Factor = f.option(r.factor(0, 1))
    value_range: Sequence[float] = f.option(r.value_range, default=(0, 255))
    seed: int | None = f.option(f.maybe(f.integer), default=None)

    def augment(self, b: Builder, x: str) -> str:
        lower, upper = r.ends(self.factor)
        pixels = _pixels(b, x)
        angle = per_sample(b, x, "uniform either way", (3 * lower, 3 * upper), suffix="angle")
        hue = b.add(ops.Add(), _hue(b, pixels), angle, suffix="turned")
        starts = b.add(ops.Constant((3,), (0.0, 4.0, 2.0)), suffix="starts")
        # k - 6 * floor(k / 6), k being hue + starts: in one kernel, as what others read ends a region.
        turns = b.add(ops.Scale(1 / 6), b.add(ops.Add(), hue, starts, suffix="angles"), suffix="turns")
        k = b.add(ops.Scale(-6.0), b.add(ops.Floor(), turns, suffix="whole_turns"), suffix="back")
        k = b.add(ops.Add(), b.add(ops.Add(), k, hue, suffix="around"), starts, suffix="k")
        d = b.add(ops.Abs(), b.add(ops.Scale(1.0, -3.0), k, suffix="from_opposite"), suffix="distance")
        d = b.add(ops.Clip(0.0, 1.0), b.add(ops.Scale(-1.0, 2.0), d, suffix="nearness"), suffix="d")
        d = b.add(ops.Multiply(), d, pixels.spread, suffix="below")
        result = b.add(ops.Subtract(), pixels.largest, d, suffix="coloured")
        return clipped(b, result, r.value_range(self.value_range))


def _hue(b: Builder, pixels: _Pixels) -> str:
    """In sixths of a circle from red, from -3 to 3."""
    red, green, blue = pixels.colours
    step = b.add(ops.Step(), b.add(ops.Subtract(), green, blue, suffix="greener"), suffix="is_greener")
    side = b.add(ops.Scale(2.0, -1.0), step, suffix="side")
    away = b.add(ops.Add(), green, blue, suffix="not_red")
    away = b.add(ops.Subtract(), away, red, suffix="less_red")
    away = b.add(ops.Subtract(), away, pixels.largest, suffix="from_largest")
    away = b.add(ops.Divide(), away, pixels.spread, suffix="of_spread")
    return b.add(ops.Multiply(), b.add(ops.Scale(1.0, 2.0), away, suffix="from_red"), side, suffix="hue")


class RandomColorJitter(_Augmentation):
    """Brightness, contrast, saturation and hue one after another, those of them that have a factor."""

    value_range: Sequence[float] = f.option(r.value_range, default=(0, 255))
    brightness_factor: Factor | None = f.option(f.maybe(r.factor(-1, 1)), default=None)
    contrast_factor: Factor | None = f.option(f.maybe(r.factor(0, 1)), default=None)
    saturation_factor: Factor | None = f.option(f.maybe(r.factor(-1, 1)), default=None)
    hue_factor: Factor | None = f.option(f.maybe(r.factor(0, 1)), default=None)
    seed: int | None = f.option(f.maybe(f.integer), default=None)

    def augment(self, b: Builder, x: str) -> str:
        for kind, factor, part in (
            (RandomBrightness, self.brightness_factor, "brightness"),
            (RandomContrast, self.contrast_factor, "contrast"),
            (RandomSaturation, self.saturation_factor, "saturation"),
            (RandomHue, self.hue_factor, "hue"),
        ):
            if factor is not None:
                x = kind(factor, self.value_range, name=self.name).augment(b.within(part), x)
        return x
