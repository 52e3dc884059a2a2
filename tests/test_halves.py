"""What follows a product, in halves of a tile's columns: right values in every form, and fewer registers."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from contraction_graphs import check, convolution, data_gradient, only_region
from convloom.codegen import NotEmittable, emit
from convloom.codegen.machine.aot import compile_many
from convloom.graph.errors import CompileError
from convloom.graph.ops import Activation, ActivationGrad, Add, Gelu, Input, MaxPool2D, Relu, Swish
from convloom.planning.cost import CostModel
from convloom.planning.forms.tiles import tiles
from convloom.planning.products import product
from convloom.planning.regions import Region
from convloom.planning.schedules import Schedule
from test_split_sums import BORDER, REGIONS, attention

TILE = partial(Schedule, 16, 32, 16, group_m=2, pieces=2)


@pytest.mark.parametrize("name", REGIONS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_values(name: str, dtype: str) -> None:
    make, terms = REGIONS[name]
    kernel = check(make(dtype), TILE(), terms=terms, batch=3)
    assert kernel.launches == 1
    assert "for half in tl.static_range(2):" in kernel.source
    assert "HALF_N = 16 " in kernel.source


def kept(dtype: str) -> Region:
    """Stored whole, and pooled."""
    graph, y = convolution((6, 8), 17, 50, (3, 3), (1, 1), BORDER, dtype=dtype)
    y = graph.add(Relu(), [y])
    return only_region(graph, y=y, pooled=graph.add(MaxPool2D((2, 2), (2, 2)), [y]))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_two_results_of_which_one_is_pooled(dtype: str) -> None:
    check(kept(dtype), TILE(), terms=9 * 17, batch=3)


def test_one_tile_of_columns_and_a_narrow_one() -> None:
    for channels in (3, 16, 20, 32):
        graph, y = convolution((5, 3), 9, channels, (3, 3), (1, 1), BORDER, dtype="float16")
        check(only_region(graph, y=graph.add(Relu(), [y])), TILE(), terms=81)


def test_schedules_that_cannot_be_cut_are_refused() -> None:
    with pytest.raises(CompileError, match="pieces is 3"):
        TILE(pieces=3)
    with pytest.raises(CompileError, match="where sums are split"):
        TILE(splits=2)
    with pytest.raises(NotEmittable, match="needs whole rows"):
        emit(attention("bfloat16"), schedule=TILE())


def large(epilogue: str, kernel: int = 1) -> Region:
    """28 x 28 pixels of 512 channels, before what a network of residuals has behind it."""
    border = BORDER if kernel == 3 else ((0, 0), (0, 0))
    if epilogue == "kept":
        graph, y = convolution((28, 28), 512, 512, (kernel, kernel), (1, 1), border, dtype="bfloat16")
        y = graph.add(Relu(), [y])
        return only_region(graph, y=y, pooled=graph.add(MaxPool2D((2, 2), (2, 2)), [y]))
    make = data_gradient if epilogue == "gradient" else convolution
    graph, y = make((28, 28), 512, 512, (kernel, kernel), (1, 1), border, dtype="bfloat16")
    other = graph.add(Input(("N", 28, 28, 512), "bfloat16"), name="other")
    y = graph.add(Add(), [y, other])
    if epilogue == "gradient":
        made = graph.add(Input(("N", 28, 28, 512), "bfloat16"), name="made")
        return only_region(graph, y=graph.add(ActivationGrad(Relu()), [y, made]))
    return only_region(graph, y=graph.add(Relu(), [y]))


@pytest.mark.parametrize("target", ["sm_90", "sm_100"])
@pytest.mark.parametrize("epilogue", ["residual", "gradient", "kept"])
def test_the_best_schedule_is_large_and_compiles_without_spills(epilogue: str, target: str) -> None:
    region = large(epilogue, 3)
    model = CostModel.of(target, batch=256)
    schedule = tiles(region, model)[0]
    assert (schedule.block_m, schedule.block_n, schedule.pieces) == (128, 256, 2)
    form = "data gradient" if epilogue == "gradient" else "convolution"
    [made] = compile_many(emit(region, schedule=schedule, form=form).requests(target), jobs=1)
    assert made.error is None
    assert made.spills_bytes == 0
    assert made.registers <= 255


@pytest.mark.parametrize("activation", [Gelu(), Swish()], ids=str)
def test_the_best_schedule_before_a_costly_gradient_compiles_without_spills(activation: Activation) -> None:
    """As of ConvNeXt's dense layers, whose 256 x 64 tiles in halves spilled 304 bytes."""
    graph, y = data_gradient((28, 28), 768, 192, (1, 1), (1, 1), ((0, 0), (0, 0)), dtype="bfloat16")
    shape = graph[y].type.shape
    made = graph.add(Input(shape, "bfloat16"), name="made")
    region = only_region(graph, y=graph.add(ActivationGrad(activation), [y, made]))
    assert product(region).costly
    schedule = tiles(region, CostModel.of("sm_90", batch=32))[0]
    [found] = compile_many(emit(region, schedule=schedule, form="data gradient").requests("sm_90"), jobs=1)
    assert (found.error, found.spills_bytes) == (None, 0)


def test_large_tiles_are_halved_only_where_they_need_it() -> None:
    model = CostModel.of("sm_90", batch=256)
    plain, y = convolution((28, 28), 512, 512, (3, 3), (1, 1), BORDER, dtype="bfloat16")
    region = only_region(plain, y=plain.add(Relu(), [y]))
    assert product(region).lean
    assert all(s.pieces == 1 for s in tiles(region, model))
    for target in ("sm_80", "gfx942"):
        assert all(s.pieces == 1 for s in tiles(large("residual"), CostModel.of(target, batch=256)))


def test_halves_hold_the_same_bits() -> None:
    region = kept("bfloat16")
    found = []
    for schedule in (TILE(pieces=1), TILE()):
        module = emit(region, schedule=schedule).load(interpreted=True)
        inputs, outputs = module.example(3), module.results(3)
        module.launch(*inputs, *outputs)
        found.append(outputs)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
