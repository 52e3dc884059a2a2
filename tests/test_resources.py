"""Every kernel of LeNet-5, compiled ahead of time for three GPUs: no spills, matrix units in use."""

from __future__ import annotations

import pytest
from convloom.codegen import Kernel, emit
from convloom.codegen.machine.aot import compile_many
from convloom.codegen.machine.resources import Resources
from convloom.frontends import Input, Model, Sequential
from convloom.runtime.compile import compile

from convloom import layers as L


def lenet5() -> Model:
    return Sequential(
        [
            Input((28, 28, 1)),
            L.Conv2D(6, 5, padding="same", activation="tanh"),
            L.AveragePooling2D(2),
            L.Conv2D(16, 5, activation="relu"),
            L.MaxPooling2D(2),
            L.Flatten(),
            L.Dense(120, activation="relu"),
            L.Dense(84, activation="relu"),
            L.Dense(10, activation="softmax"),
        ]
    )


def kernels(dtype: str, training: bool, target: str) -> list[Kernel]:
    net = compile(lenet5(), dtype=dtype, device="cpu").train(training)
    return [emit(region, target=target) for region in net.program.regions]


def resources(found: list[Kernel], target: str) -> list[tuple[Kernel, Resources]]:
    requests = [(kernel, request) for kernel in found for request in kernel.requests(target)]
    reports = compile_many([request for _, request in requests], jobs=1)
    return [(kernel, report) for (kernel, _), report in zip(requests, reports, strict=True)]


EVERY = [
    (target, dtype, training)
    for target in ("sm_80", "sm_90", "gfx942")
    for dtype in ("float32", "bfloat16")
    for training in (False, True)
]
QUICK = (
    ("sm_80", "float32", False),
    ("sm_90", "bfloat16", False),
    ("sm_90", "bfloat16", True),
    ("sm_90", "float32", True),
    ("gfx942", "bfloat16", True),
)
"""Each target, dtype and mode once at least; the others are slow."""


@pytest.mark.parametrize(
    ("target", "dtype", "training"),
    [pytest.param(*way, marks=() if way in QUICK else pytest.mark.slow) for way in EVERY],
)
def test_no_kernel_of_lenet_spills(target: str, dtype: str, training: bool) -> None:
    for kernel, report in resources(kernels(dtype, training, target), target):
        assert report.error is None, f"{kernel.name}: {report.error}"
        assert report.spills_bytes == 0, f"{kernel.name} spills {report.spills_bytes} bytes on {target}"
        assert report.occupancy > 0, f"{kernel.name} does not fit on {target}"
        multiplies = not report.kernel.startswith(("add_parts", "lay_out"))  # around a weight gradient
        if target == "sm_90" and dtype == "bfloat16" and "conv2d" in kernel.name and multiplies:
            # those of a warp where a tile is too small for the group of four that wgmma takes
            wanted = "wgmma" if kernel.schedule.warps >= 4 and kernel.schedule.block_m >= 64 else "mma"
            assert wanted in report.matrix_instructions, f"{kernel.name}: {report.matrix_instructions}"
