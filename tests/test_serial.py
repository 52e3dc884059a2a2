"""The graph as JSON and back."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from convloom.graph import ops
from convloom.graph.errors import CompileError, ModelFormatError, ShapeError
from convloom.graph.gradients import differentiate
from convloom.graph.ir import Graph
from convloom.graph.op import Op, op_from_json, op_to_json
from convloom.graph.passes import BACKWARD, TRAINING, run_pipeline
from convloom.graph.serial import BEFORE, FORMAT, from_data, to_json
from graphs import (
    NETWORKS,
    assert_same,
    differentiated,
    lenet,
    outputs,
    random_networks,
    values,
    with_loss,
)
from hypothesis import given, settings

networks = pytest.mark.parametrize("make", NETWORKS, ids=lambda make: make.__name__)


def from_text(text: str) -> Graph:
    return from_data(json.loads(text))


def training_step(graph: Graph) -> Graph:
    graph = with_loss(graph)
    run_pipeline(graph, TRAINING)
    gradients = differentiate(graph, ["loss"]).gradients
    graph.outputs.update({f"gradient of {name}": node for name, node in gradients.items()})
    run_pipeline(graph, BACKWARD)
    return graph


@networks
def test_json_round_trip(make: Callable[[], Graph]) -> None:
    graph = make()
    twin = from_text(to_json(graph))
    assert str(twin) == str(graph)
    assert to_json(twin) == to_json(graph)
    given = values(graph)
    assert_same(outputs(twin, given), outputs(graph, given))


@pytest.mark.parametrize("batch_norm", [False, True])
def test_json_round_trip_of_a_differentiated_graph(batch_norm: bool) -> None:
    graph = training_step(lenet(batch_norm=batch_norm))
    assert bool(graph.updates) == batch_norm
    twin = from_text(to_json(graph))
    assert str(twin) == str(graph)
    assert [node.phase for node in twin.nodes()] == [node.phase for node in graph.nodes()]
    assert twin.updates == graph.updates


@settings(max_examples=30, deadline=None, derandomize=True)
@given(random_networks())
def test_json_round_trip_of_random_networks(graph: Graph) -> None:
    backward, _ = differentiated(graph)
    assert str(from_text(to_json(backward))) == str(backward)


def test_json_is_one_node_a_line() -> None:
    graph = lenet()
    lines = to_json(graph).splitlines()
    assert len(lines) == len(graph) + 2
    assert json.loads(lines[1].rstrip(","))["name"] == "image"


def test_every_op_s_attributes_survive_json() -> None:
    op: Op = ops.RowLossGrad(ops.SoftmaxCrossEntropy(numbers=True))
    assert op_from_json(json.loads(json.dumps(op_to_json(op)))) == op
    op = ops.ActivationGrad(ops.LeakyRelu(0.125))
    assert op_from_json(json.loads(json.dumps(op_to_json(op)))) == op
    assert op_to_json(ops.Conv2D((2, 1)))["op"] == "conv2d"


def node_json(**changes: object) -> dict[str, object]:
    return {"name": "y", "inputs": ["image"], "layer": "", "phase": "forward", "op": "relu", **changes}


def graph_json(*nodes: dict[str, object], **changes: object) -> str:
    image = node_json(name="image", inputs=[], op="input", shape=["N", 3])
    data = {
        "format": FORMAT,
        "name": "g",
        "nodes": [image, *nodes],
        "outputs": {"out": "image"},
        "updates": [],
    }
    return json.dumps({**data, **changes})


def test_the_json_below_is_wrong_by_its_fault_alone() -> None:
    assert len(from_text(graph_json(node_json()))) == 2


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("[]", ModelFormatError, "'format' should be 'convloom-graph-3'"),
        (graph_json(format="keras"), ModelFormatError, "'format' should be 'convloom-graph-3'"),
        (graph_json(nodes=None), ModelFormatError, "graph JSON is malformed"),
        (graph_json(nodes=[7]), ModelFormatError, "graph JSON is malformed"),
        (graph_json(outputs=["y"]), ModelFormatError, "graph JSON is malformed"),
        (graph_json(updates=[3]), ModelFormatError, "graph JSON is malformed"),
        (
            graph_json(format=BEFORE, updates=[{"parameter": "image", "value": "image", "momentum": "much"}]),
            ModelFormatError,
            "graph JSON is malformed",
        ),
        (
            graph_json({"name": "y", "op": "relu"}),
            ModelFormatError,
            "graph JSON is malformed: KeyError('inputs')",
        ),
        (graph_json(node_json(op="teleport")), ModelFormatError, "unknown op 'teleport' in graph JSON"),
        (graph_json(node_json(op=["relu"])), ModelFormatError, "unknown op ['relu'] in graph JSON"),
        (graph_json(node_json(op="activation")), ModelFormatError, "unknown op 'activation' in graph JSON"),
        (
            graph_json(node_json(speed=3)),
            ModelFormatError,
            "op 'relu' has no attribute ['speed']; it has []",
        ),
        (graph_json(node_json(), node_json()), ModelFormatError, "graph JSON has two nodes named 'y'"),
        (graph_json(node_json(inputs=["ghost"])), ShapeError, "y: operand 'ghost' is not in the graph"),
        (graph_json(node_json(inputs=["y"])), ShapeError, "y: operand 'y' is not in the graph"),
        (graph_json(node_json(inputs=[])), ModelFormatError, "malformed"),
        (graph_json(node_json(inputs=["image"], op="dense")), ModelFormatError, "malformed"),
        (
            graph_json(node_json(inputs=["image"] * 2)),
            CompileError,
            "breaks the rule 'the number of operands is the op's'",
        ),
        (
            graph_json(node_json(phase="sideways")),
            CompileError,
            "expected phase forward or backward, found sideways",
        ),
        (
            graph_json(node_json(op="reshape", shape=[4])),
            ShapeError,
            "y: cannot reshape float32[N,3] to (N, 4)",
        ),
        (graph_json(outputs={"out": "ghost"}), CompileError, "output out names ghost, which is no node"),
        (
            graph_json(updates=[{"parameter": "image", "value": "ghost"}]),
            CompileError,
            "there is no node ghost",
        ),
    ],
)
def test_bad_json(text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        from_text(text)
    assert message in str(caught.value)
