"""Compute, with Keras, what its augmentations do in training where their ranges leave nothing to chance.

    KERAS_BACKEND=jax python tests/data/make_augmentations.py

A range such as (0.2, 0.2) fixes the number that is drawn. For a case ``c`` of ``augmentations.npz``:
``c/json`` (bytes of the model's JSON), ``c/x`` and ``c/y``. Beside them images under given transforms
(``warp.<interpolation>.<fill mode>/y``) and movements of their corners (``perspective.<interpolation>/y``).
What is drawn for each image is given in ``DRAWN``: ``drawn.<c>/x``, ``/y``, and ``/draws``, the numbers that
ConvLoom would draw, in the order of its sources. Keras's torch backend has neither "reflect" nor "wrap".
"""

from __future__ import annotations

import itertools
import zlib
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers as L

OUT = Path(__file__).resolve().parent / "augmentations.npz"
UP, DOWN = (0.2, 0.2), (-0.3, -0.3)

CASES: dict[str, Any] = {
    **{
        f"translation.{interpolation}.{mode}": L.RandomTranslation(
            UP, DOWN, mode, interpolation, fill_value=0.5
        )
        for interpolation in ("nearest", "bilinear")
        for mode in ("constant", "nearest", "reflect", "wrap")
    },
    "translation.first": L.RandomTranslation(UP, DOWN, data_format="channels_first"),
    "rotation": L.RandomRotation((0.15, 0.15)),
    "rotation.constant": L.RandomRotation((-0.4, -0.4), "constant", fill_value=0.5),
    "rotation.nearest": L.RandomRotation((0.15, 0.15), "wrap", "nearest"),
    "rotation.first": L.RandomRotation((0.15, 0.15), data_format="channels_first"),
    "zoom": L.RandomZoom(UP),
    "zoom.in": L.RandomZoom(DOWN, UP, "constant"),
    "zoom.first": L.RandomZoom(UP, DOWN, "nearest", data_format="channels_first"),
    "brightness": L.RandomBrightness((0.1, 0.1), value_range=(-2, 2)),
    "grayscale": L.RandomGrayscale(1.0),
    "grayscale.first": L.RandomGrayscale(1.0, data_format="channels_first"),
    "grayscale.never": L.RandomGrayscale(0.0),
    "degeneration": L.RandomColorDegeneration((0.4, 0.4), value_range=(-1, 1)),
    "degeneration.more": L.RandomColorDegeneration((-0.4, -0.4), value_range=(-1, 1)),
    "invert": L.RandomInvert((1.0, 1.0), value_range=(0, 1)),
    "sharpness": L.RandomSharpness((0.9, 0.9), value_range=(-2, 2)),
    "sharpness.less": L.RandomSharpness((0.1, 0.1), value_range=(-2, 2), data_format="channels_first"),
    "erasing": L.RandomErasing((1.0, 1.0), scale=(1.0, 1.0), fill_value=7.0, value_range=(0, 1)),
    "saturation": L.RandomSaturation((0.7, 0.7), value_range=(0, 1)),
    "saturation.255": L.RandomSaturation((0.6, 0.6)),
    "saturation.grey": L.RandomSaturation((-0.3, -0.3), value_range=(0, 1)),
    "saturation.inverse": L.RandomSaturation((-0.3, -0.3), value_range=(-1, 1)),
    "saturation.first": L.RandomSaturation((0.3, 0.3), value_range=(-1, 1), data_format="channels_first"),
    "hue.none": L.RandomHue((0.0, 0.0), value_range=(-2, 2)),
    "hue.half": L.RandomHue((1.0, 1.0), value_range=(0, 1)),
    "hue.first": L.RandomHue((1.0, 1.0), value_range=(-3, 3), data_format="channels_first"),
    "jitter": L.RandomColorJitter((-2, 2), (0.1, 0.1), (-0.3, 0.3), (0.4, 0.4), (1.0, 1.0)),
    "posterization": L.RandomPosterization((3, 3), value_range=(-2, 2)),
    "posterization.one": L.RandomPosterization(1, value_range=(0, 1)),
    "solarization": L.Solarization(value_range=(-2, 2)),
    "blur": L.RandomGaussianBlur((1.0, 1.0), (3, 5), (0.7, 0.7), (-2, 2)),
    "blur.first": L.RandomGaussianBlur((1.0, 1.0), 3, (0.4, 0.4), (-2, 2), data_format="channels_first"),
    "blur.never": L.RandomGaussianBlur((0.0, 0.0), value_range=(-9, 9)),
}
FIRST = np.array([0.13, 0.5, 0.86], np.float32)
SECOND = np.array([0.4, 0.35, 0.1], np.float32)
DRAWN: dict[str, Any] = {
    "hue": (
        L.RandomHue(1.0, value_range=(-2, 2)),
        {"factor": FIRST * [0.5, -0.5, -0.5]},
        [FIRST * [3, -3, -3]],
    ),
    "saturation": (L.RandomSaturation((0.0, 1.0), value_range=(-2, 2)), {"factor": FIRST}, [FIRST]),
    "posterization": (
        L.RandomPosterization(8, value_range=(-2, 2)),
        {"shift_factor": np.array([1, 4, 7], np.uint8)},
        [[2.0, 16.0, 128.0]],
    ),
    "solarization": (
        L.Solarization(0.5, 0.9, value_range=(-2, 2)),
        {"additions": 255 * SECOND[:, None, None, None], "thresholds": 255 * FIRST[:, None, None, None]},
        [4 * SECOND, 4 * FIRST - 2],
    ),
}
"""Name -> layer, what Keras draws, and the same as ConvLoom draws it."""
SHAPES = {"first": (3, 6, 7), "less": (3, 6, 7)}


