"""Inputs whose axes a file leaves open, and inputs of another size than the file's."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from keras_files import called, entry, functional, layer

import convloom as cl
from convloom import layers as L
from convloom.cli import main

OPEN = (None, None, 3)


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def output(model: cl.Model, *inputs: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        result = cl.compile(model, device="cpu", backend="aten")(*map(torch.from_numpy, inputs))
    return result.numpy()


def network(keras: Any, shape: Any = OPEN, batch: int | None = None) -> Any:
    """Convolutions, models inside it whose axes are open too, and operators."""
    K = keras.layers
    x = keras.Input(shape, batch_size=batch, name="image")
    h = K.Conv2D(4, 3, 2, padding="same", activation="relu")(x)
    inner = keras.Input((None, None, 4))
    block = keras.Model(inner, K.Add()([inner, K.Conv2D(4, 3, padding="same")(inner)]), name="block")
    chain = keras.Sequential([keras.Input((None, None, 4)), K.Conv2D(5, 1), K.BatchNormalization()])
    late = keras.Sequential([K.Conv2D(6, 2), K.ReLU()])
    h = late(chain(block(h) * 2.0))
    return keras.Model(x, K.Dense(3)(K.GlobalAveragePooling2D()(h)), name="open")


@pytest.fixture(scope="module")
def keras() -> Any:
    import keras

    return keras


def config(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("config.json"))


def theirs(keras: Any, model: Any, x: np.ndarray) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(model(x)))


# -- open axes -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("suffix", [".keras", ".json"])
def test_an_open_model_at_two_sizes(keras: Any, suffix: str, tmp_path: Path) -> None:
    model = network(keras)
    path, weights = tmp_path / f"net{suffix}", None
    if suffix == ".json":
        path.write_text(model.to_json())
        weights = tmp_path / "net.weights.h5"
        model.save_weights(weights)
    else:
        model.save(path)
    for height, width in ((12, 10), (7, 16)):
        loaded = cl.load(path, weights=weights, input_shape=(height, width, 3))
        assert loaded.inputs[0].shape == (None, height, width, 3)
        x = images(2, height, width, 3)
        np.testing.assert_allclose(output(loaded, x), theirs(keras, model, x), atol=1e-5, rtol=1e-5)


def test_open_axes_come_back_open(keras: Any, tmp_path: Path) -> None:
    model = network(keras)
    model.save(tmp_path / "net.keras")
    loaded = cl.load(tmp_path / "net.keras", input_shape=(12, 10, 3))
    assert json.loads(loaded.to_json()) == config(tmp_path / "net.keras")
    loaded.save(tmp_path / "again.keras")
    again = keras.models.load_model(tmp_path / "again.keras")
    assert again.input_shape == (None, None, None, 3)
    x = images(2, 9, 11, 3)
    np.testing.assert_array_equal(theirs(keras, again, x), theirs(keras, model, x))


def test_open_axes_of_a_sequential_come_back_open(keras: Any, tmp_path: Path) -> None:
    K = keras.layers
    model = keras.Sequential([keras.Input(OPEN), K.Conv2D(4, 3), K.GlobalMaxPooling2D(), K.Dense(2)])
    model.save(tmp_path / "net.keras")
    loaded = cl.load(tmp_path / "net.keras", input_shape=(6, 5, 3))
    x = images(2, 6, 5, 3)
    np.testing.assert_allclose(output(loaded, x), theirs(keras, model, x), atol=1e-5, rtol=1e-5)
    assert json.loads(loaded.to_json()) == config(tmp_path / "net.keras")


def test_open_axes_of_keras_2_become_open_axes_of_keras_3(keras: Any, tmp_path: Path) -> None:
    first = layer("InputLayer", "x", batch_input_shape=[None, None, None, 3])
    conv = layer("Conv2D", "c", filters=4, kernel_size=[3, 3], data_format="channels_last")
    pool = layer("GlobalAveragePooling2D", "g")
    for below, above in ((first, conv), (conv, pool)):
        above["inbound_nodes"] = [[[below["name"], 0, 0, {}]]]
    model = cl.loads(functional(first, conv, pool) | {"keras_version": "2.12.0"}, input_shape=(8, 7, 3))
    model.save(tmp_path / "net.keras")
    again = keras.models.load_model(tmp_path / "net.keras")
    assert again.input_shape == (None, None, None, 3)
    x = images(2, 8, 7, 3)
    np.testing.assert_allclose(output(model, x), theirs(keras, again, x), atol=1e-5, rtol=1e-5)
    assert theirs(keras, again, images(1, 20, 9, 3)).shape == (1, 4)


def test_a_fixed_batch_is_a_batch_and_stays_in_the_file(keras: Any) -> None:
    text = network(keras, (8, 8, 3), batch=8).to_json()
    model = cl.loads(text)
    assert model.inputs[0].shape == (None, 8, 8, 3)
    assert output(model, images(3, 8, 8, 3)).shape == (3, 3)
    assert json.loads(model.to_json()) == json.loads(text)


def test_open_axes_stay_open_or_get_a_shape() -> None:
    data = functional(entry(None, None, 3), layer("Conv2D", "c", called("x"), filters=2, kernel_size=3))
    assert cl.loads(data).outputs[0].shape == (None, None, None, 2)
    assert cl.loads(data, input_shape=(None, 4, 3)).outputs[0].shape == (None, None, 2, 2)
    assert cl.loads(data, input_shape=(5, 4, 3)).outputs[0].shape == (None, 3, 2, 2)


def test_a_model_inside_is_called_at_any_size() -> None:
    inner = functional(
        entry(None, None, 3), layer("Conv2D", "c", called("x"), filters=2, kernel_size=1), name="inner"
    )
    used = {**inner, "name": "inner", "inbound_nodes": [called("a"), called("b")]}
    ends = {"output": [["inner", 1, 0], ["inner", 2, 0]], "inputs": [["a", 0, 0], ["b", 0, 0]]}
    same = functional(entry(6, 5, 3, name="a"), entry(6, 5, 3, name="b"), used, **ends)  # type: ignore[arg-type]
    assert cl.loads(same).outputs[1].shape == (None, 6, 5, 2)
    other = functional(entry(6, 5, 3, name="a"), entry(4, 5, 3, name="b"), used, **ends)  # type: ignore[arg-type]
    assert [y.shape for y in cl.loads(other).outputs] == [(None, 6, 5, 2), (None, 4, 5, 2)]
    wrong = functional(entry(6, 5, 4, name="a"), entry(6, 5, 4, name="b"), used, **ends)  # type: ignore[arg-type]
    with pytest.raises(cl.ShapeError, match=r"'inner': takes float32\[N,None,None,3\], found float32"):
        cl.loads(wrong)


# -- another size --------------------------------------------------------------------------------------------
def test_another_size_where_the_weights_allow_it(keras: Any, tmp_path: Path) -> None:
    K = keras.layers
    x = keras.Input((8, 8, 3))
    backbone = keras.Sequential([keras.Input((8, 8, 3)), K.Conv2D(4, 3), K.ReLU()], name="backbone")
    model = keras.Model(x, K.Dense(2)(K.GlobalAveragePooling2D()(backbone(x))))
    model.save(tmp_path / "net.keras")
    loaded = cl.load(tmp_path / "net.keras", input_shape=(11, 9, 3))
    assert loaded.inputs[0].shape == (None, 11, 9, 3)
    assert all(np.array_equal(a, b) for a, b in zip(loaded.get_weights(), model.get_weights(), strict=True))
    loaded.save(tmp_path / "larger.keras")
    larger = keras.models.load_model(tmp_path / "larger.keras")
    assert larger.input_shape == (None, 11, 9, 3)
    y = images(2, 11, 9, 3)
    np.testing.assert_allclose(output(loaded, y), theirs(keras, larger, y), atol=1e-5, rtol=1e-5)


def test_another_size_that_changes_a_weight_is_refused() -> None:
    x = cl.Input((8, 8, 3))
    text = cl.Model(x, L.Dense(2, name="d")(L.Flatten()(x))).to_json()
    with pytest.raises(cl.ShapeError, match=r"Dense 'd': .*'kernel' would have shape \(243, 2\).*\(192, 2\)"):
        cl.loads(text, input_shape=(9, 9, 3))


def two_inputs() -> str:
    a, b = cl.Input((4, 4, 3), name="a"), cl.Input((6, 6, 3), name="b")
    pooled = [L.GlobalAveragePooling2D()(t) for t in (a, b)]
    return cl.Model([b, a], L.Add()(pooled)).to_json()


@pytest.mark.parametrize(
    "given", [[(5, 7, 3), (9, 8, 3)], {"a": (9, 8, 3), "b": (5, 7, 3)}], ids=["list", "names"]
)
def test_several_inputs_by_order_or_by_name(given: Any) -> None:
    model = cl.loads(two_inputs(), input_shape=given)
    assert [tensor.shape for tensor in model.inputs] == [(None, 5, 7, 3), (None, 9, 8, 3)]
    one = cl.loads(two_inputs(), input_shape={"a": (9, 8, 3)})
    assert [tensor.shape for tensor in one.inputs] == [(None, 6, 6, 3), (None, 9, 8, 3)]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ((5, 5, 3), "the model has the input(s) 'b' (None, 6, 6, 3), 'a' (None, 4, 4, 3); give one shape"),
        ({"c": (5, 5, 3)}, "no input is named 'c'; the model has the input(s) 'b'"),
        ([(5, 5, 3), (5, 3)], "input_shape (5, 3) has 2 axes; 'a' has the shape (None, 4, 4, 3), 3 without"),
        ([(5, 5, 3), (0, 5, 3)], "input_shape must be a positive integer, got 0"),
        ("224", "give one shape for each"),
        ([(5, 5, 3), (2**40, 2**40, 3)], "must be a positive integer"),
        ([(5, 5, 3), (2**20, 2**20, 3)], "at most"),
    ],
    ids=str,
)
def test_wrong_shapes_are_named(given: Any, text: str) -> None:
    with pytest.raises(cl.ConvLoomError) as caught:
        cl.loads(two_inputs(), input_shape=given)
    assert text in str(caught.value)


# -- the command line ----------------------------------------------------------------------------------------
def test_commands_take_the_shape(
    keras: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "net.keras"
    network(keras).save(path)
    assert main(["summary", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["layers"][0]["outputs"] == [[None, None, None, 3]]
    assert main(["convert", str(path), "--text"]) == 2
    assert "axes left open; say their sizes" in capsys.readouterr().err
    assert main(["summary", str(path), "--input-shape", "12,10,3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["layers"][0]["outputs"] == [[None, 12, 10, 3]]
    np.save(tmp_path / "x.npy", images(2, 12, 10, 3))
    command = ["run", str(path), "--input", str(tmp_path / "x.npy"), "--device", "cpu"]
    assert main([*command, "--input-shape", "12x10x3"]) == 0
    assert main(["convert", str(path), "--input-shape", "image=12,10,3", "--text"]) == 0
    assert "shape=(N,12,10,3)" in capsys.readouterr().out
    assert main(["summary", str(path), "--input-shape", "12,ten,3"]) == 2
    assert "--input-shape takes sizes such as 224,224,3, or NAME=224,224,3" in capsys.readouterr().err
