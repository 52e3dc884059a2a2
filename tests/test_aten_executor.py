"""Regions through PyTorch's operators, against each op's own definition in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod, sqrt

import pytest
import torch
import torch.nn.functional as F
from convloom.graph import ops
from convloom.graph.fusion import fuse, leave_unfused
from convloom.graph.gradients import differentiate
from convloom.graph.ir import Graph
from convloom.graph.op import REGISTRY, Kind
from convloom.graph.passes import BACKWARD, INFERENCE, TRAINING, run_pipeline
from convloom.graph.passes.precision import with_dtype
from convloom.graph.regions import Partition, Region
from convloom.graph.types import DTYPES
from convloom.graph.windows import window_output
from convloom.runtime.aten import lower
from convloom.runtime.aten.packing import PackedWeight
from convloom.runtime.aten.pooling import native

Values = dict[str, torch.Tensor]


# -- the harness ----------
def draw_sources(graph: Graph, batch: int, seed: int = 0) -> Values:
    """float64 values for every source: variances positive, targets and probabilities sensible."""
    generator = torch.Generator().manual_seed(seed)
    values: Values = {}
    for node in graph.nodes():
        if node.op.kind is not Kind.SOURCE:
            continue
        if isinstance(node.op, ops.KNOWN):
            values[node.name] = node.op.reference().double()
            continue
        drawn = torch.randn(node.type.size(batch), generator=generator, dtype=torch.float64)
        if isinstance(node.op, ops.Parameter) and drawn.dim() in (2, 4):
            drawn /= sqrt(prod(drawn.shape[:-1]))
        if "variance" in node.name or "gamma" in node.name or "probabilit" in node.name:
            drawn = 0.1 + 0.8 * torch.sigmoid(drawn)
        if "target" in node.name:
            drawn = torch.softmax(drawn, -1)
        values[node.name] = drawn
    return values


def evaluate_all(graph: Graph, sources: Values) -> Values:
    """Every value of the graph by the ops' own references, in float64."""
    values = dict(sources)
    for node in graph.nodes():
        if node.name not in values:
            value = node.op.reference(*(values[name] for name in node.inputs))
            values[node.name] = value.double() if value.is_floating_point() else value
    return values


