"""Kernels that compute something several times rather than that it is stored: their values, at odd shapes."""

from __future__ import annotations

from typing import Any

import pytest
from contraction_graphs import check, only_region
from convloom.codegen import emit
from convloom.graph import ops
from convloom.graph.ir import Graph
from convloom.graph.op import Op
from convloom.graph.passes.precision import with_dtype
from convloom.graph.windows import Pair
from convloom.planning.cost import CostModel
from convloom.planning.fusion import fuse
from convloom.planning.schedules import Schedule
from graphs import Builder

SMALL = Schedule(16, 16, 16, group_m=2)


def before_a_convolution(
    channels: int, kernel: Pair, strides: Pair = (1, 1), padding: str = "same", groups: int = 1
) -> Graph:
    """relu(x * scale + shift) -> convolution -> relu; zeros beyond the map are those of what is computed."""
    b = Builder()
    x = b.input(7, 5, channels, name="x")
    if groups == 1:  # else each group has channels of its own, which no kernel of few channels finds
        x = b.op(ops.Multiply(), x, b.weight(channels, name="scale"))
        x = b.op(ops.Add(), x, b.weight(channels, name="shift"))
    h = b.op(ops.Relu(), b.op(ops.Scale(0.5, 0.25), x))
    h = b.conv(h, 6, kernel, strides, padding, groups)
    return b.finish(b.op(ops.Relu(), h, name="y"))


@pytest.mark.parametrize(
    ("channels", "kernel", "strides", "padding", "groups"),
    [
        (3, (3, 3), (1, 1), "same", 1),
        (1, (2, 3), (2, 1), "same", 1),
        (17, (3, 3), (2, 2), "same", 1),
        (33, (1, 3), (1, 1), "valid", 1),
        (4, (3, 2), (1, 1), "same", 2),
    ],
)
def test_a_prologue_at_every_tap(
    channels: int, kernel: Pair, strides: Pair, padding: str, groups: int
) -> None:
    graph = before_a_convolution(channels, kernel, strides, padding, groups)
    region = only_region(graph, y="y")
    assert region.prologue
    check(region, SMALL, batch=3, terms=channels * kernel[0] * kernel[1])
    check(region, batch=1, terms=channels * kernel[0] * kernel[1])


def test_an_operand_of_each_group_s_own_channels_is_not_found_by_few_of_them() -> None:
    b = Builder()
    h = b.op(ops.Multiply(), b.input(5, 4, 4, name="x"), b.weight(4, name="scale"), name="scaled")
    partition = fuse(b.finish(b.conv(h, 4, (3, 3), groups=2, name="conv")))
    assert len(partition.kernels) == 2
    assert [(d.question, d.reason) for d in partition.decisions] == [
        ("may", "scale of float32[4] has no place of its own for each tap of a kernel")
    ]


@pytest.mark.parametrize("op", [ops.MaxPool2D, ops.AveragePool2D])
@pytest.mark.parametrize(
    "geometry",
    [
        ((2, 2), (1, 1), ((0, 0), (0, 0))),
        ((4, 2), (2, 1), ((1, 2), (1, 0))),
        ((1, 4), (2, 3), ((0, 0), (2, 1))),
    ],
)
def test_a_product_under_overlapping_windows(op: type[Op], geometry: tuple[Any, ...]) -> None:
    b = Builder()
    h = b.op(ops.Relu(), b.conv(b.input(7, 6, 3), 33, (1, 1), name="conv"))
    y = b.op(ops.Scale(0.5), b.op(op(*geometry), h))
    region = only_region(b.finish(y), y=y)
    check(region, SMALL, batch=3, terms=3)
    check(region, batch=1, terms=3)


@pytest.mark.parametrize(
    "op", [ops.MaxPool2D((3, 3), (2, 2)), ops.AveragePool2D((3, 2), (1, 1), ((1, 1), (0, 1)))], ids=str
)
def test_a_prologue_of_overlapping_windows(op: Op) -> None:
    b = Builder()
    h = b.op(ops.Relu(), b.op(ops.Add(), b.input(7, 6, 5, name="x"), b.weight(5, name="shift")))
    y = b.op(op, h)
    check(only_region(b.finish(y), y=y), batch=3, terms=9)


def test_two_sums_of_one_gradient_beside_a_weight_gradient() -> None:
    """As where two convolutions are added: both biases have the same gradient."""
    b = Builder()
    x, dy = b.input(5, 4, 3, name="x"), b.input(5, 4, 6, name="dy")
    dw = b.op(ops.Conv2DWeightGrad(kernel_size=(3, 3), padding=((1, 1), (1, 1))), x, dy, name="dw")
    sums = [b.op(ops.Reduce((0, 1, 2)), dy, name=name) for name in ("one", "two")]
    region = only_region(b.finish(dw, *sums), dw=dw, one="one", two="two")
    assert [node.op.op_name() for node in region.nodes] == ["conv2d_weight_grad", "reduce", "reduce"]
    for programs in (1, 64):
        check(region, Schedule(16, 16, 16, chunk=16, programs=programs), batch=3, terms=60)


@pytest.mark.parametrize(
    ("channels", "dtype", "target"),
    [(3, "float32", "sm_90"), (64, "float32", "sm_90"), (64, "float16", "sm_80")],
)
def test_a_prologue_at_every_tap_spills_no_registers(channels: int, dtype: str, target: str) -> None:
    b = Builder()
    h = b.op(ops.Relu(), b.input(28, 28, channels), name="relu")
    graph = with_dtype(b.finish(b.conv(h, 64, name="conv")), dtype)
    (region,) = fuse(graph, CostModel.of(target)).kernels
    for found in emit(region, target=target).resources(target):
        assert found.error is None
        assert found.spills_bytes == 0
