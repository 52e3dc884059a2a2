"""Losses by name: Keras's values and gradients, whatever the network ends in, training as validating."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import keras
import pytest
import torch
from convloom.graph import ops
from convloom.graph.errors import CompileError
from convloom.graph.losses import LOSSES, add_loss
from convloom.planning.forms import refusal
from convloom.planning.fusion import fuse
from graphs import Builder, assert_same, outputs, values
from kernel_checks import check, image, region

import convloom as cl
from convloom import layers as L

CLASSES = 5


# -- where the logits are ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("loss", "last", "op"),
    [
        ("categorical_crossentropy", ops.Softmax(), ops.SoftmaxCrossEntropy()),
        ("categorical_crossentropy", ops.Sigmoid(), ops.CategoricalCrossEntropy()),
        ("binary_crossentropy", ops.Sigmoid(), ops.BinaryCrossEntropy(from_logits=True)),
        ("binary_crossentropy", ops.Softmax(), ops.BinaryCrossEntropy()),
        ("mse", ops.Softmax(), ops.SquaredError()),
    ],
)
@pytest.mark.parametrize("seen", [(6,), (2, 3), (3, 2)], ids=str)
def test_the_loss_takes_the_logits_of_the_activation_that_belongs_to_it(
    loss: str, last: Any, op: Any, seen: tuple[int, ...]
) -> None:
    """Through views too; a softmax, only where the loss's rows are the softmax's."""
    b = Builder()
    head = b.op(last, b.op(ops.Reshape((2, 3)), b.dense(b.input(4), 6)), name="last")
    graph = b.finish(b.op(ops.Reshape(seen), head) if seen != (2, 3) else head)
    kept = (
        op if seen[-1] == 3 or not isinstance(op, ops.SoftmaxCrossEntropy) else ops.CategoricalCrossEntropy()
    )
    found = graph.copy()
    found.outputs = {"loss": add_loss(found, loss)}
    assert kept in [node.op for node in found.nodes()]
    given = values(found)
    (prediction,) = outputs(graph, given).values()
    assert_same(outputs(found, given), {"loss": LOSSES[loss]()(given["target"], prediction)})


@pytest.mark.parametrize(
    ("last", "loss", "from_logits", "text"),
    [
        (ops.Tanh(), "categorical_crosentropy", False, "unknown loss .*; did you mean 'categorical_crosse"),
        (ops.Softmax(), "categorical_crossentropy", True, "ends in a softmax, so its output is no logits"),
        (ops.Tanh(), "mse", True, "mse has no logits; leave from_logits out"),
    ],
)
def test_losses_that_cannot_be(last: Any, loss: str, from_logits: bool, text: str) -> None:
    b = Builder()
    with pytest.raises(CompileError, match=text):
        add_loss(b.finish(b.op(last, b.input(4))), loss, from_logits)


# -- against Keras -------------------------------------------------------------------------------------------
def average_of_softmaxes(x: Any) -> Any:
    return L.Average()([L.Dense(CLASSES, activation="softmax")(x), L.Dense(CLASSES, activation="softmax")(x)])


def rows_of_pixels(activation: str) -> Callable[[Any], Any]:
    return lambda x: L.Activation(activation)(L.Reshape((2, CLASSES))(L.Dense(2 * CLASSES)(x)))


WAYS: dict[str, dict[str, Any]] = {"aten": {}, "unfused": {"fuse": False}, "triton": {"backend": "triton"}}

ENDS: dict[str, Callable[[Any], Any]] = {
    "softmax": L.Dense(CLASSES, activation="softmax"),
    "softmax layer": lambda x: L.Softmax()(L.Dense(CLASSES)(x)),
    "softmax of rows": rows_of_pixels("softmax"),
    "flat sigmoid of rows": lambda x: L.Flatten()(rows_of_pixels("sigmoid")(x)),
    "sigmoid": L.Dense(CLASSES, activation="sigmoid"),
    "relu": lambda x: L.ReLU()(L.Dense(CLASSES, bias_initializer="ones")(x)),
    "average of softmaxes": average_of_softmaxes,
    "product": lambda x: L.Multiply()([L.Dense(CLASSES, activation=a)(x) for a in ("sigmoid", "softmax")]),
    "one sigmoid": L.Dense(1, activation="sigmoid"),
}


def network(end: str, **options: Any) -> cl.CompiledNetwork:
    x = cl.Input((7,))
    return cl.compile(cl.Model(x, ENDS[end](x), seed=3), device="cpu", **options)


def batch(net: cl.CompiledNetwork, loss: str, examples: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(examples, 7, generator=generator)
    shape = net(x).shape
    if loss == "binary_crossentropy":
        return x, (torch.rand(shape, generator=generator) > 0.4).float()
    number = torch.randint(shape[-1], shape[:-1], generator=generator)
    return x, torch.nn.functional.one_hot(number, shape[-1]).float()


def keras_loss(loss: str, from_logits: bool = False) -> Any:
    named = {
        "categorical_crossentropy": keras.losses.CategoricalCrossentropy,
        "binary_crossentropy": keras.losses.BinaryCrossentropy,
    }
    return named[loss](from_logits=from_logits)


@pytest.mark.parametrize("backend", WAYS)
@pytest.mark.parametrize("loss", ["categorical_crossentropy", "binary_crossentropy"])
@pytest.mark.parametrize("end", ENDS)
def test_values_and_gradients_are_those_of_keras(end: str, loss: str, backend: str) -> None:
    """In training and in eval mode, on both backends, fused and unfused."""
    if end == "one sigmoid" and loss == "categorical_crossentropy":
        pytest.skip("one class is no choice")
    if end == "relu" and loss == "binary_crossentropy":
        pytest.skip("Keras clips values that are no probabilities")
    options: dict[str, Any] = {"aten": {}, "unfused": {"fuse": False}, "triton": {"backend": "triton"}}[  # type: ignore[assignment]
        backend
    ]
    net = network(end, **options)
    x, target = batch(net, loss)
    net.train()
    prediction = net(x)
    expected = keras_loss(loss)(target, prediction)
    wanted = torch.autograd.grad(expected, list(net.parameters()), allow_unused=True)
    step = net.with_loss(loss)
    value, same = step(x, target)
    value.backward()
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(same, prediction)
    for parameter, gradient in zip(net.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)
    net.eval()
    with torch.no_grad():
        validated, _ = step(x, target)
    torch.testing.assert_close(validated, value.detach(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("backend", ["aten", "triton"])
@pytest.mark.parametrize("loss", ["categorical_crossentropy", "binary_crossentropy"])
def test_from_logits(loss: str, backend: str) -> None:
    x = cl.Input((7,))
    net = cl.compile(cl.Model(x, L.Dense(CLASSES)(x), seed=3), device="cpu", backend=backend)
    data, target = batch(net, loss)
    expected = keras_loss(loss, from_logits=True)(target, net(data))
    value, _ = net.with_loss(loss, from_logits=True)(data, target)
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", WAYS)
@pytest.mark.parametrize(
    ("loss", "end"), [("categorical_crossentropy", "softmax"), ("binary_crossentropy", "sigmoid")]
)
def test_saturated_outputs_still_learn(loss: str, end: str, backend: str) -> None:
    """Keras on probabilities stops at log 1e-7 = -16.1 and has no gradient there; the logits go on."""
    options: dict[str, Any] = {"aten": {}, "unfused": {"fuse": False}, "triton": {"backend": "triton"}}[  # type: ignore[assignment]
        backend
    ]
    net = network(end, **options)
    x, target = batch(net, loss)
    kernel, bias = net.parameters()
    with torch.no_grad():
        kernel.mul_(300)
        bias.zero_()
    logits = x @ kernel + bias
    function: Any = (
        torch.nn.functional.cross_entropy if end == "softmax"
        else torch.nn.functional.binary_cross_entropy_with_logits
    )  # fmt: skip
    expected = function(logits, target)
    assert float(expected.detach()) > 40
    (wanted,) = torch.autograd.grad(expected, [kernel])
    step = net.train().with_loss(loss)
    value, _ = step(x, target)
    value.backward()
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(kernel.grad, wanted, rtol=1e-4, atol=1e-5)
    net.eval()
    with torch.no_grad():
        torch.testing.assert_close(step(x, target)[0], expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("backend", ["aten", "triton"])
def test_targets_keep_float32_beside_a_half_precision_network(backend: str) -> None:
    x = cl.Input((7,))
    net = cl.compile(cl.Model(x, L.Dense(2)(x), seed=3), device="cpu", backend=backend, dtype="bfloat16")
    data, target = torch.zeros(4, 7), torch.full((4, 2), 1000.5)
    value, prediction = net.train().with_loss("mse")(data, target)
    assert float(value.detach()) == pytest.approx(
        float(((prediction.float() - target) ** 2).mean()), rel=1e-6
    )


# -- kernels -------------------------------------------------------------------------------------------------
SHAPES = [((10,), 3), ((3, 17), 2), ((1,), 5), ((1000,), 5), ((2, 5, 65), 3)]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(("shape", "batch_size"), SHAPES, ids=str)
def test_a_cross_entropy_stores_its_softmax_beside(
    shape: tuple[int, ...], batch_size: int, dtype: str
) -> None:
    """One kernel, for batches of one program and of several, whose parts a second one adds up."""
    nodes = [
        image("x", *shape, dtype=dtype),
        image("target", *shape),
        ("y", ops.Softmax(), ["x"]),
        ("rows", ops.SoftmaxCrossEntropy(), ["x", "target"]),
        ("loss", ops.Reduce(tuple(range(len(shape) + 1)), mean=True), ["rows"]),
    ]
    given = region(nodes, outputs=["y", "loss"], anchor="y")
    kernel = check(given, length=shape[-1], batches=(1, batch_size, 150 if shape == (10,) else 2))
    assert kernel.launches == 2
    assert kernel.source.count("if programs > 1:") == 2


def test_a_loss_of_one_program_is_one_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [
        image("x", 10),
        image("t", 10),
        ("rows", ops.SoftmaxCrossEntropy(), ["x", "t"]),
        ("loss", ops.Reduce((0, 1), mean=True), ["rows"]),
    ]
    module = check(region(nodes, anchor="rows")).load(interpreted=True)
    (finish,) = (name for name in vars(module) if "_finish_" in name)
    monkeypatch.delattr(module, finish)
    module.launch(*module.example(128), *module.results(128))
    with pytest.raises(NameError, match=finish):
        module.launch(*module.example(129), *module.results(129))


@pytest.mark.parametrize(
    ("first", "loss", "reason"),
    [
        (ops.Tanh(), ops.SoftmaxCrossEntropy(), "x of .* broadcasts along an axis no kernel handles"),
        (ops.Softmax(), ops.CategoricalCrossEntropy(), "loss: categorical_cross_entropy is no function of"),
    ],
)
def test_what_stands_beside_a_loss_is_its_softmax(first: Any, loss: Any, reason: str) -> None:
    nodes = [image("x", 10), image("t", 10), ("y", first, ["x"]), ("loss", loss, ["x", "t"])]
    given = region(nodes, outputs=["y", "loss"], anchor="loss")
    assert re.search(reason, str(refusal(given)))
    graph = given.graph
    assert [len(kernel.nodes) for kernel in fuse(graph).kernels] == [1, 1]


def test_softmax_and_loss_are_one_kernel_whoever_reads_the_softmax() -> None:
    x = cl.Input((7,))
    model = cl.Model(x, L.Dense(CLASSES, activation="softmax")(x), seed=3)
    net = cl.compile(model, device="cpu", backend="triton").train()
    found = [kernel.ops for kernel in net.with_loss("categorical_crossentropy").compiled.kernels]
    assert ["softmax", "softmax_cross_entropy", "reduce"] in found
    data, target = batch(net, "categorical_crossentropy")
    loss, prediction = net.with_loss("categorical_crossentropy")(data, target)
    torch.testing.assert_close(prediction.sum(-1), torch.ones(len(data)))
    torch.testing.assert_close(loss, -(target * prediction.log()).sum(-1).mean())
