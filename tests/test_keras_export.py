"""Files written for Keras: read back here, and laid out as Keras lays them out."""

from __future__ import annotations

import copy
import json
import os
import stat
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from convloom.frontends import layers as L
from convloom.graph.errors import ConvLoomError, UnsupportedLayerError
from keras_networks import (
    DATA,
    NETWORKS,
    Json,
    chain,
    images,
    keras_2,
    outputs,
    randomised,
    samples,
    stored_items,
    trained,
)

import convloom as cl
from convloom.cli import main


# -- read back by ConvLoom -----------------------------------------------------------------------------------
@pytest.mark.parametrize("network", NETWORKS)
def test_archive_read_back_computes_the_same(network: Any, tmp_path: Path) -> None:
    model = randomised(network())
    model.save(tmp_path / "net.keras")
    again = cl.load(tmp_path / "net.keras")
    for mine, theirs in zip(outputs(model, *samples(model)), outputs(again, *samples(model)), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert json.loads(again.to_json()) == json.loads(model.to_json())


@pytest.mark.parametrize("network", NETWORKS)
def test_weights_return_bit_for_bit(network: Any, tmp_path: Path) -> None:
    model = randomised(network())
    path = tmp_path / "net.weights.h5"
    model.save_weights(path)
    expected = model.get_weights()
    model.set_weights([np.zeros_like(value) for value in expected])
    model.load_weights(path)
    for value, wanted in zip(model.get_weights(), expected, strict=True):
        assert value.tobytes() == wanted.tobytes()


def test_initial_weights_are_those_the_model_goes_on_with(tmp_path: Path) -> None:
    model = chain()
    model.save(tmp_path / "net.keras")
    for mine, theirs in zip(model.get_weights(), cl.load(tmp_path / "net.keras").get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_file_of_keras_3_is_written_as_it_was_read() -> None:
    text = (DATA / "tiny_resnet.json").read_text()
    assert json.loads(cl.loads(text).to_json()) == json.loads(text)


def test_what_convloom_does_not_read_is_kept() -> None:
    data = json.loads((DATA / "tiny_resnet.json").read_text())
    conv = next(entry for entry in data["config"]["layers"] if entry["class_name"] == "Conv2D")
    scaled = {"scale": 2.0, "mode": "fan_out", "distribution": "truncated_normal", "seed": 7}
    conv["config"]["kernel_initializer"] = dictionary("keras.initializers", "VarianceScaling", scaled)
    conv["config"]["kernel_regularizer"] = dictionary("keras.regularizers", "L2", {"l2": 0.001})
    conv["config"]["trainable"] = False
    data["compile_config"] = {"optimizer": "adam", "loss": "mse"}
    before, model = copy.deepcopy(data), cl.loads(data)
    conv["config"]["filters"] = 1  # the caller's own, which the model must not follow
    assert json.loads(model.to_json()) == before


def dictionary(module: str, class_name: str, config: Json) -> Json:
    return {"module": module, "class_name": class_name, "config": config, "registered_name": None}


def test_changed_field_is_written_and_nothing_else() -> None:
    data = json.loads((DATA / "tiny_resnet.json").read_text())
    model = cl.loads(data)
    position = next(i for i, block in enumerate(model.layers) if isinstance(block, L.Conv2D))
    layer = model.layers[position]
    assert isinstance(layer, L.Conv2D)
    layer.trainable, layer.activation, layer.name = False, "tanh", "renamed"
    entry = data["config"]["layers"][position]
    text = json.dumps(data).replace(f'"{entry["name"]}"', '"renamed"')
    expected = json.loads(text)
    expected["config"]["layers"][position]["config"] |= {"trainable": False, "activation": "tanh"}
    assert json.loads(model.to_json()) == expected


def test_layers_of_a_file_in_a_new_model() -> None:
    """Transfer learning: the file's operators come along, under the new model's references."""
    x = cl.Input((3,), name="x")
    data = json.loads(cl.Model(x, L.Dense(2, name="d")((x + 3.0) * 0.5), name="old").to_json())
    node = data["config"]["layers"][2]
    node["class_name"] = node["registered_name"] = "TrueDivide"
    node["inbound_nodes"][0]["args"][1] = 8.0
    base = cl.loads(data)
    other = cl.Input((5,), name="other")
    model = cl.Model(other, base.layers[2](base.layers[1](other)))
    np.testing.assert_allclose(outputs(cl.loads(model.to_json()), images(2, 5))[0], (images(2, 5) + 3) / 8)
    head = cl.Model(base.inputs, L.ReLU()(base.outputs[0]))
    written = json.loads(head.to_json())["config"]["layers"]
    assert [e["class_name"] for e in written] == ["InputLayer", "Add", "TrueDivide", "Dense", "ReLU"]
    assert written[2]["inbound_nodes"][0]["args"][1] == 8.0


# -- Keras 2 -------------------------------------------------------------------------------------------------
def test_keras_2_becomes_keras_3() -> None:
    written = json.loads(cl.loads(keras_2("mixed_float16")).to_json())
    assert (written["module"], written["class_name"], written["registered_name"]) == (
        "keras",
        "Sequential",
        None,
    )
    image, conv, bn, leaky = written["config"]["layers"]
    assert image["config"] == {"batch_shape": [None, 6, 6, 3], "dtype": "float32", "name": "x"}
    assert conv["module"] == "keras.layers"
    assert (conv["config"]["name"], conv["config"]["trainable"]) == ("block_conv", False)
    assert "batch_input_shape" not in conv["config"]
    kernel = dictionary("keras.initializers", "VarianceScaling", {"scale": 2.0, "seed": 5})
    assert conv["config"]["kernel_initializer"] == kernel
    assert conv["config"]["kernel_regularizer"] == dictionary("keras.regularizers", "L2", {"l2": 0.01})
    assert "bias_regularizer" not in conv["config"]
    assert bn["config"]["axis"] == 3
    assert bn["config"]["dtype"] == dictionary("keras", "DTypePolicy", {"name": "mixed_float16"})
    assert leaky["config"]["negative_slope"] == 0.25
    assert "alpha" not in leaky["config"]


@pytest.mark.parametrize("name", ["keras2_legacy", "keras3_legacy"])
def test_legacy_files_become_archives(name: str, tmp_path: Path) -> None:
    model = cl.load(DATA / f"{name}.h5")
    model.save(tmp_path / "net.keras")
    again = cl.load(tmp_path / "net.keras")
    x = np.load(DATA / f"{name}_io.npz")["x"]
    for mine, theirs in zip(outputs(model, x), outputs(again, x), strict=True):
        np.testing.assert_array_equal(mine, theirs)


# -- layout --------------------------------------------------------------------------------------------------
def test_archive_has_keras_members_stored(tmp_path: Path) -> None:
    chain().save(tmp_path / "net.keras")
    with zipfile.ZipFile(tmp_path / "net.keras") as archive:
        names = [i.filename for i in archive.infolist()]
        assert names == ["metadata.json", "config.json", "model.weights.h5"]
        assert {i.compress_type for i in archive.infolist()} == {zipfile.ZIP_STORED}
        assert json.loads(archive.read("metadata.json")).keys() == {"keras_version", "date_saved"}


def test_weight_groups_are_keras_own(tmp_path: Path) -> None:
    """By class and count, in the model's order; operators have none, layers without weights an empty one."""
    x = cl.Input((4, 4, 2), name="x")
    y = L.Conv2D(2, 1, name="zeta")(x) * 2.0
    inner = cl.Sequential([cl.Input((4, 4, 2)), L.Conv2D(2, 1, name="c")], name="inner")
    model = cl.Model(x, L.ReLU(name="r")(inner(L.Conv2D(2, 1, name="alpha")(y))), name="net")
    model.save_weights(tmp_path / "net.weights.h5")
    found: dict[str, Any] = {}
    with h5py.File(tmp_path / "net.weights.h5") as file:
        file.visititems(
            lambda path, item: found.update(
                {path: item.attrs["name"] if path.endswith("vars") else getattr(item, "shape", None)}
            )
        )
    expected = {
        "vars": "net",
        "layers/input_layer/vars": "x",
        "layers/conv2d/vars": "zeta",
        "layers/conv2d_1/vars": "alpha",
        "layers/sequential/vars": "inner",
        "layers/sequential/layers/conv2d/vars": "c",
        "layers/re_lu/vars": "r",
    }
    assert {path: name for path, name in found.items() if path.endswith("vars")} == expected
    assert found["layers/conv2d/vars/0"] == (1, 1, 2, 2)
    assert found["layers/conv2d/vars/1"] == (2,)
    assert not any("multiply" in path or "rescaling" in path for path in found)


def test_names_are_never_paths(tmp_path: Path) -> None:
    name = "../../outside"
    model = cl.Sequential([cl.Input((2,)), L.Dense(1, name=name)], name="/etc/net")
    (tmp_path / "a").mkdir()
    model.save(tmp_path / "a" / "net.keras")
    model.save_weights(tmp_path / "a" / "net.weights.h5")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a", "net.keras", "net.weights.h5"]
    with h5py.File(tmp_path / "a" / "net.weights.h5") as file:
        assert set(file["layers"]) == {"dense"}
        assert file["layers/dense/vars"].attrs["name"] == ".._.._outside"


def test_names_that_become_one_are_told_apart() -> None:
    model = cl.Sequential([cl.Input((2,)), L.Dense(1, name="a/b"), L.Dense(1, name="a_b")])
    assert [entry["config"]["name"] for entry in json.loads(model.to_json())["config"]["layers"][1:]] == [
        "a_b",
        "a_b_1",
    ]


# -- errors --------------------------------------------------------------------------------------------------
def test_other_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConvLoomError, match=r"a model can be saved as \*\.keras, not as 'net\.h5'"):
        chain().save(tmp_path / "net.h5")
    with pytest.raises(ConvLoomError, match=r"weights can be saved as \*\.weights\.h5, not as 'net\.h5'"):
        chain().save_weights(tmp_path / "net.h5")
    assert not list(tmp_path.iterdir())


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConvLoomError, match=r"cannot write .*none.net\.keras: No such file or directory"):
        chain().save(tmp_path / "none" / "net.keras")


