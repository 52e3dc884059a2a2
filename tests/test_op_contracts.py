"""What holds for every op in every dtype: types, sums, forms and emitters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from math import sqrt

import pytest
import torch
from aten_harness import lowered, reduction_length
from convloom.codegen import emit
from convloom.codegen.machine.interpreter import interpreting
from convloom.graph import ops
from convloom.graph.errors import CompileError, ShapeError
from convloom.graph.gradients import differentiate
from convloom.graph.ir import Graph
from convloom.graph.op import Kind
from convloom.graph.passes import BACKWARD, run_pipeline
from convloom.graph.types import DTYPES, HALF, TensorType
from convloom.planning.fusion import fuse, leave_unfused
from convloom.planning.regions import Region
from op_cases import CASES, Case

FLOATS = [name for name, dtype in DTYPES.items() if dtype.is_floating_point]
SINGLE = {str(case): case for case in CASES}
every = pytest.mark.parametrize("name", SINGLE)


def in_dtype(case: Case, dtype: str) -> Case:
    return replace(case, dtype=dtype)


def given_to(case: Case, graph: Graph, batch: int = 3) -> list[torch.Tensor]:
    """Operands in the dtypes of their types."""
    values = case.values(graph, batch)
    return [values[name].to(graph[name].type.torch_dtype) for name in graph["y"].inputs]


# -- types ----------
@every
@pytest.mark.parametrize("dtype", FLOATS)
def test_type_is_that_of_the_value_in_every_dtype(name: str, dtype: str) -> None:
    case = in_dtype(SINGLE[name], dtype)
    graph = case.graph()
    node, given = graph["y"], given_to(case, graph)
    value = node.op.reference(*given)
    assert value.dtype == node.type.torch_dtype
    assert node.evaluate(*given).dtype == node.type.torch_dtype
    for region in leave_unfused(graph).kernels:  # none where weights alone are computed with
        assert lowered(region, inference=True)(given)[0].dtype == node.type.torch_dtype


@every
def test_weights_and_statistics_wider_than_the_data(name: str) -> None:
    """What has no batch axis stays float32 where the rest is half: no op's result is widened by it."""
    case = replace(in_dtype(SINGLE[name], "float16"), scale=1.0)
    contraction = isinstance(case.op, ops.Conv2D | ops.Dense)  # they take weights as wide as the data
    if contraction or isinstance(case.op, ops.Cast | ops.BroadcastTo | ops.LookUp):
        return
    same = case.graph()
    graph = Graph("mixed")
    names = []  # type: ignore[var-annotated]
    for node in (same[name] for name in same["y"].inputs):
        narrow = node.type.batched and "transform" not in case.op.operands[len(names) :][:1]
        kind = node.type if narrow or not node.type.is_floating else node.type.with_dtype("float32")
        names.append(graph.add(ops.Input(kind.shape, kind.dtype), name=node.name))
    graph.outputs = {"y": graph.add(case.op, names, "y")}
    node, given = graph["y"], given_to(case, graph)
    shapes = [same[name].type.shape for name in same["y"].inputs if same[name].type.is_floating]
    if same["y"].type.batched and same["y"].type.shape in shapes:
        assert node.type == same["y"].type
    assert node.evaluate(*given).dtype == node.type.torch_dtype
    for region in leave_unfused(graph).kernels:
        (found,) = lowered(region, inference=True)(given)
        assert found.dtype == node.type.torch_dtype
        exact = node.op.reference(*(t.double() if t.is_floating_point() else t for t in given))
        torch.testing.assert_close(found.double(), exact.double(), rtol=2e-2, atol=2e-2)


def test_the_dtype_rule() -> None:
    """The operands of the result's own shape decide; what is spread over them does not."""
    half, wide = (
        lambda *shape, dtype=dtype: TensorType(("N", *shape), dtype) for dtype in ("float16", "float32")
    )
    vector, add = TensorType((3,)), ops.Add()
    assert add.result(half(5, 3), vector) == add.result(vector, half(5, 3)) == half(5, 3)
    assert add.result(half(5, 3), wide(5, 1)) == half(5, 3)
    assert add.result(half(5, 3), wide(5, 3)) == add.result(wide(5, 3), half(5, 3)) == wide(5, 3)
    assert add.result(half(5, 1), wide(1, 3)) == wide(5, 3)
    assert add.result(half(3), TensorType(("N", 3), "bfloat16")) == wide(3)
    assert ops.Normalize().result(half(5, 1), wide(5, 1), wide(5, 1)) == half(5, 1)
    assert ops.Reduce((1,), keepdims=True).result(half(5, 3)) == wide(1, 3)
    assert ops.Reduce((1,), dtype="float16").result(half(5, 3)) == half(3)


