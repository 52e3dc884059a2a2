"""What ops cost, by hand, and which operands they refuse."""

from __future__ import annotations

from math import prod

import pytest
from convloom.graph import ops
from convloom.graph.errors import ShapeError
from convloom.graph.op import Op
from graphs import differentiated
from op_cases import CASES, IMAGE, Case, N, Shape, conv


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


@pytest.mark.parametrize("case", CASES, ids=str)
def test_cost_grows_with_the_batch(case: Case) -> None:
    """Bytes are those of the operands and the result; FLOPs are a whole number, linear in the batch, or in
    the square of it where all pairs of its rows count."""
    graph = case.graph()
    one, four = graph.cost("y", 1), graph.cost("y", 4)
    node = graph["y"]
    assert four.bytes_read == sum(t.nbytes(4) for t in (graph[i].type for i in node.inputs))
    assert four.bytes_written == node.type.nbytes(4)
    batched = any(graph[name].type.batched for name in node.inputs)
    of_pairs = isinstance(case.op, ops.CircleLoss | ops.CircleLossGrad)
    assert four.flops == (16 if of_pairs else 4 if batched else 1) * one.flops


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
        (ops.Conv2D((0, 1)), (IMAGE, (3, 3, 3, 4)), "stride (0, 1) must be at least 1 on every axis"),
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
            ops.SoftmaxCrossEntropy(),
            ((N, 5), (N, 6)),
            "softmax_cross_entropy takes a prediction and a target of its shape, found float32[N,5] and",
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
