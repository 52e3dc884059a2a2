"""Transposed convolutions by packed weights, with their bias, against the op's own definition."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from convloom.runtime.aten import onednn

import convloom as cl
from convloom import layers as L

SIZES = ((5, 7), (1, 1), (8, 4))
WINDOWS = [
    ((2, 2), (2, 2), 1),
    ((3, 3), (2, 2), 1),
    ((3, 5), (3, 2), 1),
    ((2, 2), (3, 3), 1),  # strides leave rows that no window reaches
    ((3, 3), (1, 1), 2),
]


def network(size: tuple[int, int], window: Any, padding: str, **options: Any) -> cl.CompiledNetwork:
    kernel, strides, dilation = window
    x = cl.Input((*size, 6))
    layer = L.Conv2DTranspose(5, kernel, strides, padding, dilation_rate=dilation, activation="relu")
    net = cl.compile(cl.Model(x, layer(x)), backend="aten", **options).eval()
    with torch.no_grad():
        for name, value in net.named_parameters():
            if name.endswith("bias"):
                value.uniform_(-1, 1)
    return net


def check(net: cl.CompiledNetwork, x: torch.Tensor, tolerance: float = 1e-5) -> None:
    with torch.no_grad():
        (wanted,) = net.executor.walk([x], net.weights(), {})
        torch.testing.assert_close(net(x), wanted, rtol=tolerance, atol=tolerance, equal_nan=True)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_against_the_definition(window: Any, padding: str) -> None:
    """Sizes, batches one after the other, NaN and infinity where they stand."""
    for size in SIZES:
        net = network(size, window, padding)
        for batch in (1, 3, 2):
            x = torch.randn(batch, *size, 6)
            check(net, x)
            x.view(-1)[0], x.view(-1)[-1] = float("nan"), float("inf")
            check(net, x)


def test_a_changed_weight_is_packed_anew() -> None:
    net = network((5, 7), WINDOWS[0], "valid")
    x = torch.randn(2, 5, 7, 6)
    check(net, x)
    with torch.no_grad():
        for value in net.parameters():
            value.mul_(-0.5)
    check(net, x)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(dtype: str) -> None:
    net = network((5, 7), WINDOWS[1], "same", dtype=dtype)
    check(net, torch.randn(2, 5, 7, 6).to(getattr(torch, dtype)), 5e-2)


def test_one_call_with_its_bias(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    run = onednn.transpose

    def noted(*given: Any) -> Any:
        calls.append(given[2])
        return run(*given)

    monkeypatch.setattr(onednn, "transpose", noted)
    network((5, 7), WINDOWS[0], "valid")(torch.randn(2, 5, 7, 6).numpy())
    if onednn.available(torch.float32) and onednn.transposing(torch.float32):
        assert [bias is not None for bias in calls] == [True]


def test_without_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "available", lambda dtype: False)
    for size, window in itertools.product(SIZES[:1], WINDOWS):
        check(network(size, window, "same"), torch.randn(2, *size, 6))
