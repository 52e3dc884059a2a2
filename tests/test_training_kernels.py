"""What compiling ahead of time and counting say of the kernels of a training step."""

from __future__ import annotations

from math import ceil

import large
import pytest
import torch
from contraction_graphs import data_gradient, only_region, weight_gradient
from convloom.codegen import emit
from convloom.graph.losses import add_loss
from convloom.graph.ops import ActivationGrad, Add, Input, MaxUnpool2D, Relu
from convloom.graph.passes.precision import with_dtype
from convloom.planning.forms import choose, finishing_iterations
from convloom.planning.modes import Mode
from convloom.planning.products import product
from convloom.planning.program import plan
from convloom.planning.schedules import Schedule
from convloom.planning.splits import product_split, product_tiles
from convloom.planning.targets import DEVICES

SAME3 = ((1, 1), (1, 1))
MOST_ITERATIONS = 32
"""That a program of a finishing kernel takes one after another."""

CONVOLUTIONS = (
    *((size, channels, channels, (3, 3)) for size, channels in ((56, 64), (28, 128), (14, 256), (7, 512))),
    *(
        (size, c, k, (1, 1))
        for size, c, k in ((56, 64, 256), (28, 512, 128), (14, 256, 1024), (7, 2048, 512))
    ),
    *((size, c, k, (1, 1)) for size, c, k in ((56, 64, 64), (7, 512, 2048))),
)
"""Of a ResNet-50: size of the map, channels in and out, kernel."""


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100", "gfx942"])
@pytest.mark.parametrize(("channels", "dtype"), [(64, "bfloat16"), (128, "bfloat16"), (128, "float32")])
def test_unpooling_epilogues_do_not_spill(channels: int, dtype: str, target: str) -> None:
    """A level of a U-Net's way down: every row spreads over a window whose values are read beside it."""
    graph, dx = data_gradient((64, 64), channels, 2 * channels, (3, 3), (1, 1), SAME3, dtype=dtype)
    whole = ("N", 128, 128, channels)
    index = graph.add(Input(("N", 64, 64, channels), "uint8"), name="position")
    dx = graph.add(MaxUnpool2D((2, 2), (2, 2), ((0, 0), (0, 0)), (128, 128)), [dx, index])
    dx = graph.add(Add(), [dx, graph.add(Input(whole, dtype), name="skip")])
    saved = graph.add(Input(whole, dtype), name="activation")
    region = only_region(graph, dx=graph.add(ActivationGrad(Relu()), [dx, saved]))
    (found,) = emit(region, target=target, precision="tf32").resources(target)
    assert found.error is None
    assert found.spills_bytes == 0, found


@pytest.mark.parametrize("card", ["H100", "A100", "MI300X"])
@pytest.mark.parametrize("shape", CONVOLUTIONS, ids=str)
def test_weight_gradients_fill_the_card(shape: tuple[int, int, int, tuple[int, int]], card: str) -> None:
    """Of the rounds in which the card's processors take programs, the last is not left half empty."""
    size, c, k, kernel = shape
    region = weight_gradient((size, size), c, k, kernel, (1, 1), SAME3 if kernel == (3, 3) else ((0, 0),) * 2,
                             dtype="bfloat16")  # fmt: skip
    _, schedule = choose(region, card, batch=256)
    split, processors = product_split(product(region), schedule), DEVICES[card].processors
    rounds = product_tiles(product(region), schedule) * split.parts(256) / processors
    assert rounds / ceil(rounds) >= 0.8, f"{rounds:.2f} rounds of {schedule}"
    assert split.iterations(256) <= MOST_ITERATIONS


@pytest.mark.parametrize("batch", [1, 2, 3, 5])
def test_the_parts_of_a_launch_are_those_that_planning_counts(
    batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Emitted files hold the formulas of `Split` as text."""
    region = weight_gradient((7, 5), 3, 17, (3, 3), (1, 1), SAME3, bias=False)
    schedule = Schedule(16, 16, 16, chunk=32, programs=8)
    module = emit(region, schedule=schedule, form="weight gradient").load(interpreted=True)
    taken = []
    empty = torch.empty

    def noted(*size: object, **options: object) -> torch.Tensor:
        taken.append(size[0])
        return empty(*size, **options)  # type: ignore[call-overload]

    with monkeypatch.context() as patch:
        patch.setattr(torch, "empty", noted)
        module.launch(*module.example(batch), *module.results(batch))
    parts = product_split(product(region), schedule).parts(batch)
    assert taken == ([(parts, 3 * 3 * 3 * 17)] if parts > 1 else [])


def test_no_sum_of_a_training_step_is_finished_by_a_long_walk() -> None:
    """A ResNet-50 at 256 images: 13,734 iterations one after another, where one program walked 392 chunks."""
    graph = with_dtype(large.resnet50().to_graph(), "bfloat16").copy()
    graph.outputs["loss"] = add_loss(graph, "categorical_crossentropy")
    program = plan(graph, Mode(training=True, backward=True), loss=["loss"])
    each = {step.region.name: finishing_iterations(step.region, 256) for step in program.steps}
    assert max(each.values()) <= MOST_ITERATIONS, max(each.items(), key=lambda item: item[1])
    assert 100 <= sum(each.values()) <= 600
