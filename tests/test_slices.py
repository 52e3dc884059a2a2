"""Concatenation for free: kernels that write into their slices touch nothing else, and the files say so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from convloom.codegen import emit
from convloom.graph.passes import INFERENCE, run_pipeline
from convloom.planning.fusion import fuse
from convloom.planning.regions import Partition
from convloom.planning.slices import EQUATION, write_into_slices

import convloom as cl
from convloom import layers as L

Branch = Callable[[Any], Any]

BRANCHES: dict[str, Branch] = {
    "convolution": lambda x: L.Conv2D(5, 3, padding="same", activation="relu")(x),
    "pooled convolution": lambda x: L.MaxPooling2D(2)(L.Conv2D(7, 3, padding="same")(L.UpSampling2D(2)(x))),
    "depthwise": lambda x: L.DepthwiseConv2D(3, padding="same")(x),
    "transposed": lambda x: L.Conv2DTranspose(5, 2, strides=2)(L.AveragePooling2D(2)(x)),
    "pooling": lambda x: L.MaxPooling2D(3, strides=1, padding="same")(x),
    "pointwise": lambda x: L.Activation("tanh")(x),
    "upsampled": lambda x: L.UpSampling2D(2, interpolation="bilinear")(L.AveragePooling2D(2)(x)),
    "softmax": lambda x: L.Softmax()(x),
    "product": lambda x: L.Dense(9)(x),
}


def concatenated(*branches: Branch, shape: tuple[int, ...] = (6, 4, 3)) -> Partition:
    x = cl.Input(shape)
    whole = L.Concatenate()([branch(x) for branch in branches])
    graph = cl.Model(x, L.Conv2D(2, 1)(whole) if len(shape) == 3 else L.Dense(2)(whole)).to_graph()
    run_pipeline(graph, INFERENCE)
    partition = fuse(graph)
    write_into_slices(partition)
    return partition


@pytest.mark.parametrize("name", BRANCHES)
def test_a_kernel_writes_its_slice_and_nothing_else(name: str) -> None:
    partition = concatenated(BRANCHES[name], lambda x: L.Conv2D(4, 1)(x))
    (joined,) = (region for region in partition if region.joined)
    (kernel,) = (emit(r) for r in partition.kernels if joined.anchor.inputs[0] in r.pitches)
    module = kernel.load(interpreted=True)
    inputs = module.example(batch=3)
    (result,) = kernel.outputs
    pitch, channels = kernel.region.pitches[result.name], result.type.channels
    whole = torch.full((*result.type.size(3)[:-1], pitch), float("nan"))
    for start in (0, 2, pitch - channels):
        whole.fill_(float("nan"))
        module.launch(*inputs, whole[..., start : start + channels])
        (expected,) = module.reference(*inputs)
        found, most = whole[..., start : start + channels].double(), float(expected.abs().max())
        torch.testing.assert_close(found, expected, rtol=0, atol=module.TOLERANCE * most)
        assert whole[..., :start].isnan().all()
        assert whole[..., start + channels :].isnan().all()
    assert f"into its slice of rows of {pitch} channels" in kernel.source


def test_vectors_too() -> None:
    partition = concatenated(lambda x: L.Dense(3, activation="relu")(x), lambda x: L.Dense(5)(x), shape=(4,))
    assert any(region.joined for region in partition)


def refused(x: Any, out: Any) -> list[str]:
    """Why a concatenation is still a kernel."""
    graph = cl.Model(x, out).to_graph()
    run_pipeline(graph, INFERENCE)
    partition = fuse(graph)
    write_into_slices(partition)
    assert not any(region.joined for region in partition)
    return [decision.reason for decision in partition.decisions if decision.rule == EQUATION]


def test_what_stays_a_kernel_says_why() -> None:
    x = cl.Input((6, 4, 3), name="image")
    left, right = L.Conv2D(4, 1, name="left")(x), L.Conv2D(4, 1)(x)
    assert refused(x, L.Concatenate(axis=1, name="both")([left, right])) == ["both is not along the channels"]
    assert refused(x, L.Concatenate()([left, left])) == ["left is there twice"]
    assert refused(x, L.Concatenate()([left, x])) == ["image is not computed by a kernel"]
    assert refused(x, [L.Concatenate()([left, right]), left]) == ["left is an output of the network"]
    flat = L.Concatenate()([L.Flatten()(left), L.GlobalAveragePooling2D(name="mean")(right)])
    assert refused(x, flat) == ["flatten is a view of left"]
