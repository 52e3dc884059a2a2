"""Networks described in Python: shapes, names, parameters, values, and the errors of a wrong description."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from convloom.frontends import Input, Model, Sequential, lowering, names
from convloom.frontends import layers as L
from convloom.graph import ops
from convloom.graph.errors import ConvLoomError, ShapeError, UnsupportedLayerError
from helpers import evaluate


@pytest.fixture(autouse=True)
def _fresh_names() -> None:
    names.reset()


def lenet5() -> Model:
    image = Input((28, 28, 1), name="image")
    h = L.Conv2D(6, 5, padding="same", activation="tanh")(image)
    h = L.AveragePooling2D(2)(h)
    h = L.Conv2D(16, 5, activation="tanh")(h)
    h = L.AveragePooling2D(2)(h)
    h = L.Dense(120, activation="tanh")(L.Flatten()(h))
    h = L.Dense(84, activation="tanh")(h)
    return Model(image, L.Dense(10, activation="softmax")(h), name="lenet5")


def run(model: Model, *inputs: torch.Tensor) -> list[torch.Tensor]:
    """The model's outputs in float64."""
    given = {tensor.node.block.name: x for tensor, x in zip(model.inputs, inputs, strict=True)}
    return list(evaluate(model.to_graph(), model.parameters, given, torch.float64).values())


