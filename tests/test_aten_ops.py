"""Single ops with awkward attributes through PyTorch's operators, against their definitions in float64."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import pytest
import torch
import torch.nn.functional as F
from aten_harness import (
    Sketch,
    check_partition,
    draw_sources,
    evaluate_all,
    lowered,
    training,
)
from convloom.graph import ops
from convloom.graph.ir import Graph
from convloom.graph.op import Op
from convloom.graph.passes.precision import with_dtype
from convloom.graph.windows import window_output
from convloom.planning.fusion import fuse, leave_unfused
from convloom.planning.regions import Partition
from convloom.runtime.aten.forms import form_of, inplace_form_of
from convloom.runtime.aten.pooling import native
from op_cases import CASES, Case


# -- every op ----------
@pytest.mark.parametrize("case", [c for c in CASES if getattr(c.op, "method", "") != "bilinear"], ids=str)
def test_float64_has_the_precision_of_float64(case: Case) -> None:
    """Also in the constants of derivatives; "bilinear" is given matrices it knows already."""
    graph = case.graph()
    given = case.values(graph, 3)
    types = {name: graph[name].type for name in graph["y"].inputs}
    operands = [given[n].double() if t.is_floating else given[n].to(t.torch_dtype) for n, t in types.items()]
    wanted = case.op.reference(*operands)
    forms = [form_of(case.op)]
    if graph["x0"].type == graph["y"].type and (overwrite := inplace_form_of(case.op)):
        forms.append(overwrite)
    for run in forms:
        found = run(*(operand.clone() for operand in operands))
        scale = float(wanted.double().abs().max())
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-13 * scale)


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
    ops.Gelu(approximate=True), ops.Elu(0.7), ops.GeneralRelu(2.1, 0.3), ops.GeneralRelu(max_value=1.5),
    ops.HardSigmoid(), ops.HardSwish(), ops.Softplus(), ops.Softsign(), ops.Mish(), ops.Abs(), ops.Exp(),
    ops.Elu(1.67, scale=1.05), ops.Elu(0.7, input_scale=1 / 0.7), ops.Clip(-0.5, 1.0), ops.SoftShrink(),
    ops.SparsePlus(), ops.LogSigmoid(), ops.Squareplus(), ops.TanhShrink(),
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
    (index,) = lowered(region, inference=True)([torch.zeros(2, 5, 5, 2)])
    assert index[0, :, :, 0].tolist() == [[4, 3, 3], [1, 0, 0], [1, 0, 0]]


@pytest.mark.parametrize("channels", [5, 16, 40])
def test_large_maps_of_few_values(channels: int) -> None:
    """Maps large enough to be sliced, full of equal values: the first wins, here as in the definition."""
    s = Sketch.empty()
    x = s.image(26, 18, channels)
    graph = s.done(s.then(ops.MaxPool2D(), x), s.then(ops.MaxPoolIndex2D(), x))
    image = torch.randint(0, 3, (3, 26, 18, channels), generator=torch.Generator().manual_seed(0)).float()
    for cut in (fuse, leave_unfused):
        found: dict[str, torch.Tensor] = {}
        for region in cut(graph):
            results = lowered(region, inference=False)([image])
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
    ops.BinaryCrossEntropy(), ops.HuberError(),
], ids=str)  # fmt: skip
def test_losses(loss: object) -> None:
    s = Sketch.empty()
    terms = s.then(loss, s.image(7, name="probabilities"), s.image(7, name="target"))
    graph = s.done(s.then(ops.Reduce((0, 1), mean=True), terms))
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


@pytest.mark.parametrize("op", [ops.Sparsemax(), ops.HardShrink(), ops.Threshold(0.5, -1.0)], ids=str)
def test_jumps_and_rows(op: Op) -> None:
    """What a convolution's rounding could carry over an edge reads the input itself."""
    s = Sketch.empty()
    graph = s.done(s.then(op, s.image(5, 3, 7)))
    for dtype in (torch.float32, torch.bfloat16):
        check_partition(fuse(graph), 3, inference=True, dtype=dtype)
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
def test_transposed_convolution(size, strides, padding, groups: int) -> None:
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


@pytest.mark.parametrize("cut", [fuse, leave_unfused], ids=["fused", "unfused"])
@pytest.mark.parametrize("heads_within", [False, True])
def test_products_of_activations(heads_within: bool, cut: Callable[[Graph], Partition]) -> None:
    def build() -> Graph:
        s = Sketch.empty()
        x = s.conv(s.image(5, 3, 4), (1, 1), 6)
        y = s.conv(s.image(5, 3, 4), (1, 1), 6)
        places = (5, 5) if heads_within else (3, 3)
        scores = s.then(ops.MatMul(False, True, heads_within, heads_within, factor=0.5), x, y)
        masked = s.then(ops.Add(), scores, s.graph.add(ops.AttentionMask(*places)))
        shares = s.then(ops.Softmax(), masked)
        return s.done(s.then(ops.MatMul(split_b=heads_within, split_y=heads_within), shares, y))

    check_partition(cut(build()), 3, inference=True)
    check_partition(cut(training(build())), 3, inference=False)
    check_partition(cut(with_dtype(build(), "bfloat16")), 3, inference=True)
    check_partition(cut(training(with_dtype(build(), "bfloat16"))), 3, inference=False)


@pytest.mark.parametrize("kind", [torch.int64, torch.int32, torch.uint8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_class_numbers_that_are_no_class_count_nothing(dtype: torch.dtype, kind: torch.dtype) -> None:
    """By one gather and one scatter, as the formula of whole rows has it."""
    op = ops.SoftmaxCrossEntropy(numbers=True)
    x, dy = torch.randn(3, 4, 5).to(dtype), torch.rand(3, 4, 1)
    target = torch.randint(0, 5, (3, 4, 1)).to(kind)
    target[0, 0], target[1, 1] = 5, 255 if kind == torch.uint8 else -1
    torch.testing.assert_close(form_of(op)(x, target), op.reference(x, target))
    slope = ops.RowLossGrad(op)
    torch.testing.assert_close(form_of(slope)(x, target, dy), slope.reference(x, target, dy))
