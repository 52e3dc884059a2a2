"""Callbacks against Keras's own: one sequence of logs, or one training, drives both."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import keras
import numpy as np
import pytest
import torch
from convloom.graph.errors import ConvLoomError
from convloom.runtime.callback_list import CallbackList
from helpers import told
from small_training import CLASSES, X, Y, model, network

import convloom as cl

Logs = dict[str, Any]


class KerassModel:
    """As much of a model as Keras's callbacks ask for; its only weight says which epoch it is of."""

    def __init__(self) -> None:
        self.stop_training, self.weight, self.saved = False, 0.0, list[str]()
        self.optimizer = SimpleNamespace(learning_rate=0.1)
        accuracy = keras.metrics.BinaryAccuracy(name="accuracy")
        holder = keras.src.trainers.compile_utils.MetricsList([accuracy])
        self.metrics = [holder]

    def get_weights(self) -> list[float]:
        return [self.weight]

    def set_weights(self, weights: list[float]) -> None:
        (self.weight,) = weights

    def save(self, path: str, overwrite: bool = True) -> None:
        self.saved.append(path)

    save_weights = save


class OurNet(torch.nn.Module):
    """The same for ours."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.saved = list[str]()

    def save(self, path: Path) -> None:
        self.saved.append(str(path))

    save_weights = save


REPORTED = {"loss": "min", "accuracy": "max", "val_loss": "min", "val_accuracy": "max"}


def theirs(callback: Any, epochs: list[Logs], batches: int = 2) -> tuple[KerassModel, list[Logs]]:
    net = KerassModel()
    callback.set_model(net)
    callback.set_params({"epochs": len(epochs), "verbose": 0, "steps": batches})
    callback.on_train_begin()
    seen = []
    for epoch, logs in enumerate(epochs):
        logs, net.weight = dict(logs), float(epoch)
        callback.on_epoch_begin(epoch)
        for batch in range(batches):
            callback.on_train_batch_end(batch, {"loss": logs["loss"]})
        callback.on_epoch_end(epoch, logs)
        seen.append(logs | {"rate": float(net.optimizer.learning_rate)})
        if net.stop_training:
            break
    callback.on_train_end()
    return net, seen


def ours(callback: Any, epochs: list[Logs], batches: int = 2) -> tuple[OurNet, list[Logs]]:
    net = OurNet()
    stepper: Any = SimpleNamespace(learning_rate=0.1, networks=[])
    params = {"epochs": len(epochs), "verbose": 0, "steps": batches}
    watching = CallbackList([callback], model=net, net=net, params=params, stepper=stepper, reported=REPORTED)
    watching.on_train_begin()
    seen = []
    for epoch, logs in enumerate(epochs):
        logs = dict(logs)
        with torch.no_grad():
            net.weight.fill_(float(epoch))
        watching.on_epoch_begin(epoch)
        for batch in range(batches):
            watching.on_batch_end("train", batch, lambda logs=logs: {"loss": logs["loss"]})  # type: ignore[misc]
        watching.on_epoch_end(epoch, logs)
        seen.append(logs | {"rate": stepper.learning_rate})
        if watching.stopping:
            break
    watching.on_train_end({})
    watching.close()
    return net, seen


def sequences(count: int = 12, epochs: int = 14) -> list[list[Logs]]:
    """Losses that fall, stand and rise by multiples of 0.1, and one that becomes NaN."""
    r = np.random.default_rng(0)
    found = []
    for _ in range(count):
        steps = r.choice([-0.2, -0.1, 0.0, 0.1], (epochs, 2)).cumsum(0).round(1)
        found.append(
            [{"loss": 2.0 + a, "val_accuracy": 0.5 - b, "accuracy": 0.5, "val_loss": a} for a, b in steps]
        )
    found.append([{**logs, "loss": math.nan if e > 3 else logs["loss"]} for e, logs in enumerate(found[0])])
    return found


# -- one by one ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("monitor", ["loss", "val_accuracy"])
@pytest.mark.parametrize(
    "options",
    [
        {"min_delta": delta, "patience": patience, **more}
        for delta, patience in itertools.product((0, 0.15, -0.15), (0, 1, 3))
        for more in ({}, {"baseline": 1.6}, {"start_from_epoch": 4}, {"baseline": 0.7, "start_from_epoch": 2})
    ],
    ids=told,
)
def test_early_stopping(monitor: str, options: dict[str, Any]) -> None:
    for epochs in sequences():
        for restore in (False, True):
            one = keras.callbacks.EarlyStopping(monitor, restore_best_weights=restore, **options)
            two = cl.EarlyStopping(monitor, restore_best_weights=restore, **options)
            (a, seen), (b, found) = theirs(one, epochs), ours(two, epochs)
            assert len(found) == len(seen)
            assert b.weight.item() == a.weight
            for name in ("stopped_epoch", "best_epoch", "best", "wait"):
                np.testing.assert_equal(getattr(two, name), getattr(one, name), name)


@pytest.mark.parametrize("monitor", ["loss", "val_accuracy"])
@pytest.mark.parametrize(
    "options",
    [
        {"patience": patience, "cooldown": cooldown, **more}
        for patience, cooldown in itertools.product((1, 2), (0, 2))
        for more in ({}, {"factor": 0.5, "min_lr": 0.02}, {"min_delta": 0.15})
    ],
    ids=told,
)
def test_reduce_lr_on_plateau(monitor: str, options: dict[str, Any]) -> None:
    for epochs in sequences():
        _, seen = theirs(keras.callbacks.ReduceLROnPlateau(monitor, **options), epochs)
        _, found = ours(cl.ReduceLROnPlateau(monitor, **options), epochs)
        for a, b in zip(seen, found, strict=True):
            assert b["rate"] == pytest.approx(a["rate"], rel=1e-6)
            assert b["learning_rate"] == pytest.approx(a["learning_rate"], rel=1e-6)


@pytest.mark.parametrize("schedule", [lambda epoch: 0.1 / (epoch + 1), lambda epoch, rate: rate * 0.9])
def test_learning_rate_scheduler(schedule: Any) -> None:
    epochs = sequences(1)[0]
    _, seen = theirs(keras.callbacks.LearningRateScheduler(schedule), epochs)
    _, found = ours(cl.LearningRateScheduler(schedule), epochs)
    for a, b in zip(seen, found, strict=True):
        assert (b["rate"], b["learning_rate"]) == (pytest.approx(a["rate"]), pytest.approx(a["rate"]))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"save_best_only": True},
        {"save_best_only": True, "monitor": "val_accuracy"},
        {"save_best_only": True, "monitor": "loss", "mode": "max"},
        {"save_best_only": True, "monitor": "loss", "initial_value_threshold": 1.7},
        {"save_freq": 3},
        {"save_freq": 5, "save_weights_only": True},
    ],
    ids=told,
)
def test_model_checkpoint(tmp_path: Path, options: dict[str, Any]) -> None:
    name = "m-{epoch:02d}-{loss:.1f}" + ("-{batch}" if "save_freq" in options else "-{val_loss:.2f}")
    path = str(tmp_path / "in" / name) + (".weights.h5" if options.get("save_weights_only") else ".keras")
    for epochs in sequences(3):
        a, _ = theirs(keras.callbacks.ModelCheckpoint(path, **options), epochs)
        b, _ = ours(cl.ModelCheckpoint(path, **options), epochs)
        assert b.saved == a.saved


@pytest.mark.parametrize("separator", [",", ";"])
@pytest.mark.parametrize("extra", [{}, {"scores": np.array([0.25, 0.5])}])
def test_csv_logger(tmp_path: Path, separator: str, extra: Logs) -> None:
    for keep in (["loss", "accuracy"], ["loss", "val_loss"]):
        epochs = [{k: logs[k] for k in keep} | extra for logs in sequences(1, 4)[0]]
        a, b = tmp_path / "a.csv", tmp_path / "b.csv"
        for append in (False, False, True):
            theirs(keras.callbacks.CSVLogger(str(a), separator, append), epochs)
            ours(cl.CSVLogger(b, separator, append), epochs)
            assert b.read_bytes().replace(b"\r\n", b"\n") == a.read_bytes().replace(b"\r\n", b"\n")


def test_csv_goes_on_after_the_last_epoch_that_was_kept(tmp_path: Path) -> None:
    epochs, path = sequences(1, 4)[0], tmp_path / "run.csv"
    whole = cl.CSVLogger(path)
    ours(whole, epochs)
    expected = path.read_bytes()
    first = cl.CSVLogger(path)
    first.on_train_begin()
    for epoch in (0, 1, 2):
        if epoch == 2:
            state = first.state_dict()
        first.on_epoch_end(epoch, epochs[epoch])  # the third one is written, and then the process dies
    second = cl.CSVLogger(path)
    second.on_train_begin()
    second.load_state_dict(state)
    for epoch in (2, 3):
        second.on_epoch_end(epoch, epochs[epoch])
    second.close()
    assert path.read_bytes() == expected


@pytest.mark.parametrize(
    "make",
    [
        lambda: cl.EarlyStopping("loss", patience=3, restore_best_weights=True),
        lambda: cl.ReduceLROnPlateau("loss", patience=2, cooldown=1),
        lambda: cl.ModelCheckpoint("{epoch}.keras", save_best_only=True, monitor="loss"),
    ],
)
def test_states_go_on(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a callback has seen is in its state: stopped anywhere, it does what it would have done."""
    monkeypatch.chdir(tmp_path)
    for epochs in sequences(4):
        net, whole = ours(make(), epochs)
        for stop in range(1, len(whole)):
            first, second = make(), make()
            ours(first, epochs[:stop])
            ours(second, [])
            second.load_state_dict(first.state_dict())
            second.on_train_begin = lambda logs=None: None
            begun, rest = _ours_from(second, epochs, stop, whole[stop - 1]["rate"])
            assert [logs["rate"] for logs in rest] == [logs["rate"] for logs in whole[stop:]]
            assert begun.saved == [name for name in net.saved if int(Path(name).stem) > stop]