def main() -> None:
    stored: dict[str, Any] = {}
    for name, layer in CASES.items():
        random = np.random.default_rng(zlib.crc32(name.encode()))
        image = keras.Input(SHAPES.get(name.split(".")[-1], (6, 7, 3)))
        model = keras.Model(image, layer(image))
        stored[f"{name}/json"] = np.frombuffer(model.to_json().encode(), np.uint8)
        stored[f"{name}/x"] = random.standard_normal((2, *image.shape[1:]), np.float32)
        stored[f"{name}/y"] = np.asarray(model(stored[f"{name}/x"], training=True))
    for name, (layer, drawn, draws) in DRAWN.items():
        random = np.random.default_rng(zlib.crc32(name.encode()))
        image = keras.Input((6, 7, 3))
        stored[f"drawn.{name}/model"] = np.frombuffer(
            keras.Model(image, layer(image)).to_json().encode(), np.uint8
        )
        stored[f"drawn.{name}/x"] = random.standard_normal((3, 6, 7, 3), np.float32)
        stored[f"drawn.{name}/y"] = np.asarray(layer.transform_images(stored[f"drawn.{name}/x"], drawn))
        stored[f"drawn.{name}/draws"] = np.array(draws, np.float32)
    random = np.random.default_rng(7)
    x = random.standard_normal((4, 6, 7, 2), np.float32)
    spread = np.array([0.6, 0.5, 4, 0.5, 0.6, 4, 0, 0])
    transforms = random.standard_normal((4, 8)) * spread + np.array([1, 0, 0, 0, 1, 0, 0, 0])
    stored |= {"warp/x": x, "warp/transforms": transforms.astype(np.float32)}
    for interpolation, mode in itertools.product(
        ("nearest", "bilinear"), ("constant", "nearest", "reflect", "wrap")
    ):
        stored[f"warp.{interpolation}.{mode}/y"] = np.asarray(
            keras.ops.image.affine_transform(x, stored["warp/transforms"], interpolation, mode, 0.5)
        )
    start = np.array([[[0, 0], [6, 0], [0, 5], [6, 5]]] * 4, np.float32)
    end = (start + start * random.uniform(-0.4, 0.4, start.shape)).astype(np.float32)
    stored |= {"perspective/start": start, "perspective/end": end}
    for interpolation in ("nearest", "bilinear"):
        stored[f"perspective.{interpolation}/y"] = np.asarray(
            keras.ops.image.perspective_transform(x, start, end, interpolation, 0.5)
        )
    np.savez_compressed(OUT, **stored)


if __name__ == "__main__":
    main()
