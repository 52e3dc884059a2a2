"""Training in bfloat16 and float16: Keras's mixed policies, its loss scale, and weights in float32."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from convloom.graph.types import DTYPES
from convloom.runtime.step_result import StepResult
from convloom.runtime.stepping import Stepper, make_stepper

import convloom as cl
from convloom import layers as L

HALF = ["float16", "bfloat16"]
X = np.random.default_rng(0).normal(size=(24, 7, 5, 3)).astype(np.float32)
Y = np.eye(3, dtype=np.float32)[np.random.default_rng(1).integers(0, 3, 24)]


def of_keras(half: str, last: str | None = "float32") -> Any:
    """A network of Keras's under its mixed policy, whose softmax has another."""
    keras.utils.set_random_seed(3)
    policy = f"mixed_{half}"
    k, image = keras.layers, keras.Input((7, 5, 3))
    h = k.Conv2D(5, 3, dtype=policy, name="conv")(image)
    h = k.BatchNormalization(dtype=policy, name="bn")(h)
    h = k.Flatten(dtype=policy)(k.ReLU(dtype=policy)(h * 0.5))
    h = k.Dense(3, dtype=policy, name="head")(h)
    return keras.Model(image, k.Activation("softmax", dtype=last or policy, name="last")(h))


# -- policies of files ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("half", HALF)
def test_a_file_says_what_to_compute_in(half: str, tmp_path: Path) -> None:
    theirs = of_keras(half)
    theirs.save(tmp_path / "net.keras")
    model = cl.load(tmp_path / "net.keras")
    assert model.policies is not None
    assert (model.policies.dtype, model.policies.wide) == (half, frozenset({"last"}))
    net = cl.compile(model, device="cpu")
    assert net.options.dtype == half
    kinds = {node.name: node.type.dtype for node in net.source.nodes()}
    assert [kinds[name] for name in ("conv", "bn", "head", "last")] == [half, half, half, "float32"]
    y = net(X)
    assert y.dtype == torch.float32
    np.testing.assert_allclose(
        y.numpy(), theirs.predict(X, verbose=0), atol=4 * torch.finfo(DTYPES[half]).eps
    )
    assert cl.compile(model, device="cpu", dtype="float32")(X).dtype == torch.float32
    texts = cl.emit(model, tmp_path / "kernels")
    assert half in (tmp_path / "kernels" / "README.md").read_text()
    assert texts
    again = cl.loads(model.to_json())
    assert again.policies == model.policies


def test_what_is_not_mixed_stays_float32() -> None:
    for config in (of_keras("float16").to_json().replace("mixed_float16", "float16"), small().to_json()):
        model = cl.loads(config)
        assert model.policies is None
        assert cl.compile(model, device="cpu").options.dtype == "float32"


def test_policies_of_keras_2_and_of_models_inside() -> None:
    dense = keras.layers.Dense(3, dtype="mixed_bfloat16", name="a")
    inner = keras.Sequential([keras.Input((4,)), dense], name="base")
    image = keras.Input((4,))
    config = json.loads(keras.Model(image, keras.layers.Dense(2, name="b")(inner(image))).to_json())
    found = cl.loads(config).policies
    assert found is not None
    assert (found.dtype, found.wide) == ("bfloat16", frozenset({"b"}))
    net = cl.compile(cl.loads(config), device="cpu")
    assert {n.name: n.type.dtype for n in net.source.nodes()}["base/a"] == "bfloat16"
    old = {
        "class_name": "Sequential",
        "config": {
            "name": "old",
            "layers": [
                {
                    "class_name": "Dense",
                    "config": {
                        "name": "d", "units": 2, "batch_input_shape": [None, 3],
                        "dtype": {"class_name": "Policy", "config": {"name": "mixed_float16"}},
                    },
                }
            ],
        },
    }  # fmt: skip
    assert cl.compile(cl.loads(old), device="cpu").options.dtype == "float16"


