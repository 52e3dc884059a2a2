"""The `.h5` files of Keras 2, and of Keras 3 when it is asked for that form: read by names, and guarded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from convloom.frontends import Input, Model, Sequential, layers, load, loads
from convloom.frontends.keras.dialect import written_by_keras_2
from convloom.frontends.operations import Operation

import convloom as cl
from convloom import ConvLoomError, ModelFormatError, UnsafeModelError, UnsupportedLayerError

DATA = Path(__file__).parent / "data"
K2, K2_WEIGHTS, K3 = (
    DATA / f"{stem}.h5" for stem in ("keras2_legacy", "keras2_legacy_weights", "keras3_legacy")
)
TOLERANCE = 1e-5
"""Relative. Some ten layers of float32, with sums of at most 120 terms."""


def check(model: Model, stem: str) -> None:
    cl.check(model, DATA / f"{stem}_io.npz", TOLERANCE)


def changed(source: Path, folder: Path, change: Callable[[Any], object], name: str = "changed.h5") -> Path:
    """A copy of an .h5 in which something is different."""
    path = Path(shutil.copy(source, folder / name))
    with h5py.File(path, "a") as file:
        change(file)
    return path


# -- files of Keras ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("stem", ["keras2_legacy", "keras3_legacy"])
def test_a_whole_model_computes_what_keras_stored(stem: str) -> None:
    check(load(DATA / f"{stem}.h5"), stem)


@pytest.mark.parametrize("weights", [K2_WEIGHTS, K2])
def test_a_description_with_either_form_of_weights(weights: Path) -> None:
    check(load(DATA / "keras2_legacy.json", weights), "keras2_legacy")


def test_weights_of_another_file_take_the_place_of_those_inside(tmp_path: Path) -> None:
    def double(file: Any) -> None:
        file["classes/classes/bias:0"][...] *= 2

    model = load(K2, changed(K2_WEIGHTS, tmp_path, double))
    plain = load(K2)
    np.testing.assert_array_equal(model.parameters["classes/bias"], 2 * plain.parameters["classes/bias"])
    np.testing.assert_array_equal(model.parameters["classes/kernel"], plain.parameters["classes/kernel"])


def test_a_keras_file_that_is_hdf5(tmp_path: Path) -> None:
    """Keras wrote so until 2.12."""
    check(load(shutil.copy(K2, tmp_path / "model.keras")), "keras2_legacy")


def test_every_weight_is_found_by_name() -> None:
    """The frozen layer of the nested model is stored last, and its `stem` is not the `stem` outside."""
    parameters = load(K2).parameters
    with h5py.File(K2) as file:
        root = file["model_weights"]
        for name, path in {
            "stem/kernel": "stem/stem/kernel:0",
            "stem/BatchNorm/moving_mean": "stem/BatchNorm/stem/BatchNorm/moving_mean:0",
            "block/stem/kernel": "block/stem/kernel:0",
            "block/frozen/kernel": "block/frozen/kernel:0",
            "block/norm/moving_variance": "block/norm/moving_variance:0",
            "head/hidden/kernel": "head/hidden/kernel:0",
        }.items():
            np.testing.assert_array_equal(parameters[name], root[path][()], err_msg=name)


def test_hard_sigmoid_of_keras_2() -> None:
    """0.2 x + 0.5 between 0 and 1, not Keras 3's x / 6 + 0.5; a file of Keras 3 cannot say it."""
    model = load(DATA / "keras2_activations.json")
    check(model, "keras2_activations")
    modern = json.loads((DATA / "keras2_activations.json").read_text()) | {"keras_version": "3.0.0"}
    with pytest.raises(ConvLoomError, match="does not compute"):
        check(loads(modern), "keras2_activations")
    with pytest.raises(UnsupportedLayerError, match="'hard': Keras 3 has no activation that computes"):
        model.to_json()


