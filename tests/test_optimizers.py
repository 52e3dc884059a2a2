"""Optimizers by name: Keras's, step for step; torch's own stay torch's."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import keras
import numpy as np
import pytest
import torch
from convloom.graph.errors import ConvLoomError
from convloom.runtime import optimizers
from convloom.runtime.optimizers import OPTIMIZERS, make_optimizer

import convloom as cl
from convloom import layers as L

STEPS = 50
CASES: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"learning_rate": 0.05}),
    ("SGD", {"learning_rate": 0.05, "momentum": 0.9}),
    ("SGD", {"learning_rate": 0.05, "momentum": 0.9, "nesterov": True}),
    ("SGD", {"learning_rate": 0.05, "momentum": 0.9, "weight_decay": 0.01}),
    ("Adam", {}),
    ("Adam", {"learning_rate": 0.02, "amsgrad": True}),
    ("Adam", {"learning_rate": 0.02, "epsilon": 0.1, "beta_1": 0.8}),
    ("Adam", {"weight_decay": 0.01}),
    ("AdamW", {}),
    ("AdamW", {"learning_rate": 0.02, "weight_decay": 0.1}),
    ("RMSprop", {}),
    ("RMSprop", {"learning_rate": 0.01, "momentum": 0.9}),
    ("RMSprop", {"learning_rate": 0.01, "centered": True, "momentum": 0.5, "weight_decay": 0.01}),
    ("RMSprop", {"epsilon": 1e-3, "rho": 0.7}),
    ("SGD", {"learning_rate": 0.05, "clipnorm": 0.5, "momentum": 0.9}),
    ("SGD", {"learning_rate": 0.05, "global_clipnorm": 0.5, "weight_decay": 0.01}),
    ("Adam", {"clipvalue": 0.1}),
]


def tiny(scale: float) -> tuple[cl.CompiledNetwork, torch.Tensor, torch.Tensor]:
    """Gradients of about `scale`: where it is small, epsilon decides the step."""
    x = cl.Input((6,))
    net = cl.compile(cl.Model(x, L.Dense(3, activation="tanh")(x), seed=1), device="cpu")
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(STEPS, 8, 6, generator=generator)
    return net, data, scale * torch.randn(STEPS, 8, 3, generator=generator)


@pytest.mark.parametrize("scale", [1.0, 1e-6])
@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_fifty_steps_follow_keras(name: str, options: dict[str, Any], scale: float) -> None:
    """The same gradients to both: the weights agree to 1e-5 of the way they went, and to rounding."""
    net, data, slopes = tiny(scale)
    weights = list(net.parameters())
    start = [w.detach().clone() for w in weights]
    ours = getattr(optimizers, name)(**options)(weights)
    variables = [keras.Variable(w.numpy().copy()) for w in start]
    theirs = getattr(keras.optimizers, name)(**options)
    net.train()
    for x, weight in zip(data, slopes, strict=True):
        ours.zero_grad()
        (net(x) * weight).sum().backward()
        theirs.apply([w.grad.clone() for w in weights], variables)  # type: ignore[union-attr]
        ours.step()
    for ours_now, theirs_now, before in zip(weights, variables, start, strict=True):
        wanted = torch.as_tensor(keras.ops.convert_to_numpy(theirs_now))
        way = float((wanted - before).abs().max())
        assert way > 0
        assert float((ours_now.detach() - wanted).abs().max()) <= 1e-5 * max(way, 0.1)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop"])
def test_fit_by_name_follows_keras_fit(name: str) -> None:
    """50 steps of a convolutional network from the same weights and batches: within 1e-5 in float32."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(80, 7, 5, 2)).astype(np.float32)
    y = np.eye(3, dtype=np.float32)[generator.integers(0, 3, 80)]
    image = cl.Input((7, 5, 2))
    h = L.Conv2D(4, 3, activation="tanh")(image)
    model = cl.Model(image, L.Dense(3, activation="softmax")(L.Flatten()(h)), seed=2)
    twin = keras.models.model_from_json(model.to_json())
    twin.set_weights(model.get_weights())
    twin.compile(optimizer=name, loss="categorical_crossentropy", run_eagerly=True)
    expected = twin.fit(x, y, batch_size=8, epochs=5, shuffle=False, verbose=0)
    net = cl.compile(model, device="cpu")
    found = cl.fit(
        net, (x, y), loss="categorical_crossentropy", optimizer=name, batch_size=8, epochs=5, shuffle=False,
        metrics=(), verbose=False,
    )  # fmt: skip
    np.testing.assert_allclose(found.history["loss"], expected.history["loss"], rtol=1e-5)
    for ours, theirs in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=0)


