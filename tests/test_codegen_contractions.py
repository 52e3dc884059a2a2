"""Kernels of convolution, matrix product and their gradients, run in Triton's interpreter against float64."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import pytest
import torch
from contraction_graphs import (
    SMALL,
    check,
    convolution,
    data_gradient,
    identity,
    only_region,
    run_and_compare,
    weight_gradient,
)
from convloom.codegen import NotEmittable
from convloom.codegen.dispatch import emit
from convloom.graph.errors import CompileError
from convloom.graph.ir import Graph
from convloom.graph.ops import (
    ActivationGrad,
    Add,
    AveragePool2D,
    AverageUnpool2D,
    BatchNorm,
    BatchNormGrad,
    Conv2D,
    Conv2DTranspose,
    Dense,
    DenseDataGrad,
    DenseWeightGrad,
    Input,
    MaxPool2D,
    MaxPoolIndex2D,
    MaxUnpool2D,
    Multiply,
    Parameter,
    Reduce,
    Relu,
    Scale,
    Softmax,
    Swish,
)
from convloom.graph.windows import Pair, window_output
from convloom.planning.forms import candidates
from convloom.planning.fusion import fuse
from convloom.planning.regions import Region
from convloom.planning.schedules import Schedule
from helpers import on_gpu

SAME3 = ((1, 1), (1, 1))
UNEVEN = ((0, 1), (0, 1))  # `same` of a 3x3 kernel at stride 2 on even sizes

# size, channels in and out, kernel, strides, padding, dilation, groups
SHAPES: list[tuple[Any, ...]] = [
    ((7, 5), 1, 6, (5, 5), (1, 1), ((2, 2), (2, 2))),
    ((8, 10), 3, 17, (3, 3), (2, 2), UNEVEN),
    ((8, 6), 17, 20, (3, 3), (2, 2), UNEVEN),
    ((4, 3), 17, 65, (3, 3), (1, 1), SAME3),
    ((6, 5), 65, 17, (1, 1)),
    ((6, 5), 20, 3, (1, 1), (2, 3)),
    ((5, 4), 18, 17, (1, 1), (1, 1), ((1, 0), (0, 2))),
    ((9, 8), 17, 3, (3, 3), (1, 1), ((2, 1), (0, 2)), (2, 2)),
    ((9, 8), 3, 5, (3, 2), (1, 1), ((2, 2), (0, 1)), (2, 3)),
    ((6, 7), 6, 8, (3, 3), (1, 1), SAME3, (1, 1), 2),
    ((5, 4), 34, 36, (2, 2), (1, 1), ((0, 0), (0, 0)), (1, 1), 2),
    ((6, 5), 5, 5, (3, 3), (2, 1), SAME3, (1, 1), 5),
    ((4, 9), 16, 18, (1, 7), (1, 2), ((0, 0), (3, 3))),
    ((9, 4), 2, 3, (7, 1), (2, 1), ((1, 3), (0, 0))),
    ((4, 3), 19, 21, (4, 3)),
    ((3, 2), 32, 17, (3, 3), (3, 3), ((2, 2), (2, 3))),
]


def terms_of(shape: tuple[Any, ...], channels: int) -> int:
    return prod(shape[3]) * channels


# -- forward -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shape", SHAPES, ids=identity)
def test_convolution(shape: tuple[Any, ...]) -> None:
    graph, y = convolution(*shape)
    check(only_region(graph, y=graph.add(Relu(), [y])), SMALL, batch=2, terms=terms_of(shape, shape[1]))


@pytest.mark.parametrize("shape", [SHAPES[1], SHAPES[3], SHAPES[4]], ids=identity)
def test_the_chosen_schedule_computes_the_same(shape: tuple[Any, ...]) -> None:
    graph, y = convolution(*shape)
    check(only_region(graph, y=y), batch=1, terms=terms_of(shape, shape[1]))


@pytest.mark.parametrize(
    "schedule", [Schedule(32, 16, 32), Schedule(16, 64, 16, group_m=3), Schedule(64, 32, 64)]
)
def test_convolution_with_other_tiles(schedule: Schedule) -> None:
    for shape in (SHAPES[2], SHAPES[9]):
        graph, y = convolution(*shape)
        check(only_region(graph, y=y), schedule, batch=3, terms=terms_of(shape, shape[1]))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("shape", [SHAPES[1], SHAPES[2], SHAPES[4]], ids=identity)
def test_convolution_in_16_bits(shape: tuple[Any, ...], dtype: str) -> None:
    graph, y = convolution(*shape, dtype=dtype)
    check(only_region(graph, y=graph.add(Relu(), [y])), SMALL, terms=terms_of(shape, shape[1]))


def test_one_kernel_takes_any_batch() -> None:
    graph, y = convolution((4, 3), 17, 18, (2, 2))
    kernel = emit(only_region(graph, y=y), schedule=SMALL)
    for batch in (1, 2, 5, 16):
        run_and_compare(kernel, batch, terms=68)


def test_bias_affine_residual_activation() -> None:
    graph, y = convolution((5, 4), 17, 20, (3, 3), (1, 1), SAME3)
    vectors = [graph.add(Parameter((20,)), name=name) for name in ("gamma", "beta", "mean")]
    variance = graph.add(Parameter((20,)), name="variance_root")
    residual = graph.add(Input(("N", 5, 4, 20)), name="shortcut")
    y = graph.add(BatchNorm(4.0), [y, *vectors, variance])
    y = graph.add(Relu(), [graph.add(Add(), [y, residual])])
    check(only_region(graph, y=y), SMALL, batch=3, terms=153)


@pytest.mark.parametrize("shape", [("N", 1, 1, 20), ("N", 5, 4, 1), (1,), ("N", 5, 4, 20)])
def test_every_way_of_broadcasting_in_the_epilogue(shape: tuple[Any, ...]) -> None:
    graph, y = convolution((5, 4), 17, 20, (1, 1))
    other = graph.add(Input(shape) if shape[0] == "N" else Parameter(shape), name="other")
    check(only_region(graph, y=graph.add(Multiply(), [y, other])), SMALL, batch=3, terms=17)


def trained(graph: Graph, anchor: str, **outputs: str) -> Region:
    """The region around `anchor` in a graph that also has readers of the backward pass."""
    graph.outputs = dict(outputs)
    return next(region for region in fuse(graph).kernels if region.anchor.name == anchor)


def test_a_value_kept_for_the_backward_pass_is_stored_beside_the_result() -> None:
    graph, conv = convolution((5, 4), 3, 20, (3, 3))
    y = graph.add(Swish(), [conv])
    kept = graph.add(Scale(2.0), [conv], phase="backward")
    kernel = check(trained(graph, conv, y=y, kept=kept), SMALL, batch=3, terms=27)
    assert [node.name for node in kernel.outputs] == [conv, y]


def test_a_value_kept_whole_is_stored_before_the_pooling() -> None:
    graph, conv = convolution((8, 6), 3, 20, (3, 3), (1, 1), SAME3)
    activated = graph.add(Swish(), [conv])
    y, index = graph.add(MaxPool2D(), [activated]), graph.add(MaxPoolIndex2D(), [activated])
    kept = graph.add(Scale(2.0), [conv], phase="backward")
    kernel = check(trained(graph, conv, y=y, index=index, kept=kept), SMALL, batch=3, terms=27)
    assert [node.name for node in kernel.outputs] == [conv, y, index]


def test_nan_passes_through_activation_and_pooling() -> None:
    graph, y = convolution((4, 4), 3, 20, (1, 1))
    kernel = emit(only_region(graph, y=graph.add(MaxPool2D(), [graph.add(Relu(), [y])])), schedule=SMALL)
    x, w, bias = torch.zeros(1, 4, 4, 3), torch.ones(1, 1, 3, 20), torch.zeros(20)
    x[0, 1, 2, 0] = float("nan")
    y_found = torch.zeros(1, 2, 2, 20)
    kernel.load(True).launch(x, w, bias, y_found)
    assert y_found.isnan()[0, :, :, 0].tolist() == [[False, True], [False, False]]


# -- pooling in the epilogue ---------------------------------------------------------------------------------
POOLS = [
    ((2, 2), (2, 2), ((0, 0), (0, 0))),
    ((2, 2), (2, 2), ((0, 1), (1, 0))),
    ((1, 4), (1, 4), ((0, 0), (1, 2))),
    ((2, 1), (3, 2), ((1, 0), (0, 0))),
    ((4, 4), (4, 4), ((1, 2), (2, 1))),
]


@pytest.mark.parametrize("geometry", POOLS)
@pytest.mark.parametrize("average", [False, True])
def test_pooling_in_the_epilogue(geometry: tuple[Any, ...], average: bool) -> None:
    graph, y = convolution((9, 7), 3, 18, (3, 3), (1, 1), SAME3)
    y = graph.add(Relu(), [y])
    pool = AveragePool2D(*geometry) if average else MaxPool2D(*geometry)
    check(only_region(graph, y=graph.add(pool, [y])), SMALL, batch=3, terms=27)


@pytest.mark.parametrize("geometry", POOLS[:3])
def test_maximum_and_its_index_together(geometry: tuple[Any, ...]) -> None:
    graph, y = convolution((8, 6), 17, 6, (3, 3), (1, 1), SAME3)
    y = graph.add(Relu(), [y])
    pooled, index = graph.add(MaxPool2D(*geometry), [y]), graph.add(MaxPoolIndex2D(*geometry), [y])
    kernel = check(only_region(graph, y=pooled, i=index), SMALL, batch=3, terms=153)
    assert [node.type.dtype for node in kernel.outputs] == ["float32", "uint8"]


def test_members_behind_the_pooling_run_at_its_rate() -> None:
    graph, y = convolution((8, 6), 16, 20, (1, 1))
    pooled = graph.add(MaxPool2D(), [y])
    residual = graph.add(Input(("N", 4, 3, 20)), name="shortcut")
    y = graph.add(Relu(), [graph.add(Add(), [pooled, residual])])
    check(only_region(graph, y=y), SMALL, batch=3, terms=16)


# -- prologue ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "rest", [(), ((2, 3),), ((1, 1), ((1, 0), (0, 2)))], ids=["plain", "strided", "padded"]
)
@pytest.mark.parametrize("groups", [1, 2])
def test_a_pointwise_prologue_of_a_1x1_convolution(rest: tuple[Any, ...], groups: int) -> None:
    graph = Graph()
    x = graph.add(Input(("N", 5, 4, 36)), name="image")
    shift = graph.add(Parameter((36,)), name="shift")
    x = graph.add(Relu(), [graph.add(Add(), [graph.add(Scale(2.0, 1.0), [x]), shift])])
    w = graph.add(Parameter((1, 1, 36 // groups, 20)), name="kernel")
    strides, padding = (*rest, *((1, 1), ((0, 0), (0, 0)))[len(rest) :])  # type: ignore[misc]
    y = graph.add(Conv2D(strides, padding, (1, 1), groups), [x, w])
    check(only_region(graph, y=y), SMALL, batch=3, terms=36)


# -- dense ---------------------------------------------------------------------------------------------------
def dense(shape: tuple[Any, ...], k: int, dtype: str = "float32") -> tuple[Graph, str]:
    graph = Graph()
    x = graph.add(Input(shape, dtype), name="rows")
    w = graph.add(Parameter((shape[-1], k), dtype), name="matrix")
    b = graph.add(Parameter((k,), dtype), name="offset")
    return graph, graph.add(Dense(), [x, w, b], layer="dense")


@pytest.mark.parametrize(
    ("shape", "k"), [(("N", 3), 17), (("N", 65), 1), (("N", 5, 17), 65), (("N", 2, 3, 32), 32)]
)
def test_dense(shape: tuple[Any, ...], k: int) -> None:
    graph, y = dense(shape, k)
    check(only_region(graph, y=graph.add(Relu(), [y])), SMALL, batch=19, terms=shape[-1])


@pytest.mark.parametrize("k", [3, 16, 65, 128])
def test_softmax_ends_a_dense_kernel(k: int) -> None:
    graph, y = dense(("N", 17), k)
    check(only_region(graph, y=graph.add(Softmax(), [y])), batch=19, terms=17)


def test_dense_in_bfloat16_with_a_prologue() -> None:
    graph = Graph()
    x = graph.add(Relu(), [graph.add(Input(("N", 40), "bfloat16"), name="rows")])
    w = graph.add(Parameter((40, 17), "bfloat16"), name="matrix")
    check(only_region(graph, y=graph.add(Dense(), [x, w])), SMALL, batch=19, terms=40)


# -- data gradient -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shape", SHAPES, ids=identity)
def test_data_gradient(shape: tuple[Any, ...]) -> None:
    graph, dx = data_gradient(*shape)
    check(only_region(graph, dx=dx), SMALL, terms=terms_of(shape, shape[2]))


@pytest.mark.parametrize(
    ("strides", "dilation"), [((2, 2), (3, 1)), ((2, 2), (1, 3)), ((3, 2), (2, 5)), ((3, 1), (5, 2))]
)
def test_data_gradient_with_stride_and_dilation(strides: Any, dilation: Any) -> None:
    graph, dx = data_gradient((12, 11), 3, 17, (3, 3), strides, ((3, 1), (0, 2)), dilation)
    check(only_region(graph, dx=dx), SMALL, terms=153)


def test_data_gradient_in_bfloat16() -> None:
    graph, dx = data_gradient(*SHAPES[2], dtype="bfloat16")
    check(only_region(graph, dx=dx), SMALL, terms=terms_of(SHAPES[2], SHAPES[2][2]))


@pytest.mark.parametrize("strides", [(1, 1), (2, 2)])
def test_activation_gradient_and_residual_ride_on_a_data_gradient(strides: tuple[int, int]) -> None:
    graph, dx = data_gradient((4, 5), 18, 17, (3, 3), strides, SAME3)
    saved = graph.add(Input(("N", 4, 5, 18)), name="activation")
    other = graph.add(Input(("N", 4, 5, 18)), name="other")
    dx = graph.add(ActivationGrad(Relu()), [graph.add(Add(), [dx, other]), saved])
    check(only_region(graph, dx=dx), SMALL, batch=3, terms=153)


def test_batch_norm_gradient_counts_the_values_of_the_batch() -> None:
    graph, dx = data_gradient((4, 3), 17, 16, (3, 3), (1, 1), SAME3)
    x = graph.add(Input(("N", 4, 3, 17)), name="saved")
    names = ("gamma", "mean", "variance", "d_gamma", "d_beta")
    vectors = [graph.add(Parameter((17,)), name=name) for name in names]
    check(only_region(graph, dx=graph.add(BatchNormGrad(4.0), [dx, x, *vectors])), SMALL, batch=3, terms=144)


@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize(("strides", "window"), [((1, 1), (2, 2)), ((2, 1), (2, 2)), ((1, 1), (1, 3))])
def test_unpooling_in_the_epilogue(average: bool, strides: Any, window: Any) -> None:
    graph, dx = data_gradient((4, 3), 18, 17, (3, 3), strides, SAME3)
    whole = (4 * window[0], 3 * window[1])
    geometry = (window, window, ((0, 0), (0, 0)), whole)
    if average:
        dx = graph.add(AverageUnpool2D(*geometry), [dx])
    else:
        index = graph.add(Input(("N", 4, 3, 18), "uint8"), name="position")
        dx = graph.add(MaxUnpool2D(*geometry), [dx, index])
    saved = graph.add(Input(("N", *whole, 18)), name="activation")
    check(only_region(graph, dx=graph.add(ActivationGrad(Relu()), [dx, saved])), SMALL, batch=3, terms=153)


@pytest.mark.parametrize(
    ("size", "strides", "padding", "dilation", "groups"),
    [
        ((9, 11), (2, 2), ((0, 0), (0, 0)), (1, 1), 1),
        ((8, 13), (2, 3), ((0, 1), (1, 0)), (1, 1), 1),
        ((5, 7), (1, 1), ((1, 1), (0, 2)), (1, 2), 1),
        ((10, 9), (3, 3), ((0, 0), (0, 0)), (1, 1), 2),
    ],
)
def test_transposed_convolution(size: Any, strides: Any, padding: Any, dilation: Any, groups: int) -> None:
    c, k = 18, 34
    taken = window_output("test", size, (3, 2), strides, padding, dilation)
    graph = Graph()
    x = graph.add(Input(("N", *taken, k)), name="image")
    w = graph.add(Parameter((3, 2, c // groups, k)), name="kernel")
    y = graph.add(Conv2DTranspose(strides, padding, dilation, groups, size), [x, w])
    biased = graph.add(Add(), [y, graph.add(Parameter((c,)), name="bias")])
    region = only_region(graph, y=graph.add(Relu(), [biased]))
    kernel = check(region, SMALL, batch=3, terms=6 * k)
    assert "3x2 transposed convolution" in kernel.source
    assert "dy" not in kernel.source
    check(region, batch=1, terms=6 * k)


@pytest.mark.parametrize("pool", [MaxPool2D, AveragePool2D])
@pytest.mark.parametrize("window", [(1, 1), (1, 2)])
def test_windows_that_lie_apart(pool: Any, window: Any) -> None:
    """Those of one pixel are no rows of the whole map."""
    graph, y = convolution((7, 8), 3, 17, (3, 3), (1, 1), SAME3)
    y = graph.add(Relu(), [graph.add(pool(window, (3, 3)), [y])])
    check(only_region(graph, y=y), SMALL, batch=3, terms=27)


def test_a_pooling_behind_a_transposed_convolution_is_a_kernel_of_its_own() -> None:
    graph = Graph()
    x, w = graph.add(Input(("N", 4, 3, 5))), graph.add(Parameter((2, 2, 6, 5)))
    y = graph.add(Conv2DTranspose((2, 2), input_size=(8, 6)), [x, w])
    graph.outputs["y"] = graph.add(MaxPool2D(), [y])
    partition = fuse(graph)
    assert len(partition.kernels) == 2
    assert any("in an order that no window keeps together" in d.reason for d in partition.decisions)


@pytest.mark.parametrize("window", [(2, 2), (1, 3), (3, 3)])
def test_up_sampling_rides_on_a_convolution(window: Any) -> None:
    graph, y = convolution((6, 5), 3, 17, (3, 3), (1, 1), SAME3)
    whole = (6 * window[0], 5 * window[1])
    spread = graph.add(AverageUnpool2D(window, window, ((0, 0), (0, 0)), whole), [y])
    y = graph.add(Relu(), [graph.add(Scale(window[0] * window[1]), [spread])])
    check(only_region(graph, y=y), SMALL, batch=3, terms=27)


@pytest.mark.parametrize(("c", "k"), [(3, 17), (65, 10), (32, 32)])
def test_dense_data_gradient(c: int, k: int) -> None:
    graph = Graph()
    dy = graph.add(Input(("N", k)), name="gradient")
    w = graph.add(Parameter((c, k)), name="matrix")
    check(only_region(graph, dx=graph.add(DenseDataGrad(), [dy, w])), SMALL, batch=19, terms=k)


# -- weight gradient -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("shape", SHAPES, ids=identity)
def test_weight_gradient(shape: tuple[Any, ...]) -> None:
    region = weight_gradient(*shape)
    gradient = region.graph["gradient"].type
    check(region, SMALL, batch=2, terms=gradient.elements(2) // gradient.channels)


@pytest.mark.parametrize(
    ("device", "size", "batches"),
    [("cpu", (6, 5), (1, 4)), on_gpu("cuda", (6, 5), (1, 4)), on_gpu("cuda", (30, 31), (64,))],
    indirect=["device"],
)
def test_weight_gradient_in_one_part_and_in_many(
    device: torch.device, size: Pair, batches: Sequence[int]
) -> None:
    """Where parts run side by side, on a GPU, their sum is the same in every run."""
    region = weight_gradient(size, 3, 17, (3, 3), (1, 1), SAME3)
    for schedule in (Schedule(32, 32, 16, chunk=16, programs=1), Schedule(32, 32, 16, chunk=16, programs=64)):
        kernel = emit(region, schedule=schedule)
        for batch in batches:
            first = run_and_compare(kernel, batch, terms=prod(size) * batch, device=device)
            for _ in range(0 if device.type == "cpu" else 10):
                again = run_and_compare(kernel, batch, terms=prod(size) * batch, device=device)
                assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weight_gradient_in_16_bits(dtype: str) -> None:
    for programs in (1, 1000):
        schedule = Schedule(32, 16, 16, chunk=32, programs=programs)
        check(weight_gradient((6, 5), 17, 18, (2, 2), dtype=dtype), schedule, batch=3, terms=60)


def test_weight_gradient_without_a_bias() -> None:
    check(weight_gradient((6, 5), 17, 18, (2, 2), bias=False), SMALL, batch=3, terms=60)


@pytest.mark.parametrize("shape", [("N", 17), ("N", 3, 32)])
def test_dense_weight_gradient_with_bias(shape: tuple[Any, ...]) -> None:
    graph = Graph()
    x = graph.add(Input(shape), name="rows")
    dy = graph.add(Input((*shape[:-1], 20)), name="gradient")
    names = [graph.add(DenseWeightGrad(), [x, dy]), graph.add(Reduce(tuple(range(len(shape) - 1))), [dy])]
    graph.outputs = {name: name for name in names}
    region = Region(graph, graph[names[0]], [graph[name] for name in names], "dense_weight_gradient")
    check(region, SMALL, batch=37, terms=111)


# -- refusals ------------------------------------------------------------------------------------------------
def test_stride_and_dilation_with_a_common_factor_are_refused() -> None:
    graph, dx = data_gradient((11, 10), 3, 17, (2, 3), (2, 2), dilation=(2, 2))
    with pytest.raises(NotEmittable, match=r"strides \(2, 2\) and dilation \(2, 2\) share a factor"):
        emit(only_region(graph, dx=dx))


def test_a_tile_narrower_than_a_softmax_is_refused() -> None:
    graph, y = dense(("N", 17), 40)
    region = only_region(graph, y=graph.add(Softmax(), [y]))
    with pytest.raises(NotEmittable, match="softmax over 40 channels needs block_n of at least that"):
        emit(region, schedule=SMALL)


def test_a_weight_gradient_needs_a_chunk() -> None:
    with pytest.raises(NotEmittable, match="a chunk that is a multiple of block_k"):
        emit(weight_gradient((6, 5), 3, 4, (3, 3)), schedule=Schedule(16, 16, 16))


# -- schedules -----------------------------------------------------------------------------------------------
def test_small_problems_get_small_tiles() -> None:
    graph, y = convolution((28, 28), 1, 6, (5, 5))
    assert candidates(only_region(graph, y=y))[0].block_n == 16
    graph, y = dense(("N", 84), 10)
    assert candidates(only_region(graph, y=y))[0].block_m <= 32


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "gfx942"])
def test_every_candidate_fits_and_large_problems_get_large_tiles(target: str) -> None:
    from convloom.planning.forms.tiles import shared_bytes
    from convloom.planning.products import product
    from convloom.planning.targets import target as find_target

    graph, y = convolution((56, 56), 128, 128, (3, 3), (1, 1), SAME3, dtype="bfloat16")
    region = only_region(graph, y=y)
    found = candidates(region, target)
    assert len(found) > 5
    assert all(shared_bytes(s, product(region)) <= find_target(target).shared_per_block for s in found)
    assert found[0].block_m * found[0].block_n >= 64 * 128
    assert found[0].block_k >= 32


def test_an_unknown_target_is_named() -> None:
    graph, y = convolution((5, 4), 3, 4, (3, 3))
    with pytest.raises(CompileError, match="unknown target 'sm_7'"):
        candidates(only_region(graph, y=y), "sm_7")


# -- compiled ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("target", ["sm_80", "sm_90", "gfx942"])
def test_default_schedules_compile_without_spills_and_use_matrix_units(target: str) -> None:
    graph, y = convolution((14, 14), 6, 16, (5, 5), dtype="bfloat16")
    pooled = graph.add(MaxPool2D(), [graph.add(Relu(), [y])])
    regions = [only_region(graph, y=pooled), weight_gradient((14, 14), 64, 64, (3, 3), dtype="bfloat16")]
    units = {"sm_80": ["mma"], "sm_90": ["wgmma", "mma"], "gfx942": ["mfma"]}[target]
    for region in regions:
        resources = emit(region, target=target).resources(target)
        assert all(r.error is None and r.spills_bytes == 0 for r in resources), resources
        assert any(resources[0].matrix_instructions.get(unit, 0) > 0 for unit in units)
