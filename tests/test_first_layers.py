"""First layers: the map laid out with its border and four channels, rows of taps as runs of elements."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from contraction_graphs import check, convolution, only_region, weight_gradient
from convloom.codegen import NotEmittable
from convloom.codegen.dispatch import emit
from convloom.graph.ir import Graph
from convloom.graph.ops import (
    Add,
    AveragePool2D,
    Cast,
    Conv2D,
    Conv2DWeightGrad,
    Input,
    MaxPool2D,
    MaxPoolIndex2D,
    Multiply,
    Parameter,
    Relu,
    Scale,
    Softmax,
)
from convloom.graph.passes.precision import with_dtype
from convloom.planning.cost import CostModel
from convloom.planning.forms import FORMS, choose
from convloom.planning.forms.first import LANES, MOST_RUN, laid
from convloom.planning.modes import Mode
from convloom.planning.program import plan
from convloom.planning.regions import Region
from convloom.planning.schedules import Schedule
from kernel_checks import EPS, difference

import convloom as cl
from convloom import layers as L

FORM = "first convolution"
SAME3 = ((1, 1), (1, 1))

# size, channels in and out, kernel, strides, padding, dilation
SHAPES: list[tuple[Any, ...]] = [
    ((15, 12), 3, 17, (7, 7), (2, 2), ((3, 3), (3, 3))),
    ((9, 14), 3, 5, (3, 3), (1, 1), SAME3),
    ((8, 10), 3, 20, (3, 3), (2, 2), ((0, 1), (0, 1))),
    ((7, 5), 1, 6, (5, 5), (1, 1), ((2, 2), (2, 2))),
    ((9, 8), 2, 3, (3, 2), (1, 1), ((2, 1), (0, 2)), (2, 3)),
    ((23, 19), 4, 18, (11, 11), (4, 4), ((2, 1), (1, 2))),
    ((9, 4), 2, 3, (7, 1), (2, 1), ((1, 3), (0, 0))),
    ((4, 30), 3, 33, (1, 16), (1, 2), ((0, 0), (7, 8))),
    ((11, 6), 4, 65, (2, 4), (3, 1), ((0, 0), (0, 0))),
    ((6, 9), 3, 4, (3, 3), (1, 1), ((0, 4), (5, 0))),
    ((12, 12), 3, 9, (2, 2), (5, 3)),
]
LEAST = Schedule(16, 16, 16)


def identity(shape: tuple[Any, ...]) -> str:
    size, c, k, kernel, *_ = shape
    return f"{size[0]}x{size[1]}x{c}-{kernel[0]}x{kernel[1]}x{k}"


def small(region: Region, rows: int = 1, **others: Any) -> Schedule:
    """Tiles so small that a test takes several; a step takes so many rows of taps."""
    return Schedule(16, 16, rows * laid(region).run, group_m=2, **others)


def stem(shape: tuple[Any, ...], dtype: str = "float32") -> Region:
    graph, y = convolution(*shape, dtype=dtype)
    return only_region(graph, y=graph.add(Relu(), [y]))


def terms(shape: tuple[Any, ...]) -> int:
    return int(shape[1] * shape[3][0] * shape[3][1])


# -- values --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shape", SHAPES, ids=identity)
def test_convolution(shape: tuple[Any, ...]) -> None:
    region = stem(shape)
    check(region, small(region), batch=3, terms=terms(shape), form=FORM)


@pytest.mark.parametrize("shape", SHAPES[:4], ids=identity)
@pytest.mark.parametrize("rows", [2, 4])
def test_steps_of_several_rows_of_taps(shape: tuple[Any, ...], rows: int) -> None:
    region = stem(shape)
    check(region, small(region, rows), terms=terms(shape), form=FORM)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[1], SHAPES[4]], ids=identity)
def test_convolution_in_16_bits(shape: tuple[Any, ...], dtype: str) -> None:
    region = stem(shape, dtype)
    check(region, small(region), terms=terms(shape), form=FORM)


@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[1]], ids=identity)
def test_every_kind_of_schedule_computes_the_same(shape: tuple[Any, ...]) -> None:
    region = stem(shape, "bfloat16")
    (form,) = (form for form in FORMS if form.name == FORM)
    offered = form.candidates(region, CostModel.of("sm_90"))
    steps = {s.block_k: s for s in offered}
    assert len(steps) > 1
    assert all(k % laid(region).run == 0 for k in steps)
    for schedule in [offered[0], *steps.values()]:
        check(region, schedule, batch=1, terms=terms(shape), form=FORM)


# -- what rides in it ----------------------------------------------------------------------------------------
def from_bytes(dtype: str, *more: Any) -> Region:
    """A convolution of an image of bytes, rescaled; more: ops on it before the convolution."""
    graph = Graph()
    image = graph.add(Input(("N", 9, 13, 3), "uint8"), name="image")
    value = graph.add(Cast(dtype), [image])
    value = graph.add(Scale(1 / 64, -0.5), [value])
    for op in more:
        value = graph.add(op, [value, graph.add(Parameter((3,), dtype))])
    weight = graph.add(Parameter((3, 3, 3, 18), dtype), name="kernel")
    conv = graph.add(Conv2D((2, 2), SAME3), [value, weight], name="conv")
    return only_region(graph, y=graph.add(Relu(), [conv]))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_bytes_are_cast_and_rescaled_as_they_are_laid_out(dtype: str) -> None:
    region = from_bytes(dtype)
    kernel = check(region, small(region), batch=3, terms=27, form=FORM)
    assert [node.type.dtype for node in kernel.inputs][:1] == ["uint8"]


def test_members_that_take_zero_elsewhere_leave_the_border_alone() -> None:
    region = from_bytes("float32", Add(), Multiply())  # 0 becomes another number, but not in the border
    check(region, small(region), terms=27, form=FORM)


def test_two_maps_may_stand_before_it() -> None:
    graph = Graph()
    maps = [graph.add(Input(("N", 7, 6, 2)), name=name) for name in ("image", "other")]
    added = graph.add(Add(), maps, name="sum")
    weight = graph.add(Parameter((3, 3, 2, 5)), name="kernel")
    y = graph.outputs["y"] = graph.add(Conv2D((1, 1), SAME3), [added, weight], name="conv")
    region = Region(graph, graph[y], [graph[added], graph[y]])
    assert [form.name for form in FORMS if form.concerns(region.anchor.op) and not form.accepts(region)] == [
        FORM
    ]
    check(region, small(region), terms=18)


def test_what_is_laid_out_may_be_read_after_the_product_too() -> None:
    graph = Graph()
    image = graph.add(Input(("N", 6, 7, 3)), name="image")
    weight = graph.add(Parameter((3, 3, 3, 3)), name="kernel")
    conv = graph.add(Conv2D((1, 1), SAME3), [image, weight], name="conv")
    region = only_region(graph, y=graph.add(Add(), [conv, image]))
    check(region, small(region), terms=27, form=FORM)


@pytest.mark.parametrize("pool", [MaxPool2D(), AveragePool2D(), MaxPool2D((2, 4), (2, 2), ((0, 1), (1, 2)))])
def test_pooling_in_the_epilogue(pool: Any) -> None:
    graph, y = convolution((13, 18), 3, 18, (3, 3), (1, 1), SAME3)
    relu = graph.add(Relu(), [y])
    ends = {"pooled": graph.add(pool, [relu])}
    region = Region(graph, graph[y], [graph[name] for name in (y, relu, ends["pooled"])], "pooled_stem")
    graph.outputs = ends
    check(region, small(region), batch=3, terms=27, form=FORM)


def test_pooling_with_its_index_and_the_map_kept() -> None:
    graph, y = convolution((12, 10), 3, 9, (3, 3), (1, 1), SAME3)
    relu = graph.add(Relu(), [y])
    names = [graph.add(MaxPool2D(), [relu]), graph.add(MaxPoolIndex2D(), [relu])]
    region = only_region(graph, kept=relu, pooled=names[0], index=names[1])
    check(region, small(region), terms=27, form=FORM)


def test_a_softmax_over_the_channels() -> None:
    graph, y = convolution((5, 6), 3, 10, (3, 3), (1, 1), SAME3)
    region = only_region(graph, y=graph.add(Softmax(), [y]))
    check(region, small(region), terms=27, form=FORM)


def test_nan_and_infinity_reach_what_their_taps_reach() -> None:
    """The padding of a row of taps lies over the next pixel: nothing of it may come through."""
    kernel = emit(stem(SHAPES[0]), schedule=small(stem(SHAPES[0])), form=FORM)
    module = kernel.load(interpreted=True)
    x, *others = module.example(1)
    for place, value in (((2, 3), "nan"), ((9, 10), "inf"), ((14, 0), "-inf")):
        x[0][place] = float(value)
    outputs = module.results(1)
    module.launch(x, *others, *outputs)
    (wanted,) = module.reference(x, *others)
    for kind in (torch.isnan, torch.isinf):
        assert torch.equal(kind(outputs[0]), kind(wanted))


# -- which are laid out --------------------------------------------------------------------------------------
def refused(shape: tuple[Any, ...], *more: Any) -> str:
    graph, y = convolution(*shape, *more)
    region = only_region(graph, y=y)
    with pytest.raises(NotEmittable) as error:
        emit(region, form=FORM)
    (form,) = (form for form in FORMS if form.name == FORM)
    assert "does not compute it" in str(error.value)
    return str(form.accepts(region))


def test_what_is_no_first_layer() -> None:
    assert refused(((6, 5), 5, 4, (3, 3))) == "conv2d has 5 channels in 1 groups; a first layer 4 in one"
    grouped = refused(((6, 5), 4, 4, (3, 3)), (1, 1), SAME3, (1, 1), 2)
    assert grouped == "conv2d has 4 channels in 2 groups; a first layer 4 in one"
    assert refused(((6, 5), 3, 4, (1, 1))) == "conv2d has one tap, and no row of taps to load at once"
    assert refused(((6, 30), 3, 4, (1, 17))) == (
        f"conv2d: a row of 17 taps is longer than the {MOST_RUN // LANES} a step takes"
    )


def test_a_schedule_that_cuts_a_row_of_taps() -> None:
    region = stem(SHAPES[0])
    with pytest.raises(NotEmittable, match="rows of taps, 32 elements each; the schedule has block_k 16"):
        emit(region, form=FORM, schedule=LEAST)


# -- the gradient of the weight ------------------------------------------------------------------------------
GRADIENT = "first weight gradient"


@pytest.mark.parametrize("shape", SHAPES, ids=identity)
def test_weight_gradient(shape: tuple[Any, ...]) -> None:
    region = weight_gradient(*shape)
    schedule = Schedule(16, 16, 16, chunk=32, programs=1000)
    kernel = check(region, schedule, batch=3, terms=3 * pixels(region), form=GRADIENT)
    assert kernel.launches == 3


@pytest.mark.parametrize(
    "schedule",
    [Schedule(32, 16, 32, chunk=64, programs=1), Schedule(128, 64, 16, chunk=16, programs=9)],
)
def test_weight_gradient_with_other_tiles(schedule: Schedule) -> None:
    for shape in (SHAPES[0], SHAPES[4]):
        region = weight_gradient(*shape)
        check(region, schedule, batch=2, terms=2 * pixels(region), form=GRADIENT)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[1]], ids=identity)
def test_weight_gradient_in_16_bits(shape: tuple[Any, ...], dtype: str) -> None:
    region = weight_gradient(*shape, dtype=dtype)
    check(region, batch=1, terms=pixels(region), form=GRADIENT)


def pixels(region: Region) -> int:
    """Of dy, in one image."""
    dy = region.graph[region.anchor.inputs[1]].type
    return dy.elements() // dy.channels


def test_bytes_are_cast_before_a_weight_gradient_too() -> None:
    graph = Graph()
    image = graph.add(Input(("N", 9, 13, 3), "uint8"), name="image")
    cast = graph.add(Cast("float32"), [image], phase="backward")
    value = graph.add(Scale(1 / 4, -0.5), [cast], phase="backward")
    dy = graph.add(Input(("N", 5, 7, 6)), name="dy")
    op = Conv2DWeightGrad((2, 2), SAME3, kernel_size=(3, 3))
    dw = graph.add(op, [value, dy], phase="backward")
    graph.outputs["dw"] = dw
    region = Region(graph, graph[dw], [graph[name] for name in (cast, value, dw)], "gradient")
    check(region, Schedule(16, 16, 16, chunk=32, programs=1000), terms=70, form=GRADIENT)


# -- whole networks ------------------------------------------------------------------------------------------
def of_bytes(size: tuple[int, int]) -> cl.Model:
    """A network that reads an image's bytes, as cameras and files give them."""
    image = cl.Input((*size, 3), dtype="uint8")
    h = L.Rescaling(1 / 127.5, offset=-1.0)(image)
    h = L.Conv2D(64, 7, strides=2, padding="same", activation="relu", name="stem")(h)
    return cl.Model(image, L.Dense(3)(L.GlobalAveragePooling2D()(h)))


