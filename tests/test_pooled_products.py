"""A Dense over the channels of a map, pooled: one kernel, found by the fuzz to have been none that runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import convloom as cl
from convloom import layers as L

pytestmark = pytest.mark.filterwarnings("error::convloom.runtime.backends.FallbackWarning")

POOLINGS: dict[str, Any] = {
    "max 2": lambda: L.MaxPooling2D(2),
    "max 1 by 2": lambda: L.MaxPooling2D(1, strides=2),
    "max 3 by 2, padded": lambda: L.MaxPooling2D(3, strides=2, padding="same"),
    "average 2, padded": lambda: L.AveragePooling2D(2, padding="same"),
    "average 1": lambda: L.AveragePooling2D(1),
}


@pytest.mark.parametrize("size", [(4, 6, 3), (5, 7, 17)])
@pytest.mark.parametrize("name", POOLINGS)
def test_values_and_gradients(name: str, size: tuple[int, int, int]) -> None:
    image = cl.Input(size)
    h = L.Dense(5, activation="tanh")(image)
    model = cl.Model(image, L.Dense(2, activation="tanh")(POOLINGS[name]()(h)))
    x = torch.randn(2, *size)
    found = []
    for options in ({"dtype": "float64", "fuse": False}, {"backend": "triton", "device": "cpu"}):
        net = cl.compile(model, **options).train()
        given = x.to(next(net.parameters()).dtype).requires_grad_()
        y = net(given)
        y.square().sum().backward()
        gradients = [p.grad for p in net.parameters()]
        found.append([value.double() for value in (y.detach(), given.grad, *gradients) if value is not None])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_it_is_one_kernel() -> None:
    image = cl.Input((4, 6, 3))
    net = cl.compile(cl.Model(image, L.MaxPooling2D(2)(L.Dense(5, activation="relu")(image))))
    assert [list(kernel.ops) for kernel in net.kernels] == [["dense", "relu", "max_pool2d"]]
    assert "sum over c of x[n,p,q,c] * w[c,k]" in net.kernels[0].source


@pytest.mark.parametrize("size", [(4, 6, 3), (5, 7, 17)])
@pytest.mark.parametrize("leaves", [False, True])
def test_a_pooled_value_that_others_read_is_stored_beside(size: tuple[int, int, int], leaves: bool) -> None:
    """A U-Net's level: pooled on the way down, kept whole for the way up, by one kernel."""
    image = cl.Input(size)
    h = L.Conv2D(5, 3, padding="same", activation="relu")(image)
    up = L.UpSampling2D(2)(L.MaxPooling2D(2)(h))
    rows, columns = size[0] // 2 * 2, size[1] // 2 * 2
    crop = L.Cropping2D(((0, size[0] - rows), (0, size[1] - columns)))
    whole = h if (rows, columns) == size[:2] else crop(h)
    joined = L.Conv2D(4, 1)(L.Concatenate()([whole, up]))
    model = cl.Model(image, [joined, h] if leaves else joined)
    x = torch.randn(3, *size)
    for training in (False, True):
        found = []
        for options in ({"dtype": "float64", "fuse": False}, {"backend": "triton", "device": "cpu"}, {}):
            net = cl.compile(model, **options).train(training)
            given = x.to(next(net.parameters()).dtype, copy=True).requires_grad_()
            results = net(given)
            results = results if isinstance(results, tuple) else (results,)
            torch.stack([y.double().square().sum() for y in results]).sum().backward()
            gradients = [p.grad for p in net.parameters()]
            found.append([v.double() for v in (*results, given.grad, *gradients) if v is not None])
        for one, *others in zip(*found, strict=True):
            for other in others:
                most = max(1.0, float(one.detach().abs().max()))
                torch.testing.assert_close(one, other, rtol=0, atol=1e-6 * most)
    kernels = [kernel.ops for kernel in cl.compile(model, backend="aten", device="cpu").eval().kernels]
    exact = (rows, columns) == size[:2]
    assert (["conv2d", "relu", "max_pool2d"] in kernels) is exact  # else the windows leave a border uncovered
