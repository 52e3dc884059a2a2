"""Both gradients of a matrix product in one launch, interpreted, against float64."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from convloom.codegen import Kernel, emit
from convloom.graph import ops
from convloom.planning.forms import candidates, choose, refusal
from convloom.planning.forms.form import NotEmittable
from convloom.planning.regions import Region
from convloom.planning.schedules import Schedule
from kernel_checks import EPS, check, difference, expected, image, region, vector

import convloom as cl
from convloom import layers as L


def gradients(channels: int, units: int, dtype: str = "float32", *more: Any, bias: bool = True) -> Region:
    """dx, dw and the bias gradient of a Dense, and what follows dx."""
    nodes = [
        image("dy", units, dtype=dtype),
        vector("w", channels, units, dtype=dtype),
        image("x", channels, dtype=dtype),
        ("dx", ops.DenseDataGrad(), ["dy", "w"]),
        ("dw", ops.DenseWeightGrad(), ["x", "dy"]),
        *([("db", ops.Reduce((0,)), ["dy"])] if bias else []),
        *more,
    ]
    last = more[-1][0] if more else "dx"
    outputs = [last, "dw", *(["db"] if bias else [])]
    return region(nodes, outputs=outputs, anchor="dx", phase="backward")


RELU = ("g", ops.ActivationGrad(ops.Relu()), ["dx", "x"])
SIZES = [(5, 3), (1, 17), (65, 10), (130, 70), (17, 1)]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(("channels", "units"), SIZES)
def test_values(channels: int, units: int, dtype: str) -> None:
    kernel = check(gradients(channels, units, dtype, RELU), length=units, batches=(1, 3, 37))
    assert kernel.launches == 1
    assert choose(kernel.region)[0].name == "dense gradients"


def test_without_a_bias_and_with_nothing_after_it() -> None:
    check(gradients(33, 18, bias=False), length=18)


def test_more_than_one_tile_on_every_axis() -> None:
    small = Schedule(16, 16, 16, warps=1, beside=Schedule(16, 32, 16, warps=1))
    values(emit(gradients(50, 70, "float32", RELU), schedule=small), 40)


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "gfx942"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_pair_of_tiles_gives_the_same(dtype: str, target: str) -> None:
    given = gradients(40, 33, dtype, RELU)
    offered = candidates(given, target)
    assert len({schedule.warps for schedule in offered}) == len(offered) > 1
    for schedule in offered:
        assert schedule.beside is not None
        assert (schedule.beside.warps, schedule.beside.stages) == (schedule.warps, schedule.stages)
        values(emit(given, schedule=schedule), 21)


def values(kernel: Kernel, batch: int) -> None:
    module = kernel.load(interpreted=True)
    inputs, outputs = module.example(batch), module.results(batch)
    module.launch(*inputs, *outputs)
    stored = {node.name: EPS[node.type.dtype] for node in kernel.outputs}
    for node, found, wanted in zip(kernel.outputs, outputs, expected(kernel, inputs), strict=True):
        assert difference(found, wanted) <= stored[node.name] + 100 * EPS["float32"]


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100", "gfx942"])
def test_it_compiles_without_spills(target: str) -> None:
    (found,) = emit(gradients(256, 128, "bfloat16", RELU), target=target).resources(target)
    assert found.error is None
    assert found.spills_bytes == 0
    assert found.matrix_instructions


def test_what_it_refuses() -> None:
    rows = [
        image("dy", 6, 4),
        vector("w", 5, 4),
        image("x", 6, 5),
        ("dx", ops.DenseDataGrad(), ["dy", "w"]),
        ("dw", ops.DenseWeightGrad(), ["x", "dy"]),
    ]
    several = region(rows, outputs=["dx", "dw"], anchor="dx", phase="backward")
    with pytest.raises(NotEmittable, match="dw: dense_weight_grad cannot share a kernel"):
        emit(several)
    decayed = gradients(5, 3, "float32", ("d", ops.Scale(2.0), ["dw"]))
    assert "cannot share a kernel with dense_data_grad" in str(refusal(decayed))
    with pytest.raises(NotEmittable, match="says in `beside` the tiles of the weights'"):
        emit(gradients(5, 3), schedule=replace(choose(gradients(5, 3))[1], beside=None))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_network_trains_with_one_launch_a_layer(dtype: str) -> None:
    """Of a regularized weight too, where the cost model does not expect two launches of tiles of their own to
    be faster; the first layer's input asks for no gradient. As PyTorch's operators."""
    x = cl.Input((7,))
    h = L.Dense(20, activation="relu")(x)
    h = L.Dense(33, activation="tanh", kernel_regularizer="l2")(h)
    model = cl.Model(x, L.Dense(3)(h), seed=2)
    data, seed = torch.randn(19, 7), torch.randn(19, 3)
    found = []
    for backend in ("triton", "aten"):
        net = cl.compile(model, device="cpu", backend=backend, dtype=dtype).train()
        net(data.to(getattr(torch, dtype))).backward(seed.to(getattr(torch, dtype)))
        found.append([p.grad for p in net.parameters()])
        backward = [kernel.ops for kernel in net.kernels if "dense_weight_grad" in kernel.ops]
        both = [ops.count("dense_data_grad") for ops in backward]
        assert both[0] == 1
        assert both[2] == 0
    for one, other in zip(*found, strict=True):
        assert difference(one, other) <= 8 * EPS[dtype] + 1e-5


def test_a_header_has_no_line_that_is_too_long(tmp_path: Path) -> None:
    """What many members compute takes several lines of it."""
    x = cl.Input((64,))
    h = L.Dense(32, activation="relu")(x)
    files = cl.emit(cl.Model(x, L.Dense(10)(h)), tmp_path, training=True, dtype="bfloat16")
    headers = [file.read_text().split('"""')[1] for file in files if file.suffix == ".py"]
    assert any("\n" in header.split("\n\n")[0] for header in headers)
    assert [line for header in headers for line in header.splitlines() if len(line) > 100] == []
