"""`debug_nan=True` names the layer and the op that made the first value which is not finite."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from convloom.graph.errors import ConvLoomError

import convloom as cl
from convloom import layers as L

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(12, 6, 5, 2)).astype(np.float32)
Y = RANDOM.normal(size=(12, 3)).astype(np.float32)


def network(middle: Any, backend: str = "aten") -> cl.CompiledNetwork:
    """Two layers with something between."""
    image = cl.Input((6, 5, 2))
    h = L.Conv2D(4, 3, name="conv")(image)
    h = middle(h)
    h = L.Dropout(0.3)(L.Dropout(0.3, seed=2)(h))
    h = L.Dense(3, name="head")(L.Flatten()(h))
    return cl.compile(cl.Model(image, h, seed=1), device="cpu", backend=backend)


def steep(h: Any) -> Any:
    """0 everywhere, and in the backward pass too steep for float32 where its slopes are multiplied."""
    zero = L.Rescaling(0.0)(h)
    gate = L.Rescaling(1e25)(zero)
    return L.Multiply(name="steep")([gate, L.Rescaling(1e25, offset=1e25)(zero)])


def told(net: cl.CompiledNetwork, x: Any = X, y: Any = Y, **options: Any) -> str:
    before = {name: value.clone() for name, value in net.state_dict().items()}
    options = {"loss": "mse", "optimizer": "sgd", "batch_size": 12, "verbose": False, **options}
    with pytest.raises(ConvLoomError, match="training stopped at step 1") as raised:
        cl.fit(net, (x, y), debug_nan=True, **options)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    return str(raised.value)


@pytest.mark.parametrize("backend", ["aten", "triton"])
def test_a_forward_op_is_named(backend: str) -> None:
    text = told(network(lambda h: cl.ops.log(h), backend))
    assert "the first value that is not finite comes from layer 'log', op log: " in text
    assert " NaN, the rest " in text
    assert ", computed from -" in text


@pytest.mark.parametrize("backend", ["aten", "triton"])
def test_a_backward_op_is_named(backend: str) -> None:
    text = told(network(steep, backend))
    assert "comes from layer 'rescaling_1', op scale of the backward pass: " in text, text
    assert " infinite" in text


def test_a_batch_norm_in_front_is_not_blamed() -> None:
    """Its statistics moved in the failing step, and are put back."""
    text = told(network(lambda h: cl.ops.log(L.BatchNormalization(name="norm")(h))))
    assert "comes from layer 'log', op log: " in text


def test_the_batch_itself() -> None:
    spoiled = X.copy()
    spoiled[3, 2, 1, 0] = np.inf
    text = told(network(lambda h: h), spoiled)
    assert "comes from layer 'input_layer', input: 1 infinite, the rest -" in text
    assert "the batch's x holds NaN or infinite values" in text


def test_a_loss_of_ones_own() -> None:
    def root(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return prediction.sqrt().mean()

    text = told(network(lambda h: h), loss=root)
    assert "the network's outputs are finite, and the loss function makes 1 NaN of them" in text


def test_the_optimizer() -> None:
    text = told(network(lambda h: h), optimizer="sgd", learning_rate=1e38, x=X * 1e4)
    assert "loss and gradients are finite, and the optimizer's step made the weights so" in text
    assert "is that of " in text


def test_the_draws_are_those_of_the_step() -> None:
    """A value that is not finite only where dropout has left something: found though draws go on."""
    net = network(lambda h: cl.ops.log(L.ReLU()(L.Dropout(0.5, name="dropped")(h))))
    assert "layer 'log', op log" in told(net, seed=4)


def test_it_finds_the_step_that_fails_and_not_an_earlier_one() -> None:
    spoiled = X.copy()
    spoiled[10] = np.nan
    text = "stopped at step 3: .* comes from layer 'input_layer', input: 60 NaN, "
    with pytest.raises(ConvLoomError, match=text):
        cl.fit(
            network(lambda h: h), (spoiled, Y), loss="mse", debug_nan=True, stop_on_nan=False, batch_size=4,
            shuffle=False, verbose=False,
        )  # fmt: skip


def test_nothing_is_said_without_it() -> None:
    with pytest.raises(ConvLoomError, match="training stopped at step 1") as raised:
        cl.fit(network(lambda h: cl.ops.log(h)), (X, Y), loss="mse", batch_size=12, verbose=False)
    assert "comes from" not in str(raised.value)
    assert "debug_nan=True) names the layer" in str(raised.value)
