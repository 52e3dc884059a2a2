"""Regularizers and constraints against a live Keras: values, gradients, and training step for step."""

from __future__ import annotations

import dataclasses
import inspect
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from convloom.frontends.layers import DECLARATIONS
from convloom.graph import ops

import convloom as cl
from convloom import layers as L

ATEN = [{}, {"fuse": False}]


@pytest.fixture(scope="module")
def keras() -> Any:
    import keras

    keras.utils.set_random_seed(3)
    return keras


def images(*shape: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def one_hot(count: int, classes: int = 3) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[np.random.default_rng(5).integers(0, classes, count)]


def imported(theirs: Any) -> cl.Model:
    """What ConvLoom reads of a Keras model."""
    with tempfile.TemporaryDirectory() as folder:
        theirs.save(f"{folder}/net.keras")
        return cl.load(f"{folder}/net.keras")


def assert_same_weights(model: cl.Model, net: cl.CompiledNetwork, theirs: Any) -> None:
    mine = net.weights()
    for name, other in zip(model.parameters, theirs.get_weights(), strict=True):
        np.testing.assert_allclose(mine[name].detach().numpy(), other, atol=1e-5, err_msg=name)


def assert_same_penalty(
    model: cl.Model, theirs: Any, inputs: list[np.ndarray], numbers: bool = False, **options: Any
) -> float:
    """What is counted, and the gradients of it and of the outputs together, in inference.

    numbers: whether the inputs are whole numbers, which have no gradient.
    """
    given = [torch.tensor(x, requires_grad=not numbers) for x in inputs]
    results = theirs(given if len(given) > 1 else given[0], training=False)
    results = results if isinstance(results, list | tuple) else [results]
    expected = sum(theirs.losses)
    total = expected + sum((y * y).mean() for y in results)
    weights = [weight.value for weight in theirs.trainable_weights]
    by = [] if numbers else given
    wanted = torch.autograd.grad(total, [*by, *weights])
    net = cl.compile(model, **options)
    predictions, penalty = net.with_penalty()(*given)
    predictions = predictions if isinstance(predictions, tuple) else (predictions,)
    torch.testing.assert_close(penalty.detach(), expected.detach(), rtol=1e-5, atol=1e-6)
    total = penalty + sum((y * y).mean() for y in predictions)
    held = net.weights()
    mine = [held[name] for name in model.parameters if name in held and held[name].requires_grad]
    found = torch.autograd.grad(total, [*by, *mine])
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    return float(penalty.detach())


# -- training ------------------------------------------------------------------------------------------------
def with_everything(keras: Any) -> Any:
    """Every regularizer and every constraint, batch norm between them."""
    k, r, c = keras.layers, keras.regularizers, keras.constraints
    x = keras.Input((7, 6, 3), name="x")
    h = k.Conv2D(
        *(5, 3),
        activation="relu",
        kernel_regularizer="l2",
        activity_regularizer=r.L1L2(0.001, 0.002),
        kernel_constraint=c.MaxNorm(0.6, axis=[0, 1, 2]),
        name="conv",
    )(x)
    h = k.BatchNormalization(
        gamma_regularizer=r.L1(0.02),
        gamma_constraint=c.MinMaxNorm(0.9, 1.1, 0.5),
        beta_regularizer="l2",
        name="norm",
    )(h)
    h = k.SeparableConv2D(
        *(4, 2),
        depthwise_regularizer=r.L1L2(0.01, 0.02),
        pointwise_regularizer=r.L2(0.03),
        depthwise_constraint="unit_norm",
        pointwise_constraint="non_neg",
        name="separable",
    )(h)
    h = k.ActivityRegularization(0.001, 0.001, name="size")(h)
    y = k.Dense(
        3,
        activation="softmax",
        kernel_regularizer=r.OrthogonalRegularizer(0.1, "columns"),
        bias_regularizer=r.L1(0.01),
        bias_constraint="non_neg",
        name="classes",
    )(k.Flatten(name="flat")(h))
    return keras.Model(x, y)


@pytest.mark.parametrize("options", ATEN, ids=str)
def test_twenty_steps_follow_keras(keras: Any, options: dict[str, Any]) -> None:
    theirs, batch = with_everything(keras), 12
    model = imported(theirs)
    net = cl.compile(model, **options)
    x, y = images(20 * batch, 7, 6, 3), one_hot(20 * batch)
    theirs.compile(keras.optimizers.SGD(0.05, momentum=0.9), "categorical_crossentropy")
    optimizer = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9)
    for step in range(20):
        part = slice(step * batch, (step + 1) * batch)
        wanted = theirs.train_on_batch(x[part], y[part])
        found = cl.fit(
            *(net, (x[part], y[part]), "categorical_crossentropy", optimizer),
            batch_size=batch,
            shuffle=False,
            verbose=False,
        )
        assert found.history["loss"][0] == pytest.approx(float(wanted), abs=1e-5), step
    assert_same_weights(model, net, theirs)
    net.eval()
    prediction, penalty = net.with_penalty()(torch.tensor(x))
    loss = -(torch.tensor(y) * prediction.log()).sum(-1).mean() + penalty
    assert theirs.evaluate(x, y, verbose=0) == pytest.approx(loss.item(), abs=1e-5)


