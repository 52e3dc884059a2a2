"""Convolutions of few channels a group by direct sums, in Triton's interpreter against float64."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import pytest
import torch
from contraction_graphs import check, convolution, data_gradient, identity, only_region, weight_gradient
from convloom.codegen import NotEmittable, emit
from convloom.graph import ops
from convloom.planning.cost import CostModel
from convloom.planning.depthwise import sliding
from convloom.planning.forms import choose, forms_taking
from convloom.planning.forms.depthwise import DIRECT, MOST_PARTS
from convloom.planning.fusion import fuse
from convloom.planning.regions import Region
from convloom.planning.schedules import Schedule
from graphs import Builder

SAME3 = ((1, 1), (1, 1))

# size, channels in and out, kernel, strides, padding, dilation, groups
SHAPES: list[tuple[Any, ...]] = [
    ((7, 5), 17, 17, (3, 3), (1, 1), SAME3, (1, 1), 17),
    ((8, 10), 8, 8, (3, 3), (2, 2), ((0, 1), (0, 1)), (1, 1), 8),
    ((9, 6), 3, 3, (5, 4), (1, 2), ((2, 2), (1, 0)), (1, 1), 3),
    ((7, 9), 5, 15, (3, 3), (2, 1), SAME3, (1, 1), 5),
    ((6, 7), 12, 8, (3, 2), (1, 1), SAME3, (1, 1), 4),
    ((11, 8), 4, 4, (3, 3), (1, 1), ((2, 3), (4, 1)), (2, 3), 4),
    ((10, 11), 4, 4, (3, 3), (2, 2), ((2, 2), (2, 2)), (2, 2), 4),
    ((13, 12), 3, 6, (2, 3), (4, 2), ((3, 0), (2, 2)), (6, 4), 3),
    ((9, 9), 2, 2, (2, 1), (3, 3), ((0, 0), (1, 1)), (1, 1), 2),
    ((1, 19), 6, 6, (1, 4), (1, 1), ((0, 0), (3, 0)), (1, 1), 6),
    ((1, 14), 6, 6, (1, 3), (1, 3), ((0, 0), (2, 2)), (1, 2), 6),
    ((17, 1), 5, 5, (7, 1), (1, 1), ((3, 3), (0, 0)), (1, 1), 5),
    ((3, 4), 1, 1, (3, 3), (1, 1), SAME3, (1, 1), 1),
    ((4, 3), 9, 9, (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1), 9),
]
WEIGHTS = "direct weight gradient"
MAKERS = {"direct convolution": convolution, "direct data gradient": data_gradient}


def terms_of(shape: tuple[Any, ...]) -> int:
    return int(prod(shape[3]) * max(shape[1], shape[2]) // shape[-1])


def region_of(form: str, shape: tuple[Any, ...], dtype: str = "float32") -> Region:
    graph, y = MAKERS[form](*shape, dtype=dtype)
    return only_region(graph, y=graph.add(ops.Relu(), [y]))


def small(region: Region, strip: int, walk: int) -> Schedule:
    """A schedule of few lanes, so that the test shapes take several programs; strip: in steps."""
    return Schedule(1, 16, warps=1, strip=strip * sliding(region).across.finished, walk=walk)


# -- values --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("form", MAKERS)
@pytest.mark.parametrize("shape", SHAPES, ids=identity)
def test_direct(form: str, shape: tuple[Any, ...]) -> None:
    region = region_of(form, shape)
    for batch, strip, walk in ((3, 1, 2), (2, 2, 5)):
        check(region, small(region, strip, walk), batch=batch, terms=terms_of(shape), form=form)


@pytest.mark.parametrize("form", MAKERS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[1], SHAPES[4], SHAPES[6]], ids=identity)
def test_in_16_bits(form: str, shape: tuple[Any, ...], dtype: str) -> None:
    region = region_of(form, shape, dtype)
    check(region, small(region, 2, 3), terms=terms_of(shape), form=form)


@pytest.mark.parametrize("form", MAKERS)
@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[1]], ids=identity)
def test_every_schedule_on_offer(form: str, shape: tuple[Any, ...]) -> None:
    region = region_of(form, shape)
    (direct,) = (each for each in DIRECT if each.name == form)
    for schedule in direct.candidates(region, CostModel.of())[::12]:
        check(region, schedule, batch=2, terms=terms_of(shape), form=form)


def test_a_way_down_of_all_rows_leaves_the_border_out() -> None:
    region = region_of("direct convolution", ((6, 5), 4, 4, (5, 3), (1, 1), ((2, 2), (1, 1)), (1, 1), 4))
    kernel = check(region, small(region, 2, 6), terms=15, form="direct convolution")
    assert "for step in range(STEPS + 2):" in kernel.source  # not 4: two rows above the map are not read


@pytest.mark.parametrize("shape", [("N", 1, 1, 20), ("N", 5, 4, 1), (1,), ("N", 5, 4, 20), (5, 4, 20), (20,)])
def test_every_way_of_broadcasting_after_it(shape: tuple[Any, ...]) -> None:
    graph, y = convolution((5, 4), 20, 20, (3, 3), (1, 1), SAME3, (1, 1), 20)
    made = ops.Input(shape) if shape[0] == "N" else ops.Parameter(shape)
    region = only_region(graph, y=graph.add(ops.Multiply(), [y, graph.add(made, name="other")]))
    check(region, small(region, 3, 2), batch=3, terms=9, form="direct convolution")


def test_batch_norm_residual_and_a_value_kept_for_the_backward_pass() -> None:
    graph, conv = convolution((5, 4), 20, 20, (3, 3), (1, 1), SAME3, (1, 1), 20)
    vectors = [graph.add(ops.Parameter((20,)), name=n) for n in ("gamma", "beta", "mean", "variance_root")]
    residual = graph.add(ops.Input(("N", 5, 4, 20)), name="shortcut")
    y = graph.add(ops.Add(), [graph.add(ops.BatchNorm(4.0), [conv, *vectors]), residual])
    graph.outputs = {"y": y, "kept": graph.add(ops.Scale(2.0), [conv], phase="backward")}
    region = next(region for region in fuse(graph).kernels if region.anchor.name == conv)
    kernel = check(region, small(region, 2, 2), batch=3, terms=9, form="direct convolution")
    assert [node.name for node in kernel.outputs] == [conv, y]


@pytest.mark.parametrize("groups", [20, 10])
def test_what_stands_before_it(groups: int) -> None:
    b = Builder()
    x = b.input(5, 4, 20, name="x")
    if groups == 20:
        x = b.op(ops.Multiply(), x, b.weight(20, name="scale"), name="scaled")
    b.conv(b.op(ops.Sigmoid(), x, name="moved"), 20, (3, 3), groups=groups, name="conv")
    graph = b.finish("conv")
    members = [node for node in graph.nodes() if node.name in ("scaled", "moved", "conv")]
    region = Region(graph, graph["conv"], members, "region")
    check(region, small(region, 2, 2), batch=2, terms=18, form="direct convolution")


def test_what_stands_before_it_and_what_follows_read_one_operand() -> None:
    b = Builder()
    x = b.input(5, 4, 20, name="x")
    conv = b.conv(b.op(ops.Relu(), x, name="moved"), 20, (3, 3), groups=20, name="conv")
    b.op(ops.Add(), conv, x, name="y")
    graph = b.finish("y")
    members = [node for node in graph.nodes() if node.name in ("moved", "conv", "y")]
    region = Region(graph, graph["conv"], members, "region")
    check(region, small(region, 2, 2), batch=2, terms=9, form="direct convolution")


# -- weight gradients ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("shape", SHAPES, ids=identity)
def test_weight_gradient(shape: tuple[Any, ...]) -> None:
    region = weight_gradient(*shape)
    pieces = Schedule(1, 4, 4, warps=1, chunk=4, programs=9, strip=2, walk=3)
    for batch, schedule in ((3, pieces), (2, replace(pieces, block_n=16, strip=3, walk=2, programs=1))):
        check(region, schedule, batch=batch, terms=3 * prod(shape[0]), form=WEIGHTS)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[1], SHAPES[3], SHAPES[4]], ids=identity)
def test_weight_gradient_in_16_bits(shape: tuple[Any, ...], dtype: str) -> None:
    pieces = Schedule(1, 16, 2, warps=1, chunk=4, programs=30, strip=2, walk=2)
    check(weight_gradient(*shape, dtype=dtype), pieces, terms=3 * prod(shape[0]), form=WEIGHTS)


@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[1]], ids=identity)
def test_every_schedule_of_a_weight_gradient(shape: tuple[Any, ...]) -> None:
    region = weight_gradient(*shape, bias=False)
    (direct,) = (each for each in DIRECT if each.name == WEIGHTS)
    for schedule in direct.candidates(region, CostModel.of())[::25]:
        check(region, schedule, batch=2, terms=3 * prod(shape[0]), form=WEIGHTS)


def test_what_no_tap_reads_may_be_no_number() -> None:
    """Pieces reach beyond the map of dy, and with them taps over the last row and column of x."""
    region = weight_gradient((6, 6), 4, 4, (3, 3), (2, 2), ((0, 0), (0, 0)), (1, 1), 4)
    schedule = Schedule(1, 4, 2, warps=1, strip=3, walk=3, chunk=2, programs=1)
    kernel = emit(region, form=WEIGHTS, schedule=schedule)
    module = kernel.load(interpreted=True)
    x, dy = module.example(2)
    x[:, 5], x[:, :, 5] = float("inf"), float("nan")
    results = module.results(2)
    module.launch(x, dy, *results)
    for found, wanted in zip(results, module.reference(x, dy), strict=True):
        assert wanted.isfinite().all()
        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)


def test_parts_are_added_in_one_order() -> None:
    region = weight_gradient(*SHAPES[0])
    kernel = emit(region, schedule=Schedule(1, 4, 2, warps=1, chunk=2, programs=12, strip=2, walk=2))
    assert list(kernel.functions)[1].startswith("add_parts")
    module = kernel.load(interpreted=True)
    given = module.example(2)
    first, second = module.results(2), module.results(2)
    for results in (first, second):
        module.launch(*given, *results)
    assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))


# -- the choice ----------------------------------------------------------------------------------------------
def test_depthwise_is_direct_and_wide_groups_are_products() -> None:
    def chosen(channels: int, groups: int) -> str:
        graph, y = convolution((14, 14), channels, channels, (3, 3), (1, 1), SAME3, (1, 1), groups)
        return choose(only_region(graph, y=y), batch=32)[0].name

    assert chosen(64, 64) == chosen(128, 32) == "direct convolution"
    assert chosen(256, 2) == chosen(64, 1) == "convolution"


def test_a_product_s_schedule_takes_the_product() -> None:
    region = region_of("direct convolution", SHAPES[0])
    assert [form.name for form in forms_taking(region)] == ["direct convolution", "convolution"]
    assert choose(region, schedule=Schedule(16, 16, 16))[0].name == "convolution"


def test_a_schedule_that_does_not_fit() -> None:
    region = region_of("direct data gradient", SHAPES[1])
    wrong = replace(small(region, 1, 1), strip=3)
    with pytest.raises(NotEmittable, match="a strip that is a multiple of 2; found 1, 1 and 3"):
        emit(region, schedule=wrong, form="direct data gradient")


def test_no_schedule_cuts_a_long_sequence_into_more_parts_than_a_grid_has() -> None:
    graph, y = convolution((1, 100_000), 4, 4, (1, 3), (1, 1), ((0, 0), (0, 0)), (1, 1), 4)
    region = only_region(graph, y=y)
    form = next(form for form in DIRECT if form.accepts(region) is None)
    offered = form.candidates(region, CostModel.of())
    assert max(sliding(region).walks(schedule) for schedule in offered) <= MOST_PARTS


def test_what_only_a_slower_form_would_compute_stays_apart() -> None:
    b = Builder()
    b.op(ops.MaxPool2D(), b.conv(b.input(28, 28, 96), 96, (3, 3), groups=96, name="conv"), name="pool")
    partition = fuse(b.finish("pool"))
    assert len(partition.kernels) == 2
    (reason,) = [d.reason for d in partition.decisions if d.node == "pool"]
    assert reason.startswith("direct convolution does not compute conv together with it, and another form")
