"""Runs that are killed, for tests/test_kept_runs.py: python kept_runs.py FOLDER KILLS SEED.

Prints the digest of an undisturbed run's weights and History, and that of one that was killed at random
moments until so many kills had come, each time taken up again from its checkpoint.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import convloom as cl
from convloom import layers as L

DATA = np.random.default_rng(0)
X = DATA.normal(size=(50, 6, 5, 2)).astype(np.float32)
Y = DATA.integers(0, 3, 50)


def network() -> cl.CompiledNetwork:
    image = cl.Input((6, 5, 2))
    h = L.Conv2D(4, 3, name="conv")(image)
    h = L.ReLU()(L.BatchNormalization(name="norm")(h))
    h = L.Dropout(0.2)(L.Dropout(0.3, seed=5)(L.Flatten()(h)))
    return cl.compile(cl.Model(image, L.Dense(3, activation="softmax", name="head")(h), seed=1), device="cpu")


class Decay(cl.Callback):
    """A schedule."""

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        assert self.stepper is not None
        self.stepper.learning_rate *= 0.8


def run(folder: Path | None, **changes: Any) -> cl.History:
    arguments: dict[str, Any] = {
        "loss": "sparse_categorical_crossentropy",
        "optimizer": "adam",
        "learning_rate": 0.02,
        "epochs": 6,
        "batch_size": 7,
        "metrics": ["accuracy"],
        "validation_split": 0.2,
        "seed": 3,
        "callbacks": [cl.EarlyStopping(patience=4, restore_best_weights=True), Decay()],
        "checkpoint": None if folder is None else cl.Checkpoints(folder, steps=1),
        "verbose": False,
    }
    arguments.update(changes)
    net = arguments.pop("net", None) or network()
    return cl.fit(net, (X, Y), **arguments)


def digest(history: cl.History) -> str:
    """Of every bit that a run comes to."""
    found = hashlib.sha256()
    assert history.net is not None
    for name, value in sorted(history.net.state_dict().items()):
        found.update(name.encode() + value.contiguous().numpy().tobytes())
    for name, values in sorted(history.history.items()):
        found.update(name.encode() + np.array(values).tobytes())
    found.update(str(history.epoch).encode())
    return found.hexdigest()


def in_a_child(folder: Path, seconds: float | None) -> bool:
    """Whether the run came to its end in a process of its own, which is killed after so many seconds."""
    child = os.fork()
    if child == 0:
        torch.manual_seed(time.time_ns() % 2**32)  # what a new process would draw is no help
        (folder / "digest").write_text(digest(run(folder / "run")))
        os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1] == 0


def main(folder: Path, kills: int, seed: int) -> None:
    drawn = random.Random(seed)
    print(digest(run(None)), flush=True)
    start = time.perf_counter()
    run(folder / "trial")
    longest = 0.5 * (time.perf_counter() - start)
    killed = 0
    while killed < kills:
        if in_a_child(folder, drawn.uniform(0.02, longest)):
            print((folder / "digest").read_text(), flush=True)
            for path in sorted((folder / "run").rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
        else:
            killed += 1
    if not in_a_child(folder, None):
        sys.exit("the run failed")
    print((folder / "digest").read_text(), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
