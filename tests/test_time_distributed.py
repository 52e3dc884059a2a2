"""TimeDistributed: files, training step for step against Keras's meaning, freezing, and what is refused."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from convloom.graph import ops
from keras_networks import images, outputs, randomised

import convloom as cl
from convloom import layers as L

STEPS = 3


def frame() -> cl.Model:
    x = cl.Input((6, 5, 2))
    h = L.BatchNormalization(name="norm")(L.Conv2D(4, 3, activation="relu", name="conv")(x))
    return randomised(
        cl.Model(x, L.Dense(3, name="top")(L.GlobalAveragePooling2D(name="mean")(h)), name="frame")
    )


def video(inner: Any = None) -> cl.Model:
    x = cl.Input((STEPS, 6, 5, 2), name="x")
    return cl.Model(
        x, L.Flatten(name="flat")(L.TimeDistributed(inner or frame(), name="each")(x)), name="video"
    )


def unrolled(inner: cl.Model) -> cl.Model:
    """The same by hand: the model called on each step."""
    x = cl.Input((STEPS, 6, 5, 2), name="x")
    return cl.Model(x, L.concatenate([inner(x[:, t]) for t in range(STEPS)], axis=-1))


def test_a_model_inside_keeps_its_weights_and_shares_them() -> None:
    inner = frame()
    model, x = video(inner), images(2, STEPS, 6, 5, 2)
    assert next(iter(model.parameters)) == "each/conv/kernel"
    assert model.count_params() == inner.count_params()
    assert model.get_layer("each").count_params() == inner.count_params()  # type: ignore[attr-defined]
    each = [outputs(inner, x[:, t])[0] for t in range(STEPS)]
    np.testing.assert_allclose(outputs(model, x)[0], np.concatenate(each, -1), atol=1e-6)
    inner.parameters["top/bias"] = np.float32([7, 8, 9])  # type: ignore[arg-type]
    assert model.parameters["each/top/bias"].tolist() == [7, 8, 9]


@pytest.mark.parametrize("backend", ["aten", "triton"])
def test_training_is_that_of_the_steps_in_turn(backend: str) -> None:
    """Batch statistics of each step, gradients of all of them."""
    inner, x = frame(), torch.from_numpy(images(4, STEPS, 6, 5, 2))
    found = []
    for model in (video(inner), unrolled(inner)):
        net = cl.compile(model, device="cpu", backend=backend).train()
        net(x).square().sum().backward()
        found.append({name: p.grad for name, p in net.named_parameters() if p.grad is not None})
    assert len(found[0]) == len(found[1]) == 6
    for mine, expected in zip(found[0].values(), found[1].values(), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def test_gradients_are_those_of_torch() -> None:
    model = cl.Sequential([cl.Input((STEPS, 6, 5, 2)), L.TimeDistributed(L.Conv2D(3, 3, activation="tanh"))])
    x = torch.from_numpy(images(2, STEPS, 6, 5, 2))
    net = cl.compile(model, device="cpu").train()
    net(x).square().sum().backward()
    kernel, bias = (torch.from_numpy(w).double().requires_grad_() for w in model.get_weights())
    frames = x.double().flatten(0, 1).permute(0, 3, 1, 2)
    torch.tanh(torch.nn.functional.conv2d(frames, kernel.permute(3, 2, 0, 1), bias)).square().sum().backward()
    for parameter, weight in zip(net.parameters(), (kernel, bias), strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad.double(), weight.grad, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    "inner", [frame, lambda: L.Conv2D(3, 3, name="c"), lambda: L.TimeDistributed(L.Conv1D(2, 3))]
)
def test_saved_and_read_here_and_in_keras(inner: Any, tmp_path: Path) -> None:
    import keras

    model, x = randomised(video(inner())), images(2, STEPS, 6, 5, 2)
    model.save(tmp_path / "net.keras")
    model.save_weights(tmp_path / "net.weights.h5")
    again = cl.load(tmp_path / "net.keras")
    np.testing.assert_array_equal(outputs(again, x)[0], outputs(model, x)[0])
    assert json.loads(again.to_json()) == json.loads(model.to_json())
    theirs = keras.models.load_model(tmp_path / "net.keras")
    np.testing.assert_allclose(keras.ops.convert_to_numpy(theirs(x)), outputs(model, x)[0], atol=1e-5)
    theirs.load_weights(tmp_path / "net.weights.h5")
    theirs.save(tmp_path / "old.h5")
    for name in ("old.h5", "theirs.keras"):
        theirs.save(tmp_path / name)
        np.testing.assert_array_equal(outputs(cl.load(tmp_path / name), x)[0], outputs(model, x)[0])


def test_frozen_outside_freezes_inside() -> None:
    model = video()
    model.get_layer("each").trainable = False  # type: ignore[attr-defined]
    assert [slot.name for slot in model.slots() if slot.trainable] == []
    assert all(node.op.frozen for node in model.to_graph().nodes() if isinstance(node.op, ops.BatchNorm))
    model.trainable = True
    assert any(slot.trainable for slot in model.slots())
    base = frame()
    base.trainable = False
    assert not any(slot.trainable for slot in video(base).slots())  # wrapping it does not free it
    assert not any(slot.trainable for slot in video(L.Conv2D(2, 3, trainable=False)).slots())
    still = video(L.BatchNormalization(trainable=False)).to_graph()
    assert all(node.op.frozen for node in still.nodes() if isinstance(node.op, ops.BatchNorm))


def test_what_works_on_the_last_axis_takes_all_steps_at_once() -> None:
    x = cl.Input((2000, 6))
    for layer in (L.Dense(3, activation="softmax"), L.Activation("relu"), L.LeakyReLU()):
        assert len(cl.compile(cl.Model(x, L.TimeDistributed(layer)(x)), device="cpu").kernels) == 1


def test_files_of_keras_2_mean_their_own_hard_sigmoid_inside() -> None:
    inner = {"class_name": "Dense", "config": {"name": "d", "units": 2, "activation": "hard_sigmoid"}}
    layers = [
        {"class_name": "InputLayer", "config": {"name": "x", "batch_input_shape": [None, 3, 4]}},
        {"class_name": "TimeDistributed", "config": {"name": "t", "layer": inner}},
    ]
    text = {"class_name": "Sequential", "keras_version": "2.12.0", "config": {"name": "s", "layers": layers}}
    (layer,) = cl.loads(text).layers
    assert layer.layer.activation == "keras_2_hard_sigmoid"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda: L.TimeDistributed(L.Dense(2))(cl.Input((4,))), "takes (N, steps, ...) of 3 axes at least"),
        (lambda: L.TimeDistributed(L.Conv2D(2, 9))(cl.Input((2, 6, 5, 3))), "a window of 9x9"),
        (lambda: L.TimeDistributed(L.Flatten())(cl.Input((5000, 6, 5))), "computes 5,000 steps in turn"),
        (lambda: L.TimeDistributed("dense"), "layer must be a layer such as Dense(10), got str 'dense'"),  # type: ignore[arg-type]
        (lambda: video(frame())(cl.Input((STEPS, 7, 5, 2))), "takes float32[N,3,6,5,2]"),
        (
            lambda: L.TimeDistributed(cl.Model(x := cl.Input((4,)), [x * 2, x * 3]))(cl.Input((2, 4))),
            "has several outputs; give it one",
        ),
    ],
)
def test_wrong_uses_are_named(wrong: Any, text: str) -> None:
    with pytest.raises(cl.ConvLoomError) as caught:
        wrong()
    assert text in str(caught.value)


def test_code_inside_a_model_inside_is_refused() -> None:
    data = json.loads(video().to_json())
    config = data["config"]["layers"][1]["config"]["layer"]["config"]
    config["layers"][1] |= {"class_name": "Lambda"}
    with pytest.raises(cl.UnsafeModelError, match=r"layers\[1\] 'each'.*Lambda"):
        cl.loads(data)


def test_steps_of_steps_of_steps_stop_in_time() -> None:
    layer: L.Layer = L.Flatten()
    for _ in range(3):
        layer = L.TimeDistributed(layer)
    with pytest.raises(cl.ConvLoomError, match="grows beyond 100,000 layer calls"):
        layer(cl.Input((999, 999, 999, 2)))


@pytest.mark.parametrize(
    "around",
    [
        lambda k: k.layers.TimeDistributed(
            k.layers.Dense(3, activity_regularizer="l2", kernel_regularizer="l1")
        ),
        lambda k: k.layers.TimeDistributed(k.layers.Dense(3), activity_regularizer="l2"),
        lambda k: k.layers.TimeDistributed(
            k.Sequential([k.layers.Input((4,)), k.layers.Dense(3, activity_regularizer="l2")])
        ),
    ],
    ids=["of the layer", "of all steps", "of a model's layer"],
)
def test_what_counts_in_the_loss_is_what_keras_counts(around: Any) -> None:
    """Of the layer inside its weights, but not what each of its calls would add; of a model inside, both."""
    import keras

    x, y = images(2, STEPS, 4), images(2, STEPS, 3)
    there = keras.Input((STEPS, 4))
    theirs = keras.Model(there, around(keras)(there))
    here = cl.Input((STEPS, 4))
    model = cl.Model(here, around(cl)(here))
    model.set_weights(theirs.get_weights())
    error = keras.ops.convert_to_numpy(theirs(x)) - y
    expected = (error**2).mean() + sum(float(loss.detach()) for loss in theirs.losses)
    net = cl.compile(model, device="cpu")
    still = torch.optim.SGD(net.parameters(), 0.0)
    history = cl.fit(net, (x, y), loss="mse", optimizer=still, epochs=1, verbose=False)
    assert history.history["loss"][0] == pytest.approx(expected, rel=1e-5)


def test_it_is_pickled_with_the_model_inside() -> None:
    model, x = video(), images(2, STEPS, 6, 5, 2)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(outputs(again, x)[0], outputs(model, x)[0])
    assert again.to_json() == model.to_json()
