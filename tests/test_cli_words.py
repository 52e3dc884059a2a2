"""Wrong words on the command line: numbers, names, options; and errors that speak its language."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convloom as cl
from convloom import layers as L
from convloom.cli import main

LENET5 = Path(__file__).parents[1] / "examples" / "keras_lenet5"
LENET = str(LENET5 / "lenet5.json")
GIVEN = (LENET, "--weights", str(LENET5 / "lenet5.weights.h5"))


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 2
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert printed.out == ""
    assert line.startswith("convloom: error: ")
    return line


TRAIN = ("train", LENET, "--data", "d.npz", "--loss", "mse")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((*TRAIN, "--epochs", "-1"), "--epochs is -1; it must be at least 0"),
        ((*TRAIN, "--batch-size", "x"), "--batch-size is 'x'; it must be a whole number, at least 1"),
        ((*TRAIN, "--batch-size", "2.5"), "--batch-size is '2.5'; it must be a whole number"),
        ((*TRAIN, "--seed", str(2**64)), "--seed is 18446744073709551616; it must be at most"),
        ((*TRAIN, "--seed", "9" * 400), "--seed is '9999"),
        ((*TRAIN, "--seed", "none"), "--seed is 'none'; it must be a whole number"),
        ((*TRAIN, "--learning-rate", "fast"), "--learning-rate is 'fast'; it must be a number"),
        ((*TRAIN, "--learning-rate", "0"), "--learning-rate is 0.0; it must be above 0"),
        ((*TRAIN, "--learning-rate", "nan"), "--learning-rate is nan; it must be above 0"),
        ((*TRAIN, "--validation-split", "1"), "--validation-split is 1.0; it must be below 1"),
        ((*TRAIN, "--patience", "-2"), "--patience is -2; it must be at least 0"),
        ((*TRAIN, "--optimiser", "sgd"), "train takes no '--optimiser'; did you mean '--optimizer'?"),
        ((*TRAIN, "--backend", "atem"), "unknown --backend 'atem'; did you mean 'aten'?"),
        ((*TRAIN, "--dtype", "float"), "unknown --dtype 'float'"),
        (("profile", LENET, "--repeats", "0"), "--repeats is 0; it must be at least 1"),
        (("profile", LENET, "--target", "h20"), "unknown target 'h20'; did you mean 'H200'?"),
        (("profile", LENET, "--html", "r.pdf"), "--html: a report is saved as .html, .json or .txt, not as"),
        (("profile", LENET, "--html", "nowhere/r"), "cannot write nowhere/r.html: there is no folder"),
        (("emit", LENET, "-o", "k", "--target", "sm90"), "unknown target 'sm90'; did you mean 'sm_90'?"),
        (("emit", LENET, "-o", "k", "--dtype", "float64"), "unknown --dtype 'float64'"),
        (("convert", *GIVEN, "--check", "x", "--tolerance", "-1"), "--tolerance is -1.0"),
        (("run", *GIVEN, "--input", "x", "--scale", "1/0"), "--scale is '1/0'; it must be a number"),
        (("run", *GIVEN, "--input", "x", "--output", "y.csv"), "results are saved as .npy or .npz"),
        (("run", LENET), "convloom run also needs --input; see convloom run --help"),
        (("rnu", LENET), "unknown command 'rnu'; did you mean 'run'?"),
        ((), "no command is given; there are info, summary, run"),
        (("summary", LENET, "extra"), "takes no 'extra'"),
        (("convert", LENET, "--text", "-o", "g.json"), "--text writes .txt, not 'g.json'"),
        (("convert", *GIVEN, "--passes", "-o", "w.npz"), "--text, --passes and --training are about a graph"),
    ],
)
def test_wrong_words(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], text: str) -> None:
    assert text in refused(capsys, *arguments)


@pytest.mark.parametrize("seed", [-(2**63), 2**64 - 1])
def test_every_seed_of_64_bits_is_taken(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, seed: int
) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((2, 28, 28, 1), np.float32), y=np.zeros((2, 10), np.float32))
    options = ("--loss", "mse", "--seed", str(seed), "--device", "cpu")
    assert main(["train", LENET, "--data", str(tmp_path / "d.npz"), *options]) == 0
    assert "the new weights were not kept; --save W does that" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["H100", "h100", "sm_90", "SM_90", "mi300x", "GFX942"])
def test_every_command_takes_every_target(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str
) -> None:
    network = str(tmp_path / "net.keras")
    image = cl.Input((3,))
    cl.Model(image, L.Activation("relu")(image)).save(network)
    assert main(["emit", network, "-o", str(tmp_path / "k"), "--target", name]) == 0
    options = ("--repeats", "1", "--batch-size", "1", "--device", "cpu")
    assert main(["profile", network, "--target", name, *options]) == 0
    capsys.readouterr()


PYTHON = (
    *("cl.", "np.", "torch.", "astype", "movedim", "x[", "input_shape", "stop_on_nan", "Input("),
    *(
        "validation_data",
        "learning_rate",
        "function (",
        "architecture_only",
        "batch_size",
        "load(",
        "fit(",
        "=(",
    ),
)


X, Y = np.zeros((4, 28, 28, 1), np.float32), np.zeros((4, 10), np.float32)
BROKEN = np.where(np.arange(28)[:, None] == 3, np.float32("nan"), X)


@pytest.mark.parametrize(
    ("x", "y", "options", "text"),
    [
        (X, Y, ("--loss", "crossentropy"), "unknown loss 'crossentropy'"),
        (X, Y, ("--optimizer", "adm"), "unknown optimizer 'adm'; did you mean 'adam'?"),
        (X[..., 0], Y, (), "add the channel axis"),
        (np.moveaxis(X, -1, 1), Y, (), "its channels seem to come first; put them last"),
        (X.astype(np.uint8), Y, (), "--scale 1/255 brings 8-bit images to 0 to 1"),
        (X.astype(str), Y, (), "give numbers"),
        (X[:3], Y, (), "x has 3 examples but y has 4"),
        (X, Y[:, :3], (), "targets have shape"),
        (X, Y, ("--patience", "1"), "give --validation-split, or x_val and y_val in the data"),
        (X, Y, ("--validation-split", "0.9"), "--validation-split 0.9 of 4 examples"),
        (BROKEN, Y, (), "training stopped at step 1"),
        (X, Y, ("--device", "tpu"), "unknown device 'tpu'"),
        (X, Y, ("--input-shape", "28,28,3"), "--input-shape"),
        (X, Y, ("--input-shape", "28,28"), "--input-shape"),
        (X, Y, ("--input-shape", "img=28,28,1"), "--input-shape: no input is named 'img'"),
    ],
)
def test_errors_use_no_words_of_the_python_interface(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    x: np.ndarray[Any, Any],
    y: np.ndarray[Any, Any],
    options: tuple[str, ...],
    text: str,
) -> None:
    np.savez(tmp_path / "d.npz", x=x, y=y)
    loss = () if "--loss" in options else ("--loss", "mse")
    assert main(["train", LENET, "--data", str(tmp_path / "d.npz"), "--device", "cpu", *loss, *options]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert text in line
    assert not [word for word in PYTHON if word in line], line


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("run", str(LENET5 / "lenet5.weights.h5"), "--input", "x"), "this file as --weights"),
        (("run", str(LENET5 / "lenet5_io.npz"), "--input", "x"), "a model's weights as --weights"),
        (("summary", "chain.json"), "has no input shape yet; give --input-shape H,W,C"),
        (("summary", "chain.json", "--input-shape", "a=4"), "--input-shape: no input is named 'a'"),
        (("emit", "open.keras", "-o", "k"), "axes left open; say their sizes: --input-shape 224,224,3"),
        (("explain", "open.keras"), "say one: --input-shape H,W,C"),
        (
            ("train", "two.keras", "--data", "t.npz", "--loss", "mse"),
            "training needs arrays named x and dense, dense_1",
        ),
        (
            ("run", "two.keras", "--random-weights", "--input", "t.npz", "--output", "y.npy"),
            "save them as .npz",
        ),
    ],
)
def test_errors_about_files_use_none_either(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    text: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    chain = json.loads(cl.Sequential([cl.Input((4,)), L.Dense(2)]).to_json())
    chain["config"]["layers"] = [{**layer, "build_config": None} for layer in chain["config"]["layers"][1:]]
    chain["config"].pop("build_input_shape", None)
    Path("chain.json").write_text(json.dumps(chain))
    image = cl.Input((None, None, 3))
    cl.Model(image, L.GlobalAveragePooling2D()(image), name="open").save("open.keras")
    x = cl.Input((4,))
    cl.Model(x, [L.Dense(2)(x), L.Dense(3)(x)], name="two").save("two.keras")
    np.savez("t.npz", x=np.zeros((3, 4)), y=np.zeros((3, 2)))
    line = refused(capsys, *arguments)
    assert text in line
    assert not [word for word in PYTHON if word in line], line


def test_a_chain_without_a_shape_takes_one(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "chain.json"
    layer = {"class_name": "Dense", "config": {"name": "d", "units": 2}}
    file.write_text(json.dumps({"class_name": "Sequential", "config": {"name": "s", "layers": [layer]}}))
    assert main(["summary", str(file), "--input-shape", "4"]) == 0
    assert "Total parameters: 10" in capsys.readouterr().out
    assert cl.load(file, input_shape=(4,)).outputs[0].shape == (None, 2)


def test_python_keeps_its_own_words() -> None:
    main(["rnu"])  # the words of the command line end with it
    net = cl.compile(cl.load(LENET), device="cpu")
    with pytest.raises(cl.ShapeError, match=r"add the channel axis with x\[\.\.\., None\]"):
        net(np.zeros((2, 28, 28), np.float32))
    with pytest.raises(cl.ConvLoomError, match=r"or a function \(prediction, target\)"):
        cl.fit(net, (np.zeros((2, 28, 28, 1), np.float32), np.zeros((2, 10))), "crossentropy")


@pytest.mark.parametrize(
    ("units", "text"), [(1, "Total parameters: 2 (8 bytes in float32)"), (300, "(2.34 KiB in float32)")]
)
def test_parameters_in_the_unit_that_suits_them(
    capsys: pytest.CaptureFixture[str], units: int, text: str
) -> None:
    image = cl.Input((1,))
    cl.Model(image, L.Dense(units)(image)).summary()
    assert text in capsys.readouterr().out


def test_a_warning_is_one_line_without_the_place_in_our_source(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    x = cl.Input((4,), name="x")
    cl.Model(x, L.Dense(3, activation="softmax")(x), name="net").save(tmp_path / "net.keras")
    np.savez(tmp_path / "d.npz", x=np.zeros((3, 4)), y=np.zeros((3, 3)))
    words = ["train", str(tmp_path / "net.keras"), "--data", str(tmp_path / "d.npz"), "--loss", "mse"]
    assert main([*words, "--epochs", "1", "--save", str(tmp_path / "w.npz")]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "warning" in line.lower()]
    assert len(lines) == 1
    assert lines[0].startswith("convloom: warning: net: output 'dense' with the loss mean_squared_error")
