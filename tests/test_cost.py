"""The cost model of products: it orders schedules as compiled code does, and fills cards on small maps."""

from __future__ import annotations

import itertools
from dataclasses import replace
from math import ceil

import large
import pytest
from contraction_graphs import convolution, only_region, weight_gradient
from convloom.graph.op import Kind
from convloom.graph.ops import Add, Dense, Input, Relu
from convloom.graph.passes.precision import with_dtype
from convloom.planning.cost import CostModel
from convloom.planning.forms import candidates, choose
from convloom.planning.forms.tiles import ranked, tiles
from convloom.planning.product_time import OF_COMPUTED, ProductTime
from convloom.planning.products import product
from convloom.planning.program import plan
from convloom.planning.schedules import Schedule
from convloom.planning.targets import DEVICES, device
from static_counts import CASES, DTYPES, TARGETS, TILES, Count, read, region

CLEARLY = 1.35
"""Times one compiled issue ratio over another from which the model must see the same order."""


def model_of(count: Count) -> ProductTime:
    """The model's view of a compiled loop."""
    precision = "tf32" if count.dtype == "tf32" else "ieee"
    model = CostModel.of(count.target, precision)
    return model.product(product(region(count.case, count.dtype)), count.schedule)


def compiled_ratio(count: Count) -> float:
    s = count.schedule
    return count.instructions * s.warps / (s.block_m * s.block_n * s.block_k)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_the_model_orders_schedules_as_compiled_loops_do(case: str, dtype: str, target: str) -> None:
    """Loops of short steps are left out: where the compiler writes several steps out, it is theirs that is
    counted."""
    rows = [c for c in read() if (c.case, c.dtype, c.target) == (case, dtype, target)]
    rows = [c for c in rows if c.schedule.block_k >= (64 if dtype == "bfloat16" else 32)]
    assert len(rows) >= 8
    compared = wrong = 0
    for one, other in itertools.permutations(rows, 2):
        if compiled_ratio(one) > CLEARLY * compiled_ratio(other):
            compared += 1
            wrong += model_of(one).issue_ratio <= model_of(other).issue_ratio
    assert compared > 10
    assert wrong <= compared // 20, f"{wrong} of {compared} pairs"


def test_tiles_that_spilled_are_not_offered() -> None:
    spilled = [count for count in read() if count.spills_bytes]
    assert spilled
    for count in spilled:
        precision = "tf32" if count.dtype == "tf32" else "ieee"
        offered = candidates(region(count.case, count.dtype), count.target, precision=precision)
        assert count.schedule not in offered


def test_stages_are_not_offered_where_they_spilled() -> None:
    """As docs/gates.md's networks had it: 176 bytes on sm_90, 48 on sm_80."""
    model = CostModel.of("sm_90", batch=32)
    graph, y = convolution((7, 7), 512, 2048, (1, 1), (1, 1), ((0, 0), (0, 0)), dtype="bfloat16")
    other = graph.add(Input(graph[y].type.shape, "bfloat16"), name="other")
    residual = only_region(graph, y=graph.add(Relu(), [graph.add(Add(), [y, other])]))
    assert {s.stages for s in tiles(residual, model) if (s.block_m, s.block_n) == (256, 128)} == {2}
    gradient = weight_gradient((7, 7), 512, 2048, (1, 1), dtype="bfloat16", bias=False)
    offered = tiles(gradient, CostModel.of("sm_80", batch=32))
    assert {s.stages for s in offered if max(s.block_m, s.block_n) <= 64} == {2}
    large = [s for s in offered if max(s.block_m, s.block_n) > 64]
    assert {s.stages for s in large if s.block_k > 16} == {2, 3, 4}
    assert {s.stages for s in large if s.block_k == 16} == {2, 3}


@pytest.mark.parametrize("case", CASES)
def test_registers_and_resident_blocks_are_those_of_compiled_kernels(case: str) -> None:
    rows = [c for c in read() if (c.case, c.dtype, c.target) == (case, "bfloat16", "sm_90")]
    assert len(rows) == len(TILES)
    wrong = 0
    for count in rows:
        found, s = model_of(count), count.schedule
        assert found.registers == pytest.approx(count.registers, rel=0.25, abs=20), s
        operands = s.stages * (s.block_m + s.block_n) * s.block_k * 2
        held = found.target.blocks_resident(count.registers, operands, s.warps)
        assert found.resident <= held, s
        wrong += found.resident < held
    assert wrong <= 2


