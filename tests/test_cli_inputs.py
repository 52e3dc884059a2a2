"""What the command line reads for a network: arrays by name or place, pictures, weights that are there."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from convloom.graph.ops import Input
from PIL import Image

import convloom as cl
from convloom import layers as L
from convloom.cli import main
from convloom.pictures import read_picture

LENET5 = Path(__file__).parents[1] / "examples" / "keras_lenet5"
LENET = str(LENET5 / "lenet5.json")
WEIGHTS = str(LENET5 / "lenet5.weights.h5")
RNG = np.random.default_rng(0)


class Shell:
    """The command line in a folder of its own."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def done(self, *arguments: str) -> tuple[str, str]:
        """What a command that works prints: stdout, stderr."""
        status = main(arguments)
        printed = self.capsys.readouterr()
        assert status == 0, printed.err
        return printed.out, printed.err

    def refused(self, *arguments: str) -> str:
        """The one line that a command prints that does not."""
        assert main(arguments) == 2
        printed = self.capsys.readouterr()
        (line,) = printed.err.splitlines()
        assert line.startswith("convloom: error: ")
        return line

    def outputs(self, network: str, given: str, *options: str) -> np.ndarray[Any, Any]:
        """What `run` writes for a file of this folder."""
        output = self.path("out.npy")
        self.done("run", network, "--input", self.path(given), "--output", output, *options)
        return np.load(output)

    def save(self, name: str, model: cl.Model) -> str:
        model.save(self.path(name))
        return self.path(name)


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, capsys)


