"""A run in several processes, for tests/test_distributed.py: spread_runs.py FOLDER CASE, under torchrun.

The first process writes weights and History to FOLDER/CASE.pt, and each one what it had to say of the batch.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

import convloom as cl
from convloom import layers as L

DATA = np.random.default_rng(0)
X = DATA.normal(size=(37, 6, 5, 2)).astype(np.float32)
Y = DATA.integers(0, 3, 37)


def network(norm: bool = False, backend: str = "aten", dropout: float = 0.0) -> cl.CompiledNetwork:
    image = cl.Input((6, 5, 2))
    h = L.Conv2D(4, 3, name="conv", kernel_regularizer="l2")(image)
    h = L.BatchNormalization(name="norm")(h) if norm else h
    h = L.Flatten()(L.ReLU()(h))
    h = L.Dropout(dropout)(h) if dropout else h
    model = cl.Model(image, L.Dense(3, activation="softmax", name="head")(h), seed=1)
    return cl.compile(model, device="cpu", backend=backend)


def loader(**options: Any) -> Any:
    data = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    return torch.utils.data.DataLoader(data, batch_size=9, **options)


class Stops(cl.Callback):
    """In one process alone."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if os.environ.get("RANK", "0") == "1" and batch == 2:
            self.stop = True


class Signals(cl.Callback):
    """To one process alone, at a step of the second epoch."""

    def __init__(self, at: int = 6) -> None:
        self.seen, self.at = 0, at

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.seen += 1
        if os.environ.get("RANK", "0") == "1" and self.seen == self.at:
            os.kill(os.getpid(), signal.SIGTERM)


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "norm": {"norm": True, "sync_batch_norm": True},
    "kernels": {"norm": True, "sync_batch_norm": True, "backend": "triton", "epochs": 1},
    "loader": {"data": lambda: loader(shuffle=True)},
    "few": {"batch_size": 18},  # the last batch has one example: for one process there is none
    "few norm": {"batch_size": 18, "norm": True, "sync_batch_norm": True},
    "weights": {"sample_weight": np.linspace(0.5, 2.0, 37).astype(np.float32)},
    "stops": {"callbacks": [Stops()], "epochs": 3},
    "dropout": {"dropout": 0.5},
}


def run(name: str, folder: Path, **changes: Any) -> cl.History:
    options = {**CASES.get(name, {}), **changes}
    net = network(*(options.pop(key, default) for key, default in DEFAULTS.items()))
    data = options.pop("data", lambda: (X, Y))()
    arguments = {
        "loss": "sparse_categorical_crossentropy",
        "optimizer": cl.optimizers.SGD(0.05, momentum=0.9),
        "epochs": 2,
        "batch_size": 9,
        "metrics": ["accuracy"],
        "validation_data": (X[:11], Y[:11]),
        "seed": 3,
        "verbose": 1,
        **options,
    }
    if not isinstance(data, tuple):
        arguments.pop("batch_size")
    return cl.fit(net, data, **arguments)


DEFAULTS = {"norm": False, "backend": "aten", "dropout": 0.0}


def result(history: cl.History) -> dict[str, Any]:
    assert history.net is not None
    weights = {name: value.clone() for name, value in history.net.state_dict().items()}
    return {"weights": weights, "history": history.history, "interrupted": history.interrupted}


def main(folder: Path, names: list[str]) -> None:
    rank = int(os.environ.get("RANK", "0"))
    for name in names:
        if name == "interrupted":
            kept: dict[str, Any] = {"checkpoint": folder / "run", "dropout": 0.5, "norm": True}
            first = run(name, folder, callbacks=[Signals()], **kept)
            found = {"first": result(first), **result(run(name, folder, callbacks=[Signals()], **kept))}
            whole = run(name, folder, callbacks=[Signals(0)], **{**kept, "checkpoint": None})
            found["whole"] = result(whole)
        else:
            found = result(run(name, folder))
        torch.save(found, folder / f"{name}.{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