# -- sums ----------
REDUCTIONS = {name: case for name, case in SINGLE.items() if case.op.kind is Kind.REDUCTION}
LARGE = {
    name: case
    for name, case in REDUCTIONS.items()
    if not case.probabilities
    and not case.positive
    and any("N" in shape for shape in case.shapes)
    # The result is a product with a gradient from outside; and embeddings have length 1.
    and not isinstance(case.op, ops.RowLossGrad | ops.CircleLoss | ops.CircleLossGrad)
}


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("dtype", HALF)
def test_reductions_of_large_values_are_finite_and_right(name: str, dtype: str) -> None:
    case = replace(in_dtype(LARGE[name], dtype), scale=1e4)
    graph = case.graph()
    (region,) = leave_unfused(graph).regions
    given = given_to(case, graph)
    exact = region.anchor.op.reference(*(t.double() for t in given)).double()
    kernel = emit(region)
    written = torch.empty(exact.shape, dtype=region.anchor.type.torch_dtype)
    with interpreting():
        order = [region.inputs.index(node) for node in kernel.inputs]
        kernel.load(interpreted=True).launch(*(given[i] for i in order), written)
    eps = torch.finfo(region.anchor.type.torch_dtype).eps + sqrt(reduction_length(region)) * 2.0**-22
    fits = exact.abs() < torch.finfo(written.dtype).max
    assert fits.any()
    for found in (region.anchor.op.reference(*given), *lowered(region, inference=True)(given), written):
        error = (found.double() - exact).abs()[fits]
        assert (error <= 2 * eps * exact.abs()[fits].max()).all()


# -- emitters ----------
def graphs_of(case: Case, dtype: str) -> Iterator[Graph]:
    """The op, the op with pointwise work before and after it, and all that with gradients."""
    alone = in_dtype(case, dtype).graph()
    yield alone
    surrounded = Graph("surrounded")
    names = []
    for node in (alone[name] for name in alone["y"].inputs):
        source = surrounded.add(node.op, name=node.name)
        batched = node.type.batched and node.type.is_floating
        names.append(surrounded.add(ops.Scale(0.5), [source]) if batched else source)
    y = surrounded.add(case.op, names, "y")
    if alone["y"].type.is_floating:
        y = surrounded.add(ops.Relu(), [surrounded.add(ops.Square(), [y])])
    surrounded.outputs = {"y": y}
    yield surrounded
    try:
        twin = surrounded.copy()
        derivatives = differentiate(twin, wrt_inputs=True)
        twin.outputs.update({f"d_{name}": node for name, node in derivatives.gradients.items()})
        run_pipeline(twin, BACKWARD)
    except CompileError:
        return  # an op without a gradient, which says so
    yield twin


def regions_of(graph: Graph) -> Iterator[Region]:
    for partition in (leave_unfused(graph), fuse(graph)):
        yield from partition.kernels


@every
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_every_emitter_emits_or_says_why_not(name: str, dtype: str) -> None:
    for graph in graphs_of(SINGLE[name], dtype):
        for region in regions_of(graph):
            with suppress(CompileError):
                assert emit(region).source


@pytest.mark.parametrize("dtype", [name for name in DTYPES if name not in FLOATS])
def test_every_emitter_takes_integers_or_says_why_not(dtype: str) -> None:
    for case in CASES:
        graph = Graph("whole")
        names = []
        for position, shape in enumerate(case.shapes):
            kind = dtype if case.op.takes_whole(position) else "float32"
            names.append(graph.add(ops.Input(shape, kind), name=f"x{position}"))
        try:
            graph.outputs = {"y": graph.add(case.op, names, "y")}
        except ShapeError:
            continue  # an op of truth values alone, or of none, which says so
        for region in regions_of(graph):
            with suppress(CompileError):
                assert emit(region).source
