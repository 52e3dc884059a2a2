"""Pointwise regions as tiles of rows and channels: values, which form is chosen, and what its loads are."""

from __future__ import annotations

import pytest
from convloom.codegen import emit
from convloom.graph import ops
from convloom.graph.types import TensorType
from convloom.planning.cost import CostModel
from convloom.planning.forms import choose, form_of, forms_of
from convloom.planning.forms.channel_tiles import rows_of
from convloom.planning.regions import Region
from convloom.planning.schedules import Schedule
from kernel_checks import check, image, region, vector

FORM = "channel tiles"
CHANNELS = (1, 3, 16, 17, 24, 64, 65, 96, 200, 1000)
DTYPES = ("float32", "float16", "bfloat16")
VECTORS = ("gamma", "beta", "mean", "variance")


def batch_norm(*shape: int, dtype: str = "float32", residual: bool = False) -> Region:
    """Batch norm, perhaps with a residual and relu behind it."""
    nodes = [
        image("x", *shape, dtype=dtype),
        *(vector(name, shape[-1]) for name in VECTORS),
        ("y", ops.BatchNorm(), ["x", *VECTORS]),
    ]
    if residual:
        nodes += [
            image("other", *shape, dtype=dtype),
            ("sum", ops.Add(), ["y", "other"]),
            ("z", ops.Relu(), ["sum"]),
        ]
    return region(nodes)


def gradient(*shape: int, dtype: str = "float32") -> Region:
    sums = ("d_gamma", "d_beta")
    operands = ["dy", "x", "gamma", "mean", "variance", *sums]
    nodes = [
        *(image(name, *shape, dtype=dtype) for name in ("dy", "x")),
        *(vector(name, shape[-1]) for name in operands[2:]),
        ("dx", ops.BatchNormGrad(), operands),
    ]
    return region(nodes, phase="backward")


# -- values ----------
@pytest.mark.parametrize("channels", CHANNELS)
def test_batch_norm_and_its_gradient_of_any_channels(channels: int) -> None:
    size = (5, 3) if channels > 100 else (9, 7)
    check(batch_norm(*size, channels, residual=True), form=FORM)
    check(gradient(*size, channels), form=FORM)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [17, 64])
def test_every_dtype(channels: int, dtype: str) -> None:
    check(batch_norm(8, 3, channels, dtype=dtype, residual=True), form=FORM)
    check(gradient(8, 3, channels, dtype=dtype), form=FORM)


SCHEDULES = [(16, 64, 4), (64, 64, 8), (1, 128, 1), (32, 16, 2), (4, 256, 4)]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@pytest.mark.parametrize("channels", [3, 40, 65])
def test_every_schedule(channels: int, schedule: tuple[int, int, int]) -> None:
    rows, columns, warps = schedule
    check(batch_norm(9, 7, channels), form=FORM, schedule=Schedule(rows, columns, warps=warps))


def every_broadcast(height: int, width: int, channels: int, dtype: str = "float32") -> Region:
    return region(
        [
            image("x", height, width, channels, dtype=dtype),
            vector("bias", channels),
            image("gate", 1, 1, channels, dtype=dtype),
            image("map", height, width, 1, dtype=dtype),
            vector("number", 1),
            vector("plane", 1, height, width, channels),
            vector("line", width, channels),
            image("kept", height, width, channels, dtype="bool"),
            ("a", ops.Add(), ["x", "bias"]),
            ("b", ops.Multiply(), ["a", "gate"]),
            ("c", ops.Multiply(), ["b", "map"]),
            ("d", ops.Multiply(), ["c", "number"]),
            ("e", ops.Add(), ["d", "plane"]),
            ("f", ops.Add(), ["line", "e"]),
            ("y", ops.Where(), ["kept", "f", "x"]),
        ],
        outputs=["b", "y"],
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(9, 7, 65), (6, 8, 24), (4, 16, 32), (1, 1, 64), (3, 5, 1000)], ids=str)
def test_every_way_to_lie_against_a_tile(shape: tuple[int, int, int], dtype: str) -> None:
    given = every_broadcast(*shape, dtype=dtype)
    if FORM in map(str, forms_of(given)):
        check(given, form=FORM)
    else:
        assert shape == (9, 7, 65)


def test_other_ranks_and_no_batch() -> None:
    for shape in ((65,), (6, 33), (3, 2, 5, 24)):
        check(batch_norm(*shape), form=FORM)
    check(region([vector("w", 5, 70), vector("s", 70), ("y", ops.Multiply(), ["w", "s"])]), form=FORM)
    chain = [image("x", 7, 24), vector("s", 24), ("r", ops.Multiply(), ["x", "s"]), ("y", ops.Tanh(), ["r"])]
    check(region(chain, outputs=["r", "y"]), form=FORM)


