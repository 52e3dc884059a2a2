"""Transfer learning: cut, head, freeze, train, free, train on, as in Keras; and what freezing spares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from convloom.planning.batches import USUAL
from helpers import randomised

import convloom as cl
from convloom import layers as L

RNG = np.random.default_rng(5)
X = RNG.normal(size=(12, 8, 7, 3)).astype("float32")
Y = RNG.integers(0, 3, size=(12, 1))
CLASSES = "sparse_categorical_crossentropy"
STILL = ("conv", "norm", "norm_2")
"""What stays frozen when the base is freed. Norms among them: `fit` of Keras 3 forgets a base's
`training=False` and moves the statistics of norms that are free, against its own guide (docs/keras.md)."""


def pretrained(path: Path) -> Path:
    """A file of Keras's, of five classes, with statistics that are not those of its first day."""
    keras.utils.set_random_seed(1)
    image = keras.Input((8, 7, 3), name="image")
    h = keras.layers.Conv2D(6, 3, padding="same", use_bias=False, name="conv")(image)
    h = keras.layers.BatchNormalization(name="norm")(h)
    h = keras.layers.ReLU(name="relu")(h)
    h = keras.layers.DepthwiseConv2D(3, name="deep")(h)
    h = keras.layers.BatchNormalization(name="norm_2")(h)
    h = keras.layers.GlobalAveragePooling2D(name="features")(h)
    model = keras.Model(image, keras.layers.Dense(5, name="top")(h), name="pretrained")
    model.compile("sgd", "mse")
    model.fit(X, np.zeros((12, 5)), epochs=2, verbose=0)
    model.save(path)
    return path


def theirs(path: Path) -> list[np.ndarray]:
    """Keras through the whole of it."""
    old = keras.models.load_model(path)
    base = keras.Model(old.inputs, old.get_layer("features").output, name="base")
    base.trainable = False
    image = keras.Input((8, 7, 3), name="photo")
    head = keras.layers.Dense(3, activation="softmax", name="head", kernel_initializer="ones")
    model = keras.Model(image, head(base(image, training=False)), name="transfer")
    model.compile(keras.optimizers.SGD(0.5), CLASSES)
    model.fit(X, Y, batch_size=4, epochs=2, shuffle=False, verbose=0)
    base.trainable = True
    for name in STILL:
        base.get_layer(name).trainable = False
    model.compile(keras.optimizers.SGD(0.01), CLASSES)
    model.fit(X, Y, batch_size=4, epochs=2, shuffle=False, verbose=0)
    return sorted_by_shape(model.get_weights())


def ours(path: Path, backend: str) -> list[np.ndarray]:
    """The same lines in ConvLoom, over one network from beginning to end."""
    old = cl.load(path)
    base = cl.Model(old.inputs, old.get_layer("features").output, name="base")
    base.trainable = False
    image = cl.Input((8, 7, 3), name="photo")
    head = L.Dense(3, activation="softmax", name="head", kernel_initializer="ones")
    model = cl.Model(image, head(base(image, training=False)), name="transfer")
    net = cl.compile(model, device="cpu", backend=backend)
    how: dict[str, Any] = {"loss": CLASSES, "batch_size": 4, "epochs": 2, "shuffle": False, "verbose": False}
    cl.fit(net, (X, Y), optimizer=cl.optimizers.SGD(0.5), **how)
    base.trainable = True
    for name in STILL:
        layer: Any = base.get_layer(name)
        layer.trainable = False
    cl.fit(net, (X, Y), optimizer=cl.optimizers.SGD(0.01), **how)
    return sorted_by_shape(model.get_weights())


def sorted_by_shape(weights: list[np.ndarray]) -> list[np.ndarray]:
    return sorted(weights, key=lambda w: (w.shape, float(w.sum())))


@pytest.mark.parametrize("backend", ["aten", "triton"])
def test_transfer_learning_gives_the_weights_that_keras_gives(backend: str, tmp_path: Path) -> None:
    path = pretrained(tmp_path / "pretrained.keras")
    found, expected = ours(path, backend), theirs(path)
    assert len(found) == len(expected)
    for mine, right in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, right, rtol=2e-5, atol=2e-6)


# -- what freezing spares ------------------------------------------------------------------------------------
def headed() -> tuple[cl.Model, cl.Model]:
    image = cl.Input((8, 7, 3), name="image")
    h = L.Conv2D(6, 3, use_bias=False, name="conv")(image)
    h = L.ReLU(name="relu")(L.BatchNormalization(name="norm")(h))
    base = randomised(cl.Model(image, L.GlobalAveragePooling2D(name="mean")(h), name="base"))
    photo = cl.Input((8, 7, 3), name="photo")
    return base, cl.Model(photo, L.Dense(3, activation="softmax", name="head")(base(photo)), name="headed")


def measured(net: cl.CompiledNetwork) -> tuple[int, int, int]:
    program = net.planned(training=True)
    moved = sum(region.cost(USUAL).bytes for region in program.regions)
    return len(program.regions), moved, program.saved_bytes(USUAL)