def test_what_is_loaded_beside_the_sums_takes_registers() -> None:
    """Compiled for sm_90, 128 x 128 x 64: 128 registers with a residual, 134 where a result is kept before it
    is pooled, 162 with two residuals; a processor holds two blocks of up to 128."""
    model = CostModel.of("H200")
    tile, work = Schedule(128, 128, 64, warps=8, stages=3), product(region("1x1", "bfloat16"))
    for beside, blocks in ((0, 2), (1, 2), (2, 1)):
        assert model.product(replace(work, beside=beside), tile).resident == blocks


def time(schedule: Schedule, batch: int = 32, card: str = "H200", num_bytes: float = 0.0) -> ProductTime:
    return CostModel.of(card, batch=batch).product(product(region("3x3", "bfloat16")), schedule, num_bytes)


LARGE = Schedule(128, 256, 64, warps=8, stages=3)


def test_waves_are_whole() -> None:
    """28 x 28 x batch rows in tiles of 128, two tiles of columns."""
    for batch in (1, 16, 32):
        programs = ceil(784 * batch / 128) * 2
        found = time(LARGE, batch)
        assert found.programs == programs
        waves = ceil(programs / device("H200").processors)
        steps = 9 * 2048 // 64
        assert found.parts["matrix units"] >= waves * steps * found.matrix_cycles * found.cycle


def test_what_a_step_waits_for_by_hand() -> None:
    found = time(LARGE)
    assert found.matrix_cycles == 128 * 256 * 64 / 2048
    assert found.shared_cycles == (2 * (64 + 256) * 64 * 2 + (128 + 256) * 64 * 2) / 128
    assert found.cycle == pytest.approx(2 * 2048 * 132 / 790e12)
    narrow = time(Schedule(128, 64, 64, warps=4, stages=3))
    assert narrow.shared_cycles / narrow.matrix_cycles > 1.6  # 64 columns cannot pass 0.6 of the peak


def test_memory_bounds_a_kernel_from_below() -> None:
    assert time(LARGE, num_bytes=4.3e12).seconds > 1.0
    one = replace(LARGE, splits=2)
    assert time(one).finish > 0.0 == time(LARGE).finish


@pytest.mark.parametrize("card", ["H200", "A100"])
def test_every_convolution_of_resnet_50_has_a_program_for_each_processor_at_batch_1(card: str) -> None:
    program = plan(with_dtype(large.resnet50().to_graph(), "bfloat16"))
    model = CostModel.of(card, batch=1)
    few = []
    for kernel in program.regions:
        if kernel.anchor.op.kind is Kind.CONTRACTION and not isinstance(kernel.anchor.op, Dense):
            form, schedule = choose(kernel, card, batch=1)
            found = model.product(product(kernel), schedule)
            if found.programs < DEVICES[card].processors:
                few.append(f"{kernel}: {form} {schedule}: {found.programs}")
    assert not few


def test_what_is_computed_before_a_product_takes_instructions_and_registers() -> None:
    """A compiled 64 x 128 x 64 loop behind a batch norm and a ReLU has 579 instructions for 32 elements a
    thread; with 64 elements, a 64 x 128 x 128 tile spilled (sm_90, bfloat16)."""
    model, plain = CostModel.of("H200"), product(region("1x1", "bfloat16"))
    computed = replace(plain, computed=True, lean=False)
    tile = Schedule(64, 128, 64, warps=4, stages=2)
    more = model.product(computed, tile).instructions - model.product(plain, tile).instructions
    assert more == OF_COMPUTED * 64 * 64 / 128
    assert model.product(computed, tile).instructions == pytest.approx(579, rel=0.2)
    for schedule in ranked(computed, model, 0):
        assert schedule.block_m * schedule.block_k <= 32 * 32 * schedule.warps
    assert any(s.block_m * s.block_k > 32 * 32 * s.warps for s in ranked(plain, model, 0))