def write(path: str, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """An .npz of them in this order."""
    np.savez(path, **arrays)  # type: ignore[arg-type]


def two_inputs() -> cl.Model:
    """left - 2 right, over its three elements summed: the order of the inputs matters."""
    left, right = cl.Input((3,), name="left"), cl.Input((3,), name="right")
    return cl.Model([left, right], L.Dense(1, name="d")(L.Subtract()([left, right * 2.0])))


def pass_on(shape: tuple[int, ...], dtype: str = "float32") -> cl.Model:
    """A network without weights, that gives its input."""
    image = cl.Input(shape, name="image", dtype=dtype)
    return cl.Model(image, L.Activation("linear")(image))


# -- arrays by name ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("names", [("left", "right"), ("right", "left"), ("x1", "x0")])
def test_arrays_go_to_the_inputs_by_their_names(shell: Shell, names: tuple[str, str]) -> None:
    model = two_inputs()
    values = {"left": RNG.normal(size=(4, 3)), "right": RNG.normal(size=(4, 3))}
    values |= {"x0": values["left"], "x1": values["right"]}
    write(shell.path("x.npz"), {name: values[name] for name in names})
    found = shell.outputs(shell.save("net.keras", model), "x.npz")
    weights = [w.astype(np.float64) for w in model.get_weights()]
    expected = (values["left"] - 2 * values["right"]) @ weights[0] + weights[1]
    np.testing.assert_allclose(found, expected, atol=3 * 4 * 2.0**-23)


def test_a_wrong_name_is_named_with_the_right_ones(shell: Shell) -> None:
    network = shell.save("net.keras", two_inputs())
    x = np.zeros((1, 3), np.float32)
    np.savez(shell.path("x.npz"), left=x, rigth=x)
    line = shell.refused("run", network, "--input", shell.path("x.npz"))
    assert "the network has no input 'rigth'; did you mean 'right'?" in line
    assert "left, right" in line
    assert "x0 to x1, by place" in line
    np.savez(shell.path("x.npz"), left=x)
    line = shell.refused("run", network, "--input", shell.path("x.npz"))
    assert "no value for the input 'right'" in line
    np.save(shell.path("x.npy"), x)
    assert "no input 'x'" in shell.refused("run", network, "--input", shell.path("x.npy"))


def test_one_array_is_for_one_input_whatever_its_name(shell: Shell) -> None:
    network = shell.save("net.keras", pass_on((3,)))
    x = RNG.normal(size=(2, 3)).astype(np.float32)
    np.savez(shell.path("x.npz"), anything=x)
    np.testing.assert_array_equal(shell.outputs(network, "x.npz"), x)
    np.savez(shell.path("x.npz"), anything=x, more=x)
    assert "no input 'anything'" in shell.refused("run", network, "--input", shell.path("x.npz"))


def test_what_is_for_no_input_is_left_aside_and_named(shell: Shell) -> None:
    network = shell.save("net.keras", pass_on((3,)))
    x = RNG.normal(size=(2, 3)).astype(np.float32)
    np.savez(shell.path("x.npz"), y=x + 1, x=x)
    np.testing.assert_array_equal(shell.outputs(network, "x.npz"), x)
    _, noted = shell.done("run", network, "--input", shell.path("x.npz"))
    assert "x.npz: y left aside" in noted


def test_training_data_goes_by_the_names_of_the_inputs(shell: Shell) -> None:
    """The order in the file is not that of the inputs, and only the right one can be learned."""
    left, right = RNG.normal(size=(2, 64, 3)).astype(np.float32)
    y = (left - 2 * right).sum(axis=1, keepdims=True)
    data = {"y_val": y, "right_val": right, "right": right, "y": y, "left_val": left, "left": left}
    network = shell.save("net.keras", two_inputs())
    for renamed in ({}, {"left": "x0", "right": "x1", "left_val": "x0_val", "right_val": "x1_val"}):
        write(shell.path("d.npz"), {renamed.get(name, name): array for name, array in data.items()})
        options = ("--loss", "mse", "--optimizer", "sgd", "--learning-rate", "0.1", "--epochs", "40")
        text, _ = shell.done(
            "train", network, "--data", shell.path("d.npz"), *options, "--save", shell.path("w.npz")
        )
        kernel = np.load(shell.path("w.npz"))["d/kernel"]
        np.testing.assert_allclose(kernel, np.ones((3, 1)), atol=1e-2)
        assert "val_loss" in text
        assert f"wrote {shell.path('w.npz')}: the weights, 4 parameters" in text


@pytest.mark.parametrize("names", [("kind", "size"), ("y0", "y1")])
def test_training_data_for_several_outputs(shell: Shell, names: tuple[str, str]) -> None:
    x = cl.Input((4,), name="x")
    model = cl.Model(x, [L.Dense(3, name="kind")(x), L.Dense(1, name="size")(x)], name="two")
    network = shell.save("two.keras", model)
    given, kinds, sizes = RNG.normal(size=(8, 4)), RNG.normal(size=(8, 3)), RNG.normal(size=8)
    arrays = {"x": given, names[0]: kinds, names[1]: sizes}
    write(shell.path("d.npz"), arrays | {f"{name}_val": array for name, array in arrays.items()})
    text, _ = shell.done(
        "train", network, "--data", shell.path("d.npz"), "--loss", "mse", "--epochs", "1",
        "--save", shell.path("w.npz"),
    )  # fmt: skip
    assert "kind_loss" in text
    assert "val_size_loss" in text


def test_training_data_that_lacks_something(shell: Shell) -> None:
    network, x = shell.save("net.keras", two_inputs()), np.zeros((2, 3))

    def line(**arrays: np.ndarray[Any, Any]) -> str:
        write(shell.path("d.npz"), arrays)
        return shell.refused("train", network, "--data", shell.path("d.npz"), "--loss", "mse")

    assert "training needs arrays named left, right and y" in line(left=x, right=x)
    assert "no value for the input 'right'" in line(left=x, y=x)
    assert "validation needs arrays named left_val, right_val and y_val" in line(
        left=x, right=x, y=x, left_val=x, right_val=x
    )
    assert "no value for the input 'left'" in line(left=x, right=x, y=x, right_val=x, y_val=x)


# -- pictures ------------------------------------------------------------------------------------------------
def picture(shell: Shell, name: str, size: tuple[int, int], mode: str = "RGB") -> np.ndarray[Any, Any]:
    """Saves one of random pixels, and gives them."""
    bands = len(Image.new(mode, (1, 1)).getbands())
    shape = (size[1], size[0], bands) if bands > 1 else (size[1], size[0])
    pixels = RNG.integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels, mode=mode).save(shell.path(name))
    return pixels


@pytest.mark.filterwarnings("ignore:.*mode.*:DeprecationWarning")
def test_a_picture_is_an_input(shell: Shell) -> None:
    pixels = picture(shell, "p.png", (7, 5))
    network = shell.save("net.keras", pass_on((5, 7, 3)))
    np.testing.assert_array_equal(shell.outputs(network, "p.png"), pixels[None])
    _, noted = shell.done("run", network, "--input", shell.path("p.png"))
    assert "p.png: PNG of 7 x 5 pixels, RGB; values 0 to 255; --scale 1/255 where the network" in noted
    scaled = shell.outputs(network, "p.png", "--scale", "1/255")
    np.testing.assert_allclose(scaled, pixels[None] / 255.0, rtol=2.0**-22)