def reduction_length(region: Region) -> int:
    """Terms in the longest sum a member takes, for the tolerance."""
    longest = 1
    for node in region.nodes:
        operands = [region.graph[name].type.elements(3) for name in node.inputs]
        outputs = node.type.elements(3)
        if node.op.kind is Kind.CONTRACTION:
            first, second = operands[:2]
            longest = max(longest, int(sqrt(first * second / max(outputs, 1))) + 1)
        elif node.op.kind is not Kind.POINTWISE and operands:
            longest = max(longest, max(operands) // max(outputs, 1) + 1)
    return longest


def check_region(region: Region, exact: Values, inference: bool, dtype: torch.dtype | None = None) -> None:
    """The region alone, on the exact values of its inputs, gives the exact values of its outputs."""
    feeds = [exact[node.name] for node in region.inputs]
    types = [node.type.torch_dtype for node in region.inputs]
    if dtype is not None:
        types = [dtype if t.is_floating_point else t for t in types]
    given = [value.to(t).contiguous() for value, t in zip(feeds, types, strict=True)]
    kept = [value.clone() for value in given]
    with torch.no_grad():
        results = lower(region, inference=inference)(given)
    for before, after in zip(kept, given, strict=True):
        assert torch.equal(before, after), f"{region}: wrote into an input"
    widest = max((t for t in types if t.is_floating_point), key=lambda t: torch.finfo(t).eps)
    unit = torch.finfo(widest).eps
    assert len(results) == len(region.outputs)
    for node, result in zip(region.outputs, results, strict=True):
        expected = exact[node.name]
        assert result.shape == expected.shape, f"{region}: {node.name} has shape {tuple(result.shape)}"
        assert result.is_contiguous(), f"{region}: {node.name} is not contiguous"
        if not expected.is_floating_point():
            assert result.dtype == expected.dtype
            # Rounded to few bits, values of one window meet, and another of them is the first.
            allowed = 0.0 if unit < 1e-6 else 0.05
            differing = float((result != expected).double().mean())
            assert differing <= allowed, f"{region}: {differing:.1%} of {node.name} differ"
            continue
        if dtype is None:
            assert result.dtype == node.type.torch_dtype, f"{region}: {node.name} is {result.dtype}"
        scale = max(1.0, float(expected.abs().max()))
        # Rounding errors of a sum add up like a random walk; a handful of pointwise members round once each.
        tolerance = unit * scale * (8 + 2 * sqrt(reduction_length(region)))
        error = float((result.double() - expected).abs().max())
        assert error <= tolerance, f"{region}: {node.name} is off by {error:.3g} > {tolerance:.3g}"


def check_partition(
    partition: Partition, batch: int, inference: bool, dtype: torch.dtype | None = None
) -> None:
    exact = evaluate_all(partition.graph, draw_sources(partition.graph, batch))
    for region in partition:
        check_region(region, exact, inference, dtype)


# -- graphs ----------
@dataclass
class Sketch:
    """A graph being drawn, with names for what it is made of."""

    graph: Graph

    @classmethod
    def empty(cls) -> Sketch:
        return cls(Graph("test"))

    def image(self, *shape: int, name: str = "x") -> str:
        return self.graph.add(ops.Input(("N", *shape)), name=name)

    def weight(self, *shape: int, name: str = "w") -> str:
        return self.graph.add(ops.Parameter(shape), name=name)

    def conv(
        self, x: str, size: tuple[int, int], k: int, bias: bool = True, groups: int = 1, **geometry: object
    ) -> str:
        c = self.graph[x].type.channels
        w = self.weight(*size, c // groups, k)
        operands = [x, w, self.weight(k, name="b")] if bias else [x, w]
        return self.graph.add(ops.Conv2D(groups=groups, **geometry), operands)  # type: ignore[arg-type]

    def dense(self, x: str, k: int) -> str:
        c = self.graph[x].type.channels
        return self.graph.add(ops.Dense(), [x, self.weight(c, k), self.weight(k, name="b")])

    def norm(self, x: str) -> str:
        c = self.graph[x].type.channels
        vectors = [self.weight(c, name=name) for name in ("gamma", "beta")]
        moving = [self.graph.add(ops.Parameter((c,), trainable=False), name=n) for n in ("mean", "variance")]
        return self.graph.add(ops.BatchNorm(), [x, *vectors, *moving])

    def then(self, op: object, *operands: str) -> str:
        return self.graph.add(op, operands)  # type: ignore[arg-type]

    def done(self, *outputs: str) -> Graph:
        self.graph.outputs = {f"out{i}": name for i, name in enumerate(outputs)}
        return self.graph


def training(graph: Graph) -> Graph:
    run_pipeline(graph, TRAINING)
    differentiated = differentiate(graph, wrt_inputs=True)
    graph.outputs |= {f"d/{name}": gradient for name, gradient in differentiated.gradients.items()}
    run_pipeline(graph, BACKWARD)
    return graph


def block_net() -> Graph:
    """Convolution, norm, activation, pooling, a residual and a head."""
    s = Sketch.empty()
    h = s.conv(s.image(12, 10, 3), (3, 3), 17, bias=False, padding=((1, 1), (1, 1)))
    h = s.then(ops.Relu(), s.norm(h))
    h = s.then(ops.MaxPool2D(), h)
    inner = s.then(ops.Relu(), s.norm(s.conv(h, (3, 3), 17, padding=((1, 1), (1, 1)))))
    inner = s.norm(s.conv(inner, (1, 1), 17))
    h = s.then(ops.Relu(), s.then(ops.Add(), inner, h))
    h = s.then(ops.Relu(), s.conv(h, (3, 3), 9, strides=(2, 2), padding=((0, 1), (0, 1))))
    h = s.then(ops.Reshape((3 * 2 * 9,)), h)
    h = s.dense(h, 10)
    return s.done(s.then(ops.Softmax(), h))


def lenet() -> Graph:
    s = Sketch.empty()
    h = s.then(ops.Relu(), s.conv(s.image(14, 14, 1), (5, 5), 6, padding=((2, 2), (2, 2))))
    h = s.then(ops.MaxPool2D(), h)
    h = s.then(ops.Tanh(), s.conv(h, (3, 3), 16))
    h = s.then(ops.AveragePool2D((2, 2), (2, 2)), h)
    h = s.then(ops.Relu(), s.dense(s.then(ops.Reshape((64,)), h), 33))
    target = s.image(10, name="target")
    logits = s.dense(h, 10)
    return s.done(s.then(ops.CategoricalCrossEntropy(), s.then(ops.Softmax(), logits), target))


def movements() -> Graph:
    s = Sketch.empty()
    x = s.image(7, 9, 5)
    a = s.conv(s.then(ops.Pad(((1, 2), (0, 3), (0, 0)), 0.5), x), (2, 3), 4, dilation=(2, 1))
    b = s.then(ops.Slice((0, 1, 1), (7, 9, 5)), x)
    b = s.then(ops.Slice((0, 0, 0), (6, 8, 4)), b)
    a = s.then(ops.Slice((0, 0, 0), (6, 8, 4)), a)
    h = s.then(ops.Concat(-1), a, b)
    h = s.then(ops.Transpose((0, 2, 1, 3)), h)
    h = s.then(ops.Swish(), s.then(ops.Scale(0.5, -0.25), h))
    return s.done(s.then(ops.AveragePool2D((8, 6), (8, 6)), h))


NETWORKS: dict[str, Callable[[], Graph]] = {"blocks": block_net, "lenet": lenet, "movements": movements}


# -- whole networks, fused and unfused ----------
@pytest.mark.parametrize("cut", [fuse, leave_unfused], ids=["fused", "unfused"])
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("batch", [1, 3])
def test_inference_regions(name: str, batch: int, cut: Callable[[Graph], Partition]) -> None:
    graph = NETWORKS[name]()
    run_pipeline(graph, INFERENCE)
    check_partition(cut(graph), batch, inference=True)
    check_partition(cut(graph), batch, inference=True, dtype=torch.float64)


@pytest.mark.parametrize("cut", [fuse, leave_unfused], ids=["fused", "unfused"])
@pytest.mark.parametrize("name", NETWORKS)
def test_training_regions(name: str, cut: Callable[[Graph], Partition]) -> None:
    partition = cut(training(NETWORKS[name]()))
    check_partition(partition, 3, inference=False)
    check_partition(partition, 3, inference=False, dtype=torch.float64)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_narrow_dtypes(name: str, dtype: str) -> None:
    graph = NETWORKS[name]()
    run_pipeline(graph, INFERENCE)
    check_partition(fuse(with_dtype(graph, dtype)), 3, inference=True)
    check_partition(fuse(training(with_dtype(NETWORKS[name](), dtype))), 3, inference=False)


# -- single ops with awkward attributes ----------
CONVOLUTIONS: dict[str, dict[str, object]] = {
    "plain": {"size": (3, 3), "k": 17},
    "same at stride 2": {"size": (3, 3), "k": 7, "strides": (2, 2), "padding": ((0, 1), (0, 1))},
    "lopsided": {"size": (2, 4), "k": 5, "strides": (1, 2), "padding": ((1, 0), (2, 1))},
    "dilated": {"size": (3, 2), "k": 6, "dilation": (2, 3), "padding": ((2, 2), (1, 2))},
    "grouped": {"size": (3, 3), "k": 8, "groups": 2, "padding": ((1, 1), (1, 1))},
    "depthwise": {"size": (3, 3), "k": 12, "groups": 6, "strides": (2, 1), "padding": ((1, 1), (1, 1))},
    "pointwise": {"size": (1, 1), "k": 65},
    "pointwise at stride 2": {"size": (1, 1), "k": 3, "strides": (2, 2)},
    "no bias": {"size": (5, 5), "k": 1, "bias": False},
}


@pytest.mark.parametrize("geometry", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_convolution_and_gradients(geometry: dict[str, object], dtype: torch.dtype) -> None:
    s = Sketch.empty()
    graph = s.done(s.conv(s.image(9, 12, 6), **geometry))  # type: ignore[arg-type]
    check_partition(fuse(graph.copy()), 3, inference=True, dtype=dtype)
    graph = training(graph)
    check_partition(fuse(graph), 3, inference=False, dtype=dtype)


@pytest.mark.parametrize("activation", [
    ops.Relu(), ops.Relu6(), ops.LeakyRelu(0.2), ops.Sigmoid(), ops.Tanh(), ops.Swish(), ops.Gelu(),
    ops.Gelu(approximate=True), ops.Elu(0.7), ops.GeneralRelu(2.0, 0.25), ops.GeneralRelu(max_value=1.5),
    ops.HardSigmoid(), ops.HardSwish(), ops.Softplus(), ops.Softsign(), ops.Mish(), ops.Abs(), ops.Exp(),
], ids=str)  # fmt: skip
@pytest.mark.parametrize("with_residual", [False, True])
@pytest.mark.parametrize("channels", [3, 65], ids=["small", "through oneDNN"])
def test_activation_and_residual(activation: ops.Activation, with_residual: bool, channels: int) -> None:
    s = Sketch.empty()
    x = s.image(13, 11, channels)
    h = s.conv(x, (3, 3), channels, padding=((1, 1), (1, 1)))
    if with_residual:
        h = s.then(ops.Add(), x, h)
    graph = s.done(s.then(activation, h))
    for dtype in (torch.float32, torch.bfloat16):
        check_partition(fuse(graph), 3, inference=True, dtype=dtype)
    check_partition(fuse(training(graph)), 3, inference=False)


WINDOWS: dict[str, tuple[tuple[int, int], tuple[int, int], object]] = {
    "2x2": ((2, 2), (2, 2), ((0, 0), (0, 0))),
    "2x2 with a border": ((2, 2), (2, 2), ((0, 0), (0, 0))),
    "3x3 at 2, same": ((3, 3), (2, 2), ((0, 1), (0, 1))),
    "3x3 at 2, both sides": ((3, 3), (2, 2), ((1, 1), (1, 1))),
    "3x2 at 1": ((3, 2), (1, 1), ((1, 1), (0, 1))),
    "apart": ((2, 2), (3, 3), ((0, 0), (0, 0))),
    "padding over half": ((2, 3), (2, 2), ((0, 1), (2, 0))),
    "wider than the map": ((2, 20), (2, 20), ((0, 0), (4, 5))),
}


@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
@pytest.mark.parametrize("kind", [ops.MaxPool2D, ops.AveragePool2D])
@pytest.mark.parametrize("shape", [(8, 12, 3), (9, 11, 5)])
def test_pooling_and_gradients(window: tuple, kind: type, shape: tuple[int, ...]) -> None:  # type: ignore[type-arg]
    s = Sketch.empty()
    graph = s.done(s.then(kind(*window), s.image(*shape)))
    exact = evaluate_all(graph, draw_sources(graph, 3))
    if not torch.isfinite(exact[graph.outputs["out0"]]).all():
        pytest.skip("some window lies wholly in the padding")
    check_partition(fuse(graph), 3, inference=True)
    check_partition(fuse(training(graph)), 3, inference=False)


def test_first_of_equal_values_wins() -> None:
    s = Sketch.empty()
    graph = s.done(s.then(ops.MaxPoolIndex2D((3, 3), (2, 2), ((1, 1), (1, 1))), s.image(5, 5, 2)))
    (region,) = fuse(graph)
    (index,) = lower(region, inference=True)([torch.zeros(2, 5, 5, 2)])
    assert index[0, :, :, 0].tolist() == [[4, 3, 3], [1, 0, 0], [1, 0, 0]]


@pytest.mark.parametrize("channels", [5, 16, 40])
def test_large_maps_of_few_values(channels: int) -> None:
    """Maps large enough to be sliced, full of equal values: the first wins, here as in the definition."""
    s = Sketch.empty()
    x = s.image(26, 18, channels)
    graph = s.done(s.then(ops.MaxPool2D(), x), s.then(ops.MaxPoolIndex2D(), x))
    image = torch.randint(0, 3, (3, 26, 18, channels), generator=torch.Generator().manual_seed(0)).float()
    for cut in (fuse, leave_unfused):
        found = {}
        for region in cut(graph):
            results = lower(region, inference=False)([image])
            found |= dict(zip((node.name for node in region.outputs), results, strict=True))
        for name in graph.outputs.values():
            assert torch.equal(found[name], graph[name].op.reference(image))


@pytest.mark.parametrize("channels", [1, 3, 6])
@pytest.mark.parametrize("with_bias", [False, True])
def test_one_small_image_as_a_product(channels: int, with_bias: bool) -> None:
    s = Sketch.empty()
    x = s.image(13, 11, channels)
    h = s.conv(x, (5, 4), 7, bias=with_bias, strides=(2, 1), padding=((2, 2), (1, 1)))
    check_partition(fuse(s.done(s.then(ops.Relu(), h))), 1, inference=True)


def test_same_padding_needs_no_copy() -> None:
    assert native((8, 8), (3, 3), (2, 2), ((0, 1), (0, 1))) is not None
    assert native((8, 8), (2, 2), (2, 2), ((2, 0), (2, 0))) is None


@pytest.mark.parametrize("loss", [
    ops.SoftmaxCrossEntropy(), ops.CategoricalCrossEntropy(), ops.BinaryCrossEntropy(True),
    ops.BinaryCrossEntropy(), ops.MeanSquaredError(),
], ids=str)  # fmt: skip
def test_losses(loss: object) -> None:
    s = Sketch.empty()
    graph = s.done(s.then(loss, s.image(7, name="probabilities"), s.image(7, name="target")))
    for cut in (fuse, leave_unfused):
        check_partition(cut(training(graph.copy())), 5, inference=False)


@pytest.mark.parametrize("kind", [ops.Add, ops.Subtract, ops.Multiply])
@pytest.mark.parametrize("other", [(4, 3, 5), (1, 1, 5), (4, 3, 1), (5,), (1,)], ids=str)
def test_arithmetic_and_broadcasting(kind: type, other: tuple[int, ...]) -> None:
    s = Sketch.empty()
    x = s.image(4, 3, 5)
    y = s.image(*other, name="y") if len(other) > 1 else s.weight(*other, name="y")
    h = s.then(ops.Scale(-0.5), s.then(kind(), s.then(ops.Scale(2.0, 3.0), x), y))
    h = s.then(ops.Elu(), s.then(ops.RsqrtPlus(0.5), s.then(ops.Square(), h)))
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        check_partition(fuse(s.done(h)), 3, inference=True, dtype=dtype)
    if other == (1,):
        return  # differentiation refuses to sum over new and stretched axes at once
    trained = s.done(s.then(ops.Swish(), s.then(kind(), s.then(ops.Relu(), x), y)))
    check_partition(fuse(training(trained)), 3, inference=False)


@pytest.mark.parametrize("other", [(4, 3, 5), (1, 1, 5), (3, 5), (4, 1, 1), (1,)], ids=str)
@pytest.mark.parametrize("kind", [ops.Divide, ops.Maximum, ops.Minimum, ops.Prelu])
def test_pairs_that_bend(kind: type, other: tuple[int, ...]) -> None:
    """Trained second operands of every shape, inside a chain that works in place."""
    s = Sketch.empty()
    first = s.then(ops.Scale(2.0, 0.1), s.image(4, 3, 5))
    second = s.weight(*other, name="variance")
    graph = s.done(s.then(ops.Swish(), s.then(kind(), first, second)))
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        check_partition(fuse(graph), 3, inference=True, dtype=dtype)
    check_partition(fuse(training(graph)), 3, inference=False)


def layer_norm(s: Sketch, x: str, axes: tuple[int, ...]) -> str:
    """The composition that layers use."""
    over = ops.Reduce(axes, mean=True, keepdims=True)
    mean = s.then(over, x)
    variance = s.then(over, s.then(ops.Square(), s.then(ops.Subtract(), x, mean)))
    c = s.graph[x].type.channels
    scaled = s.then(ops.Multiply(), s.then(ops.Normalize(), x, mean, variance), s.weight(c, name="gamma"))
    return s.then(ops.Add(), scaled, s.weight(c, name="beta"))


@pytest.mark.parametrize("cut", [fuse, leave_unfused], ids=["fused", "unfused"])
@pytest.mark.parametrize("axes", [(3,), (1, 2), (1, 2, 3), (2, 3)], ids=str)
def test_normalisation_by_its_own_statistics(
    axes: tuple[int, ...], cut: Callable[[Graph], Partition]
) -> None:
    s = Sketch.empty()
    graph = s.done(s.then(ops.Tanh(), layer_norm(s, s.image(5, 3, 7), axes)))
    assert len(fuse(graph).kernels) == 3
    check_partition(cut(graph), 3, inference=True)
    check_partition(cut(training(graph)), 3, inference=False)


def test_division_by_the_root_of_the_squares() -> None:
    s = Sketch.empty()
    x = s.image(5, 3, 7)
    squares = s.then(ops.Reduce((3,), keepdims=True), s.then(ops.Square(), x))
    floor = s.graph.add(ops.Constant((), 1e-12), name="floor")
    rstd = s.then(ops.RsqrtPlus(0.0), s.then(ops.Maximum(), squares, floor))
    graph = s.done(s.then(ops.Multiply(), x, rstd))
    check_partition(fuse(graph), 3, inference=True)
    check_partition(fuse(training(graph)), 3, inference=False)


def test_log_softmax() -> None:
    s = Sketch.empty()
    graph = s.done(s.then(ops.Tanh(), s.then(ops.LogSoftmax(), s.image(5, 3, 7))))
    check_partition(fuse(graph), 3, inference=True)
    check_partition(fuse(training(graph)), 3, inference=False)


def test_roots_and_logarithms() -> None:
    s = Sketch.empty()
    positive = s.then(ops.Scale(1.0, 0.1), s.then(ops.Softplus(), s.image(5, 3, 7)))
    graph = s.done(s.then(ops.Subtract(), s.then(ops.Log(), positive), s.then(ops.Sqrt(), positive)))
    check_partition(fuse(graph), 3, inference=True)
    check_partition(fuse(training(graph)), 3, inference=False)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("size", "strides", "padding"), [
    ((9, 11), (2, 2), ((0, 0), (0, 0))), ((8, 13), (2, 3), ((0, 1), (1, 0))),
    ((5, 7), (1, 1), ((1, 1), (0, 2))), ((10, 9), (4, 3), ((0, 0), (0, 0))),
])  # fmt: skip
def test_transposed_convolution(size, strides, padding, groups: int) -> None:  # type: ignore[no-untyped-def]
    taken = window_output("test", size, (3, 2), strides, padding, (1, 1))
    op = ops.Conv2DTranspose(strides, padding, (1, 1), groups, size)

    def build() -> Graph:
        s = Sketch.empty()
        h = s.then(op, s.image(*taken, 6), s.weight(3, 2, 8 // groups, 6))
        return s.done(s.then(ops.Relu(), s.then(ops.Add(), h, s.weight(8, name="b"))))

    for dtype in (torch.float32, torch.float64):
        check_partition(fuse(build()), 3, inference=True, dtype=dtype)
        check_partition(fuse(training(build())), 3, inference=False, dtype=dtype)
    check_partition(fuse(with_dtype(build(), "bfloat16")), 3, inference=True)
    check_partition(fuse(training(with_dtype(build(), "bfloat16"))), 3, inference=False)


def resized(s: Sketch, x: str, size: tuple[int, int], method: str) -> str:
    """Both axes in turn, each as the last one."""
    _, h, w, _ = (0, *(int(d) for d in s.graph[x].type.shape[1:]))
    x = s.then(ops.Transpose((0, 3, 1, 2)), x)
    x = s.then(ops.Dense(), x, s.graph.add(ops.InterpolationMatrix(w, size[1], method)))
    x = s.then(ops.Transpose((0, 1, 3, 2)), x)
    x = s.then(ops.Dense(), x, s.graph.add(ops.InterpolationMatrix(h, size[0], method)))
    return s.then(ops.Transpose((0, 3, 2, 1)), x)


@pytest.mark.parametrize("method", ["nearest", "bilinear", "bicubic"])
def test_resizing(method: str) -> None:
    def build() -> Graph:
        s = Sketch.empty()
        x = s.conv(s.image(5, 7, 3), (1, 1), 4)
        return s.done(s.then(ops.Tanh(), resized(s, x, (8, 4), method)))

    graph = build()
    x = draw_sources(graph, 2)
    exact = evaluate_all(graph, x)
    if method == "bilinear":
        before = exact["conv2d"].permute(0, 3, 1, 2)
        wanted = F.interpolate(before, (8, 4), mode="bilinear", align_corners=False)
        torch.testing.assert_close(
            exact[graph.outputs["out0"]], torch.tanh(wanted).permute(0, 2, 3, 1), rtol=0, atol=1e-6
        )
    check_partition(fuse(build()), 2, inference=True)
    check_partition(fuse(training(build())), 2, inference=False)
    check_partition(fuse(training(with_dtype(build(), "bfloat16"))), 2, inference=False)


@pytest.mark.parametrize("cut", [fuse, leave_unfused], ids=["fused", "unfused"])
@pytest.mark.parametrize("window", [(2, 2), (3, 2), (5, 4)])
def test_up_sampling_by_repetition(window: tuple[int, int], cut: Callable[[Graph], Partition]) -> None:
    def build() -> Graph:
        s = Sketch.empty()
        x = s.conv(s.image(4, 3, 5), (3, 3), 6, padding=((1, 1), (1, 1)))
        op = ops.AverageUnpool2D(window, window, input_size=(4 * window[0], 3 * window[1]))
        return s.done(s.then(ops.Relu(), s.then(ops.Scale(float(prod(window))), s.then(op, x))))

    check_partition(cut(build()), 3, inference=True)
    check_partition(cut(training(build())), 3, inference=False)


def test_every_op_has_been_run() -> None:
    """The graphs above between them hold every op; a new op belongs into one of them."""
    seen: set[str] = set()
    for build in NETWORKS.values():
        seen |= {node.op.op_name() for node in build().nodes()}
    for build in NETWORKS.values():
        seen |= {node.op.op_name() for node in training(with_dtype(build(), "bfloat16")).nodes()}
    elsewhere = {a.op_name() for a in (
        ops.Relu6, ops.LeakyRelu, ops.Sigmoid, ops.Gelu, ops.Elu, ops.MeanSquaredError, ops.Multiply,
        ops.BinaryCrossEntropy, ops.CategoricalCrossEntropy, ops.Constant,
        ops.InTraining, ops.Random, ops.RandomBox, ops.RandomTransform,
        ops.InterpolationMatrix,
        ops.MaxPoolIndex2D, ops.RsqrtPlus, ops.Divide, ops.Maximum, ops.Minimum, ops.ExtremumGrad, ops.Prelu,
        ops.PreluGrad, ops.BroadcastTo, ops.GeneralRelu, ops.HardSigmoid, ops.HardSwish, ops.Softplus,
        ops.Softsign, ops.Mish, ops.Exp, ops.Log, ops.Sqrt, ops.Abs, ops.Conv2DTranspose,
        ops.LogSoftmax, ops.Warp, ops.WarpGrad,
    )}  # fmt: skip
    concrete = {name for name, op in REGISTRY.items() if not op.__abstractmethods__}
    assert concrete - seen - elsewhere - {"activation"} == set()


# -- memory ----------
def test_a_value_read_again_is_not_overwritten() -> None:
    s = Sketch.empty()
    x = s.image(6, 5, 4)
    h = s.conv(x, (3, 3), 4, padding=((1, 1), (1, 1)))
    squared = s.then(ops.Square(), s.then(ops.Scale(2.0, 1.0), h))
    graph = s.done(s.then(ops.Subtract(), s.then(ops.Relu(), squared), x), squared)
    check_partition(fuse(graph), 2, inference=True)


def test_identities_do_not_pass_inputs_on_for_overwriting() -> None:
    s = Sketch.empty()
    x = s.image(5, 4, 3)
    h = s.then(ops.Relu(), s.then(ops.Cast("float32"), s.then(ops.InTraining(), x)))
    check_partition(fuse(s.done(h)), 2, inference=True)


def test_any_batch_size_after_lowering() -> None:
    graph = block_net()
    run_pipeline(graph, INFERENCE)
    partition = fuse(graph)
    runners = [(region, lower(region, inference=True)) for region in partition]
    for batch in (1, 5, 2, 17, 1):
        exact = evaluate_all(graph, draw_sources(graph, batch, seed=batch))
        for region, run in runners:
            results = run([exact[node.name].to(node.type.torch_dtype) for node in region.inputs])
            for node, result in zip(region.outputs, results, strict=True):
                torch.testing.assert_close(result.double(), exact[node.name], rtol=1e-4, atol=1e-5)


# -- packed weights ----------
def wide_convolution() -> tuple[Region, list[torch.Tensor]]:
    s = Sketch.empty()
    h = s.conv(s.image(14, 14, 64), (3, 3), 64, padding=((1, 1), (1, 1)))
    (region,) = fuse(s.done(s.then(ops.Relu(), h)))
    values = draw_sources(region.graph, 2)
    return region, [values[node.name].float() for node in region.inputs]


def expected(region: Region, tensors: list[torch.Tensor]) -> torch.Tensor:
    x, w, b = (t.double() for t in tensors)
    return torch.relu(ops.Conv2D(padding=((1, 1), (1, 1))).reference(x, w, b))


@pytest.mark.parametrize("change", ["in place", "by an optimizer", "another tensor"])
def test_changed_weights_are_packed_anew(change: str) -> None:
    region, tensors = wide_convolution()
    run = lower(region, inference=True)
    tensors[1].requires_grad_(True)
    with torch.no_grad():
        torch.testing.assert_close(run(tensors)[0].double(), expected(region, tensors), rtol=1e-4, atol=1e-4)
        if change == "in place":
            tensors[1].mul_(-0.5)
        elif change == "another tensor":
            tensors[1] = tensors[1] + 1.0
        else:
            tensors[1].grad = torch.randn_like(tensors[1])
            torch.optim.SGD([tensors[1]], lr=0.3).step()
        torch.testing.assert_close(run(tensors)[0].double(), expected(region, tensors), rtol=1e-4, atol=1e-4)


def test_packing_happens_once_a_weight() -> None:
    packed, calls = PackedWeight(), []

    def prepare(w: torch.Tensor) -> torch.Tensor:
        calls.append(w)
        return w.clone()

    weight = torch.randn(3, 3)
    assert packed.get(weight, 1, prepare) is packed.get(weight, 1, prepare)
    assert len(calls) == 1
    packed.get(weight, 2, prepare)
    assert len(calls) == 2
    weight.add_(1)
    assert torch.equal(packed.get(weight, 1, prepare), weight)
    assert len(calls) == 3


def test_without_onednn_the_plain_operators_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    from convloom.runtime.aten import onednn

    monkeypatch.setattr(onednn, "available", lambda dtype: False)
    region, tensors = wide_convolution()
    result = lower(region, inference=True)(tensors)[0]
    torch.testing.assert_close(result.double(), expected(region, tensors), rtol=1e-4, atol=1e-4)


def test_dtypes_of_the_ir_are_the_operators_own() -> None:
    assert set(DTYPES) >= {"float64", "float32", "bfloat16", "float16"}
