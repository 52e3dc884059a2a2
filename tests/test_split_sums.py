"""Products whose sums are cut into parts: right values in every form, and the same bits on every run."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from contraction_graphs import check, convolution, data_gradient, only_region, random_value
from convloom.codegen import NotEmittable, emit
from convloom.codegen.forms.split_sums import ADD_PARTS, WRITTEN_OUT
from convloom.graph.ir import Graph
from convloom.graph.ops import (
    Add,
    Conv2D,
    Input,
    MatMul,
    MaxPool2D,
    MaxPoolIndex2D,
    Multiply,
    Parameter,
    Relu,
    Softmax,
)
from convloom.planning.regions import Region
from convloom.planning.schedules import Schedule

BORDER = ((1, 1), (1, 1))
TILE = partial(Schedule, 16, 16, 16, group_m=2)


def with_residual(dtype: str) -> Region:
    graph, y = convolution((7, 5), 17, 33, (3, 3), (1, 1), BORDER, dtype=dtype)
    other = graph.add(Input(("N", 7, 5, 33), dtype), name="other")
    return only_region(graph, y=graph.add(Relu(), [graph.add(Add(), [y, other])]))


def pooled(dtype: str) -> Region:
    """Windows that reach over the border, with the place of each maximum."""
    graph, y = convolution((7, 6), 17, 20, (3, 3), (1, 1), BORDER, dtype=dtype)
    pool = ((2, 2), (2, 2), ((1, 0), (0, 0)))
    top, place = (graph.add(op(*pool), [y]) for op in (MaxPool2D, MaxPoolIndex2D))
    return only_region(graph, y=top, place=place)


def flattened(dtype: str) -> Region:
    graph, y = convolution((9, 5), 3, 5, (5, 5), (2, 2), BORDER, dtype=dtype)
    return only_region(graph, y=y)


def pointwise(dtype: str, groups: int = 1) -> Region:
    graph, y = convolution((7, 5), 66, 34, (1, 1), groups=groups, dtype=dtype)
    return only_region(graph, y=graph.add(Relu(), [y]))


def with_prologue(dtype: str) -> Region:
    graph = Graph()
    x = graph.add(Input(("N", 5, 3, 33), dtype), name="image")
    scale = graph.add(Parameter((33,), dtype), name="scale")
    w = graph.add(Parameter((1, 1, 33, 17), dtype), name="kernel")
    h = graph.add(Relu(), [graph.add(Multiply(), [x, scale])])
    y = graph.add(Conv2D(), [h, w], layer="conv")
    graph.outputs = {"y": y}
    return Region(graph, graph[y], [node for node in graph.nodes() if node.inputs], "with_prologue")


def backward(dtype: str, stride: int = 1) -> Region:
    graph, y = data_gradient((7, 5), 17, 33, (3, 3), (stride, stride), BORDER, dtype=dtype)
    return only_region(graph, y=y)


def attention(dtype: str) -> Region:
    graph = Graph()
    a = graph.add(Input(("N", 2, 9, 50), dtype), name="a")
    b = graph.add(Input(("N", 2, 21, 50), dtype), name="b")
    y = graph.add(MatMul(transpose_b=True, factor=0.25), [a, b])
    return only_region(graph, y=graph.add(Softmax(), [y]))


REGIONS = {
    "residual": (with_residual, 9 * 17),
    "pooled": (pooled, 9 * 17),
    "flattened": (flattened, 75),
    "1x1": (pointwise, 66),
    "groups": (partial(pointwise, groups=2), 33),
    "prologue": (with_prologue, 33),
    "data gradient": (backward, 9 * 33),
    "strided data gradient": (partial(backward, stride=2), 9 * 33),
}


@pytest.mark.parametrize("name", REGIONS)
@pytest.mark.parametrize(("dtype", "splits"), [("float32", 2), ("bfloat16", 3), ("float16", 2)])
def test_sums_in_parts_are_right(name: str, dtype: str, splits: int) -> None:
    make, terms = REGIONS[name]
    kernel = check(make(dtype), TILE(splits=splits), terms=terms, batch=3)
    assert kernel.launches == 2
    assert f"SPLITS = {splits} " in kernel.source


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_product_of_activations_is_right_in_parts(dtype: str) -> None:
    kernel = emit(attention(dtype), schedule=Schedule(16, 32, 16, splits=4))
    module = kernel.load(interpreted=True)
    inputs, outputs = module.example(3), module.results(3)
    module.launch(*inputs, *outputs)
    wanted = module.reference(*inputs)[0]
    assert float((outputs[0].double() - wanted).abs().max()) <= module.TOLERANCE * float(wanted.max())


def test_many_parts_are_added_in_a_loop() -> None:
    kernel = check(backward("float32"), TILE(splits=WRITTEN_OUT + 2), terms=9 * 33)
    assert "for split in range(SPLITS):" in kernel.source
    assert (
        "for split in tl.static_range(SPLITS):"
        in check(backward("float32"), TILE(splits=2), terms=297).source
    )


def test_parts_are_added_in_one_order() -> None:
    region = with_residual("float32")
    kernel = emit(region, schedule=TILE(splits=5))
    module = kernel.load(interpreted=True)
    generator = torch.Generator().manual_seed(3)
    inputs = [
        random_value(node.type, 2, generator) + torch.rand(1, generator=generator) for node in kernel.inputs
    ]
    found = []
    for _ in range(2):
        outputs = module.results(2)
        module.launch(*inputs, *outputs)
        found.append(outputs[0])
    assert torch.equal(*found)


def test_the_second_kernel_reads_what_follows_the_product_and_no_more() -> None:
    kernel = emit(with_residual("float32"), schedule=TILE(splits=2))
    product, finish = kernel.specializations
    assert [name for name in product[1] if name.endswith("_ptr")] == ["x_ptr", "w_ptr", "parts_ptr"]
    assert finish[0].startswith(ADD_PARTS)
    taken = [name for name in finish[1] if name.endswith("_ptr")]
    assert taken == ["parts_ptr", "bias_ptr", "residual_ptr", "y_ptr"]


def test_parts_that_there_are_no_steps_for_are_refused() -> None:
    with pytest.raises(NotEmittable, match="sums of 5 steps cannot be cut into 6 parts"):
        emit(pointwise("float32"), schedule=TILE(splits=6))
    graph, y = data_gradient((7, 5), 34, 34, (3, 3), (2, 2), BORDER, groups=2)
    with pytest.raises(NotEmittable, match="no axis of programs left to split sums"):
        emit(only_region(graph, y=y), schedule=TILE(splits=2))