def test_explicit_padding_has_no_words_in_keras(tmp_path: Path) -> None:
    model = cl.Sequential([cl.Input((5, 5, 1)), L.Conv2D(2, 3, padding=((1, 0), (2, 1)), name="c")])
    with pytest.raises(UnsupportedLayerError, match=r"Conv2D 'c': .*put a ZeroPadding2D before it"):
        model.save(tmp_path / "net.keras")
    assert not list(tmp_path.iterdir())


def test_chain_without_a_shape_says_so() -> None:
    with pytest.raises(ConvLoomError, match="no input shape yet"):
        cl.Sequential([L.Dense(2)]).to_json()


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.keras"
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("convloom.frontends.keras.export_files._write_weights", full)
    with pytest.raises(ConvLoomError, match="No space left on device"):
        chain().save(path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["net.keras"]


def test_others_may_read_the_file(tmp_path: Path) -> None:
    mask = os.umask(0o022)
    try:
        chain().save(tmp_path / "net.keras")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "net.keras").stat().st_mode) == 0o644
    assert [p.name for p in tmp_path.iterdir()] == ["net.keras"]


# -- training and the command line ---------------------------------------------------------------------------
def test_trained_weights_are_those_saved(tmp_path: Path) -> None:
    model = trained()
    assert any(value.any() for name, value in model.parameters.items() if name.endswith("moving_mean"))
    model.save(tmp_path / "net.keras")
    x = images(3, 6, 6, 2)
    np.testing.assert_array_equal(
        outputs(cl.load(tmp_path / "net.keras"), x)[0],
        outputs(model, x)[0],
    )


