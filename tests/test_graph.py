"""The graph itself: text, names, edits, types."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from convloom.graph import ops
from convloom.graph.errors import CompileError, ShapeError
from convloom.graph.ir import Graph
from convloom.graph.leaving import Update
from convloom.graph.op import Cost, snake_case
from convloom.graph.passes.precision import with_dtype
from convloom.graph.types import BATCH, TensorType, accumulated, broadcast
from convloom.graph.verify import verify
from graphs import (
    NETWORKS,
    Builder,
    all_values,
    assert_same,
    chain,
    differentiated,
    lenet,
    outputs,
    values,
)

networks = pytest.mark.parametrize("make", NETWORKS, ids=lambda make: make.__name__)


# -- text ----------
def test_text() -> None:
    b = Builder("tiny")
    x = b.input(4, 6, 1)
    x = b.conv(x, 2, strides=(2, 1), name="c")
    graph = b.finish(b.op(ops.Relu(), x))
    graph.updates = [Update("c/bias", "relu")]
    assert str(graph) == (
        "graph tiny {\n"
        "  %image = input() {shape=(N,4,6,1), dtype=float32} : float32[N,4,6,1]\n"
        "  %c/kernel = parameter() {shape=(3,3,1,2), dtype=float32, trainable=True} : float32[3,3,1,2]\n"
        "  %c/bias = parameter() {shape=(2), dtype=float32, trainable=True} : float32[2]\n"
        "  %c = conv2d(%image, %c/kernel, %c/bias) "
        "{strides=(2,1), padding=((0,1),(1,1)), dilation=(1,1), groups=1} : float32[N,2,6,2]  // c\n"
        "  %relu = relu(%c) : float32[N,2,6,2]\n"
        "  return out=%relu\n"
        "  update %c/bias <- %relu\n"
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
    graph.add(ops.Parameter((3,)), name="p")
    graph.updates = [Update("p", graph.add(ops.Scale(2.0), ["p"], "twice"))]
    given = values(graph)
    before = outputs(graph, given)
    graph.rename("first", "other")
    graph.rename("twice", "doubled")
    verify(graph)
    assert "first" not in graph
    assert graph["second"].inputs == ("other",)
    assert graph.outputs == {"out": "second", "again": "other"}
    assert graph.updates == [Update("p", "doubled")]
    assert_same(outputs(graph, given), before)
    graph.rename("p", "q")
    assert graph.updates == [Update("q", "doubled")]


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
    twin.outputs["more"] = "pool1"
    twin.updates.append(Update("conv1/bias", "pool1"))
    twin.update_node("pool1", op=ops.AveragePool2D())
    twin.rename("conv1", "changed")
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
    error = b.op(ops.Subtract(), b.dense(b.input(3), 2), b.input(2, name="target"))
    loss = b.op(ops.Reduce((0, 1), mean=True), b.op(ops.Square(), error))
    graph, derivatives = differentiated(b.finish(loss), wrt_inputs=False)
    seed = derivatives.seeds["out"]
    assert graph[seed].type.shape == ()
    assert graph.parameter_only() == {node.name for node in graph.sources(ops.Parameter)}


def test_outputs_and_updates_leave_the_graph() -> None:
    graph = chain()
    assert [name for name in ("image", "first", "second") if graph.is_output(name)] == ["second"]
    graph.updates = [Update("image", "first")]
    assert graph.is_output("first")


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
