"""The table of forms: each has an emitter, says what it cannot do, and writes what it accepts."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest
from convloom.codegen import NotEmittable, emit
from convloom.codegen.dispatch import EMITTERS, PRODUCTS
from convloom.codegen.forms.movement import AXES
from convloom.codegen.text.jit_function import POINTERS
from convloom.graph import ops
from convloom.graph.ir import Graph
from convloom.graph.op import REGISTRY, Kind
from convloom.planning.cost import CostModel
from convloom.planning.forms import DTYPES, FORMS, candidates, choose, form_of, forms_for, refusal
from convloom.planning.forms.flat import MOST_AXES
from convloom.planning.fusion import fuse, leave_unfused
from convloom.planning.regions import Region
from convloom.planning.schedules import Schedule
from convloom.planning.targets import DEVICES, TARGETS
from graphs import Builder, inception, lenet, random_networks, residual_block, unet, with_loss
from hypothesis import given, settings
from partitions import inference, training

NO_FORM = (ops.SizePenalty, ops.OrthogonalPenalty, ops.OrthogonalSlope, ops.NormWithin)
"""Ops on weights alone, which run once a step through PyTorch's operators."""


def test_each_form_has_one_emitter() -> None:
    names = [form.name for form in FORMS]
    assert sorted(names) == sorted([*PRODUCTS, *EMITTERS])
    assert len(set(names)) == len(names)


def test_what_planning_and_text_must_agree_on() -> None:
    assert set(DTYPES) == set(POINTERS)
    assert len(AXES) == MOST_AXES


def test_every_op_that_moves_something_has_a_form() -> None:
    without = {
        op
        for op in REGISTRY.values()
        if not inspect.isabstract(op)
        and op.kind not in (Kind.SOURCE, Kind.VIEW, Kind.COLLECTIVE)
        and not any(_may_concern(op, i) for i in range(len(FORMS)))
    }
    assert without == set(NO_FORM)


def _may_concern(op: type, index: int) -> bool:
    anchors = FORMS[index].anchors
    return op.kind is anchors if isinstance(anchors, Kind) else issubclass(op, anchors)  # type: ignore[attr-defined]


def members(graph: Graph, *names: str, anchor: str = "") -> Region:
    """A region of these nodes, whether or not fusion would make it."""
    nodes = [graph[name] for name in names]
    return Region(graph, graph[anchor or names[0]], nodes, "region")


def refused(graph: Graph, *names: str, anchor: str = "") -> str:
    region = members(graph, *names, anchor=anchor)
    reason = refusal(region)
    assert reason is not None
    with pytest.raises(NotEmittable) as error:
        emit(region)
    assert str(error.value) == reason
    return reason


def pixels(channels: int = 3) -> Builder:
    b = Builder()
    b.conv(b.input(6, 4, 3, name="x"), channels, name="conv")
    return b


# -- refusals of regions that fusion does not make ----------
def test_a_product_computes_no_stranger() -> None:
    b = pixels()
    b.op(ops.Tanh(), "x", name="tanh")
    graph = b.finish(b.op(ops.Transpose((0, 2, 1, 3)), "conv", name="turned"), "tanh")
    assert refused(graph, "conv", "turned") == "turned: transpose cannot share a kernel with conv2d"
    assert refused(graph, "conv", "tanh") == "tanh: tanh cannot share a kernel with conv2d"


def test_a_product_pools_in_one_way() -> None:
    b = pixels()
    b.op(ops.MaxPool2D(), "conv", name="largest")
    b.op(ops.AveragePool2D(), "conv", name="mean")
    b.op(ops.MaxPool2D((2, 1), (2, 1)), "conv", name="other")
    graph = b.finish("largest", "mean", "other")
    assert refused(graph, "conv", "largest", "mean") == (
        "mean: a kernel pools by maximum or by average, not by both"
    )
    assert refused(graph, "conv", "largest", "other") == "the region already holds another window"
    assert refused(graph, "largest", "other") == (
        "other and largest pool other windows; put them into two regions"
    )


def test_a_prologue_is_of_the_data_and_has_something_to_gather() -> None:
    b = Builder()
    x = b.input(4, 4, 3, name="x")
    weight = b.op(ops.Scale(2.0), b.weight(1, 1, 3, 5, name="w"), name="scaled")
    b.op(ops.Conv2D(), x, weight, name="conv")
    gate = b.op(ops.Add(), b.input(1, 1, 3, name="gate"), b.weight(4, 4, 3, name="plane"), name="sum")
    b.dense(gate, 2, name="dense")
    graph = b.finish("conv", "dense")
    assert refused(graph, "scaled", "conv", anchor="conv") == ("scaled is the weight, not the data, of conv")
    assert refused(graph, "sum", "dense", anchor="dense") == (
        "no operand of sum has its shape float32[N,4,4,3]"
    )