@pytest.mark.parametrize(
    ("data", "keras_2"),
    [
        ({"keras_version": "2.15.0"}, True),
        ({"keras_version": "3.0.0", "config": [{"config": {"batch_input_shape": [None, 3]}}]}, False),
        ({"config": {"layers": [{"config": {"batch_input_shape": [None, 3]}}]}}, True),
        ({"config": {"layers": [{"config": {"layers": [{"inbound_nodes": [[["a", 0, 0, {}]]]}]}}]}}, True),
        ({"config": {"layers": [{"inbound_nodes": [{"args": []}]}]}}, False),
        ({"config": {"layers": [7, {"config": 7, "inbound_nodes": 7}]}}, False),
        ({}, False),
    ],
)
def test_the_writer_is_known_by_version_or_form(data: dict[str, Any], keras_2: bool) -> None:
    assert written_by_keras_2(data) is keras_2


# -- what writers did differently ----------------------------------------------------------------------------
def _config_as(convert: Callable[[str], Any]) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        text = file.attrs["model_config"]
        del file.attrs["model_config"]
        file.attrs["model_config"] = convert(text)

    return change


def _split_names(file: Any) -> None:
    names = list(file.attrs["layer_names"])
    del file.attrs["layer_names"]
    file.attrs["layer_names0"], file.attrs["layer_names1"] = names[:5], names[5:]


def _names_as_bytes(file: Any) -> None:
    file.attrs["layer_names"] = np.array([name.encode() for name in file.attrs["layer_names"]])


@pytest.mark.parametrize("convert", [str.encode, lambda text: np.bytes_(text.encode())])
def test_the_description_may_be_bytes(tmp_path: Path, convert: Callable[[str], Any]) -> None:
    """As vlen bytes, which h5py makes of bytes; or of fixed length, as far as 64 kB go."""
    check(load(changed(K3, tmp_path, _config_as(convert))), "keras3_legacy")


@pytest.mark.parametrize("change", [_split_names, _names_as_bytes])
def test_lists_of_names_in_other_forms(tmp_path: Path, change: Callable[[Any], None]) -> None:
    path = changed(K2_WEIGHTS, tmp_path, change)
    check(load(DATA / "keras2_legacy.json", path), "keras2_legacy")


def test_weights_without_the_layers_name(tmp_path: Path) -> None:
    """So Keras 3.0 wrote them, and so Keras 2 writes those of a Normalization."""

    def flatten(file: Any) -> None:
        for layer in ("stem", "classes"):
            group = file[f"model_weights/{layer}"]
            for name in ("kernel", "bias"):
                group.move(f"{layer}/{name}", name)

    check(load(changed(K3, tmp_path, flatten)), "keras3_legacy")


def test_weights_of_a_normalization(tmp_path: Path) -> None:
    """Statistics and an integer: how many samples they were taken from."""
    model = Sequential([Input((2,)), layers.Normalization(name="norm")], name="net")
    path = write(tmp_path / "w.h5", {"norm/mean:0": [1, 2], "norm/variance:0": [4, 16]})
    with h5py.File(path, "a") as file:
        file["norm/count:0"] = np.int64(7)
    model.load_weights(path)
    x = np.array([[3, 2], [1, 10]], np.float32)
    found = cl.compile(model, device="cpu", backend="aten")(x)
    np.testing.assert_allclose(found.numpy(), [[1, 0], [0, 2]], rtol=1e-6)


def test_a_layer_that_was_renamed_after_it_was_made(tmp_path: Path) -> None:
    def rename(file: Any) -> None:
        file.move("stem/stem/kernel:0", "stem/conv2d_7/kernel:0")
        file.move("twice/twice", "twice/conv2d_9")

    path = changed(K2_WEIGHTS, tmp_path, rename)
    check(load(DATA / "keras2_legacy.json", path), "keras2_legacy")


def small(*names: str) -> Sequential:
    return Sequential([Input((3,)), *(layers.Dense(2, name=name) for name in names)], name="small")


def write(path: Path, arrays: dict[str, Any]) -> Path:
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = ["unread"]
        for name, value in arrays.items():
            file[name] = np.asarray(value, np.float32)
    return path


