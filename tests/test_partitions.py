"""What regions say of themselves, and that a partition computes its graph."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from convloom.graph import ops
from convloom.graph.gradients import differentiate
from convloom.graph.ir import Graph
from convloom.graph.passes import BACKWARD, UNFUSED, run_pipeline
from convloom.planning.fusion import fuse, leave_unfused
from graphs import (
    Builder,
    inception,
    lenet,
    random_networks,
    residual_block,
    shared_layer,
    unet,
)
from hypothesis import given, settings
from partitions import check, inference, training


def test_cost_of_a_region() -> None:
    """All members' FLOPs; only what crosses the border as bytes."""
    graph = inference(lenet())
    first = fuse(graph).kernels[0]
    cost = first.cost(3)
    conv = 2 * 3 * 28 * 28 * 6 * 25 + 3 * 28 * 28 * 6
    assert cost.flops == conv + 3 * 28 * 28 * 6 + 3 * 14 * 14 * 6 * 4
    assert cost.bytes_read == 4 * (3 * 28 * 28 + 25 * 6 + 6)
    assert cost.bytes_written == 4 * 3 * 14 * 14 * 6
    apart = [region.cost(3) for region in leave_unfused(graph).kernels]
    assert sum(c.flops for c in apart) == sum(region.cost(3).flops for region in fuse(graph).kernels)


def test_names_never_come_from_the_user() -> None:
    b = Builder("../../etc")
    x = b.conv(b.input(4, 4, 1, name='"; import os'), 2, name="rm -rf /")
    partition = fuse(b.finish(b.conv(b.op(ops.Relu(), x, name="'''"), 2, name="x\ny")))
    assert [region.name for region in partition] == ["conv2d_relu", "conv2d"]


# -- a partition computes its graph ----------
NETWORKS: list[Callable[[], Graph]] = [
    lenet,
    lambda: lenet(ops.AveragePool2D, ops.Tanh, True),
    lambda: lenet(ops.MaxPool2D, ops.Swish),
    residual_block,
    inception,
    unet,
    shared_layer,
]


@pytest.mark.parametrize("make", NETWORKS)
def test_partitions_of_networks(make: Callable[[], Graph]) -> None:
    check(inference(make()))
    check(training(make(), wrt_inputs=True))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(random_networks())
def test_partitions_of_random_networks(graph: Graph) -> None:
    check(inference(graph))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(random_networks())
def test_partitions_of_random_networks_in_training(graph: Graph) -> None:
    check(training(graph, wrt_inputs=True))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(random_networks())
def test_partitions_of_random_networks_differentiated_in_eval_mode(graph: Graph) -> None:
    graph = graph.copy()
    run_pipeline(graph, UNFUSED)
    gradients = differentiate(graph).gradients
    graph.outputs.update({f"gradient of {name}": node for name, node in gradients.items()})
    run_pipeline(graph, BACKWARD)
    check(graph)
