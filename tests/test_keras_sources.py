"""What may be given as a model and as weights, and what is said of everything else."""

from __future__ import annotations

import io
import shutil
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from convloom.graph.errors import ConvLoomError, ModelFormatError
from keras_dialects import DATA, LENET5
from keras_files import called as call
from keras_files import entry, functional, layer, small, write_json, write_keras

import convloom as cl
from convloom import layers as L
from convloom.cli import main


def network(seed: int = 1) -> cl.Model:
    x = cl.Input((6, 5, 3), name="x")
    y = L.BatchNormalization(name="n")(L.Conv2D(4, 3, name="c")(x))
    model = cl.Model(x, L.Dense(2, name="d")(L.Flatten(name="f")(y)), name="net")
    random = np.random.default_rng(seed)
    model.set_weights([random.uniform(0.5, 1, w.shape).astype("float32") for w in model.get_weights()])
    return model


def same(mine: cl.Model, theirs: cl.Model) -> None:
    assert list(mine.parameters) == list(theirs.parameters)
    for a, b in zip(mine.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def unpacked(archive: Path, folder: Path) -> Path:
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(folder)
    return folder


# -- an architecture without its weights ---------------------------------------------------------------------
def test_an_archive_without_weights_is_refused_unless_asked_for(tmp_path: Path) -> None:
    path = write_keras(tmp_path / "net.keras", small())
    text = (
        r"^net\.keras: only the architecture is there, without its weights \(no model\.weights\.h5\)\. "
        r"Give a file that has them as weights=, or ask for initial ones: "
        r"load\(\.\.\., architecture_only=True\)$"
    )
    with pytest.raises(ModelFormatError, match=text):
        cl.load(path)
    with pytest.raises(ModelFormatError, match=text):
        cl.load(write_json(tmp_path / "net.json", small()), weights=path)
    assert cl.load(path, architecture_only=True).count_params() == 8
    with pytest.raises(ConvLoomError, match="weights= or architecture_only=True, not both"):
        cl.load(path, weights=path, architecture_only=True)


def test_weights_may_be_left_aside(tmp_path: Path) -> None:
    network().save(tmp_path / "net.keras")
    model = cl.load(tmp_path / "net.keras", architecture_only=True)
    assert not model.parameters["n/moving_mean"].any()


def test_an_h5_without_weights_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "net.h5", "w") as file:
        file.attrs["model_config"] = network().to_json()
    with pytest.raises(ModelFormatError, match=r"only the architecture is there.*\(no group model_weights\)"):
        cl.load(tmp_path / "net.h5")
    assert cl.load(tmp_path / "net.h5", architecture_only=True).count_params() == network().count_params()


def test_a_model_that_has_no_weights_needs_none(tmp_path: Path) -> None:
    path = write_keras(tmp_path / "net.keras", functional(entry(3), layer("ReLU", "r", call("x"))))
    assert cl.load(path).count_params() == 0


# -- more ways in --------------------------------------------------------------------------------------------
def test_an_unpacked_archive(tmp_path: Path) -> None:
    model = network()
    model.save(tmp_path / "net.keras")
    folder = unpacked(tmp_path / "net.keras", tmp_path / "net")
    same(cl.load(folder), model)
    same(cl.load(f"{folder}/", weights=folder), model)
    (folder / "model.weights.h5").unlink()
    with pytest.raises(ModelFormatError, match="net: only the architecture is there"):
        cl.load(folder)
    same(cl.load(folder, weights=tmp_path / "net.keras"), model)
    (tmp_path / "link").symlink_to(folder)
    assert cl.load(tmp_path / "link", architecture_only=True).name == "net"


def test_other_folders(tmp_path: Path) -> None:
    (tmp_path / "a\nb").mkdir()
    with pytest.raises(ModelFormatError, match=r"^'a\\nb': this is a folder; it has no config\.json"):
        cl.load(tmp_path / "a\nb")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").touch()
    with pytest.raises(
        ModelFormatError, match="saved: this is a TensorFlow SavedModel, which ConvLoom does not"
    ):
        cl.load(tmp_path / "saved")