def _ours_from(callback: Any, epochs: list[Logs], start: int, rate: float) -> tuple[OurNet, list[Logs]]:
    net, stepper = OurNet(), SimpleNamespace(learning_rate=rate, networks=[])
    callback.net = callback.model = net
    callback.stepper, callback.stop, seen = stepper, False, []
    for epoch in range(start, len(epochs)):
        callback.on_epoch_begin(epoch)
        logs = dict(epochs[epoch])
        callback.on_epoch_end(epoch, logs)
        seen.append(logs | {"rate": stepper.learning_rate})
        if callback.stop:
            break
    return net, seen


# -- in a training -------------------------------------------------------------------------------------------
def recorder(base: Any, events: list[Any]) -> Any:
    class Recorder(base):
        pass

    def note(name: str) -> Any:
        def hook(self: Any, *given: Any, **more: Any) -> None:
            logs = next((part for part in (*given, *more.values()) if isinstance(part, dict)), None) or {}
            places = [part for part in given if isinstance(part, int)]
            events.append((name, *places, tuple(sorted(logs))))

        return hook

    for name in dir(cl.Callback):
        if (
            name.startswith("on_")
            and "predict" not in name
            and name not in ("on_batch_begin", "on_batch_end")
        ):
            setattr(Recorder, name, note(name))
    return Recorder()


