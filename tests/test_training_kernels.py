"""What compiling ahead of time and counting say of the kernels of a training step."""

from __future__ import annotations

import pytest
from contraction_graphs import data_gradient, only_region
from convloom.codegen import emit
from convloom.graph.ops import ActivationGrad, Add, Input, MaxUnpool2D, Relu

SAME3 = ((1, 1), (1, 1))


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
