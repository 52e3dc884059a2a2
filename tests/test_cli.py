"""The command line: each command, in this process, and its errors on one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from convloom.graph.serial import from_data
from convloom.graph.settings import settings

from convloom.cli import main, parser

LENET5 = Path(__file__).parents[1] / "examples" / "keras_lenet5"
LENET = str(LENET5 / "lenet5.json")
WEIGHTS = str(LENET5 / "lenet5.weights.h5")
GIVEN = (LENET, "--weights", WEIGHTS)
COMMANDS = ("info", "summary", "run", "train", "emit", "profile", "convert", "explain")


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    status = main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    assert status == 0, printed.err
    return printed.out


def call_json(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    return json.loads(call(capsys, *arguments, "--json"))


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """A few pictures with a bright row, whose number is the class."""
    y = np.arange(20) % 10
    x = np.zeros((20, 28, 28, 1), np.float32)
    x[np.arange(20), 2 * y] = 1.0
    path = tmp_path / "digits.npz"
    np.savez(path, x=x, y=y)
    return path


# -- each command --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("command", COMMANDS)
def test_help(capsys: pytest.CaptureFixture[str], command: str) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"usage: convloom {command}" in capsys.readouterr().out


def test_help_lists_every_command() -> None:
    text = parser().format_help()
    assert all(f"\n    {command} " in text for command in COMMANDS)


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    facts = call_json(capsys, "info")
    assert facts["backends"] == ["triton", "aten"]
    assert "sm_90" in facts["targets"]
    assert facts["torch"] in call(capsys, "info")
    assert facts["keeps memory"].startswith(("yes", "no: "))


def test_summary(capsys: pytest.CaptureFixture[str]) -> None:
    assert "61,706" in call(capsys, "summary", LENET)
    found = call_json(capsys, "summary", LENET)
    assert found["parameters"] == 61706
    assert sum(int(np.prod(weight["shape"])) for weight in found["weights"]) == 61706


def test_run_gives_what_keras_gave(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    stored = np.load(LENET5 / "lenet5_io.npz")
    x, expected = (stored[name] for name in stored.files[:2])
    np.save(tmp_path / "x.npy", x)
    options = ("--weights", WEIGHTS, "--input", tmp_path / "x.npy", "--output", tmp_path / "y.npy")
    found = call_json(capsys, "run", LENET, *options, "--device", "cpu")
    assert list(found["outputs"].values()) == [list(expected.shape)]
    # float32 throughout; the longest sum has 400 terms of order 1
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, atol=400 * 2.0**-24)


def test_train_saves_weights_that_load_again(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, digits: Path
) -> None:
    saved = tmp_path / "w.npz"
    options = ("--data", digits, "--loss", "sparse_categorical_crossentropy", "--device", "cpu", "--seed", 1)
    found = call_json(capsys, "train", LENET, *options, "--epochs", 3, "--batch-size", 7, "--save", saved)
    losses = found["history"]["loss"]
    assert len(losses) == 3
    assert losses[2] < losses[0]
    assert {name.split("/")[1] for name in np.load(saved).files} == {"kernel", "bias"}
    again = call_json(capsys, "train", LENET, "--weights", saved, *options, "--optimizer", "sgd")
    assert again["history"]["loss"][0] < losses[0]


def test_train_prints_one_line_an_epoch(capsys: pytest.CaptureFixture[str], digits: Path) -> None:
    options = ("--loss", "sparse_categorical_crossentropy", "--epochs", 2, "--device", "cpu")
    lines = call(capsys, "train", LENET, "--data", digits, *options).splitlines()
    assert [line.split()[1] for line in lines] == ["1/2", "2/2"]


def test_emit(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    found = call_json(capsys, "emit", LENET, "-o", tmp_path / "kernels", "--target", "h100")
    assert len([name for name in found["files"] if name.endswith(".py")]) == 5
    assert all(Path(name).exists() for name in found["files"])
    assert found["removed"] == []
    lines = call(capsys, "emit", LENET, "-o", tmp_path / "kernels", "--no-fuse").splitlines()
    removed = next(line for line in lines if line.startswith("removed, of an earlier emit: "))
    assert "conv2d_tanh_average_pool2d.py" in removed
    assert not (tmp_path / "kernels" / "conv2d_tanh_average_pool2d.py").exists()
    assert f"wrote {tmp_path / 'kernels'}: " in "\n".join(lines)


def test_profile(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    options = ("--batch-size", 2, "--repeats", 1, "--device", "cpu", "--target", "A100")
    found = call_json(capsys, "profile", LENET, *options, "--html", tmp_path / "page.html")
    assert found["fused"]["totals"]["launches"] == 6  # one of five adds up parts
    assert found["setup"]["gpu"] == "A100"
    assert (tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert "A100" in call(capsys, "profile", LENET, *options)


def test_a_warning_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """And names no line of source: here of a softmax that is trained with a loss of numbers."""
    x, y = np.zeros((4, 28, 28, 1), np.float32), np.eye(10, dtype=np.float32)[:4]
    np.savez(tmp_path / "d.npz", x=x, y=y)
    status = main(["train", *GIVEN, "--data", str(tmp_path / "d.npz"), "--loss", "mse", "--json"])
    said = capsys.readouterr().err.splitlines()
    assert status == 0
    assert said[0].startswith("convloom: warning: lenet5: output ")
    assert all(line.startswith("convloom: ") for line in said)


def test_convert(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    graph = from_data(json.loads(call(capsys, "convert", LENET)))
    assert list(graph.outputs) == ["output"]
    call(capsys, "convert", LENET, "-o", tmp_path / "graph.txt", "--training")
    assert "weight_grad" in (tmp_path / "graph.txt").read_text()
    assert call(capsys, "convert", LENET, "--text").startswith("graph lenet5 {")


def test_explain(capsys: pytest.CaptureFixture[str]) -> None:
    text = call(capsys, "explain", LENET)
    assert "fusion: 5 kernels" in text
    assert "pool(contraction(x)" in text


# -- errors --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("summary", "missing.json"), "missing.json: cannot be read"),
        (("run", *GIVEN, "--input", "missing.npy"), "cannot read missing.npy: No such file or directory"),
        (("run", *GIVEN, "--input", LENET), "is no .npy or .npz file of plain arrays"),
        (("emit", LENET, "-o", "k", "--target", "sm_1"), "unknown target 'sm_1'"),
        (("profile", LENET, "--batch-size", "0"), "--batch-size is 0; it must be at least 1"),
        (
            ("run", LENET, "--weights", str(LENET5 / "lenet5_io.npz"), "--input", "x"),
            "lacks the weights c1/kernel",
        ),
    ],
)
def test_errors_are_one_line(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], text: str
) -> None:
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert text in printed.err
    assert printed.err.startswith("convloom: error: ")
    assert len(printed.err.splitlines()) == 1
    assert printed.out == ""


def test_weights_are_refused_before_the_training(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, digits: Path
) -> None:
    options = ("train", LENET, "--data", str(digits), "--loss", "mse", "--save")
    assert main([*options, "w.pkl"]) == 2
    assert "--save: weights are saved as .keras, .weights.h5 or .npz, not as" in capsys.readouterr().err
    assert main([*options, str(tmp_path / "nowhere" / "w.npz")]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_data_must_hold_x_and_y(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((2, 28, 28, 1)), labels=np.zeros(2))
    assert main(["train", LENET, "--data", str(tmp_path / "d.npz"), "--loss", "mse"]) == 2
    assert "holds x, labels; training needs arrays named x and y" in capsys.readouterr().err


def test_a_pickle_is_never_loaded(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert main(["run", *GIVEN, "--input", str(tmp_path / "x.npy")]) == 2
    assert "is no .npy or .npz file of plain arrays" in capsys.readouterr().err


def test_debug_shows_the_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(settings.__dict__, "debug", 1)
    assert main(["summary", "missing.json"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_as_a_module() -> None:
    """The exit status and the two streams of a real process, with a wrong CONVLOOM_DEBUG."""
    command = [sys.executable, "-m", "convloom", "explain", LENET]
    environment = {**os.environ, "CONVLOOM_DEBUG": "7"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "CONVLOOM_DEBUG is '7'; it takes 0 (quiet), 1 (passes)" in done.stderr
    assert len(done.stderr.splitlines()) == 1
