"""Operands beyond 2^31 elements: every form addresses them, or refuses with one clear error.

Memory that nobody touches takes none, so such operands cost little as long as one program runs, the last one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from convloom.codegen import Kernel, NotEmittable, emit
from convloom.graph import ops
from convloom.graph.errors import ShapeError
from convloom.planning.forms import choose
from convloom.planning.limits import MOST_ROWS, batch_refusal, most_images
from convloom.planning.regions import Region
from huge import last_program, untouched
from kernel_checks import EPS, difference, expected, image, region, vector

import convloom as cl
from convloom import layers as L

LAST = 3
"""Images at the end that hold numbers, all others being 0."""

MISSED = -77.0
"""What stands where the last program writes nothing."""

HALF = ((1, 1), (1, 1))


def block(*members: Any, inputs: Any = (), phase: str = "forward", anchor: str = "") -> Callable[[], Region]:
    return lambda: region([*inputs, *members], phase=phase, anchor=anchor)


X = image("x", 8, 8, 64, dtype="float16")
W3, W1 = vector("w", 3, 3, 64, 16, dtype="float16"), vector("w", 1, 1, 64, 16, dtype="float16")
DY = image("dy", 8, 8, 16, dtype="float16")
STRIDED = ops.Conv2DDataGrad((2, 2), HALF, input_size=(15, 15))

FORMS: dict[str, Callable[[], Region]] = {
    "convolution": block(("y", ops.Conv2D(padding=HALF), ["x", "w"]), inputs=[X, W3]),
    "convolution by one pixel": block(("y", ops.Conv2D(), ["x", "w"]), inputs=[X, W1]),
    "scaled by image, pooled": block(
        ("c", ops.Conv2D(), ["x", "w"]),
        ("s", ops.Multiply(), ["c", "by"]),
        ("y", ops.MaxPool2D(), ["s"]),
        inputs=[X, W1, image("by", 1, 1, 16, dtype="float16")],
        anchor="c",
    ),
    "strided data gradient": block(
        ("dx", STRIDED, ["dy", "w"]),
        inputs=[DY, vector("w", 3, 3, 64, 16, dtype="float16")],
        phase="backward",
    ),
    "depthwise": block(
        ("c", ops.Conv2D(padding=HALF, groups=64), ["x", "w"]),
        ("y", ops.Multiply(), ["c", "by"]),
        inputs=[X, vector("w", 3, 3, 1, 64, dtype="float16"), image("by", 1, 1, 64, dtype="float16")],
        anchor="c",
    ),
    "strided depthwise data gradient": block(
        ("dx", ops.Conv2DDataGrad((2, 2), HALF, groups=64, input_size=(15, 15)), ["dy", "w"]),
        inputs=[image("dy", 8, 8, 64, dtype="float16"), vector("w", 3, 3, 1, 64, dtype="float16")],
        phase="backward",
    ),
    "dense": block(("y", ops.Dense(), ["x", "w"]), inputs=[X, vector("w", 64, 16, dtype="float16")]),
    "matrix product": block(
        ("y", ops.MatMul(transpose_b=True), ["x", "x2"]),
        inputs=[image("x", 64, 64, dtype="float16"), image("x2", 16, 64, dtype="float16")],
    ),
    "max pooling": block(("y", ops.MaxPool2D((3, 3), (2, 2), HALF), ["x"]), inputs=[X]),
    "gradient of pooling": block(
        ("u", ops.AverageUnpool2D((3, 3), (2, 2), HALF, input_size=(16, 16)), ["dy"]),
        inputs=[DY],
        phase="backward",
    ),
    "pointwise": block(
        ("s", ops.Multiply(), ["x", "by"]),
        ("y", ops.Relu(), ["s"]),
        inputs=[X, image("by", 1, 1, 64, dtype="float16")],
    ),
    "softmax": block(("y", ops.Softmax(), ["x"]), inputs=[X]),
    "padding": block(("y", ops.Pad((((1, 0)), ((0, 2)), ((0, 0)))), ["x"]), inputs=[X]),
    "sums of an image": block(("y", ops.Reduce((1, 2)), ["x"]), inputs=[X]),
    "resize": block(("y", ops.Resize((1, 2), (16, 16), "nearest"), ["x"]), inputs=[X]),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_last_images_of_a_batch_beyond_32_bits(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = FORMS[form]()
    operands = [node.type for node in (*given.inputs, *given.outputs) if node.type.batched]
    largest = max(kind.elements(1) for kind in operands)
    check_last_images(emit(given), 2**31 // largest + 5, monkeypatch)


def test_numbers_of_an_image_s_channels_beyond_32_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    by = image("by", 1, 1, 1024, dtype="float16")
    given = region([image("x", 2, 1, 1024, dtype="float16"), by, ("y", ops.Multiply(), ["x", "by"])])
    check_last_images(emit(given, form="channel tiles"), 2**31 // 1024 + 5, monkeypatch)


def check_last_images(kernel: Kernel, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    module = kernel.load(interpreted=True)
    small = module.example(LAST, seed=1)
    inputs = [untouched(node.type.size(batch), node.type.torch_dtype) for node in kernel.inputs]
    for node, whole, part in zip(kernel.inputs, inputs, small, strict=True):
        (whole[-LAST:] if node.type.batched else whole).copy_(part)
    outputs = [untouched(node.type.size(batch), node.type.torch_dtype) for node in kernel.outputs]
    for value in outputs:
        value[-LAST:] = MISSED
    assert max(value.numel() for value in (*inputs, *outputs)) > 2**31
    with last_program(module, kernel, monkeypatch):
        module.launch(*inputs, *outputs)
    for found, wanted in zip(outputs, expected(kernel, small), strict=True):
        last = found[-LAST:]
        written = last != MISSED
        assert int(written.sum()) >= 16
        assert difference(last[written], wanted[written]) <= 4 * EPS["float16"]


def test_sums_over_a_batch_beyond_32_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all pixels: what is last in memory is in the last program's part of the sum."""
    wide, narrow = image("x", 2, 4096, dtype="float16"), image("dy", 2, 16, dtype="float16")
    product = [wide, narrow, ("dw", ops.DenseWeightGrad(), ["x", "dy"])]
    sums = [wide, ("total", ops.Reduce((0, 1)), ["x"])]
    for given in (region(product, phase="backward"), region(sums)):
        schedule = replace(choose(given)[1], programs=40_000)  # more than fill a GPU: a short last part
        kernel = emit(given, schedule=schedule)
        module = kernel.load(interpreted=True)
        batch = 2**31 // (2 * 4096) + 5
        small = module.example(1, seed=1)
        inputs = [untouched(node.type.size(batch), torch.float16) for node in kernel.inputs]
        for whole, part in zip(inputs, small, strict=True):
            whole[-1:].copy_(part)
        outputs = module.results(batch)
        parts: list[torch.Tensor] = []
        with last_program(module, kernel, monkeypatch), monkeypatch.context() as patch:
            patch.setattr(torch, "empty", partial(_kept, parts))
            module.launch(*inputs, *outputs)
        for part, wanted in zip(parts, expected(kernel, small), strict=True):
            found = part.double().sum(0).reshape(wanted.shape)
            written = found != 0.0
            assert int(written.sum()) >= 16
            assert difference(found[written], wanted[written]) <= 1e-5