@pytest.mark.filterwarnings("ignore:.*mode.*:DeprecationWarning")
def test_a_picture_takes_the_channels_of_the_input(shell: Shell) -> None:
    pixels = picture(shell, "p.png", (7, 5))
    grey = np.rint(pixels @ np.array([0.299, 0.587, 0.114]))  # ITU-R BT.601
    for shape, expected in (
        ((5, 7, 1), grey[..., None]),
        ((5, 7), grey),
        ((3, 5, 7), np.moveaxis(pixels, -1, 0)),
        ((5, 7, 4), np.concatenate([pixels, np.full((5, 7, 1), 255)], axis=-1)),
    ):
        found = shell.outputs(shell.save("net.keras", pass_on(shape)), "p.png")
        np.testing.assert_allclose(found, expected[None], atol=1)
    clear = picture(shell, "c.png", (7, 5), "RGBA")
    network = shell.save("net.keras", pass_on((5, 7, 3)))
    np.testing.assert_array_equal(shell.outputs(network, "c.png"), clear[None, ..., :3])
    _, noted = shell.done("run", network, "--input", shell.path("c.png"))
    assert "turned into RGB, transparency dropped" in noted
    bytes_in = shell.save("net.keras", pass_on((5, 7, 3), "uint8"))
    np.testing.assert_array_equal(shell.outputs(bytes_in, "p.png"), pixels[None])


def test_a_picture_of_another_size_is_resized_where_asked(shell: Shell) -> None:
    Image.new("RGB", (64, 20), (200, 100, 50)).save(shell.path("p.jpg"), quality=100)
    network = shell.save("net.keras", pass_on((8, 8, 3)))
    line = shell.refused("run", network, "--input", shell.path("p.jpg"))
    assert "has 64 x 20 pixels (width x height), and input 'image' takes 8 x 8; --resize resizes it" in line
    found = shell.outputs(network, "p.jpg", "--resize")
    np.testing.assert_allclose(found, np.broadcast_to([200.0, 100.0, 50.0], (1, 8, 8, 3)), atol=3)
    _, noted = shell.done("run", network, "--input", shell.path("p.jpg"), "--resize")
    assert "resized to 8 x 8, its proportions changed" in noted


def test_pictures_that_cannot_be_read(shell: Shell) -> None:
    network = shell.save("net.keras", pass_on((8, 8, 3)))
    whole = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(whole, "PNG")
    (shell.folder / "p.png").write_bytes(whole.getvalue()[:100])
    assert "p.png: this image cannot be read" in shell.refused("run", network, "--input", shell.path("p.png"))
    Image.fromarray(RNG.integers(0, 9999, (8, 8)).astype(np.uint16)).save(shell.path("deep.png"))
    assert "not of 8 bits a channel" in shell.refused("run", network, "--input", shell.path("deep.png"))
    Image.new("1", (20000, 10000)).save(shell.path("large.png"))
    assert "too many pixels" in shell.refused("run", network, "--input", shell.path("large.png"))
    Image.new("RGB", (8, 8)).save(shell.path("p.png"))
    flat = shell.save("flat.keras", pass_on((8,)))
    assert "which is no picture" in shell.refused("run", flat, "--input", shell.path("p.png"))
    both = shell.save("both.keras", two_inputs())
    assert "the network has 2 inputs: left, right" in shell.refused(
        "run", both, "--input", shell.path("p.png")
    )


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM"])
def test_a_damaged_picture_raises_nothing_else(shell: Shell, kind: str) -> None:
    """Pillow raises errors of many kinds; 9 of 600 such TIFF files gave a TypeError."""
    (node,) = pass_on((8, 8, 3)).to_graph().sources(Input)
    rng = np.random.default_rng(1)
    whole = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (9, 10, 3), dtype=np.uint8)).save(whole, kind)
    said = []
    for _ in range(200):
        data = np.frombuffer(whole.getvalue(), np.uint8).copy()
        data[rng.integers(2, min(len(data), 200), 5)] = rng.integers(0, 256, 5)
        (shell.folder / "p").write_bytes(data.tobytes())
        try:
            assert read_picture(shell.path("p"), node, resize=True)[0].shape == (1, 8, 8, 3)
        except cl.ConvLoomError as error:
            said.append(str(error))
    assert said
    assert all("p: this image" in text or "pixels of Pillow's kind" in text for text in said)