def test_two_steps_of_the_emitted_kernels_follow_keras(keras: Any) -> None:
    theirs = with_everything(keras)
    model = imported(theirs)
    net = cl.compile(model, backend="triton").train()
    x, y = images(6, 7, 6, 3), one_hot(6)
    theirs.compile(keras.optimizers.SGD(0.05), "categorical_crossentropy")
    optimizer, step = torch.optim.SGD(net.parameters(), 0.05), net.with_loss("categorical_crossentropy")
    for part in (slice(0, 3), slice(3, 6)):
        optimizer.zero_grad()
        loss, _ = step(x[part], y[part])
        loss.backward()
        optimizer.step()
        net.apply_constraints()
        assert loss.item() == pytest.approx(float(theirs.train_on_batch(x[part], y[part])), abs=1e-5)
    assert_same_weights(model, net, theirs)


# -- each layer ----------------------------------------------------------------------------------------------
def every_argument(keras: Any, cls: Any, *args: Any, **kwargs: Any) -> Any:
    """A layer with a regularizer of its own for each of its weights and for its results."""
    names = inspect.signature(cls.__init__).parameters
    own = [name for name in names if name.endswith("_regularizer") and name != "activity_regularizer"]
    given = {name: keras.regularizers.L1L2(0.01 * i, 0.02 * i) for i, name in enumerate(own, start=1)}
    activity = {"activity_regularizer": keras.regularizers.L1L2(0.003, 0.004)}
    return cls(*args, **given, **(activity | kwargs))


LAYERS: dict[str, tuple[tuple[int, ...], Any]] = {
    "Dense": ((5,), lambda k: ((4,), {"activation": "tanh"})),
    "Conv1D": ((7, 3), lambda k: ((4, 3), {})),
    "Conv2D": ((6, 5, 4), lambda k: ((4, 3), {"groups": 2, "strides": 2, "padding": "same"})),
    "Conv3D": ((4, 5, 3, 2), lambda k: ((3, 2), {"activation": "relu"})),
    "Conv1DTranspose": ((4, 3), lambda k: ((4, 3), {"strides": 2})),
    "Conv2DTranspose": ((4, 3, 3), lambda k: ((4, 3), {"strides": 2})),
    "Conv3DTranspose": ((2, 3, 2, 2), lambda k: ((3, 2), {})),
    "DepthwiseConv1D": ((7, 3), lambda k: ((3,), {"depth_multiplier": 2})),
    "DepthwiseConv2D": ((6, 5, 3), lambda k: ((3,), {"depth_multiplier": 2})),
    "SeparableConv1D": ((7, 3), lambda k: ((4, 3), {})),
    "SeparableConv2D": ((6, 5, 3), lambda k: ((4, 3), {"activation": "relu"})),
    "EinsumDense": ((5, 4), lambda k: (("abc,cd->abd",), {"output_shape": (None, 6), "bias_axes": "d"})),
    "BatchNormalization": ((4, 3, 5), lambda k: ((), {})),
    "LayerNormalization": ((4, 3, 5), lambda k: ((), {})),
    "GroupNormalization": ((4, 3, 6), lambda k: ((2,), {})),
    "PReLU": ((4, 3, 2), lambda k: ((), {"alpha_initializer": "glorot_uniform", "shared_axes": [1]})),
    "MaxPooling2D": ((4, 6, 3), lambda k: ((2,), {})),
    "Activation": ((4, 3), lambda k: (("tanh",), {})),
    "Softmax": ((4, 3), lambda k: ((), {})),
    "Dropout": ((4, 3), lambda k: ((0.5,), {})),
    "Flatten": ((4, 3), lambda k: ((), {})),
    "ActivityRegularization": ((4, 3), lambda k: ((0.1, 0.2), {"activity_regularizer": None})),
}


