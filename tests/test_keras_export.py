"""Files written for Keras: read back here, laid out as Keras lays them out, and opened by a live Keras."""

from __future__ import annotations

import copy
import io
import json
import os
import stat
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from convloom.frontends import layers as L
from convloom.graph.errors import ConvLoomError, UnsupportedLayerError
from helpers import evaluate

import convloom as cl
from convloom.cli import main

DATA = Path(__file__).parent / "data"
Json = dict[str, Any]


def outputs(model: cl.Model, *inputs: np.ndarray) -> list[np.ndarray]:
    given = {tensor.node.block.name: x for tensor, x in zip(model.inputs, inputs, strict=True)}
    return [y.numpy() for y in evaluate(model.to_graph(), model.parameters, given).values()]


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).normal(size=shape).astype(np.float32)


def randomised(model: cl.Model) -> cl.Model:
    """Weights that no default gives, variances positive."""
    generator = torch.Generator().manual_seed(1)
    for name, value in model.parameters.items():
        model.parameters[name] = torch.rand(value.shape, generator=generator) + 0.1
    return model


# -- networks ------------------------------------------------------------------------------------------------
def chain() -> cl.Model:
    layers = [
        L.Conv2D(5, (3, 2), strides=2, padding="same", activation="relu"),
        L.LeakyReLU(0.2),
        L.MaxPooling2D(2),
        L.Dropout(0.25, seed=3),
        L.Flatten(),
        L.Dense(4, activation="softmax", kernel_initializer="he_normal"),
    ]
    return cl.Sequential([cl.Input((9, 8, 3)), *layers], name="chain")


def residual() -> cl.Model:
    """Two branches, arithmetic with tensors and numbers on either side, a layer that reads itself."""
    x = cl.Input((8, 7, 3), name="image")
    y = L.Conv2D(4, 3, padding="same", use_bias=False, name="stem/conv")(x)
    y = L.BatchNormalization(scale=False, epsilon=1e-5)(y)
    shared = L.Conv2D(4, 3, padding="same", activation="tanh", name="shared")
    y = shared(shared(y))
    z = L.Add()([y, L.Conv2D(4, 1, groups=2)(y)])
    z = 2.0 - (z * 0.5 + 1.0)
    z = z - y
    z = L.Concatenate()([z * y, -y, z / 4.0 - 3.0])
    pooled = L.GlobalAveragePooling2D(keepdims=True)(z)
    return cl.Model(x, L.Dense(3)(L.Flatten()(z * pooled)))


def nested() -> cl.Model:
    """Models inside models, called twice, whose outputs are outputs; several inputs and outputs."""
    inner = cl.Sequential([cl.Input((6, 6, 2)), L.Conv2D(2, 3, padding="same"), L.ReLU(max_value=6.0)])
    a, b = cl.Input((6, 6, 2), name="a"), cl.Input((6, 6, 2), name="b")
    p, q = cl.Input((6, 6, 2)), cl.Input((6, 6, 2))
    pair = cl.Model([p, q], [L.Add()([L.Conv2D(2, 1)(p), q]), L.Subtract()([p, inner(q)])], name="pair")
    first, second = pair([a, inner(b)])
    third, fourth = pair([second, first])
    return cl.Model([b, a], [third, inner(fourth), first])


def twice() -> cl.Model:
    """One layer in two models of the same network."""
    shared = L.Conv2D(3, 3, padding="same", name="both")
    first = cl.Sequential([cl.Input((5, 5, 3)), shared, L.ReLU()])
    second = cl.Sequential([cl.Input((5, 5, 3)), shared, L.Softmax()])
    x = cl.Input((5, 5, 3))
    return cl.Model(x, L.Add()([first(x), second(x)]))


def keyed() -> cl.Model:
    left, right = cl.Input((4,), name="l"), cl.Input((4,), name="r")
    return cl.Model({"z": left, "a": right}, {"sum": left + right, "more": L.Dense(2)(left)})


NETWORKS = [chain, residual, nested, twice, keyed]


def samples(model: cl.Model) -> list[np.ndarray]:
    return [images(2, *tensor.type.size()[1:]) for tensor in model.inputs]


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
def keras_2(policy: str = "float32") -> Json:
    half = {"class_name": "Policy", "config": {"name": policy}}
    shape = [None, 6, 6, 3]
    kernel = {"class_name": "VarianceScaling", "config": {"scale": 2.0, "seed": 5, "dtype": "float32"}}
    conv = {
        "name": "block/conv", "trainable": False, "dtype": "float32", "batch_input_shape": shape,
        "filters": 4, "kernel_size": [3, 3], "padding": "same", "activation": "relu",
        "kernel_initializer": kernel, "kernel_regularizer": {"class_name": "L2", "config": {"l2": 0.01}},
        "bias_regularizer": None,
    }  # fmt: skip
    layers = [
        {"class_name": "InputLayer", "config": {"batch_input_shape": shape, "dtype": "float32", "name": "x"}},
        {"class_name": "Conv2D", "config": conv},
        {"class_name": "BatchNormalization", "config": {"name": "bn", "axis": [3], "dtype": half}},
        {"class_name": "LeakyReLU", "config": {"name": "leaky", "alpha": 0.25, "dtype": "float32"}},
    ]
    return {
        "class_name": "Sequential",
        "config": {"name": "old", "layers": layers},
        "keras_version": "2.12.0",
    }


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
def trained() -> cl.Model:
    x = cl.Input((6, 6, 2))
    y = L.BatchNormalization()(L.Conv2D(4, 3, activation="relu")(x))
    model = cl.Model(x, L.Dense(3, activation="softmax")(L.Flatten()(L.Dropout(0.1)(y))))
    labels = np.arange(24) % 3
    net = cl.compile(model, device="cpu", backend="aten")
    data = (images(24, 6, 6, 2), labels)
    cl.fit(net, data, "sparse_categorical_crossentropy", epochs=2, batch_size=8, verbose=0, seed=0)
    return model


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


def stored_items(file: h5py.File) -> Json:
    """Every group's attributes and every data set's bytes."""
    found: Json = {}
    file.visititems(
        lambda place, item: found.update(
            {place: (dict(item.attrs), item[()].tobytes() if isinstance(item, h5py.Dataset) else None)}
        )
    )
    return found


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
