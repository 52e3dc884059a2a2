"""What the training loop does with an optimizer: schedules, schedulers, averages, closures, loss scales."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from convloom.graph.errors import ConvLoomError
from convloom.runtime.step_result import StepResult
from convloom.runtime.stepping import Stepper, make_stepper
from helpers import told

import convloom as cl
from convloom import layers as L

X = np.random.default_rng(0).normal(size=(40, 5, 4, 2)).astype(np.float32)
Y = np.eye(3, dtype=np.float32)[np.random.default_rng(1).integers(0, 3, 40)]


def small(dtype: str = "float32", **options: Any) -> tuple[cl.Model, cl.CompiledNetwork]:
    image = cl.Input((5, 4, 2))
    h = L.Conv2D(4, 3, activation="tanh", **options)(image)
    model = cl.Model(image, L.Dense(3, activation="softmax")(L.Flatten()(h)), seed=2)
    return model, cl.compile(model, device="cpu", dtype=dtype)


def fit(net: Any, optimizer: Any, epochs: int = 2, **options: Any) -> cl.History:
    given: dict[str, Any] = {"batch_size": 8, "shuffle": False, "metrics": (), "verbose": False, **options}
    return cl.fit(net, (X, Y), "categorical_crossentropy", optimizer, epochs=epochs, **given)


@pytest.mark.parametrize(
    "options",
    [
        {"learning_rate": keras.optimizers.schedules.CosineDecay(0.1, 8)},
        {"learning_rate": 0.1, "use_ema": True, "ema_momentum": 0.8},
        {"learning_rate": 0.1, "use_ema": True, "ema_overwrite_frequency": 3},
        {"learning_rate": 0.1, "gradient_accumulation_steps": 3, "clipnorm": 0.1},
        {"learning_rate": 0.1, "loss_scale_factor": 16.0, "weight_decay": 0.01},
    ],
    ids=told,
)
def test_fit_follows_keras_fit(options: dict[str, Any]) -> None:
    """Two epochs, and then one more: the second fit goes on with the optimizer's state."""
    model, net = small(kernel_constraint=cl.constraints.MaxNorm(1.0))
    twin = keras.models.model_from_json(model.to_json())
    twin.set_weights(model.get_weights())
    twin.compile(keras.optimizers.Adam(**options), "categorical_crossentropy", run_eagerly=True)
    made = cl.optimizers.Adam(**options)(net.named_parameters())
    for epochs in (2, 1):
        theirs = twin.fit(X, Y, batch_size=8, epochs=epochs, shuffle=False, verbose=0)
        ours = fit(net, made, epochs)
        np.testing.assert_allclose(ours.history["loss"], theirs.history["loss"], rtol=1e-5)
        for mine, wanted in zip(model.get_weights(), twin.get_weights(), strict=True):
            np.testing.assert_allclose(mine, wanted, atol=1e-5, rtol=0)


def test_two_fits_are_one() -> None:
    results = []
    for parts in ((3,), (1, 2)):
        model, net = small()
        made = cl.optimizers.Nadam(0.01)(net.named_parameters())
        for epochs in parts:
            fit(net, made, epochs)
        results.append(model.get_weights())
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


class Interrupts(cl.Callback):
    """Ends the run after so many batches, as Ctrl-C does."""

    def __init__(self, after: int) -> None:
        self.left = after

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", ["SGD", "Adam", "Nadam", "Muon", "Adafactor"])
def test_a_run_taken_up_again_has_the_same_bits(name: str, dtype: str, tmp_path: Path) -> None:
    """Between two accumulated moves, with averages, a schedule, and a loss scale on its way down."""
    results = []
    for after in (0, 3, 8):
        model, net = small(dtype)
        inner = getattr(cl.optimizers, name)(
            cl.schedules.CosineDecay(0.05, 20), use_ema=True, gradient_accumulation_steps=2, clipnorm=1.0
        )
        optimizer = cl.optimizers.LossScaleOptimizer(inner, 2.0**24) if dtype == "float16" else inner
        folder = tmp_path / str(after) if after else None
        if after:
            history = fit(net, optimizer, 3, checkpoint=folder, callbacks=[Interrupts(after)])
            assert history.interrupted == "SIGINT"
            model, net = small(dtype)
        fit(net, optimizer, 3, checkpoint=folder, callbacks=[Interrupts(-1)])
        results.append(model.get_weights())
    for taken_up in results[1:]:
        for a, b in zip(results[0], taken_up, strict=True):
            np.testing.assert_array_equal(a, b)