def kerass(**options: Any) -> Any:
    twin = keras.Sequential(
        [keras.Input((6, 5, 1)), keras.layers.Flatten(), keras.layers.Dense(3, "softmax")]
    )
    twin.compile("sgd", CLASSES, metrics=["accuracy"])
    return twin


def test_hooks_come_when_kerass_do() -> None:
    expected, found = list[Any](), list[Any]()
    kerass().fit(
        X, Y, batch_size=10, epochs=2, validation_data=(X, Y), verbose=0,
        callbacks=[recorder(keras.callbacks.Callback, expected)], validation_batch_size=12,
    )  # fmt: skip
    cl.fit(
        network(), (X, Y), CLASSES, "sgd", batch_size=10, epochs=2, validation_data=(X, Y), verbose=False,
        callbacks=[recorder(cl.Callback, found)],
    )  # fmt: skip

    def of_training(events: list[Any]) -> list[Any]:
        return [event for event in events if "test_batch" not in event[0]]

    def told(events: list[Any]) -> list[Any]:
        return [(e[0], e[1] if len(e) > 2 else None, e[-1]) for e in of_training(events)]

    assert [e[:2] for e in told(found)] == [e[:2] for e in told(expected)]
    ends = ("on_epoch_end", "on_train_batch_end", "on_train_end")
    assert [e for e in told(found) if e[0] in ends] == [e for e in told(expected) if e[0] in ends]


