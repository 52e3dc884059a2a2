"""Where random numbers come from: torch's generator, unless a model, a layer or an initializer has a seed."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import convloom as cl
from convloom import initializers as I
from convloom import layers as L


def model(seed: int | None = None) -> cl.Model:
    image = cl.Input((5, 4, 2))
    return cl.Model(image, L.Dense(3)(L.Flatten()(L.Conv2D(4, 3)(image))), seed=seed)


def chain(seed: int | None = None) -> cl.Model:
    return cl.Sequential([cl.Input((5, 4, 2)), L.Conv2D(4, 3), L.Flatten(), L.Dense(3)], seed=seed)


def read() -> cl.Model:
    return cl.loads(model().to_json())


def same(a: cl.Model, b: cl.Model) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a.get_weights(), b.get_weights(), strict=True))


# -- models --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("make", [model, chain, read])
def test_manual_seed_before_building_makes_weights_repeatable(make: Callable[[], cl.Model]) -> None:
    torch.manual_seed(5)
    first = make()
    torch.manual_seed(5)
    second = make()
    torch.manual_seed(6)
    third = make()
    torch.manual_seed(7)  # when the weights are first read does not matter
    assert same(first, second)
    assert not same(first, third)


@pytest.mark.parametrize("make", [model, chain])
def test_models_differ_without_a_seed_and_are_equal_with_one(make: Callable[..., cl.Model]) -> None:
    assert not same(make(), make())
    state = torch.get_rng_state()
    first = make(seed=3)
    first.get_weights()
    assert torch.equal(torch.get_rng_state(), state)  # a seed leaves torch's generator alone
    assert same(first, make(seed=3))
    assert not same(first, make(seed=4))


@pytest.mark.parametrize("seed", ["3", 1.5, True, 2**64])
def test_wrong_seeds_are_refused(seed: Any) -> None:
    for make in (lambda: chain(seed=seed), lambda: I.HeNormal(seed=seed)):
        with pytest.raises(cl.ConvLoomError, match="seed must be a whole number of 64 bits or None, got"):
            make()


# -- initializers --------------------------------------------------------------------------------------------
def kernel(initializer: Any, shape: tuple[int, int] = (300, 500)) -> np.ndarray:
    layer = L.Dense(shape[1], kernel_initializer=initializer, input_shape=(shape[0],))
    found: np.ndarray = cl.Sequential([layer]).get_weights()[0]
    return found


@pytest.mark.parametrize(
    "make",
    [
        lambda: I.GlorotUniform(seed=3),
        lambda: I.RandomNormal(0.0, 1.0, 3),
        lambda: {"class_name": "GlorotUniform", "config": {"seed": 3}},
        lambda: {"class_name": "Orthogonal", "config": {"gain": 2.0, "seed": 3}},
    ],
)
def test_a_seeded_initializer_gives_the_same_numbers_every_time(make: Callable[[], Any]) -> None:
    """For every weight of a shape, whatever the model's seed: as in Keras."""
    torch.manual_seed(1)
    first = kernel(make())
    torch.manual_seed(2)
    assert np.array_equal(first, kernel(make()))
    assert first.std() > 0
    twice = cl.Sequential([L.Dense(5, kernel_initializer=make(), input_shape=(5,)) for _ in range(2)])
    assert np.array_equal(twice.get_weights()[0], twice.get_weights()[2])


@pytest.mark.parametrize(
    ("initializer", "mean", "std"),
    [
        (I.RandomNormal(1.0, 0.5), 1.0, 0.5),
        (I.TruncatedNormal(1.0, 0.5), 1.0, 0.5 * 0.8796),
        (I.RandomUniform(-1.0, 2.0), 0.5, 3 / 12**0.5),
        (I.VarianceScaling(2.0, "fan_out", "untruncated_normal"), 0.0, (2 / 500) ** 0.5),
        (I.VarianceScaling(2.0, "fan_avg", "uniform"), 0.0, (2 / 400) ** 0.5),
        (I.VarianceScaling(), 0.0, (1 / 300) ** 0.5),
        (I.Constant(3), 3.0, 0.0),
        (I.HeNormal, 0.0, (2 / 300) ** 0.5),
        ("truncated_normal", 0.0, 0.05 * 0.8796),
    ],
)
def test_initializers_have_their_mean_and_spread(initializer: Any, mean: float, std: float) -> None:
    found = kernel(initializer)
    # Over n draws a mean varies by std / sqrt(n), a spread by about std / sqrt(2 n): 0.2% here.
    assert found.mean() == pytest.approx(mean, abs=5 * std / found.size**0.5)
    assert found.std() == pytest.approx(std, rel=0.02)


@pytest.mark.parametrize("shape", [(6, 9), (9, 6)])
def test_orthogonal_and_identity(shape: tuple[int, int]) -> None:
    found = kernel(I.Orthogonal(2.0), shape).astype(np.float64)
    small = found @ found.T if shape[0] < shape[1] else found.T @ found
    np.testing.assert_allclose(small, 4 * np.eye(6), atol=1e-5)
    assert np.array_equal(kernel("identity", shape), np.eye(*shape, dtype=np.float32))