# -- torch's schedulers --------------------------------------------------------------------------------------
def rates(scheduler: Any, optimizer: Any = None, **options: Any) -> list[float]:
    """The learning rate of each step of two epochs of 5."""
    _, net = small()
    if optimizer is None:
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
    seen = []

    class Watch(cl.Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            assert self.stepper is not None
            seen.append(self.stepper.learning_rate)

    fit(net, optimizer, callbacks=[Watch()], scheduler=scheduler, **options)
    return seen


def test_schedulers_step_after_epochs_or_batches() -> None:
    schedulers = torch.optim.lr_scheduler
    by_epoch = rates(lambda optimizer: schedulers.StepLR(optimizer, 1, 0.5))
    assert by_epoch == [0.1] * 5 + [0.05] * 5
    by_batch = rates(cl.schedules.EachStep(lambda optimizer: schedulers.StepLR(optimizer, 2, 0.5)))
    assert by_batch == pytest.approx([0.1, 0.1, 0.05, 0.05, 0.025, 0.025, 0.0125, 0.0125, 0.00625, 0.00625])
    one = rates(lambda optimizer: schedulers.OneCycleLR(optimizer, 0.4, total_steps=11))
    assert max(one) == pytest.approx(0.4, rel=0.1)
    assert len(set(one)) == 10
    named = rates(lambda optimizer: schedulers.StepLR(optimizer, 1, 0.5), "adam", learning_rate=0.1)
    assert named == by_epoch
    plateau = rates(lambda o: schedulers.ReduceLROnPlateau(o, patience=0))
    assert plateau == [0.1] * 10
    worse = rates(lambda o: schedulers.ReduceLROnPlateau(o, "max", patience=0, factor=0.5), epochs=3)
    assert worse == [0.1] * 10 + [0.05] * 5  # since the loss falls


def test_a_scheduler_that_is_ready() -> None:
    _, net = small()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    fit(net, optimizer, epochs=3, scheduler=scheduler)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0125)


def test_what_is_no_scheduler() -> None:
    _, net = small()
    other = torch.optim.SGD(net.parameters(), 0.1)
    stray = torch.optim.lr_scheduler.StepLR(other, 1)
    scheduled = cl.optimizers.SGD(cl.schedules.CosineDecay(0.1, 5))
    for optimizer, scheduler, text in (
        ("sgd", stray, "StepLR belongs to another optimizer"),
        ("sgd", 0.5, "scheduler 0.5 is neither one of torch.optim.lr_scheduler nor makes one"),
        ("sgd", cl.schedules.CosineDecay(0.1, 5), "a schedule of cl.schedules goes into the optimizer"),
        (scheduled, stray, "learning rate is a schedule already"),
    ):
        with pytest.raises(ConvLoomError, match=text):
            fit(net, optimizer, scheduler=scheduler)


# -- the stepper by itself -----------------------------------------------------------------------------------
def test_learning_rates_are_read_and_set() -> None:
    _, net = small()
    weights = list(net.parameters())
    groups: list[dict[str, Any]] = [{"params": weights[:2], "lr": 0.4}, {"params": weights[2:]}]
    stepper = Stepper(net, cl.optimizers.SGD(0.1)(groups))
    assert stepper.learning_rate == 0.4
    stepper.learning_rate = 0.2
    assert [group["lr"] for group in stepper.optimizer.param_groups] == [0.2, 0.05]
    stepper = make_stepper(net, cl.optimizers.SGD(lambda step: 0.5**step))
    assert stepper.learning_rate == 1.0
    with pytest.raises(ConvLoomError, match="follows a schedule, and cannot be set"):
        stepper.learning_rate = 0.1


