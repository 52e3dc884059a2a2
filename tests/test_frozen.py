"""Frozen layers and `training=False`: what transfer learning asks of a base network, as Keras does it."""

from __future__ import annotations

import copy
import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from convloom.graph import ops
from helpers import randomised

import convloom as cl
from convloom import layers as L


def base() -> cl.Model:
    image = cl.Input((6, 5, 3), name="image")
    h = L.Conv2D(4, 3, use_bias=False, name="conv")(image)
    h = L.BatchNormalization(name="norm")(h)
    h = L.Dropout(0.9, name="drop")(L.ReLU(name="relu")(h))
    return randomised(cl.Model(image, L.GlobalAveragePooling2D(name="mean")(h), name="base"))


def transfer(training: bool | None, trainable: bool = True) -> cl.Model:
    image = cl.Input((6, 5, 3), name="photo")
    body = base()
    body.trainable = trainable
    out = L.Dense(2, name="head")(body(image, training=training))
    return cl.Model(image, out, name="transfer")


def statistics(net: cl.CompiledNetwork) -> list[torch.Tensor]:
    return [value.clone() for name, value in net.state_dict().items() if "moving" in name]


def step(net: cl.CompiledNetwork, x: torch.Tensor) -> torch.Tensor:
    net.train()
    y = net(x)
    y.square().sum().backward()
    return y.detach()


@pytest.mark.parametrize("backend", ["aten", "triton"])
def test_base_called_with_training_false_does_in_training_what_it_does_in_inference(backend: str) -> None:
    net = cl.compile(transfer(training=False), device="cpu", backend=backend)
    x = torch.randn(4, 6, 5, 3, generator=torch.Generator().manual_seed(0))
    before = statistics(net)
    with torch.no_grad():
        expected = net.eval()(x)
    torch.testing.assert_close(step(net, x), expected, rtol=1e-5, atol=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(before, statistics(net), strict=True))
    # Its weights are still trained.
    gradients = {name: p.grad for name, p in net.named_parameters()}
    assert all(g is not None and g.abs().max() > 0 for g in gradients.values())
    assert len(gradients) == 5


def test_gradient_through_a_frozen_batch_norm_is_right() -> None:
    net = cl.compile(transfer(training=False), device="cpu", backend="aten", dtype="float64").train()
    names = [name for name, _ in net.named_parameters()]
    values = [p.detach().clone().requires_grad_() for p in net.parameters()]
    x = torch.randn(2, 6, 5, 3, dtype=torch.float64, requires_grad=True)

    def run(x: torch.Tensor, *values: torch.Tensor) -> Any:
        return torch.func.functional_call(net, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *values))


def test_frozen_batch_norm_keeps_its_statistics_and_dropout_still_drops() -> None:
    """In Keras trainable=False freezes a batch norm's statistics too; a dropout has no weights to freeze."""
    model = transfer(training=None, trainable=False)
    graph = model.to_graph()
    assert [node.op.frozen for node in graph.nodes() if isinstance(node.op, ops.BatchNorm)] == [True]
    net = cl.compile(model, device="cpu", backend="aten")
    assert [name for name, p in net.named_parameters() if p.requires_grad] == ["head/kernel", "head/bias"]
    x = torch.randn(4, 6, 5, 3)
    before = statistics(net)
    first, second = step(net, x), step(net, x)
    assert all(torch.equal(a, b) for a, b in zip(before, statistics(net), strict=True))
    assert not torch.equal(first, second)


