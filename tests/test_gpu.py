"""What only a GPU can show: native kernels against float64 on the CPU, bfloat16 through the matrix units."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from convloom.runtime.backends import FallbackWarning
from convloom.runtime.compile import compile
from convloom.runtime.emit import emit
from test_network import NETWORKS, batch, gradients, randomised, small_lenet

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU"),
]

# relative to the largest value: rounding of the operands times a few layers
TOLERANCE = {"float32": 2e-4, "tf32": 2e-2, "bfloat16": 6e-2, "float16": 1e-2}


@pytest.fixture(autouse=True)
def _no_silent_fallback():
    with warnings.catch_warnings():
        warnings.simplefilter("error", FallbackWarning)
        yield


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "unfused"])
def test_forward_and_gradients(name: str, dtype: str, fuse: bool) -> None:
    model = randomised(NETWORKS[name]())
    exact = compile(model, device="cpu", dtype="float64", fuse=False)
    net = compile(model, device="cuda", backend="triton", dtype=dtype, fuse=fuse)
    x = batch(model, 5)
    expected = exact(x)
    found = net(x.cuda())
    scale = float(expected.abs().max())
    assert float((found.cpu().double() - expected).abs().max()) <= TOLERANCE[dtype] * scale
    weight = torch.randn(expected.shape)
    ours = gradients(net, x.cuda(), weight.cuda())
    for key, value in gradients(exact, x, weight).items():
        allowed = 4 * TOLERANCE[dtype] * (float(value.abs().max()) + 1e-3)
        assert float((ours[key].cpu() - value).abs().max()) <= allowed, key


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_training_learns(dtype: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 12, 14, 1, device="cuda")
    target = torch.nn.functional.one_hot((x.mean((1, 2, 3)) > 0).long(), 5).float()
    net = compile(small_lenet(), device="cuda", backend="triton", dtype=dtype).train()
    step = net.with_loss("categorical_crossentropy")
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss, _prediction = step(x, target)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_any_batch_size() -> None:
    model = small_lenet()
    net = compile(model, device="cuda", backend="triton")
    exact = compile(model, device="cpu")
    with torch.no_grad():
        for size in (1, 2, 16, 33):
            x = batch(model, size)
            torch.testing.assert_close(net(x.cuda()).cpu(), exact(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_kernel_files_run_by_themselves(tmp_path: Path, dtype: str) -> None:
    for path in emit(small_lenet(), tmp_path, dtype=dtype, training=True):
        if path.suffix == ".py":
            done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
            assert "OK" in done.stdout
