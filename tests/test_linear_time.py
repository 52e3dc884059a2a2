"""Compiling takes time that grows like the network: counted in calls, so that no clock decides."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

import convloom as cl
from convloom import layers as L


def residual(blocks: int) -> cl.Model:
    image = cl.Input((8, 8, 4))
    h = image
    for _ in range(blocks):
        y = L.BatchNormalization()(L.Conv2D(4, 3, padding="same")(h))
        h = L.ReLU()(L.Add()([y, h]))
    return cl.Model(image, h)


def plain(blocks: int) -> cl.Model:
    image = cl.Input((12, 4))
    h = image
    for _ in range(blocks):  # sequences are computed as images: a view stands on both sides of each
        h = L.ReLU()(L.BatchNormalization()(L.Conv1D(4, 3, padding="same")(h)))
    return cl.Model(image, L.GlobalAveragePooling1D()(h))


def many_outputs(blocks: int) -> cl.Model:
    image = cl.Input((8, 8, 4))
    h, outputs = image, []
    for _ in range(blocks):
        h = L.ReLU()(L.BatchNormalization()(L.Conv2D(4, 3, padding="same")(h)))
        outputs.append(L.GlobalAveragePooling2D()(h))
    return cl.Model(image, outputs)


def pointwise(blocks: int) -> cl.Model:
    """Chains as long as a kernel may be, and longer; values that are read far away."""
    image = cl.Input((8, 8, 4))
    h = image
    for _ in range(16 * blocks):
        h = L.Add()([L.Activation("tanh")(h), image])
    return cl.Model(image, h)


def dense(blocks: int) -> cl.Model:
    """Each layer reads all before it, so that every part lies in the rows of the last concatenation."""
    image = cl.Input((8, 8, 4))
    h = L.Conv2D(4, 1)(image)
    for _ in range(blocks):
        h = L.Concatenate()([h, L.Conv2D(2, 1)(h)])
    return cl.Model(image, L.Conv2D(4, 1)(h))


NETWORKS = [residual, plain, many_outputs, pointwise, dense]


def calls(work: Callable[[], Any]) -> int:
    """How much Python does meanwhile: functions called, generators resumed, and library functions called."""
    count = 0

    def look(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(look)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def compiling(model: cl.Model, training: bool) -> Callable[[], object]:
    """Up to the steps, with all their places in memory."""

    def work() -> None:
        program = cl.compile(model, device="cpu", backend="aten").train(training).program
        assert program.steps
        assert program.memory.layout(1).nbytes >= 0
        assert program.backward_memory.layout(1).nbytes >= 0

    return work


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.__name__)
def test_twice_the_blocks_take_twice_the_work(network: Callable[[int], cl.Model], training: bool) -> None:
    compiling(network(2), training)()  # what is done once a process
    small, large = (calls(compiling(network(blocks), training)) for blocks in (24, 96))
    assert large < 4.4 * small