def test_frozen_base_is_folded_in_training_too() -> None:
    """What is not trained runs in the kernels of inference; the fold is computed once."""
    model = transfer(training=False, trainable=False)
    net = cl.compile(model, device="cpu", backend="aten").train()
    x, target = torch.randn(4, 6, 5, 3), torch.randn(4, 2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    folded: list[torch.Tensor] = []
    for _ in range(2):
        optimizer.zero_grad()
        (net(x) - target).square().mean().backward()
        optimizer.step()
        (executor,) = net._executors.values()
        folded.append(executor.prelude.values["base/norm/folded_kernel"])
    assert not any(isinstance(node.op, ops.BatchNorm) for node in executor.program.graph.nodes())
    assert folded[0] is folded[1]
    # A write into a frozen weight is seen all the same.
    with torch.no_grad():
        before = net.eval()(x)
        net.state_dict()["base/conv/kernel"].mul_(2.0)
        assert not torch.allclose(net(x), before)


@pytest.mark.parametrize("training", [True, False])
def test_a_loss_step_follows_frozen_weights_written_through_data(training: bool) -> None:
    """`train()` and `eval()` say so to the network with the loss too, where the mode stays the same."""
    net = cl.compile(transfer(training=False, trainable=False), device="cpu", backend="aten").train(training)
    loss_step, x, target = net.with_loss("mse"), torch.randn(4, 6, 5, 3), torch.randn(4, 2)
    with torch.no_grad():
        loss_step(x, target)
        net.weights()["base/conv/kernel"].data.mul_(2.0)
        net.train(training)
        torch.testing.assert_close(loss_step(x, target)[1], net(x))


def test_gradients_in_eval_mode_follow_weights_written_through_data() -> None:
    model = transfer(training=False)
    net, fresh = (cl.compile(copy.deepcopy(model), device="cpu", backend="aten") for _ in range(2))
    x = torch.randn(4, 6, 5, 3)
    net(x).sum().backward()
    net.zero_grad()
    for both in (net, fresh):
        for p in both.parameters():
            p.data.mul_(1.5)
        both(x).sum().backward()
    for found, expected in zip(net.parameters(), fresh.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad)


def test_trained_weights_are_not_folded_in_training() -> None:
    net = cl.compile(transfer(training=False), device="cpu", backend="aten").train()
    net(torch.randn(2, 6, 5, 3))
    (program,) = net._programs.values()
    assert "base/conv/kernel is trained" in program.explain()


def test_keras_reads_what_training_false_wrote(tmp_path: Path) -> None:
    """As Keras 2 and Keras's guide to transfer learning have it; Keras 3.15's own `fit` overrides it."""
    import keras

    model = transfer(training=False)
    model.save(tmp_path / "net.keras")
    theirs = keras.models.load_model(tmp_path / "net.keras")
    x = np.random.default_rng(0).standard_normal((4, 6, 5, 3), np.float32)
    expected = keras.ops.convert_to_numpy(theirs(x, training=False))
    for mine in (model, cl.load(tmp_path / "net.keras"), cl.loads(theirs.to_json())):
        mine.set_weights(model.get_weights())
        net = cl.compile(mine, device="cpu", backend="aten").train()
        with torch.no_grad():
            found = net(torch.from_numpy(x)).numpy()
        assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
    text = json.loads(model.to_json())
    assert text["config"]["layers"][1]["inbound_nodes"][0]["kwargs"] == {"training": False}


RANDOM = {
    "Dropout": lambda k, x: k.layers.Dropout(0.5)(x),
    "AlphaDropout": lambda k, x: k.layers.AlphaDropout(0.5)(x),
    "GaussianNoise": lambda k, x: k.layers.GaussianNoise(0.5)(x),
    "GaussianDropout": lambda k, x: k.layers.GaussianDropout(0.5)(x),
    "SpatialDropout1D": lambda k, x: k.layers.SpatialDropout1D(0.5)(x),
    "Attention": lambda k, x: k.layers.Attention(dropout=0.5)([x, x]),
    "AdditiveAttention": lambda k, x: k.layers.AdditiveAttention(dropout=0.5)([x, x]),
    "MultiHeadAttention": lambda k, x: k.layers.MultiHeadAttention(1, 2, dropout=0.5)(x, x),
}


@pytest.mark.parametrize("ending", [".keras", ".h5", ".json"])
@pytest.mark.parametrize("name", RANDOM)
def test_what_is_random_in_files_of_keras_is_so_in_training(name: str, ending: str, tmp_path: Path) -> None:
    """Keras 3 writes training=False of every call of these, whatever was said."""
    import keras

    image = keras.Input((5, 6), name="x")
    theirs = keras.Model(image, keras.layers.Dense(2)(RANDOM[name](keras, image)))
    path = tmp_path / f"net{ending}"
    path.write_text(theirs.to_json()) if ending == ".json" else theirs.save(path)
    model = cl.load(path)
    model.save(tmp_path / "again.keras")
    for mine in (model, cl.load(tmp_path / "again.keras")):
        net = cl.compile(mine, device="cpu", backend="aten")
        x = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            still = net(x)
            assert not torch.allclose(net.train()(x), still)


def test_spectral_normalization_of_a_file_is_not_trained() -> None:
    import keras

    image = keras.Input((5, 6), name="x")
    h = keras.layers.SpectralNormalization(keras.layers.Conv1D(2, 3))(image)
    net = cl.compile(cl.loads(keras.Model(image, h).to_json()))
    with pytest.raises(cl.CompileError, match="cannot be trained"):
        net.train()(torch.zeros(1, 5, 6))


def test_keras_says_training_of_the_same_layers() -> None:
    """Defaults of Keras's calls, which it writes; None of them it writes where somebody said it."""
    import keras
    from convloom.frontends.layers import DECLARATIONS

    for name, layer in DECLARATIONS.items():
        theirs = getattr(keras.layers, name, None)
        said = inspect.signature(theirs.call).parameters.get("training") if theirs is not None else None
        if said is not None:
            assert layer.said_training is said.default, name


def test_training_false_of_a_dropout_is_no_word_of_files() -> None:
    """Of Keras 2's it is: there it stands where somebody said it."""
    image = cl.Input((5, 6), name="x")
    model = cl.Model(image, L.Dropout(0.5, name="d")(image, training=False))
    x = torch.ones(2, 5, 6)
    assert torch.equal(cl.compile(model).train()(x), x)
    with pytest.raises(cl.UnsupportedLayerError, match=r"Dropout 'd': is called with training=False, which"):
        model.to_json()
    layers = [
        {"class_name": "InputLayer", "name": "x", "inbound_nodes": [],
         "config": {"name": "x", "batch_input_shape": [None, 5, 6], "dtype": "float32"}},
        {"class_name": "Dropout", "name": "d", "config": {"name": "d", "rate": 0.5},
         "inbound_nodes": [[["x", 0, 0, {"training": False}]]]},
    ]  # fmt: skip
    ends = {"input_layers": [["x", 0, 0]], "output_layers": [["d", 0, 0]]}
    keras_2 = {"class_name": "Functional", "config": {"name": "m", "layers": layers, **ends}}
    assert torch.equal(cl.compile(cl.loads(keras_2)).train()(x), x)


def test_training_true_is_refused() -> None:
    with pytest.raises(cl.UnsupportedLayerError, match=r"Dropout 'd': can be called with training=F"):
        L.Dropout(0.5, name="d")(cl.Input((3,)), training=True)


def test_keras_freezes_the_slopes_of_a_frozen_layer(tmp_path: Path) -> None:
    import keras

    x = cl.Input((3,))
    model = cl.Model(x, L.Dense(2, activation=L.PReLU(name="slope"), trainable=False, name="d")(x))
    model.save(tmp_path / "net.keras")
    assert not any(slot.trainable for slot in cl.load(tmp_path / "net.keras").slots())
    theirs = keras.models.load_model(tmp_path / "net.keras")
    theirs(np.zeros((1, 3), np.float32))
    assert [v.path for v in theirs.trainable_variables] == []


def test_a_model_read_as_frozen_is_saved_as_free_once_it_is(tmp_path: Path) -> None:
    import keras

    x = keras.Input((3,))
    frozen = keras.Model(x, keras.layers.Dense(2)(x))
    frozen.trainable = False
    model = cl.loads(frozen.to_json())
    assert json.loads(model.to_json())["config"]["trainable"] is False
    model.trainable = True
    assert json.loads(model.to_json())["config"]["trainable"] is True
    assert len(keras.models.model_from_json(model.to_json()).trainable_variables) == 2


def test_packed_copies_of_frozen_weights_follow_them() -> None:
    """Weights that stay over the steps of training are packed once, and anew when they are written to."""
    image = cl.Input((12, 11, 64), name="image")
    h = L.Conv2D(64, 3, name="body", trainable=False)(image)
    model = randomised(cl.Model(image, L.Conv2D(3, 1, name="head")(h)))
    net = cl.compile(model, device="cpu", backend="aten").train()
    exact = cl.compile(model, device="cpu", backend="aten", fuse=False).train()
    x = torch.randn(2, 12, 11, 64)
    for _ in range(2):
        torch.testing.assert_close(net(x), exact.eval()(x), rtol=1e-4, atol=1e-4)
    for each in (net, exact):
        with torch.no_grad():
            each.state_dict()["body/kernel"].mul_(-2.0)
    torch.testing.assert_close(net(x), exact(x), rtol=1e-4, atol=1e-4)
