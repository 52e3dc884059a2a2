"""How many kernels networks become; the numbers may only fall."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from convloom.graph import ops
from convloom.graph.ir import Graph
from convloom.graph.passes.precision import with_dtype
from convloom.planning.forms.products import WIDEST_ROW_IN_A_TILE
from convloom.planning.fusion import fuse, leave_unfused
from convloom.planning.regions import Partition
from graphs import (
    inception,
    lenet,
    residual_block,
    shared_layer,
    unet,
    with_loss,
)
from partitions import inference, kernels, reasons, training


def test_lenet_is_five_kernels() -> None:
    assert kernels(fuse(inference(lenet()))) == [
        "conv2d relu max_pool2d",
        "conv2d relu max_pool2d",
        "dense relu",
        "dense relu",
        "dense softmax",
    ]


def test_lenet_with_batch_norm_and_average_pooling_is_five_kernels_too() -> None:
    assert kernels(fuse(inference(lenet(ops.AveragePool2D, ops.Tanh, True)))) == [
        "conv2d tanh average_pool2d",
        "conv2d tanh average_pool2d",
        "dense tanh",
        "dense tanh",
        "dense softmax",
    ]


def test_lenet_is_six_kernels_where_the_softmax_stands_alone() -> None:
    widest = inference(lenet(classes=WIDEST_ROW_IN_A_TILE))
    assert len(fuse(widest).kernels) == 5
    partition = fuse(inference(lenet(classes=WIDEST_ROW_IN_A_TILE + 1)))
    assert kernels(partition)[-2:] == ["dense", "softmax"]
    assert len(partition.kernels) == 6
    assert reasons(partition, "dense3/act") == ["a row of 129 does not fit into one tile of 128 columns"]


def test_unfused_is_one_kernel_an_op() -> None:
    partition = leave_unfused(lenet())
    assert len(partition.kernels) == 12
    assert all(len(region.nodes) == 1 for region in partition)
    assert len(partition.regions) == 13  # flattening is a view: a region that launches nothing


@pytest.mark.parametrize(
    ("make", "fused", "unfused"),
    [
        (residual_block, 2, 5),
        (lambda: residual_block(batch_norm=False), 2, 5),
        (inception, 4, 6),
        (unet, 7, 9),
        (shared_layer, 2, 3),
    ],
)
def test_kernels_of_inference(make: Callable[[], Graph], fused: int, unfused: int) -> None:
    graph = inference(make())
    assert len(fuse(graph).kernels) <= fused
    assert len(leave_unfused(graph).kernels) == unfused


@pytest.mark.parametrize(
    ("make", "fused"),
    [
        (lambda: with_loss(lenet()), 14),
        (lambda: with_loss(lenet(ops.AveragePool2D, ops.Tanh, True)), 26),
        (residual_block, 16),
        (lambda: residual_block(batch_norm=False), 6),
        (inception, 10),
        (unet, 20),
        (shared_layer, 7),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_kernels_of_training(make: Callable[[], Graph], fused: int, dtype: str) -> None:
    """In half precision the casts on the way to sums ride along."""
    assert len(fuse(training(with_dtype(make(), dtype))).kernels) <= fused


def test_the_sums_of_a_batch_norm_share_a_kernel_and_those_of_its_gradient_another() -> None:
    partition = fuse(training(with_loss(lenet(batch_norm=True))))
    backward = kernels(Partition(partition.graph, partition.phase("backward")))
    assert backward.count("reduce normalize multiply reduce") == 2
    forward = kernels(Partition(partition.graph, partition.phase("forward")))
    assert forward.count("reduce variance") == 2


def test_training_lenet_keeps_its_prediction_for_no_kernel_more() -> None:
    graph = with_loss(lenet())
    graph.outputs["prediction"] = "dense3/act"
    partition = fuse(training(graph, of=["loss"]))
    assert len(partition.kernels) <= 16
    forward = kernels(Partition(partition.graph, partition.phase("forward")))
    assert forward[0] == "conv2d relu max_pool2d max_pool_index2d"
    assert forward[-1] == "softmax softmax_cross_entropy reduce"
    assert len(forward) <= 6
