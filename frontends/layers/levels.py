"""Values of images changed each by itself: to fewer levels, inverted, or stretched to the whole range.

value_range: the least and the largest value that the images have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from ...graph import ops
from ...graph.errors import ShapeError
from .. import fields as f
from .. import ranges as r
from ..lowering import Builder
from .augmentation import Factor, _Augmentation
from .base import Layer
from .drawn import LEAST, clipped, per_sample

BITS = 8


def _bits(value: Any) -> tuple[int, int]:
    """A whole number of bits that stands for all from 1, or (lower, upper) -> (lower, upper)."""
    values = value if isinstance(value, (list, tuple)) else (1, value)
    if len(values) != 2 or any(f.number(v) not in range(1, BITS + 1) for v in values):
        raise ShapeError(f"must be a whole number from 1 to {BITS} or a pair of them, got {value!r}")
    lower, upper = sorted(map(int, values))
    return lower, upper


class RandomPosterization(_Augmentation):
    """The leading bits of the 8 that a value has, their number drawn from `factor`, the rest being 0.

    (lower, upper) draws a number below upper, and two equal ones fix it; one number stands for (1, number).
    """

    factor: int | tuple[int, int] = f.option(_bits)
    value_range: Sequence[float] = f.option(r.value_range, default=(0, 255))
    seed: int | None = f.option(f.maybe(f.integer), default=None)

    def augment(self, b: Builder, x: str) -> str:
        """floor(value / step) * step with a step of 2 ** (8 - bits), the values being from 0 to 255."""
        (lower, upper), (low, high) = _bits(self.factor), r.value_range(self.value_range)
        if low == high:
            raise b.fail(f"value_range {self.value_range} holds no two values")
        largest = 2.0**BITS - 1
        x = b.add(ops.Scale(1.0, -low), x, suffix="above")
        x = b.add(ops.Scale(1 / (high - low)), x, suffix="part")
        x = clipped(b, b.add(ops.Scale(largest), x, suffix="values"), (0.0, largest))
        of = (BITS - max(lower, upper - 1), BITS - lower)
        step = per_sample(b, x, "power of two", of, suffix="step")
        steps = b.add(ops.Floor(), b.add(ops.Divide(), x, step, suffix="steps"), suffix="whole_steps")
        x = b.add(ops.Multiply(), steps, step, suffix="fewer")
        return b.add(ops.Scale((high - low) / largest, low), x, suffix="posterized")


class Solarization(_Augmentation):
    """Values plus a drawn number, clipped, and inverted where they are not below a drawn threshold.

    Both are drawn for each image from the parts of the range between lower / 255 and upper, since Keras
    multiplies the upper end alone by 255. One factor stands for (0, factor).
    """

    addition_factor: Factor = f.option(r.factor(0, 1, every=True), default=0.0)
    threshold_factor: Factor = f.option(r.factor(0, 1, every=True), default=0.0)
    value_range: Sequence[float] = f.option(r.value_range, default=(0, 255))
    seed: int | None = f.option(f.maybe(f.integer), default=None)

    def augment(self, b: Builder, x: str) -> str:
        low, high = r.value_range(self.value_range)

        def drawn(factor: Factor, start: float, suffix: str) -> str:
            lower, upper = r.ends(factor)
            of = start + lower * (high - low) / 255, start + upper * (high - low)
            return per_sample(b, x, "uniform", of, suffix=suffix)

        added = drawn(self.addition_factor, 0.0, "addition")

        def value(part: str) -> str:
            """Computed twice: in one kernel each time, where what both read would be a third one."""
            inner = b.within(part)
            return clipped(inner, inner.add(ops.Add(), x, added, suffix="added"), (low, high))

        middle = (low + high) / 2
        threshold = drawn(self.threshold_factor, low, "threshold")
        missing = b.add(ops.Subtract(), threshold, value("compared"), suffix="missing")
        sign = b.add(ops.Scale(2.0, -1.0), b.add(ops.Step(), missing, suffix="below"), suffix="sign")
        away = b.add(ops.Scale(1.0, -middle), value("inverted"), suffix="away")
        away = b.add(ops.Multiply(), away, sign, suffix="signed")
        return b.add(ops.Scale(1.0, middle), away, suffix="solarized")


class AutoContrast(Layer):
    """Each channel of each image stretched to the whole range, in training and in inference.

    A channel of one value stays as it is. Axes 1 and 2 count as height and width whatever data_format says,
    as in Keras.
    """

    rank = 4
    said_training = True
    ignored: ClassVar[frozenset[str]] = frozenset({"bounding_box_format"})

    value_range: Sequence[float] = f.option(r.value_range, default=(0, 255))
    data_format: str | None = f.option(f.data_format, default=None, kw_only=True)

    def build(self, b: Builder, *inputs: str) -> str:
        """start + (x - least) / spread * (high - low); start is low, or least where nothing is more."""
        x = inputs[0]
        low, high = r.value_range(self.value_range)
        image = (int(b.type(x).shape[1]), int(b.type(x).shape[2]))
        window = ops.MaxPool2D(image, image)
        most = b.add(window, x, suffix="most")
        least = b.add(window, b.add(ops.Scale(-1.0), x, suffix="negative"), suffix="most_negative")
        least = b.add(ops.Scale(-1.0), least, suffix="least")
        several = b.add(ops.Subtract(), most, least, suffix="stretch")
        several = b.add(ops.Step(), several, suffix="several")
        start = b.add(ops.Scale(-1.0, low), least, suffix="from_least")
        start = b.add(ops.Multiply(), start, several, suffix="moved")
        start = b.add(ops.Add(), start, least, suffix="start")
        spread = b.add(ops.Subtract(), most, least, suffix="difference")
        spread = b.add(
            ops.Maximum(), spread, b.add(ops.Constant((), LEAST), suffix="smallest"), suffix="spread"
        )
        part = b.add(ops.Divide(), b.add(ops.Subtract(), x, least, suffix="above"), spread, suffix="part")
        part = b.add(ops.Clip(0.0, 1.0), part, suffix="bounded")
        return b.add(ops.Add(), b.add(ops.Scale(high - low), part, suffix="stretched"), start)
