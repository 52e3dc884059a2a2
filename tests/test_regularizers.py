"""Regularizers and constraints: how they are given, what files may say, and how a network has them."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest
import torch
from convloom.graph import ops
from convloom.graph.errors import CompileError
from convloom.graph.ir import Graph
from convloom.graph.passes.precision import with_dtype
from convloom.graph.penalties import add_penalties
from convloom.graph.serial import from_data, to_json
from convloom.graph.verify import verify
from keras_dialects import called, entry, functional, layer

import convloom as cl
from convloom import layers as L

BACKENDS = [{}, {"fuse": False}, {"backend": "triton"}]


def images(*shape: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def regularized() -> cl.Model:
    """A penalty of weights and one of activities, a bounded kernel before a batch norm that is folded."""
    x = cl.Input((6, 5, 3), name="x")
    bound = cl.constraints.MaxNorm(0.5, axis=[0, 1, 2])
    h = L.Conv2D(4, 3, use_bias=False, kernel_regularizer="l2", kernel_constraint=bound, name="conv")(x)
    h = L.BatchNormalization(name="norm")(h)
    h = L.ReLU(activity_regularizer=cl.regularizers.L1(0.01), name="relu")(h)
    y = L.Dense(2, bias_regularizer="l1", name="out")(L.Flatten(name="flat")(h))
    return cl.Model(x, y, seed=0)


def penalty_by_hand(net: cl.CompiledNetwork, activity: torch.Tensor) -> torch.Tensor:
    weights = net.weights()
    counted = 0.01 * weights["conv/kernel"].square().sum() + 0.01 * weights["out/bias"].abs().sum()
    return counted + 0.01 * activity.abs().sum() / len(activity)


def relu_of(net: cl.CompiledNetwork, x: torch.Tensor) -> torch.Tensor:
    """The activity that counts, in inference."""
    w = net.weights()
    h = torch.nn.functional.conv2d(x.permute(0, 3, 1, 2), w["conv/kernel"].permute(3, 2, 0, 1))
    norm = (w["norm/moving_mean"], w["norm/moving_variance"], w["norm/gamma"], w["norm/beta"])
    return torch.relu(torch.nn.functional.batch_norm(h, *norm, eps=1e-3))


def of(class_name: str, **config: Any) -> dict[str, Any]:
    """As a file has it."""
    return {"class_name": class_name, "config": config}


UNKNOWN, WRONG = cl.UnsupportedLayerError, cl.ShapeError
KERNEL, BOUND = "kernel_regularizer", "kernel_constraint"


# -- how they are given --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "said",
    [
        "l2",
        "L2",
        cl.regularizers.L2,
        cl.regularizers.l2(0.01),
        of("L2", l2=0.01),
        of("l2", l2=None),
        {"module": "keras.regularizers", "class_name": "L2", "config": {}, "registered_name": None},
        {"module": "keras.src.regularizers.regularizers", "class_name": "L2", "registered_name": "L2"},
    ],
    ids=str,
)
def test_the_ways_to_give_one(said: Any) -> None:
    assert L.Dense(3, kernel_regularizer=said).kernel_regularizer == cl.regularizers.L2(0.01)


def test_names_and_their_defaults() -> None:
    r, c = cl.regularizers, cl.constraints
    names = ("l1", "l2", "l1l2", "l1_l2", "orthogonal_regularizer", "L1L2")
    orthogonal = r.OrthogonalRegularizer(0.01, "rows")
    wanted = [r.L1(0.01), r.L2(0.01), r.L1L2(), r.L1L2(0.01, 0.01), orthogonal, r.L1L2()]
    assert [r.get(name) for name in names] == wanted
    assert [c.get(name) for name in ("max_norm", "non_neg", "unit_norm", "min_max_norm")] == [
        *(c.MaxNorm(2, 0), c.NonNeg(), c.UnitNorm(0), c.MinMaxNorm(0, 1, 1, 0))
    ]
    assert r.get(None) is None


def test_a_penalty_of_nothing_leaves_no_trace() -> None:
    x = cl.Input((3,))
    graph = cl.Model(x, L.Dense(2, kernel_regularizer="l1l2", activity_regularizer="l1l2")(x)).to_graph()
    assert graph.penalties == {}


@pytest.mark.parametrize(
    ("argument", "value", "error", "text"),
    [
        (KERNEL, "l3", UNKNOWN, "'l3' is not a known regularizer; use one of L1, L2, L1L2, Orth"),
        (KERNEL, 0.01, UNKNOWN, "'0.01' is no regularizer of convloom.regularizers, which has L1"),
        (KERNEL, abs, UNKNOWN, "the function abs is no regularizer"),
        (KERNEL, "max_norm", UNKNOWN, "'max_norm' is not a known regularizer"),
        (BOUND, "maxnorm", UNKNOWN, "'maxnorm' is not a known constraint; did you mean 'max_norm'"),
        ("bias_constraint", torch.nn.ReLU(), UNKNOWN, "an object of torch.*ReLU is no constraint"),
        (KERNEL, of("L2", l2=-1), WRONG, "L2: l2 must not be negative, got -1"),
        (KERNEL, of("L2", l2="big"), WRONG, "L2: l2 must be a finite number, got 'big'"),
        (KERNEL, of("L2", l3=1), UNKNOWN, "L2: unknown argument 'l3'; it takes l2"),
        (KERNEL, of("Mine"), UNKNOWN, "'Mine' is not a known regularizer; use one of L1, L2"),
        (KERNEL, of("L2") | {"module": "mine"}, UNKNOWN, "'L2' of module 'mine' is not a known"),
        (KERNEL, of("L2") | {"registered_name": "my>L2"}, UNKNOWN, "'L2', registered as 'my>L2',"),
        (KERNEL, {"l2": 0.1}, WRONG, "must be an object with class_name and config, got"),
        (BOUND, of("MaxNorm", axis=0.5), WRONG, "MaxNorm: axis must be an integer"),
        (BOUND, of("MinMaxNorm", rate=2), WRONG, r"MinMaxNorm: rate must lie in \[0, 1\], got 2"),
        ("activity_regularizer", "orthogonal_regularizer", UNKNOWN, "is an OrthogonalRegularizer, which"),
    ],
)
def test_what_is_refused(argument: str, value: Any, error: type[cl.ConvLoomError], text: str) -> None:
    with pytest.raises(error, match=rf"^Dense 'd': {argument} {text}"):
        L.Dense(3, name="d", **{argument: value})
    if isinstance(value, dict):  # in a file: the same words behind the place
        dense = layer("Dense", "d", [called("x")], units=3, **{argument: value})
        data = functional([entry(4), dense], ["d", 0, 0])
        with pytest.raises(cl.ConvLoomError, match=rf"layers\[1\] 'd': Dense 'd': {argument} {text}"):
            cl.loads(data)


def test_what_does_not_fit_a_weight() -> None:
    x = cl.Input((6, 5, 3))
    text = r"^Conv2D 'c': kernel: OrthogonalRegularizer takes a matrix, found .*3, 3, 3, 4"
    with pytest.raises(cl.ShapeError, match=text):
        L.Conv2D(4, 3, kernel_regularizer="orthogonal_regularizer", name="c")(x)
    text = r"^Dense 'd': bias: MaxNorm: axis must name axes 0 to 0 of .*\(2,\) once each, got 1"
    with pytest.raises(cl.ShapeError, match=text):
        L.Dense(2, bias_constraint=cl.constraints.MaxNorm(axis=1), name="d")(x)
    with pytest.raises(cl.ShapeError, match=r"^MinMaxNorm: min_value 3 is above max_value 2"):
        cl.constraints.MinMaxNorm(3, 2)
    with pytest.raises(UNKNOWN, match=r"^ActivityRegularization 'a': takes no activity_regularizer"):
        L.ActivityRegularization(0.1, activity_regularizer="l2", name="a")
    with pytest.raises(cl.UnsupportedLayerError, match="takes 5 positional arguments"):
        L.Dense(2, None, True, "zeros", "zeros", "l2")  # type: ignore[call-arg]


def test_a_layer_without_such_weights_takes_none_from_a_file() -> None:
    """Keras 2 writes None there; anything else would be lost without a word."""

    def read(value: Any) -> cl.Model:
        depthwise = layer("DepthwiseConv2D", "d", [called("x")], kernel_size=3, kernel_regularizer=value)
        return cl.loads(functional([entry(6, 5, 3), depthwise], ["d", 0, 0]))

    assert read(None).to_graph().penalties == {}
    with pytest.raises(UNKNOWN, match=r"DepthwiseConv2D with kernel_regularizer=.* is not supported"):
        read(of("L2", l2=0.1))


def test_keras_2_says_it_its_way() -> None:
    """No modules, names of version 2, a string for the constraint; Keras 3's form when written again."""
    config = {
        "units": 3,
        "kernel_regularizer": of("L1L2", l1=0.0, l2=0.009999999776482582),
        "activity_regularizer": None,
        "kernel_constraint": of("MaxNorm", max_value=2, axis=[0]),
        "bias_constraint": "non_neg",
    }
    inbound = [called("x", dialect=2)]
    data = functional([entry(4), layer("Dense", "d", inbound, **config)], [["d", 0, 0]], [["x", 0, 0]])
    model = cl.loads(data)
    graph = model.to_graph()
    assert graph.penalties == {"d/kernel": (ops.SizePenalty(0.0, 0.009999999776482582),)}
    assert graph.constraints == {"d/kernel": ops.NormWithin((0,), 0.0, 2.0), "d/bias": ops.Relu()}
    written = json.loads(model.to_json())["config"]["layers"][1]["config"]
    modern = {"module": "keras.regularizers", "registered_name": None}
    assert written["kernel_regularizer"] == config["kernel_regularizer"] | modern  # type: ignore[operator]
    assert written["bias_constraint"]["class_name"] == "NonNeg"
    assert "activity_regularizer" not in written
    assert cl.loads(model.to_json()).to_graph().constraints == graph.constraints


