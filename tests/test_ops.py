"""Every op: type against value, gradient against torch's autograd through the reference, cost by hand."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from math import prod

import pytest
import torch
from convloom.graph import ops
from convloom.graph.errors import CompileError, ShapeError
from convloom.graph.gradients import differentiate
from convloom.graph.ir import Graph
from convloom.graph.op import REGISTRY, Op
from convloom.graph.passes.batch_norm import use_batch_statistics
from convloom.graph.types import BATCH, Dim, TensorType
from convloom.graph.windows import same_padding
from graphs import Values, all_values, assert_same, autograd, differentiated, values

N = BATCH
Shape = tuple[Dim, ...]


@dataclass(frozen=True)
class Case:
    """An op over operands of these shapes.

    scale: of the operands' normal values. positive, probabilities: positions of operands that must be > 0, or
    rows that sum to 1. indices: position -> bound of integers.
    """

    op: Op
    shapes: tuple[Shape, ...]
    scale: float = 1.0
    positive: tuple[int, ...] = ()
    probabilities: tuple[int, ...] = ()
    indices: tuple[tuple[int, int], ...] = ()
    dtype: str = "float32"

    def __str__(self) -> str:
        return f"{self.op}{''.join(map(str, self.shapes))}".replace(" ", "").replace("'", "")

    def graph(self) -> Graph:
        graph = Graph("one op")
        names = []
        for position, shape in enumerate(self.shapes):
            dtype = "uint8" if position in dict(self.indices) else self.dtype
            fixed = tuple(d for d in shape if isinstance(d, int))
            source = ops.Input(shape, dtype) if N in shape else ops.Parameter(fixed, dtype)
            names.append(graph.add(source, name=f"x{position}"))
        graph.outputs = {"y": graph.add(self.op, names, "y")}
        return graph

    def values(self, graph: Graph, batch: int) -> Values:
        given = values(graph, batch, seed=5)
        for position in range(len(self.shapes)):
            name = f"x{position}"
            given[name] = given[name] * self.scale
            if position in self.positive:
                given[name] = given[name].abs() + 0.2
            if position in self.probabilities:
                given[name] = torch.softmax(given[name], -1)
        for position, bound in self.indices:
            given[f"x{position}"] = (
                (given[f"x{position}"].abs() * 100).long().remainder(bound).to(torch.uint8)
            )
        return given


IMAGE: Shape = (N, 7, 5, 3)
ASYMMETRIC = ((2, 1), (0, 3))


def conv(op: ops.Conv2D, image: Shape, size: tuple[int, int], filters: int, bias: bool = True) -> Case:
    kernel = (*size, int(image[3]) // op.groups, filters)
    return Case(op, (image, kernel, (filters,)) if bias else (image, kernel))


CASES: list[Case] = [
    # convolution: strides, dilation, groups, padding of every kind, and rows that no window reaches
    conv(ops.Conv2D(), IMAGE, (3, 3), 4),
    conv(ops.Conv2D(), IMAGE, (1, 1), 17, bias=False),
    conv(ops.Conv2D((2, 3), ASYMMETRIC), (N, 9, 8, 3), (3, 2), 5),
    conv(ops.Conv2D((3, 3)), (N, 10, 12, 2), (2, 2), 3),
    conv(ops.Conv2D((1, 1), ((1, 2), (2, 2)), (2, 3)), (N, 8, 9, 3), (3, 2), 4),
    conv(ops.Conv2D((2, 1), ((0, 1), (1, 1)), (2, 1), 3), (N, 9, 6, 6), (3, 3), 9),
    conv(
        ops.Conv2D((2, 2), (same_padding(6, 3, 2), same_padding(8, 5, 2)), groups=4), (N, 6, 8, 4), (3, 5), 8
    ),
    conv(ops.Conv2D((4, 4)), (N, 7, 6, 1), (1, 2), 1),
    Case(ops.Conv2DDataGrad((2, 1), ASYMMETRIC, (1, 2), 2, (8, 7)), ((N, 5, 8, 4), (3, 2, 2, 4))),
    Case(ops.Conv2DWeightGrad((2, 1), ASYMMETRIC, (1, 2), 2, (3, 2)), ((N, 8, 7, 4), (N, 5, 8, 6))),
    # matrix products, of images too
    Case(ops.Dense(), ((N, 17), (17, 5), (5,))),
    Case(ops.Dense(), ((N, 3, 2, 7), (7, 1))),
    Case(ops.Dense(), ((N, 4, 3), (3, 65), (65,))),
    Case(ops.DenseDataGrad(), ((N, 3, 5), (7, 5))),
    Case(ops.DenseWeightGrad(), ((N, 3, 5), (N, 3, 7))),
    # pooling: tiling, overlapping, leaving a border, gaps between windows, padded
    *(
        Case(op(size, strides, padding), (image,))
        for op in (ops.MaxPool2D, ops.AveragePool2D)
        for image, size, strides, padding in (
            ((N, 6, 4, 3), (2, 2), (2, 2), ((0, 0), (0, 0))),
            ((N, 7, 5, 1), (2, 2), (2, 2), ((0, 0), (0, 0))),
            ((N, 7, 8, 3), (3, 2), (2, 1), ((1, 1), (0, 1))),
            ((N, 9, 8, 2), (2, 1), (3, 4), ((0, 1), (0, 0))),
            ((N, 5, 6, 17), (5, 6), (5, 6), ((0, 0), (0, 0))),
        )
    ),
    Case(ops.MaxPoolIndex2D((3, 2), (2, 1), ((1, 1), (0, 1))), ((N, 7, 8, 3),)),
    Case(ops.MaxPoolIndex2D((16, 17), (16, 17)), ((N, 16, 17, 2),)),
    Case(
        ops.MaxUnpool2D((3, 2), (2, 1), ((1, 1), (0, 1)), (7, 8)),
        ((N, 4, 8, 3), (N, 4, 8, 3)),
        indices=((1, 6),),
    ),
    Case(ops.AverageUnpool2D((3, 2), (2, 1), ((1, 1), (0, 1)), (7, 8)), ((N, 4, 8, 3),)),
    # arithmetic: an operand of every kind of broadcasting, on either side
    *(
        Case(op, shapes)
        for op in (ops.Add(), ops.Subtract(), ops.Multiply())
        for shapes in (
            (IMAGE, IMAGE),
            (IMAGE, (3,)),
            (IMAGE, (N, 1, 1, 3)),
            (IMAGE, (N, 7, 5, 1)),
            (IMAGE, (N, 7, 1, 3)),
            (IMAGE, (1, 1, 1, 3)),
            (IMAGE, (7, 5, 3)),
            (IMAGE, ()),
            ((3,), IMAGE),
            ((N, 1, 1, 3), IMAGE),
            ((N, 7, 5, 1), (N, 1, 1, 3)),
            ((N, 6), (6,)),
        )
    ),
    Case(ops.Scale(-2.5, 0.75), (IMAGE,)),
    Case(ops.Cast("float64"), (IMAGE,), dtype="float64"),
    Case(ops.Cast("bfloat16"), (IMAGE,)),
    Case(ops.Square(), (IMAGE,)),
    Case(ops.RsqrtPlus(0.01), ((5,),), positive=(0,)),
    # activations, wide enough to pass every bend
    *(
        Case(op, (IMAGE,), scale=4.0)
        for op in (
            ops.Relu(),
            ops.Relu6(),
            ops.LeakyRelu(0.3),
            ops.LeakyRelu(0.2),
            ops.Sigmoid(),
            ops.Tanh(),
            ops.Swish(),
            ops.Gelu(),
            ops.Gelu(True),
            ops.Elu(),
            ops.Elu(0.7),
        )
    ),
    Case(ops.ActivationGrad(ops.Swish()), (IMAGE, IMAGE)),
    Case(ops.BatchNorm(0.01), (IMAGE, (3,), (3,), (3,), (3,)), positive=(4,)),
    Case(ops.BatchNorm(), ((N, 17), (17,), (17,), (17,), (17,)), positive=(4,)),
    Case(ops.Normalize(0.01), (IMAGE, (3,), (3,)), positive=(2,)),
    Case(ops.BatchNormGrad(0.01), (IMAGE, IMAGE, (3,), (3,), (3,), (3,), (3,)), positive=(4,)),
    Case(ops.Dropout(0.4), (IMAGE,)),
    # views and movement
    Case(ops.Reshape((5, 21)), (IMAGE,)),
    Case(ops.Reshape((105,)), (IMAGE,)),
    Case(ops.Concat(), (IMAGE, (N, 7, 5, 1), (N, 7, 5, 4))),
    Case(ops.Concat(1), (IMAGE, (N, 2, 5, 3))),
    Case(ops.Concat(-2), (IMAGE, (N, 7, 1, 3))),
    Case(ops.Pad(((1, 2), (0, 3), (1, 0)), 0.5), (IMAGE,)),
    Case(ops.Slice((1, 0, 2), (7, 3, 3)), (IMAGE,)),
    Case(ops.Transpose((0, 3, 1, 2)), (IMAGE,)),
    # reductions and losses
    Case(ops.Reduce((0, 1, 2)), (IMAGE,)),
    Case(ops.Reduce((1, 2), mean=True), (IMAGE,)),
    Case(ops.Reduce((1, 3), keepdims=True), (IMAGE,)),
    Case(ops.Softmax(), ((N, 17),), scale=3.0),
    Case(ops.Softmax(), ((N, 3, 5),), scale=3.0),
    Case(ops.SoftmaxGrad(), ((N, 17), (N, 17)), probabilities=(1,)),
    *(
        Case(op, (shape, shape), probabilities=rows)
        for shape in ((N, 7), (N, 2, 3, 5))
        for op, rows in (
            (ops.SoftmaxCrossEntropy(), (1,)),
            (ops.CategoricalCrossEntropy(), (0, 1)),
            (ops.BinaryCrossEntropy(), (0, 1)),
            (ops.BinaryCrossEntropy(True), (1,)),
            (ops.MeanSquaredError(), ()),
        )
    ),
    Case(ops.CategoricalCrossEntropy(), ((N, 7), (N, 7)), positive=(0, 1)),  # rows that do not sum to 1
    Case(ops.LossGrad(ops.MeanSquaredError()), ((N, 5), (N, 5), ())),
]

SOURCES = (ops.Input, ops.Parameter, ops.Constant, ops.DropoutMask)
LOSSES = (ops.SoftmaxCrossEntropy, ops.CategoricalCrossEntropy, ops.BinaryCrossEntropy, ops.MeanSquaredError)


def not_differentiated(op: Op) -> set[str]:
    """Operands that take part, but through which no gradient flows."""
    if isinstance(op, ops.BatchNorm):
        return {"x3", "x4"}
    return {"x1"} if isinstance(op, LOSSES) else set()


def has_gradient(op: type[Op]) -> bool:
    return op.gradient is not Op.gradient


def rounds(op: Op) -> bool:
    return isinstance(op, ops.Cast) and op.dtype != "float64"


every = pytest.mark.parametrize("case", CASES, ids=str)
with_gradient = pytest.mark.parametrize(
    "case", [c for c in CASES if has_gradient(type(c.op)) and not rounds(c.op)], ids=str
)


def test_the_table_covers_every_op() -> None:
    ours = {
        name
        for name, cls in REGISTRY.items()
        if cls.__module__.startswith("convloom.") and not inspect.isabstract(cls)
    }
    covered = {case.op.op_name() for case in CASES} | {op.op_name() for op in SOURCES}
    assert ours - covered == set()
    assert set(ops.__all__) >= {REGISTRY[name].__name__ for name in ours}


@every
@pytest.mark.parametrize("batch", [1, 3])
def test_type_is_that_of_the_value(case: Case, batch: int) -> None:
    graph = case.graph()
    node = graph["y"]
    given = case.values(graph, batch)
    dtypes = {name: graph[name].type.torch_dtype for name in node.inputs}
    value = case.op.reference(*(given[name].to(dtypes[name]) for name in node.inputs))
    assert tuple(value.shape) == node.type.size(batch)
    assert value.dtype == node.type.torch_dtype


@with_gradient
@pytest.mark.parametrize("batch", [1, 3])
def test_gradient_is_autograd_s(case: Case, batch: int) -> None:
    graph = case.graph()
    backward, derivatives = differentiated(graph)
    given = {**case.values(graph, batch), "d_y": values(backward, batch, seed=9)["d_y"]}
    wanted = set(graph["y"].inputs) - not_differentiated(case.op)
    assert set(derivatives.gradients) == wanted
    found = all_values(backward, given)
    assert_same(
        {name: found[node] for name, node in derivatives.gradients.items()},
        autograd(graph, given, sorted(wanted)) if wanted else {},
    )
    for node in backward.nodes():  # the nodes of the backward pass are typed rightly too
        assert tuple(found[node.name].shape) == node.type.size(batch), node.name
    for name, node_name in derivatives.gradients.items():
        assert backward[node_name].type.shape == graph[name].type.shape


@with_gradient
def test_gradient_of_one_operand_alone(case: Case) -> None:
    """Nothing is built for an operand that nobody differentiates."""
    graph = case.graph()
    parameters = [n.name for n in graph.sources(ops.Parameter)]
    before = len(graph)
    derivatives = differentiate(graph)
    assert set(derivatives.gradients) == set(parameters) - not_differentiated(case.op)
    if not parameters:
        assert len(graph) == before


def test_ops_without_gradient_say_so() -> None:
    graph = Graph()
    x = graph.add(ops.Parameter((5,)), name="x")
    graph.outputs = {"y": graph.add(ops.RsqrtPlus(), [x], "y")}
    with pytest.raises(CompileError, match=r"^y: rsqrt_plus has no gradient$"):
        differentiate(graph)


def test_broadcasting_that_mixes_new_and_stretched_axes_has_no_gradient() -> None:
    case = Case(ops.Add(), (IMAGE, (1, 5, 3)))
    with pytest.raises(
        CompileError, match=r"float32\[1,5,3\] broadcast to float32\[N,7,5,3\] mixes new and stretched"
    ):
        differentiate(case.graph())


def test_training_batch_norm_differentiates_through_its_statistics() -> None:
    graph = Case(ops.BatchNorm(0.01), (IMAGE, (3,), (3,), (3,), (3,))).graph()
    use_batch_statistics(graph)
    assert graph.updates == {"x3": ("y/mean", 0.99), "x4": ("y/variance", 0.99)}
    backward, _ = differentiated(graph)
    given = values(backward, 3)
    expected = autograd(graph, given, ["x0", "x1", "x2"])  # through mean and variance, torch derives itself
    found = all_values(backward, given)
    for name, value in expected.items():
        torch.testing.assert_close(found[backward.outputs[name]], value, rtol=1e-11, atol=1e-12)
    image = given["x0"].reshape(-1, 3)
    torch.testing.assert_close(found["y/mean"], image.mean(0), rtol=0, atol=1e-14)
    torch.testing.assert_close(found["y/variance"], image.var(0, correction=0), rtol=0, atol=1e-13)


def test_max_pooling_gives_the_gradient_to_the_first_of_equals() -> None:
    graph = Case(ops.MaxPool2D((2, 3), (2, 3)), ((N, 2, 3, 1),)).graph()
    backward, _ = differentiated(graph)
    x = torch.tensor([[1.0, 4.0, 4.0], [4.0, 0.0, 4.0]], dtype=torch.float64).reshape(1, 2, 3, 1)
    found = all_values(backward, {"x0": x, "d_y": torch.full((1, 1, 1, 1), 3.0, dtype=torch.float64)})
    assert found[backward.outputs["x0"]].flatten().tolist() == [0, 3, 0, 0, 0, 0]
    index = next(node for node in backward.nodes() if isinstance(node.op, ops.MaxPoolIndex2D))
    assert found[index.name].item() == 1
    assert index.type.dtype == "uint8"


def test_padding_never_wins_a_max_nor_counts_in_a_mean() -> None:
    x = -torch.ones(1, 2, 2, 1)
    for op in (ops.MaxPool2D, ops.AveragePool2D):
        found = op((2, 2), (1, 1), ((0, 1), (1, 0))).reference(x)
        assert found.shape == (1, 2, 2, 1)
        assert (found == -1).all()


def test_losses_do_not_overflow() -> None:
    logits = torch.tensor([[1000.0, -1000.0]])
    target = torch.tensor([[0.0, 1.0]])
    assert ops.SoftmaxCrossEntropy().reference(logits, target).item() == 2000
    assert ops.BinaryCrossEntropy(True).reference(logits, target).item() == 1000
    assert ops.BinaryCrossEntropy().reference(torch.tensor([[1.0, 0.0]]), target).item() == pytest.approx(
        -torch.log(torch.tensor(1e-7)).item(), rel=0.01
    )
    gradient = ops.CategoricalCrossEntropy().derivative(torch.tensor([[1.0, 0.0]]), target)
    assert torch.isfinite(gradient).all()


def test_sources() -> None:
    constant = ops.Constant((2, 3), 0.25, "float64")
    assert torch.equal(constant.reference(), torch.full((2, 3), 0.25, dtype=torch.float64))
    assert constant.infer() == TensorType((2, 3), "float64")
    for op in (ops.Input((N, 4)), ops.Parameter((4,)), ops.DropoutMask((N, 4))):
        assert op.infer() == TensorType(op.shape)
        assert op.cost((), op.infer(), 3).flops == 0
        with pytest.raises(CompileError, match=f"{op.op_name()} is bound by the runtime"):
            op.reference()


# -- cost ----------
def flops(case: Case, batch: int) -> int:
    return case.graph().cost("y", batch).flops


def test_flops_of_a_convolution() -> None:
    """Two for each of N*P*Q*K outputs and R*S*C/groups taps, one for the bias."""
    op = ops.Conv2D((2, 1), ((1, 1), (0, 0)), (1, 1), 2)
    p, q = (9 + 2 - 3) // 2 + 1, 8 - 2 + 1
    outputs, taps = 3 * p * q * 10, 3 * 2 * 4 // 2
    with_bias = conv(op, (N, 9, 8, 4), (3, 2), 10)
    assert flops(with_bias, 3) == 2 * outputs * taps + outputs
    assert flops(conv(op, (N, 9, 8, 4), (3, 2), 10, bias=False), 3) == 2 * outputs * taps
    cost = with_bias.graph().cost("y", 3)
    assert cost.bytes_read == 4 * (3 * 9 * 8 * 4 + 3 * 2 * 2 * 10 + 10)
    assert cost.bytes_written == 4 * outputs
    assert cost.intensity == cost.flops / (cost.bytes_read + cost.bytes_written)


def test_gradients_of_a_convolution_cost_what_it_costs() -> None:
    op = ops.Conv2D((2, 1), ((1, 1), (0, 0)), (1, 1), 2)
    case = conv(op, (N, 9, 8, 4), (3, 2), 10, bias=False)
    backward, derivatives = differentiated(case.graph())
    for node in derivatives.gradients.values():
        assert backward.cost(node, 3).flops == flops(case, 3)


@pytest.mark.parametrize("lead", [(), (5,), (2, 3)])
def test_flops_of_a_dense_layer(lead: tuple[int, ...]) -> None:
    rows = 3 * prod(lead)
    case = Case(ops.Dense(), ((N, *lead, 17), (17, 6), (6,)))
    assert flops(case, 3) == 2 * rows * 17 * 6 + rows * 6
    backward, derivatives = differentiated(Case(ops.Dense(), ((N, *lead, 17), (17, 6))).graph())
    for node in derivatives.gradients.values():
        assert backward.cost(node, 3).flops == 2 * rows * 17 * 6


def test_views_and_movement_cost_no_flops() -> None:
    for op in (ops.Reshape((105,)), ops.Pad(((1, 0),) * 3), ops.Transpose((0, 2, 1, 3)), ops.Concat()):
        assert flops(Case(op, (IMAGE,)), 2) == 0


@every
def test_cost_grows_with_the_batch(case: Case) -> None:
    """Bytes are those of the operands and the result; FLOPs are a whole number, linear in the batch."""
    graph = case.graph()
    one, four = graph.cost("y", 1), graph.cost("y", 4)
    node = graph["y"]
    assert four.bytes_read == sum(t.nbytes(4) for t in (graph[i].type for i in node.inputs))
    assert four.bytes_written == node.type.nbytes(4)
    batched = any(graph[name].type.batched for name in node.inputs)
    assert four.flops == (4 if batched else 1) * one.flops


# -- refusals ----------
@pytest.mark.parametrize(
    ("op", "shapes", "text"),
    [
        (
            ops.Conv2D(),
            ((N, 7, 5), (3, 3, 3, 4)),
            "conv2d's input must be an image (N, height, width, channels)",
        ),
        (
            ops.Conv2D(),
            (IMAGE, (3, 3, 4, 4)),
            "has 3 channels, but kernel float32[3,3,4,4] with 1 groups takes 4",
        ),
        (
            ops.Conv2D(groups=2),
            ((N, 7, 5, 4), (3, 3, 2, 3)),
            "channels in and out must divide into the groups",
        ),
        (ops.Conv2D(), (IMAGE, (3, 3, 3)), "a convolution kernel is (height, width, in, out)"),
        (ops.Conv2D(), (IMAGE, (3, 3, 3, 4), (3,)), "bias must be (4,), found float32[3]"),
        (ops.Conv2D((0, 1)), (IMAGE, (3, 3, 3, 4)), "stride (0, 1) must be at least 1 on both axes"),
        (ops.Conv2D(dilation=(1, 0)), (IMAGE, (3, 3, 3, 4)), "dilation (1, 0) must be at least 1"),
        (
            ops.Conv2D(),
            (IMAGE, (8, 3, 3, 4)),
            "a window of 8x3 (dilation 1x1) does not fit into an input of 7x5",
        ),
        (ops.Conv2D(padding=((-1, 0), (0, 0))), (IMAGE, (3, 3, 3, 4)), "must not be negative"),
        (ops.MaxPool2D((6, 6)), (IMAGE,), "max_pool2d: a window of 6x6 (dilation 1x1) does not fit"),
        (ops.AveragePool2D(), ((N, 7),), "average_pool2d takes an image (N, height, width, channels)"),
        (
            ops.Dense(),
            ((N, 7), (8, 3)),
            "dense takes (..., C) times (C, K), found float32[N,7] times float32[8,3]",
        ),
        (ops.Dense(), ((N, 7), (7, 3), (4,)), "bias must be (3,)"),
        (
            ops.Add(),
            (IMAGE, (N, 7, 5, 4)),
            "add: shapes float32[N,7,5,3] and float32[N,7,5,4] do not broadcast",
        ),
        (ops.BatchNorm(), (IMAGE, (3,), (4,), (3,), (3,)), "needs beta of shape (3,), found float32[4]"),
        (ops.Concat(), (IMAGE, (N, 7, 4, 3)), "needs shapes equal on every other axis"),
        (ops.Concat(0), (IMAGE, IMAGE), "concat along axis 0 of float32[N,7,5,3]: use an axis from 1 to 3"),
        (ops.Concat(4), (IMAGE, IMAGE), "concat along axis 4"),
        (ops.Concat(), (), "concat needs at least one operand"),
        (ops.Pad(((1, 1),)), (IMAGE,), "pad of float32[N,7,5,3] needs 3 pairs of sizes >= 0"),
        (
            ops.Slice((0, 0, 0), (7, 6, 3)),
            (IMAGE,),
            "slice (0, 0, 0):(7, 6, 3) does not fit float32[N,7,5,3]",
        ),
        (ops.Slice((0, 0), (7, 5, 3)), (IMAGE,), "does not fit float32[N,7,5,3]"),
        (ops.Reshape((5, 20)), (IMAGE,), "cannot reshape float32[N,7,5,3] to (N, 5, 20): sizes differ"),
        (ops.Transpose((1, 0, 2, 3)), (IMAGE,), "needs a permutation of its axes that keeps the batch first"),
        (ops.Reduce((4,)), (IMAGE,), "reduce over axes (4,) of float32[N,7,5,3], which has 4 axes"),
        (
            ops.MeanSquaredError(),
            ((N, 5), (N, 6)),
            "mean_squared_error takes prediction and target of one shape",
        ),
        (ops.Parameter((-1,)), (), "shape (-1,) has the axis -1"),
        (ops.Input((N, 3), "complex64"), (), "unknown dtype 'complex64'; known: float64, float32"),
    ],
    ids=str,
)
def test_operands_that_do_not_fit(op: Op, shapes: tuple[Shape, ...], text: str) -> None:
    with pytest.raises(ShapeError) as caught:
        Case(op, shapes).graph()
    assert text in str(caught.value)
    assert str(caught.value).startswith("y: ")
