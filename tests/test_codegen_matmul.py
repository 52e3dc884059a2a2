"""Kernels of products of two activations, interpreted against float64 and compiled ahead of time."""

from __future__ import annotations

from typing import Any

import pytest
from contraction_graphs import check, only_region, run_and_compare
from convloom.codegen.dispatch import emit
from convloom.graph.ir import Graph
from convloom.graph.ops import (
    Add,
    AttentionMask,
    AveragePool2D,
    Input,
    MatMul,
    Multiply,
    Parameter,
    Relu,
    Scale,
    Softmax,
)
from convloom.planning.forms import candidates
from convloom.planning.fusion import fuse
from convloom.planning.schedules import Schedule
from op_cases import BOTH, product

SMALL = Schedule(16, 16, 16)
"""Tiles so small that the test shapes take several on every axis."""

HEADS_WITHIN = MatMul(False, True, True, True, factor=0.25)
"""Scores of attention: queries (N, T, H, K) and keys (N, S, H, K) to (N, H, T, S)."""


def graph_of(
    op: MatMul,
    lead: tuple[int, ...] = (3,),
    sizes: tuple[int, int, int] = (18, 20, 33),
    dtype: str = "float32",
) -> tuple[Graph, str]:
    case = product(op, lead, *sizes)
    graph = Graph()
    operands = [
        graph.add(Input(s, dtype), name=n) for s, n in zip(case.shapes, ("ours", "theirs"), strict=True)
    ]
    return graph, graph.add(op, operands, layer="attention")


@pytest.mark.parametrize("transposed", BOTH, ids=str)
@pytest.mark.parametrize("split", [(False, False, False), (True, True, False), (False, True, True)], ids=str)
def test_every_way_its_operands_may_lie(transposed: tuple[bool, bool], split: tuple[bool, ...]) -> None:
    graph, y = graph_of(MatMul(*transposed, *split))
    check(only_region(graph, y=graph.add(Relu(), [y])), SMALL, batch=2, terms=20)


@pytest.mark.parametrize(
    "sizes", [(1, 1, 1), (1, 17, 3), (65, 3, 1), (3, 65, 17), (16, 16, 16), (17, 32, 16)], ids=str
)
@pytest.mark.parametrize("lead", [(), (2, 3)], ids=str)
def test_sizes_that_fit_tiles_and_sizes_that_do_not(
    sizes: tuple[int, int, int], lead: tuple[int, ...]
) -> None:
    graph, y = graph_of(MatMul(), lead, sizes)
    region = only_region(graph, y=y)
    check(region, SMALL, batch=3, terms=sizes[1])
    check(region, batch=1, terms=sizes[1])


@pytest.mark.parametrize(
    "schedule", [Schedule(32, 16, 32), Schedule(16, 64, 16), Schedule(64, 32, 64)], ids=str
)
def test_other_tiles(schedule: Schedule) -> None:
    graph, y = graph_of(HEADS_WITHIN, sizes=(70, 40, 36))
    check(only_region(graph, y=y), schedule, terms=40)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_16_bits(dtype: str) -> None:
    for op in (HEADS_WITHIN, MatMul(split_b=True, split_y=True)):
        graph, y = graph_of(op, dtype=dtype)
        check(only_region(graph, y=y), SMALL, terms=20)


def test_one_kernel_takes_any_batch() -> None:
    graph, y = graph_of(MatMul(split_y=True))
    kernel = emit(only_region(graph, y=y), schedule=SMALL)
    for batch in (1, 2, 5):
        run_and_compare(kernel, batch, terms=20)


@pytest.mark.parametrize(
    "shape",
    [("N", 3, 18, 33), ("N", 1, 1, 33), ("N", 3, 18, 1), (33,), (1,), (18, 33), (1, 1, 18, 33), (3, 18, 33)],
    ids=str,
)
def test_every_way_of_broadcasting_in_the_epilogue(shape: tuple[Any, ...]) -> None:
    graph, y = graph_of(MatMul())
    other = graph.add(Input(shape) if shape[0] == "N" else Parameter(shape), name="other")
    check(only_region(graph, y=graph.add(Multiply(), [y, other])), SMALL, batch=2, terms=20)


@pytest.mark.parametrize("op", [HEADS_WITHIN, MatMul()], ids=str)
def test_scale_mask_and_softmax_are_part_of_the_kernel(op: MatMul) -> None:
    graph, y = graph_of(op, sizes=(18, 20, 33))
    mask = graph.add(AttentionMask(18, 33), (), "mask")
    y = graph.add(Add(), [graph.add(Scale(0.5), [y]), mask])
    kernel = check(only_region(graph, y=graph.add(Softmax(), [y])), Schedule(16, 64, 16), batch=2, terms=20)
    assert kernel.ops == ["mat_mul", "scale", "add", "softmax"]


def test_what_does_not_fuse_says_why() -> None:
    graph, y = graph_of(MatMul(), sizes=(16, 8, 256))
    long = graph.add(Softmax(), [y])
    before = graph.add(Relu(), [graph.add(Input(("N", 3, 256, 4)), name="late")])
    after = graph.add(MatMul(), [long, before])
    graph.outputs = {"y": graph.add(AveragePool2D((1, 4), (1, 4)), [after])}
    partition = fuse(graph)
    assert len(partition.kernels) == 5
    refused = "\n".join(d.reason for d in partition.decisions if not d.applied)
    assert "a row of 256 does not fit into one tile of 128 columns" in refused
    assert f"{after} reads {before} again for every tile, and would compute it as often" in refused
    assert "mat_mul computes pixels in an order that no window keeps together" in refused


@pytest.mark.parametrize(("target", "unit"), [("sm_80", "mma"), ("sm_90", "wgmma"), ("gfx942", "mfma")])
@pytest.mark.parametrize("op", [HEADS_WITHIN, MatMul(True, False, False, True, True)], ids=str)
def test_default_schedules_compile_without_spills_and_use_matrix_units(
    op: MatMul, target: str, unit: str
) -> None:
    graph, y = graph_of(op, (4,), (50, 32, 50), "float16")
    region = only_region(graph, y=graph.add(Scale(0.5), [y]))
    (found,) = emit(region, target=target).resources(target)
    assert (found.error, found.spills_bytes) == (None, 0)
    # Where its tiles are low, sm_90 multiplies by single warps too.
    units = {unit, "mma"} if unit == "wgmma" else {unit}
    assert units & found.matrix_instructions.keys(), found.matrix_instructions


def test_no_schedule_on_offer_crosses_from_one_product_into_the_next() -> None:
    graph, y = graph_of(HEADS_WITHIN, (2,), (9, 17, 20), "float16")
    region = only_region(graph, y=y)
    offered = candidates(region, "sm_90")
    assert {s.block_m for s in offered} == {16}, "9 rows need no larger tile, however many images there are"
    for schedule in {(s.block_n, s.block_k): s for s in offered}.values():
        check(region, schedule, batch=2, terms=17)