def test_convert_writes_an_archive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "out.keras"
    weights = str(DATA / "tiny_resnet.weights.h5")
    assert main(["convert", str(DATA / "tiny_resnet.json"), "--weights", weights, "-o", str(target)]) == 0
    stored = np.load(DATA / "tiny_resnet_io.npz")
    np.testing.assert_allclose(outputs(cl.load(target), stored["x"])[0], stored["y"], atol=1e-5)
    assert main(["convert", str(target), "-o", str(tmp_path / "w.weights.h5")]) == 0
    with h5py.File(weights) as before, h5py.File(tmp_path / "w.weights.h5") as after:
        wanted, found = stored_items(before), stored_items(after)
    # The optimizer's state stays behind.
    assert found == {place: item for place, item in wanted.items() if not place.startswith("optimizer")}


def test_train_saves_an_archive(tmp_path: Path) -> None:
    chain().save(tmp_path / "in.keras")
    np.savez(tmp_path / "d.npz", x=images(8, 9, 8, 3), y=np.arange(8) % 4)
    arguments = ["--data", str(tmp_path / "d.npz"), "--loss", "sparse_categorical_crossentropy", "--json"]
    target = tmp_path / "out.keras"
    command = ["train", str(tmp_path / "in.keras"), *arguments, "--save", str(target), "--device", "cpu"]
    assert main([*command, "--backend", "aten"]) == 0
    before, after = cl.load(tmp_path / "in.keras"), cl.load(target)
    assert list(before.parameters) == list(after.parameters)
    pairs = zip(before.get_weights(), after.get_weights(), strict=True)
    assert any(not np.array_equal(a, b) for a, b in pairs)
