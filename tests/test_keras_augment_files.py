"""Image augmentations in files, and what is wrong of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from convloom.graph import ops
from convloom.graph.errors import ShapeError

import convloom as cl
from convloom import layers as L

LAYERS: list[Callable[[], L.Layer]] = [
    lambda: L.RandomFlip("horizontal"),
    lambda: L.RandomTranslation(0.2, 0.1),
    lambda: L.RandomRotation(0.2, "constant", fill_value=0.3),
    lambda: L.RandomZoom(0.2, 0.1, "wrap"),
    lambda: L.RandomShear(0.2, 0.1, fill_mode="nearest"),
    lambda: L.RandomPerspective(1.0, 0.3),
    lambda: L.RandomZoom((-0.2, 0.1)),
    lambda: L.RandomRotation((-0.1, 0.3), data_format="channels_last"),
    lambda: L.RandomBrightness(0.2, (0, 1), seed=3),
    lambda: L.RandomContrast((0.1, 0.2)),
    lambda: L.RandomGrayscale(0.2),
    lambda: L.RandomColorDegeneration(0.2),
    lambda: L.RandomInvert(0.2),
    lambda: L.RandomSharpness(0.2),
    lambda: L.RandomErasing(0.2, 0.3, 0.5),
    lambda: L.RandomPosterization(3),
    lambda: L.RandomSaturation(0.2),
    lambda: L.RandomHue((0.1, 0.2)),
    lambda: L.RandomColorJitter(contrast_factor=0.2),
    lambda: L.AutoContrast((0, 1)),
    lambda: L.RandomGaussianBlur(sigma=0.5),
    lambda: L.RandomElasticTransform(),
    lambda: L.Solarization(0.1, 0.2),
    lambda: L.MixUp(),
    lambda: L.CutMix(),
    lambda: L.RandAugment(),
    lambda: L.AugMix(),
    lambda: L.GaussianNoise(0.2),
    lambda: L.GaussianDropout(0.2),
    lambda: L.AlphaDropout(0.2, (None, 1, 5, 3)),
    lambda: L.SpatialDropout2D(0.2),
]


def test_keras_opens_what_we_save(tmp_path: Path) -> None:
    import keras

    image = cl.Input((6, 5, 3))
    h = image
    for make in LAYERS:
        h = make()(h)
    model = cl.Model(image, L.Conv2D(2, 3)(h))
    model.save(tmp_path / "a.keras")
    theirs = keras.models.load_model(tmp_path / "a.keras")
    x = torch.rand(3, 6, 5, 3)
    expected = theirs(x.numpy(), training=False).detach().numpy()
    np.testing.assert_allclose(cl.compile(model, device="cpu")(x).detach().numpy(), expected, atol=1e-6)
    again = cl.load(tmp_path / "a.keras")
    assert json.loads(again.to_json()) == json.loads(model.to_json())
    for mine, other in zip(again.get_weights(), model.get_weights(), strict=True):
        assert np.array_equal(np.asarray(mine), np.asarray(other))
    reread = cl.loads(theirs.to_json())  # with training=True at every call, as Keras writes it
    assert [type(layer) for layer in reread.layers] == [type(layer) for layer in model.layers]


def test_training_true_is_accepted_of_image_layers_only() -> None:
    def loaded(class_name: str, config: dict[str, Any]) -> cl.Model:
        tensor = {"class_name": "__keras_tensor__", "config": {"shape": [None, 4, 4, 3], "dtype": "float32"}}
        tensor["config"]["keras_history"] = ["x", 0, 0]  # type: ignore[index]
        layer = {
            "class_name": class_name,
            "module": "keras.layers",
            "name": "r",
            "config": {"name": "r", **config},
            "inbound_nodes": [{"args": [tensor], "kwargs": {"training": True}}],
        }
        first = {"class_name": "InputLayer", "name": "x", "inbound_nodes": []}
        first |= {"module": "keras.layers", "config": {"name": "x", "batch_shape": [None, 4, 4, 3]}}  # type: ignore[dict-item]
        config = {"name": "m", "layers": [first, layer]}
        ends = {"input_layers": [["x", 0, 0]], "output_layers": [["r", 0, 0]]}
        return cl.loads({"class_name": "Functional", "module": "keras", "config": {**config, **ends}})

    net = cl.compile(loaded("RandomFlip", {}), device="cpu")
    x = torch.rand(1, 4, 4, 3)
    assert torch.equal(net(x), x)
    for name, config in (("Dropout", {"rate": 0.1}), ("GaussianNoise", {"stddev": 0.1})):
        with pytest.raises(
            cl.UnsupportedLayerError, match="called with training=True, which is not supported"
        ):
            loaded(name, config)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: L.RandomFlip("diagonal"),
            "RandomFlip 'r': mode must be 'horizontal' or 'vertical' or 'horizontal_and_vertical', "
            "got 'diagonal'",
        ),
        (
            lambda: L.RandomTranslation(1.5, 0.1),
            "RandomTranslation 'r': height_factor must be a number in [-1, 1] or a pair of them, got 1.5",
        ),
        (
            lambda: L.RandomZoom(-1.0),
            "RandomZoom 'r': height_factor must be a number in (-1, 1] or a pair of them, got -1.0",
        ),
        (
            lambda: L.RandomShear((-0.1, 0.2)),
            "RandomShear 'r': x_factor must be a number in [0, 1] or a pair of them, got (-0.1, 0.2)",
        ),
        (
            lambda: L.RandomRotation(0.1, "mirror"),
            "RandomRotation 'r': fill_mode must be 'constant' or 'nearest' or 'reflect' or 'wrap', "
            "got 'mirror'",
        ),
        (
            lambda: L.RandomContrast(2.0),
            "RandomContrast 'r': factor must be a number in [0, 1] or a pair of them, got 2.0",
        ),
        (
            lambda: L.RandomBrightness(0.1, 255),  # type: ignore[arg-type]
            "RandomBrightness 'r': value_range must be two numbers, got 255",
        ),
        (
            lambda: L.RandomGrayscale(0.1)(cl.Input((4, 4, 2))),
            "RandomGrayscale 'r': takes images of 1 or 3 channels, found 2",
        ),
        (
            lambda: L.RandomErasing(fill_value=(1, 2, 3))(cl.Input((4, 4, 2))),
            "RandomErasing 'r': fill_value has 3 values for 2 channels",
        ),
        (
            lambda: L.RandomPosterization(2.5),  # type: ignore[arg-type]
            "RandomPosterization 'r': factor must be a whole number from 1 to 8 or a pair of them, got 2.5",
        ),
        (
            lambda: L.RandomPosterization(3, (1, 1))(cl.Input((4, 4, 3))),
            "RandomPosterization 'r': value_range (1.0, 1.0) holds no two values",
        ),
        (
            lambda: L.RandomGaussianBlur(1.0, 99999),
            "RandomGaussianBlur 'r': kernel_size must be odd and at most 255, got 99999",
        ),
        (
            lambda: L.RandomGaussianBlur(1.0, (3, 4)),
            "RandomGaussianBlur 'r': kernel_size must be odd and at most 255, got (3, 4)",
        ),
        (
            lambda: L.RandomColorJitter(hue_factor=0.1)(cl.Input((4, 4, 1))),
            "RandomColorJitter 'r': takes images of 3 channels, found 1",
        ),
        (
            lambda: L.Solarization(0.1, (0.2, 1.5)),
            "Solarization 'r': threshold_factor must be a number in [0, 1] or a pair of them, got (0.2, 1.5)",
        ),
        (
            lambda: L.RandomFlip()(cl.Input((4, 4))),
            "RandomFlip 'r': takes an image (N, height, width, channels), found float32[N,4,4] of rank 3; "
            "Reshape it to an image first",
        ),
        (
            lambda: L.RandomPerspective()(cl.Input((1, 4, 2))),
            "RandomPerspective 'r': takes images of at least 2x2, found float32[N,1,4,2]",
        ),
    ],
)
def test_error_texts(make: Callable[[], object], text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convloom.frontends.layers.base.next_name", lambda kind: "r")
    with pytest.raises(cl.ConvLoomError) as caught:
        make()
    assert str(caught.value) == text


def test_warp_refuses_what_it_cannot_read() -> None:
    image = ops.Input(("N", 4, 4, 2)).infer()
    for op, shape, text in (
        (ops.Warp("cubic"), ("N", 8), "interpolation must be one of ('nearest', 'bilinear'), got 'cubic'"),
        (ops.Warp("nearest", "mirror"), ("N", 8), "got 'mirror'"),
        (ops.Warp(), ("N", 6), "found float32[N,4,4,2] and float32[N,6]"),
    ):
        with pytest.raises(ShapeError) as caught:
            op.infer(image, ops.Input(shape).infer())
        assert text in str(caught.value)
