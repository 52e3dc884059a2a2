"""NaN and infinities go through every fused form as through the ops' own definitions.

One image of the batch holds NaN, infinity and minus infinity, each at a place of its own; the others must
stay as they are. Values are compared by where they are NaN, where infinite, and closely where they are not.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from aten_harness import Sketch, Values, draw_sources, evaluate_all, lowered, training
from convloom.codegen import emit
from convloom.graph import ops
from convloom.graph.ir import Graph
from convloom.graph.op import REGISTRY
from convloom.graph.passes import INFERENCE, run_pipeline
from convloom.planning.fusion import fuse, leave_unfused
from convloom.planning.regions import Partition

import convloom as cl
from convloom import layers as L

SPECIAL = (float("nan"), float("inf"), float("-inf"))
CUTS = {"fused": fuse, "unfused": leave_unfused}
BATCHES = (1, 2, 32)

VARIANTS: dict[type[ops.Activation], list[ops.Activation]] = {
    ops.LeakyRelu: [ops.LeakyRelu(0.2), ops.LeakyRelu(0.0)],
    ops.Gelu: [ops.Gelu(), ops.Gelu(approximate=True)],
    ops.Elu: [ops.Elu(0.7), ops.Elu(1.67, scale=1.05), ops.Elu(0.7, input_scale=1 / 0.7)],
    ops.GeneralRelu: [
        ops.GeneralRelu(), ops.GeneralRelu(max_value=1.5), ops.GeneralRelu(2.0, 0.25, 0.5),
        ops.GeneralRelu(threshold=1.0),
    ],
    ops.Clip: [ops.Clip(), ops.Clip(-0.5, 1.0)],
    ops.HardSigmoid: [ops.HardSigmoid(), ops.HardSigmoid(0.2)],
    ops.Threshold: [ops.Threshold(), ops.Threshold(0.5, -1.0)],
}  # fmt: skip
ACTIVATIONS = [
    variant
    for op in REGISTRY.values()
    if issubclass(op, ops.Activation) and op is not ops.Activation
    for variant in VARIANTS.get(op, [op()])
]
STEEP = (ops.Log, ops.Sqrt)
"""Infinitely steep at 0, where a contraction's rounding would decide: tested alone."""
every_activation = pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
after_a_contraction = pytest.mark.parametrize(
    "activation", [a for a in ACTIVATIONS if not isinstance(a, STEEP)], ids=str
)


# -- the harness ----------
def run(partition: Partition, sources: Values, inference: bool) -> Values:
    """Every region in turn, in float32, on what the regions before it gave."""
    graph = partition.graph
    values = {name: value.to(graph[name].type.torch_dtype).contiguous() for name, value in sources.items()}
    for node in graph.nodes():
        if node.inputs and node.name in graph.parameter_only():
            values[node.name] = node.evaluate(*(values[name] for name in node.inputs)).contiguous()
    with torch.no_grad():
        for region in partition:
            results = lowered(region, inference=inference)([values[node.name] for node in region.inputs])
            values |= dict(zip((node.name for node in region.outputs), results, strict=True))
    return values


def assert_alike(found: torch.Tensor, wanted: torch.Tensor, what: str) -> None:
    assert found.shape == wanted.shape
    for kind in (torch.isnan, torch.isposinf, torch.isneginf):
        differing = kind(found) != kind(wanted)
        where = differing.nonzero()[:3].tolist()
        assert not differing.any(), f"{what}: {kind.__name__} differs at {where} of {tuple(found.shape)}"
    numbers = wanted.isfinite()
    scale = float(wanted[numbers].abs().max()) if numbers.any() else 1.0
    error = (found.double() - wanted)[numbers].abs()
    assert not error.numel() or float(error.max()) <= 2e-5 * max(scale, 1.0), what