def test_momentum_is_a_sum_of_steps() -> None:
    """As in Keras: another learning rate does not change the steps already under way."""
    weight = torch.nn.Parameter(torch.zeros(1))
    made = optimizers.SGD(0.1, momentum=0.5)([weight])
    for rate, slope in ((0.1, 1.0), (0.01, 0.0)):
        made.param_groups[0]["lr"] = rate
        weight.grad = torch.full((1,), slope)
        made.step()
    assert float(weight.detach()) == pytest.approx(-0.1 - 0.05)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_state_survives_saving(name: str) -> None:
    """Five steps, saved and loaded into another optimizer, five more: the same as ten."""
    results = []
    for split in (False, True):
        weight = torch.nn.Parameter(torch.ones(3))
        made = make_optimizer(name, [weight])
        for step in range(10):
            if split and step == 5:
                state = made.state_dict()
                made = make_optimizer(name, [weight])
                made.load_state_dict(state)
            weight.grad = torch.tensor([1.0, -1e-4, 1e-7]) * (step + 1)
            made.step()
        results.append(weight.detach().clone())
    assert torch.equal(*results)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("limit", ["clipvalue", "clipnorm", "global_clipnorm"])
def test_clipping_survives_copies_and_closures(name: str, limit: str) -> None:
    """An optimizer that was copied, pickled or loaded clips on, and clips what a closure has computed."""
    start, slope = torch.tensor([1.0, -2.0]), torch.tensor([3.0, 400.0])
    options: dict[str, Any] = {limit: 0.5}
    recipe = OPTIMIZERS[name](**options)
    results = []
    for way in ("plain", "closure", "deepcopy", "pickle", "state_dict"):
        weight = torch.nn.Parameter(start.clone())
        made = recipe(iter([weight]))
        if way == "deepcopy":
            made = copy.deepcopy(made)
        elif way == "pickle":
            made = pickle.loads(pickle.dumps(made))
        elif way == "state_dict":
            state = made.state_dict()
            made = OPTIMIZERS[name]()([weight])  # type: ignore[call-arg]
            made.load_state_dict(state)
        (weight,) = made.param_groups[0]["params"]

        def slopes(weight: torch.nn.Parameter = weight) -> float:
            weight.grad = slope.clone()
            return 0.0

        for _ in range(3):
            if way == "closure":
                assert made.step(slopes) == 0.0
            else:
                slopes()
                made.step()
        assert weight.grad is not None
        assert weight.grad.abs().max() <= 0.5
        results.append(weight.detach().clone())
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_names_and_learning_rates(name: str) -> None:
    parameter = torch.nn.Parameter(torch.ones(3))
    assert make_optimizer(name.upper(), [parameter]).param_groups[0]["lr"] == (
        0.01 if name == "sgd" else 1e-3
    )
    for given in (name, OPTIMIZERS[name]):
        made = make_optimizer(given, [parameter], np.float32(0.5))  # type: ignore[arg-type]
        assert made.param_groups[0]["lr"] == 0.5
    loss = (parameter**2).sum()
    assert made.step(lambda: (loss.backward(), float(loss.detach()))[1]) == 3.0
    assert bool((parameter < 1).all())


def test_torch_stays_torch() -> None:
    parameter = torch.nn.Parameter(torch.ones(3))
    ready = torch.optim.Adam([parameter])
    assert make_optimizer(ready, [parameter]) is ready
    assert type(make_optimizer(torch.optim.RMSprop, [parameter], 0.1)) is torch.optim.RMSprop


@pytest.mark.parametrize(
    ("optimizer", "rate", "text"),
    [
        ("adamin", None, "unknown optimizer 'adamin'; did you mean 'adam'"),
        ("Adam W", None, "did you mean 'adamw'"),
        (keras.optimizers.Adam(), None, r"Adam is Keras's own, .*; give cl.optimizers.Adam\(...\)"),
        (optimizers.Adam(0.1), 0.1, "learning_rate goes with an optimizer given by name"),
        ("adam", "fast", "learning_rate is 'fast', a str; it must be a number"),
        ("adam", float("nan"), "learning_rate is nan; it must be above 0"),
        ("adam", True, "learning_rate is True, a bool; it must be a number"),
    ],
)
def test_what_is_no_optimizer(optimizer: Any, rate: Any, text: str) -> None:
    with pytest.raises(ConvLoomError, match=text):
        make_optimizer(optimizer, [torch.nn.Parameter(torch.ones(3))], rate)


def test_arguments_out_of_range() -> None:
    with pytest.raises(ConvLoomError, match=r"Adam: beta_2 is 1.0; it must be below 1"):
        optimizers.Adam(beta_2=1)
    with pytest.raises(ConvLoomError, match="SGD: momentum is 'x', a str; it must be a number"):
        optimizers.SGD(momentum="x")  # type: ignore[arg-type]
    with pytest.raises(ConvLoomError, match="Adam: give one of clipvalue, clipnorm and global_clipnorm"):
        optimizers.Adam(clipvalue=1.0, clipnorm=1.0)