def test_functions_in_the_place_of_hooks() -> None:
    calls: list[Any] = []
    watching = cl.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: calls.append(("epoch", epoch)),
        on_train_batch_end=lambda batch, logs: calls.append(("batch", batch, sorted(logs))),
        on_train_end=lambda logs: calls.append(("end", sorted(logs))),
        on_test_begin=None,
        color="red",
    )
    cl.fit(network(), (X, Y), CLASSES, batch_size=12, callbacks=[watching], verbose=False)
    both = ["accuracy", "loss"]
    assert calls == [("epoch", 0), ("batch", 0, both), ("batch", 1, both), ("end", both)]
    assert watching.color == "red"  # type: ignore[attr-defined]
    with pytest.raises(ConvLoomError, match="unknown hook 'on_epoch_ends'; did you mean 'on_epoch_end'"):
        cl.LambdaCallback(on_epoch_ends=print)


def test_an_older_name_of_a_hook_is_called() -> None:
    class Old(cl.Callback):
        seen = 0

        def on_batch_end(self, batch: int, logs: Logs) -> None:
            assert logs["loss"] > 0
            self.seen += 1

    old = Old()
    cl.fit(network(), (X, Y), CLASSES, batch_size=8, callbacks=[old], verbose=False)
    assert old.seen == 3


def test_terminate_on_nan() -> None:
    broken = X.copy()
    broken[13] = math.nan
    seen: list[int] = []
    count = cl.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(batch))
    history = cl.fit(
        network(norm=False), (broken, Y), CLASSES, batch_size=4, epochs=3, shuffle=False, verbose=False,
        callbacks=[cl.TerminateOnNaN(), count],
    )  # fmt: skip
    assert seen == [0, 1, 2, 3]
    assert history.epoch == [0]
    assert math.isnan(history.history["loss"][0])
    with pytest.raises(ConvLoomError, match="batch 3: the loss is nan; training was stopped"):
        cl.fit(
            network(norm=False), (broken, Y), CLASSES, batch_size=4, shuffle=False, verbose=False,
            callbacks=[cl.TerminateOnNaN(raise_error=True)],
        )  # fmt: skip


