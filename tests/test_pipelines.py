"""Dead code, and the pipelines: what they report, and that values and gradients stay."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from convloom.graph import ops
from convloom.graph.averages import writes
from convloom.graph.decisions import Decision, told
from convloom.graph.errors import CompileError
from convloom.graph.ir import Graph
from convloom.graph.leaving import Update
from convloom.graph.op import Kind
from convloom.graph.passes import BACKWARD, INFERENCE, TRAINING, UNFUSED, Pass, run_pipeline
from convloom.graph.passes.cleanup import remove_dead_code
from convloom.graph.verify import verify
from graphs import (
    Builder,
    all_values,
    assert_same,
    differentiated,
    inception,
    lenet,
    outputs,
    random_networks,
    residual_block,
    shared_layer,
    unet,
    values,
)
from hypothesis import given, settings


def op_names(graph: Graph) -> list[str]:
    return [node.op.op_name() for node in graph.nodes() if node.op.kind is not Kind.SOURCE]


def test_dead_code_goes_inputs_stay() -> None:
    b = Builder()
    x, unused = b.input(3), b.input(4, name="unused")
    kept = b.op(ops.Relu(), x, name="kept")
    b.op(ops.Tanh(), b.dense(unused, 2, name="dead"), name="deader")
    moving = b.weight(3, name="moving", trainable=False)
    graph = b.finish(kept)
    batch = b.op(ops.Reduce((0,), mean=True), x, name="mean")
    graph.updates = [Update(moving, batch)]
    decisions = remove_dead_code(graph)
    assert [str(d) for d in decisions] == ["applied at dead", "applied at deader"]
    assert [node.name for node in graph.nodes()] == ["image", "unused", "kept", "moving", "mean"]
    verify(graph)


def test_pipelines_report_and_show_what_they_did() -> None:
    graph = lenet(batch_norm=True)
    seen: list[str] = []
    reports = run_pipeline(graph, INFERENCE, lambda moment, _: seen.append(moment))
    assert [report.name for report in reports] == [step.name for step in INFERENCE]
    assert seen[:2] == ["before remove dead code", "after remove dead code"]
    assert len(seen) == 2 * len(INFERENCE)
    fold = next(report for report in reports if report.name == "fold batch norm")
    assert [str(d) for d in fold.decisions] == ["applied at norm1: now conv1", "applied at norm2: now conv2"]
    assert "norm1" not in graph


def test_a_pass_that_breaks_the_graph_is_named() -> None:
    def spoil(graph: Graph) -> list[Decision]:
        graph.outputs["more"] = "ghost"
        return []

    with pytest.raises(
        CompileError, match="graph lenet after spoiling: output more names ghost, which is no node"
    ):
        run_pipeline(lenet(), (Pass("spoiling", spoil),))


NETWORKS: list[Callable[[], Graph]] = [
    lenet,
    lambda: lenet(ops.AveragePool2D, ops.Tanh, True),
    residual_block,
    inception,
    unet,
    shared_layer,
]


@pytest.mark.parametrize("make", NETWORKS)
@pytest.mark.parametrize("pipeline", [INFERENCE, UNFUSED], ids=["inference", "unfused"])
def test_pipelines_keep_the_values_of_networks(make: Callable[[], Graph], pipeline: tuple[Pass, ...]) -> None:
    graph = make()
    twin = graph.copy()
    run_pipeline(twin, pipeline)
    given = values(graph)
    assert_same(outputs(twin, given), outputs(graph, given))
    assert "batch_norm" not in op_names(twin) or pipeline is UNFUSED


@settings(max_examples=60, deadline=None, derandomize=True)
@given(random_networks())
def test_inference_keeps_the_values_of_random_networks(graph: Graph) -> None:
    twin = graph.copy()
    run_pipeline(twin, INFERENCE)
    given = values(graph)
    assert_same(outputs(twin, given), outputs(graph, given))


def test_a_rule_is_named_once_for_what_became_of_it_in_one_place_after_the_other() -> None:
    made = [("a", "x", True), ("a", "y", False), ("b", "y", True), ("a", "z", True)]
    assert told(Decision(*given) for given in made) == [
        "    a", "        applied at x", "        refused at y",
        "    b", "        applied at y",
        "    a", "        applied at z",
    ]  # fmt: skip


@settings(max_examples=60, deadline=None, derandomize=True)
@given(random_networks())
def test_backward_keeps_the_gradients_of_random_networks(graph: Graph) -> None:
    run_pipeline(graph, UNFUSED)
    backward, _ = differentiated(graph)
    twin = backward.copy()
    run_pipeline(twin, BACKWARD)
    given = values(backward)
    assert_same(outputs(twin, given), outputs(backward, given))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(random_networks())
def test_training_follows_its_masks_and_statistics(graph: Graph) -> None:
    """With masks of one, and moving statistics equal to the batch's, training is inference."""
    twin = graph.copy()
    run_pipeline(twin, TRAINING)
    given = {**values(graph), **values(twin)}
    for node in twin.sources(ops.Random):
        given[node.name] = torch.ones_like(given[node.name])
    found = all_values(twin, given)
    for write in writes(twin):
        given[write.parameter] = found[write.value]
    for name, value in outputs(graph, given).items():
        torch.testing.assert_close(found[twin.outputs[name]], value, rtol=1e-9, atol=1e-9)