def test_what_a_kernel_gathers_tap_by_tap_has_one_map() -> None:
    b = Builder()
    x, other = b.input(4, 4, 5, name="x"), b.input(4, 4, 5, name="other")
    b.conv(b.op(ops.Add(), x, other, name="sum"), 2, (3, 3), name="conv")
    assert refused(b.finish("conv"), "sum", "conv", anchor="conv") == (
        "other of float32[N,4,4,5] has no place of its own for each tap of a kernel"
    )
    b.conv("sum", 2, (1, 1), name="point")
    assert refused(b.finish("point"), "sum", "point", anchor="point") == (
        "sum is kept whole, and what is gathered is never stored"
    )
    b.graph.remove("conv")
    assert refusal(members(b.finish("point"), "sum", "point", anchor="point")) is None


def test_rows_wider_than_a_program() -> None:
    b = Builder()
    graph = b.finish(b.op(ops.Softmax(), b.input(16385), name="softmax"))
    assert refused(graph, "softmax") == "softmax: a row of 16385 is wider than the 16384 a program holds"


def test_dtypes_are_asked_apart_so_that_others_fuse_as_well() -> None:
    b = Builder()
    x = b.graph.add(ops.Input(("N", 5), "float64"), name="x")
    graph = b.finish(b.op(ops.Tanh(), b.op(ops.Relu(), x, name="relu"), name="tanh"))
    (region,) = fuse(graph).kernels
    assert refusal(region) is None
    with pytest.raises(NotEmittable, match=r"x is float64\[N,5\]: kernels take float32"):
        form_of(region)


def test_a_penalty_has_no_form() -> None:
    b = Builder()
    graph = b.finish(b.op(ops.SizePenalty(0.1, 0.1), b.weight(3, 4, name="w"), name="penalty"))
    assert refused(graph, "penalty") == "penalty: no kernel is known for size_penalty"


# -- schedules ----------
@pytest.mark.parametrize("target", [*TARGETS, *DEVICES])
def test_every_form_offers_schedules_for_every_target(target: str) -> None:
    for graph in (training(with_loss(lenet(batch_norm=True))), inference(unet())):
        for region in fuse(graph).kernels:
            offered = candidates(region, target)
            assert len(set(offered)) == len(offered) >= 1
            form, best = choose(region, target)
            assert best == offered[0]
            assert all(form.takes(region, schedule) is None for schedule in offered)
            model = CostModel.of(target)
            work, moved = form.product(region), region.cost(model.batch).bytes
            seconds = [
                model.product(work, s, moved).rank
                if work and form.cost is None
                else form.seconds(region, s, model)
                for s in offered
            ]
            assert seconds == sorted(seconds)
            assert seconds[0] > 0


def test_a_card_is_ranked_by_its_own_rates() -> None:
    assert CostModel.of("H200").device is DEVICES["H200"]
    assert CostModel.of("sm_90").device is DEVICES["H100"]
    assert CostModel.of("sm_120").device is DEVICES["A100"]  # of no card there we know the rates


def test_a_schedule_that_a_form_does_not_take() -> None:
    b = Builder()
    graph = b.finish(b.op(ops.Softmax(), b.input(40), name="softmax"))
    (region,) = fuse(graph).kernels
    with pytest.raises(NotEmittable, match="rows of 40 need block_n of at least that, the schedule has 32"):
        emit(region, schedule=Schedule(4, 32))
    assert emit(region, schedule=Schedule(4, 128)).schedule == Schedule(4, 128)


# -- what a form accepts, its emitter writes ----------
def check_emission(graph: Graph) -> None:
    for partition in (fuse(graph), leave_unfused(graph)):
        for region in partition.kernels:
            reason = refusal(region)
            if reason is None:
                assert form_of(region) in forms_for(region.anchor.op)
                compile(emit(region).source, region.name, "exec")
            else:
                with pytest.raises(NotEmittable):
                    emit(region)


@pytest.mark.parametrize("make", [lenet, residual_block, inception, unet, lambda: with_loss(lenet())])
def test_what_is_accepted_is_written(make: Callable[[], Graph]) -> None:
    check_emission(inference(make()))
    check_emission(training(make()))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(random_networks())
def test_what_is_accepted_in_random_networks_is_written(graph: Graph) -> None:
    check_emission(training(graph, wrt_inputs=True))