def sample(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# -- counting ------------------------------------------------------------------------------------------------
def test_dense_network_of_the_lecture_has_3083010_parameters() -> None:
    model = Sequential([Input((3072,)), L.Dense(1000, activation="relu"), L.Dense(10)])
    assert model.count_params() == 3_083_010 == 3072 * 1000 + 1000 + 1000 * 10 + 10


def test_lenet5_has_61706_parameters_and_keras_names() -> None:
    model = lenet5()
    assert model.count_params() == 61_706
    assert list(model.parameters) == [
        f"{layer}/{weight}"
        for layer in ("conv2d", "conv2d_1", "dense", "dense_1", "dense_2")
        for weight in ("kernel", "bias")
    ]
    assert model.parameters["conv2d_1/kernel"].shape == (5, 5, 6, 16)
    assert model.outputs[0].shape == (None, 10)


def test_summary_has_a_row_a_layer_and_the_totals() -> None:
    shown: list[str] = []
    image = Input((7, 5, 3), name="image")
    h = L.BatchNormalization(name="norm")(L.Conv2D(4, 3, name="conv")(image))
    Model(image, h + h, name="small").summary(print_fn=shown.append)
    (text,) = shown
    for part in ("conv (Conv2D)", "norm (BatchNormalization)", "(None, 5, 3, 4)", "112", "add (Add)"):
        assert part in text
    assert "Total parameters: 128" in text
    assert "Trainable: 120" in text
    assert "Non-trainable: 8" in text


def test_names_in_square_brackets_survive_the_summary() -> None:
    shown: list[str] = []
    Sequential([Input((3,)), L.Dense(2, name="a[bold]")]).summary(print_fn=shown.append)
    assert "a[bold]" in shown[0]


# -- lowering ------------------------------------------------------------------------------------------------
def test_lenet5_lowers_to_named_nodes() -> None:
    graph = lenet5().to_graph()
    computed = [node.name for node in graph.nodes() if not isinstance(node.op, ops.Input | ops.Parameter)]
    assert computed == [
        "conv2d", "conv2d/tanh", "average_pooling2d", "conv2d_1", "conv2d_1/tanh", "average_pooling2d_1",
        "flatten", "dense", "dense/tanh", "dense_1", "dense_1/tanh", "dense_2", "dense_2/softmax",
    ]  # fmt: skip
    assert graph.outputs == {"dense_2": "dense_2/softmax"}
    assert graph["conv2d"].op.padding == ((2, 2), (2, 2))  # type: ignore[attr-defined]
    assert graph["conv2d/tanh"].layer == "conv2d"


def test_same_padding_at_stride_2_lies_at_the_end() -> None:
    image = Input((6, 9, 3))
    model = Model(image, L.Conv2D(4, 3, strides=2, padding="same", name="c")(image))
    assert model.to_graph()["c"].op.padding == ((0, 1), (1, 1))  # type: ignore[attr-defined]


def test_a_shared_layer_has_its_parameters_once() -> None:
    image = Input((5, 7, 3))
    conv = L.Conv2D(3, 3, padding="same", name="c")
    model = Model(image, conv(conv(image)))
    graph = model.to_graph()
    assert len(graph.sources(ops.Parameter)) == 2
    assert graph["c/call_1"].inputs == ("c", "c/kernel", "c/bias")
    x = sample(2, 5, 7, 3)
    w, b = (model.parameters[f"c/{name}"].double() for name in ("kernel", "bias"))
    w = w.permute(3, 2, 0, 1)
    expected = F.conv2d(F.conv2d(x.permute(0, 3, 1, 2), w, b, padding=1), w, b, padding=1).permute(0, 2, 3, 1)
    torch.testing.assert_close(run(model, x)[0], expected)


def test_channels_first_computes_the_same_as_channels_last() -> None:
    def network(data_format: str) -> Model:
        first = data_format == "channels_first"
        image = Input((3, 9, 6) if first else (9, 6, 3))
        h = L.Conv2D(4, 3, strides=2, padding="same", activation="relu", data_format=data_format)(image)
        h = L.BatchNormalization(axis=1 if first else -1)(h)
        h = L.ZeroPadding2D(((0, 1), (2, 0)), data_format=data_format)(h)
        h = L.Cropping2D(((1, 0), (0, 1)), data_format=data_format)(h)
        h = L.MaxPooling2D(2, padding="same", data_format=data_format)(h)
        mean = L.GlobalAveragePooling2D(data_format=data_format)(h)
        return Model(image, [L.Flatten(data_format=data_format)(h), mean])

    last, first = network("channels_last"), network("channels_first")
    weights = [np.random.default_rng(0).uniform(0.5, 1.5, w.shape) for w in last.get_weights()]
    last.set_weights(weights)
    first.set_weights(weights)
    x = sample(2, 9, 6, 3)
    for a, b in zip(run(last, x), run(first, x.permute(0, 3, 1, 2)), strict=True):
        torch.testing.assert_close(a, b)


def test_channels_first_softmax_activation_runs_over_the_last_axis_as_in_keras() -> None:
    image = Input((3, 4, 5))
    model = Model(image, L.Conv2D(2, 1, activation="softmax", data_format="channels_first")(image))
    total = run(model, sample(2, 3, 4, 5))[0].sum(-1)
    torch.testing.assert_close(total, torch.ones_like(total))


def test_arithmetic_on_symbolic_tensors() -> None:
    a, b = Input((4,)), Input((4,))
    model = Model([a, b], [a + b, a - b, a * b, 3.0 - a, a / 4 + 1, -a, 2 * a])
    x, y = sample(3, 4), sample(3, 4, seed=2)
    expected = [x + y, x - y, x * y, 3 - x, x / 4 + 1, -x, 2 * x]
    for found, value in zip(run(model, x, y), expected, strict=True):
        torch.testing.assert_close(found, value)
    assert list(model.to_graph().outputs)[:3] == ["add", "subtract", "multiply"]


def test_merges_of_different_rank_broadcast_behind_the_batch() -> None:
    image, vector = Input((3, 5, 4)), Input((4,))
    model = Model([image, vector], L.Multiply()([image, vector]))
    x, v = sample(2, 3, 5, 4), sample(2, 4)
    torch.testing.assert_close(run(model, x, v)[0], x * v[:, None, None, :])


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (L.ReLU(), torch.relu),
        (L.ReLU(6.0), F.relu6),
        (L.ReLU(negative_slope=0.1), lambda x: F.leaky_relu(x, 0.1)),
        (L.LeakyReLU(), lambda x: F.leaky_relu(x, 0.3)),
        (L.Activation("leaky_relu"), lambda x: F.leaky_relu(x, 0.2)),
        (L.Activation("silu"), F.silu),
        (L.Activation("gelu"), F.gelu),
        (L.ELU(0.5), lambda x: F.elu(x, 0.5)),
        (L.Softmax(axis=1), lambda x: torch.softmax(x, 1)),
        (L.Rescaling(2, offset=-1), lambda x: 2 * x - 1),
        (L.Permute((3, 1, 2)), lambda x: x.permute(0, 3, 1, 2)),
        (L.Reshape((-1, 2)), lambda x: x.reshape(len(x), -1, 2)),
        (L.Cropping2D(((1, 0), (2, 1))), lambda x: x[:, 1:, 2:-1]),
        (L.GlobalMaxPooling2D(keepdims=True), lambda x: x.amax((1, 2), keepdim=True)),
        (L.GlobalAveragePooling2D(), lambda x: x.mean((1, 2))),
        (L.Dropout(0.5), lambda x: x),
        (L.Activation("linear"), lambda x: x),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_layers_without_weights(layer: L.Layer, expected: object) -> None:
    image = Input((3, 5, 4))
    x = 3 * sample(2, 3, 5, 4)
    assert callable(expected)
    torch.testing.assert_close(run(Model(image, layer(image)), x)[0], expected(x))


def test_batch_norm_without_gamma_and_beta() -> None:
    vector = Input((3,))
    model = Model(vector, L.BatchNormalization(center=False, scale=False, epsilon=0.5)(vector))
    assert [name.split("/")[1] for name in model.parameters] == ["moving_mean", "moving_variance"]
    mean, variance = np.array([1.0, -2.0, 3.0]), np.array([0.5, 1.5, 2.0])
    model.set_weights([mean, variance])
    x = sample(2, 3)
    torch.testing.assert_close(
        run(model, x)[0], (x - torch.tensor(mean)) / torch.tensor(variance + 0.5).sqrt()
    )


# -- models --------------------------------------------------------------------------------------------------
def test_sequential_takes_input_shape_from_its_first_layer_and_grows() -> None:
    model = Sequential(name="grown")
    model.add(L.Conv2D(2, 3, input_shape=(6, 5, 1)))
    assert model.outputs[0].shape == (None, 4, 3, 2)
    model.add(L.Flatten())
    model.add(L.Dense(3))
    assert list(model.outputs[0].shape) == [None, 3]
    assert [layer.name for layer in model.layers] == ["conv2d", "flatten", "dense"]


def test_nested_models_share_their_weights_between_calls() -> None:
    inner_image = Input((4, 4, 2))
    inner = Model(inner_image, L.Conv2D(2, 3, padding="same", name="c")(inner_image), name="inner")
    image = Input((4, 4, 2))
    model = Model(image, inner(inner(image)), name="outer")
    assert list(model.parameters) == ["inner/c/kernel", "inner/c/bias"]
    x = sample(1, 4, 4, 2)
    torch.testing.assert_close(run(model, x)[0], run(inner, run(inner, x)[0])[0])


def test_models_that_share_layers_share_their_values() -> None:
    vector = Input((4,))
    hidden = L.Dense(3, name="hidden")(vector)
    features, whole = Model(vector, hidden), Model(vector, L.Dense(2, name="top")(hidden))
    whole.parameters["hidden/kernel"] = np.full((4, 3), 7.0)
    assert features.parameters["hidden/kernel"].eq(7).all()


def test_initial_weights_follow_the_seed_alone() -> None:
    def weights(seed: int) -> list[np.ndarray]:
        return Sequential([L.Dense(5, input_shape=(7,)), L.Dense(2)], seed=seed).get_weights()

    first, again, other = weights(3), weights(3), weights(4)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize(
    ("name", "std"),
    [
        ("glorot_uniform", (2 / (300 + 500)) ** 0.5),
        ("glorot_normal", (2 / (300 + 500)) ** 0.5),
        ("he_normal", (2 / 300) ** 0.5),
        ("he_uniform", (2 / 300) ** 0.5),
        ("lecun_normal", (1 / 300) ** 0.5),
        ("random_normal", 0.05),
    ],
)
def test_initializers_have_their_spread(name: str, std: float) -> None:
    model = Sequential([L.Dense(500, kernel_initializer=name, input_shape=(300,))])
    kernel = model.get_weights()[0]
    # The standard deviation of n draws varies by about std / sqrt(2 n): 0.2% here; 2% is ten times that.
    assert kernel.std() == pytest.approx(std, rel=0.02)
    assert abs(kernel.mean()) < 5 * std / kernel.size**0.5


def test_frozen_layers_have_parameters_that_do_not_train() -> None:
    model = Sequential([L.Dense(2, trainable=False, name="d", input_shape=(3,))])
    assert not model.to_graph()["d/kernel"].op.trainable  # type: ignore[attr-defined]


def test_set_weights_and_parameters_check_shapes() -> None:
    model = Sequential([L.Dense(2, name="d", input_shape=(3,))])
    with pytest.raises(ShapeError, match=r"'sequential': has 2 weights, got 1"):
        model.set_weights([np.zeros((3, 2))])
    with pytest.raises(ShapeError, match=r"Dense 'd': weight 'kernel' has shape \(3, 2\), got \(2, 3\)"):
        model.set_weights([np.zeros((2, 3)), np.zeros(2)])
    with pytest.raises(ConvLoomError, match="no parameter 'd/gamma'; there are d/kernel, d/bias"):
        model.parameters["d/gamma"]


# -- errors --------------------------------------------------------------------------------------------------
def image(*shape: int) -> object:
    return Input(shape or (8, 6, 3), name="image")


@pytest.mark.parametrize(
    ("describe", "error", "text"),
    [
        (
            lambda: L.Conv2D(4, 3, strides=0),
            ShapeError,
            "Conv2D 'conv2d': strides must be positive integers, got 0; use",
        ),
        (lambda: L.Conv2D(0, 3), ShapeError, "Conv2D 'conv2d': filters must be a positive integer, got 0"),
        (
            lambda: L.Conv2D(4, (3, 3, 3)),
            ShapeError,
            "kernel_size must be an integer or a pair (height, width), got (3, 3, 3)",
        ),
        (
            lambda: L.Conv2D(4, 3, padding="smae"),
            ShapeError,
            "padding must be 'same', 'valid' or ((top, bottom), (left, right)), got 'smae'",
        ),
        (
            lambda: L.Conv2D(4, 3, activation="rellu"),
            UnsupportedLayerError,
            "Conv2D 'conv2d': activation 'rellu' is not a known activation; did you mean 'relu'?",
        ),
        (
            lambda: L.Conv2D(4, 3, stride=2, name="c"),  # type: ignore[call-arg]
            UnsupportedLayerError,
            "Conv2D 'c': unknown argument 'stride'; did you mean 'strides'?",
        ),
        (
            lambda: L.LeakyReLU(alpha=0.1),  # type: ignore[call-arg]
            UnsupportedLayerError,
            "LeakyReLU: unknown argument 'alpha'; did you mean 'negative_slope'?",
        ),
        (lambda: L.Conv2D(4), UnsupportedLayerError, "Conv2D: needs the argument 'kernel_size'"),  # type: ignore[call-arg]
        (
            lambda: L.Flatten(None, 2),  # type: ignore[arg-type, call-arg]
            UnsupportedLayerError,
            "Flatten: takes 1 positional arguments (data_format), got 2",
        ),
        (
            lambda: L.Dense(3, 3),  # type: ignore[arg-type]
            UnsupportedLayerError,
            "Dense 'dense': activation 3 is not a known activation",
        ),
        (
            lambda: L.Dense(4, kernel_initializer="magic"),
            UnsupportedLayerError,
            "kernel_initializer 'magic' is not a known initializer; use one of zeros",
        ),
        (lambda: L.Dropout(1.0), ShapeError, "Dropout 'dropout': rate must lie in [0, 1), got 1.0"),
        (
            lambda: L.Conv2D(4, 9)(image()),
            ShapeError,
            "Conv2D 'conv2d': a window of 9x9 (dilation 1x1) does not fit into an input of 8x6",
        ),
        (lambda: L.MaxPooling2D(7)(image()), ShapeError, "MaxPooling2D 'max_pooling2d': a window of 7x7"),
        (
            lambda: L.Conv2D(4, 3)(image(8)),
            ShapeError,
            "Conv2D 'conv2d': takes an image (N, height, width, channels), found float32[N,8] of rank 2",
        ),
        (
            lambda: L.Conv2D(4, 3, groups=2)(image()),
            ShapeError,
            "Conv2D 'conv2d': groups=2 must divide the input's 3 channels and the 4 filters",
        ),
        (
            lambda: L.Add()([image(), image(8, 5, 3)]),
            ShapeError,
            "Add 'add': shapes float32[N,8,6,3] and float32[N,8,5,3] do not broadcast",
        ),
        (lambda: L.Add()(image()), ShapeError, "Add 'add': takes at least 2 input(s), got 1"),
        (lambda: L.Flatten()([image(), image()]), ShapeError, "Flatten 'flatten': takes 1 input(s), got 2"),
        (
            lambda: L.Concatenate()([image(), image(8, 5, 3)]),
            ShapeError,
            "Concatenate 'concatenate': concat along axis 3 needs",
        ),
        (
            lambda: L.Reshape((5, -1))(image()),
            ShapeError,
            "Reshape 'reshape': cannot give float32[N,8,6,3], 144 elements a sample, the shape (5, -1)",
        ),
        (
            lambda: L.Cropping2D(4)(image()),
            ShapeError,
            "Cropping2D 'cropping2d': cropping ((4, 4), (4, 4)) leaves nothing of",
        ),
        (
            lambda: L.BatchNormalization(axis=4)(image()),
            ShapeError,
            "axis must name axes 1 to 3 of float32[N,8,6,3] once each, got (4,)",
        ),
        (lambda: L.ReLU(max_value=-5.0)(image()), ShapeError, "ReLU 're_lu': max_value must not be negative"),
        (
            lambda: L.Dense(3)(torch.ones(2, 3)),
            ShapeError,
            "Dense 'dense': takes a symbolic tensor or a list of them, got Tensor of shape (2, 3)",
        ),
        (lambda: image() + "three", ShapeError, "Add 'add': combines with symbolic tensors and numbers, got"),  # type: ignore[operator]
            (lambda: image() + np.ones(4), ShapeError, "Add 'add': shapes float32[N,8,6,3] and"),  # type: ignore[operator]
            (lambda: image() + np.ones((2, 3)), ShapeError, "arrays along the last axis, got"),  # type: ignore[operator]
            (lambda: image()[1:], ShapeError, "the first index must be a whole slice"),  # type: ignore[index]
            (lambda: image()[:, 28], ShapeError, "GetItem 'get_item': index 28 lies outside an axis of 8"),  # type: ignore[index]
            (lambda: image() ** 0.3, ShapeError, "Power 'power': the exponent must be a multiple of 1/2"),  # type: ignore[operator]
        (
            lambda: Sequential([L.Dense(3)]).summary(),
            ConvLoomError,
            "Sequential 'sequential': has no input shape yet; start with Input(shape)",
        ),
        (
            lambda: Sequential([L.Dense(3, name="a", input_shape=(2,)), L.Dense(3, name="a")]),
            ConvLoomError,
            "two layers are named 'a'",
        ),
        (
            lambda: Sequential([Input((2,)), "dense"]),
            ConvLoomError,
            "Sequential 'sequential': takes layers, got str 'dense'",
        ),
    ],
)
def test_wrong_descriptions_are_named(describe: object, error: type[ConvLoomError], text: str) -> None:
    assert callable(describe)
    with pytest.raises(ConvLoomError) as caught:
        describe()
    assert type(caught.value) is error
    assert text in str(caught.value)


def test_a_shared_layer_refuses_other_channels() -> None:
    conv = L.Conv2D(4, 3, name="c")
    conv(Input((8, 8, 3)))
    with pytest.raises(
        ShapeError, match=r"Conv2D 'c': is shared: its weights were made for float32\[N,8,8,3\]"
    ):
        conv(Input((8, 8, 4)))


def test_disconnected_graphs_are_refused() -> None:
    a, b = Input((4,), name="a"), Input((4,), name="b")
    with pytest.raises(
        ConvLoomError, match=r"Model 'm': .*disconnected.*depend on InputLayer 'b'.*add it to inputs="
    ):
        Model(a, a + b, name="m")
    with pytest.raises(ConvLoomError, match=r"disconnected: no output depends on InputLayer 'b'"):
        Model([a, b], a * 2)


def test_duplicate_layer_names_are_refused() -> None:
    a = Input((4,), name="a")
    with pytest.raises(ConvLoomError, match=r"two layers are named 'x' \(Dense and ReLU\)"):
        Model(a, L.ReLU(name="x")(L.Dense(3, name="x")(a)))


def test_models_that_double_stop_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lowering, "MOST_CALLS", 1000)
    vector = Input((2,))
    model = Model(vector, vector + 1.0)

    def four_times(inner: Model) -> Model:
        outside = h = Input((2,))
        for _ in range(4):
            h = inner(h)
        return Model(outside, h)

    for _ in range(4):
        model = four_times(model)
    with pytest.raises(ConvLoomError, match="grows beyond 1,000 layer calls"):
        four_times(model)