@pytest.mark.parametrize("options", ATEN, ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_every_regularizer_of_a_layer_counts(keras: Any, name: str, options: dict[str, Any]) -> None:
    shape, arguments = LAYERS[name]
    args, kwargs = arguments(keras.layers)
    if name == "ActivityRegularization":
        layer = keras.layers.ActivityRegularization(*args)
    else:
        layer = every_argument(keras, getattr(keras.layers, name), *args, **kwargs)
    x = keras.Input(shape, name="x")
    theirs = keras.Model(x, layer(x))
    theirs.set_weights([w + 0.1 for w in theirs.get_weights()])
    assert assert_same_penalty(imported(theirs), theirs, [images(3, *shape)], **options) > 0.001


@pytest.mark.parametrize("name", ["MultiHeadAttention", "GroupQueryAttention"])
def test_attention_counts_its_projections(keras: Any, name: str) -> None:
    """Keras gives the regularizer of activities to the four projections; one class has it for itself too."""
    args = (2, 3) if name == "MultiHeadAttention" else (3, 4, 2)
    layer = every_argument(keras, getattr(keras.layers, name), *args, use_gate=True)
    q, v = keras.Input((5, 6), name="q"), keras.Input((4, 6), name="v")
    theirs = keras.Model([q, v], layer(q, v, return_attention_scores=True))
    theirs.set_weights([w + 0.1 for w in theirs.get_weights()])
    assert_same_penalty(imported(theirs), theirs, [images(3, 5, 6), images(3, 4, 6, seed=4)])


def test_layers_inside_others_count(keras: Any) -> None:
    k, r = keras.layers, keras.regularizers
    x = keras.Input((6, 5, 3), name="x")
    prelu = k.PReLU(alpha_initializer="ones", alpha_regularizer="l2", activity_regularizer=r.L1(0.02))
    h = k.Conv2D(4, 3, activation=prelu, activity_regularizer=r.L2(0.03))(x)
    inner = k.Dense(3, kernel_regularizer=r.L1(0.01), activity_regularizer=r.L2(0.02))
    theirs = keras.Model(x, k.SpectralNormalization(inner, activity_regularizer=r.L1(0.004))(k.Flatten()(h)))
    assert_same_penalty(imported(theirs), theirs, [images(3, 6, 5, 3)])


def test_an_embedding_counts_its_table(keras: Any) -> None:
    k, r = keras.layers, keras.regularizers
    rules = {"embeddings_regularizer": r.L1L2(0.1, 0.2), "embeddings_constraint": "unit_norm"}
    x = keras.Input((4,), dtype="int32", name="x")
    theirs = keras.Model(x, k.Embedding(5, 3, activity_regularizer=r.L2(0.1), **rules)(x))
    model = imported(theirs)
    assert list(model.to_graph().constraints.values()) == [ops.NormWithin((0,), 1.0, 1.0)]
    assert_same_penalty(model, theirs, [np.array([[1, 4, 4, 0]], np.int32)], numbers=True)


def test_a_layer_at_each_step_counts_its_weights_alone(keras: Any) -> None:
    """Keras goes past what counts the inner layer's results; those of a model's layers it counts."""
    k, r = keras.layers, keras.regularizers
    x = keras.Input((3, 4, 5), name="x")
    rules = {"kernel_regularizer": "l2", "activity_regularizer": r.L1(0.1)}
    h = k.TimeDistributed(k.Conv1D(4, 2, **rules), activity_regularizer=r.L2(0.1))(x)
    h = k.TimeDistributed(k.Dense(3, **rules))(h)
    inner = keras.Sequential([keras.Input((3, 3)), k.Dense(2, **rules)])
    theirs = keras.Model(x, k.TimeDistributed(inner)(h))
    assert_same_penalty(imported(theirs), theirs, [images(2, 3, 4, 5)])


def test_weights_count_once_and_activities_once_a_call(keras: Any) -> None:
    k, r = keras.layers, keras.regularizers
    inner_x = keras.Input((4,), name="inner_x")
    shared = k.Dense(4, kernel_regularizer="l2", activity_regularizer=r.L1(0.02), name="shared")
    inner = keras.Model(inner_x, shared(shared(inner_x)), name="inner")
    x = keras.Input((4,), name="x")
    theirs = keras.Model(x, inner(inner(x)))
    model = imported(theirs)
    penalties = model.to_graph().penalties
    assert sum(op.op_name() == "size_penalty" for ops in penalties.values() for op in ops) == 1 + 4
    assert_same_penalty(model, theirs, [images(3, 4)])


@pytest.mark.parametrize("options", [*ATEN, {"backend": "triton"}], ids=str)
def test_frozen_layers_count_their_activities_alone(keras: Any, options: dict[str, Any]) -> None:
    k, r = keras.layers, keras.regularizers
    x = keras.Input((4,), name="x")
    regularized = k.Dense(4, kernel_regularizer="l2", activity_regularizer="l2", name="regularized")
    base = keras.Sequential([keras.Input((4,)), regularized])
    theirs = keras.Model(x, k.Dense(2, kernel_regularizer=r.L1(0.1), name="head")(base(x, training=False)))
    with_all = assert_same_penalty(imported(theirs), theirs, [images(3, 4)], **options)
    base.trainable = False
    assert assert_same_penalty(imported(theirs), theirs, [images(3, 4)], **options) < with_all


# -- single values -------------------------------------------------------------------------------------------
REGULARIZERS = [
    (cl.regularizers.L1(0.3), (5, 4)),
    (cl.regularizers.L2(0.3), (3, 2, 4)),
    (cl.regularizers.L1L2(0.3, 0.2), (5, 4)),
    (cl.regularizers.OrthogonalRegularizer(0.3), (5, 4)),
    (cl.regularizers.OrthogonalRegularizer(0.3, "columns"), (5, 4)),
]
CONSTRAINTS = [
    (cl.constraints.MaxNorm(1.5), (5, 4)),
    (cl.constraints.MaxNorm(1.5, axis=[0, 1, -2]), (3, 2, 4, 5)),
    (cl.constraints.MaxNorm(1.5, axis=None), (5, 4)),
    (cl.constraints.NonNeg(), (5, 4)),
    (cl.constraints.UnitNorm(axis=-1), (5, 4)),
    (cl.constraints.MinMaxNorm(1.5, 2.5, rate=0.25, axis=(0, 1)), (3, 2, 4)),
]


@pytest.mark.parametrize(("regularizer", "shape"), REGULARIZERS, ids=str)
def test_a_regularizer_s_value_and_gradient(keras: Any, regularizer: Any, shape: tuple[int, ...]) -> None:
    theirs = getattr(keras.regularizers, type(regularizer).__name__)(**regularizer.get_config())
    w = torch.tensor(images(*shape), requires_grad=True)
    found, expected = regularizer(w), theirs(w)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, w), torch.autograd.grad(expected, w))


