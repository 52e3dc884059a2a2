"""No number of a kernel leaves its 32 bits: every form's last program, at the largest batch it takes.

Triton can check each addition and multiplication of integers; its interpreter is made to do so here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from convloom.codegen import emit
from convloom.codegen.dispatch import EMITTERS
from convloom.codegen.dispatch import PRODUCTS as MULTIPLYING
from convloom.graph import ops
from convloom.graph.errors import CompileError
from convloom.graph.op import Kind
from convloom.planning.forms import NotEmittable, choose, forms_of
from convloom.planning.limits import MOST_ELEMENTS, most_images
from convloom.planning.regions import Region
from huge import last_program, untouched
from kernel_checks import image, region, vector
from op_cases import CASES, SOURCES
from triton.runtime import interpreter

WIDE = ((3, 3), (3, 3))

FEW = {
    "sums": 1 << 8, "look up gradient": 1 << 10, "dense gradients": 1 << 12, "loss": 1 << 16,
    "pairs": 1 << 10,
}  # fmt: skip
"""Batches of forms of which one program goes over all of the batch, one step after another."""

PARTS, FINISHED = 4_000_000, 40_000
"""Of a sum that programs share: many, so that one of them is short; and fewer where they are added up too."""

MORE: dict[str, Region] = {
    "border": region(
        [image("x", 1, 1, 3), vector("w", 7, 7, 3, 8), ("y", ops.Conv2D(padding=WIDE), ["x", "w"])]
    ),
    "border, weight": region(
        [
            image("x", 1, 1, 3), image("dy", 1, 1, 8),
            ("dw", ops.Conv2DWeightGrad(padding=WIDE, kernel_size=(7, 7)), ["x", "dy"]),
        ],
        phase="backward",
    ),
    "dense": region(
        [
            image("x", 12), image("dy", 10), vector("w", 12, 10),
            ("dx", ops.DenseDataGrad(), ["dy", "w"]), ("dw", ops.DenseWeightGrad(), ["x", "dy"]),
        ],
        outputs=("dx", "dw"), anchor="dx", phase="backward",
    ),
    "row norm, summed": region(
        [
            image("dy", 3, 5), image("x", 3, 5), vector("gamma", 5),
            ("dx", ops.RowNormGrad(), ["dy", "x", "gamma"]), ("d_beta", ops.Reduce((0, 1)), ["dy"]),
        ],
        outputs=("dx", "d_beta"), anchor="dx", phase="backward",
    ),
}  # fmt: skip


def regions() -> Iterator[tuple[str, Region]]:
    for case in CASES:
        if not isinstance(case.op, SOURCES):
            graph = case.graph()
            yield str(case), Region(graph, graph["y"], [graph["y"]], "kernel_under_test")
    yield from MORE.items()


def counted() -> Iterator[tuple[str, str, Region]]:
    """Each form that computes an op of the cases; of pointwise ones, once for operands of the same shapes."""
    met = set()
    for name, given in regions():
        shapes = tuple(node.type for node in given.inputs)
        if given.anchor.op.kind is Kind.POINTWISE and shapes in met:
            continue
        met.add(shapes)
        try:
            forms = forms_of(given)
        except NotEmittable:
            continue
        yield from ((form.name, name, given) for form in forms)


COUNTED = [pytest.param(form, given, id=f"{form}-{name}") for form, name, given in counted()]


def test_every_form_is_here() -> None:
    assert {param.values[0] for param in COUNTED} == {*EMITTERS, *MULTIPLYING}


@pytest.mark.parametrize(("form", "given"), COUNTED)
def test_no_number_leaves_32_bits(form: str, given: Region, monkeypatch: pytest.MonkeyPatch) -> None:
    most = most_images(given)
    if most is None:
        return
    schedule = choose(given, form=form)[1]
    shared = form != "channel sums" and schedule.programs > 0
    if schedule.programs > 0:
        schedule = replace(schedule, programs=PARTS if shared else FINISHED)
    kernel = emit(given, form=form, schedule=schedule)
    at_once = form == "channel sums" and len(kernel.functions) == 1
    batch = min(most, FEW["sums" if at_once else form]) if at_once or form in FEW else most
    run_checked(kernel, batch, monkeypatch, without="add_parts" if shared else None)


def run_checked(kernel: Any, batch: int, monkeypatch: pytest.MonkeyPatch, without: str | None = None) -> None:
    """The last program of each function. without: the one that is left out."""
    module = kernel.load(interpreted=True)
    nodes = [*kernel.inputs, *kernel.outputs]
    operands = [untouched(node.type.size(batch), node.type.torch_dtype) for node in nodes]
    builder = interpreter.interpreter_builder
    with monkeypatch.context() as patch:
        patch.setattr(builder, "options", replace(builder.options, debug=True))
        patch.setattr(torch, "empty", _empty)
        with last_program(module, kernel, patch, without):
            module.launch(*operands)


def _empty(size: Any, dtype: torch.dtype, device: Any) -> torch.Tensor:
    return untouched(tuple(size) if isinstance(size, tuple) else (size,), dtype)


def test_a_number_that_leaves_32_bits_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = emit(region([image("x", 9, 9, 4), ("y", ops.MaxPool2D(), ["x"])]))
    most = most_images(kernel.region)
    assert most is not None
    monkeypatch.setattr("convloom.codegen.text.source.most_images", lambda _: 4 * most)
    with pytest.raises(CompileError, match="int32 overflow"):
        run_checked(emit(kernel.region), 4 * most, monkeypatch)


# -- large images --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [15_000, 18_000])
def test_the_map_of_a_first_layer_is_laid_out_as_far_as_32_bits_reach(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pixel of three channels has four there: two images of 9.7e8 elements would be 2.6e9."""
    x = image("x", size, size, 3, dtype="bfloat16")
    forward = region(
        [
            x, vector("w", 7, 7, 3, 8, dtype="bfloat16"),
            ("y", ops.Conv2D((9, 9), WIDE), ["x", "w"]),
        ]
    )  # fmt: skip
    pixels = (size + 6 - 7) // 9 + 1
    backward = region(
        [
            x, image("dy", pixels, pixels, 8, dtype="bfloat16"),
            ("dw", ops.Conv2DWeightGrad((9, 9), WIDE, kernel_size=(7, 7)), ["x", "dy"]),
        ],
        phase="backward",
    )  # fmt: skip
    for given in (forward, backward):
        first = [form.name for form in forms_of(given) if form.lays_out]
        assert bool(first) == (2 * 4 * size * size <= MOST_ELEMENTS)
        form, schedule = choose(given)
        many = replace(schedule, programs=PARTS) if schedule.programs else schedule
        run_checked(emit(given, form=form.name, schedule=many), 3, monkeypatch, without="add_parts")


@pytest.mark.parametrize("features", [600_000, 4_000_000])
def test_the_sections_of_a_weight_gradient_reach_as_far_as_32_bits(
    features: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, dy = image("x", features, dtype="float16"), image("dy", 16, dtype="float16")
    given = region([x, dy, ("dw", ops.DenseWeightGrad(), ["x", "dy"])], phase="backward")
    schedule = replace(choose(given)[1], block_m=64, block_n=16, block_k=64, programs=1, chunk=64)
    run_checked(emit(given, schedule=schedule), 2048, monkeypatch)
