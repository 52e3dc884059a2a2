"""The kernels of images under transforms: values, more than one tile, and ahead-of-time compilation."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from convloom.codegen import Kernel, emit
from convloom.graph import ops
from convloom.graph.ir import Graph
from convloom.graph.op import Op
from convloom.planning.fusion import fuse
from convloom.planning.schedules import Schedule
from op_cases import N

WAYS = list(itertools.product(("bilinear", "nearest"), ("constant", "nearest", "reflect", "wrap")))


def kernel(op: Op, *after: Op, shared: bool = False, dtype: str = "float32", schedule: Schedule | None = None,
           size: tuple[int, int, int] = (7, 5, 3)) -> Kernel:  # fmt: skip
    graph = Graph("warp")
    x = graph.add(ops.Input((N, *size), dtype), name="x")
    kind = ops.Parameter((8,)) if shared else ops.Input((N, 8))
    y = graph.add(op, [x, graph.add(kind, name="t")], "y")
    for member in after:
        y = graph.add(member, [y], "z")
    graph.outputs = {"out": y}
    (region,) = fuse(graph).kernels
    return emit(region, schedule=schedule)


def far_away(shared: bool) -> torch.Tensor:
    """Transforms that reach several images' widths beyond the edge, and from the side."""
    spread = torch.tensor([0.5, 0.5, 6, 0.5, 0.5, 6, 0.01, 0.01])  # the last two so that k is not near 0
    generator = torch.Generator().manual_seed(4)
    drawn = torch.tensor([1.0, 0, 0, 0, 1, 0, 0, 0]) + spread * torch.randn(3, 8, generator=generator)
    return drawn[0] if shared else drawn


def check(found: Kernel, op: Op, x: torch.Tensor, transforms: torch.Tensor) -> None:
    module, size = found.load(True), found.outputs[0].type.size(3)
    result = torch.full(size, float("nan"), dtype=found.outputs[0].type.torch_dtype)
    module.launch(x, transforms, result)
    expected = op.reference(x.double(), transforms.double())
    # A place of up to 30 pixels has 5 digits less, and the taps differ by some units.
    stored = {torch.float32: 0.0, torch.bfloat16: 2.0**-8}[x.dtype]
    largest = float(expected.abs().max())
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=largest * (64 * 2**-23 + stored))
    (written,) = module.reference(x, transforms)
    torch.testing.assert_close(written.double(), expected, rtol=0, atol=1e-12 * largest)


@pytest.mark.parametrize("backward", [False, True], ids=["warp", "grad"])
@pytest.mark.parametrize(("interpolation", "mode"), WAYS)
def test_values(interpolation: str, mode: str, backward: bool) -> None:
    shared = mode == "reflect"
    op = (ops.WarpGrad if backward else ops.Warp)(interpolation, mode, 0.5, (6, 9))
    # Small tiles: more than one on every axis, and a tile over two images.
    tiles = Schedule(16, 16, block_k=16) if backward else Schedule(64, 1)
    x = torch.randn(3, 7, 5, 3, generator=torch.Generator().manual_seed(2))
    check(kernel(op, shared=shared, schedule=tiles), op, x, far_away(shared))


def test_many_channels() -> None:
    x = torch.randn(3, 4, 3, 17)
    op = ops.WarpGrad("bilinear", "reflect", 0.0, (5, 8))
    check(kernel(op, size=(4, 3, 17), schedule=Schedule(16, 16, block_k=16)), op, x, far_away(False))


@pytest.mark.parametrize("op", [ops.Warp("bilinear", "reflect", 0.0, (6, 9)),
                                ops.WarpGrad("bilinear", "reflect", 0.0, (6, 9))])  # fmt: skip
def test_bfloat16(op: Op) -> None:
    check(kernel(op, dtype="bfloat16"), op, torch.randn(3, 7, 5, 3).bfloat16(), far_away(False))


def test_what_follows_rides_along() -> None:
    found = kernel(ops.Warp("nearest", "nearest", 0.0, (6, 9)), ops.Scale(2.0, 1.0))
    assert "y[n,p,q,c] = x at T(q, p) * 2 + 1" in found.source.replace("(x at T(q, p))", "x at T(q, p)")
    x, t = torch.randn(3, 7, 5, 3), far_away(False)
    result = torch.empty(3, 6, 9, 3)
    found.load(True).launch(x, t, result)
    expected = ops.Warp("nearest", "nearest", 0.0, (6, 9)).reference(x, t) * 2 + 1
    torch.testing.assert_close(result, expected, rtol=1e-6, atol=1e-6)


def test_the_file_checks_itself(tmp_path: Path) -> None:
    path = tmp_path / "kernel.py"
    path.write_text(kernel(ops.Warp("bilinear", "constant", 0.5, (6, 9))).source)
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, env=alone)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.endswith("OK\n")


@pytest.mark.parametrize(
    "target", ["sm_90", *(pytest.param(name, marks=pytest.mark.slow) for name in ("sm_80", "gfx942"))]
)
def test_ahead_of_time(target: str) -> None:
    chosen = [
        kernel(ops.Warp("bilinear", "reflect", 0.0, (64, 64)), ops.Scale(0.5), size=(64, 64, 3)),
        kernel(ops.WarpGrad("bilinear", "constant", 0.0, (64, 64)), size=(64, 64, 3)),
    ]
    for found in chosen:
        for resources in found.resources(target):
            assert resources.error is None, resources.error
            assert resources.spills_bytes == 0


def test_places_and_taps_are_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reference, kernel and emitted reference follow from one statement: changed, it changes all three."""
    op, x, transforms = ops.Warp("bilinear", "wrap", 0.0, (6, 9)), torch.randn(3, 7, 5, 3), far_away(False)
    before, said = op.reference(x, transforms), ops.Warp.at
    monkeypatch.setattr(ops.Warp, "at", lambda *given: [place + 1.5 for place in said(*given)])
    assert not torch.allclose(op.reference(x, transforms), before)
    check(kernel(op), op, x, transforms)