def test_the_cast_of_an_image_rides_in_both_passes() -> None:
    graph = with_dtype(of_bytes((224, 200)).to_graph(), "bfloat16")
    program = plan(graph, Mode(training=True, backward=True), target="H200")
    named = {step.region.name: step.form for step in program.steps if step.form}
    assert named["cast_scale_conv2d_relu"] == FORM
    assert named["cast_scale_conv2d_weight_grad_reduce"] == GRADIENT
    assert program.saved[0] == program.inputs[0].name  # its bytes, and nothing that follows from them
    assert "rescaling" not in " ".join(program.saved)


def test_training_on_bytes_computes_what_the_definitions_do() -> None:
    found, model = [], of_bytes((64, 90))
    x = torch.randint(0, 256, (1, 64, 90, 3), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    for backend, dtype in (("aten", "float64"), ("triton", "bfloat16")):
        net = cl.compile(model, device="cpu", backend=backend, dtype=dtype).train()
        net(x).square().sum().backward()
        found.append([parameter.grad for parameter in net.parameters()])
    for wanted, gradient in zip(*found, strict=True):
        assert wanted is not None
        assert gradient is not None
        assert difference(gradient, wanted) <= 4 * EPS["bfloat16"]  # x, w, y and dy are rounded


def test_a_value_that_others_read_is_kept_as_it_was() -> None:
    image = cl.Input((16, 16, 3), dtype="uint8")
    h = L.Rescaling(1 / 255, name="scaled")(image)
    outputs = [L.Conv2D(4, 3)(h), L.Dense(2)(L.Flatten()(h))]
    program = plan(cl.Model(image, outputs).to_graph(), Mode(training=True, backward=True))
    assert "scaled" in " ".join(program.saved)


# -- as compiled ---------------------------------------------------------------------------------------------
STEM = ((224, 224), 3, 64, (7, 7), (2, 2), ((3, 3), (3, 3)))


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100", "gfx942"])
def test_stems_compile_lean(target: str) -> None:
    kernels = [
        emit(stem(STEM, "bfloat16"), target=target, form=FORM),
        emit(weight_gradient(*STEM, dtype="bfloat16"), target=target, form=GRADIENT),
    ]
    for kernel in kernels:
        lay_out, product, *_ = kernel.resources(target)
        assert (lay_out.error, product.error) == (None, None)
        assert lay_out.spills_bytes == product.spills_bytes == 0
        assert product.matrix_instructions


# -- which form is chosen ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("shape", "dtype", "wanted"),
    [
        (STEM, "bfloat16", FORM),
        (((224, 224), 3, 64, (3, 3), (1, 1), SAME3), "bfloat16", FORM),
        (((28, 28), 1, 6, (5, 5), (1, 1), ((2, 2), (2, 2))), "bfloat16", "convolution"),  # one launch more
        (STEM, "float32", "convolution"),  # without matrix units each product of padding costs
    ],
)
def test_the_cost_model_chooses_what_is_laid_out(shape: tuple[Any, ...], dtype: str, wanted: str) -> None:
    form, _ = choose(stem(shape, dtype), "H200")
    assert form.name == wanted