def test_two_mixed_policies_are_for_the_user_to_settle() -> None:
    config = of_keras("float16", "mixed_bfloat16").to_json()
    model = cl.loads(config)
    with pytest.raises(cl.CompileError, match="some of its layers have the policy mixed_float16, others"):
        cl.compile(model, device="cpu")
    assert cl.compile(model, device="cpu", dtype="bfloat16").options.dtype == "bfloat16"


# -- training against Keras ----------------------------------------------------------------------------------
@pytest.mark.parametrize("last", ["float32", None])
@pytest.mark.parametrize("half", HALF)
def test_training_follows_keras(half: str, last: str | None) -> None:
    """A few epochs: losses to the dtype's precision, weights to a few of its steps of the way they went.

    float16: both begin with a scale under which gradients overflow, and leave the same steps out.
    """
    theirs = of_keras(half, last)
    model = cl.loads(theirs.to_json())
    model.set_weights(theirs.get_weights())
    start = model.get_weights()
    net = cl.compile(model, device="cpu")
    optimizer = keras.optimizers.SGD(0.05, momentum=0.5)
    if half == "float16":  # which Keras does by itself where the policy is everybody's
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    theirs.compile(optimizer, "categorical_crossentropy", run_eagerly=True)
    expected = theirs.fit(X, Y, batch_size=8, epochs=4, shuffle=False, verbose=0)
    found = cl.fit(
        net, (X, Y), "categorical_crossentropy", cl.optimizers.SGD(0.05, momentum=0.5), batch_size=8,
        epochs=4, shuffle=False, verbose=False,
    )  # fmt: skip
    eps = torch.finfo(DTYPES[half]).eps
    np.testing.assert_allclose(found.history["loss"], expected.history["loss"], rtol=4 * eps)
    for ours, wanted, before in zip(model.get_weights(), theirs.get_weights(), start, strict=True):
        assert np.abs(ours - wanted).max() <= 16 * eps * max(np.abs(wanted - before).max(), 0.05)
    assert {p.dtype for p in (*net.parameters(), *net.buffers())} == {torch.float32}


def small(name: str = "small") -> cl.Model:
    image = cl.Input((7, 5, 3))
    h = L.BatchNormalization()(L.Conv2D(4, 3)(image))
    return cl.Model(image, L.Dense(3, activation="softmax")(L.Flatten()(h)), name=name, seed=5)


@pytest.mark.parametrize("half", HALF)
def test_kernels_train_as_aten_does(half: str) -> None:
    """In Triton's interpreter: weights, gradients and statistics are float32, and so is the loss."""
    results = []
    for backend in ("aten", "triton"):
        model = small()
        net = cl.compile(model, device="cpu", backend=backend, dtype=half)
        step = net.with_loss("categorical_crossentropy")
        stepper = make_stepper(net, cl.optimizers.LossScaleOptimizer(cl.optimizers.SGD(0.05), 256.0))
        net.train()
        for start in (0, 3):
            compute = partial(step, X[start : start + 3], Y[start : start + 3])
            result = stepper.step(lambda compute=compute: as_result(compute()))  # type: ignore[misc]
            assert result.loss.dtype == torch.float32
            assert {p.grad.dtype for p in net.parameters() if p.grad is not None} == {torch.float32}
        assert {b.dtype for b in net.buffers()} == {torch.float32}
        assert stepper.skipped == 0
        results.append(model.get_weights())
    for ours, wanted in zip(*results, strict=True):
        np.testing.assert_allclose(ours, wanted, atol=8 * torch.finfo(DTYPES[half]).eps * 0.1)


def as_result(found: tuple[torch.Tensor, torch.Tensor]) -> StepResult:
    return StepResult(found[0], found[:1], found[1:])


