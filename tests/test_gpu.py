"""Native kernels on a GPU against float64 on the CPU: every network, dtype and mode.

The same functions run in the ordinary run too, in Triton's interpreter, on a part of it that takes seconds.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest
import torch
from convloom.runtime.compile import compile
from convloom.runtime.emit import emit
from helpers import on_gpu, randomised
from test_network import batch, gradients, residual, small_lenet

from convloom import Input, Model
from convloom import layers as L

pytestmark = pytest.mark.filterwarnings("error::convloom.runtime.backends.FallbackWarning")

NETWORKS: dict[str, Callable[[], Model]] = {
    "lenet-max-relu": small_lenet,
    "lenet-average-tanh": partial(small_lenet, "average", "tanh"),
    "residual": partial(residual, dropout=0.0),  # a GPU draws other numbers
}

TOLERANCE = {"float32": 2e-4, "tf32": 2e-2, "bfloat16": 6e-2, "float16": 1e-2}
"""Of the largest value: rounding of the operands times a few layers."""

WAYS = [
    # Smooth networks alone in few bits: where another value becomes a window's largest, gradients jump.
    *((name, "float32", fuse) for name in NETWORKS for fuse in (True, False)),
    *(
        ("lenet-average-tanh", dtype, fuse)
        for dtype in ("tf32", "bfloat16", "float16")
        for fuse in (True, False)
    ),
]
INTERPRETED = [("residual", "float32", True), ("lenet-average-tanh", "bfloat16", False)]


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize(
    ("device", "name", "dtype", "fuse"),
    [*(("cpu", *way) for way in INTERPRETED), *(on_gpu("cuda", *way) for way in WAYS)],
    indirect=["device"],
)
def test_forward_and_gradients(
    device: torch.device, name: str, dtype: str, fuse: bool, training: bool
) -> None:
    model = randomised(NETWORKS[name]())
    exact = compile(model, device="cpu", dtype="float64", fuse=False).train(training)
    net = compile(model, device=str(device), backend="triton", dtype=dtype, fuse=fuse).train(training)
    x = batch(model, 5 if device.type == "cuda" else 2)
    expected, wanted = gradients(exact, x)
    found, ours = gradients(net, x.to(device))
    assert far(found, expected) <= TOLERANCE[dtype]
    assert ours.keys() == wanted.keys()
    for key, value in wanted.items():
        assert far(ours[key], value) <= 4 * TOLERANCE[dtype], key


def far(found: torch.Tensor, expected: torch.Tensor) -> float:
    """How far apart, of the largest value."""
    found, expected = found.detach().cpu().double(), expected.detach()
    return float((found - expected).abs().max() / (expected.abs().max() + 1e-3))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_training_learns(device: torch.device, dtype: str) -> None:
    torch.manual_seed(0)
    images, steps = (64, 30) if device.type == "cuda" else (2, 3)
    x = torch.randn(images, 12, 14, 1)
    target = torch.nn.functional.one_hot((x.mean((1, 2, 3)) > 0).long(), 5).float()
    net = compile(small_lenet(), device=str(device), backend="triton", dtype=dtype).train()
    step = net.with_loss("categorical_crossentropy")
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss, _prediction = step(x.to(device), target.to(device))
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < (0.5 if steps == 30 else 0.99) * losses[0]


def test_any_batch_size(device: torch.device) -> None:
    model = randomised(small_lenet())
    net = compile(model, device=str(device), backend="triton")
    exact = compile(model, device="cpu")
    with torch.no_grad():
        for size in (1, 2, 16, 33) if device.type == "cuda" else (1, 3):
            x = batch(model, size)
            torch.testing.assert_close(net(x.to(device)).cpu(), exact(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("device", "dtype"),
    [("cpu", "bfloat16"), on_gpu("cuda", "float32"), on_gpu("cuda", "bfloat16")],
    indirect=["device"],
)
def test_kernel_files_run_by_themselves(device: torch.device, tmp_path: Path, dtype: str) -> None:
    files = [
        path for path in emit(small_lenet(), tmp_path, dtype=dtype, training=True) if path.suffix == ".py"
    ]
    for path in files if device.type == "cuda" else files[-1:]:
        done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "OK" in done.stdout


def test_views_at_odd_places_and_windows_of_minus_infinity(device: torch.device) -> None:
    """What lies between multiples of 16 bytes; and gradients that go where PyTorch's do."""
    image = Input((9, 7, 3))
    model = Model(image, L.MaxPooling2D(3, strides=2, padding="same")(image))
    net = compile(model, device=str(device), backend="triton")
    room = torch.randn(2 * 9 * 7 * 3 + 1, device=device)
    x = room[1:].view(2, 9, 7, 3)
    x[:, :4, :4] = float("-inf")
    given, plain = x.detach().requires_grad_(), x.detach().clone().requires_grad_()
    net(given).sum().backward()
    torch.nn.functional.max_pool2d(plain.permute(0, 3, 1, 2), 3, 2, 1).sum().backward()
    torch.testing.assert_close(given.grad, plain.grad)


def test_streams_read_what_another_has_folded(device: torch.device) -> None:
    model = randomised(residual(dropout=0.0))
    net = compile(model, device=str(device), backend="triton").eval()
    exact = compile(model, device="cpu").eval()
    x = batch(model, 2)
    streams = [torch.cuda.Stream(device) for _ in range(3)] if device.type == "cuda" else [None]
    for step in range(3 * len(streams)):
        with torch.no_grad():
            next(net.parameters()).mul_(1.01)  # the other network's, too
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            here = streams[step % len(streams)]
            with torch.cuda.stream(here) if here is not None else nullcontext():
                found = net(x.to(device))
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            torch.testing.assert_close(found.cpu(), exact(x), rtol=1e-3, atol=1e-4)


def test_another_device_than_the_current_one(device: torch.device) -> None:
    if device.type == "cuda" and torch.cuda.device_count() < 2:
        pytest.skip("one GPU")
    place = "cuda:1" if device.type == "cuda" else "cpu"
    model = randomised(small_lenet())
    net = compile(model, device=place, backend="triton").train()
    exact = compile(model, device="cpu").train()
    x = batch(model, 2)
    found, ours = gradients(net, x.to(place))
    expected, wanted = gradients(exact, x)
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-5)
    for key, value in wanted.items():
        torch.testing.assert_close(ours[key].cpu(), value, rtol=1e-3, atol=1e-4)
    if device.type == "cuda":
        kernel = net.eval().kernels[0]
        module = kernel.load(interpreted=False)
        inputs, outputs = module.example(2, place), module.results(2, place)
        module.launch(*inputs, *outputs)
        torch.testing.assert_close(outputs[0].double(), module.reference(*inputs)[0], rtol=1e-2, atol=1e-2)