# -- networks ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("backend", BACKENDS, ids=str)
def test_losses_by_name_and_as_functions_count_alike(backend: dict[str, Any]) -> None:
    """Trained and validated, in `fit` and in a loop of one's own."""
    x, y = images(8, 6, 5, 3), images(8, 2, seed=4)
    found = []
    for loss in ("mse", lambda prediction, target: (prediction - target).square().mean()):
        net = cl.compile(regularized(), **backend)
        net.load_state_dict({**net.state_dict(), "out/bias": torch.tensor([0.5, -0.25])})
        options: dict[str, Any] = {"epochs": 2, "batch_size": 4, "shuffle": False, "verbose": False}
        history = cl.fit(net, (x, y), loss, "sgd", validation_data=(x, y), **options)
        inputs = torch.tensor(x)
        expected = (net(inputs) - torch.tensor(y)).square().mean()
        expected = expected + penalty_by_hand(net, relu_of(net, inputs))
        assert history.history["val_loss"][-1] == pytest.approx(expected.item(), rel=1e-5)
        found.append((history.history["loss"], [w.detach() for w in net.weights().values()]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", BACKENDS, ids=str)
def test_the_penalty_of_a_loop_of_one_s_own(options: dict[str, Any]) -> None:
    net = cl.compile(regularized(), **options)
    step, x = net.with_penalty(), torch.tensor(images(3, 6, 5, 3))
    prediction, penalty = step(x)
    torch.testing.assert_close(prediction, net(x))
    expected = penalty_by_hand(net, relu_of(net, x))
    torch.testing.assert_close(penalty, expected, rtol=1e-5, atol=1e-6)
    trained = [weight for weight in net.weights().values() if weight.requires_grad]
    found = torch.autograd.grad(penalty, trained)
    wanted = torch.autograd.grad(expected, trained, allow_unused=True, materialize_grads=True)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    first, second = step(x)[1], step(x)[1]  # two numbers, each with its own way back
    assert first is not second
    (first + second).backward()


def test_a_penalty_of_weights_alone_follows_them() -> None:
    """It needs no kernel: it is kept while the weights stay, and never handed out twice."""
    x = cl.Input((4,))
    net = cl.compile(cl.Model(x, L.Dense(2, kernel_regularizer="l2", name="d")(x)))
    step, given = net.with_penalty(), torch.tensor(images(3, 4))
    kernel = net.get_parameter("d/kernel")
    for _ in range(3):
        _, penalty = step(given)
        penalty.backward()
        torch.testing.assert_close(penalty.detach(), 0.01 * kernel.detach().square().sum())
        torch.testing.assert_close(kernel.grad, 0.02 * kernel.detach())
        kernel.grad = None
        with torch.no_grad():
            kernel.mul_(1.5)


def test_gradients_of_gradients_pass_through_penalties() -> None:
    """Against the same network in torch: of weights, of activities, and of an orthogonal one."""
    r = cl.regularizers
    rules: dict[str, Any] = {"kernel_regularizer": r.L1L2(0.1, 0.2), "activity_regularizer": r.L2(0.3)}
    x = cl.Input((4,))
    h = L.Dense(5, activation="tanh", use_bias=False, **rules)(x)
    y = L.Dense(3, use_bias=False, kernel_regularizer=r.OrthogonalRegularizer(0.5))(h)
    net = cl.compile(cl.Model(x, y), dtype="float64").train()
    given = torch.tensor(images(3, 4), dtype=torch.float64)
    first, second = net.weights().values()

    def twice(prediction: torch.Tensor, penalty: torch.Tensor) -> tuple[torch.Tensor, ...]:
        total = prediction.square().sum() + penalty
        gradients = torch.autograd.grad(total, [first, second], create_graph=True)
        return torch.autograd.grad(torch.stack([g.square().sum() for g in gradients]).sum(), [first, second])

    activity = torch.tanh(given @ first)
    penalty = r.L1L2(0.1, 0.2)(first) + r.L2(0.3)(activity) / 3 + r.OrthogonalRegularizer(0.5)(second)
    torch.testing.assert_close(twice(*net.with_penalty()(given)), twice(activity @ second, penalty))


def test_an_output_may_be_called_loss() -> None:
    x = cl.Input((4,))
    net = cl.compile(cl.Model(x, L.Dense(2, kernel_regularizer="l2", name="loss")(x)))
    given, target = torch.tensor(images(3, 4)), torch.zeros(3, 2)
    loss, prediction = net.with_loss("mse")(given, target)
    assert (loss.shape, prediction.shape) == ((), (3, 2))
    found, penalty = net.with_penalty()(given)
    torch.testing.assert_close(loss, found.square().mean() + penalty)


def test_layers_frozen_after_compiling_are_not_counted() -> None:
    model = regularized()
    net = cl.compile(model).train()
    step, x = net.with_penalty(), torch.tensor(images(3, 6, 5, 3))
    loss = net.with_loss("mse")
    before, with_all = step(x)[1].detach(), loss(x, torch.zeros(3, 2))[0].detach()
    conv = model.get_layer("conv")
    assert isinstance(conv, L.Conv2D)
    conv.trainable = False
    counted = 0.01 * net.weights()["conv/kernel"].detach().square().sum()
    torch.testing.assert_close(step(x)[1].detach(), before - counted)
    torch.testing.assert_close(loss(x, torch.zeros(3, 2))[0].detach(), with_all - counted)
    conv.trainable = True
    torch.testing.assert_close(step(x)[1].detach(), before)


def test_without_regularizers_the_penalty_is_nothing() -> None:
    x = cl.Input((4,))
    net = cl.compile(cl.Model([x], L.Dense(2)(x)))
    prediction, penalty = net.with_penalty()(torch.tensor(images(3, 4)))
    assert penalty.item() == 0
    (prediction.sum() + penalty).backward()


def test_several_outputs_stand_beside_the_penalty() -> None:
    x = cl.Input((4,))
    a, b = L.Dense(2, kernel_regularizer="l2", name="penalty")(x), L.Dense(3, name="b")(x)
    net = cl.compile(cl.Model(x, [a, b]))
    (first, second), penalty = net.with_penalty()(torch.tensor(images(3, 4)))
    assert (tuple(first.shape), tuple(second.shape), tuple(penalty.shape)) == ((3, 2), (3, 3), ())


def test_weights_that_are_frozen_later_are_not_counted() -> None:
    net = cl.compile(regularized())
    x = torch.tensor(images(3, 6, 5, 3))
    before = net.with_penalty()(x)[1].detach()
    kernel = net.get_parameter("conv/kernel").requires_grad_(False)
    torch.testing.assert_close(net.with_penalty()(x)[1].detach(), before - 0.01 * kernel.square().sum())


@pytest.mark.parametrize("options", BACKENDS, ids=str)
def test_constraints_reach_packed_and_folded_weights(options: dict[str, Any]) -> None:
    net = cl.compile(regularized(), **options)
    x = torch.tensor(images(3, 6, 5, 3))
    net(x)  # which packs and folds
    with torch.no_grad():
        net.get_parameter("conv/kernel").mul_(30)
    net.apply_constraints()
    norms = net.get_parameter("conv/kernel").detach().square().sum((0, 1, 2)).sqrt()
    torch.testing.assert_close(norms, torch.full((4,), 0.5))
    twin = cl.compile(regularized(), **options)
    twin.load_state_dict(net.state_dict())
    torch.testing.assert_close(net(x), twin(x))
    for weight in net.parameters():
        weight.requires_grad_(False)
        weight.mul_(2)
    net.apply_constraints()  # which moves nothing that is not trained
    torch.testing.assert_close(net.get_parameter("conv/kernel").square().sum((0, 1, 2)).sqrt(), norms * 2)


@pytest.mark.parametrize("open_axes", [False, True])
def test_a_network_inside_another_module_is_fitted_alike(open_axes: bool) -> None:
    """As `DistributedDataParallel` or `nn.Sequential` have it inside."""

    def network() -> cl.CompiledNetwork:
        x = cl.Input((None, None, 3) if open_axes else (6, 5, 3))
        bound = cl.constraints.MaxNorm(0.3, axis=[0, 1, 2])
        h = L.Conv2D(4, 3, kernel_regularizer="l2", kernel_constraint=bound, name="conv")(x)
        y = L.Dense(2, bias_regularizer=cl.regularizers.L1(0.1), name="out")(L.GlobalAveragePooling2D()(h))
        return cl.compile(cl.Model(x, y, seed=0), device="cpu")

    data = images(12, 6, 5, 3), images(12, 2, seed=4)
    found = []
    for net in (network(), torch.nn.Sequential(network())):
        history = cl.fit(
            net, data, torch.nn.MSELoss(), torch.optim.SGD(net.parameters(), 0.1), epochs=3,
            validation_data=data, shuffle=False, verbose=False,
        )  # fmt: skip
        found.append((history.history, [p.detach() for p in net.parameters()]))
    for name, values in found[0][0].items():
        assert found[1][0][name] == pytest.approx(values, rel=1e-5)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one, other)


def test_activities_inside_another_module_are_not_left_out_silently() -> None:
    net = torch.nn.Sequential(cl.compile(regularized(), device="cpu"))
    with pytest.raises(cl.ConvLoomError, match=r"the activations of relu, .* net.with_penalty\(\)"):
        cl.fit(net, (images(4, 6, 5, 3), images(4, 2)), torch.nn.MSELoss(), verbose=False)


def test_a_copy_has_them_too() -> None:
    net = cl.compile(regularized())
    x = torch.tensor(images(3, 6, 5, 3))
    twin = copy.deepcopy(net)
    with torch.no_grad():
        twin.get_parameter("conv/kernel").mul_(9)
    twin.apply_constraints()
    assert twin.with_penalty()(x)[1] != net.with_penalty()(x)[1]


@pytest.mark.parametrize("options", [{}, {"backend": "triton"}], ids=str)
def test_large_activities_in_half_precision_are_summed_in_float32(options: dict[str, Any]) -> None:
    x = cl.Input((6, 5, 3))
    size = L.ActivityRegularization(1e-9, 1e-9)(L.Rescaling(1000.0)(x))
    net = cl.compile(cl.Model(x, L.Dense(2, name="d")(L.Flatten()(size))), dtype="float16", **options)
    given = torch.tensor(images(3, 6, 5, 3)).half()
    _, penalty = net.with_penalty()(given)
    wide = (given * 1000).double()
    expected = 1e-9 * (wide.abs().sum() + wide.square().sum()) / 3
    assert penalty.item() == pytest.approx(expected.item(), rel=1e-3)


# -- graphs --------------------------------------------------------------------------------------------------
def test_the_graph_keeps_them() -> None:
    graph = regularized().to_graph()
    assert "penalty size_penalty(l1=0.01, l2=0.0) of %relu" in str(graph)
    assert "constrain %conv/kernel by norm_within(axes=(0,1,2), least=0.0, most=0.5, rate=1.0)" in str(graph)
    verify(graph)
    for twin in (graph.copy(), from_data(json.loads(to_json(graph))), with_dtype(graph, "float32")):
        assert str(twin) == str(graph)
    half = with_dtype(graph, "float16")
    verify(half)
    assert (half.penalties, half.constraints) == (graph.penalties, graph.constraints)
    graph.rename("conv/kernel", "k")
    assert "k" in graph.penalties
    assert "k" in graph.constraints
    verify(graph)
    old = json.loads(to_json(cl.Model(x := cl.Input((2,)), L.ReLU()(x)).to_graph()))
    assert "penalties" not in old  # files from before have none
    assert "constraints" not in old


def test_a_graph_without_the_value_has_no_penalty_of_it() -> None:
    graph = Graph()
    x = graph.add(ops.Input(("N", 3)), name="x")
    y = graph.add(ops.Relu(), [x], "y")
    graph.outputs = {"x": x}
    graph.penalties = {y: (ops.SizePenalty(l2=1.0),)}
    graph.remove(y)
    verify(graph)
    assert graph.penalties == {}


@pytest.mark.parametrize(
    ("penalties", "constraints", "text"),
    [
        ({"gone": (ops.SizePenalty(l1=1.0),)}, {}, "penalty size_penalty.* of gone, which is no node"),
        ({"x": (ops.Relu(),)}, {}, r"penalty relu of x, float32\[N,3\]: it is none"),
        ({"x": (ops.OrthogonalPenalty(),)}, {}, "of x, .*: it is of weights"),
        ({"v": (ops.OrthogonalPenalty(),)}, {}, "of v, .*: orthogonal_penalty takes a matrix"),
        ({}, {"x": ops.Relu()}, "constraint of x, which is no parameter"),
        ({}, {"v": ops.NormWithin((1,))}, r"norm_within.* cannot constrain v of float32\[3\]"),
    ],
)
def test_verify_looks_at_them(penalties: Any, constraints: Any, text: str) -> None:
    graph = Graph()
    graph.add(ops.Input(("N", 3)), name="x")
    graph.add(ops.Parameter((3,)), name="v")
    graph.outputs, graph.penalties, graph.constraints = {"x": "x"}, penalties, constraints
    with pytest.raises(CompileError, match=text):
        verify(graph)


def test_weights_that_are_ruled_alike_are_one_node() -> None:
    """A network of many regularized layers computes one more value, not one a layer."""
    x = h = cl.Input((8,))
    for _ in range(5):
        h = L.Dense(8, kernel_regularizer="l2")(h)
    graph = cl.Model(x, L.Dense(3, kernel_regularizer="l1")(h)).to_graph()
    before = len(graph)
    assert add_penalties(graph) is not None
    assert len(graph) == before + 3


def test_kernels_of_a_regularized_network() -> None:
    """Of weights: one more kernel a weight, in the backward pass. Of activities: sums over pixels, then over
    channels, and one in the backward pass.
    """
    x = cl.Input((6, 5, 3))

    def kernels(**rules: Any) -> list[str]:
        h = L.Conv2D(4, 3, activation="relu", **rules)(x)
        net = cl.compile(cl.Model(x, L.Dense(2)(L.Flatten()(h)))).train()
        regions = net.with_loss("mse").program.regions
        return [" ".join(node.op.op_name() for node in region.nodes) for region in regions]

    plain, weights = kernels(), kernels(kernel_regularizer="l2")
    activities = kernels(activity_regularizer="l2")
    assert set(weights) - set(plain) == {"add", "multiply scale add"}
    assert len(weights) == len(plain) + 2
    sums = {"square scale reduce", "reduce", "add"}
    rides = "broadcast_to scale multiply scale add activation_grad"
    backward = {"dense_data_grad dense_weight_grad reduce", rides}
    assert set(activities) - set(plain) == sums | backward
    assert len(activities) == len(plain) + 4