# -- the loss scale ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("accumulated", [None, 2])
def test_the_scale_is_kerass(accumulated: int | None) -> None:
    """Halved and the step left out where a gradient is infinite or NaN, doubled after so many others."""
    options = {"gradient_accumulation_steps": accumulated, "clipnorm": 1.0}
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    net = torch.nn.ParameterList([weight])
    inner = cl.optimizers.Adam(0.1, **options)  # type: ignore[arg-type]
    ours = make_stepper(net, cl.optimizers.LossScaleOptimizer(inner, 64.0, 3))
    variable = keras.Variable(weight.detach().numpy().copy())
    theirs = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.1, **options), 64.0, 3)
    theirs.build([variable])
    slopes = [1.0, 3.0, float("inf"), 2.0, 1.0, 1.0, 1.0, float("nan"), 1.0, 4.0, 1.0, 1.0, 1.0]
    for slope in slopes:
        given = torch.tensor([slope, 1.0])
        theirs.apply([given * float(theirs.dynamic_scale)], [variable])
        ours.step(lambda given=given: as_result(((weight * given).sum(), weight)))  # type: ignore[misc]
        assert ours.scaler is not None
        assert ours.scaler.get_scale() == float(theirs.dynamic_scale)
        assert (ours.skipped > 0) == (not np.isfinite(slope))
        wanted = keras.ops.convert_to_numpy(variable)
        np.testing.assert_allclose(weight.detach().numpy(), wanted, rtol=0, atol=1e-5)


def fit(net: Any, x: Any, optimizer: Any = "sgd", **options: Any) -> cl.History:
    given: dict[str, Any] = {"batch_size": 8, "shuffle": False, "verbose": False, **options}
    return cl.fit(net, (x, Y), "categorical_crossentropy", optimizer, **given)


class Watch(cl.Callback):
    """How many steps in a row were left out, and the scale, after each batch."""

    def __init__(self) -> None:
        self.skipped: list[int] = []
        self.scales: list[float] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        assert self.stepper is not None
        assert self.stepper.scaler is not None
        self.skipped.append(self.stepper.skipped)
        self.scales.append(self.stepper.scaler.get_scale())


def test_float16_recovers_from_overflow() -> None:
    """A scale far too large is halved until the gradients fit; the network then learns."""
    net, watch = cl.compile(small(), device="cpu", dtype="float16"), Watch()
    optimizer = cl.optimizers.LossScaleOptimizer("adam", 2.0**26)
    history = fit(net, X, optimizer, epochs=12, callbacks=[watch], learning_rate=0.01)
    assert watch.skipped[:2] == [1, 2]
    assert watch.skipped[-10:] == [0] * 10
    assert watch.scales[-1] < 2.0**24
    assert history.history["loss"][-1] < 0.3 * history.history["loss"][0]
    plain, watch = cl.compile(small(), device="cpu", dtype="float16"), Watch()
    fit(plain, X, callbacks=[watch])
    assert max(watch.scales) <= 2.0**15  # which fit has by itself


def test_a_batch_beyond_float16_is_left_out() -> None:
    """Not a weight and no statistic keeps a trace of values that overflow on the way forward."""
    model = small()
    net = cl.compile(model, device="cpu", dtype="float16")
    x = X.copy()
    x[8:16] *= 1e5  # infinite in float16
    watch = Watch()
    fit(net, x, epochs=3, callbacks=[watch])
    assert [count > 0 for count in watch.skipped][1::3] == [True] * 3
    assert all(np.isfinite(value).all() for value in model.get_weights())
    assert bool(torch.isfinite(net(X)).all())


def test_what_overflows_for_ever_stops() -> None:
    model = small()
    net = cl.compile(model, device="cpu", dtype="float16")
    before = model.get_weights()
    with pytest.raises(cl.ConvLoomError, match=r"gradients of 40 steps in a row were NaN .* Use bfloat16"):
        fit(net, X * 1e6, epochs=20)
    for ours, wanted in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, wanted)
    fit(net, X * 1e6, epochs=20, stop_on_nan=False)


def test_a_fixed_scale_stands_instead() -> None:
    net = cl.compile(small(), device="cpu", dtype="float16")
    assert make_stepper(net, "adam").scaler is not None
    assert make_stepper(net, cl.optimizers.Adam(loss_scale_factor=128.0)).scaler is None
    assert make_stepper(cl.compile(small(), device="cpu", dtype="bfloat16"), "adam").scaler is None
    assert isinstance(make_stepper(net, "adam"), Stepper)
