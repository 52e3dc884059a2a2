"""`convloom train --checkpoint`: interrupted, taken up again, and in several processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from test_distributed import free_port

import convloom as cl
from convloom import layers as L
from convloom.cli import main


@pytest.fixture
def files(tmp_path: Path) -> Path:
    image = cl.Input((6, 5, 1))
    h = L.BatchNormalization()(L.Conv2D(3, 3, activation="relu")(image))
    h = L.Dropout(0.4)(L.Flatten()(h))
    cl.Model(image, L.Dense(3, activation="softmax")(h), seed=1).save(tmp_path / "net.keras")
    random = np.random.default_rng(0)
    x, y = random.normal(size=(40, 6, 5, 1)).astype(np.float32), random.integers(0, 3, 40)
    np.savez(tmp_path / "data.npz", x=x, y=y)
    return tmp_path


def command(files: Path, *more: str, epochs: int = 40) -> list[str]:
    return [
        *("train", str(files / "net.keras"), "--data", str(files / "data.npz")),
        *("--loss", "sparse_categorical_crossentropy", "--epochs", str(epochs), "--batch-size", "4"),
        *("--seed", "3", "--device", "cpu", *more),
    ]


def test_a_command_that_was_interrupted_goes_on(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = ["--checkpoint", str(files / "run"), "--checkpoint-steps", "1"]
    arguments = command(files, "--save", str(files / "first.npz"), *kept)
    program = [sys.executable, "-m", "convloom", *arguments]
    with subprocess.Popen(program, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        while first.poll() is None and not list(files.glob("run/checkpoint-*")):
            time.sleep(0.01)
        first.send_signal(signal.SIGTERM)
        _, errors = first.communicate(timeout=120)
    assert first.returncode == 130, errors
    assert "SIGTERM: training ends after this step" in errors
    assert f"the same command goes on from {files / 'run'}" in errors
    assert (files / "first.npz").exists()
    assert main(command(files, "--save", str(files / "second.npz"), *kept)) == 0
    assert "goes on with epoch " in capsys.readouterr().out
    assert main(command(files, *kept)) == 0
    assert "the run is done, all 40 epochs of it; nothing is left to train" in capsys.readouterr().out
    assert main(command(files, "--save", str(files / "whole.npz"))) == 0
    with np.load(files / "second.npz") as found, np.load(files / "whole.npz") as whole:
        assert all(np.array_equal(found[name], whole[name]) for name in whole.files)
    capsys.readouterr()
    assert main([*command(files, "--checkpoint", str(files / "run")), "--optimizer", "sgd"]) == 2
    told = capsys.readouterr().err
    assert "is of another run: optimizer" in told
    assert "or give another folder to --checkpoint to begin anew" in told
    assert main(command(files, "--checkpoint-steps", "3")) == 2
    assert "--checkpoint-steps goes with --checkpoint DIR" in capsys.readouterr().err


def test_a_command_in_two_processes(files: Path) -> None:
    saved = files / "saved.npz"
    program = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    program += [f"--master-port={free_port()}", "-m", "convloom"]
    program += command(files, "--sync-batch-norm", "--save", str(saved), epochs=2)
    done = subprocess.run(
        program, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 2/2") == 1
    assert done.stdout.count("wrote ") == 1
    with np.load(saved) as found:
        assert len(found.files) == 8