def test_saved_models_are_those_of_their_epoch(tmp_path: Path) -> None:
    own = model()
    kept: list[Any] = []
    cl.fit(
        own, (X, Y), CLASSES, epochs=2, verbose=False,
        callbacks=[
            cl.ModelCheckpoint(tmp_path / "{epoch}.keras"),
            cl.ModelCheckpoint(tmp_path / "{epoch}.weights.h5", save_weights_only=True),
            cl.LambdaCallback(on_epoch_end=lambda epoch, logs: kept.append(own.get_weights())),
        ],
    )  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "1.keras", "1.weights.h5", "2.keras", "2.weights.h5"
    ]  # fmt: skip
    for epoch in (1, 2):
        fresh = model()
        fresh.load_weights(tmp_path / f"{epoch}.weights.h5")
        opened = keras.models.load_model(tmp_path / f"{epoch}.keras", compile=False)
        for a, b, c in zip(fresh.get_weights(), kept[epoch - 1], opened.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
            np.testing.assert_array_equal(c, b)


def test_a_network_is_saved_through_its_model(tmp_path: Path) -> None:
    own = model()
    net = cl.compile(own, device="cpu")
    cl.fit(net, (X, Y), CLASSES, callbacks=[cl.ModelCheckpoint(tmp_path / "m.keras")], verbose=False)
    torch.testing.assert_close(cl.compile(cl.load(tmp_path / "m.keras"), device="cpu")(X), net(X))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: cl.ModelCheckpoint("a.h5"),
            r"'a.h5'; a whole model is saved as .keras, or with save_weights",
        ),
        (
            lambda: cl.ModelCheckpoint("a.h5", save_weights_only=True),
            r"weights alone are saved as .weights.h5",
        ),
        (
            lambda: cl.ModelCheckpoint("a.keras", save_freq="batch"),
            r"save_freq is 'batch', a str; it must be",
        ),
        (
            lambda: cl.ModelCheckpoint("{nosuch}.keras"),
            r"names what cannot be filled in .'nosuch'.; there are",
        ),
        (
            lambda: cl.ModelCheckpoint("a.keras", save_best_only=True),
            r"ModelCheckpoint monitors 'val_loss', but an epoch reports loss, accuracy; give fit validation",
        ),
        (
            lambda: cl.ModelCheckpoint("a.keras", save_best_only=True, save_freq=2),
            r"ModelCheckpoint monitors 'val_loss', but an epoch reports loss, accuracy; give fit validation",
        ),
        (lambda: cl.ReduceLROnPlateau("lss"), r"ReduceLROnPlateau monitors 'lss', .*; did you mean 'loss'"),
        (lambda: cl.ReduceLROnPlateau(factor=1.0), r"factor is 1.0; it must be below 1"),
        (lambda: cl.LearningRateScheduler(lambda epoch: "fast"), r"what schedule gives is 'fast'"),
        (lambda: cl.LearningRateScheduler(cast(Any, 0.1)), r"schedule is 0.1; give a function"),
        (lambda: cl.CSVLogger("/nosuch/run.csv"), r"CSVLogger: /nosuch/run.csv cannot be written: No such"),
        (lambda: cl.CSVLogger("a.csv", ", "), r"separator is ', '; it is one character"),
        (lambda: cl.TensorBoard(profile_batch=2), r"profile_batch and embeddings_freq are not supported"),
        (lambda: cl.EarlyStopping(mode="up"), r"mode is 'up'; it takes 'auto', 'min' or 'max'"),
    ],
)
def test_what_is_wrong(make: Any, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConvLoomError, match=text):
        cl.fit(network(), (X, Y), CLASSES, callbacks=[make()], verbose=False)


def test_a_callback_monitors_what_another_adds() -> None:
    class Own(cl.Callback):
        adds = ("height",)

        def on_epoch_end(self, epoch: int, logs: Logs) -> None:
            logs["height"] = float(epoch == 0)

    stopper = cl.EarlyStopping("height", mode="max")
    history = cl.fit(network(), (X, Y), CLASSES, epochs=5, callbacks=[Own(), stopper], verbose=False)
    assert history.history["height"] == [1.0, 0.0]


def test_several_numbers_cannot_be_monitored() -> None:
    stopper = cl.EarlyStopping("f1_score", mode="max")
    rows = np.eye(3, dtype=np.float32)[Y]
    with pytest.raises(ConvLoomError, match="monitors 'f1_score', which is 3 numbers; ask the metric"):
        cl.fit(
            network(), (X, rows), "categorical_crossentropy", metrics=["f1_score"], callbacks=[stopper],
            verbose=False,
        )  # fmt: skip
