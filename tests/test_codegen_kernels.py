"""Emitted kernels, interpreted, against the ops' own references in float64.

Outputs start as NaN (or 255), so an element that no program writes is seen. Shapes are awkward: no size
divides a tile, there is more than one tile on every axis, and height differs from width.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import pytest
import torch
from convloom.codegen import NotEmittable, emit
from convloom.graph import ops
from convloom.graph.gradients import differentiate
from convloom.graph.ir import Graph
from convloom.graph.op import Op
from convloom.graph.passes import BACKWARD, TRAINING, run_pipeline
from convloom.planning.fusion import fuse
from convloom.planning.regions import Region
from kernel_checks import EPS, check, difference, expected, image, region, vector

# -- pointwise -----------------------------------------------------------------------------------------------
ACTIVATIONS = [
    ops.Relu(), ops.Relu6(), ops.LeakyRelu(0.2), ops.Sigmoid(), ops.Tanh(), ops.Swish(), ops.Gelu(),
    ops.Gelu(True), ops.Elu(0.7), ops.GeneralRelu(5.1, 0.3, 1.1), ops.GeneralRelu(max_value=0.5),
    ops.HardSigmoid(), ops.HardSigmoid(0.2), ops.HardSwish(), ops.Softplus(), ops.Softsign(), ops.Mish(),
    ops.Abs(), ops.Elu(1.67, scale=1.05), ops.Elu(0.7, input_scale=1 / 0.7), ops.Clip(-0.5, 1.0),
    ops.HardShrink(), ops.SoftShrink(), ops.Threshold(0.5, -1.0), ops.SparsePlus(), ops.LogSigmoid(),
    ops.Squareplus(), ops.TanhShrink(),
]  # fmt: skip


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_activation_and_its_gradient(activation: ops.Activation) -> None:
    check(region([image("x", 5, 7, 17), ("y", activation, ["x"])]))
    check(
        region(
            [image("dy", 29), image("s", 29), ("g", ops.ActivationGrad(activation), ["dy", "s"])],
            phase="backward",
        )
    )


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_activations_of_extreme_and_tiny_values(activation: ops.Activation) -> None:
    kernel = emit(region([image("x", 12), ("y", activation, ["x"])]))
    module = kernel.load(interpreted=True)
    x = torch.tensor(
        [[0.0, 1e-30, -1e-20, 1e-4, -1e-4, 0.24, -0.26, 30.0, -30.0, 200.0, -200.0, float("nan")]]
    )
    (y,) = module.results(1)
    module.launch(x, y)
    wanted = activation.reference(x.double())
    assert y[0, -1].isnan()
    error = (y.double() - wanted).abs()[0, :-1]
    # tanh and elu keep their relative precision near 0; sigmoid and gelu far below 0 fall under a float32 sum
    assert bool(
        (error <= 4e-6 * wanted.abs()[0, :-1] + 1e-7 * wanted.abs()[0, :-1].clamp(max=1.0) + 3e-7).all()
    )
    if isinstance(activation, ops.Tanh | ops.Elu):
        assert bool((error <= 1e-6 * wanted.abs()[0, :-1] + 1e-38).all())


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_pointwise_chain_with_every_broadcast(dtype: str) -> None:
    def typed(shape: tuple[int, ...], name: str) -> tuple[str, Op, tuple[()]]:
        return image(name, *shape, dtype=dtype)

    check(
        region(
            [
                typed((9, 7, 17), "x"),
                vector("bias", 17, dtype=dtype),
                typed((1, 1, 17), "gate"),
                typed((9, 7, 1), "map"),
                typed((9, 7, 17), "residual"),
                vector("number", 1, dtype=dtype),
                vector("odd", 1, 7, 1, dtype=dtype),
                ("a", ops.Add(), ["x", "bias"]),
                ("b", ops.Multiply(), ["a", "gate"]),
                ("c", ops.Multiply(), ["b", "map"]),
                ("d", ops.Subtract(), ["c", "residual"]),
                ("e", ops.Multiply(), ["d", "number"]),
                ("f", ops.Add(), ["odd", "e"]),
                ("y", ops.Relu6(), ["f"]),
            ],
            outputs=["b", "y"],
        )
    )


def test_functions_of_positive_values() -> None:
    x = image("x", 5, 7, 17)
    for op in (ops.Exp(), ops.Log(), ops.Sqrt()):
        chain = [x, ("positive", ops.Softplus(), ["x"]), ("f", op, ["positive"])]
        check(region(chain))
        graph = ("g", ops.ActivationGrad(op), ["x", "f" if op.saves == "output" else "positive"])
        check(region([*chain, graph], phase="backward"))


@pytest.mark.parametrize("shape", [(1, 7, 1), (9, 7, 17), (1, 1, 17), (1,)], ids=str)
def test_extrema_and_their_gradients(shape: tuple[int, ...]) -> None:
    x, other = image("x", 9, 7, 17), vector("other", *shape)
    check(region([x, other, ("u", ops.Maximum(), ["x", "other"]), ("y", ops.Minimum(), ["other", "u"])]))
    check(region([x, other, ("a", ops.Scale(1.0, 4.0), ["x"]), ("y", ops.Divide(), ["other", "a"])]))
    dy = image("dy", 9, 7, 17)
    for smallest in (False, True):
        gradient = ("g", ops.ExtremumGrad(smallest), ["dy", "x", "other"])
        check(region([dy, x, other, gradient], phase="backward"))
    check(region([x, other, ("y", ops.Prelu(), ["x", "other"])]))
    check(region([dy, x, other, ("g", ops.PreluGrad(), ["dy", "x", "other"])], phase="backward"))


def test_extrema_keep_nan_and_share_the_gradient_of_equals() -> None:
    x, other = (image(name, 4) for name in ("x", "other"))
    values = [torch.tensor([[1.0, float("nan"), 2.0, 3.0]]), torch.tensor([[float("nan"), 1.0, 2.0, 0.0]])]
    for op in (ops.Maximum(), ops.Minimum()):
        module = emit(region([x, other, ("y", op, ["x", "other"])])).load(interpreted=True)
        (y,) = module.results(1)
        module.launch(*values, y)
        assert y[0, :2].isnan().all()
        assert y[0, 2:].tolist() == [2.0, 3.0 if isinstance(op, ops.Maximum) else 0.0]
    nodes = [image("dy", 4), x, other, ("g", ops.ExtremumGrad(), ["dy", "x", "other"])]
    module = emit(region(nodes, phase="backward")).load(interpreted=True)
    (g,) = module.results(1)
    module.launch(torch.full((1, 4), 8.0), *values, g)
    assert g[0, 2:].tolist() == [4.0, 8.0]


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("shape", [(9, 1, 17), (1, 1, 17), (9, 7, 1)], ids=str)
def test_spreading(shape: tuple[int, ...], mean: bool) -> None:
    spread = ops.BroadcastTo(("N", 9, 7, 17), mean)
    check(region([image("x", *shape), ("y", spread, ["x"])]))
    dy = image("dy", 9, 7, 17)
    chain = [image("x", *shape), dy, ("s", spread, ["x"]), ("y", ops.Multiply(), ["dy", "s"])]
    check(region(chain))
    vectors = [dy, vector("x", *shape), ("s", spread, ["x", "dy"]), ("y", ops.Tanh(), ["s"])]
    check(region(vectors))
    if shape != (9, 1, 17):  # which no tile of pixels and channels takes, and fusion refuses
        total = ("t", ops.Reduce((0, 1, 2)), ["y"])
        check(region([*chain, total], phase="backward"), length=63)


def test_pointwise_on_parameters_alone() -> None:
    check(
        region(
            [
                vector("gamma", 1030),
                vector("variance", 1030),
                ("r", ops.RsqrtPlus(1e-3), ["variance"]),
                ("y", ops.Multiply(), ["gamma", "r"]),
            ],
            phase="backward",
        )
    )


def test_batch_norm_and_its_gradient() -> None:
    vectors = [vector(name, 17) for name in ("gamma", "beta", "mean", "variance", "d_gamma", "d_beta")]
    names = ["gamma", "beta", "mean", "variance"]
    check(region([image("x", 9, 7, 17), *vectors[:4], ("y", ops.BatchNorm(), ["x", *names])]))
    check(region([image("x", 9, 7, 17), *vectors[2:4], ("y", ops.Normalize(), ["x", *names[2:]])]))
    operands = ["dy", "x", "gamma", "mean", "variance", "d_gamma", "d_beta"]
    gradient = ("g", ops.BatchNormGrad(), operands)
    used = [v for v in vectors if v[0] in operands]
    check(region([image("dy", 9, 7, 17), image("x", 9, 7, 17), *used, gradient], phase="backward"))


# -- reductions ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("shape", [(29, 31, 3), (6, 5, 130), (11,), (1, 1, 1), (300,)], ids=str)
def test_sums_over_all_pixels(shape: tuple[int, ...], mean: bool) -> None:
    axes = tuple(range(len(shape)))
    length = 1
    for size in shape[:-1]:
        length *= size
    kernel = check(
        region([image("x", *shape), ("t", ops.Reduce(axes, mean), ["x"])]), length=length, batches=(1, 5)
    )
    assert kernel.launches == (2 if length > 1 else 1)
    square = [
        image("x", *shape),
        vector("b", shape[-1]),
        ("a", ops.Add(), ["x", "b"]),
        ("s", ops.Square(), ["a"]),
    ]
    check(region([*square, ("t", ops.Reduce(axes, mean), ["s"])]), length=length)


def test_two_sums_over_one_pass() -> None:
    nodes = [
        image("dy", 9, 7, 17),
        image("x", 9, 7, 17),
        ("p", ops.Multiply(), ["dy", "x"]),
        ("g", ops.Reduce((0, 1, 2)), ["p"]),
        ("b", ops.Reduce((0, 1, 2)), ["dy"]),
    ]
    check(region(nodes, outputs=["g", "b"], anchor="g", phase="backward"), length=63)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("shape", [(29, 31, 3), (6, 5, 130), (11,), (1, 1, 1), (13, 300)], ids=str)
def test_means_and_variances_in_one_pass(shape: tuple[int, ...], dtype: str) -> None:
    """Beside each other, alone, and of a value that is computed on the way."""
    axes, length = tuple(range(len(shape))), prod(shape[:-1])
    x = image("x", *shape, dtype=dtype)
    variance, mean = ("v", ops.Variance(), ["x"]), ("m", ops.Reduce(axes, mean=True), ["x"])
    check(region([x, mean, variance], outputs=["m", "v"]), length=length, batches=(1, 3))
    check(region([x, variance]), length=length)
    moved = [x, vector("b", shape[-1]), ("a", ops.Add(), ["x", "b"]), ("e", ops.Relu(), ["a"])]
    check(region([*moved, ("v", ops.Variance(), ["e"]), ("t", ops.Reduce(axes), ["e"])],
                 outputs=["v", "t"], anchor="v"), length=length)  # fmt: skip


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize(
    ("axes", "keepdims"),
    [
        ((1, 2), True), ((3,), False), ((3,), True), ((0, 1, 3), False), ((0, 1, 2, 3), False),
        ((0, 1, 2), True), ((1,), False), ((0,), False),
    ],
)  # fmt: skip
def test_sums_over_any_axes(axes: tuple[int, ...], keepdims: bool, mean: bool) -> None:
    operands = [image("x", 9, 7, 19), vector("b", 19), ("a", ops.Add(), ["x", "b"])]
    check(region([*operands, ("t", ops.Reduce(axes, mean, keepdims), ["a"])]), length=1200)


def test_sums_do_not_depend_on_the_run(device: torch.device) -> None:
    """Which a GPU alone can show, where programs run side by side; the interpreter, that they are right."""
    kernel = emit(region([image("x", 40, 41, 3), ("t", ops.Reduce((0, 1, 2)), ["x"])]))
    interpreted = device.type == "cpu"
    module = kernel.load(interpreted)
    batch = 3 if interpreted else 64
    inputs = [value.to(device) for value in module.example(batch)]
    results = [module.results(batch)[0].to(device) for _ in range(1 if interpreted else 20)]
    for result in results:
        module.launch(*inputs, result)
    (wanted,) = expected(kernel, [value.cpu() for value in inputs])
    assert difference(results[0].cpu(), wanted) <= 4 * (batch * 40 * 41) ** 0.5 * EPS["float32"]
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(10,), (1,), (3, 2, 17), (1030,), (2500,)], ids=str)
def test_softmax_and_its_gradient(shape: tuple[int, ...], dtype: str) -> None:
    x, dy, y = (image(name, *shape, dtype=dtype) for name in ("x", "dy", "y"))
    check(region([x, ("p", ops.Softmax(), ["x"])]), length=shape[-1])
    check(region([x, ("p", ops.LogSoftmax(), ["x"])]), length=shape[-1])
    check(region([x, ("p", ops.Sparsemax(), ["x"])]), length=shape[-1])
    check(region([dy, y, ("g", ops.SparsemaxGrad(), ["dy", "y"])], phase="backward"), length=shape[-1])
    check(region([dy, y, ("g", ops.SoftmaxGrad(), ["dy", "y"])], phase="backward"), length=shape[-1])


def test_softmax_of_large_values_does_not_overflow() -> None:
    module = emit(region([image("x", 5), ("p", ops.Softmax(), ["x"])])).load(interpreted=True)
    x = torch.tensor([[1e4, 1e4 - 1, -1e4, 0.0, -1e30]])
    (y,) = module.results(1)
    module.launch(x, y)
    assert difference(y, torch.softmax(x.double(), -1)) < 1e-6
    module = emit(region([image("x", 5), ("p", ops.LogSoftmax(), ["x"])])).load(interpreted=True)
    module.launch(x, y)
    assert difference(y, torch.log_softmax(x.double(), -1)) < 1e-6


def test_sparsemax_of_ties_and_extremes() -> None:
    module = emit(region([image("x", 5), ("p", ops.Sparsemax(), ["x"])])).load(interpreted=True)
    x = torch.tensor(
        [[1e4, 1e4, -1e4, 0.0, -1e30], [2.0, 2.0, 2.0, 2.0, 1.75], [0.0, -1.0, 0.0, 0.0, 0.0], [3.0] * 5,
         [float("-inf"), 0.0, 0.5, float("-inf"), 0.5], [1.0, float("nan"), 0.0, 0.0, 0.0]]
    )  # fmt: skip
    (y,) = module.results(len(x))
    module.launch(x, y)
    wanted = ops.Sparsemax().reference(x.double())
    assert wanted[1].tolist() == [0.25] * 4 + [0.0]
    assert y[-1].isnan().all()
    assert wanted[-1].isnan().all()
    assert difference(y[:-1], wanted[:-1]) < 1e-6


def test_rows_too_wide_for_a_program_are_refused() -> None:
    with pytest.raises(NotEmittable, match="a row of 20000 is wider than the 16384 a program holds"):
        emit(region([image("x", 20000), ("p", ops.Softmax(), ["x"])]))


# -- losses --------------------------------------------------------------------------------------------------
BY_ROWS = [
    ops.SoftmaxCrossEntropy(),
    ops.SoftmaxCrossEntropy(kept=0.9, spread=0.01),
    ops.SoftmaxCrossEntropy(numbers=True),
    ops.CategoricalCrossEntropy(),
    ops.CategoricalFocal(),
    ops.CategoricalFocal(True, gamma=1.5),
    ops.GeneralizedCrossEntropy(0.7, numbers=True),
    ops.CategoricalHinge(),
    ops.CosineDistance(),
]

BY_ELEMENTS = [
    ops.BinaryCrossEntropy(),
    ops.BinaryCrossEntropy(from_logits=True),
    ops.BinaryFocal(),
    ops.BinaryFocal(True, 1.5, 0.25),
    ops.Divergence(),
    ops.HingeError(),
    ops.HingeError(squared=True),
    ops.HuberError(0.5),
    ops.LogarithmicError(),
    ops.LogCosh(),
    ops.PercentageError(),
    ops.PoissonError(),
    ops.AbsoluteError(),
    ops.SquaredError(),
]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("shape", [(10,), (1,), (7, 5, 17), (1030,)], ids=str)
@pytest.mark.parametrize("loss", BY_ROWS, ids=str)
def test_a_loss_of_rows_and_its_gradient(loss: ops.RowLoss, shape: tuple[int, ...], dtype: str) -> None:
    """With the weight of each row and the mean behind it in one kernel, which is cut into parts."""
    if shape == (1,) and isinstance(loss, ops.CategoricalCrossEntropy | ops.CategoricalFocal):
        pytest.skip("one class has p = 1, clipped to 1 - 1e-7, whose logarithm float32 does not resolve")
    if shape == (1,) and isinstance(loss, ops.CosineDistance):
        pytest.skip("on a line there are two directions, and no slope between them")
    row, total = (*shape[:-1], 1), ops.Reduce(tuple(range(len(shape) + 1)), mean=True)
    t = image("t", *row, dtype="int64") if loss.numbers else image("t", *shape, dtype=dtype)
    p, w, d = image("p", *shape, dtype=dtype), image("w", *row), vector("d")
    forward = [p, t, w, ("rows", loss, ["p", "t"]), ("all", ops.Multiply(), ["rows", "w"])]
    kernel = check(region([*forward, ("y", total, ["all"])], anchor="rows"), length=1030, batches=(1, 37))
    assert kernel.launches == 2
    spread = ("s", ops.BroadcastTo(("N", *row), True), ["d", "w"])
    backward = [p, t, w, d, spread, ("dy", ops.Multiply(), ["s", "w"])]
    gradient = ("g", ops.RowLossGrad(loss), ["p", "t", "dy"])
    check(region([*backward, gradient], phase="backward"), length=shape[-1], batches=(1, 37))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("shape", [(10,), (1,), (7, 5, 17), (1030,)], ids=str)
@pytest.mark.parametrize("loss", BY_ELEMENTS, ids=str)
def test_a_loss_of_elements_and_its_gradient(loss: ops.Pointwise, shape: tuple[int, ...], dtype: str) -> None:
    if shape == (1,) and loss == ops.BinaryFocal():
        pytest.skip("of one element, 1 - p may have lost its digits")
    total = ops.Reduce(tuple(range(len(shape) + 1)), mean=True)
    p, t, d = image("p", *shape, dtype=dtype), image("t", *shape), vector("d")
    nodes = [p, t, ("terms", loss, ["p", "t"]), ("y", total, ["terms"])]
    kernel = check(region(nodes, anchor="y"), length=1030, batches=(1, 37))
    assert kernel.launches == 2
    spread = ("s", ops.BroadcastTo(("N", *shape), True), ["d", "t"])
    gradient = ("g", ops.PointwiseGrad(loss, 0), ["s", "p", "t"])
    check(region([p, t, d, spread, gradient], phase="backward"), length=1, batches=(1, 37))


@pytest.mark.parametrize("loss", [ops.CircleLoss(2.0), ops.CircleLoss(3.0, 0.25, alone=False)], ids=str)
@pytest.mark.parametrize("features", [5, 16, 33])
def test_a_loss_of_pairs_and_its_gradient(loss: ops.CircleLoss, features: int) -> None:
    x, labels, dy = image("x", features), image("labels", 1, dtype="int64"), image("dy", 1)
    check(region([x, labels, ("y", loss, ["x", "labels"])]), length=64 * features, batches=(1, 7, 37))
    gradient = ("dx", ops.CircleLossGrad(loss), ["x", "labels", "dy"])
    check(region([x, labels, dy, gradient], phase="backward"), length=64 * features, batches=(1, 7, 37))


def test_a_broken_embedding_breaks_the_losses_that_compare_it() -> None:
    loss, x = ops.CircleLoss(10.0), torch.nn.functional.normalize(torch.randn(6, 5), dim=-1)
    x[2, 1] = float("nan")
    labels, dy = torch.tensor([[0], [0], [1], [1], [2], [2]]), torch.ones(6, 1)
    sources = [image("x", 5), image("labels", 1, dtype="int64"), image("dy", 1)]
    losses = emit(region([*sources[:2], ("y", loss, ["x", "labels"])])).load(interpreted=True)
    slope = ("dx", ops.CircleLossGrad(loss), ["x", "labels", "dy"])
    slopes = emit(region([*sources, slope], phase="backward")).load(interpreted=True)
    (y,), (dx,) = losses.results(6), slopes.results(6)
    losses.launch(x, labels, y.zero_())
    slopes.launch(x, labels, dy, dx.zero_())
    for found in (y, dx, loss.reference(x, labels), slope[1].reference(x, labels, dy)):
        assert found.isnan().all()


def test_embeddings_too_wide_for_a_program_are_refused() -> None:
    nodes = [image("x", 600), image("t", 1, dtype="int64"), ("y", ops.CircleLoss(), ["x", "t"])]
    with pytest.raises(NotEmittable, match="an embedding of 600 is wider than the 512 a program holds"):
        emit(region(nodes))


def test_sums_of_one_batch_share_a_kernel() -> None:
    x = image("x", 5, 3)
    nodes = [x, ("square", ops.Square(), ["x"]), *(
        (name, ops.Reduce((0, 1, 2), mean), [of])
        for name, of, mean in (("all", "x", False), ("squares", "square", False), ("mean", "square", True))
    )]  # fmt: skip
    given = region(nodes, outputs=["all", "squares", "mean"], anchor="all")
    assert check(given, length=1030, batches=(1, 37, 200)).launches == 2


# -- networks whose regions are not met above ----------------------------------------------------------------
def trained(graph: Graph, result: str) -> list[Region]:
    """The kernels of a forward and backward pass."""
    graph.outputs["y"] = result
    run_pipeline(graph, TRAINING)
    found = differentiate(graph, wrt_inputs=True)
    graph.outputs.update({f"d_{name}": gradient for name, gradient in found.gradients.items()})
    run_pipeline(graph, BACKWARD)
    return fuse(graph).kernels


@pytest.mark.parametrize("axes", [(3,), (1, 2, 3), (2, 3)], ids=str)
def test_normalisation_by_its_own_statistics(axes: tuple[int, ...]) -> None:
    graph = Graph()
    x = graph.add(ops.Input(("N", 5, 7, 17)), (), "x")
    over = ops.Reduce(axes, mean=True, keepdims=True)
    mean = graph.add(over, [x])
    variance = graph.add(over, [graph.add(ops.Square(), [graph.add(ops.Subtract(), [x, mean])])])
    normalized = graph.add(ops.Normalize(), [x, mean, variance])
    gamma = graph.add(ops.Parameter((17,)), (), "gamma")
    for kernel in trained(graph, graph.add(ops.Multiply(), [normalized, gamma])):
        check(kernel, length=5 * 7 * 17)


# -- movement ------------------------------------------------------------------------------------------------
MOVES: list[tuple[Callable[[], Op], tuple[int, ...]]] = [
    (lambda: ops.Pad(((1, 2), (0, 3), (0, 0))), (5, 6, 3)),
    (lambda: ops.Pad(((0, 0), (2, 0), (0, 1)), value=-1.5), (5, 6, 3)),
    (lambda: ops.Pad(((3, 4),)), (11,)),
    (lambda: ops.Slice((1, 0, 2), (4, 6, 3)), (5, 6, 3)),
    (lambda: ops.Slice((0,), (4,)), (11,)),
    (lambda: ops.Transpose((0, 3, 1, 2)), (17, 19, 5)),
    (lambda: ops.Transpose((0, 2, 1)), (7, 33)),
]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "uint8"])
@pytest.mark.parametrize(("op", "shape"), MOVES, ids=lambda v: str(v() if callable(v) else ""))
def test_movement(op: Callable[[], Op], shape: tuple[int, ...], dtype: str) -> None:
    if dtype == "uint8" and isinstance(op(), ops.Pad):
        pytest.skip("padding is of images of numbers")
    check(region([image("x", *shape, dtype=dtype), ("y", op(), ["x"])]), batches=(1, 4))


@pytest.mark.parametrize("axis", [1, 2, -1])
def test_concat(axis: int) -> None:
    sizes = [3, 1, 17]
    shapes = [tuple(s if i == axis % 4 - 1 else 5 for i in range(3)) for s in sizes]
    images = [image(name, *shape) for name, shape in zip("abc", shapes, strict=True)]
    check(region([*images, ("y", ops.Concat(axis), ["a", "b", "c"])]))
    check(region([images[2], ("y", ops.Concat(axis), ["c", "c"])]))


# -- the table of emitters -----------------------------------------------------------------------------------
def test_float64_is_left_to_aten() -> None:
    with pytest.raises(
        NotEmittable, match=r"x is float64\[N,3\]: kernels take float32, .*; use backend='aten'"
    ):
        emit(region([image("x", 3, dtype="float64"), ("y", ops.Relu(), ["x"])]))


def test_one_kernel_serves_a_fused_region() -> None:
    graph = Graph()
    x = graph.add(ops.Input(("N", 6, 4, 3)), (), "x")
    pooled = graph.add(ops.MaxPool2D(), (graph.add(ops.Relu(), (x,), layer="act"),), layer="pool")
    graph.outputs["y"] = pooled
    (only,) = fuse(graph).kernels
    kernel = check(only)
    assert kernel.ops == ["relu", "max_pool2d"]
    assert kernel.layers == ["act", "pool"]
    assert kernel.flops(2) == 2 * kernel.flops(1) > 0
    assert kernel.bytes(1) == 4 * (72 + 18)
    assert kernel.specializations[0][1]["x_ptr"] == "*fp32"
