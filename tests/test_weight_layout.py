"""How weights lie in memory: on a CPU, a convolution's kernel as PyTorch's operators want it.

Nothing that copies, saves, loads, moves or optimizes weights may care.
"""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import randomised
from torch.nn.utils import vector_to_parameters
from torch.profiler import profile

import convloom as cl
from convloom import layers as L


def model() -> cl.Model:
    x = cl.Input((9, 8, 3))
    h = L.Conv2D(8, 3, padding="same", use_bias=False, name="conv")(x)
    h = L.ReLU()(L.BatchNormalization(name="norm")(h))
    h = L.ReLU()(L.Conv2D(6, 1, strides=2, name="point")(h))
    h = L.Conv2D(6, 3, groups=2, name="grouped")(h)
    y = L.Dense(4, name="head")(L.GlobalAveragePooling2D()(h))
    return randomised(cl.Model(x, y, name="small"))


def batch() -> torch.Tensor:
    return torch.randn(3, 9, 8, 3, generator=torch.Generator().manual_seed(1))


def backward(net: cl.CompiledNetwork) -> None:
    net.zero_grad()
    net(batch()).square().mean().backward()


def is_laid_out(kernel: torch.Tensor) -> bool:
    return kernel.permute(3, 2, 0, 1).is_contiguous(memory_format=torch.channels_last)


def kernels(net: cl.CompiledNetwork) -> list[torch.Tensor]:
    found: list[torch.Tensor] = [p for p in net.parameters() if p.dim() == 4]
    assert len(found) == 3
    return found


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_kernels_and_their_gradients_lie_as_operators_want_them(dtype: str) -> None:
    net = cl.compile(model(), device="cpu", backend="aten", dtype=dtype).train()
    assert [tuple(p.shape) for p in kernels(net)] == [(3, 3, 3, 8), (1, 1, 8, 6), (3, 3, 3, 6)]
    net(batch().to(getattr(torch, dtype))).float().square().mean().backward()
    for kernel in kernels(net):
        assert is_laid_out(kernel)
        assert kernel.grad is not None
        assert kernel.grad.stride() == kernel.stride()
    with pytest.raises(RuntimeError, match="reshape"):
        kernels(net)[0].view(-1)
    assert kernels(net)[0].reshape(-1).shape == (216,)


def test_a_training_step_relays_no_kernel() -> None:
    x = cl.Input((6, 6, 32))
    net = cl.compile(cl.Model(x, L.Conv2D(64, 3)(L.Conv2D(32, 3)(x))), device="cpu", backend="aten").train()
    images = torch.randn(2, 6, 6, 32)
    net(images).sum().backward()
    with profile(record_shapes=True) as seen:
        net(images).sum().backward()
    copied = [e.input_shapes[0] for e in seen.events() if e.name == "aten::copy_" and e.input_shapes]
    assert not [shape for shape in copied if 3 * 3 * 32 in shape]  # a kernel as a matrix, to be transposed


def test_one_model_compiled_for_both_backends() -> None:
    one = model()
    first = cl.compile(one, device="cpu", backend="aten").train()
    second = cl.compile(one, device="cpu", backend="triton").train()
    with torch.no_grad():
        kernels(first)[0].mul_(1.5)
    backward(first)
    gradients = [p.grad.clone() for p in first.parameters() if p.grad is not None]
    backward(second)
    for a, p in zip(gradients, second.parameters(), strict=True):
        torch.testing.assert_close(a, p.grad, rtol=1e-3, atol=1e-4)
    assert kernels(first)[0].data_ptr() == kernels(second)[0].data_ptr()


def test_a_weight_that_somebody_laid_otherwise_is_read_right() -> None:
    net = cl.compile(model(), device="cpu", backend="aten").train()
    plain = copy.deepcopy(net)
    for p in kernels(net):
        p.data = p.data.contiguous()
    assert kernels(net)[0].view(-1).shape == (216,)
    for each in (net, plain):
        backward(each)
    for a, b in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


OPTIMIZERS: list[Callable[[list[torch.Tensor]], torch.optim.Optimizer]] = [
    lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, foreach=True),
    lambda p: torch.optim.Adam(p, foreach=True),
    lambda p: torch.optim.Adam(p, fused=True),
    lambda p: torch.optim.Adafactor(p),
]


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_optimizers_step_as_over_row_major_weights(
    make: Callable[[list[torch.Tensor]], torch.optim.Optimizer],
) -> None:
    net = cl.compile(model(), device="cpu", backend="aten").train()
    plain = [torch.nn.Parameter(p.detach().clone().contiguous()) for p in net.parameters()]
    ours, other = make(list(net.parameters())), make(list(plain))
    for _ in range(3):
        backward(net)
        for p, q in zip(net.parameters(), plain, strict=True):
            assert p.grad is not None
            q.grad = p.grad.clone().contiguous()
        ours.step()
        other.step()
    for p, q in zip(net.parameters(), plain, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)
    assert all(map(is_laid_out, kernels(net)))


def _deep(net: cl.CompiledNetwork) -> cl.CompiledNetwork:
    return copy.deepcopy(net)


def _pickled(net: cl.CompiledNetwork) -> cl.CompiledNetwork:
    found: cl.CompiledNetwork = pickle.loads(pickle.dumps(net))
    return found


def _saved(net: cl.CompiledNetwork) -> cl.CompiledNetwork:
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    other = cl.compile(model(), device="cpu", backend="aten").train()
    file.seek(0)
    other.load_state_dict(torch.load(file))
    return other


def _from_row_major(net: cl.CompiledNetwork) -> cl.CompiledNetwork:
    other = cl.compile(model(), device="cpu", backend="aten").train()
    other.load_state_dict({name: value.contiguous() for name, value in net.state_dict().items()})
    return other


@pytest.mark.parametrize("copied", [_deep, _pickled, _saved, _from_row_major])
def test_copies_have_the_same_weights_laid_out_alike(
    copied: Callable[[cl.CompiledNetwork], cl.CompiledNetwork],
) -> None:
    net = cl.compile(model(), device="cpu", backend="aten").train()
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(0.7)
    twin = copied(net)
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.equal(p, q)
    assert all(map(is_laid_out, kernels(twin)))
    backward(net)
    backward(twin)
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        assert p.grad is not None
        assert q.grad is not None
        assert torch.equal(p.grad, q.grad)


def test_vectors_of_parameters() -> None:
    net = cl.compile(model(), device="cpu", backend="aten").eval()
    flat = torch.cat([p.detach().reshape(-1) for p in net.parameters()])
    before = net(batch())
    vector_to_parameters(flat * 2, net.parameters())
    assert (net(batch()) - before).abs().max() > 1e-3
    vector_to_parameters(flat, net.parameters())
    torch.testing.assert_close(net(batch()), before)


@pytest.mark.parametrize("suffix", ["npz", "keras", "weights.h5"])
def test_files_hold_what_they_held(suffix: str, tmp_path: Path) -> None:
    one, other = model(), model()
    path = tmp_path / f"small.{suffix}"
    for value in other.parameters.values():
        value.zero_()
    if suffix == "npz":
        arrays: dict[str, Any] = {name: value.numpy() for name, value in one.parameters.items()}
        np.savez(path, **arrays)
        other.load_weights(path)
    elif suffix == "keras":
        one.save(path)
        other = cl.load(path)
    else:
        one.save_weights(path)
        other.load_weights(path)
    for a, b in zip(one.parameters.values(), other.parameters.values(), strict=True):
        assert torch.equal(a, b)
        assert a.stride() == b.stride()
    assert is_laid_out(other.parameters["conv/kernel"])
