"""Networks of depthwise blocks: trained by the emitted kernels as by PyTorch, and what these compile to."""

from __future__ import annotations

import pytest
from contraction_graphs import convolution, data_gradient, only_region, weight_gradient
from convloom.codegen import emit
from convloom.frontends import Input, Model, Sequential
from convloom.graph import ops
from convloom.planning import forms
from convloom.planning.forms import choose
from convloom.planning.regions import Region
from convloom.planning.schedules import Schedule
from convloom.runtime.compile import compile
from helpers import randomised
from test_network import batch, gradients

from convloom import layers as L

SAME = {3: ((1, 1), (1, 1)), 7: ((3, 3), (3, 3))}
HALVING = ((0, 1), (0, 1))


def blocks() -> Model:
    """Depthwise at both strides, a multiplier, groups of few channels, a sequence's dilated taps."""
    return Sequential(
        [
            Input((7, 6, 3)),
            L.Conv2D(5, 3, strides=2, padding="same", use_bias=False),
            L.DepthwiseConv2D(3, padding="same", depth_multiplier=2, use_bias=False),
            L.BatchNormalization(),
            L.ReLU(6.0),
            L.Conv2D(8, 1),
            L.DepthwiseConv2D(3, strides=2, padding="same", activation="relu6"),
            L.Conv2D(8, 3, padding="same", groups=4, activation="tanh"),
            L.DepthwiseConv2D(3, padding="same", dilation_rate=2, activation="swish"),
            L.GlobalAveragePooling2D(),
            L.Dense(4),
        ]
    )


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_blocks_train_as_with_pytorch(training: bool, fuse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    # On maps as small as a test's a product is believed to be as fast: take the first form of the table.
    monkeypatch.setattr(forms, "_fastest", lambda region, found, model: found[0])
    model = randomised(blocks())
    exact = compile(model, device="cpu", dtype="float64", fuse=False).train(training)
    net = compile(model, device="cpu", backend="triton", fuse=fuse).train(training)
    used = {choose(region)[0].name for region in net.program.regions if region.launches}
    assert "direct convolution" in used
    x = batch(model, 3)
    expected, wanted = gradients(exact, x)
    found, ours = gradients(net, x)
    expected, found = expected.detach(), found.detach()
    assert float((found.double() - expected).abs().max()) <= 2e-4 * float(expected.abs().max())
    for name, gradient in wanted.items():
        difference = float((ours[name].double() - gradient).abs().max())
        assert difference <= 2e-4 * max(float(gradient.abs().max()), 1e-3), name


# -- compiled ------------------------------------------------------------------------------------------------
def regions(size: int, channels: int, taps: int, stride: int, dtype: str) -> dict[str, Region]:
    padding = SAME[taps] if stride == 1 else HALVING
    shape = ((size, size), channels, channels, (taps, taps), (stride, stride), padding, (1, 1), channels)
    graph, y = convolution(*shape, dtype=dtype)
    forward = only_region(graph, y=graph.add(ops.Relu6(), [y]))
    graph, y = data_gradient(*shape, dtype=dtype)
    return {
        "forward": forward,
        "data": only_region(graph, y=y),
        "weight": weight_gradient(*shape, dtype=dtype, bias=False),
    }


LAYERS = [(56, 144, 3, 1), (14, 576, 3, 2), (28, 192, 7, 1)]


@pytest.mark.parametrize("target", ["sm_90", "gfx942"])
@pytest.mark.parametrize("layer", LAYERS[:1], ids=str)
def test_nothing_spills_and_no_matrix_unit_is_used(layer: tuple[int, int, int, int], target: str) -> None:
    for region in regions(*layer, "bfloat16").values():
        for report in emit(region, target=target).resources(target):
            assert report.error is None
            assert report.spills_bytes == 0, str(report)
            assert not report.matrix_instructions


@pytest.mark.slow
@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100", "gfx942"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_nothing_spills_in_any_layer(layer: tuple[int, int, int, int], dtype: str, target: str) -> None:
    for region in regions(*layer, dtype).values():
        for report in emit(region, target=target).resources(target):
            assert report.error is None
            assert report.spills_bytes == 0, str(report)


def test_instructions_of_an_output_and_a_tap() -> None:
    """Of the whole kernel, what is done once counted: 2.7, of which the loop has 1.8."""
    schedule = Schedule(1, 512, warps=4, strip=7, walk=14)  # what 256 images take on an H200, or nearly
    kernel = emit(regions(56, 144, 3, 1, "bfloat16")["forward"], schedule=schedule)
    (report,) = kernel.resources("sm_90")
    lanes = schedule.block_n // (32 * schedule.warps)
    assert report.spills_bytes == 0
    assert report.instructions <= 3 * lanes * schedule.strip * 9
