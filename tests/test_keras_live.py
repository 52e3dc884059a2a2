"""Files written for Keras, opened by a live Keras."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from convloom.frontends import layers as L
from keras_networks import (
    DATA,
    NETWORKS,
    Json,
    chain,
    images,
    keras_2,
    nested,
    outputs,
    randomised,
    residual,
    samples,
    stored_items,
    trained,
)

import convloom as cl


# -- a live Keras --------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def keras() -> Any:
    import keras

    return keras


def keras_outputs(model: Any, inputs: list[np.ndarray], names: list[str] | None = None) -> list[np.ndarray]:
    given: Any = dict(zip(names, inputs, strict=True)) if names else inputs[0] if len(inputs) == 1 else inputs
    result = model(given)
    if isinstance(result, dict):
        result = [result[key] for key in sorted(result)]
    results = result if isinstance(result, list | tuple) else [result]
    return [np.asarray(y.detach().cpu()) if hasattr(y, "detach") else np.asarray(y) for y in results]


def assert_within(mine: Any, theirs: Any, place: str = "") -> None:
    """Every key of ours stands in Keras's, with the same value; Keras adds its defaults."""
    if isinstance(mine, dict) and isinstance(theirs, dict):
        for key, value in mine.items():
            assert key in theirs, f"{place}/{key}"
            assert_within(value, theirs[key], f"{place}/{key}")
    elif isinstance(mine, list) and isinstance(theirs, list):
        assert len(mine) == len(theirs), place
        for i, (a, b) in enumerate(zip(mine, theirs, strict=True)):
            assert_within(a, b, f"{place}[{i}]")
    else:
        assert mine == theirs, place


@pytest.mark.parametrize("network", NETWORKS)
def test_keras_opens_the_archive(keras: Any, network: Any, tmp_path: Path) -> None:
    model = randomised(network())
    model.save(tmp_path / "net.keras")
    theirs = keras.models.load_model(tmp_path / "net.keras")
    keys = sorted(model.structure[0]) if isinstance(model.structure[0], dict) else None
    inputs = samples(model)
    for mine, other in zip(outputs(model, *inputs), keras_outputs(theirs, inputs, keys), strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-5, rtol=1e-5)
    assert_within(json.loads(model.to_json()), json.loads(theirs.to_json()))


IMAGE = (8, 6, 4)
LAYERS: list[tuple[str, dict[str, Any], tuple[int, ...]]] = [
    ("Activation", {"activation": "hard_silu"}, IMAGE),
    ("ActivityRegularization", {}, IMAGE),
    ("AveragePooling2D", {"pool_size": 2, "strides": 1}, IMAGE),
    ("BatchNormalization", {"axis": 1, "center": False, "momentum": 0.9}, IMAGE),
    ("CenterCrop", {"height": 3, "width": 2}, IMAGE),
    ("Conv2D", {"filters": 4, "kernel_size": (3, 1), "dilation_rate": 2, "groups": 2}, IMAGE),
    ("Conv2DTranspose", {"filters": 3, "kernel_size": 3, "strides": 2, "padding": "same"}, IMAGE),
    ("Conv2DTranspose", {"filters": 3, "kernel_size": 3, "strides": 2, "output_padding": 1}, IMAGE),
    ("Cropping2D", {"cropping": ((1, 0), (0, 2))}, IMAGE),
    ("Dense", {"units": 3, "activation": "gelu", "use_bias": False}, (5, 4)),
    ("DepthwiseConv2D", {"kernel_size": 3, "depth_multiplier": 2, "strides": 2, "padding": "same"}, IMAGE),
    ("ELU", {"alpha": 0.7}, IMAGE),
    ("GlobalMaxPooling2D", {"keepdims": True}, IMAGE),
    ("GroupNormalization", {"groups": 2}, IMAGE),
    ("Identity", {}, IMAGE),
    ("LayerNormalization", {"epsilon": 1e-6}, IMAGE),
    ("LayerScale", {"init_values": 0.1, "projection_dim": 4}, IMAGE),
    ("Normalization", {}, IMAGE),
    ("Normalization", {"mean": (0.5, 1.0, 2.0, 3.0), "variance": (2.0, 1.0, 1.0, 4.0)}, IMAGE),
    ("PReLU", {"shared_axes": (1, 2)}, IMAGE),
    ("Permute", {"dims": (2, 1, 3)}, IMAGE),
    ("ReLU", {"max_value": 6.0}, IMAGE),
    ("RepeatVector", {"n": 3}, (5,)),
    ("Rescaling", {"scale": 0.5, "offset": (1.0, 2.0, 3.0, 4.0)}, IMAGE),
    ("Reshape", {"target_shape": (-1, 2)}, IMAGE),
    ("SeparableConv2D", {"filters": 5, "kernel_size": 3, "activation": "silu"}, IMAGE),
    ("Softmax", {"axis": 1}, IMAGE),
    ("SpatialDropout2D", {"rate": 0.2}, IMAGE),
    ("StochasticDepth", {"drop_path_rate": 0.2}, IMAGE),
    ("UnitNormalization", {}, IMAGE),
    ("UpSampling2D", {"size": (2, 3)}, IMAGE),
    ("ZeroPadding2D", {"padding": (1, 2)}, IMAGE),
]