def test_an_archive_as_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = network()
    model.save(tmp_path / "net.keras")
    description = write_json(tmp_path / "net.json", model.to_json())
    same(cl.load(description, weights=tmp_path / "net.keras"), model)
    other = network(2)
    other.load_weights(tmp_path / "net.keras")
    same(other, model)
    np.save(tmp_path / "x.npy", np.ones((2, 6, 5, 3), "f4"))
    given = ["--input", str(tmp_path / "x.npy"), "--json", "--device", "cpu"]
    assert main(["run", str(description), "--weights", str(tmp_path / "net.keras"), *given]) == 0
    assert '"d": [' in capsys.readouterr().out


@pytest.mark.parametrize(
    "source", [DATA / "keras2_legacy.h5", LENET5 / "lenet5.json", DATA / "small_mobile.keras"]
)
def test_a_binary_file_object(source: Path) -> None:
    weights = LENET5 / "lenet5.weights.h5" if source.suffix == ".json" else None
    expected = cl.load(source, weights=weights)
    with source.open("rb") as stream:
        stored = io.BytesIO(weights.read_bytes()) if weights else None
        same(cl.load(stream, weights=stored), expected)
        stream.seek(3)
        same(cl.load(stream, weights=stored), expected)
        assert not stream.closed
    same(cl.load(io.BytesIO(source.read_bytes()), weights=weights), expected)


def test_weights_by_name(tmp_path: Path) -> None:
    model = network()
    np.savez(
        tmp_path / "w.npz", **{name: np.asfortranarray(v.numpy()) for name, v in model.parameters.items()}  # type: ignore[arg-type]
    )
    other = network(2)
    other.load_weights(tmp_path / "w.npz")
    same(other, model)
    np.savez(tmp_path / "w.npz", **{"d/bias": np.zeros(3, "f4")})  # type: ignore[arg-type]
    with pytest.raises(
        ModelFormatError, match=r"^w\.npz lacks the weights c/kernel, c/bias, .*; it holds d/bias$"
    ):
        other.load_weights(tmp_path / "w.npz")
    values = {name: v.numpy() for name, v in model.parameters.items()}
    np.savez(tmp_path / "w.npz", **(values | {"d/bias": np.zeros(3, "f4"), "e/bias": np.zeros(1)}))  # type: ignore[arg-type]
    with pytest.raises(ModelFormatError) as caught:
        other.load_weights(tmp_path / "w.npz")
    assert "Dense 'd': weight 'bias' has shape (3,) of float32, expected (2,) of float32" in str(caught.value)
    assert "the file holds 'e/bias', which no layer expects" in str(caught.value)
    same(other, model)


# -- what is no file -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("given", "text"),
    [
        (None, "a model is loaded from a path or a binary file object, got None"),
        (7, "got int"),
        (small(), "got dict; a description that is parsed already goes to convloom.loads"),
        (b"PK", "got bytes; wrap bytes in io.BytesIO, or give JSON to convloom.loads"),
        (io.StringIO("{}"), "the file given is open as text; open it in binary mode"),
        ("", "the path is empty text"),
        ("a\0b", r"'a\x00b': cannot be read: embedded null byte"),
    ],
)
def test_what_is_no_file(given: Any, text: str) -> None:
    with pytest.raises(ConvLoomError) as caught:
        cl.load(given)
    assert text in str(caught.value)


def test_a_model_given_as_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConvLoomError, match="got Model; this is a model already: save it first"):
        cl.load(network())  # type: ignore[arg-type]
    with pytest.raises(
        ConvLoomError, match="weights is loaded from a path or a binary file object, got list"
    ):
        network().load_weights([1])  # type: ignore[arg-type]


def test_files_that_cannot_be_read_again(tmp_path: Path) -> None:
    path = Path(shutil.copy(DATA / "small_mobile.keras", tmp_path))
    stream = path.open("rb")
    stream.close()
    with pytest.raises(
        ConvLoomError, match=r"^small_mobile\.keras cannot be read from its start: .*closed file"
    ):
        cl.load(stream)
    with (
        (tmp_path / "w").open("wb") as writing,
        pytest.raises(ConvLoomError, match="w cannot be read from its"),
    ):
        cl.load(writing)


