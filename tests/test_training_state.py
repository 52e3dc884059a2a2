"""A run that is taken up again where it stood gives the same bits as one that was never stopped."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from convloom.runtime.batch import Form
from convloom.runtime.batch_step import make_step
from convloom.runtime.callback_list import CallbackList
from convloom.runtime.losses import find_loss
from convloom.runtime.metrics import find_metrics
from convloom.runtime.open_data import Opening
from convloom.runtime.optimizers import make_optimizer
from convloom.runtime.stepping import Stepper
from convloom.runtime.training import Hooks, Training

import convloom as cl
from convloom import layers as L

DATA = np.random.default_rng(0)
X = DATA.normal(size=(23, 6, 5, 1)).astype(np.float32)
Y = DATA.integers(0, 3, 23)


def network(seed: int | None) -> cl.CompiledNetwork:
    image = cl.Input((6, 5, 1))
    h = L.Conv2D(3, 3, name="conv")(image)
    h = L.BatchNormalization(name="norm")(h)
    h = L.Dropout(0.5, seed=seed)(L.Flatten()(h))
    return cl.compile(cl.Model(image, L.Dense(3, activation="softmax", name="head")(h), seed=1), device="cpu")


def loader(generator: bool) -> Any:
    data = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    own = torch.Generator().manual_seed(5) if generator else None
    return torch.utils.data.DataLoader(data, batch_size=5, shuffle=True, generator=own)


class Noisy(torch.utils.data.Dataset[Any]):
    """Examples that draw from NumPy's and Python's generators when they are read."""

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, place: int) -> Any:
        return X[place] + np.float32(np.random.normal()), Y[place]


class Numbered:
    """As Keras's PyDataset."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, number: int) -> Any:
        part = slice(5 * number, 5 * number + 5)
        return X[part] + np.float32(np.random.normal()), Y[part]


def stream() -> Any:
    while True:
        chosen = np.random.randint(0, len(X), 5)
        yield X[chosen], Y[chosen]


def source(kind: str) -> Any:
    if kind in ("dataset", "numbered", "stream"):
        return {"dataset": Noisy, "numbered": Numbered, "stream": stream}[kind]()
    if kind == "arrays":
        return (X, Y)
    if kind == "noisy":
        return torch.utils.data.DataLoader(Noisy(), batch_size=5, shuffle=True)
    return loader(kind == "own generator")


def training(kind: str, seed: int | None, hooks: Hooks, steps: int | None = None) -> Training:
    net = network(seed)
    loss = find_loss("sparse_categorical_crossentropy")
    device = torch.device("cpu")
    stepper = Stepper(net, make_optimizer("adam", net.parameters()))
    order = torch.Generator().manual_seed(3)
    return Training(
        net=net,
        step=make_step(net, {"head": loss}),
        stepper=stepper,
        losses=["head"],
        metrics=find_metrics("accuracy"),
        callbacks=CallbackList(model=net, net=net, params={}, stepper=stepper),
        data=Opening(Form(), device, 5, steps, True, order).open(source(kind)),
        validation=Opening(Form(), device, 5).open((X, Y)),
        epochs=3,
        hooks=hooks,
    )


class Keeps(Hooks):
    def __init__(self, at: int) -> None:
        self.at = at

    def after_step(self, training: Training) -> None:
        if training.steps == self.at:
            self.state = copy.deepcopy(training.state_dict()), copy.deepcopy(training.net.state_dict())
            training.end()

    def after_epoch(self, training: Training) -> None:
        self.after_step(training)


class Loads(Hooks):
    def __init__(self, state: Any) -> None:
        self.state, self.weights = state

    def start(self, training: Training) -> None:
        training.net.load_state_dict(self.weights)
        training.load_state_dict(self.state)


def result(run: Training) -> Any:
    history = run.run()
    return history.epoch, history.history, [v.tolist() for v in run.net.state_dict().values()]


def check(kind: str, at: int, seed: int | None, steps: int | None) -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    expected = result(training(kind, seed, Hooks(), steps))
    torch.manual_seed(0)
    np.random.seed(0)
    keeps = Keeps(at)
    result(training(kind, seed, keeps, steps))
    torch.manual_seed(99)
    np.random.seed(99)
    assert result(training(kind, seed, Loads(keeps.state), steps)) == expected


@pytest.mark.parametrize("kind", ["arrays", "loader", "own generator", "noisy", "dataset", "numbered"])
@pytest.mark.parametrize(("at", "seed"), [(2, None), (5, 7), (8, None), (13, 7)])
def test_the_bits_are_the_same(kind: str, at: int, seed: int | None) -> None:
    check(kind, at, seed, None)


@pytest.mark.parametrize("kind", ["arrays", "noisy", "stream"])
@pytest.mark.parametrize("at", [3, 4, 5, 8])
@pytest.mark.filterwarnings("ignore:the data ran out")
def test_so_they_are_where_epochs_are_so_many_steps(kind: str, at: int) -> None:
    """Four of the five batches of a pass: the second epoch begins inside the first pass, and ends with it."""
    check(kind, at, None, 4)


def test_the_rest_of_an_epoch_is_not_run_where_the_run_is_ended() -> None:
    keeps = Keeps(7)
    run = training("arrays", None, keeps)
    assert run.run().epoch == [0]
    assert (run.epoch, run.batch, run.steps) == (1, 2, 7)
