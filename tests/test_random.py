"""Drawn values: their distributions, and layers that are random in training."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from convloom.graph import ops
from convloom.graph.errors import CompileError, ShapeError
from convloom.graph.passes.precision import with_dtype
from op_cases import N

import convloom as cl
from convloom import layers as L

CPU = torch.device("cpu")
MANY = 20_000


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(3)


def near(found: torch.Tensor, expected: float, deviation: float) -> None:
    """Within five standard errors of the mean of independent numbers with this standard deviation."""
    assert abs(found.double().mean().item() - expected) <= 5 * deviation / math.sqrt(found.numel())


# -- numbers ----------
@pytest.mark.parametrize(
    ("distribution", "of", "mean", "deviation"),
    [
        ("bernoulli", (0.7, 1 / 0.7), 1.0, math.sqrt(0.3 / 0.7)),
        ("normal", (0.5, 2.0), 0.5, 2.0),
        ("uniform", (-1.0, 3.0), 1.0, 4 / math.sqrt(12)),
    ],
)
def test_moments(distribution: str, of: tuple[float, float], mean: float, deviation: float) -> None:
    drawn = ops.Random((N, 4, 1), distribution, of).draw(MANY, CPU)
    assert drawn.shape == (MANY, 4, 1)
    near(drawn, mean, deviation)
    fourth = {"bernoulli": 1.0, "normal": math.sqrt(2), "uniform": math.sqrt(0.8)}[distribution]
    near((drawn - mean) ** 2, deviation**2, fourth * deviation**2)
    first, second = drawn[:, 0].flatten() - mean, drawn[:, 1].flatten() - mean
    near(first * second, 0.0, deviation**2)  # places of one sample are independent
    near(first[1:] * first[:-1], 0.0, deviation**2)  # and so are samples


def test_odds_signs_and_powers() -> None:
    odds = ops.Random((N,), "odds", (-0.2, 0.8), dtype="float64").draw(MANY, CPU)
    near(odds / (1 + odds), 0.3, 1 / math.sqrt(12))
    assert -1 / 6 <= odds.min() < -0.16
    assert 3.9 < odds.max() <= 4
    for dtype in ("float32", "float16", "bfloat16"):
        assert ops.Random((N,), "odds", (1.0, 1.0), dtype=dtype).draw(9, CPU).isfinite().all()
    turned = ops.Random((N,), "uniform either way", (1.0, 3.0)).draw(MANY, CPU)
    near(turned.sign(), 0.0, 1.0)
    near(turned.abs(), 2.0, 2 / math.sqrt(12))
    values, counts = ops.Random((N,), "power of two", (1.0, 3.0)).draw(MANY, CPU).unique(return_counts=True)
    assert values.tolist() == [2, 4, 8]
    assert (counts / MANY - 1 / 3).abs().max() < 5 * math.sqrt(2 / 9 / MANY)


def test_blurs_are_normal_densities() -> None:
    """The ratio of neighbouring weights tells the deviation of each axis."""
    source = ops.RandomBlur((5, 7), 2, (0.5, 0.9), "float64")
    deviations = []
    for _ in range(400):
        kernel = source.draw(3, CPU)
        assert torch.equal(kernel[..., 0], kernel[..., 1])
        assert kernel[..., 0].sum().item() == pytest.approx(1)
        weights = kernel[:, :, 0, 0]
        torch.testing.assert_close(weights, weights.sum(1, keepdim=True) * weights.sum(0))
        drop = (weights[2, 3] / torch.stack([weights[1, 3], weights[2, 2]])).log()
        deviations.append((0.5 / drop).sqrt())
    found = torch.stack(deviations)
    assert 0.5 <= found.min() < 0.51
    assert 0.89 < found.max() <= 0.9 + 1e-5
    near(found[:, 0], 0.7, 0.4 / math.sqrt(12))
    near((found[:, 0] - 0.7) * (found[:, 1] - 0.7), 0.0, 0.16 / 12)
    still = ops.RandomBlur((3, 3), 1, (0.0, 0.0)).draw(1, CPU)
    assert still.flatten().tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0]


def test_shared_axes_have_one_draw() -> None:
    drawn = ops.Random((N, 3, 4, 5), "normal", (0.0, 1.0), (1, 2), "float64").draw(2, CPU)
    assert drawn.dtype == torch.float64
    assert drawn.is_contiguous()
    assert torch.equal(drawn, drawn[:, :1, :1].expand(2, 3, 4, 5))
    assert len(drawn.unique()) == 10


def test_a_seed_makes_draws_repeatable() -> None:
    turned = ops.RandomTransform((5, 6), "rotation", (-0.1, 0.1))
    sources = (ops.Random((N, 4)), ops.RandomBox((5, 6)), ops.RandomBlur((5, 6), 4), turned)
    for source in sources:
        torch.manual_seed(0)
        first, other = source.draw(8, CPU), source.draw(8, CPU)
        torch.manual_seed(0)
        assert torch.equal(source.draw(8, CPU), first)
        assert not torch.equal(other, first)
        assert len(first.flatten(1).unique(dim=0)) > 1
        assert first.shape == source.infer().size(8)


def test_unknown_distributions_and_transforms() -> None:
    with pytest.raises(ShapeError, match="no distribution is called 'cauchy'; known: bernoulli, normal"):
        ops.Random((N,), "cauchy").infer()
    with pytest.raises(ShapeError, match=r"no transform is called 'twist'; known: crop, flip, .*perspective"):
        ops.RandomTransform((4, 4), "twist").infer()


def test_half_precision_keeps_places() -> None:
    image = cl.Input((6, 6, 1))
    turned = L.RandomRotation(0.1, name="turn")(image)
    model = cl.Model(image, L.GaussianNoise(0.1)(turned))
    net = cl.compile(model, dtype="bfloat16", device="cpu").train()
    kinds = {type(node.op): node.type.dtype for node in net.graph.nodes() if isinstance(node.op, ops.Drawn)}
    assert kinds == {ops.RandomTransform: "float32", ops.Random: "bfloat16"}
    assert net(torch.rand(2, 6, 6, 1)).dtype == torch.bfloat16
    assert with_dtype(net.source, "float64")["turn/transform"].type.dtype == "float64"


# -- noise layers ----------
def trained(layer: L.Layer, x: torch.Tensor, **options: object) -> torch.Tensor:
    net = cl.compile(cl.Sequential([cl.Input(tuple(x.shape[1:])), layer]), device="cpu", **options)  # type: ignore[arg-type]
    assert torch.equal(net(x), x)
    net.train()
    with torch.no_grad():
        return net(x)


def test_gaussian_noise() -> None:
    x = torch.full((MANY, 3), 2.0)
    y = trained(L.GaussianNoise(0.5), x)
    near(y, 2.0, 0.5)
    near((y - 2) ** 2, 0.25, 0.25 * math.sqrt(2))


def test_gaussian_dropout() -> None:
    y = trained(L.GaussianDropout(0.2), torch.full((MANY, 3), 2.0))
    near(y, 2.0, 1.0)
    near((y - 2) ** 2, 1.0, math.sqrt(2))  # 4 * 0.2 / 0.8


def test_alpha_dropout_keeps_mean_and_variance() -> None:
    x = torch.randn(MANY, 5)
    y = trained(L.AlphaDropout(0.3), x)
    near(y, 0.0, 1.0)
    near(y**2, 1.0, 3.0)
    values, counts = y.unique(return_counts=True)
    rate = counts.max().item() / y.numel()
    assert abs(rate - 0.3) < 5 * math.sqrt(0.21 / y.numel())
    least = -1.0507009873554804934193349852946 * 1.6732632423543772848170429916717
    scale = ((1 - 0.3) * (1 + 0.3 * least**2)) ** -0.5
    assert values[counts.argmax()].item() == pytest.approx(scale * least * (1 - 0.3), rel=1e-6)
    kept = y != values[counts.argmax()]
    torch.testing.assert_close(y[kept], scale * x[kept] - scale * least * 0.3, rtol=1e-5, atol=1e-5)


def test_alpha_dropout_shares_along_noise_shape() -> None:
    y = trained(L.AlphaDropout(0.5, noise_shape=(None, 1, 4)), torch.ones(50, 3, 4))
    assert torch.equal(y, y[:, :1].expand(50, 3, 4))
    assert len(y.unique()) == 2


@pytest.mark.parametrize(
    ("layer", "shape", "places"),
    [
        (L.SpatialDropout1D(0.5), (6, 5), (1,)),
        (L.SpatialDropout2D(0.5), (3, 2, 5), (1, 2)),
        (L.SpatialDropout2D(0.5, data_format="channels_first"), (5, 3, 2), (2, 3)),
        (L.SpatialDropout3D(0.5), (3, 2, 4, 5), (1, 2, 3)),
        (L.SpatialDropout3D(0.5, data_format="channels_first"), (5, 3, 2, 4), (2, 3, 4)),
    ],
)
def test_spatial_dropout_drops_whole_channels(
    layer: L.Layer, shape: tuple[int, ...], places: tuple[int, ...]
) -> None:
    y = trained(layer, torch.ones(400, *shape))
    channels = y.amax(places)
    assert torch.equal(channels, y.amin(places))
    assert set(channels.unique().tolist()) == {0.0, 2.0}
    near(channels, 1.0, 1.0)


@pytest.mark.parametrize("make", [L.Dropout, L.GaussianNoise, L.GaussianDropout, L.AlphaDropout])
def test_nothing_is_drawn_at_a_rate_of_0(make: Callable[[float], L.Layer]) -> None:
    net = cl.compile(cl.Sequential([cl.Input((3,)), make(0.0), L.Dense(2)]), device="cpu").train()
    assert not any(isinstance(node.op, ops.Drawn) for node in net.graph.nodes())


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: L.GaussianNoise(1.5, name="g"), "GaussianNoise 'g': stddev must lie in [0, 1], got 1.5"),
        (lambda: L.GaussianDropout(1.0, name="g"), "GaussianDropout 'g': rate must lie in [0, 1), got 1.0"),
        (lambda: L.AlphaDropout(-0.1, name="a"), "AlphaDropout 'a': rate must lie in [0, 1), got -0.1"),
    ],
)
def test_error_texts(make: Callable[[], L.Layer], text: str) -> None:
    with pytest.raises(cl.ConvLoomError) as caught:
        make()
    assert str(caught.value) == text


def test_kernels_draw_the_same_and_train_the_same() -> None:
    """One seed, the same steps: emitted kernels against torch's operators, fused and not."""
    x, y = torch.randn(6, 5, 4, 2), torch.randn(6, 3)

    def losses(**options: object) -> list[float]:
        torch.manual_seed(11)
        image = cl.Input((5, 4, 2))
        h = L.Conv2D(3, 3, activation="relu", padding="same")(L.GaussianNoise(0.2)(image))
        h = L.SpatialDropout2D(0.3)(L.GaussianDropout(0.2)(h))
        model = cl.Model(image, L.Dense(3)(L.AlphaDropout(0.3)(L.Flatten()(h))))
        model.set_weights([w * 0 + np.linspace(-0.5, 0.5, w.size, dtype=np.float32).reshape(w.shape)
                           for w in map(np.asarray, model.get_weights())])  # fmt: skip
        net = cl.compile(model, device="cpu", **options).train()  # type: ignore[arg-type]
        step, optimizer = net.with_loss("mse"), torch.optim.SGD(net.parameters(), 0.1)
        torch.manual_seed(5)
        found = []
        for _ in range(3):
            optimizer.zero_grad()
            loss, _ = step(x, y)
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        return found

    expected = losses(backend="aten", fuse=False)
    assert expected[2] != expected[1] != expected[0]
    assert losses(backend="aten") == pytest.approx(expected, rel=1e-5)
    assert losses(backend="triton") == pytest.approx(expected, rel=1e-5)


