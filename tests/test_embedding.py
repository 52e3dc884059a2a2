"""Embedding and its kernels: training against torch, odd numbers, one order of sums, and compilation."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from convloom.codegen import Kernel, emit
from convloom.graph import ops
from convloom.graph.ir import Graph
from convloom.graph.op import Op
from convloom.planning.fusion import fuse
from convloom.planning.schedules import Schedule
from keras_networks import randomised
from op_cases import N

import convloom as cl
from convloom import layers as L

ROWS, FEATURES, PLACES = 70, 17, 13


def numbers(batch: int = 3, dtype: Any = np.int32) -> np.ndarray:
    """Some rows never, some several times, in one image and in several."""
    drawn = np.random.default_rng(1).integers(ROWS // 2, size=(batch, PLACES)) * 2
    drawn[:, ::3] = 4
    return drawn.astype(dtype)


def network(dtype: str = "int32") -> cl.Model:
    x = cl.Input((PLACES,), dtype=dtype, name="tokens")
    h = L.Embedding(ROWS, FEATURES, name="e")(x)
    h = L.Conv1D(5, 3, activation="softsign", name="c")(h * 0.5)
    return randomised(cl.Model(x, L.Dense(3, name="d")(L.Flatten()(h))))


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("backend", ["aten", "triton"])
@pytest.mark.filterwarnings("error::convloom.runtime.backends.FallbackWarning")
def test_gradients_are_those_of_torch(backend: str, fuse: bool) -> None:
    model, x = network(), numbers()
    net = cl.compile(model, device="cpu", backend=backend, fuse=fuse).train()
    net(x).square().sum().backward()
    weights = [torch.from_numpy(w).double().requires_grad_() for w in model.get_weights()]
    table, kernel, bias, w, b = weights
    h = torch.nn.functional.embedding(torch.from_numpy(x).long(), table) * 0.5
    h = torch.nn.functional.conv1d(h.mT, kernel.permute(2, 1, 0), bias)
    h = torch.nn.functional.softsign(h).mT
    (h.flatten(1) @ w + b).square().sum().backward()
    for parameter, weight in zip(net.parameters(), weights, strict=True):
        assert parameter.grad is not None
        assert weight.grad is not None
        error = float((parameter.grad - weight.grad).abs().max())
        assert error <= 1e-5 * float(weight.grad.abs().max())


@pytest.mark.parametrize("backend", ["aten", "triton"])
def test_numbers_that_name_no_row_and_those_from_the_end(backend: str) -> None:
    x = cl.Input((5,), dtype="int64")
    model = randomised(cl.Model(x, L.Embedding(7, 3)(x)))
    table = model.get_weights()[0]
    net = cl.compile(model, device="cpu", backend=backend).train()
    given = np.array([[0, 6, -1, 7, -8], [-7, 2**40, 3, 3, 3]])
    y = net(given)
    expected = np.full((2, 5, 3), np.nan, np.float32)
    for place, row in {(0, 0): 0, (0, 1): 6, (0, 2): 6, (1, 0): 0, (1, 2): 3, (1, 3): 3, (1, 4): 3}.items():
        expected[place] = table[row]
    np.testing.assert_array_equal(y.detach().numpy(), expected)
    y.sum().backward()
    (parameter,) = net.parameters()
    assert parameter.grad is not None
    assert parameter.grad[:, 0].tolist() == [2, 0, 0, 3, 0, 0, 2]


@pytest.mark.parametrize("backend", ["aten", "triton"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_keeps_the_table_in_float32(dtype: str, backend: str) -> None:
    model, x = network(), numbers()
    net = cl.compile(model, device="cpu", backend=backend, dtype=dtype).train()
    y = net(x)
    assert y.dtype == getattr(torch, dtype)
    y.float().square().sum().backward()
    exact = cl.compile(model, device="cpu", backend="aten", dtype="float64").train()
    exact(x).square().sum().backward()
    for mine, theirs in zip(net.parameters(), exact.parameters(), strict=True):
        assert mine.dtype == torch.float32
        assert mine.grad is not None
        assert theirs.grad is not None
        eps = 2.0 ** (-7 if dtype == "bfloat16" else -10)
        assert float((mine.grad - theirs.grad).abs().max()) <= 8 * eps * float(theirs.grad.abs().max())


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int64", "float32"])
def test_numbers_of_other_dtypes(dtype: str) -> None:
    model, x = network(dtype), numbers()
    with torch.no_grad():
        expected = cl.compile(network(), device="cpu")(x)
        found = cl.compile(model, device="cpu")(x.astype(dtype))
    torch.testing.assert_close(found, expected)


def test_it_learns_and_is_saved(tmp_path: Path) -> None:
    x = numbers(64)
    y = (x == 4).mean(1, keepdims=True).astype(np.float32) + x[:, :1] / 70
    tokens = cl.Input((PLACES,), dtype="int32")
    h = L.GlobalAveragePooling1D()(L.Embedding(ROWS, 8)(tokens))
    model = cl.Model(tokens, L.Dense(1)(h), seed=1)
    net = cl.compile(model, device="cpu")
    history = cl.fit(net, (x, y), loss="mse", epochs=30, batch_size=8, seed=0, verbose=False)
    assert history.history["loss"][-1] < 0.3 * history.history["loss"][0]
    again = randomised(model)
    again.save(tmp_path / "net.keras")
    loaded = cl.load(tmp_path / "net.keras")
    assert loaded.to_json() == again.to_json()

    import keras

    with torch.no_grad():
        found = cl.compile(loaded, device="cpu")(x).numpy()
    theirs = keras.ops.convert_to_numpy(keras.models.load_model(tmp_path / "net.keras")(x))
    np.testing.assert_allclose(found, theirs, atol=1e-5)


def test_a_mask_of_zeros_is_refused_where_it_would_be_read() -> None:
    x = cl.Input((5,), dtype="int32")
    h = L.Embedding(9, 4, mask_zero=True)(x)
    assert cl.Model(x, L.Dense(3)(h)).outputs
    with pytest.raises(cl.UnsupportedLayerError, match=r"Softmax 's' comes after .*Embedding with mask_zero"):
        cl.Model(x, L.Softmax(name="s")(L.Dense(3)(h)))


# -- kernels -------------------------------------------------------------------------------------------------
def kernel(op: Op, *after: Op, schedule: Schedule | None = None, dtype: str = "float32",
           size: tuple[int, ...] = (PLACES,), whole: str = "int32", rows: int = ROWS) -> Kernel:  # fmt: skip
    graph = Graph("rows")
    first = ops.Parameter((rows, FEATURES), dtype)
    if isinstance(op, ops.LookUpGrad):
        given: Op = ops.Input((N, *size, FEATURES), dtype)
    else:
        given = first
    x = graph.add(given, name="x")
    y = graph.add(op, [x, graph.add(ops.Input((N, *size), whole), name="i")], "y")
    for member in after:
        y = graph.add(member, [y], "z")
    graph.outputs = {"out": y}
    (region,) = fuse(graph).kernels
    return emit(region, schedule=schedule)


@pytest.mark.parametrize("size", [(PLACES,), (), (3, 5)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_more_than_one_tile_on_every_axis(size: tuple[int, ...], dtype: str) -> None:
    generator = torch.Generator().manual_seed(3)
    indices = torch.randint(-ROWS - 3, ROWS + 3, (3, *size), generator=generator, dtype=torch.int32)
    for op, given in (
        (ops.LookUp(), torch.randn(ROWS, FEATURES, generator=generator)),
        (ops.LookUpGrad(ROWS), torch.randn(3, *size, FEATURES, generator=generator)),
    ):
        x = given.to(getattr(torch, dtype))
        tiles = Schedule(64, 1) if isinstance(op, ops.LookUp) else Schedule(16, 16, block_k=16)
        found = kernel(op, schedule=tiles, dtype=dtype, size=size)
        module, shape = found.load(True), found.outputs[0].type.size(3)
        result = torch.full(shape, 1e30, dtype=found.outputs[0].type.torch_dtype)
        module.launch(x, indices, result)
        expected = op.reference(x.double(), indices)
        torch.testing.assert_close(result.double(), expected, rtol=1e-6, atol=1e-5, equal_nan=True)
        (written,) = module.reference(x, indices)
        torch.testing.assert_close(written.double(), expected, rtol=1e-12, atol=1e-12, equal_nan=True)


def test_sums_are_the_same_bits_whatever_the_batch_brings_first() -> None:
    x = torch.randn(4, PLACES, FEATURES) * 1e3
    indices = torch.from_numpy(numbers(4))
    module = kernel(ops.LookUpGrad(ROWS)).load(True)
    results = []
    for _ in range(2):
        results.append(torch.empty(ROWS, FEATURES))
        module.launch(x, indices, results[-1])
    assert torch.equal(*results)


def test_what_follows_rides_along() -> None:
    found = kernel(ops.LookUp(), ops.Scale(2.0, 1.0), ops.Relu())
    assert "y[...,c] = relu(" in found.source
    x = cl.Input((PLACES,), dtype="int32")
    assert len(cl.compile(cl.Model(x, L.Embedding(9, 4)(x) * 2.0 + 1.0), device="cpu").kernels) == 1


def test_the_file_checks_itself(tmp_path: Path) -> None:
    for name, op in (("forward", ops.LookUp()), ("backward", ops.LookUpGrad(ROWS))):
        path = tmp_path / f"{name}.py"
        path.write_text(kernel(op).source)
        alone = {**os.environ, "OMP_NUM_THREADS": "1"}
        ran = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, env=alone)
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.endswith("OK\n")


@pytest.mark.parametrize(
    "target", ["sm_90", *(pytest.param(name, marks=pytest.mark.slow) for name in ("sm_80", "gfx942"))]
)
def test_ahead_of_time(target: str) -> None:
    chosen = [
        kernel(ops.LookUp(), ops.Scale(0.5), whole="int64", rows=20_000),
        kernel(ops.LookUpGrad(20_000), dtype="bfloat16", size=(200,), rows=20_000),
    ]
    for found in chosen:
        for resources in found.resources(target):
            assert resources.error is None, resources.error
            assert resources.spills_bytes == 0


# -- with what else a network has ----------------------------------------------------------------------------
def test_its_regularizer_and_constraint_are_kept_and_count() -> None:
    x = cl.Input((5,), dtype="int32")
    layer = L.Embedding(7, 3, embeddings_regularizer="l2", embeddings_constraint="non_neg", name="e")
    model = randomised(cl.Model(x, layer(x)))
    again = cl.loads(model.to_json())
    again.set_weights(model.get_weights())
    given, y = np.array([[0, 6, 1, 1, 2]]), np.zeros((1, 5, 3), np.float32)
    table = model.get_weights()[0]
    expected = (table[given] ** 2).mean() + 0.01 * (table**2).sum()
    for network in (model, again):
        net = cl.compile(network, device="cpu")
        lazy = torch.optim.SGD(net.parameters(), 100.0)
        data = given.astype(np.int32), y
        history = cl.fit(net, data, loss="mse", optimizer=lazy, epochs=1, verbose=False)
        assert history.history["loss"][0] == pytest.approx(expected, rel=1e-5)
        assert all(float(p.detach().min()) >= 0 for p in net.parameters())


def test_gradients_of_gradients_reach_the_table() -> None:
    model = network()
    net = cl.compile(model, device="cpu", dtype="float64").train()
    x = torch.from_numpy(numbers())
    table, *others = net.parameters()
    first = torch.autograd.grad(net(x).square().sum(), others, create_graph=True)
    torch.stack([g.square().sum() for g in first]).sum().backward()
    assert table.grad is not None
    found, step = table.grad.clone(), 1e-6
    with torch.no_grad():
        table[4, 0] += step
    moved = torch.autograd.grad(net(x).square().sum(), others)
    before = sum(float(g.detach().square().sum()) for g in first)
    slope = (sum(float(g.square().sum()) for g in moved) - before) / step
    assert float(found[4, 0]) == pytest.approx(slope, rel=1e-3)
