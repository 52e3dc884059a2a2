"""What a training step asks of PyTorch beside its kernels: one call for many weights, however many layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import convloom as cl
from convloom import layers as L


class _Calls(TorchDispatchMode):
    """Counts the operators that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[func._schema.name.removeprefix("aten::")] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def calls() -> Iterator[Counter[str]]:
    with _Calls() as mode:
        yield mode.counts


def blocks(count: int) -> cl.Model:
    """Convolutions with batch norms, of two momentums."""
    x = h = cl.Input((6, 5, 3), name="x")
    for index in range(count):
        h = L.Conv2D(4, 3, padding="same", use_bias=False, name=f"conv{index}")(h)
        h = L.BatchNormalization(momentum=0.9, name=f"norm{index}")(h)
        h = L.Activation("relu")(h)
    return cl.Model(x, L.Dense(2)(L.Flatten()(h)), name="blocks")


def compiled(count: int, backend: str) -> Any:
    torch.manual_seed(3)
    return cl.compile(blocks(count), backend=backend, device="cpu", dtype="bfloat16").train()


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("backend", ["aten", "triton"])
def test_weights_are_rounded_together(backend: str, count: int) -> None:
    net = compiled(count, backend)
    weights = net.weights()
    with calls() as found:
        values = net.executor.prelude(weights)
    assert found["_foreach_copy_"] == 1
    assert not found["_to_copy"]
    kernels = [name for name in values if name.endswith("/bfloat16")]
    assert len(kernels) == count + 1
    for name in kernels:
        wanted = weights[name.removesuffix("/bfloat16")]
        assert torch.equal(values[name], wanted.to(torch.bfloat16))


def test_only_what_has_changed_is_rounded_again() -> None:
    net = compiled(3, "triton")
    before = dict(net.executor.prelude(net.weights()))
    with torch.no_grad():
        net.weights()["conv1/kernel"].mul_(2)
    after = net.executor.prelude(net.weights())
    fresh = [name for name in before if name.endswith("/bfloat16") and after[name] is not before[name]]
    assert fresh == ["conv1/kernel/bfloat16"]
    assert torch.equal(after[fresh[0]], 2 * before[fresh[0]])


@pytest.mark.parametrize("count", [1, 5])
def test_moving_averages_share_their_calls(count: int) -> None:
    net = compiled(count, "aten")
    x = torch.randn(2, 6, 5, 3)
    with calls() as found:
        net(x)
    assert (found["_foreach_mul_"], found["_foreach_add_"]) == (1, 1)
    assert not {"mul_", "add_", "lerp_", "lerp"} & found.keys()