def test_initializers_go_into_files_and_come_back() -> None:
    layer = L.Dense(2, kernel_initializer=I.RandomNormal(stddev=0.5, seed=3), input_shape=(3,))
    text = cl.Sequential([layer]).to_json()
    (_, entry) = json.loads(text)["config"]["layers"]
    said = entry["config"]["kernel_initializer"]
    assert said["class_name"] == "RandomNormal"
    assert said["config"] == {"mean": 0.0, "stddev": 0.5, "seed": 3}
    assert cl.loads(text).layers[0].kernel_initializer == I.RandomNormal(stddev=0.5, seed=3)  # type: ignore[attr-defined]
    import keras

    theirs = keras.models.model_from_json(text).layers[0].kernel_initializer
    assert (theirs.stddev, theirs.seed) == (0.5, 3)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: I.RandomNormal(stddev="wide"), "RandomNormal: stddev must be a finite number, got 'wide'"),  # type: ignore[arg-type]
        (lambda: I.VarianceScaling(mode="fan"), "mode is fan_in or fan_out or fan_avg, got 'fan'"),
        (lambda: L.Dense(2, kernel_initializer="glorot"), "'glorot' is not a known initializer"),
        (lambda: kernel(I.Identity(), (2, 2)) is L.Conv1D(2, 2, kernel_initializer="identity"), None),  # type: ignore[comparison-overlap]
    ],
)
def test_wrong_initializers_are_refused(make: Callable[[], object], text: str | None) -> None:
    if text is None:
        make()
        return
    with pytest.raises(cl.ConvLoomError, match=text):
        make()


# -- layers --------------------------------------------------------------------------------------------------
def noisy(layer: Any) -> cl.CompiledNetwork:
    image = cl.Input((6, 6, 3))
    return cl.compile(cl.Model(image, layer(image)), device="cpu").train()


def draws(net: cl.CompiledNetwork, count: int = 3) -> list[torch.Tensor]:
    x = torch.linspace(1, 2, 4 * 6 * 6 * 3).reshape(4, 6, 6, 3)
    with torch.no_grad():
        return [net(x) for _ in range(count)]


LAYERS: list[Callable[[int | None], Any]] = [
    lambda seed: L.Dropout(0.5, seed=seed),
    lambda seed: L.AlphaDropout(0.5, seed=seed),
    lambda seed: L.GaussianNoise(0.5, seed=seed),
    lambda seed: L.GaussianDropout(0.5, seed=seed),
    lambda seed: L.SpatialDropout2D(0.5, seed=seed),
    lambda seed: L.RandomFlip(seed=seed),
    lambda seed: L.RandomRotation(0.3, seed=seed),
    lambda seed: L.RandomBrightness(0.3, (0, 3), seed=seed),
    lambda seed: L.RandomErasing(value_range=(0, 3), seed=seed),
]


@pytest.mark.parametrize("make", LAYERS)
def test_a_seeded_layer_draws_the_same_in_every_run(make: Callable[[int | None], Any]) -> None:
    """A stream of its own: anew at each call, and whatever else is drawn."""
    torch.manual_seed(0)
    first = draws(noisy(make(3)))
    torch.manual_seed(1)
    net = noisy(make(3))
    state = torch.get_rng_state()
    again = draws(net)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], first[1])
    other = draws(noisy(make(4)))
    assert any(not torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("make", LAYERS)
def test_a_layer_without_a_seed_follows_torch(make: Callable[[int | None], Any]) -> None:
    net = noisy(make(None))
    torch.manual_seed(0)
    first = draws(net)
    assert any(not torch.equal(a, b) for a, b in zip(first, draws(net), strict=True))
    torch.manual_seed(0)
    assert all(torch.equal(a, b) for a, b in zip(first, draws(net), strict=True))


def test_attention_has_a_seed_too() -> None:
    x = cl.Input((5, 4))
    layer = L.MultiHeadAttention(2, 3, dropout=0.5, seed=3)
    net = cl.compile(cl.Model(x, layer(x, x), seed=1), device="cpu").train()
    twin = cl.compile(copy.deepcopy(cl.Model(x, layer(x, x))), device="cpu").train()
    data = torch.randn(2, 5, 4)
    with torch.no_grad():
        assert torch.equal(net(data), twin(data))
        assert not torch.equal(net(data), net(data))


def test_two_seeded_layers_draw_apart_and_the_parts_of_one_in_turn() -> None:
    """Equal seeds give equal masks, as in Keras; one layer called twice goes on where it was."""
    x = cl.Input((50,))
    drop = L.Dropout(0.5, seed=3)
    net = cl.compile(
        cl.Model(x, [L.Dropout(0.5, seed=3)(x), drop(x), drop(x)]), device="cpu", backend="aten"
    ).train()
    with torch.no_grad():
        alone, first, second = net(torch.ones(4, 50))
    assert torch.equal(alone, first)
    assert not torch.equal(first, second)


def test_the_loss_step_and_a_pickle_go_on_with_the_stream() -> None:
    net = noisy(L.Dropout(0.5, seed=3))
    expected = draws(noisy(L.Dropout(0.5, seed=3)), 3)
    found = draws(net, 1)
    x = torch.linspace(1, 2, 4 * 6 * 6 * 3).reshape(4, 6, 6, 3)
    with torch.no_grad():
        found.append(net.with_loss("mse")(x, x)[1])
    found += draws(pickle.loads(pickle.dumps(net)), 1)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
