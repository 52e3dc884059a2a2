"""Weights of `.weights.h5` files, and files that are something else than they should be."""

from __future__ import annotations

import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from convloom.frontends import Model, load, loads
from convloom.graph.errors import ModelFormatError, UnsafeModelError
from keras_dialects import DATA, LENET5, layer, simple


# -- weights -------------------------------------------------------------------------------------------------
def write_weights(path: Path, **arrays: np.ndarray) -> Path:
    """A .weights.h5; keys are paths under layers/, "/" written as "__"."""
    with h5py.File(path, "w") as file:
        for key, value in arrays.items():
            file[f"layers/{key.replace('__', '/')}"] = value
    return path


def dense_pair() -> Model:
    return loads(simple(layer("Dense", "late", units=2), layer("Dense", "early", units=1), shape=(3,)))


def good() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    shapes = {
        "dense__vars__0": (3, 2),
        "dense__vars__1": (2,),
        "dense_1__vars__0": (2, 1),
        "dense_1__vars__1": (1,),
    }
    return {key: random.normal(size=shape).astype("float32") for key, shape in shapes.items()}


def test_weights_go_by_class_and_order_not_by_name(tmp_path: Path) -> None:
    model, arrays = dense_pair(), good()
    model.load_weights(write_weights(tmp_path / "w.weights.h5", **arrays))
    assert list(model.parameters) == ["late/kernel", "late/bias", "early/kernel", "early/bias"]
    for found, expected in zip(model.get_weights(), arrays.values(), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_weights_in_the_layout_of_keras_2_12(tmp_path: Path) -> None:
    """There the counter moves by two past a layer that has weights."""
    model, arrays = dense_pair(), good()
    with h5py.File(tmp_path / "w.h5", "w") as file:
        for key, value in arrays.items():
            file["_layer_checkpoint_dependencies/" + key.replace("dense_1", "dense_2").replace("__", "/")] = (
                value
            )
    model.load_weights(tmp_path / "w.h5")
    np.testing.assert_array_equal(model.parameters["early/kernel"], arrays["dense_1__vars__0"])


def test_weights_that_do_not_fit_are_named_and_change_nothing(tmp_path: Path) -> None:
    model, arrays = dense_pair(), good()
    before = model.get_weights()
    del arrays["dense_1__vars__1"]
    arrays["dense__vars__1"] = np.zeros(4, dtype="float32")
    arrays["dense_1__vars__0"] = np.zeros((2, 1), dtype="complex64")
    arrays["conv2d__vars__0"] = np.zeros(1, dtype="float32")
    with pytest.raises(ModelFormatError) as caught:
        model.load_weights(write_weights(tmp_path / "w.weights.h5", **arrays))
    text = str(caught.value)
    assert text.startswith("w.weights.h5 does not fit Sequential 'net': ")
    assert (
        "Dense 'late': weight 'bias' (layers/dense/vars/1) has shape (4,) of float32, expected (2,)" in text
    )
    assert "Dense 'early': weight 'kernel' (layers/dense_1/vars/0) has shape (2, 1) of complex64" in text
    assert "Dense 'early': weight 'bias' (layers/dense_1/vars/1) is missing, expected shape (1,)" in text
    assert "the file holds 1 variables at layers/conv2d/vars, which no layer expects" in text
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_a_variable_too_many_is_reported(tmp_path: Path) -> None:
    arrays = good() | {"dense__vars__2": np.zeros(1, dtype="float32")}
    with pytest.raises(ModelFormatError, match=r"Dense 'late': the file holds 3 variables .*, expected 2"):
        dense_pair().load_weights(write_weights(tmp_path / "w.weights.h5", **arrays))


@pytest.mark.parametrize("kind", ["soft", "external", "storage", "virtual", "group"])
def test_weights_outside_the_file_are_refused(tmp_path: Path, kind: str) -> None:
    arrays = good()
    secret = arrays.pop("dense__vars__0")
    other = write_weights(tmp_path / "other.h5", dense__vars__0=secret)
    (tmp_path / "raw").write_bytes(secret.tobytes())
    path = write_weights(tmp_path / "w.weights.h5", **arrays)
    place = "layers/dense/vars/0"
    with h5py.File(path, "a") as file:
        if kind == "soft":
            file["real"] = secret
            file[place] = h5py.SoftLink("/real")
        elif kind == "external":
            file[place] = h5py.ExternalLink(str(other), f"/{place}")
        elif kind == "storage":
            file.create_dataset(place, (3, 2), "f4", external=[(str(tmp_path / "raw"), 0, 24)])
        elif kind == "virtual":
            layout = h5py.VirtualLayout((3, 2), "f4")
            layout[:] = h5py.VirtualSource(str(other), place, (3, 2))
            file.create_virtual_dataset(place, layout)
        else:
            del file["layers/dense"]
            file["layers/dense"] = h5py.ExternalLink(str(other), "/layers/dense")
    with pytest.raises(UnsafeModelError, match=r"^w\.weights\.h5: \S+ (is a \w+Link|keeps its data outside)"):
        dense_pair().load_weights(path)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("missing.h5", "missing.h5: cannot be read: No such file or directory"),
        ("tiny_resnet.json", "tiny_resnet.json: is no index of weights: it has no weight_map"),
        ("tiny_resnet.weights.h5", "does not fit Sequential 'net': Dense 'late': weight 'kernel'"),
    ],
)
def test_other_files_as_weights(path: str, message: str) -> None:
    with pytest.raises(ModelFormatError) as caught:
        dense_pair().load_weights(DATA / path)
    assert message in str(caught.value)


def test_truncated_weights_are_refused(tmp_path: Path) -> None:
    data = (LENET5 / "lenet5.weights.h5").read_bytes()
    for size in (100, 2000, len(data) // 2):
        (tmp_path / "cut.h5").write_bytes(data[:size])
        with pytest.raises(ModelFormatError, match=r"cut\.h5: "):
            load(LENET5 / "lenet5.json", weights=tmp_path / "cut.h5")


# -- archives and paths --------------------------------------------------------------------------------------
def test_archives_that_mean_harm_are_refused(tmp_path: Path) -> None:
    bomb, double = tmp_path / "bomb.keras", tmp_path / "double.keras"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", " " * 10_000_000)
    with pytest.raises(UnsafeModelError, match=r"bomb\.keras: config\.json: expands"):
        load(bomb)
    with zipfile.ZipFile(double, "w") as archive:
        archive.writestr("config.json", "{}")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("config.json", "{}")
    with pytest.raises(UnsafeModelError, match=r"member 'config\.json' stands twice"):
        load(double)


def test_other_files_as_models(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match=r"missing\.json: cannot be read: No such file"):
        load(tmp_path / "missing.json")
    with pytest.raises(
        ModelFormatError, match=r"lenet5\.weights\.h5: is an HDF5 file; pass the model's \.json"
    ):
        load(LENET5 / "lenet5.weights.h5")
    (tmp_path / "empty.keras").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(ModelFormatError, match=r"empty\.keras: damaged archive"):
        load(tmp_path / "empty.keras")
