"""Whole trainings with callbacks and metrics, from the same weights, against Keras's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from convloom.graph.errors import ConvLoomError
from small_training import CLASSES, ROWS, X, Y, model

import convloom as cl
from convloom import layers as L

WEIGHTS = np.linspace(0.2, 2.0, len(X)).astype(np.float32)


def pair(tmp_path: Path, own: cl.Model | None = None) -> tuple[cl.Model, Any]:
    own = own or model(norm=False)
    own.save(tmp_path / "twin.keras")
    return own, keras.models.load_model(tmp_path / "twin.keras", compile=False)


def compare(found: dict[str, Any], expected: dict[str, Any], rtol: float = 2e-5) -> None:
    assert set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=rtol, atol=1e-6, err_msg=name)


# -- metrics -------------------------------------------------------------------------------------------------
def metrics_of(kind: Any) -> dict[str, Any]:
    return {
        "metrics": ["accuracy", kind.AUC(name="area"), "mse", kind.F1Score(name="scores")],
        "weighted_metrics": ["accuracy", kind.Precision(name="precision"), "kl_divergence"],
    }


def test_metrics_of_a_training_are_kerass(tmp_path: Path) -> None:
    own, twin = pair(tmp_path)
    for net, kind in ((own, cl), (twin, keras)):
        net.compile(kind.optimizers.SGD(0.05), "categorical_crossentropy", **metrics_of(kind.metrics))
    options: dict[str, Any] = {
        "sample_weight": WEIGHTS, "batch_size": 7, "epochs": 3, "shuffle": False, "verbose": 0,
        "validation_data": (X[:9], ROWS[:9], WEIGHTS[:9]),
    }  # fmt: skip
    compare(own.fit(X, ROWS, **options).history, twin.fit(X, ROWS, **options).history)
    compare(
        own.evaluate(X, ROWS, return_dict=True, verbose=0),
        twin.evaluate(X, ROWS, return_dict=True, verbose=0),
    )


def two_outputs() -> cl.Model:
    image = cl.Input((6, 5, 1), name="image")
    h = L.Dense(4, activation="tanh")(L.Flatten()(image))
    kind = L.Dense(3, activation="softmax", name="kind")(h)
    return cl.Model(image, [kind, L.Dense(1, name="size")(h)], seed=2)


def test_metrics_of_two_outputs_are_kerass(tmp_path: Path) -> None:
    own, twin = pair(tmp_path, two_outputs())
    sizes = X.mean((1, 2, 3), keepdims=False)[:, None]
    for net in (own, twin):
        net.compile(
            "sgd", {"kind": CLASSES, "size": "mse"},
            metrics={"kind": ["accuracy"], "size": ["mae", "mse"]}, weighted_metrics={"size": ["mae"]},
        )  # fmt: skip
    options: dict[str, Any] = {"batch_size": 7, "epochs": 2, "shuffle": False, "verbose": 0}
    targets = {"kind": Y, "size": sizes}
    compare(own.fit(X, targets, **options).history, twin.fit(X, targets, **options).history)


# -- callbacks -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("swap_on_epoch", [False, True])
def test_averages_are_swapped_as_keras_does(tmp_path: Path, swap_on_epoch: bool) -> None:
    own, twin = pair(tmp_path)
    saved: dict[Any, list[Any]] = {own: [], twin: []}
    for net, kind, base in ((own, cl, cl), (twin, keras, keras.callbacks)):
        net.compile(kind.optimizers.SGD(0.2, use_ema=True, ema_momentum=0.8), CLASSES)

        class Keep(base.Callback):  # type: ignore[name-defined]
            def on_epoch_end(self, epoch: int, logs: Any = None, net: Any = net) -> None:
                saved[net].append(net.get_weights())

        history = net.fit(
            X, Y, batch_size=8, epochs=3, shuffle=False, verbose=0, validation_data=(X, Y),
            callbacks=[base.SwapEMAWeights(swap_on_epoch), Keep()],
        )  # fmt: skip
        if net is own:
            found = history.history
    compare(found, history.history)
    for a, b in zip((*saved[own], own.get_weights()), (*saved[twin], twin.get_weights()), strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


def test_swapping_needs_averages() -> None:
    with pytest.raises(ConvLoomError, match="SwapEMAWeights: the optimizer averages no weights; give one of"):
        cl.fit(model(), (X, Y), CLASSES, "sgd", callbacks=[cl.SwapEMAWeights()], verbose=False)


def test_the_best_weights_come_back_behind_averages(tmp_path: Path) -> None:
    """EarlyStopping restores last, as in Keras: after the averages were put in place."""
    own, twin = pair(tmp_path)
    for net, kind, base in ((own, cl, cl), (twin, keras, keras.callbacks)):
        net.compile(kind.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5), CLASSES)
        net.fit(
            X, Y, batch_size=8, epochs=6, shuffle=False, verbose=0,
            callbacks=[base.EarlyStopping("loss", patience=2, mode="max", restore_best_weights=True)],
        )  # fmt: skip
    for a, b in zip(own.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_rates_and_stops_of_a_training_are_kerass(tmp_path: Path) -> None:
    own, twin = pair(tmp_path)
    for net, kind, base in ((own, cl, cl), (twin, keras, keras.callbacks)):
        net.compile(kind.optimizers.SGD(0.3), CLASSES, metrics=["accuracy"])
        history = net.fit(
            X, Y, batch_size=8, epochs=12, shuffle=False, verbose=0, validation_data=(X, Y),
            callbacks=[
                base.ReduceLROnPlateau("loss", factor=0.5, patience=2, min_delta=0.3),
                base.EarlyStopping("val_accuracy", 0.15, 3, restore_best_weights=True),
            ],
        )  # fmt: skip
        if net is own:
            found = history.history
    compare(found, history.history, 1e-4)
    assert 1 < len(found["loss"]) < 12
    assert found["learning_rate"][-1] < 0.3
    for a, b in zip(own.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_a_callback_of_keras_is_taken_too(tmp_path: Path) -> None:
    """Written for Keras, its own or one's own: it meets our model."""

    class Own(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[Any] = []

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.seen.append((batch, sorted(logs)))

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            assert self.params["epochs"] == 9
            self.model.optimizer.learning_rate = 0.5
            if epoch == 1:
                self.model.stop_training = True

    own, watching = model(), Own()
    own.compile("sgd", CLASSES)
    stopper = keras.callbacks.EarlyStopping("loss", patience=5, mode="min", restore_best_weights=True)
    history = own.fit(X, Y, batch_size=12, epochs=9, callbacks=[watching, stopper], verbose=0)
    assert history.epoch == [0, 1]
    assert watching.seen == [(0, ["loss"]), (1, ["loss"])] * 2
    assert own.optimizer.learning_rate == 0.5
    assert stopper.best == pytest.approx(min(history.history["loss"]))
    with pytest.raises(ConvLoomError, match=r"is no cl\.Callback"):
        own.fit(X, Y, callbacks=[torch.nn.Identity()], verbose=0)