@pytest.mark.parametrize("channels", [3, 40, 64])
def test_a_result_in_rows_of_a_concatenation(channels: int) -> None:
    given = batch_norm(5, 7, channels)
    given.pitches["y"] = channels + 9
    kernel = check(given, form=FORM)
    assert f"rows of {channels + 9} channels" in kernel.source


# -- how a value is seen ----------
PIXELS = [(1, 64), (3, 64), (16, 4), (17, 32), (24, 8), (64, 1), (65, 16), (1000, 1), (2048, 1)]


@pytest.mark.parametrize(("channels", "pixels"), PIXELS)
def test_rows_fill_tiles_and_begin_where_wide_loads_may(channels: int, pixels: int) -> None:
    rows = rows_of(TensorType(("N", 56, 56, channels), "float32"), 64)
    assert rows.pixels == pixels
    assert rows.pitch % 8 == 0
    assert rows.tiles(64) * 64 <= rows.pitch * 17 / 16
    assert rows.count in (0, 56 * 56 / pixels)


def test_what_does_not_end_with_a_row_is_left_to_the_flat_form() -> None:
    given = gated(7, 7, 24)
    assert [str(form) for form in forms_of(given)] == ["pointwise"]
    check(given)


def gated(height: int, width: int, channels: int) -> Region:
    operands = [image("x", height, width, channels), image("gate", 1, 1, channels)]
    return region([*operands, ("y", ops.Multiply(), ["x", "gate"])])


@pytest.mark.parametrize("channels", [32, 48, 96])
def test_narrower_tiles_where_rows_of_wide_ones_do_not_end_with_an_image(channels: int) -> None:
    kernel = check(gated(7, 7, channels), form=FORM)
    assert kernel.schedule.block_n == (16 if channels == 48 else 32)


def test_narrower_tiles_where_a_row_is_to_be_one_pixel() -> None:
    x, each = image("x", 14, 14, 96), image("map", 14, 14, 1)
    assert check(region([x, each, ("y", ops.Multiply(), ["x", "map"])]), form=FORM).schedule.block_n == 32
    assert check(batch_norm(14, 14, 96, dtype="bfloat16"), form=FORM).schedule.block_n == 64


# -- the choice ----------
@pytest.mark.parametrize("channels", [64, 256, 2048])
def test_the_model_prefers_tiles_where_there_are_channel_vectors(channels: int) -> None:
    size = (28, 28, channels)
    for given in (batch_norm(*size, dtype="bfloat16"), gradient(*size, dtype="bfloat16")):
        assert choose(given, "H200", batch=256)[0].name == FORM
    plain = region([image("x", *size), image("z", *size), ("y", ops.Add(), ["x", "z"])])
    assert form_of(plain).name == "pointwise"


def test_narrow_loads_cost_more_than_the_memory_of_a_batch_norm() -> None:
    model = CostModel.of("H200", batch=256)
    given = batch_norm(56, 56, 256, dtype="bfloat16")
    seconds = {str(f): f.seconds(given, f.candidates(given, model)[0], model) for f in forms_of(given)}
    memory = model.moving(given.cost(256).bytes)
    assert seconds[FORM] < 1.05 * memory
    assert seconds["pointwise"] > 2 * memory


@pytest.mark.parametrize(("size", "elements"), [((7, 7, 512), 1024), ((112, 112, 64), 2048)])
def test_few_rows_are_cut_finer_so_that_every_processor_has_some(
    size: tuple[int, int, int], elements: int
) -> None:
    given = batch_norm(*size, dtype="bfloat16")
    schedule = choose(given, "H200", batch=1, form=FORM)[1]
    assert (schedule.block_m * schedule.block_n, schedule.warps) == (elements, 4)


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "gfx942"])
def test_channel_vectors_reach_the_threads_without_shared_memory(target: str) -> None:
    kernel = emit(gradient(14, 14, 256, dtype="bfloat16"), form=FORM)
    (found,) = kernel.resources(target)
    assert (found.error, found.spills_bytes, found.shared_bytes) == (None, 0, 0)
    two = [image(name, 56, 56, 256, dtype="bfloat16") for name in ("x", "z")]
    others = [f"{name}2" for name in VECTORS]
    added = [
        *two,
        *(vector(name, 256) for name in (*VECTORS, *others)),
        ("y", ops.BatchNorm(), ["x", *VECTORS]),
        ("y2", ops.BatchNorm(), ["z", *others]),
        ("sum", ops.Add(), ["y", "y2"]),
        ("relu", ops.Relu(), ["sum"]),
    ]
    (found,) = emit(region(added), form=FORM).resources(target)
    assert (found.error, found.spills_bytes, found.shared_bytes) == (None, 0, 0)
    wider = emit(gradient(14, 14, 256, dtype="bfloat16"), form=FORM, schedule=Schedule(16, 256, warps=4))
    assert wider.resources(target)[0].shared_bytes > 0
