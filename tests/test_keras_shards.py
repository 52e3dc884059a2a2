"""Weights in several files that an index lists."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from convloom.frontends.keras.weights import load_weights

import convloom as cl
from convloom import Limits
from convloom import layers as L


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keras's own shards of a network with a nested model; a layer's kernel and bias lie apart."""
    import keras

    folder = tmp_path_factory.mktemp("shards")
    K = keras.layers
    inner = keras.Sequential([keras.Input((6, 5, 4)), K.Conv2D(4, 3), K.BatchNormalization()])
    x = keras.Input((8, 7, 3))
    h = inner(K.Conv2D(4, 3, activation="relu")(x))
    model = keras.Model(x, K.Dense(3)(K.Dense(9)(K.Flatten()(h))))
    for weight in model.weights:
        weight.assign(np.random.default_rng(0).random(weight.shape))
    model.save_weights(folder / "net.weights.json", max_shard_size=1750 / 2**30)
    model.save_weights(folder / "whole.weights.h5")
    (folder / "net.json").write_text(model.to_json())
    return folder


def index(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "net.weights.json").read_text())
    return found


def test_shards_hold_what_one_file_holds(saved: Path) -> None:
    files = {name for names in index(saved)["weight_map"].values() for name in names}
    assert len(files) > 1
    assert any(len(names) > 1 for names in index(saved)["weight_map"].values())
    model = cl.load(saved / "net.json", weights=saved / "net.weights.json")
    whole = cl.load(saved / "net.json", weights=saved / "whole.weights.h5")
    pairs = list(zip(model.get_weights(), whole.get_weights(), strict=True))
    assert len(pairs) == 12
    assert all(np.array_equal(a, b) for a, b in pairs)


def copied(saved: Path, folder: Path) -> Path:
    for path in saved.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


DENSE = "/layers/dense/vars"


def lying(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        data = index(folder)
        data["weight_map"][DENSE] = [name]
        (folder / "net.weights.json").write_text(json.dumps(data))

    return change


def linked(folder: Path) -> None:
    first = index(folder)["weight_map"][DENSE][0]
    (folder / first).rename(folder / "elsewhere")
    (folder / first).symlink_to(folder / "elsewhere")


def in_two(folder: Path) -> None:
    data = index(folder)
    names = sorted({name for names in data["weight_map"].values() for name in names})
    for name in names[:2]:
        with h5py.File(folder / name, "a") as file:
            group = file.require_group(DENSE)
            if "0" not in group:
                group["0"] = np.zeros((48, 9), "f4")
    data["weight_map"][DENSE] = names
    (folder / "net.weights.json").write_text(json.dumps(data))


def group_twice(folder: Path) -> None:
    text = (folder / "net.weights.json").read_text()
    (folder / "net.weights.json").write_text(
        text.replace('"weight_map": {', '"weight_map": {"layers/dense/vars": ["net_00000.weights.h5"],')
    )


def missing(folder: Path) -> None:
    (folder / index(folder)["weight_map"][DENSE][0]).unlink()


def external(folder: Path) -> None:
    name = index(folder)["weight_map"][DENSE][0]
    with h5py.File(folder / name, "a") as file:
        del file[DENSE]
        file[DENSE] = h5py.ExternalLink(str(folder / "whole.weights.h5"), DENSE)


def extra(folder: Path) -> None:
    name = index(folder)["weight_map"][DENSE][0]
    with h5py.File(folder / name, "a") as file:
        file["layers/conv3d/vars/0"] = np.zeros(3)
    data = index(folder)
    data["weight_map"]["/layers/conv3d/vars"] = name
    (folder / "net.weights.json").write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        *(
            (lying(name), cl.UnsafeModelError, "beside the index are opened")
            for name in (
                *("/etc/passwd", "../whole.weights.h5", "a/b.weights.h5", "C:x.weights.h5"),
                *(".weights.h5", "x.h5", "x\\y.weights.h5"),
                *("x\0.weights.h5", "\x1b[2J.weights.h5", "n" * 300 + ".weights.h5"),
            )
        ),
        (linked, cl.UnsafeModelError, "is a link, or no plain file"),
        (in_two, cl.UnsafeModelError, "stands in two of its files"),
        (group_twice, cl.ModelFormatError, "stands twice"),
        (missing, cl.ModelFormatError, "No such file"),
        (external, cl.UnsafeModelError, "is a ExternalLink"),
        (extra, cl.ModelFormatError, "1 variables at layers/conv3d/vars, which no layer expects"),
        (lying("whole.weights.h5"), None, ""),
    ],
)
def test_an_index_leads_nowhere_else(
    saved: Path, tmp_path: Path, change: Callable[[Path], None], kind: Any, text: str
) -> None:
    folder = copied(saved, tmp_path)
    change(folder)
    if kind is None:
        cl.load(folder / "net.json", weights=folder / "net.weights.json")
        return
    with pytest.raises(kind) as caught:
        cl.load(folder / "net.json", weights=folder / "net.weights.json")
    assert text in str(caught.value)
    assert "net.weights.json" in str(caught.value) or kind is cl.UnsafeModelError
    assert str(caught.value).isprintable()


def test_bounds_of_shards(saved: Path) -> None:
    for limits, text in (
        (Limits(hdf5_bytes=20_000), "bytes in its files; at most 20,000"),
        (Limits(weight_files=1), "files of weights; at most 1 "),
        (Limits(json_bytes=10_000_000, json_values=5), "values"),
    ):
        model = cl.load(saved / "net.json")
        with pytest.raises(cl.ModelFormatError, match=text):
            load_weights(model, saved / "net.weights.json", limits=limits)


def test_what_is_no_index_is_named(tmp_path: Path) -> None:
    model = cl.Sequential([cl.Input((3,)), L.Dense(2)])
    (tmp_path / "w.weights.json").write_text("[]")
    with pytest.raises(cl.ModelFormatError, match=r"w\.weights\.json: is no index of weights"):
        model.load_weights(tmp_path / "w.weights.json")
    with pytest.raises(cl.ModelFormatError, match=r"x\.json: cannot be read: No such file"):
        model.load_weights(tmp_path / "x.json")