def test_spared_is_the_step_beside_the_step_of_the_thawed_network() -> None:
    base, model = headed()
    net = cl.compile(model, device="cpu")
    assert net.spared() is None
    assert "Frozen" not in net.train().explain()
    free = measured(net)
    base.trainable = False
    frozen = measured(net)
    found = net.spared()
    assert found is not None
    assert (found.now.launches, found.now.moved, found.now.saved) == frozen
    assert (found.before.launches, found.before.moved, found.before.saved) == free
    assert all(now < before for now, before in zip(frozen, free, strict=True))
    assert (found.frozen, found.weights) == (3, 5)  # the moving statistics are none that could be trained
    told = f"{frozen[0]} kernels rather than {free[0]}"
    assert told in net.explain()
    assert told not in net.eval().explain()
    lines: list[str] = []
    net.summary(lines.append)
    assert told in lines[0]
    assert "Trainable: 21" in lines[0]
    base.trainable = True
    assert net.spared() is None
    assert measured(net) == free


def test_weights_frozen_by_torch_are_counted_too() -> None:
    _, model = headed()
    net = cl.compile(model, device="cpu")
    free = measured(net)
    net.weights()["base/conv/kernel"].requires_grad_(False)
    found = net.spared()
    assert found is not None
    assert (found.frozen, found.before.launches) == (1, free[0])
    assert found.now.launches < free[0]
    lines: list[str] = []
    net.summary(lines.append)
    assert "Trainable: 33" in lines[0]  # gamma and beta of 6 channels, 6 x 3 + 3 of the head


def test_an_open_network_has_no_sizes_to_count_with() -> None:
    image = cl.Input((None, None, 3), name="image")
    conv = L.Conv2D(4, 3, name="conv", trainable=False)
    out = L.Dense(2, name="head")(L.GlobalAveragePooling2D(name="mean")(conv(image)))
    net = cl.compile(cl.Model(image, out), device="cpu")
    assert net.spared() is None
    net.summary(lambda text: None)
    assert net.at((9, 8, 3)).spared() is not None


def test_a_pickled_network_counts_what_it_holds(tmp_path: Path) -> None:
    base, model = headed()
    base.trainable = False
    net = cl.compile(model, device="cpu")
    torch.save(net, tmp_path / "net.pt")
    again = torch.load(tmp_path / "net.pt", weights_only=False)
    mine, other = net.spared(), again.spared()
    assert mine is not None
    assert other is not None
    assert other.now == mine.now


# -- a second rate -------------------------------------------------------------------------------------------
def moved_by(net: cl.CompiledNetwork, optimizer: Any) -> dict[str, torch.Tensor]:
    """How far each weight went in one epoch of one batch, over its gradient there: the rate it moved with."""
    before = {name: weight.detach().clone() for name, weight in net.weights().items()}
    net.train()
    net.zero_grad()
    step = net.with_loss(CLASSES)
    step(torch.from_numpy(X), torch.from_numpy(Y))[0].backward()
    slopes = {name: weight.grad.clone() for name, weight in net.weights().items() if weight.grad is not None}
    with torch.no_grad():
        for name, weight in net.weights().items():
            weight.copy_(before[name])  # the batch norms' statistics moved
    cl.fit(net, (X, Y), loss=CLASSES, optimizer=optimizer, batch_size=12, shuffle=False, verbose=False)
    after = net.weights()
    return {name: ((before[name] - after[name].detach()) / slope).median() for name, slope in slopes.items()}


@pytest.mark.parametrize("scheduled", [False, True])
def test_the_base_moves_at_its_own_rate(scheduled: bool) -> None:
    rate: Any = cl.schedules.PiecewiseConstantDecay([10], [0.5, 0.1]) if scheduled else 0.5
    net = cl.compile(headed()[1], device="cpu")
    rates = moved_by(net, cl.optimizers.SGD(rate, rates={"base/norm/": 0.1, "base/": 0.01}))
    expected = {"base/conv/kernel": 0.005, "base/norm/gamma": 0.05, "head/kernel": 0.5}
    for name, wanted in expected.items():
        assert float(rates[name]) == pytest.approx(wanted, rel=0.02), name


def test_a_callback_that_sets_the_rate_keeps_the_factor() -> None:
    net = cl.compile(headed()[1], device="cpu")
    slower = cl.LearningRateScheduler(lambda epoch: 0.25)
    made = cl.optimizers.SGD(0.5, rates={"base/": 0.01})(net.named_parameters())
    cl.fit(net, (X, Y), loss=CLASSES, optimizer=made, callbacks=[slower], verbose=False)
    assert sorted(group["lr"] for group in made.param_groups) == pytest.approx([0.0025, 0.25])


def test_wrong_rates_are_named() -> None:
    net = cl.compile(headed()[1], device="cpu")
    with pytest.raises(cl.ConvLoomError, match=r"rates names 'bsae/', which is found in no weight's name"):
        cl.optimizers.SGD(rates={"bsae/": 0.1})(net.named_parameters())
    with pytest.raises(cl.ConvLoomError, match=r"rates\['base/'\] is 0\.0; it must be above 0"):
        cl.optimizers.SGD(rates={"base/": 0})
    with pytest.raises(cl.ConvLoomError, match=r"give net\.named_parameters\(\)"):
        cl.optimizers.SGD(rates={"base/": 0.1})(net.parameters())