def check(
    build: Callable[[], Graph], batch: int, spoil: Callable[[Values], None], train: bool = False
) -> None:
    """The outputs, in training the gradients too, are those of the definitions in float64."""
    graph = training(build()) if train else build()
    sources = draw_sources(graph, batch)
    spoil(sources)
    exact = evaluate_all(graph, sources)
    if not train:
        run_pipeline(graph, INFERENCE)
    for name, cut in CUTS.items():
        found = run(cut(graph), sources, inference=not train)
        for output, node in graph.outputs.items():
            assert_alike(found[node], exact[node], f"{name}, batch {batch}, {output}")


def spoil_image(values: Values) -> None:
    """The last image: a pixel each of NaN, infinity and minus infinity, none in another's 5x5 window."""
    height, width = values["x"].shape[1:3]
    for value, (row, column) in zip(SPECIAL, ((2, 2), (2, width - 3), (height - 3, 2)), strict=True):
        values["x"][-1, row, column, 0] = value


# -- activations behind a contraction, and behind a residual ----------
CONVOLUTIONS = {"small": (9, 8, 3), "large kernel": (12, 3, 5), "through oneDNN": (12, 48, 3)}
"""Height, channels and kernel: each takes another way at batch 1."""


@after_a_contraction
@pytest.mark.parametrize("form", CONVOLUTIONS)
@pytest.mark.parametrize("with_residual", [False, True])
def test_convolution_and_activation(activation: ops.Activation, form: str, with_residual: bool) -> None:
    size, channels, kernel = CONVOLUTIONS[form]
    around = (kernel // 2, kernel // 2)

    def build() -> Graph:
        s = Sketch.empty()
        x = s.image(size, size + 1, channels)
        h = s.conv(x, (kernel, kernel), channels, padding=(around, around))
        return s.done(s.then(activation, s.then(ops.Add(), h, x) if with_residual else h))

    for batch in BATCHES:
        check(build, batch, spoil_image)


@after_a_contraction
def test_product_and_activation(activation: ops.Activation) -> None:
    def build() -> Graph:
        s = Sketch.empty()
        return s.done(s.then(activation, s.dense(s.image(257), 513)))

    for batch in BATCHES:
        for value in SPECIAL:

            def spoil(values: Values, value: float = value) -> None:
                values["x"][-1, 3] = value

            check(build, batch, spoil)


@every_activation
def test_activation_alone_and_in_a_chain(activation: ops.Activation) -> None:
    def build() -> Graph:
        s = Sketch.empty()
        x = s.image(9, 8, 5)
        return s.done(s.then(activation, x), s.then(activation, s.then(ops.Scale(0.5, 0.1), x)))

    for batch in BATCHES:
        check(build, batch, spoil_image)


# -- pooling: with and without padding, side by side, overlapping, with gaps, of the whole map ----------
WINDOWS: dict[str, tuple[tuple[int, int], tuple[int, int], object]] = {
    "2x2": ((2, 2), (2, 2), ((0, 0), (0, 0))),
    "3x3 at 2, same": ((3, 3), (2, 2), ((0, 1), (0, 1))),
    "3x2 at 1": ((3, 2), (1, 1), ((1, 1), (0, 1))),
    "padding over half": ((2, 3), (2, 2), ((0, 1), (2, 0))),
    "apart": ((2, 2), (3, 3), ((0, 0), (0, 0))),
    "global": ((12, 10), (12, 10), ((0, 0), (0, 0))),
}


@pytest.mark.parametrize("train", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
@pytest.mark.parametrize("kind", [ops.MaxPool2D, ops.AveragePool2D])
@pytest.mark.parametrize("channels", [3, 17])
def test_pooling(kind: type, window: tuple, channels: int, train: bool) -> None:  # type: ignore[type-arg]
    def build() -> Graph:
        s = Sketch.empty()
        return s.done(s.then(kind(*window), s.image(12, 10, channels)))

    for batch in BATCHES:
        check(build, batch, spoil_image, train)


@pytest.mark.parametrize("channels", [3, 40])
def test_the_position_of_nan(channels: int) -> None:
    """The last NaN of a window, in maps large enough to be sliced too; the gradient goes there."""
    s = Sketch.empty()
    x = s.image(32, 32, channels)
    graph = s.done(s.then(ops.MaxPool2D(), x), s.then(ops.MaxPoolIndex2D(), x))
    for at in range(15):
        image = torch.randn(2, 32, 32, channels, generator=torch.Generator().manual_seed(at))
        for bit in range(4):
            if at >> bit & 1:
                image[1, 4 + bit // 2, 6 + bit % 2, -1] = float("nan")
        found = run(fuse(graph), {"x": image}, inference=False)
        for name in graph.outputs.values():
            torch.testing.assert_close(found[name], graph[name].op.reference(image), equal_nan=True)
        if at:
            assert int(found[graph.outputs["out1"]][1, 2, 3, -1]) == at.bit_length() - 1


# -- normalisation ----------
def batch_norm(s: Sketch, x: str) -> str:
    return s.norm(x)


def layer_norm(s: Sketch, x: str) -> str:
    return normalized(s, x, (1, 2, 3))


def channel_norm(s: Sketch, x: str) -> str:
    return s.then(ops.RowNorm(), x)


def instance_norm(s: Sketch, x: str) -> str:
    return normalized(s, x, (1, 2))


def normalized(s: Sketch, x: str, axes: tuple[int, ...]) -> str:
    over = ops.Reduce(axes, mean=True, keepdims=True)
    mean = s.then(over, x)
    variance = s.then(over, s.then(ops.Square(), s.then(ops.Subtract(), x, mean)))
    return s.then(ops.Normalize(), x, mean, variance)


@pytest.mark.parametrize("train", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("norm", [batch_norm, layer_norm, channel_norm, instance_norm])
@pytest.mark.parametrize("activation", [ops.Relu(), ops.Sigmoid(), ops.GeneralRelu(max_value=6.0)], ids=str)
def test_norms(norm: Callable[[Sketch, str], str], activation: ops.Activation, train: bool) -> None:
    def build() -> Graph:
        s = Sketch.empty()
        h = s.conv(s.image(9, 10, 8), (3, 3), 8, padding=((1, 1), (1, 1)))
        return s.done(s.then(activation, norm(s, h)))

    for batch in BATCHES:
        check(build, batch, spoil_image, train)


@pytest.mark.parametrize("op", [ops.Softmax(), ops.LogSoftmax(), ops.Sparsemax()], ids=str)
def test_rows(op: ops.Softmax) -> None:
    def build() -> Graph:
        s = Sketch.empty()
        return s.done(s.then(op, s.image(5, 3, 7)))

    for batch in BATCHES:
        check(build, batch, lambda values: spoil_rows(values))


def spoil_rows(values: Values) -> None:
    for row, value in enumerate(SPECIAL):
        values["x"][-1, row, 0, 2] = value
    values["x"][-1, 3, 0] = float("-inf")


# -- up-sampling by copies ----------
@pytest.mark.parametrize("train", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("size", [(18, 24), (5, 11)], ids=str)
def test_copies(size: tuple[int, int], train: bool) -> None:
    """A pixel goes to its copies and nowhere else."""

    def build() -> Graph:
        s = Sketch.empty()
        h = s.then(ops.Resize((1, 2), size, "nearest"), s.image(9, 8, 3))
        return s.done(s.then(ops.Relu(), s.then(ops.Scale(0.5), h)))

    for batch in BATCHES:
        check(build, batch, spoil_image, train)
    check_kernels(training(build()) if train else build())


# -- networks of people ----------
def lenet5() -> cl.Model:
    image = cl.Input((28, 28, 1))
    h = L.MaxPooling2D()(L.Conv2D(6, 5, padding="same", activation="relu")(image))
    h = L.MaxPooling2D()(L.Conv2D(16, 5, activation="relu")(h))
    h = L.Dense(84, activation="relu")(L.Dense(120, activation="relu")(L.Flatten()(h)))
    return cl.Model(image, L.Dense(10, activation="softmax")(h))


def residual_blocks() -> cl.Model:
    image = x = cl.Input((28, 28, 1))
    for channels in (48, 48):
        kept = L.Conv2D(channels, 1)(x)
        y = L.BatchNormalization()(L.Conv2D(channels, 3, padding="same", use_bias=False)(x))
        y = L.BatchNormalization()(L.Conv2D(channels, 3, padding="same")(L.ReLU(6.0)(y)))
        x = L.ReLU()(L.Add()([y, kept]))
    return cl.Model(image, L.Dense(10, activation="softmax")(L.GlobalAveragePooling2D()(x)))


@pytest.mark.parametrize("build", [lenet5, residual_blocks])
@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "unfused"])
@pytest.mark.parametrize("value", SPECIAL)
def test_a_network_says_what_it_cannot_know(build: Callable[[], cl.Model], fuse: bool, value: float) -> None:
    """Probabilities of an image with one such pixel are NaN, those of the others what they are without it."""
    net = cl.compile(build(), backend="aten", fuse=fuse).eval()
    for batch in (1, 2, 32):
        images = torch.randn(batch, 28, 28, 1, generator=torch.Generator().manual_seed(0))
        spoiled = images.clone()
        spoiled[-1, 14, 13] = value
        with torch.no_grad():
            wanted, found = net(images), net(spoiled)
        assert found[-1].isnan().all()
        torch.testing.assert_close(found[:-1], wanted[:-1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("build", [lenet5, residual_blocks])
@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "unfused"])
def test_nan_reaches_the_loss_and_every_gradient_it_should(build: Callable[[], cl.Model], fuse: bool) -> None:
    net = cl.compile(build(), backend="aten", fuse=fuse).train()
    images = torch.randn(4, 28, 28, 1, generator=torch.Generator().manual_seed(0))
    images[-1, 14, 13] = float("nan")
    y = net(images)
    (y * torch.arange(10.0)).sum().backward()
    assert y[-1].isnan().all()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.isnan().any(), name


@every_activation
def test_gradients_that_are_not_finite(activation: ops.Activation) -> None:
    """Where a derivative is 0 by its definition, not even NaN passes; elsewhere it does, at NaN above all."""
    graph = Graph()
    dy, saved = (graph.add(ops.Input(("N", 6, 5, 7)), name=name) for name in ("x", "saved"))
    graph.outputs = {"dx": graph.add(ops.ActivationGrad(activation), [dy, saved], phase="backward")}
    sources = draw_sources(graph, 2)
    sources["saved"] = (
        activation.reference(sources["saved"]) if activation.saves == "output" else sources["saved"]
    )
    for place, value in enumerate(SPECIAL):
        sources["x"][-1, place] = value
    exact = evaluate_all(graph, sources)["activation_grad"]
    for found in (run(fuse(graph), sources, inference=False), interpret(graph, sources)):
        assert_alike(found["activation_grad"], exact, str(activation))
    for values in sources.values():
        values[:] = float("nan")
    for found in (run(fuse(graph), sources, inference=False), interpret(graph, sources)):
        assert found["activation_grad"].isnan().all()


@pytest.mark.parametrize("kind", [ops.Maximum, ops.Minimum, ops.Prelu])
def test_gradients_of_pairs(kind: type) -> None:
    s = Sketch.empty()
    x, y = s.image(9, 8, 7), s.image(9, 8, 7, name="y") if kind is not ops.Prelu else s.weight(7)
    graph = training(s.done(s.then(kind(), x, y)))
    sources = draw_sources(graph, 2)
    spoil_image(sources)
    seed = next(name for name in sources if name not in (x, y))
    sources[seed][-1, 2, 2] = float("nan")
    exact = evaluate_all(graph, sources)
    for found in (run(fuse(graph), sources, inference=False), interpret(graph, sources)):
        for output, node in graph.outputs.items():
            assert_alike(found[node], exact[node], output)
        assert found[graph.outputs[f"d/{x}"]][-1, 2, 2, 0].isnan()


def test_the_gradient_of_a_sparsemax_of_nan() -> None:
    s = Sketch.empty()
    graph = training(s.done(s.then(ops.Sparsemax(), s.image(5, 3, 7))))
    check_kernels(graph, spoil_rows)
    sources = draw_sources(graph, 2)
    spoil_rows(sources)
    sources[next(name for name in sources if name != "x")][-1, 0, 0] = float("nan")
    assert run(fuse(graph), sources, inference=False)[graph.outputs["d/x"]][-1, 0, 0].isnan().all()


# -- the same in emitted kernels, interpreted ----------
def interpret(graph: Graph, sources: Values) -> Values:
    """Every region's kernel in turn."""
    values = {name: value.to(graph[name].type.torch_dtype).contiguous() for name, value in sources.items()}
    for region in fuse(graph):
        kernel = emit(region)
        module = kernel.load(interpreted=True)
        results = module.results(len(sources["x"]))
        module.launch(*(values[node.name] for node in kernel.inputs), *results)
        values |= dict(zip((node.name for node in kernel.outputs), results, strict=True))
    return values


def check_kernels(graph: Graph, spoil: Callable[[Values], None] = spoil_image) -> None:
    sources = draw_sources(graph, 2)
    spoil(sources)
    exact, found = evaluate_all(graph, sources), interpret(graph, sources)
    for output, node in graph.outputs.items():
        assert_alike(found[node], exact[node], output)


@every_activation
def test_activation_kernels(activation: ops.Activation) -> None:
    """Alone, where every value arrives as it is, and behind a convolution and a residual."""
    s = Sketch.empty()
    graph = s.done(s.then(activation, s.image(8, 7, 2)))
    check_kernels(graph)
    if isinstance(activation, STEEP):
        return
    s = Sketch.empty()
    x = s.image(9, 8, 2)
    h = s.then(ops.Add(), s.conv(x, (3, 3), 2, padding=((1, 1), (1, 1))), x)
    check_kernels(s.done(s.then(activation, h)))


@pytest.mark.parametrize("train", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
@pytest.mark.parametrize("kind", [ops.MaxPool2D, ops.AveragePool2D])
def test_pooling_kernels(kind: type, window: tuple, train: bool) -> None:  # type: ignore[type-arg]
    s = Sketch.empty()
    graph = s.done(s.then(kind(*window), s.image(12, 10, 3)))
    check_kernels(training(graph) if train else graph)


@pytest.mark.parametrize("train", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("kind", [ops.MaxPool2D, ops.AveragePool2D])
def test_pooling_in_the_kernel_of_a_convolution(kind: type, train: bool) -> None:
    s = Sketch.empty()
    h = s.conv(s.image(12, 10, 2), (3, 3), 3, padding=((1, 1), (1, 1)))
    graph = s.done(s.then(kind(), s.then(ops.Relu(), h)))
    check_kernels(training(graph) if train else graph)


@pytest.mark.parametrize("train", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("norm", [batch_norm, layer_norm, channel_norm, instance_norm])
def test_norm_kernels(norm: Callable[[Sketch, str], str], train: bool) -> None:
    s = Sketch.empty()
    graph = s.done(s.then(ops.Relu(), norm(s, s.image(9, 8, 3))))
    check_kernels(training(graph) if train else graph)


@pytest.mark.parametrize("op", [ops.Softmax(), ops.LogSoftmax(), ops.Sparsemax()], ids=str)
def test_row_kernels(op: ops.Softmax) -> None:
    s = Sketch.empty()
    check_kernels(s.done(s.then(op, s.image(5, 3, 7))), spoil_rows)
    s = Sketch.empty()
    check_kernels(s.done(s.then(op, s.dense(s.image(7, 3, 5), 6))))