def test_layers_of_one_name_at_several_depths(tmp_path: Path) -> None:
    """The path in the file that agrees furthest with the path in the model."""
    x = Input((2,), name="x")
    inner = Model(x, layers.Dense(2, use_bias=False, name="d")(x), name="inner")
    y = Input((2,), name="y")
    outer = Model(y, layers.Dense(2, use_bias=False, name="d")(inner(y)), name="outer")
    model = Sequential([Input((2,)), outer, layers.Dense(2, use_bias=False, name="d")], name="net")
    kernels = {name: np.full((2, 2), i) for i, name in enumerate(["outer/d", "outer/inner/d", "d/d"])}
    model.load_weights(write(tmp_path / "w.h5", {f"{k}/kernel:0": v for k, v in kernels.items()}))
    found = {name: int(value[0, 0]) for name, value in model.parameters.items()}
    assert found == {"outer/d/kernel": 0, "outer/inner/d/kernel": 1, "d/kernel": 2}


def test_one_layer_s_group_inside_another_s(tmp_path: Path) -> None:
    """The inner one's weights are not taken for the outer one's, which are missing."""
    path = write(tmp_path / "w.h5", {"a/b/a/b/kernel:0": np.ones((2, 2)), "a/b/a/b/bias:0": [1, 1]})
    model = small("a", "a/b")
    with pytest.raises(ModelFormatError) as caught:
        model.load_weights(path)
    assert str(caught.value) == (
        "w.h5 does not fit Sequential 'small': "
        "Dense 'a': weight 'kernel' is missing below 'a', expected shape (3, 2); "
        "Dense 'a': weight 'bias' is missing below 'a', expected shape (2,)"
    )


# -- what does not fit ---------------------------------------------------------------------------------------
def test_everything_that_does_not_fit_is_named_and_changes_nothing(tmp_path: Path) -> None:
    arrays = {"a/a/kernel:0": np.ones((2, 3)), "a/a/bias:0": [1, 1], "b/b/bias:0": [1, 1], "c/c/gamma:0": [1]}
    model = small("a", "b")
    before = model.get_weights()
    with pytest.raises(ModelFormatError) as caught:
        model.load_weights(write(tmp_path / "w.h5", arrays))
    assert str(caught.value) == (
        "w.h5 does not fit Sequential 'small': "
        "Dense 'a': weight 'kernel' ('a/a/kernel:0') has shape (2, 3) of float32, "
        "expected (3, 2) of float32; "
        "Dense 'b': weight 'kernel' is missing below 'b', expected shape (2, 2); "
        "the file holds 'c/c/gamma:0', which no layer expects"
    )
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


@pytest.mark.parametrize("kind", ["i4", "c8", "S4"])
def test_weights_that_are_no_floats(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "w.h5", {"a/a/bias:0": [1, 1]})
    with h5py.File(path, "a") as file:
        file.create_dataset("a/a/kernel:0", (3, 2), kind)
    with pytest.raises(ModelFormatError, match=r"'a/a/kernel:0'\) has shape \(3, 2\) of "):
        small("a").load_weights(path)


@pytest.mark.parametrize("dtype", ["f2", "f8"])
def test_other_floats_are_converted(tmp_path: Path, dtype: str) -> None:
    path = write(tmp_path / "w.h5", {"a/a/bias:0": [1, 1]})
    with h5py.File(path, "a") as file:
        file["a/a/kernel:0"] = np.full((3, 2), 0.25, dtype)
    model = small("a")
    model.load_weights(path)
    assert model.parameters["a/kernel"].tolist() == [[0.25, 0.25]] * 3


# -- hostile files -------------------------------------------------------------------------------------------
def _put(kind: str, secret: Path) -> Callable[[Any], None]:
    place = "model_weights/stem/stem/kernel"

    def change(file: Any) -> None:
        shape = file[place].shape
        del file[place]
        if kind == "soft":
            file[place] = h5py.SoftLink("/model_weights/classes")
        elif kind == "external":
            file[place] = h5py.ExternalLink(str(secret), "/secret")
        elif kind == "storage":
            file.create_dataset(place, shape, "f4", external=[(str(secret), 0, h5py.h5f.UNLIMITED)])
        elif kind == "virtual":
            layout = h5py.VirtualLayout(shape, "f4")
            layout[:] = h5py.VirtualSource(str(secret), "secret", shape)
            file.create_virtual_dataset(place, layout)
        elif kind == "filter":
            file.create_dataset(place, shape, "f4", compression="lzf")
        elif kind == "group":
            del file["model_weights"]
            file["model_weights"] = h5py.ExternalLink(str(secret), "/")

    return change