@pytest.mark.parametrize("name", ["adam", "muon", "lion", "ftrl"])
def test_state_goes_on(name: str) -> None:
    """Of optimizer, scheduler and scale, through a state: the same bits as without."""

    def halving(optimizer: Any) -> Any:
        return torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)

    results = []
    for split in (False, True):
        model, net = small("float16")
        step = net.with_loss("categorical_crossentropy")
        stepper = make_stepper(net, name, 0.01, halving)
        net.train()
        for number in range(6):
            if split and number == 3:
                state = stepper.state_dict()
                stepper = make_stepper(net, name, 0.01, halving)
                stepper.load_state_dict(state)

            def compute(step: Any = step) -> StepResult:
                loss, prediction = step(X, Y)
                return StepResult(loss, (loss,), (prediction,))

            stepper.step(compute)
            if number % 2:
                stepper.end_epoch({"loss": 1.0})
        results.append(model.get_weights())
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


def test_states_that_do_not_fit() -> None:
    _, net = small()
    _, half = small("float16")
    with pytest.raises(ConvLoomError, match="the saved state has no loss scale, and here there is one"):
        make_stepper(half, "adam").load_state_dict(make_stepper(net, "adam").state_dict())
    other = make_stepper(net, torch.optim.SGD(list(net.parameters())[:1], 0.1))
    with pytest.raises(ConvLoomError, match="the saved state is of another optimizer than _Adam"):
        make_stepper(net, "adam").load_state_dict(other.state_dict())


def test_lbfgs_solves_a_regression() -> None:
    """With its closure, and kernels that lie as convolutions want them."""
    image = cl.Input((5, 4, 2))
    model = cl.Model(image, L.Flatten()(L.Conv2D(3, 2)(image)), seed=3)
    net = cl.compile(model, device="cpu")
    truth = cl.compile(cl.Model(image, L.Flatten()(L.Conv2D(3, 2)(image)), seed=4), device="cpu")
    y = truth(X).numpy()
    optimizer = torch.optim.LBFGS(net.parameters(), line_search_fn="strong_wolfe")
    history = cl.fit(net, (X, y), "mse", optimizer, epochs=4, batch_size=40, verbose=False)
    assert history.history["loss"][0] > 1e-2
    assert history.history["loss"][-1] < 1e-9
    half = cl.compile(model, device="cpu", dtype="float16")
    with pytest.raises(ConvLoomError, match=r"LBFGS computes the loss several times.*float32 or bfloat16"):
        cl.fit(half, (X, y), "mse", torch.optim.LBFGS(half.parameters()), verbose=False)


@pytest.mark.parametrize("name", ["Adam", "AdamW", "Nadam", "RMSprop", "Lion"])
def test_gradients_that_are_being_gathered_go_on(name: str) -> None:
    """Before the first move nothing lies beside a weight but the sum of its gradients."""

    def make(weight: torch.nn.Parameter) -> torch.optim.Optimizer:
        recipe = getattr(cl.optimizers, name)(0.1, gradient_accumulation_steps=3)
        made: torch.optim.Optimizer = recipe([weight])
        return made

    weights = []
    for stops in (False, True):
        weight = torch.nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
        optimizer = make(weight)
        for step in range(6):
            weight.grad = torch.tensor([0.5, 1.0, -1.5]) * (step + 1)
            optimizer.step()
            if stops and step == 1:
                kept, optimizer = optimizer.state_dict(), make(weight)
                optimizer.load_state_dict(kept)
        weights.append(weight.detach().tolist())
    assert weights[0] == weights[1] != [1.0, -2.0, 3.0]
