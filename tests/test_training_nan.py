"""Training stops where it meets NaN, with the last good weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from convloom.graph.errors import ConvLoomError
from convloom.runtime.batch import Batch
from convloom.runtime.guard import Guard
from small_training import CLASSES, ROWS, X, Y, network

import convloom as cl


class Each(cl.Callback):
    """The weights after every epoch; with one batch an epoch, after every step."""

    def __init__(self) -> None:
        self.weights: list[dict[str, torch.Tensor]] = []

    def on_train_begin(self, logs: Any = None) -> None:
        self._keep()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float]) -> None:
        self._keep()

    def _keep(self) -> None:
        self.weights.append({k: v.detach().clone() for k, v in self.model.state_dict().items()})


def batches(bad: Any, at: int = 2) -> list[list[Any]]:
    """Four batches, of which one is `bad`."""
    parts = [(X[i : i + 6], ROWS[i : i + 6]) for i in range(0, 24, 6)]
    parts[at] = bad
    return [list(part) for part in parts]


def spoiled(array: np.ndarray[Any, Any], value: float = math.nan) -> np.ndarray[Any, Any]:
    array = array.copy()
    array.flat[1] = value
    return array


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "rmsprop", torch.optim.Adam])
@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (
            (spoiled(X[:6]), ROWS[:6]),
            "the loss is nan; the batch's x holds NaN or infinite values; clean the",
        ),
        ((X[:6], spoiled(ROWS[:6])), "the loss is nan; the batch's y holds NaN or infinite values"),
        ((spoiled(X[:6], math.inf), ROWS[:6]), "the batch's x holds NaN or infinite values"),
    ],
)
def test_nan_stops_at_once_with_the_last_good_weights(bad: Any, text: str, optimizer: Any) -> None:
    """Moving statistics included, which a forward pass has already changed when its loss is known."""
    net, reference = network(), network()  # of one seed
    cl.fit(reference, batches(bad)[:2], loss="categorical_crossentropy", optimizer=optimizer, verbose=False)
    with pytest.raises(ConvLoomError, match="training stopped at step 3") as raised:
        cl.fit(net, batches(bad), loss="categorical_crossentropy", optimizer=optimizer, verbose=False)
    assert text in str(raised.value)
    assert not net.training
    for found, value in zip(net.state_dict().values(), reference.state_dict().values(), strict=True):
        assert torch.equal(found, value)


def test_a_step_that_ruins_the_weights_is_taken_back() -> None:
    """A finite loss and finite gradients, and a learning rate beyond all measure."""
    net = network(norm=False)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(ConvLoomError, match=r"step 1: the loss is .*, but the step made weights NaN or bey"):
        cl.fit(
            net, (1e4 * X, Y), loss=CLASSES, optimizer="sgd", learning_rate=1e38, batch_size=24, verbose=False
        )
    assert all(torch.equal(net.state_dict()[name], value) for name, value in before.items())


def test_training_may_go_on_through_nan() -> None:
    net = network()
    history = cl.fit(
        net, batches((spoiled(X[:6]), ROWS[:6])), loss="categorical_crossentropy", stop_on_nan=False,
        verbose=False,
    )  # fmt: skip
    assert math.isnan(history.history["loss"][0])


def test_a_validation_loss_of_nan() -> None:
    held_out = (X, spoiled(ROWS))
    with pytest.raises(ConvLoomError, match="val_loss is nan while the training loss is finite"):
        cl.fit(network(), (X, ROWS), loss="categorical_crossentropy", validation_data=held_out, verbose=False)


def test_a_step_may_be_judged_one_step_late() -> None:
    """As on a GPU, which reading a loss at once would keep waiting: two copies, each from before a step."""
    net = torch.nn.Linear(2, 1)
    net.register_buffer("steps", torch.zeros(()))
    guard = Guard(net, torch.device("cpu"), late=True)
    history = []
    for step, loss in enumerate([1.0, math.nan, 1.0]):
        guard.before()
        history.append([p.detach().clone() for p in net.parameters()])
        with torch.no_grad():
            net.steps += 1  # type: ignore[assignment, operator]
            for parameter in net.parameters():
                parameter.add_(1.0)
        if step < 2:
            guard.after(torch.tensor(loss), Batch([torch.ones(1)], [torch.ones(1)]))
            continue
        with pytest.raises(ConvLoomError, match="stopped at step 2: the loss is nan"):
            guard.after(torch.tensor(loss), Batch([torch.ones(1)], [torch.ones(1)]))
    assert all(torch.equal(p, kept) for p, kept in zip(net.parameters(), history[1], strict=True))
    assert float(net.steps) == 1  # type: ignore[arg-type]
