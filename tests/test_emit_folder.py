"""`emit` into a folder that holds something: its own files of earlier go, everybody else's stay."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from convloom.runtime.folder import MANIFEST

import convloom as cl
from convloom import layers as L


@pytest.fixture(scope="module")
def model() -> cl.Model:
    image = cl.Input((8, 8, 3))
    h = L.MaxPooling2D(2)(L.Conv2D(4, 3, activation="relu")(image))
    return cl.Model(image, L.Dense(2)(L.Flatten()(h)), name="small")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {MANIFEST}


def test_kernels_of_an_earlier_emit_go(model: cl.Model, tmp_path: Path) -> None:
    fused = {path.name for path in cl.emit(model, tmp_path)}
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "old.py").write_text("also mine")
    unfused = {path.name for path in cl.emit(model, tmp_path, fuse=False)}
    assert fused - unfused
    assert names(tmp_path) == unfused | {"notes.txt", "old.py"}
    cl.emit(model, tmp_path, fuse=False)  # once more, and nothing changes
    assert names(tmp_path) == unfused | {"notes.txt", "old.py"}


def test_a_kernel_that_was_changed_stays(model: cl.Model, tmp_path: Path) -> None:
    cl.emit(model, tmp_path)
    changed = tmp_path / "conv2d_relu_max_pool2d.py"
    changed.write_text("# better\n")
    with pytest.raises(cl.ConvLoomError, match=r"max_pool2d\.py was changed since .* overwrite=True"):
        cl.emit(model, tmp_path)
    assert changed.read_text() == "# better\n"
    cl.emit(model, tmp_path, fuse=False)  # where it is not in the way
    assert changed.read_text() == "# better\n"
    with pytest.raises(cl.ConvLoomError, match="was changed since"):
        cl.emit(model, tmp_path)
    cl.emit(model, tmp_path, overwrite=True)
    assert changed.read_text() != "# better\n"


def test_files_of_others_are_not_written_over(model: cl.Model, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("my project: [demo.py](demo.py)")
    (tmp_path / "demo.py").write_text("mine")
    with pytest.raises(cl.ConvLoomError, match=r"README\.md is there and was not written by emit; move it"):
        cl.emit(model, tmp_path)
    assert names(tmp_path) == {"README.md", "demo.py"}
    cl.emit(model, tmp_path, overwrite=True)
    assert (tmp_path / "demo.py").read_text() == "mine"
    assert "Kernels of small" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize(
    "text",
    [
        '{"files": {"../secret": ["DIGEST"], "/SECRET": ["DIGEST"], "sub/../../secret": ["DIGEST"]}}',
        '{"files": {"..": [], ".": [], "": []}}',
        '{"files": [1, 2]}',
        '{"files": {"graph.txt": 3}}',
        "[]",
        "not JSON",
        "[" * 100000,
    ],
)
def test_a_manifest_of_a_stranger_reaches_nothing_outside(model: cl.Model, tmp_path: Path, text: str) -> None:
    import hashlib

    secret, folder = tmp_path / "secret", tmp_path / "kernels"
    secret.write_text("precious")
    folder.mkdir()
    digest = hashlib.sha256(b"precious").hexdigest()
    (folder / MANIFEST).write_text(text.replace("DIGEST", digest).replace("/SECRET", str(secret)))
    cl.emit(model, folder)
    assert secret.read_text() == "precious"
    found = json.loads((folder / MANIFEST).read_text())["files"]
    assert set(found) == names(folder)


def test_a_file_in_the_place_of_the_folder(model: cl.Model, tmp_path: Path) -> None:
    (tmp_path / "k").write_text("mine")
    with pytest.raises(cl.ConvLoomError, match=r"cannot write kernels to .*k: File exists"):
        cl.emit(model, tmp_path / "k")
