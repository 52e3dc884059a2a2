"""Activations: by name, as layers, and as layers that stand as the activation of another."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from convloom.frontends.activations import ACTIVATIONS
from convloom.frontends.names import reset
from convloom.graph import ops
from convloom.graph.errors import ConvLoomError, ShapeError, UnsafeModelError, UnsupportedLayerError
from convloom.planning.fusion import fuse
from helpers import evaluate
from keras_files import called, entry, functional, layer
from partitions import inference, kernels, training

import convloom as cl
from convloom import layers as L

pytestmark = pytest.mark.filterwarnings("error::convloom.runtime.backends.FallbackWarning")

Json = dict[str, Any]
IMAGE = (6, 5, 3)


@pytest.fixture(scope="module")
def keras() -> Any:
    import keras

    return keras


def randomised(model: cl.Model) -> cl.Model:
    """Weights that keep the size of what flows through."""
    draw = np.random.default_rng(5).normal
    shapes = [w.shape for w in model.get_weights()]
    scales = [1 / np.sqrt(np.prod(shape[:-1])) if len(shape) > 1 else 0.4 for shape in shapes]
    model.set_weights([draw(0, s, shape).astype(np.float32) for s, shape in zip(scales, shapes, strict=True)])
    return model


def batch(model: cl.Model, size: int = 3) -> np.ndarray:
    shape = model.inputs[0].type.size(size)
    return np.random.default_rng(6).standard_normal(shape).astype(np.float32)


def ours(model: cl.Model, x: np.ndarray) -> np.ndarray:
    [y] = evaluate(model.to_graph(), model.parameters, {model.inputs[0].node.block.name: x}).values()
    return y.numpy()


def theirs(model: Any, x: np.ndarray) -> np.ndarray:
    return np.asarray(model(x).detach().cpu())


def close(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 64 * 2.0**-23 * max(1e-3, np.abs(expected).max())


# -- the names -----------------------------------------------------------------------------------------------
def test_every_name_of_keras_is_known(keras: Any) -> None:
    from keras.src.activations import ALL_OBJECTS_DICT

    assert set(ALL_OBJECTS_DICT) - set(ACTIVATIONS) == {"threshold"}  # which Keras cannot call either
    assert set(ACTIVATIONS) - set(ALL_OBJECTS_DICT) == {"keras_2_hard_sigmoid"}


def test_sparsemax_is_the_nearest_point_of_the_simplex() -> None:
    """Against trying every support: the nearest of all candidates that are probabilities."""
    generator = torch.Generator().manual_seed(2)
    for size, scale in itertools.product((1, 2, 5), (0.1, 1.0, 4.0)):
        x = scale * torch.randn(size, dtype=torch.float64, generator=generator)
        candidates = []
        for count in range(1, size + 1):
            for places in itertools.combinations(range(size), count):
                p = torch.zeros_like(x)
                p[list(places)] = x[list(places)] - (x[list(places)].sum() - 1) / count
                if (p >= 0).all():
                    candidates.append(p)
        nearest = min(candidates, key=lambda p: float((p - x).square().sum()))
        torch.testing.assert_close(ops.Sparsemax().reference(x), nearest, rtol=0, atol=1e-12)


def test_glu_takes_an_even_axis() -> None:
    image = cl.Input(IMAGE)
    with pytest.raises(ShapeError, match=r"^Conv2D 'gate': glu halves the last axis, which has an odd 3 in"):
        L.Conv2D(3, 1, activation="glu", name="gate")(image)
    assert L.Conv2D(8, 1, activation="glu")(image).shape == (None, 6, 5, 4)


# -- layers as activations: the same graph -------------------------------------------------------------------
SAME: list[tuple[str, Callable[[], cl.layers.Layer]]] = [
    ("relu", L.ReLU),
    ("relu6", lambda: L.ReLU(6)),
    ("leaky_relu", lambda: L.LeakyReLU(0.2)),
    ("elu", L.ELU),
    ("softmax", L.Softmax),
    ("selu", lambda: L.Activation("selu")),
    ("tanh", lambda: L.Activation(L.Activation("tanh"))),
]


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize(("name", "instance"), SAME, ids=[name for name, _ in SAME])
def test_a_layer_fuses_as_its_name_does(
    name: str, instance: Callable[[], cl.layers.Layer], data_format: str
) -> None:
    graphs = []
    for activation in (name, instance()):
        reset()
        image = cl.Input(IMAGE)
        h = L.Conv2D(4, 3, activation=activation, data_format=data_format)(image)
        graphs.append(cl.Model(image, L.Conv2D(2, 1, data_format=data_format)(h)).to_graph())
    named, given = graphs
    assert [(str(n.op), n.type) for n in given.nodes()] == [(str(n.op), n.type) for n in named.nodes()]
    for way in (inference, training):
        assert kernels(fuse(way(given))) == kernels(fuse(way(named)))
    if data_format == "channels_last":
        op = next(n.op for n in given.nodes() if n.inputs[:1] == ("conv2d",))
        assert kernels(fuse(inference(given)))[0] == f"conv2d {op.op_name()}"


def test_prelu_with_a_slope_a_channel_rides_in_the_convolution() -> None:
    image = cl.Input(IMAGE)
    h = L.Conv2D(4, 3, activation=L.PReLU(shared_axes=(1, 2)))(image)
    assert kernels(fuse(inference(cl.Model(image, h).to_graph()))) == ["conv2d prelu"]


def test_the_weight_belongs_to_the_layer() -> None:
    image = cl.Input(IMAGE)
    conv = L.Conv2D(4, 3, activation=L.PReLU(shared_axes=[1]), name="conv")
    model = cl.Model(image, L.Activation(L.PReLU(alpha_initializer="ones"), name="last")(conv(image)))
    shapes = {name: tuple(value.shape) for name, value in model.parameters.items()}
    assert shapes == {
        "conv/kernel": (3, 3, 3, 4), "conv/bias": (4,), "conv/alpha": (1, 3, 4), "last/alpha": (4, 3, 4),
    }  # fmt: skip
    assert model.count_params() == 108 + 4 + 12 + 48
    assert conv.count_params() == 124
    assert (model.parameters["last/alpha"] == 1).all()


def test_a_frozen_activation_does_not_train() -> None:
    image = cl.Input(IMAGE)
    h = L.Conv2D(4, 3, activation=L.PReLU(trainable=False), name="conv")(image)
    network = cl.compile(cl.Model(image, h), device="cpu")
    assert {name for name, p in network.named_parameters() if p.requires_grad} == {"conv/kernel", "conv/bias"}


def test_a_layer_called_twice_has_one_slope() -> None:
    image = cl.Input(IMAGE)
    conv = L.Conv2D(3, 3, padding="same", activation=L.PReLU(shared_axes=[1, 2]))
    model = cl.Model(image, conv(conv(image)))
    assert len(model.parameters) == 3
    other = cl.Input((9, 9, 3))
    assert conv(other).shape == (None, 9, 9, 3)  # one alpha a channel fits any size
    whole = L.Conv2D(3, 3, padding="same", activation=L.PReLU())
    whole(image)
    with pytest.raises(
        ShapeError, match=r"^Conv2D .*: activation: PReLU .*: is shared: its weights were made"
    ):
        whole(other)


# -- training ------------------------------------------------------------------------------------------------
def bent(activations: list[Any]) -> cl.Model:
    """Convolutions and dense layers, each followed by one of the activations."""
    image = cl.Input((4, 3, 2))
    h: Any = image
    for i, activation in enumerate(activations[:-1]):
        h = L.Conv2D(4, (3, 2)[i % 2], padding="same", activation=activation, name=f"conv_{i}")(h)
    h = L.Dense(6, activation=activations[-1], name="dense")(L.Flatten()(h))
    return randomised(cl.Model(image, h))


NETWORKS: dict[str, Callable[[], list[Any]]] = {
    "layers": lambda: [L.PReLU(), L.LeakyReLU(0.1), L.PReLU(shared_axes=[1, 2]), L.ELU(0.5), L.Softmax()],
    "names": lambda: ["selu", "hard_tanh", "log_sigmoid", "squareplus", "log_softmax"],
    "shrinking": lambda: ["tanh_shrink", "soft_shrink", "sparse_plus", "glu", "sparsemax"],
    "pieces": lambda: ["celu", "sparse_sigmoid", L.Softmax(axis=[2, 3]), L.ReLU(2.0, 0.1, 0.2), "glu"],
}


@pytest.mark.parametrize(
    ("kind", "backend"), [*((kind, "aten") for kind in NETWORKS), ("layers", "triton"), ("pieces", "triton")]
)
def test_gradients_are_autograd_s(kind: str, backend: str) -> None:
    model = bent(NETWORKS[kind]())
    x = torch.from_numpy(batch(model, 2))
    network = cl.compile(model, device="cpu", backend=backend)
    y = network(x)
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    (y * weight).sum().backward()

    exact = {name: value.double().requires_grad_() for name, value in model.parameters.items()}
    [wanted] = evaluate(model.to_graph(), exact, {model.inputs[0].node.block.name: x.double()}).values()
    (wanted * weight).sum().backward()
    close(y.detach().numpy(), wanted.detach().numpy())
    found = dict(network.named_parameters())
    assert set(found) == set(exact)
    for name, value in exact.items():
        assert value.grad is not None, name
        assert value.grad.abs().max() > 1e-6, name
        error = (found[name].grad - value.grad).abs().max()  # type: ignore[operator]
        assert error <= 4e-5 * value.grad.abs().max(), name


def test_every_weight_moves_as_with_torch() -> None:
    """Three steps of plain descent, the slopes of PReLU among the weights."""
    model = bent(NETWORKS["layers"]())
    x, target = batch(model, 8), np.eye(6, dtype=np.float32)[np.arange(8) % 6]
    exact = {name: value.double().requires_grad_() for name, value in model.parameters.items()}
    entrance = model.inputs[0].node.block.name
    for _ in range(3):
        [p] = evaluate(model.to_graph(), exact, {entrance: torch.from_numpy(x).double()}).values()
        loss = -(torch.from_numpy(target) * p.log()).sum(-1).mean()
        gradients = torch.autograd.grad(loss, list(exact.values()))
        exact = {
            name: (value - 0.1 * g).detach().requires_grad_()
            for (name, value), g in zip(exact.items(), gradients, strict=True)
        }
    network = cl.compile(model, device="cpu")
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    cl.fit(network, (x, target), loss="categorical_crossentropy", optimizer=optimizer, epochs=3, batch_size=8)
    for name, value in exact.items():
        torch.testing.assert_close(model.parameters[name].double(), value.detach(), rtol=1e-4, atol=1e-5)


# -- a live Keras --------------------------------------------------------------------------------------------
def standing() -> list[Any]:
    return [
        L.PReLU(alpha_initializer="ones"),
        L.PReLU(shared_axes=[1, 2], trainable=False),
        L.LeakyReLU(0.05),
        L.Activation(L.PReLU(shared_axes=[2])),
        L.ReLU(2.0, 0.1, 0.2),
        L.ELU(0.3),
        L.Activation(L.Activation("hard_tanh")),
        L.Softmax(),
    ]


def everything() -> cl.Model:
    image = cl.Input(IMAGE)
    h: Any = image
    for i, activation in enumerate(standing()):
        kind = (L.Conv2D, L.SeparableConv2D, L.Conv2DTranspose)[i % 3]
        data_format = "channels_last" if i % 2 else "channels_first"
        h = kind(3, 2, padding="same", data_format=data_format, activation=activation, name=f"c{i}")(h)
    branches = [L.Activation(L.PReLU(), name="last")(h)]
    branches += [L.Softmax(axis=axis)(image) for axis in (1, [1, 2], (-1, 1))]
    branches += [
        L.Dense(4, activation=name, name=f"d_{name}")(image)
        for name in ACTIVATIONS
        if name not in ("keras_2_hard_sigmoid", "sparsemax", "glu")  # which Keras has not, or has wrong
    ]
    return randomised(cl.Model(image, L.Concatenate()([L.Flatten()(x) for x in branches])))


def test_keras_opens_what_we_save_and_we_what_keras_saves(keras: Any, tmp_path: Path) -> None:
    model = everything()
    x = batch(model)
    model.save(tmp_path / "ours.keras")
    opened = keras.models.load_model(tmp_path / "ours.keras")
    wanted = model.get_weights()
    for found, value in zip(opened.get_weights(), wanted, strict=True):
        assert np.array_equal(found, value)
    expected = theirs(opened, x)
    close(ours(model, x), expected)

    again = cl.load(tmp_path / "ours.keras")
    assert again.to_json() == model.to_json()
    opened.save(tmp_path / "theirs.keras")
    opened.save(tmp_path / "theirs.h5")
    opened.save_weights(tmp_path / "theirs.weights.h5")
    fresh = cl.loads(model.to_json())
    fresh.load_weights(tmp_path / "theirs.weights.h5")
    for other in (again, cl.load(tmp_path / "theirs.keras"), cl.load(tmp_path / "theirs.h5"), fresh):
        assert all(map(np.array_equal, other.get_weights(), wanted))
        assert np.array_equal(ours(other, x), ours(model, x))
    cl.load(tmp_path / "theirs.keras").save(tmp_path / "twice.keras")
    assert np.array_equal(theirs(keras.models.load_model(tmp_path / "twice.keras"), x), expected)


def test_a_file_from_before_the_first_run(keras: Any, tmp_path: Path) -> None:
    """Keras makes the slopes when the model runs; before, its file holds none, and they start as declared."""
    K = keras.layers
    model = keras.Sequential([keras.Input(IMAGE), K.Conv2D(4, 3, activation=K.PReLU("ones"), name="conv")])
    for name in ("new.keras", "new.h5"):
        model.save(tmp_path / name)
        mine = cl.load(tmp_path / name)
        assert [tuple(w.shape) for w in mine.get_weights()] == [(3, 3, 3, 4), (4,), (4, 3, 4)]
        assert (mine.parameters["conv/alpha"] == 1).all()
    x = batch(mine)
    close(ours(mine, x), theirs(model, x))
    mine.save(tmp_path / "mine.keras")
    assert len(keras.models.load_model(tmp_path / "mine.keras").weights) == 3


def test_where_the_slopes_lie_in_the_file(tmp_path: Path) -> None:
    image = cl.Input(IMAGE)
    h = L.Conv2D(4, 3, activation=L.PReLU(), name="stem")(image)
    model = cl.Model(image, L.Activation(L.Activation(L.PReLU(shared_axes=[1, 2])))(h))
    model.save_weights(tmp_path / "a.weights.h5")
    with h5py.File(tmp_path / "a.weights.h5") as file:
        assert file["layers/conv2d/activation/vars/0"].shape == (4, 3, 4)
        assert file["layers/activation/activation/activation/vars/0"].shape == (1, 1, 4)
    with h5py.File(tmp_path / "a.weights.h5", "a") as file:
        del file["layers/conv2d/activation"]
    with pytest.raises(
        ConvLoomError, match=r"Conv2D 'stem': weight 'alpha' \(layers/conv2d/activation/vars/0\)"
    ):
        model.load_weights(tmp_path / "a.weights.h5")


def test_changes_after_loading_are_written(keras: Any) -> None:
    K = keras.layers
    source = keras.Sequential([keras.Input(IMAGE), K.Conv2D(4, 3, activation=K.LeakyReLU(0.1), name="c")])
    model = cl.loads(source.to_json())
    said = json.loads(source.to_json())["config"]["layers"][1]
    assert json.loads(model.to_json())["config"]["layers"][1] == said
    model.layers[-1].activation.negative_slope = 0.7  # type: ignore[attr-defined]
    assert json.loads(model.to_json())["config"]["layers"][1]["config"]["activation"]["config"] == {
        **said["config"]["activation"]["config"], "negative_slope": 0.7,
    }  # fmt: skip


def test_functions_that_keras_writes_as_objects(keras: Any) -> None:
    """Functions of keras.ops are written by name; a name outside the table is refused."""
    for function in (keras.ops.silu, keras.ops.log_sigmoid, keras.activations.celu, keras.ops.tanh):
        source = keras.Sequential([keras.Input((5,)), keras.layers.Activation(function)])
        model = cl.loads(source.to_json())
        x = batch(model)
        close(ours(model, x), theirs(source, x))

    def strange(x: Any) -> Any:
        return x * x

    source = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3, activation=strange, name="d")])
    with pytest.raises(
        UnsupportedLayerError, match=r"Dense 'd': activation 'strange' is not a known activation"
    ):
        cl.loads(source.to_json())


# -- files of Keras 2 ----------------------------------------------------------------------------------------
def keras_2(*layers: tuple[str, Json]) -> cl.Model:
    entries = [layer("InputLayer", "x", batch_input_shape=[None, 5])]
    for i, (class_name, config) in enumerate(layers):
        node = [[entries[-1]["name"], 0, 0, {}]]
        entries.append({**layer(class_name, f"l{i}", **config), "inbound_nodes": [node]})
    return cl.loads({**functional(*entries), "keras_version": "2.12.0"})


@pytest.mark.parametrize(
    ("class_name", "config", "op"),
    [
        ("Activation", {"activation": {"class_name": "LeakyReLU", "config": {"name": "a", "alpha": 0.1}}},
         ops.LeakyRelu(0.1)),
        ("Activation", {"activation": {"module": "keras.layers", "class_name": "ReLU",
                                       "registered_name": None, "config": {"name": "a", "max_value": 6.0}}},
         ops.Relu6()),
        ("Activation", {"activation": {"class_name": "Activation",
                                       "config": {"name": "a", "activation": "hard_sigmoid"}}},
         ops.HardSigmoid(0.2)),
        ("Activation", {"activation": {"class_name": "function", "config": "hard_sigmoid"}},
         ops.HardSigmoid(0.2)),
        ("ThresholdedReLU", {"theta": 1.5}, ops.GeneralRelu(None, 0.0, 1.5)),
        ("ReLU", {"max_value": {"class_name": "__numpy__", "config": {"value": 2.0, "dtype": "float32"}},
                  "negative_slope": {"class_name": "__numpy__", "config": {"value": 0.5, "dtype": "float32"}},
                  "threshold": {"class_name": "__numpy__", "config": {"value": 0.0, "dtype": "float32"}}},
         ops.GeneralRelu(2.0, 0.5, 0.0)),
        ("LeakyReLU", {"alpha": {"class_name": "__numpy__", "config": {"value": 0.25, "dtype": "float32"}}},
         ops.LeakyRelu(0.25)),
        ("ELU", {"alpha": 0.5}, ops.Elu(0.5)),
        ("Softmax", {"axis": [-1]}, ops.Softmax()),
    ],
    ids=str,
)  # fmt: skip
def test_the_forms_of_keras_2(class_name: str, config: Json, op: Any) -> None:
    model = keras_2((class_name, config))
    assert [n.op for n in model.to_graph().nodes()][1:] == [op]
    if op != ops.HardSigmoid(0.2):
        assert [n.op for n in cl.loads(model.to_json()).to_graph().nodes()][1:] == [op]


def test_keras_3_cannot_say_the_old_hard_sigmoid_inside_either() -> None:
    inner = {"class_name": "Activation", "config": {"name": "a", "activation": "hard_sigmoid"}}
    with pytest.raises(
        UnsupportedLayerError, match=r"^Activation 'a': Keras 3 has no activation that computes"
    ):
        keras_2(("Dense", {"units": 3, "activation": inner})).to_json()


# -- refusals ------------------------------------------------------------------------------------------------
def standing_in_dense(value: Any) -> cl.Model:
    return cl.loads(functional(entry(3), layer("Dense", "d", called("x"), units=2, activation=value)))


def nested(depth: int) -> Any:
    value: Any = "relu"
    for i in range(depth):
        value = {"class_name": "Activation", "config": {"name": f"a{i}", "activation": value}}
    return value


def test_objects_that_may_not_stand_there() -> None:
    at = r"^1 layer\(s\) are not supported by ConvLoom: layers\[1\] 'd': activation: "
    code = {"class_name": "Lambda", "config": {"name": "l", "function": "f"}}
    with pytest.raises(
        UnsafeModelError, match=r"^layers\[1\] 'd': activation: Lambda asks for code or files"
    ):
        standing_in_dense(code)
    able = r"a name can, and Activation, ReLU, LeakyReLU, ELU, PReLU, Softmax$"
    for value, text in (
        ({"class_name": "Dense", "config": {"units": 2}}, f"class 'Dense' cannot stand there; {able}"),
        ({"class_name": "Swish", "config": {}}, f"class 'Swish' cannot stand there; {able}"),
        (
            {"class_name": "ReLU", "module": "mine.layers", "config": {}},
            f"class 'ReLU' of module 'mine.layers' cannot stand there; {able}",
        ),
        ({"class_name": "ReLU", "config": {"slope": 1}}, "ReLU with slope=1 is not supported by ConvLoom"),
        (nested(9), "more than 8 layers stand in one another"),
    ):
        with pytest.raises(UnsupportedLayerError, match=at + text):
            standing_in_dense(value)
    assert standing_in_dense(nested(8)).count_params() == 8
    for value in ({"class_name": "ReLU"}, {"config": {}}, {"class_name": "ReLU", "config": []}, [1], 3):
        with pytest.raises(ConvLoomError):
            standing_in_dense(value)
    shared = {"class_name": "PReLU", "config": {"name": "p"}, "shared_object_id": 7}
    with pytest.raises(UnsupportedLayerError, match=at + "PReLU 'p' shares its weights with another layer's"):
        standing_in_dense(shared)
    inner = {"class_name": "PReLU", "config": {"name": "p"}}
    around = {"class_name": "Activation", "config": {"name": "a", "activation": inner}, "shared_object_id": 8}
    with pytest.raises(UnsupportedLayerError, match=at + "Activation 'a' shares its weights with another"):
        standing_in_dense(around)


@pytest.mark.parametrize(
    ("describe", "text"),
    [
        (lambda: L.Dense(2, activation=L.Dense(2)), "is not a known activation; use one of linear, relu"),
        (lambda: L.Dense(2, activation=L.ReLU), "is not a known activation; use one of linear, relu"),  # type: ignore[arg-type]
        (lambda: L.Activation(torch.relu), "is not a known activation; use one of linear, relu"),  # type: ignore[arg-type]
        (lambda: L.Activation("threshold"), "'threshold' takes numbers, which a name cannot give"),
        (lambda: L.LeakyReLU(-0.1), "LeakyReLU 'leaky_re_lu': negative_slope must not be negative, got -0.1"),
        (lambda: L.ReLU(negative_slope=-1), "negative_slope must not be negative, got -1"),
        (lambda: L.ReLU(threshold=-1.0), "threshold must not be negative, got -1.0"),
        (lambda: L.ReLU(max_value=True), "max_value must be a finite number, got True"),
        (lambda: L.ELU(-1.0), "alpha must not be negative, got -1.0"),
        (lambda: L.Softmax(axis=[1, -2])(cl.Input((4, 3))), "once each, got (1, -2)"),
        (lambda: L.Softmax(axis=[0, 1])(cl.Input((4, 3))), "axis must name axes 1 to 2 of float32[N,4,3]"),
        (lambda: L.Softmax(axis=[])(cl.Input((4, 3))), "axis must name at least one axis, got none"),
        (
            lambda: L.Conv2D(2, 1, name="c", activation=L.Softmax(axis=4))(cl.Input(IMAGE)),
            "Conv2D 'c': activation: Softmax 'softmax': axis must name axes 1 to 3 of float32[N,6,5,2]",
        ),
        (
            lambda: L.Dense(2, name="d", activation=L.PReLU(shared_axes=[2]))(cl.Input((3,))),
            "Dense 'd': activation: PReLU 'p_re_lu': shared_axes must be of 1 to 1, got (2,)",
        ),
    ],
)
def test_wrong_descriptions_are_named(describe: Callable[[], Any], text: str) -> None:
    reset()
    with pytest.raises(ConvLoomError) as caught:
        describe()
    assert text in str(caught.value)


def test_weights_of_an_activation_are_not_shared() -> None:
    slope, image = L.PReLU(name="slope"), cl.Input(IMAGE)
    L.Conv2D(3, 1, activation=slope)(image)
    text = r"^Conv2D 'two': its activation PReLU 'slope' has weights and works elsewhere too; make two$"
    with pytest.raises(ShapeError, match=text):
        L.Conv2D(3, 1, activation=slope, name="two")(image)
    called_alone = L.PReLU(name="slope")
    called_alone(image)
    with pytest.raises(ShapeError, match=text):
        L.Conv2D(3, 1, activation=called_alone, name="two")(image)
    with pytest.raises(ShapeError, match=r"^PReLU 'slope': has weights, which Conv2D 'conv2d.*' keeps"):
        slope(image)
    leaky = L.LeakyReLU(0.1)  # without weights it may stand anywhere
    assert L.Conv2D(3, 1, activation=leaky)(leaky(L.Conv2D(3, 1, activation=leaky)(image))).shape[1] == 6


def test_numbers_of_numpy_are_numbers() -> None:
    relu = L.ReLU(np.float32(2.5), negative_slope=np.float64(0.5), threshold=np.int64(1))  # type: ignore[arg-type]
    assert (relu.max_value, relu.negative_slope, relu.threshold) == (2.5, 0.5, 1.0)
    assert all(type(v) is float for v in (relu.max_value, relu.negative_slope, relu.threshold))