@pytest.mark.parametrize("kind", ["soft", "external", "storage", "virtual", "filter", "group"])
def test_weights_outside_the_file_are_refused(tmp_path: Path, kind: str) -> None:
    secret = write(tmp_path / "secret.h5", {"secret": np.ones((3, 3, 3, 4))})
    with pytest.raises(UnsafeModelError, match=r"^changed\.h5: (below )?'?(stem|model_weights)"):
        load(changed(K3, tmp_path, _put(kind, secret)))


def test_code_in_the_description_is_refused(tmp_path: Path) -> None:
    def spoil(text: str) -> str:
        data = json.loads(text)
        data["config"]["layers"][1]["class_name"] = "Lambda"
        return json.dumps(data)

    with pytest.raises(UnsafeModelError, match=r"never runs or opens: .*'stem': Lambda"):
        load(changed(K3, tmp_path, _config_as(spoil)))


def test_groups_that_hold_themselves_end(tmp_path: Path) -> None:
    def loop(file: Any) -> None:
        group = file["model_weights"]
        group["again"] = group
        group["stem/again"] = group

    model = load(changed(K3, tmp_path, loop))
    assert model.parameters["stem/kernel"].shape == (3, 3, 3, 4)


def test_deep_groups_and_long_names_are_refused(tmp_path: Path) -> None:
    deep = changed(K3, tmp_path, lambda file: file.create_group("model_weights" + "/a" * 80), "deep.h5")
    with pytest.raises(ModelFormatError, match=r"deep\.h5: '(a/)+.*groups in groups"):
        load(deep)
    long = changed(K3, tmp_path, lambda file: file.create_group("model_weights/" + "n" * 3000), "long.h5")
    with pytest.raises(ModelFormatError, match=r"long\.h5: 'n+.* is a path of 3,000 characters"):
        load(long)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "is an HDF5 file; pass the model's .json first"),
        (["{}", "{}"], "model_config must be one text, found object of shape (2,)"),
        (7, "model_config must be one text, found int64 of shape ()"),
        ("{", "changed.h5: model_config: not JSON"),
        ("[]", "model: must be an object with class_name and config"),
    ],
)
def test_descriptions_that_are_none(tmp_path: Path, value: Any, text: str) -> None:
    def change(file: Any) -> None:
        del file.attrs["model_config"]
        if value is not None:
            file.attrs["model_config"] = value

    with pytest.raises(ModelFormatError) as caught:
        load(changed(K3, tmp_path, change))
    assert text in str(caught.value)


def test_truncated_files_are_refused(tmp_path: Path) -> None:
    data = K3.read_bytes()
    for size in (9, 100, 2_000, len(data) // 2, len(data) - 500):
        (tmp_path / "cut.h5").write_bytes(data[:size])
        with pytest.raises(ModelFormatError, match=r"cut\.h5: "):
            load(tmp_path / "cut.h5")


def test_weights_only_is_no_model() -> None:
    with pytest.raises(
        ModelFormatError, match=r"keras2_legacy_weights\.h5: is an HDF5 file; pass the model's"
    ):
        load(K2_WEIGHTS)


# -- operations ----------------------------------------------------------------------------------------------
def test_an_operator_and_a_layer_of_one_name_are_told_apart() -> None:
    """The description of Keras 3's `.h5` names the class only."""
    with h5py.File(K3) as file:
        entries = json.loads(file.attrs["model_config"])["config"]["layers"]
    adds = [entry["config"]["name"] for entry in entries if entry["class_name"] == "Add"]
    assert not any("module" in entry for entry in entries)
    model = load(K3)
    found = {name: isinstance(model.get_layer(name), Operation) for name in adds}
    assert found == {"add_1": True, "add": False}
