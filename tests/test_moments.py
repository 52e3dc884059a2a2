"""Mean and variance of a batch in one pass, where a mean is large beside the deviation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from convloom.codegen import Kernel, emit
from convloom.graph.ops import Input, Reduce, Variance
from convloom.graph.types import DTYPES
from convloom.planning.schedules import Schedule
from kernel_checks import EPS, region

import convloom as cl
from convloom import layers as L

FAR = 1000.0
"""Deviations between the mean and zero."""

SCHEDULES = {
    "chosen": None,
    "one part": Schedule(16, 16, chunk=16, programs=1),
    "many parts": Schedule(16, 16, chunk=16, programs=1000),
    "parts that do not divide": Schedule(32, 8, chunk=96, programs=12),
}


def values(batch: int, *shape: int, dtype: str) -> torch.Tensor:
    """Each channel about a mean of its own, FAR deviations from zero."""
    generator = torch.Generator().manual_seed(batch)
    x = torch.randn(batch, *shape, generator=generator)
    scale = torch.logspace(-1, 1, shape[-1])
    return ((x + FAR * torch.tensor([1.0, -1.0]).repeat(shape[-1])[: shape[-1]]) * scale).to(DTYPES[dtype])


def moments(shape: tuple[int, ...], dtype: str, schedule: Schedule | None = None) -> Kernel:
    axes = tuple(range(len(shape)))
    nodes: list[Any] = [("x", Input(("N", *shape), dtype), ())]
    nodes += [("mean", Reduce(axes, mean=True), ["x"]), ("variance", Variance(), ["x"])]
    return emit(region(nodes, outputs=["mean", "variance"]), schedule=schedule)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("shape", [(19, 23, 17), (1, 1, 3), (37,)], ids=str)
def test_a_mean_of_a_thousand_deviations(shape: tuple[int, ...], schedule: str, dtype: str) -> None:
    """A mean is off by some epsilons of itself, and a variance by as much times its root: of a sum of squares
    no digit would be left."""
    kernel = moments(shape, dtype, SCHEDULES[schedule])
    module = kernel.load(interpreted=True)
    for batch in (3, 7):
        x = values(batch, *shape, dtype=dtype)
        mean, variance = module.results(batch)
        module.launch(x, mean, variance)
        exact, over = x.double(), tuple(range(x.ndim - 1))
        wanted, spread = exact.mean(over), exact.var(over, correction=0)
        off = 4 * EPS["float32"] * wanted.abs()
        assert bool(((mean.double() - wanted).abs() <= off).all())
        assert bool(((variance.double() - spread).abs() <= off * spread.sqrt() + off**2).all())


def test_a_sum_of_squares_would_not_pass() -> None:
    x = values(3, 19, 23, 17, dtype="float32")
    naive = (x * x).mean((0, 1, 2)) - x.mean((0, 1, 2)) ** 2
    exact = x.double().var((0, 1, 2), correction=0)
    assert float(((naive.double() - exact) / exact).abs().max()) > 100 * 4 * FAR * EPS["float32"]


def test_a_channel_that_does_not_vary() -> None:
    module = moments((9, 7, 5), "float32").load(interpreted=True)
    mean, variance = module.results(3)
    module.launch(torch.full((3, 9, 7, 5), 1234.5), mean, variance)
    off = 2 * EPS["float32"] * 1234.5
    assert float(variance.max()) <= off**2
    assert float((mean - 1234.5).abs().max()) <= off


def huge_values(batch: int, *shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Each channel about a power of ten from 1e18 to 1e38, by a thousandth and by a third of it in turn, or
    not at all; and which are not numbers: NaN in one of them, an infinity in another."""
    generator = torch.Generator().manual_seed(batch)
    size = torch.logspace(18, 38, shape[-1], dtype=torch.float64)
    apart = torch.tensor([0.0, 1e-3, 0.3], dtype=torch.float64).repeat(shape[-1])[: shape[-1]]
    x = size * (1 + apart * (torch.rand(batch, *shape, generator=generator, dtype=torch.float64) - 0.5))
    lost = torch.zeros(shape[-1], dtype=torch.bool)
    for channel, value in ((1, float("nan")), (3, float("inf"))):
        x.view(-1, shape[-1])[-1, channel] = value
        lost[channel] = True
    return x.float(), lost


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("shape", [(19, 23, 17), (1, 1, 5), (37,)], ids=str)
def test_means_whose_squares_are_beyond_all_numbers(shape: tuple[int, ...], schedule: str) -> None:
    """A variance may be a number where no square of a value is; and a channel that is lost stays alone."""
    module = moments(shape, "float32", SCHEDULES[schedule]).load(interpreted=True)
    for batch in (1, 3, 7):
        x, lost = huge_values(batch, *shape)
        mean, variance = module.results(batch)
        module.launch(x, mean, variance)
        over = tuple(range(x.ndim - 1))
        wanted, spread = x.double().mean(over), x.double().var(over, correction=0)
        assert bool((~mean[lost].isfinite() & ~variance[lost].isfinite()).all())
        mean, variance, wanted, spread = (v[~lost].double() for v in (mean, variance, wanted, spread))
        off = 4 * EPS["float32"] * wanted
        assert bool(((mean - wanted).abs() <= off).all())
        told = spread < 0.9 * torch.finfo(torch.float32).max
        allowed = off * spread.sqrt() + off**2
        close = (variance - spread).abs() <= allowed
        beyond = (spread.float().isinf() | (off**2 > spread)) & (variance == float("inf"))
        assert bool((close | beyond).all()), (variance, spread)
        assert bool(told.any())


@pytest.mark.parametrize("backend", ["triton", "aten"])
@pytest.mark.parametrize("fuse", [True, False])
def test_a_network_normalises_what_lies_far_from_zero(backend: str, fuse: bool) -> None:
    """Against float64: the statistics that move, and what comes out."""
    x = values(4, 9, 7, 5, dtype="float32")
    found = []
    ways: list[dict[str, Any]] = [{"dtype": "float64", "fuse": False}, {"fuse": fuse, "backend": backend}]
    for options in ways:
        image = cl.Input((9, 7, 5))
        model = cl.Model(image, L.BatchNormalization(momentum=0.5, epsilon=1e-6)(image))
        net = cl.compile(model, device="cpu", **options).train()
        y = net(x.to(next(net.parameters()).dtype))
        found.append((y.detach().double(), *(value.double() for value in net.buffers())))
    for wanted, given in zip(*found, strict=True):
        torch.testing.assert_close(
            given, wanted, rtol=4 * FAR * EPS["float32"], atol=8 * FAR * EPS["float32"]
        )
