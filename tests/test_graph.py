"""The graph itself: text, JSON, names, edits, and the specification it is held to."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from convloom.graph import ops
from convloom.graph.errors import CompileError, ModelFormatError, ShapeError
from convloom.graph.gradients import differentiate
from convloom.graph.ir import Graph, Node
from convloom.graph.op import REGISTRY, Cost, Kind, Op, op_from_json, op_to_json, snake_case
from convloom.graph.passes import BACKWARD, TRAINING, run_pipeline
from convloom.graph.passes.precision import with_dtype
from convloom.graph.serial import FORMAT, from_json, to_json
from convloom.graph.types import BATCH, TensorType, accumulated, broadcast
from convloom.graph.verify import NODE_RULES, verify
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
    with_loss,
)
from hypothesis import given, settings

NETWORKS: list[Callable[[], Graph]] = [lenet, residual_block, inception, unet, shared_layer]
networks = pytest.mark.parametrize("make", NETWORKS, ids=lambda make: make.__name__)


def chain() -> Graph:
    """image -> relu "first" -> tanh "second"."""
    b = Builder("chain")
    return b.finish(b.op(ops.Tanh(), b.op(ops.Relu(), b.input(4, 3), name="first"), name="second"))


def training_step(graph: Graph) -> Graph:
    graph = with_loss(graph)
    run_pipeline(graph, TRAINING)
    gradients = differentiate(graph, ["loss"]).gradients
    graph.outputs.update({f"gradient of {name}": node for name, node in gradients.items()})
    run_pipeline(graph, BACKWARD)
    return graph


# -- text ----------
def test_text() -> None:
    b = Builder("tiny")
    x = b.input(4, 6, 1)
    x = b.conv(x, 2, strides=(2, 1), name="c")
    graph = b.finish(b.op(ops.Relu(), x))
    graph.updates = {"c/bias": ("relu", 0.9)}
    assert str(graph) == (
        "graph tiny {\n"
        "  %image = input() {shape=(N,4,6,1), dtype=float32} : float32[N,4,6,1]\n"
        "  %c/kernel = parameter() {shape=(3,3,1,2), dtype=float32, trainable=True} : float32[3,3,1,2]\n"
        "  %c/bias = parameter() {shape=(2), dtype=float32, trainable=True} : float32[2]\n"
        "  %c = conv2d(%image, %c/kernel, %c/bias) "
        "{strides=(2,1), padding=((0,1),(1,1)), dilation=(1,1), groups=1} : float32[N,2,6,2]  // c\n"
        "  %relu = relu(%c) : float32[N,2,6,2]\n"
        "  return out=%relu\n"
        "  update %c/bias <- 0.9 * %c/bias + 0.1 * %relu\n"
        "}"
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Conv2D", "conv2d"),
        ("Conv2DDataGrad", "conv2d_data_grad"),
        ("GlobalAveragePooling2D", "global_average_pooling2d"),
        ("ReLU", "re_lu"),
        ("MaxPoolIndex2D", "max_pool_index2d"),
        ("BatchNorm", "batch_norm"),
    ],
)
def test_snake_case(name: str, expected: str) -> None:
    assert snake_case(name) == expected


# -- JSON ----------
@networks
def test_json_round_trip(make: Callable[[], Graph]) -> None:
    graph = make()
    twin = from_json(to_json(graph))
    assert str(twin) == str(graph)
    assert to_json(twin) == to_json(graph)
    given = values(graph)
    assert_same(outputs(twin, given), outputs(graph, given))


@pytest.mark.parametrize("batch_norm", [False, True])
def test_json_round_trip_of_a_differentiated_graph(batch_norm: bool) -> None:
    graph = training_step(lenet(batch_norm=batch_norm))
    assert bool(graph.updates) == batch_norm
    twin = from_json(to_json(graph))
    assert str(twin) == str(graph)
    assert [node.phase for node in twin.nodes()] == [node.phase for node in graph.nodes()]
    assert twin.updates == graph.updates


@settings(max_examples=30, deadline=None, derandomize=True)
@given(random_networks())
def test_json_round_trip_of_random_networks(graph: Graph) -> None:
    backward, _ = differentiated(graph)
    assert str(from_json(to_json(backward))) == str(backward)


def test_json_is_one_node_a_line() -> None:
    graph = lenet()
    lines = to_json(graph).splitlines()
    assert len(lines) == len(graph) + 2
    assert json.loads(lines[1].rstrip(","))["name"] == "image"


def test_every_op_s_attributes_survive_json() -> None:
    op: Op = ops.LossGrad(ops.BinaryCrossEntropy(True))
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
        "updates": {},
    }
    return json.dumps({**data, **changes})


def test_the_json_below_is_wrong_by_its_fault_alone() -> None:
    assert len(from_json(graph_json(node_json()))) == 2


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("{", ModelFormatError, "graph JSON does not parse: "),
        ("[]", ModelFormatError, "'format' should be 'convloom-graph-1'"),
        (graph_json(format="keras"), ModelFormatError, "'format' should be 'convloom-graph-1'"),
        (graph_json(nodes=None), ModelFormatError, "graph JSON is malformed"),
        (graph_json(nodes=[7]), ModelFormatError, "graph JSON is malformed"),
        (graph_json(outputs=["y"]), ModelFormatError, "graph JSON is malformed"),
        (graph_json(updates={"image": 3}), ModelFormatError, "graph JSON is malformed"),
        (graph_json(updates={"image": ["image", "much"]}), ModelFormatError, "graph JSON is malformed"),
        (
            graph_json({"name": "y", "op": "relu"}),
            ModelFormatError,
            "graph JSON is malformed: KeyError('inputs')",
        ),
        (graph_json(node_json(op="teleport")), ModelFormatError, "unknown op 'teleport' in graph JSON"),
        (graph_json(node_json(op=["relu"])), ModelFormatError, "unknown op ['relu'] in graph JSON"),
        (graph_json(node_json(op="activation")), ModelFormatError, "malformed"),
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
            graph_json(updates={"image": ["ghost", 0.5]}),
            CompileError,
            "update of image from ghost: no such node",
        ),
    ],
)
def test_bad_json(text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        from_json(text)
    assert message in str(caught.value)


# -- names and edits ----------
def test_names_are_made_unique() -> None:
    graph = Graph()
    x = graph.add(ops.Input((BATCH, 3)), name="x")
    assert [graph.add(ops.Relu(), [x]) for _ in range(3)] == ["relu", "relu_1", "relu_2"]
    graph.add(ops.Relu(), [x], "tanh_1")
    assert [graph.add(ops.Tanh(), [x]) for _ in range(3)] == ["tanh", "tanh_2", "tanh_3"]
    twin = graph.copy()
    assert twin.add(ops.Relu(), [x]) == "relu_3"
    assert graph.add(ops.Relu(), [x]) == "relu_3"  # the copy counts for itself
    verify(graph)


def test_rename_moves_readers_outputs_and_updates() -> None:
    graph = chain()
    graph.outputs["again"] = "first"
    graph.updates = {"image": ("first", 0.5)}
    given = values(graph)
    before = outputs(graph, given)
    graph.rename("first", "other")
    verify(graph)
    assert "first" not in graph
    assert graph["second"].inputs == ("other",)
    assert graph.outputs == {"out": "second", "again": "other"}
    assert graph.updates == {"image": ("other", 0.5)}
    assert_same(outputs(graph, given), before)


def test_replace_uses() -> None:
    b = Builder()
    x = b.input(4)
    one = b.op(ops.Relu(), x, name="one")
    twice = b.op(ops.Add(), one, one, name="twice")
    graph = b.finish(twice, one)
    two = b.op(ops.Tanh(), one, name="two")
    graph.replace_uses("one", two)
    verify(graph)
    assert graph["two"].inputs == ("one",)  # the new value may read the old one
    assert graph["twice"].inputs == ("two", "two")
    assert graph.outputs == {"out": "twice", "out1": "two"}
    assert [reader.name for reader in graph.readers("two")] == ["twice"]


def test_update_node_infers_anew() -> None:
    graph = chain()
    graph.update_node("first", op=ops.Reshape((3, 4)))
    assert graph["first"].type.shape == (BATCH, 3, 4)
    with pytest.raises(CompileError, match="second breaks the rule 'the type is the one the op infers'"):
        verify(graph)
    with pytest.raises(ShapeError, match=r"^first: cannot reshape"):
        graph.update_node("first", op=ops.Reshape((3, 5)))


def test_add_refuses_an_operand_that_is_not_there() -> None:
    with pytest.raises(ShapeError, match=r"^relu: operand 'ghost' is not in the graph$"):
        Graph().add(ops.Relu(), ["ghost"])


def test_a_copy_is_its_own() -> None:
    graph = lenet()
    before = str(graph)
    twin = graph.copy()
    twin.rename("conv1", "changed")
    twin.update_node("pool1", op=ops.AveragePool2D())
    twin.outputs["more"] = "pool1"
    twin.updates["conv1/bias"] = ("pool1", 0.1)
    assert str(graph) == before
    assert str(twin) != before


@networks
def test_nodes_come_operands_first(make: Callable[[], Graph]) -> None:
    graph = differentiated(make())[0]
    seen: set[str] = set()
    for node in graph.nodes():
        assert seen.issuperset(node.inputs)
        seen.add(node.name)
    assert len(seen) == len(graph)


def test_parameter_only() -> None:
    b = Builder()
    x, w = b.input(3), b.weight(3, name="w")
    c = b.op(ops.Constant((3,), 2.0), name="c")
    double = b.op(ops.Multiply(), w, c, name="double")
    graph = b.finish(b.op(ops.Add(), x, double, name="sum"))
    assert graph.parameter_only() == {"w", "c", "double"}


def test_an_input_without_a_batch_is_no_parameter() -> None:
    """The gradient of a loss is such an input: what is computed from it changes with every call."""
    b = Builder()
    loss = b.op(
        ops.Scale(0.5), b.op(ops.MeanSquaredError(), b.dense(b.input(3), 2), b.input(2, name="target"))
    )
    graph, derivatives = differentiated(b.finish(loss), wrt_inputs=False)
    seed = derivatives.seeds["out"]
    assert graph[seed].type.shape == ()
    assert graph.parameter_only() == {node.name for node in graph.sources(ops.Parameter)}


def test_outputs_and_updates_leave_the_graph() -> None:
    graph = chain()
    assert [name for name in ("image", "first", "second") if graph.is_output(name)] == ["second"]
    graph.updates = {"image": ("first", 0.5)}
    assert graph.is_output("first")


# -- the specification ----------
def broken_name() -> Graph:
    graph = chain()
    graph.dag.add_node("alias", node=graph["second"])
    return graph


def broken_operand() -> Graph:
    graph = chain()
    graph._insert(Node("lost", ops.Relu(), ("ghost",), graph["first"].type))
    return graph


def broken_edges() -> Graph:
    graph = chain()
    graph.dag.remove_edge("first", "second")
    return graph


def broken_arity() -> Graph:
    graph = chain()
    graph._insert(Node("pair", ops.Relu(), ("first", "second"), graph["first"].type))
    return graph


def broken_type() -> Graph:
    graph = chain()
    graph._insert(Node("wide", ops.Relu(), ("first",), TensorType((BATCH, 4, 4))))
    return graph


def broken_phase() -> Graph:
    graph = chain()
    graph.add(ops.Relu(), ["second"], "behind", phase="backward")
    graph.add(ops.Relu(), ["behind"], "ahead")
    return graph


@dataclass(frozen=True)
class _GreedySource(ops.Input):
    """A source that claims an operand. Its name starts with "_", so it is not registered."""

    operands: ClassVar[tuple[str, ...]] = ("x",)


def broken_source() -> Graph:
    graph = chain()
    graph._insert(Node("spring", _GreedySource((BATCH, 4)), ("first",), TensorType((BATCH, 4))))
    return graph


BROKEN: dict[str, tuple[Callable[[], Graph], str]] = {
    "a node is stored once, under its name": (
        broken_name,
        "node second breaks the rule 'a node is stored once, under its name': "
        "expected one entry under its name second, found ['second', 'alias']",
    ),
    "every operand is a node": (
        broken_operand,
        "node lost breaks the rule 'every operand is a node': "
        "expected operands that are nodes of the graph, found dangling operand ghost",
    ),
    "edges mirror the operand list": (
        broken_edges,
        "node second breaks the rule 'edges mirror the operand list': "
        "expected edges from [(0, 'first')], found []",
    ),
    "the number of operands is the op's": (
        broken_arity,
        "node pair breaks the rule 'the number of operands is the op's': "
        "expected operands (x), found 2 operands",
    ),
    "the type is the one the op infers": (
        broken_type,
        "node wide breaks the rule 'the type is the one the op infers': "
        "expected type float32[N,4,3], found float32[N,4,4]",
    ),
    "the forward pass never reads the backward pass": (
        broken_phase,
        "node ahead breaks the rule 'the forward pass never reads the backward pass': "
        "expected forward nodes that read forward nodes, found behind of the backward pass",
    ),
    "sources read nothing": (
        broken_source,
        "node spring breaks the rule 'sources read nothing': "
        "expected a source without operands, found ('first',)",
    ),
}


@pytest.mark.parametrize("rule", [*NODE_RULES])
def test_a_broken_graph_breaks_its_rule(rule: str) -> None:
    make, message = BROKEN[rule]
    with pytest.raises(CompileError) as caught:
        verify(make(), "a pass")
    assert str(caught.value) == f"graph chain after a pass: {message}"


def test_whole_graph_rules() -> None:
    graph = chain()
    verify(graph)
    graph.dag.add_edge("second", "first", key=1)
    with pytest.raises(
        CompileError, match=r"^graph chain: rule 'the graph has no cycle' is broken by (first|second)"
    ):
        verify(graph)
    graph = chain()
    graph.dag.add_node("empty")
    with pytest.raises(CompileError, match="node empty has no definition"):
        verify(graph)
    graph = chain()
    graph._insert(Node("odd", ops.Relu(), ("first",), graph["first"].type, phase="sideways"))
    with pytest.raises(CompileError, match="expected phase forward or backward, found sideways"):
        verify(graph)


@networks
def test_networks_and_their_gradients_keep_the_specification(make: Callable[[], Graph]) -> None:
    graph, derivatives = differentiated(make())
    verify(graph)
    assert derivatives.seeds.keys() == make().outputs.keys()


# -- types ----------
def test_types() -> None:
    image = TensorType((BATCH, 4, 3, 2), "float16")
    assert image.size(5) == (5, 4, 3, 2)
    assert (image.elements(5), image.nbytes(5), image.channels, image.rank) == (120, 240, 2, 4)
    assert image.accumulated().dtype == "float32"
    assert image.with_dtype("float64").accumulated().dtype == "float64"
    assert not image.with_dtype("int32").is_floating
    assert broadcast(image, TensorType((3, 1)), "here") == image.with_shape((BATCH, 4, 3, 2))
    with pytest.raises(ShapeError, match="has no channel axis"):
        _ = TensorType((BATCH,)).channels
    for bad in (True, -1, "M", 2.5):
        with pytest.raises(ShapeError, match="axes are 'N' or integers >= 0"):
            TensorType((BATCH, bad))  # type: ignore[arg-type]
    half, double = accumulated(torch.ones(1, dtype=torch.float16), torch.ones(1, dtype=torch.float64))
    assert (half.dtype, double.dtype) == (torch.float32, torch.float64)


def test_costs_add() -> None:
    total = Cost(10, 3, 2) + Cost(5, 1, 4)
    assert (total.flops, total.bytes_read, total.bytes_written, total.bytes, total.intensity) == (
        15,
        4,
        6,
        10,
        1.5,
    )
    assert Cost(1, 0, 0).intensity == 0


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
def test_with_dtype(dtype: str) -> None:
    graph = lenet(batch_norm=True)
    twin = with_dtype(graph, dtype)
    verify(twin)
    assert twin[twin.outputs["out"]].type.dtype == dtype
    weights = {node.type.dtype for node in twin.sources(ops.Parameter)}
    assert weights == ({"float64"} if dtype == "float64" else {"float32"})
    casts = [node for node in twin.nodes() if isinstance(node.op, ops.Cast)]
    assert len(casts) == (0 if dtype == "float64" else 5)  # one for each kernel of a contraction
    expected = {node.name: node.type.shape for node in graph.nodes()}
    assert {node.name: node.type.shape for node in twin.nodes() if node not in casts} == expected


def test_a_value_read_twice_by_one_node_gets_both_gradients() -> None:
    b = Builder()
    x = b.input(5)
    graph, derivatives = differentiated(b.finish(b.op(ops.Multiply(), x, x)))
    given = {**values(graph, 3), "d_out": torch.ones(3, 5, dtype=torch.float64)}
    found = all_values(graph, given)[derivatives.gradients[x]]
    assert torch.equal(found, 2 * given[x])


def test_an_unregistered_op_stays_out_of_the_registry() -> None:
    assert _GreedySource.op_name() not in REGISTRY
    assert _GreedySource.kind is Kind.SOURCE
