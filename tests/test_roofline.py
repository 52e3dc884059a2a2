"""What a program is believed to take, beside its roofline."""

from __future__ import annotations

import pytest
from convloom.graph.errors import CompileError
from convloom.graph.passes.precision import with_dtype
from convloom.planning.cost import CostModel
from convloom.planning.program import plan
from convloom.planning.roofline import FAR, estimate, roofline_seconds
from convloom.planning.targets import device
from graphs import Builder, residual_block


def test_a_plan_takes_at_least_its_roofline() -> None:
    program = plan(residual_block())
    found = estimate(program, "A100", 32)
    assert [kernel.region for kernel in found.kernels] == [region.name for region in program.regions]
    assert found.seconds >= found.roofline > 0
    assert all(kernel.seconds >= kernel.roofline for kernel in found.kernels)
    assert "32 images on A100, estimated" in str(found)


def test_kernels_far_above_their_roofline_are_named_with_a_reason() -> None:
    found = estimate(plan(residual_block()), "H200", 1)
    far = found.far()
    assert far
    assert all(kernel.ratio > FAR and kernel.reason for kernel in far)
    lost = [kernel.seconds - kernel.roofline for kernel in far]
    assert lost == sorted(lost, reverse=True)
    assert all(kernel.region in str(found) for kernel in far)


@pytest.mark.parametrize("taps", [3, 7])
def test_what_a_direct_convolution_waits_for_is_told_of_its_own_loop(taps: int) -> None:
    """Not of the product of mostly padding that it takes the place of."""
    b = Builder()
    b.conv(b.input(56, 56, 96), 96, (taps, taps), groups=96, name="conv")
    program = plan(with_dtype(b.finish("conv"), "bfloat16"))
    (kernel,) = estimate(program, "H200", 256).kernels
    assert kernel.form == "direct convolution"
    assert kernel.reason in (("its bytes",) if taps == 3 else ("its instructions", "rows under way"))


def test_the_roofline_of_a_kernel_by_hand() -> None:
    region = plan(residual_block()).regions[0]
    card, cost = device("H100"), region.cost(8)
    wanted = max(cost.bytes / card.bandwidth, cost.flops / card.flops["float32"])
    assert roofline_seconds(region, CostModel.of("H100", batch=8)) == pytest.approx(wanted)


def test_an_unknown_card_is_refused() -> None:
    with pytest.raises(CompileError, match="unknown target 'H300'"):
        estimate(plan(residual_block()), "H300")
