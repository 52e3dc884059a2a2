"""Images moved at random in training: flipped, shifted, turned, zoomed, sheared, cropped, seen from aside.

All are one op, `Warp`, under a transform drawn for each image. In inference they are the identity, but for
RandomCrop. Keras's layers stand in its files as called with training=True, and follow the mode of the model
all the same; so they do here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, TypedDict

from ...graph.ops.warp import FILL_MODES, INTERPOLATIONS
from .. import fields as f
from .. import ranges as r
from ..lowering import Builder
from .base import Layer
from .drawn import in_training, moved
from .parts import in_layout, largest_window, middle, resized, spatial

Factor = float | Sequence[float]


class _Augmentation(Layer):
    """Base of the layers that change images in training and hand them on in inference.

    Subclasses say in `augment` what becomes of a channels-last image in training.
    """

    rank = 4
    said_training = True
    ignored: ClassVar[frozenset[str]] = frozenset({"bounding_box_format"})

    data_format: str | None = f.option(f.data_format, default=None, kw_only=True)

    def augment(self, b: Builder, x: str) -> str:
        raise NotImplementedError

    def build(self, b: Builder, *inputs: str) -> str:
        trained = in_layout(b, inputs[0], self.data_format, lambda x: self.augment(b, x))
        return in_training(b, inputs[0], trained) if trained != inputs[0] else trained


class RandomFlip(_Augmentation):
    """Mirrored in half of the cases. mode: "horizontal", "vertical" or "horizontal_and_vertical" at once."""

    mode: str = f.option(
        f.choice("horizontal", "vertical", "horizontal_and_vertical"), default="horizontal_and_vertical"
    )
    seed: int | None = f.option(f.maybe(f.integer), default=None)

    def augment(self, b: Builder, x: str) -> str:
        axes = float("horizontal" in self.mode), float("vertical" in self.mode)
        return moved(b, x, "flip", axes, interpolation="nearest", fill_mode="nearest")


class _Filling(TypedDict):
    """How `moved` reads an image."""

    interpolation: str
    fill_mode: str
    fill_value: float


_INTERPOLATION = f.choice(*INTERPOLATIONS)
_FILL_MODE = f.choice(*FILL_MODES)


def _filled(layer: RandomTranslation | RandomRotation | RandomZoom | RandomShear) -> _Filling:
    return {
        "interpolation": layer.interpolation,
        "fill_mode": layer.fill_mode,
        "fill_value": layer.fill_value,
    }


class RandomTranslation(_Augmentation):
    """Shifted by parts of height and width, positive being down and to the right.

    A factor is (lower, upper), or one number for both ways, each at most 1.
    """

    height_factor: Factor = f.option(r.factor(-1, 1, every=True))
    width_factor: Factor = f.option(r.factor(-1, 1, every=True))
    fill_mode: str = f.option(_FILL_MODE, default="reflect")
    interpolation: str = f.option(_INTERPOLATION, default="bilinear")
    seed: int | None = f.option(f.maybe(f.integer), default=None)
    fill_value: float = f.option(f.number, default=0.0)

    def augment(self, b: Builder, x: str) -> str:
        of = (*r.ends(self.height_factor), *r.ends(self.width_factor))
        return moved(b, x, "translation", of, **_filled(self))


class RandomRotation(_Augmentation):
    """Turned about the middle by parts of a full turn, positive being counter-clockwise."""

    factor: Factor = f.option(r.factor(-1, 1))
    fill_mode: str = f.option(_FILL_MODE, default="reflect")
    interpolation: str = f.option(_INTERPOLATION, default="bilinear")
    seed: int | None = f.option(f.maybe(f.integer), default=None)
    fill_value: float = f.option(f.number, default=0.0)

    def augment(self, b: Builder, x: str) -> str:
        return moved(b, x, "rotation", r.ends(self.factor), **_filled(self))


class RandomZoom(_Augmentation):
    """Zoomed about the middle, positive being away. Without width_factor the sides keep their ratio."""

    height_factor: Factor = f.option(r.factor(-1, 1, every=True, above=True))
    width_factor: Factor | None = f.option(f.maybe(r.factor(-1, 1, every=True, above=True)), default=None)
    fill_mode: str = f.option(_FILL_MODE, default="reflect")
    interpolation: str = f.option(_INTERPOLATION, default="bilinear")
    seed: int | None = f.option(f.maybe(f.integer), default=None)
    fill_value: float = f.option(f.number, default=0.0)

    def augment(self, b: Builder, x: str) -> str:
        width = () if self.width_factor is None else r.ends(self.width_factor)
        return moved(b, x, "zoom", (*r.ends(self.height_factor), *width), **_filled(self))


class RandomShear(_Augmentation):
    """Rows shifted in proportion to their height, columns to their place across; both one way or the other.

    A factor is one number from 0 to 1 for both ways, or (lower, upper) of those.
    """

    x_factor: Factor = f.option(r.shear, default=0.0)
    y_factor: Factor = f.option(r.shear, default=0.0)
    interpolation: str = f.option(_INTERPOLATION, default="bilinear")
    fill_mode: str = f.option(_FILL_MODE, default="reflect")
    fill_value: float = f.option(f.number, default=0.0)
    seed: int | None = f.option(f.maybe(f.integer), default=None)

    def augment(self, b: Builder, x: str) -> str:
        return moved(b, x, "shear", (*r.ends(self.x_factor), *r.ends(self.y_factor)), **_filled(self))


class RandomPerspective(_Augmentation):
    """Seen from aside, with the probability `factor` or one drawn from it as (lower, upper).

    The corners move by up to half of `scale` times their distance from the upper left one.
    """

    factor: Factor = f.option(r.factor(0, 1), default=1.0)
    scale: float = f.option(f.within(0, 1), default=1.0)
    interpolation: str = f.option(_INTERPOLATION, default="bilinear")
    fill_value: float = f.option(f.number, default=0.0)
    seed: int | None = f.option(f.maybe(f.integer), default=None)

    def augment(self, b: Builder, x: str) -> str:
        if min(spatial(b.type(x))) < 2:
            raise self.fail(f"takes images of at least 2x2, found {b.type(x)}")
        return moved(
            b,
            x,
            "perspective",
            (r.mean(self.factor), self.scale),
            interpolation=self.interpolation,
            fill_mode="constant",
            fill_value=self.fill_value,
        )


class RandomCrop(_Augmentation):
    """A window of height x width, in training at a place drawn for each batch.

    In inference, and for images not larger on both sides, the largest window of that ratio in the middle,
    resized (bilinear): what Keras documents. Keras 3.15 hands the images on at their own size instead.
    """

    height: int = f.option(f.count)
    width: int = f.option(f.count)
    seed: int | None = f.option(f.maybe(f.integer), default=None)

    def build(self, b: Builder, *inputs: str) -> str:
        return in_layout(b, inputs[0], self.data_format, lambda x: self._window(b, x))

    def _window(self, b: Builder, x: str) -> str:
        height, width = spatial(b.type(x))
        steady = self._middle(b, x)
        if height <= self.height or width <= self.width:
            return steady
        size = (self.height, self.width)
        drawn = moved(
            b, x, "crop", tuple(map(float, size)), interpolation="nearest", fill_mode="nearest", size=size
        )
        return in_training(b, steady, drawn)

    def _middle(self, b: Builder, x: str) -> str:
        height, width = spatial(b.type(x))
        target = self.height, self.width
        x = middle(b, x, (1, 2), largest_window((height, width), target))
        return resized(b, x, (1, 2), target, "bilinear")
