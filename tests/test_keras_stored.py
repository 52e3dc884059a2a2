"""How weights are stored: bfloat16, and weights without a name of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from convloom.graph.errors import ModelFormatError
from keras.src.applications.convnext import LayerScale
from keras_dialects import layer, simple
from keras_files import write_json

import convloom as cl


def theirs(dtype: str) -> keras.Model:
    x = keras.Input((5, 4, 3), name="x")
    y = keras.layers.Conv2D(4, 3, name="c", dtype=dtype)(x)
    y = keras.layers.BatchNormalization(name="n", dtype=dtype)(y)
    model = keras.Model(x, keras.layers.Dense(2, name="d", dtype=dtype)(keras.layers.Flatten(name="f")(y)))
    random = np.random.default_rng(3)
    model.set_weights([random.uniform(-2, 2, tuple(w.shape)) for w in model.weights])
    return model


def values(model: keras.Model) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(keras.ops.cast(w, "float32")) for w in model.weights]


def same(model: cl.Model, expected: list[np.ndarray]) -> None:
    for name, found in model.parameters.items():
        assert any(np.array_equal(found, value) for value in expected), name
    assert len(model.parameters) == len(expected)


# -- bfloat16 ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["net.keras", "net.weights.h5", "net.h5"])
@pytest.mark.parametrize("dtype", ["bfloat16", "mixed_bfloat16", "float16"])
def test_weights_of_half_the_bits(name: str, dtype: str, tmp_path: Path) -> None:
    """Bit for bit: every bfloat16 and every float16 is a float32."""
    model = theirs(dtype)
    save: Callable[[Path], None] = model.save_weights if name == "net.weights.h5" else model.save
    save(tmp_path / name)
    if name == "net.weights.h5":
        loaded = cl.load(write_json(tmp_path / "net.json", model.to_json()), weights=tmp_path / name)
    else:
        loaded = cl.load(tmp_path / name)
    same(loaded, values(model))


def test_bfloat16_keeps_what_is_not_a_number(tmp_path: Path) -> None:
    bits = np.array([0x7F80, 0xFF80, 0x7FC0, 0x0001, 0x8000, 0x3F80], np.uint16)
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["layers/dense/vars/0"] = bits.reshape(3, 2).view("V2")
        file["layers/dense/vars/0"].attrs["dtype"] = "bfloat16"
        file["layers/dense/vars/1"] = np.zeros(2, "f4")
    model = cl.loads(simple(layer("Dense", "d", units=2), shape=(3,)))
    model.load_weights(tmp_path / "w.h5")
    found = model.parameters["d/kernel"].numpy().view(np.uint32)
    np.testing.assert_array_equal(found, bits.reshape(3, 2).astype(np.uint32) << 16)


@pytest.mark.parametrize(
    ("kind", "said"),
    [("V2", None), ("V2", "float16"), ("V2", np.array(["bfloat16"] * 2)), ("V4", "bfloat16"), ("V2", 7)],
)
def test_other_opaque_bytes_are_refused(kind: str, said: object, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["layers/dense/vars/0"] = np.zeros((3, 2), kind)
        file["layers/dense/vars/1"] = np.zeros(2, "f4")
        if isinstance(said, np.ndarray):
            file["layers/dense/vars/0"].attrs.create("dtype", said.astype("S8"))
        elif said is not None:
            file["layers/dense/vars/0"].attrs["dtype"] = said
    model = cl.loads(simple(layer("Dense", "d", units=2), shape=(3,)))
    with pytest.raises(
        ModelFormatError, match=rf"'kernel' .* has shape \(3, 2\) of \|{kind}, expected \(3, 2\)"
    ):
        model.load_weights(tmp_path / "w.h5")


# -- LayerScale ----------------------------------------------------------------------------------------------
def scaled() -> keras.Model:
    x = keras.Input((4, 3), name="x")
    y = LayerScale(1e-6, 3, name="one")(x)
    inside = keras.Input((4, 3), name="i")
    nested = keras.Model(
        inside, LayerScale(1e-6, 3, name="two")(LayerScale(1e-6, 3, name="one")(inside)), name="m"
    )
    model = keras.Model(x, LayerScale(1e-6, 3, name="two")(nested(y)))
    model.set_weights([np.arange(3) + 10.0 * i for i in range(4)])
    return model


def test_layer_scale_of_keras_3(tmp_path: Path) -> None:
    """Keras 3 calls the weights variable_4 and so on, by a counter of the process."""
    model = scaled()
    model.save(tmp_path / "net.h5")
    loaded = cl.load(tmp_path / "net.h5")
    expected = {w.path: v for w, v in zip(model.weights, values(model), strict=True)}
    assert [*loaded.parameters] == ["one/gamma", "m/one/gamma", "m/two/gamma", "two/gamma"]
    for found, value in zip(loaded.get_weights(), expected.values(), strict=True):
        np.testing.assert_array_equal(found, value)
    loaded.save(tmp_path / "net.keras")
    same(cl.load(tmp_path / "net.keras"), values(model))


def test_layer_scale_of_keras_2(tmp_path: Path) -> None:
    """Variable:0 in the group of the layer, as TensorFlow calls what has no name."""
    model = cl.loads(scaled().to_json())
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.attrs["layer_names"] = np.array([b"one"])
        for i, path in enumerate(
            ("one/Variable:0", "m/one/Variable:0", "m/two/Variable:0", "two/Variable:0")
        ):
            file[path] = np.full(3, i, "f4")
    model.load_weights(tmp_path / "w.h5")
    np.testing.assert_array_equal([w[0] for w in model.get_weights()], [0, 1, 2, 3])


def test_an_unnamed_weight_of_another_layer_is_not_taken_for_its_own(tmp_path: Path) -> None:
    model = cl.loads(simple(layer("Dense", "d", units=2, use_bias=False), shape=(3,)))
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.attrs["layer_names"] = np.array([b"d"])
        file["d/Variable:0"] = np.ones((3, 2), "f4")
    with pytest.raises(ModelFormatError, match="weight 'kernel' is missing below 'd'"):
        model.load_weights(tmp_path / "w.h5")


# -- random layers of Keras 2 --------------------------------------------------------------------------------
@pytest.mark.parametrize("rng_type", [None, "stateful", "stateless", "legacy_stateful"])
def test_how_keras_2_kept_its_generators(rng_type: str | None) -> None:
    loaded = cl.loads(
        simple(
            layer("RandomFlip", "f", mode="horizontal", seed=None, rng_type=rng_type),
            layer("RandomRotation", "r", factor=0.1, fill_mode="reflect", rng_type=rng_type),
            layer("RandomZoom", "z", height_factor=0.1, rng_type=rng_type),
            layer("RandomContrast", "c", factor=0.1, rng_type=rng_type),
            layer("Dropout", "d", rate=0.5, rng_type=rng_type),
            layer("GaussianNoise", "g", stddev=0.5, rng_type=rng_type),
        )
    )
    assert "rng_type" not in loaded.to_json()
    with pytest.raises(cl.UnsupportedLayerError, match="RandomFlip with rng_type='mine' is not supported"):
        cl.loads(simple(layer("RandomFlip", "f", rng_type="mine")))
