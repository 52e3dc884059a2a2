"""Every op: its type against its value, its gradient against torch's autograd through the reference."""

from __future__ import annotations

import inspect

import pytest
import torch
from convloom.graph import ops
from convloom.graph.averages import writes
from convloom.graph.errors import CompileError, ShapeError
from convloom.graph.gradients import differentiate
from convloom.graph.ir import Graph
from convloom.graph.leaving import Update
from convloom.graph.op import REGISTRY, Op
from convloom.graph.passes.batch_norm import use_batch_statistics
from convloom.graph.types import TensorType
from graphs import all_values, assert_same, autograd, differentiated, values
from op_cases import CASES, IMAGE, SOURCES, Case, N
from torch.nn.functional import interpolate


def not_differentiated(op: Op) -> set[str]:
    """Operands that take part, but through which no gradient flows."""
    if isinstance(op, ops.Resize):
        return {"x1", "x2"}
    if isinstance(op, ops.Step | ops.Floor | ops.Where | ops.StopGradient):
        return {"x0"}
    if isinstance(op, ops.ExtremumGrad):  # by which of the two it is, not by how much
        return {"x1", "x2"}
    if isinstance(op, ops.LookUp | ops.LookUpGrad | ops.PreluGrad | ops.RowLoss | ops.CircleLoss):
        return {"x1"}
    return {"x1"} if isinstance(op, (ops.BroadcastTo, ops.InTraining, ops.Warp)) else set()


def has_gradient(op: type[Op]) -> bool:
    return op.gradient is not Op.gradient and op is not ops.BatchNormGrad


def rounds(op: Op) -> bool:
    return isinstance(op, ops.Cast) and op.dtype != "float64"


every = pytest.mark.parametrize("case", CASES, ids=str)
with_gradient = pytest.mark.parametrize(
    "case",
    [c for c in CASES if has_gradient(type(c.op)) and not rounds(c.op) and c.graph()["y"].type.is_floating],
    ids=str,
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
    x = graph.add(ops.Parameter((3, 5)), name="x")
    graph.outputs = {"y": graph.add(ops.SoftmaxGrad(), [x, x], "y")}
    with pytest.raises(CompileError, match=r"^y: softmax_grad has no gradient$"):
        differentiate(graph)


def test_training_batch_norm_differentiates_through_its_statistics() -> None:
    graph = Case(ops.BatchNorm(0.01), (IMAGE, (3,), (3,), (3,), (3,))).graph()
    use_batch_statistics(graph)
    assert graph.updates == [Update("x3", "x3/moved"), Update("x4", "x4/moved")]
    assert list(map(str, writes(graph))) == [
        "%x3 <- 0.99 * %x3 + 0.01 * %y/mean",
        "%x4 <- 0.99 * %x4 + 0.01 * %y/variance",
    ]
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
    assert ops.BinaryCrossEntropy(True).reference(logits, target).tolist() == [[1000.0, 1000.0]]
    wrong = ops.BinaryCrossEntropy().reference(torch.tensor([[1.0, 0.0]]), target)
    assert wrong.mean().item() == pytest.approx(-torch.log(torch.tensor(1e-7)).item(), rel=0.01)
    one, dy = torch.tensor([[1.0, 0.0]]), torch.ones(1, 1)
    gradient = ops.RowLossGrad(ops.CategoricalCrossEntropy()).reference(one, target, dy)
    assert torch.isfinite(gradient).all()


def test_sources() -> None:
    constant = ops.Constant((2, 3), 0.25, "float64")
    assert torch.equal(constant.reference(), torch.full((2, 3), 0.25, dtype=torch.float64))
    assert constant.infer() == TensorType((2, 3), "float64")
    for op in (ops.Input((N, 4)), ops.Parameter((4,)), ops.Random((N, 4))):
        assert op.infer() == TensorType(op.shape)
        assert op.cost((), op.infer(), 3).flops == 0
        with pytest.raises(CompileError, match=f"{op.op_name()} is bound by the runtime"):
            op.reference()


SIZES = [(5, 8), (8, 5), (3, 12), (7, 7), (1, 4), (6, 1), (4, 9)]


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_interpolation_matrix_is_torch_s_resize(sizes: tuple[int, int], antialias: bool) -> None:
    """Bilinear against torch, which repeats the edge as the renormalised weights do."""
    x = torch.randn(2, 1, 1, sizes[0], dtype=torch.float64)
    matrix = ops.InterpolationMatrix(*sizes, "bilinear", antialias, "float64").reference()
    wanted = interpolate(x, (1, sizes[1]), mode="bilinear", align_corners=False, antialias=antialias)
    torch.testing.assert_close(x @ matrix, wanted, rtol=0, atol=1e-12)


def test_interpolation_matrices_by_hand() -> None:
    nearest = ops.InterpolationMatrix(5, 3, "nearest").reference()
    assert nearest.argmax(0).tolist() == [0, 2, 4]  # floor((i + 1/2) * 5 / 3)
    assert nearest.sum(0).tolist() == [1.0, 1.0, 1.0]
    cubic = ops.InterpolationMatrix(6, 12, "bicubic", dtype="float64").reference()
    # Keys 1981, a = -1/2, a quarter of a pixel behind pixel 2: taps at distances 5/4, 1/4, 3/4 and 7/4.
    assert cubic[1:5, 5].tolist() == pytest.approx([-9 / 128, 111 / 128, 29 / 128, -3 / 128], abs=1e-15)
    for method in ("bilinear", "bicubic", "lanczos3", "lanczos5"):
        matrix = ops.InterpolationMatrix(6, 13, method, dtype="float64").reference()
        torch.testing.assert_close(matrix.sum(0), torch.ones(13, dtype=torch.float64), rtol=0, atol=1e-14)
        torch.testing.assert_close(matrix, matrix.flip(0, 1), rtol=0, atol=1e-14)
    with pytest.raises(ShapeError, match="no interpolation is called 'area'; known: nearest, bilinear"):
        ops.InterpolationMatrix(2, 3, "area").infer()
    with pytest.raises(ShapeError, match="cannot resize an axis from 0 to 3"):
        ops.InterpolationMatrix(0, 3).infer()


def test_transposed_convolution_refuses_what_no_convolution_gives() -> None:
    for shapes, text in (
        (((N, 4, 4, 3), (3, 2, 5, 4)), "takes a kernel (height, width, out / groups, 3)"),
        (((N, 4, 3, 3), (3, 2, 5, 3)), "a convolution takes (10, 13) to (4, 4)"),
    ):
        with pytest.raises(ShapeError) as caught:
            Case(ops.Conv2DTranspose((2, 3), input_size=(10, 13)), shapes).graph()
        assert text in str(caught.value)


def test_up_sampling_by_repetition() -> None:
    x = torch.arange(12.0, dtype=torch.float64).reshape(1, 2, 3, 2)
    spread = ops.AverageUnpool2D((2, 3), (2, 3), input_size=(4, 9)).reference(x) * 6
    torch.testing.assert_close(spread, x.repeat_interleave(2, 1).repeat_interleave(3, 2), rtol=1e-15, atol=0)