def _kept(parts: list[torch.Tensor], size: tuple[int, ...], **like: Any) -> torch.Tensor:
    parts.append(torch.zeros(size))
    return parts[-1]


# -- what is refused -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (
            lambda: region([image("x", 46_341, 46_341, 1), ("y", ops.Relu(), ["x"])]),
            r"x is float32\[N,46341,46341,1\]: an image of 2,147,488,281 elements, and kernels count up to "
            r"2,146,435,072 within one; use backend='aten' for it",
        ),
        (
            lambda: region([vector("x", 70_000, 40_000), ("y", ops.Relu(), ["x"])]),
            "a value of 2,800,000,000 elements",
        ),
        (
            lambda: region(
                [image("x", 4096, 4096, 1), vector("w", 4096, 4096, 1, 4), ("y", ops.Conv2D(), ["x", "w"])]
            ),
            "a tile of conv2d reaches over 257 images, 4,311,744,512 elements",
        ),
        (
            lambda: region(
                [
                    image("x", 3, 3, 70_000),
                    vector("w", 3, 3, 1, 70_000),
                    ("y", ops.Conv2D(groups=70_000), ["x", "w"]),
                ]
            ),
            "y has 70,000 groups, a launch at most 65,535",
        ),
    ],
    ids=["image", "weight", "tile", "grid"],
)
def test_what_leaves_32_bits_whatever_the_batch_is_has_no_kernel(
    given: Callable[[], Region], reason: str
) -> None:
    with pytest.raises(NotEmittable, match=reason):
        emit(given())


def test_the_rows_of_a_batch_are_counted_by_what_has_most_of_them() -> None:
    """A pooling's windows that overlap, and sums over parts of an image, count more than its pixels."""
    assert most_images(FORMS["convolution"]()) == MOST_ROWS // 64
    overlapping = region(
        [X, W1, ("c", ops.Conv2D(), ["x", "w"]), ("y", ops.MaxPool2D((2, 2), (1, 1)), ["c"])], anchor="c"
    )
    assert most_images(overlapping) == MOST_ROWS // (7 * 7 * 4)
    assert most_images(FORMS["sums of an image"]()) == MOST_ROWS // 64
    assert most_images(region([X, ("t", ops.Reduce((3,)), ["x"])])) == MOST_ROWS // 64
    assert most_images(region([X, ("t", ops.Reduce((0, 1, 2, 3)), ["x"])])) == MOST_ROWS // 4096
    assert most_images(region([vector("w", 5), ("y", ops.Relu(), ["w"])])) is None


def test_the_lanes_of_a_direct_convolution_are_counted() -> None:
    """A small map of many channels has more of them than pixels."""
    kernel, depthwise = vector("w", 3, 3, 1, 1024), ("y", ops.Conv2D(padding=HALF, groups=1024), ["x", "w"])
    assert most_images(region([image("x", 1, 1, 1024), kernel, depthwise])) == MOST_ROWS // 1024
    assert most_images(region([image("x", 9, 3, 1024), kernel, depthwise])) == MOST_ROWS // (3 * 1024)


@pytest.mark.parametrize("fuse", [True, False])
def test_a_batch_that_kernels_cannot_count_is_refused_before_anything_runs(fuse: bool) -> None:
    image_input = cl.Input((4096, 4096, 1), name="image")
    model = cl.Model(image_input, L.GlobalMaxPooling2D()(L.ReLU(name="relu")(image_input)))
    net = cl.compile(model, device="cpu", backend="triton", fuse=fuse)
    most = MOST_ROWS // 4096**2
    assert batch_refusal(net.program.regions, most) is None
    with (
        torch.no_grad(),
        pytest.raises(
            ShapeError,
            match=rf"a batch of {most + 1} has 1,090,519,040 rows in .*relu.*, and kernels count up to "
            rf"1,073,741,824; call with at most {most} examples at a time",
        ),
    ):
        net(untouched((most + 1, 4096, 4096, 1), torch.float32))
    assert f"assert x.shape[0] <= {most}, " in net.kernels[0].source