@pytest.mark.parametrize(("constraint", "shape"), CONSTRAINTS, ids=str)
def test_a_constraint_s_value(keras: Any, constraint: Any, shape: tuple[int, ...]) -> None:
    theirs = getattr(keras.constraints, type(constraint).__name__)(**constraint.get_config())
    w = torch.tensor(images(*shape))
    torch.testing.assert_close(constraint(w), theirs(w), rtol=1e-6, atol=1e-7)


# -- files ---------------------------------------------------------------------------------------------------
def test_keras_opens_what_was_described_here(keras: Any, tmp_path: Path) -> None:
    """From ConvLoom's own layers: Keras counts the same loss and has the same constraints."""
    r, c = cl.regularizers, cl.constraints
    both, bounds = r.L1L2(0.125, 0.25), c.MinMaxNorm(0.1, 2, 0.5, axis=[0])
    x = cl.Input((6, 5, 3), name="x")
    h = L.Conv2D(4, 3, kernel_regularizer="l2", bias_regularizer=r.L2(0.1), activity_regularizer=both)(x)
    h = L.LayerNormalization(gamma_regularizer=r.L1(0.5), beta_constraint=bounds)(h)
    h = L.MaxPooling2D(2, activity_regularizer=r.L2(0.1))(h)
    h = L.Flatten()(L.ActivityRegularization(0.1, 0.2)(h))
    orthogonal = r.OrthogonalRegularizer(0.25)
    y = L.Dense(3, kernel_regularizer=orthogonal, kernel_constraint=c.MaxNorm(axis=0))(h)
    model = cl.Model(x, y)
    model.save(tmp_path / "net.keras")
    theirs = keras.models.load_model(tmp_path / "net.keras")
    assert theirs.layers[2].beta_constraint.get_config() == bounds.get_config()
    assert_same_penalty(model, theirs, [images(3, 6, 5, 3)])
    again = cl.loads(theirs.to_json())
    assert str(again.to_graph()).split("return")[1] == str(model.to_graph()).split("return")[1]
    assert json.loads(again.to_json()) == json.loads(theirs.to_json())


def ruling(names: Iterable[str]) -> set[str]:
    """Those that rule a weight."""
    found = {name for name in names if name.endswith(("_regularizer", "_constraint"))}
    return found - {"activity_regularizer"}


def test_layers_take_the_arguments_that_keras_s_take(keras: Any) -> None:
    for name, declaration in DECLARATIONS.items():
        theirs = getattr(keras.layers, name, None)
        if theirs is not None:
            mine = ruling(field.name for field in dataclasses.fields(declaration))
            assert mine == ruling(inspect.signature(theirs.__init__).parameters), name


def test_defaults_are_keras_s(keras: Any) -> None:
    for room, theirs in ((cl.regularizers.get, keras.regularizers), (cl.constraints.get, keras.constraints)):
        for name, mine in room.classes.items():
            assert mine().get_config() == pytest.approx(getattr(theirs, name)().get_config()), name
            assert room(name) == mine() == room(mine)