# -- what is no model ----------------------------------------------------------------------------------------
def image(kind: str) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", (3, 2)).save(stream, kind)
    return stream.getvalue()


OTHERS: list[tuple[bytes, str]] = [
    (b"", "an empty file; a model is a .keras, .h5 or .json file"),
    (b"\0" * 700, "a file of blanks or zeros; was it copied in full?"),
    (b" \n", "a file of blanks or zeros"),
    *((image(kind), f"an image ({kind})") for kind in ("PNG", "JPEG", "GIF", "TIFF", "BMP")),
    (image("WEBP"), "an image (WebP)"),
    (image("PPM"), "an image (PNM)"),
    (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        "a Git LFS pointer, which stands for the file; fetch the file itself with `git lfs pull`",
    ),
    (b"<!DOCTYPE html>\n<html><head>", "a web page; download the file itself"),
    (b"\n  <html lang=en>", "a web page; download the file itself"),
    (b"<!-- x -->\n<!doctype HTML>", "a web page"),
    (b'<?xml version="1.0"?><Error><Code>AccessDenied', "an XML document, such as a server's error"),
    (b"\x80\x04\x95\x10\0\0", "a Python pickle, which could run code and is never opened"),
    (b'\x88\0\0\0\0\0\0\0{"w":{"dtype"', "a .safetensors file"),
    (b"\x1c\0\0\0TFL3\x14\0 \0", "a TensorFlow Lite model"),
    (
        b"\x08\x07\x12\x07pytorch\x1a\x051.9.0",
        "an ONNX model or another protocol buffer; a model is a .keras",
    ),
    (b"\x1f\x8b\x08\0\0\0", "a compressed archive; unpack it first"),
    (b"net/".ljust(257, b"\0") + b"ustar\0" + b"00".ljust(300), "a tar archive; unpack it first"),
    (b"%PDF-1.7", "a PDF document"),
    (b"backend: tensorflow\nclass_name: Model\n", "YAML, which ConvLoom does not read"),
    ('{"class_name": "Sequential"}'.encode("utf-16"), "text in UTF-16 or something binary"),
]


@pytest.mark.parametrize(("data", "text"), OTHERS, ids=[text[:24] for _, text in OTHERS])
def test_other_files_are_named_for_what_they_are(
    data: bytes, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "net.keras"
    path.write_bytes(data)
    for load in (
        lambda: cl.load(path),
        lambda: cl.load(io.BytesIO(data)),
        lambda: network().load_weights(path),
    ):
        with pytest.raises(ModelFormatError) as caught:
            load()
        assert f": this is {text}" in str(caught.value)
    assert main(["summary", str(path)]) == 2
    assert f"error: net.keras: this is {text}" in capsys.readouterr().err


def test_other_archives(tmp_path: Path) -> None:
    for member, text in {
        "net/data.pkl": "has no config.json; it was saved by PyTorch, with Python pickles",
        "x.npy": "has no config.json; it is an .npz of arrays; give one with a model's weights as weights=",
        "net/config.json": "holds 'net/config.json': the files of a model must not lie in a folder",
        "word/document.xml": "it is not a .keras archive; a model is a .keras, .h5 or .json file",
    }.items():
        with zipfile.ZipFile(tmp_path / "a.keras", "w") as archive:
            archive.writestr(member, b"")
        with pytest.raises(ModelFormatError) as caught:
            cl.load(tmp_path / "a.keras")
        assert text in str(caught.value)


def test_json_is_still_json(tmp_path: Path) -> None:
    for data, text in {b"[1": "not JSON: ", b"\xef\xbb\xbf{": "not JSON: ", b"net = 3": "not JSON: "}.items():
        (tmp_path / "net.json").write_bytes(data)
        with pytest.raises(ModelFormatError, match=f"net.json: {text}"):
            cl.load(tmp_path / "net.json")