def test_without_pillow(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (8, 8)).save(shell.path("p.png"))
    network = shell.save("net.keras", pass_on((8, 8, 3)))
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert "pip install pillow" in shell.refused("run", network, "--input", shell.path("p.png"))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "it is an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is a Git LFS pointer"),
        (b"<!doctype html><html>", "it is a web page"),
        (b"\x93NUMPY\x01\x00", "is no .npy or .npz file of plain arrays"),
        (b"PK\x03\x04 and nothing more", "is no .npy or .npz file of plain arrays"),
    ],
)
def test_other_files_as_input_are_named(shell: Shell, data: bytes, text: str) -> None:
    network = shell.save("net.keras", pass_on((8,)))
    (shell.folder / "x").write_bytes(data)
    assert text in shell.refused("run", network, "--input", shell.path("x"))


def test_arrays_of_bytes_are_scaled_where_asked(shell: Shell) -> None:
    network = shell.save("net.keras", pass_on((3,)))
    x = np.arange(6, dtype=np.uint8).reshape(2, 3)
    np.save(shell.path("x.npy"), x)
    line = shell.refused("run", network, "--input", shell.path("x.npy"))
    assert "--scale 1/255 brings 8-bit images to 0 to 1" in line
    assert "astype" not in line
    np.testing.assert_array_equal(shell.outputs(network, "x.npy", "--scale", "2"), 2 * x)
    line = shell.refused("run", network, "--input", shell.path("x.npy"), "--resize")
    assert "--resize is for images" in line


# -- weights -------------------------------------------------------------------------------------------------
def test_nothing_is_answered_from_random_weights_unasked(shell: Shell) -> None:
    stored = str(LENET5 / "lenet5_io.npz")
    for arguments in (
        ("run", LENET, "--input", stored),
        ("convert", LENET, "--check", stored),
        ("convert", LENET, "-o", shell.path("w.npz")),
        ("convert", LENET, "-o", shell.path("net.keras")),
    ):
        line = shell.refused(*arguments)
        assert "lenet5.json has no weights, and what " in line
        assert "give --weights W, or --random-weights if that is what you want" in line
    shell.done("run", LENET, "--input", stored, "--weights", WEIGHTS)
    text, _ = shell.done("convert", LENET, "-o", shell.path("net.keras"), "--random-weights")
    assert f"wrote {shell.path('net.keras')}: the network with its weights, 61,706 parameters" in text
    shell.done("run", shell.path("net.keras"), "--input", stored)
    shell.done("run", LENET, "--input", stored, "--random-weights")
    line = shell.refused("run", LENET, "--input", stored, "--random-weights", "--weights", WEIGHTS)
    assert "--weights: not allowed with argument --random-weights" in line


def test_a_graph_has_no_weights_either(shell: Shell) -> None:
    shell.done("convert", LENET, "-o", shell.path("graph.json"))
    stored = str(LENET5 / "lenet5_io.npz")
    assert "has no weights" in shell.refused("run", shell.path("graph.json"), "--input", stored)


def test_an_archive_without_weights_serves_where_none_are_needed(shell: Shell) -> None:
    import zipfile

    whole = shell.save("net.keras", two_inputs())
    bare = shell.path("bare.keras")
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(bare, "w") as new:
        for name in old.namelist():
            if not name.endswith(".h5"):
                new.writestr(name, old.read(name))
    shell.done("summary", bare)
    shell.done("explain", bare)
    shell.done("emit", bare, "-o", shell.path("kernels"))
    shell.done("convert", bare, "--text")
    np.savez(shell.path("x.npz"), left=np.zeros((1, 3)), right=np.zeros((1, 3)))
    line = shell.refused("run", bare, "--input", shell.path("x.npz"))
    assert "as --weights, or ask for initial ones: --random-weights" in line
    assert "architecture_only" not in line
    shell.done("run", bare, "--input", shell.path("x.npz"), "--random-weights")
