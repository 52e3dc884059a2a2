"""Issue ratios of the schedules that are chosen: never above those that were chosen before them.

Loops are compiled for sm_90, as bfloat16; the figure beside each kind is that of its predecessor.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from contraction_graphs import convolution, data_gradient, only_region, weight_gradient
from convloom.codegen.dispatch import emit
from convloom.codegen.machine.aot import compile_many
from convloom.codegen.machine.loops import issue_ratio, multiplied
from convloom.graph.ops import MaxPool2D, Relu
from convloom.planning.cost import CostModel
from convloom.planning.forms import choose
from convloom.planning.regions import Region
from convloom.planning.targets import target

BORDERS = {1: ((0, 0), (0, 0)), 3: ((1, 1), (1, 1))}


def forward(size: int, c: int, k: int, kernel: int = 3, pooled: bool = False) -> Region:
    graph, y = convolution((size, size), c, k, (kernel, kernel), (1, 1), BORDERS[kernel], dtype="bfloat16")
    y = graph.add(Relu(), [y])
    return only_region(graph, y=graph.add(MaxPool2D((2, 2), (2, 2)), [y]) if pooled else y)


def backward(size: int, c: int, k: int) -> Region:
    graph, y = data_gradient((size, size), c, k, (3, 3), (1, 1), BORDERS[3], dtype="bfloat16")
    return only_region(graph, y=y)


def weights(size: int, c: int, k: int) -> Region:
    return weight_gradient((size, size), c, k, (3, 3), (1, 1), BORDERS[3], dtype="bfloat16")


KINDS: dict[str, tuple[Callable[[], Region], float]] = {
    "64 columns": (partial(forward, 64, 64, 64), 0.71),
    "64 columns, 56 x 56": (partial(forward, 56, 64, 64), 0.80),
    "64 columns, pooled": (partial(forward, 224, 64, 64, pooled=True), 0.75),
    "128 columns": (partial(forward, 28, 128, 128), 0.57),
    "128 columns, pooled": (partial(forward, 112, 128, 128, pooled=True), 0.60),
    "256 columns": (partial(forward, 14, 256, 256), 0.57),
    "1x1": (partial(forward, 14, 1024, 256, kernel=1), 0.57),
    "data gradient, 64 columns": (partial(backward, 64, 64, 64), 0.71),
    "data gradient": (partial(backward, 14, 256, 256), 0.60),
    "weight gradient": (partial(weights, 14, 256, 256), 0.86),
    "weight gradient, 64 columns": (partial(weights, 64, 64, 64), 1.6),
}


@pytest.mark.parametrize("kind", KINDS)
def test_no_loop_issues_more_than_its_predecessor(kind: str) -> None:
    make, before = KINDS[kind]
    region = make()
    form, schedule = choose(region, "H200", batch=256)
    request = emit(region, schedule=schedule, form=form.name).requests("sm_90")[0]
    [made] = compile_many([request], jobs=1)
    assert made.error is None
    assert made.spills_bytes == 0
    done = multiplied(made.loop, schedule.warps)
    assert done % (schedule.block_m * schedule.block_n * schedule.block_k) == 0
    cycle = target("sm_90").products_a_cycle("bfloat16")
    steps = done // (schedule.block_m * schedule.block_n * schedule.block_k)
    assert issue_ratio(made.loop_instructions, schedule, int(cycle)) / steps <= before, schedule


def test_the_model_expects_it_of_every_class_of_batches() -> None:
    """Small maps and few images take what fills the card, and their sums are long."""
    for kind in ("64 columns", "64 columns, pooled", "128 columns", "256 columns", "data gradient"):
        make, before = KINDS[kind]
        for batch in (32, 256):
            region = make()
            form, schedule = choose(region, "H200", batch=batch)
            product = form.product(region)
            assert product is not None
            found = CostModel.of("H200", batch=batch).product(product, schedule)
            assert found.issue_ratio <= 1.15 * before, (kind, batch, str(schedule))