@pytest.mark.parametrize(("name", "arguments", "shape"), LAYERS, ids=lambda value: str(value)[:40])
def test_keras_opens_each_layer(
    keras: Any, name: str, arguments: Json, shape: tuple[int, ...], tmp_path: Path
) -> None:
    model = randomised(cl.Sequential([cl.Input(shape), L.DECLARATIONS[name](**arguments)]))
    model.save(tmp_path / "a.keras")
    theirs = keras.models.load_model(tmp_path / "a.keras")
    x = images(2, *shape)
    expected = keras_outputs(theirs, [x])[0]
    np.testing.assert_allclose(outputs(model, x)[0], expected, atol=1e-5, rtol=1e-5)
    theirs.save(tmp_path / "b.keras")
    cl.load(tmp_path / "b.keras").save(tmp_path / "c.keras")
    assert description(tmp_path / "c.keras") == description(tmp_path / "b.keras")
    assert contents(tmp_path / "c.keras") == contents(tmp_path / "b.keras")


@pytest.mark.parametrize("name", ["MobileNetV3Small", "EfficientNetB0", "ConvNeXtTiny"])
def test_applications_pass_through(keras: Any, name: str, tmp_path: Path) -> None:
    """Operators, a Normalization that counts in integers, nested chains and layers of the applications."""
    first = getattr(keras.applications, name)(weights=None, include_top=False, input_shape=(64, 64, 3))
    first.save(tmp_path / "a.keras")
    cl.load(tmp_path / "a.keras").save(tmp_path / "b.keras")
    assert description(tmp_path / "b.keras") == description(tmp_path / "a.keras")
    assert contents(tmp_path / "b.keras") == contents(tmp_path / "a.keras")
    second = keras.models.load_model(tmp_path / "b.keras")
    assert json.loads(second.to_json()) == json.loads(first.to_json())


@pytest.mark.parametrize("name", ["keras2_legacy", "keras3_legacy"])
def test_keras_opens_what_legacy_files_became(keras: Any, name: str, tmp_path: Path) -> None:
    cl.load(DATA / f"{name}.h5").save(tmp_path / "net.keras")
    stored = np.load(DATA / f"{name}_io.npz")
    found = keras_outputs(keras.models.load_model(tmp_path / "net.keras"), [stored["x"]])
    wanted = [stored[key] for key in sorted(stored) if key.startswith("y")]
    for mine, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5 * np.abs(theirs).max())


@pytest.mark.parametrize("network", [chain, residual, nested])
def test_keras_opens_description_and_weights(keras: Any, network: Any, tmp_path: Path) -> None:
    model = randomised(network())
    model.save_weights(tmp_path / "net.weights.h5")
    theirs = keras.models.model_from_json(model.to_json())
    theirs.load_weights(tmp_path / "net.weights.h5")
    inputs = samples(model)
    for mine, other in zip(outputs(model, *inputs), keras_outputs(theirs, inputs), strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("network", NETWORKS)
def test_keras_to_convloom_to_keras(keras: Any, network: Any, tmp_path: Path) -> None:
    """The JSON's meaning as Keras states it, and every byte of the weights file's data and names."""
    randomised(network()).save(tmp_path / "a.keras")
    first = keras.models.load_model(tmp_path / "a.keras")
    for layer in first.layers:
        if hasattr(layer, "kernel_regularizer"):
            layer.kernel_regularizer = keras.regularizers.L1L2(0.1, 0.2)
            layer.kernel_initializer = keras.initializers.Orthogonal(0.5, seed=4)
    first.layers[-1].trainable = False
    first.save(tmp_path / "b.keras")
    cl.load(tmp_path / "b.keras").save(tmp_path / "c.keras")
    assert description(tmp_path / "c.keras") == description(tmp_path / "b.keras")
    before, after = (keras.models.load_model(tmp_path / f"{name}.keras") for name in "bc")
    assert json.loads(after.to_json()) == json.loads(before.to_json())
    assert contents(tmp_path / "c.keras") == contents(tmp_path / "b.keras")


def description(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("config.json"))


def contents(path: Path) -> Json:
    with zipfile.ZipFile(path) as archive:
        stored = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(stored) as file:
        return stored_items(file)


def test_keras_opens_what_convloom_trained(keras: Any, tmp_path: Path) -> None:
    model = trained()
    model.save(tmp_path / "net.keras")
    x = images(5, 6, 6, 2)
    theirs = keras.models.load_model(tmp_path / "net.keras")
    np.testing.assert_allclose(outputs(model, x)[0], keras_outputs(theirs, [x])[0], atol=1e-5)


def test_keras_opens_what_keras_2_wrote(keras: Any, tmp_path: Path) -> None:
    model = randomised(cl.loads(keras_2()))
    model.save(tmp_path / "net.keras")
    x = images(2, 6, 6, 3)
    theirs = keras.models.load_model(tmp_path / "net.keras")
    np.testing.assert_allclose(outputs(model, x)[0], keras_outputs(theirs, [x])[0], atol=1e-5, rtol=1e-5)
    assert_within(json.loads(model.to_json()), json.loads(theirs.to_json()))