def test_masks_ride_in_the_kernels_around() -> None:
    image = cl.Input((8, 8, 3))
    h = L.Conv2D(4, 3, activation="relu")(image)
    plain = cl.compile(cl.Model(image, L.Conv2D(4, 3)(h)), device="cpu").train()
    noisy = cl.compile(
        cl.Model(image, L.Conv2D(4, 3)(L.GaussianDropout(0.2)(L.SpatialDropout2D(0.2)(h)))), device="cpu"
    ).train()
    forward = [[r for r in net.program.regions if r.phase == "forward"] for net in (plain, noisy)]
    assert len(forward[0]) == len(forward[1]) == 2


def test_gradients_flow_through_the_noise_that_was_drawn() -> None:
    image = cl.Input((3, 2, 2))
    h = L.Conv2D(3, 2, padding="same")(image)
    for layer in (L.GaussianNoise(0.3), L.GaussianDropout(0.3), L.AlphaDropout(0.3), L.Dropout(0.3)):
        h = layer(h)
    net = cl.compile(cl.Model(image, h), device="cpu", dtype="float64").train()

    def run(x: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(1)
        result: torch.Tensor = net(x)
        return result

    assert torch.autograd.gradcheck(run, torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True))


def test_a_training_that_is_refused_is_refused_at_the_first_step() -> None:
    image = cl.Input((4, 4, 3))
    net = cl.compile(cl.Model(image, L.RandomElasticTransform(name="bent")(image)), device="cpu")
    x = torch.rand(1, 4, 4, 3)
    assert torch.equal(net(x), x)
    net.train()
    with pytest.raises(CompileError) as caught:
        net(x)
    assert str(caught.value) == (
        "RandomElasticTransform 'bent': augments images in training, which ConvLoom does not do; leave the "
        "layer out to train, or augment the data before. In inference it hands images on"
    )
