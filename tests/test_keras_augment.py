"""Image augmentations: against Keras where chance is fixed, as distributions, in training, and in files."""

from __future__ import annotations

import colorsys
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from convloom.graph import ops
from convloom.graph.ops.random import homography

import convloom as cl
from convloom import layers as L

FILE = Path(__file__).resolve().parent / "data" / "augmentations.npz"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def stored() -> dict[str, np.ndarray]:
    with np.load(FILE) as file:
        return dict(file)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(3)


with np.load(FILE) as file:
    CASES = sorted({key.split("/")[0] for key in file.files if key.endswith("/json")})


def in_training(layer: L.Layer, x: torch.Tensor, **options: Any) -> torch.Tensor:
    net = cl.compile(cl.Sequential([cl.Input(tuple(x.shape[1:])), layer]), device="cpu", **options).train()
    with torch.no_grad():
        result: torch.Tensor = net(x)
    return result


# -- the same as Keras where nothing is left to chance ----------
@pytest.mark.parametrize("options", [{"backend": "aten"}, {"backend": "triton"}], ids=["aten", "triton"])
@pytest.mark.parametrize("case", CASES)
def test_training_is_keras_s(case: str, options: dict[str, Any], stored: dict[str, np.ndarray]) -> None:
    net = cl.compile(cl.loads(stored[f"{case}/json"].tobytes()), device="cpu", **options)
    x = torch.from_numpy(stored[f"{case}/x"])
    assert torch.equal(net(x), x)
    net.train()
    found = net(x).detach().numpy()
    # Coordinates of up to 7 have 3 digits less than a pixel's value; an interpolation passes them on.
    np.testing.assert_allclose(found, stored[f"{case}/y"], rtol=0, atol=64 * 2**-23 * 4)


DRAWN = ("hue", "saturation", "posterization", "solarization")


@pytest.mark.parametrize("options", [{"backend": "aten"}, {"backend": "triton"}], ids=["aten", "triton"])
@pytest.mark.parametrize("name", DRAWN)
def test_training_is_keras_s_for_what_each_image_draws(
    name: str, options: dict[str, Any], stored: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    draws = iter(torch.from_numpy(stored[f"drawn.{name}/draws"]))
    monkeypatch.setattr(ops.Random, "draw", lambda *_: next(draws)[:, None, None, None].contiguous())
    net = cl.compile(cl.loads(stored[f"drawn.{name}/model"].tobytes()), device="cpu", **options).train()
    found = net(torch.from_numpy(stored[f"drawn.{name}/x"])).detach().numpy()
    np.testing.assert_allclose(found, stored[f"drawn.{name}/y"], rtol=0, atol=64 * 2**-23 * 4)
    assert next(draws, None) is None


WAYS = list(itertools.product(("nearest", "bilinear"), ("constant", "nearest", "reflect", "wrap")))


@pytest.mark.parametrize(("interpolation", "mode"), WAYS)
def test_warp_is_keras_s_affine_transform(
    interpolation: str, mode: str, stored: dict[str, np.ndarray]
) -> None:
    x, transforms = (torch.from_numpy(stored[f"warp/{k}"]).double() for k in ("x", "transforms"))
    found = ops.Warp(interpolation, mode, 0.5, (6, 7)).reference(x, transforms)
    expected = stored[f"warp.{interpolation}.{mode}/y"]
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=3e-5)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_perspective_is_keras_s(interpolation: str, stored: dict[str, np.ndarray]) -> None:
    start, end = (torch.from_numpy(stored[f"perspective/{k}"]).double() for k in ("start", "end"))
    found = ops.Warp(interpolation, "constant", 0.5, (6, 7)).reference(
        torch.from_numpy(stored["warp/x"]).double(), homography(start, end)
    )
    expected = stored[f"perspective.{interpolation}/y"]
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-4)


# -- what is drawn ----------
def test_flips_are_fair_and_exact() -> None:
    x = torch.rand(4000, 3, 4, 2)
    for mode, axes in (("horizontal", (2,)), ("vertical", (1,)), ("horizontal_and_vertical", (1, 2))):
        y = in_training(L.RandomFlip(mode), x)
        same = (y == x).flatten(1).all(1)
        flipped = (y == x.flip(axes)).flatten(1).all(1)
        assert (same ^ flipped).all()
        assert abs(flipped.float().mean() - 0.5) < 5 * 0.5 / 4000**0.5


def transforms(kind: str, of: tuple[float, ...], size: tuple[int, int] = (9, 17)) -> torch.Tensor:
    return ops.RandomTransform(size, kind, of, "float64").draw(20_000, CPU)


def uniform(values: torch.Tensor, low: float, high: float) -> None:
    """Within the range, with its mean and spread to five standard errors."""
    error = 5 * (high - low) / 12**0.5 / len(values) ** 0.5
    assert low <= values.min() < values.max() <= high
    assert abs(values.mean() - (low + high) / 2) < error
    assert abs(values.std() - (high - low) / 12**0.5) < error


def test_transforms_are_spread_evenly() -> None:
    moved = transforms("translation", (-0.1, 0.2, -0.5, 0.5))
    uniform(-moved[:, 5] / 9, -0.1, 0.2)
    uniform(-moved[:, 2] / 17, -0.5, 0.5)
    turned = transforms("rotation", (-0.25, 0.125))
    uniform(torch.atan2(turned[:, 3], turned[:, 0]) / (2 * torch.pi), -0.25, 0.125)
    middle = torch.tensor([8.0, 4.0, 1.0], dtype=torch.float64)  # x, y: it stays where it is
    for found in (turned, transforms("zoom", (-0.3, 0.5, -0.2, 0.1))):
        torch.testing.assert_close(found[:, :6].reshape(-1, 2, 3) @ middle, middle[:2].expand(20_000, 2))
    zoomed = transforms("zoom", (-0.3, 0.5, -0.2, 0.1))
    uniform(zoomed[:, 4], 0.7, 1.5)
    uniform(zoomed[:, 0], 0.8, 1.1)
    both = transforms("zoom", (-0.3, 0.5))
    assert torch.equal(both[:, 0], both[:, 4])
    sheared = transforms("shear", (0.1, 0.2, 0.3, 0.4))
    uniform(sheared[:, 1].abs(), 0.1, 0.2)
    uniform(sheared[:, 3].abs(), 0.3, 0.4)
    assert torch.equal(sheared[:, 1].sign(), sheared[:, 3].sign())
    assert abs(sheared[:, 1].sign().mean()) < 5 / 20_000**0.5


def test_perspective_moves_some() -> None:
    found = transforms("perspective", (0.3, 0.4), (6, 7))
    still = (found - torch.tensor([1.0, 0, 0, 0, 1, 0, 0, 0])).abs().amax(1) < 1e-9
    assert abs((~still).double().mean() - 0.3) < 5 * 0.21**0.5 / 20_000**0.5
    assert torch.isfinite(found).all()


def test_crops_are_windows_the_same_for_a_batch() -> None:
    x = torch.arange(3 * 8 * 6, dtype=torch.float32).reshape(3, 8, 6, 1)
    net = cl.compile(cl.Sequential([cl.Input((8, 6, 1)), L.RandomCrop(5, 4)]), device="cpu").train()
    places = set()
    for _ in range(200):
        y = net(x)
        top, left = divmod(int(y[0, 0, 0, 0]), 6)
        assert torch.equal(y, x[:, top : top + 5, left : left + 4])
        places.add((top, left))
    assert places == set(itertools.product(range(4), range(3)))


def test_a_crop_in_inference_is_the_middle_resized() -> None:
    x = torch.rand(2, 8, 6, 3)
    crop = cl.compile(cl.Sequential([cl.Input((8, 6, 3)), L.RandomCrop(4, 4)]), device="cpu")
    expected = torch.nn.functional.interpolate(x[:, 1:7].permute(0, 3, 1, 2), (4, 4), mode="bilinear")
    torch.testing.assert_close(crop(x), expected.permute(0, 2, 3, 1))
    first = L.RandomCrop(4, 4, data_format="channels_first")
    turned = cl.compile(cl.Sequential([cl.Input((3, 8, 6)), first]), device="cpu")
    torch.testing.assert_close(turned(x.permute(0, 3, 1, 2).contiguous()), expected)
    same = cl.compile(cl.Sequential([cl.Input((8, 6, 3)), L.RandomCrop(8, 6)]), device="cpu")
    assert torch.equal(same(x), x)
    assert torch.equal(same.train()(x), x)
    larger = cl.compile(cl.Sequential([cl.Input((8, 6, 3)), L.RandomCrop(12, 6)]), device="cpu")
    assert torch.equal(larger(x), larger.train()(x))


def test_contrast_scales_about_each_channels_mean() -> None:
    x = torch.rand(500, 4, 5, 3)
    y = in_training(L.RandomContrast((0.2, 0.6), value_range=(-9, 9)), x)
    mean = x.mean((1, 2), keepdim=True)
    factors = ((y - mean) / (x - mean)).flatten(1).double()
    uniform(factors.median(1).values, 0.8, 1.6)
    torch.testing.assert_close(mean + factors.median(1).values[:, None, None, None] * (x - mean), y.double())
    assert in_training(L.RandomContrast(1.0, value_range=(0.2, 0.7)), x).aminmax() == (  # type: ignore[comparison-overlap]
        pytest.approx(0.2),
        pytest.approx(0.7),
    )


def test_chances_that_are_drawn_themselves() -> None:
    x = torch.rand(4000, 2, 2, 3)
    for layer in (L.RandomInvert((0.2, 0.4)), L.RandomGrayscale(0.3)):
        changed = (in_training(layer, x) != x).flatten(1).any(1).double()
        assert abs(changed.mean() - 0.3) < 5 * 0.21**0.5 / 4000**0.5
    levels = (in_training(L.RandomBrightness(0.1, value_range=(-9, 9)), x) - x).flatten(1)
    uniform(levels.mean(1).double(), -1.8, 1.8)
    torch.testing.assert_close(levels, levels[:, :1].expand_as(levels), rtol=0, atol=1e-5)


def test_erased_boxes() -> None:
    x = torch.full((2000, 20, 10, 3), -1.0)
    y = in_training(L.RandomErasing(0.5, scale=(0.16, 0.36), fill_value=1.0), x)
    erased = (y == 1).all(-1)
    assert (y[~erased] == -1).all()
    sides = erased.any(2).sum(1), erased.any(1).sum(1)
    assert torch.equal(erased.sum((1, 2)), sides[0] * sides[1])  # boxes without holes
    there = sides[0] > 0
    assert abs(there.double().mean() - 0.25) < 5 * (0.25 * 0.75 / 2000) ** 0.5
    assert 7 <= sides[0][there].min() <= 9
    assert 11 <= sides[0].max() <= 13  # 20 * sqrt(0.16) and 20 * sqrt(0.36)
    assert sides[1][there].min() >= 3
    assert sides[1].max() <= 7
    noise = in_training(L.RandomErasing((1, 1), (1.0, 1.0), value_range=(0, 2)), x[:50])
    assert noise.aminmax() == (0.0, 2.0)  # type: ignore[comparison-overlap]
    assert 0.3 < ((noise > 0) & (noise < 2)).double().mean() < 0.38  # of normal numbers within one deviation


def colours_of_pixels() -> torch.Tensor:
    """Every order of a pixel's colours, with and without equal ones, grey and black."""
    grid = torch.tensor(list(itertools.product((0.0, 0.25, 0.7, 1.0), repeat=3)))
    return grid.reshape(1, 8, 8, 3)


@pytest.mark.parametrize("factor", [0.0, 0.3, 0.5, 0.9])
def test_saturation_and_hue_are_colorsys_s(factor: float) -> None:
    x = colours_of_pixels()
    saturated = in_training(L.RandomSaturation((factor, factor), (0, 1)), x)
    turned = in_training(L.RandomHue((factor, factor), (0, 1)), x.expand(20, 8, 8, 3).contiguous())
    either_way = []
    for pixel, mine in zip(x.reshape(-1, 3).tolist(), saturated.reshape(-1, 3).tolist(), strict=True):
        h, s, v = colorsys.rgb_to_hsv(*pixel)
        assert mine == pytest.approx(colorsys.hsv_to_rgb(h, min(s * factor / (1 - factor), 1), v), abs=1e-6)
        either_way.append([colorsys.hsv_to_rgb((h + turn) % 1, s, v) for turn in (factor / 2, -factor / 2)])
    expected = torch.tensor(either_way).permute(1, 0, 2).reshape(2, 1, 8, 8, 3)
    far = (turned - expected).abs().amax((2, 3, 4))  # (way, image)
    assert far.amin(0).max() < 1e-6
    assert (far.amin(1) < 1e-6).all()  # both ways occur


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_colours_in_half_precision(dtype: str) -> None:
    x = colours_of_pixels()
    for layer in (L.RandomSaturation((1.0, 1.0), (0, 1)), L.RandomHue(1.0, (0, 1)), L.AutoContrast((0, 1))):
        y = in_training(layer, x, dtype=dtype)
        assert 0 <= y.min() < y.max() <= 1
        assert y.isfinite().all()


@pytest.mark.parametrize(
    ("factor", "chance"), [((0.5, 3), 0.95), ((-1, 0.5), 1 / 12), ((-1, 2), 0.5), ((0, 0), 0)]
)
def test_chances_beyond_0_and_1(factor: tuple[float, float], chance: float) -> None:
    x = torch.rand(4000, 2, 2, 1)
    changed = (in_training(L.RandomInvert(factor), x) != x).flatten(1).any(1).double()
    assert abs(changed.mean() - chance) <= 5 * (chance * (1 - chance) / 4000) ** 0.5


def test_posterization_draws_bits_below_the_upper_end() -> None:
    x = torch.arange(256.0).reshape(1, 16, 16, 1).expand(300, 16, 16, 1).contiguous()
    levels = [len(y.unique()) for y in in_training(L.RandomPosterization((2, 5)), x)]
    assert set(levels) == {4, 8, 16}
    assert {len(y.unique()) for y in in_training(L.RandomPosterization(3), x)} == {2, 4}
    assert torch.equal(in_training(L.RandomPosterization((8, 8)), x), x)


def test_solarization_draws_two_numbers_an_image() -> None:
    x = torch.linspace(0, 1, 999).reshape(1, 27, 37, 1).expand(2000, 27, 37, 1).contiguous()
    y = in_training(L.Solarization(0.0, 0.6, value_range=(0, 1)), x).flatten(1)
    kept = (y - x.flatten(1)).abs() < 1e-6
    uniform(kept.double().mean(1), 0, 0.602)
    torch.testing.assert_close(y[~kept], 1 - x.flatten(1)[~kept])
    added = in_training(L.Solarization(0.4, 0.0, value_range=(0, 1)), x).flatten(1)
    uniform(1 - added[:, 0].double(), 0, 0.4)


def test_blur_chooses_some_images() -> None:
    x = torch.rand(4000, 3, 4, 2)
    changed = (in_training(L.RandomGaussianBlur((0.2, 0.4), sigma=(0.5, 1)), x) != x).flatten(1).any(1)
    assert abs(changed.double().mean() - 0.3) < 5 * 0.21**0.5 / 4000**0.5


def test_auto_contrast_leaves_a_flat_channel() -> None:
    x = torch.rand(2, 5, 4, 3) * 90 + 7
    x[1, ..., 2] = 41
    net = cl.compile(cl.Sequential([cl.Input((5, 4, 3)), L.AutoContrast()]), device="cpu")
    low, high = x.amin((1, 2), keepdim=True), x.amax((1, 2), keepdim=True)
    expected = torch.where(high > low, (x - low) / (high - low) * 255, x)
    torch.testing.assert_close(net(x), expected)
    torch.testing.assert_close(net.train()(x), expected)


# -- in training ----------
def augmented(*layers: L.Layer) -> cl.Model:
    image = cl.Input((8, 8, 3))
    h = image
    for layer in layers:
        h = layer(h)
    h = L.Conv2D(4, 3, activation="relu")(L.Rescaling(1 / 255)(h))
    return cl.Model(image, L.Dense(2)(L.GlobalAveragePooling2D()(h)))


def test_every_epoch_sees_other_images_and_inference_none_of_it() -> None:
    net = cl.compile(augmented(L.RandomFlip(), L.RandomRotation(0.2), L.RandomZoom(0.2)), device="cpu")
    plain = cl.compile(augmented(), device="cpu")
    x = torch.rand(4, 8, 8, 3)
    with torch.no_grad():
        for mine, other in zip(plain.parameters(), net.parameters(), strict=True):
            mine.copy_(other)
        first, second = net.train()(x), net(x)
        assert not torch.equal(first, second)
        assert torch.equal(net.eval()(x), plain(x))
    assert len(net.kernels) == len(plain.kernels)
    targets, histories = torch.rand(4, 2), []
    for _ in range(2):
        model = augmented(L.RandomTranslation(0.2, 0.2), L.RandomContrast(0.3))
        model.set_weights([np.full_like(w, 0.1) for w in map(np.asarray, model.get_weights())])
        net = cl.compile(model, device="cpu")
        fitted = cl.fit(net, (x, targets), loss="mse", optimizer="sgd", epochs=3, seed=4)
        histories.append(fitted.history["loss"])
    assert histories[0] == histories[1]


def test_kernels() -> None:
    """One a movement, colours beside each other in one, what follows a movement within it."""

    def forward(*layers: L.Layer) -> list[str]:
        net = cl.compile(augmented(*layers), device="cpu").train()
        return [str(region.name) for region in net.program.regions if region.phase == "forward"]

    plain = len(forward())
    flipped = forward(L.RandomFlip())
    assert flipped[0] == "warp_scale"  # the rescaling rides in the flip's kernel
    assert len(flipped) == plain
    assert len(forward(L.RandomFlip(), L.RandomTranslation(0.1, 0.1), L.RandomRotation(0.1))) == plain + 2
    assert len(forward(L.RandomBrightness(0.1), L.GaussianNoise(0.1), L.RandomBrightness(0.1))) == plain
    assert len(forward(L.RandomInvert(0.5))) == plain
    assert len(forward(L.RandomFlip(), L.RandomBrightness(0.1))) == plain
    assert len(forward(L.RandomContrast(0.1))) == plain + 1
    assert len(forward(L.RandomGrayscale(0.1))) == plain + 1
    assert len(forward(L.RandomPosterization(3))) == plain
    assert len(forward(L.Solarization(0.1, 0.2))) == plain
    assert len(forward(L.RandomGaussianBlur())) == plain + 1
    # Colours apart in three, their extremes in two; the last step carries the rescaling.
    assert len(forward(L.RandomSaturation(0.2))) == plain + 5
    assert len(forward(L.RandomHue(0.2))) == plain + 6


CHAIN: tuple[Callable[[], L.Layer], ...] = (
    lambda: L.RandomFlip("horizontal"),
    lambda: L.RandomTranslation(0.2, 0.1),
    lambda: L.RandomRotation(0.2, "constant", fill_value=0.3),
    lambda: L.RandomZoom(0.2, 0.1, "wrap"),
    lambda: L.RandomShear(0.2, 0.1, fill_mode="nearest"),
    lambda: L.RandomPerspective(1.0, 0.3),
    lambda: L.RandomCrop(5, 4),
)


def test_gradients_flow_back_through_movements() -> None:
    """Where weights lie before: against finite differences, with the same draws every time."""
    image = cl.Input((6, 5, 2))
    h = L.Conv2D(2, 2, padding="same")(image)
    for make in CHAIN:
        h = make()(h)
    net = cl.compile(cl.Model(image, h), device="cpu", dtype="float64").train()

    def run(x: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(1)
        result: torch.Tensor = net(x)
        return result

    x = torch.randn(2, 6, 5, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(run, (x, *net.parameters()), fast_mode=True)


STEEP: tuple[Callable[[], L.Layer], ...] = (
    lambda: L.RandomSaturation(0.7, (0, 9)),
    lambda: L.RandomSaturation(0.7, (-9, 9)),
    lambda: L.RandomHue(0.7, (-9, 9)),
    lambda: L.RandomColorJitter((-9, 9), 0.1, 0.2, (0.2, 0.7), 0.3),
    lambda: L.Solarization(0.3, 0.5, (-9, 9)),
    lambda: L.RandomGaussianBlur((0.5, 1), (3, 1), value_range=(-9, 9)),
    lambda: L.AutoContrast((-9, 9)),
)


@pytest.mark.parametrize("make", STEEP)
def test_gradients_flow_back_through_colours(make: Callable[[], L.Layer]) -> None:
    image = cl.Input((4, 3, 2))
    h = make()(L.Conv2D(3, 2, padding="same")(image))
    net = cl.compile(cl.Model(image, h), device="cpu", dtype="float64").train()

    def run(x: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(1)
        result: torch.Tensor = net(x)
        return result

    x = torch.randn(2, 4, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(run, (x, *net.parameters()), fast_mode=True)


def test_nothing_before_a_posterization_learns() -> None:
    image = cl.Input((4, 3, 2))
    h = L.Conv2D(3, 2, name="before")(image)
    model = cl.Model(image, L.Conv2D(1, 1)(L.RandomPosterization(3, (-9, 9))(h)))
    net = cl.compile(model, device="cpu").train()
    net(torch.rand(2, 4, 3, 2)).sum().backward()
    moved = {name for name, p in net.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert moved
    assert not any("before" in name for name in moved)


def test_emitted_kernels_train_as_torch_s_operators_do() -> None:
    x, y = torch.rand(3, 6, 5, 3), torch.rand(3, 2)

    def gradients(**options: Any) -> list[torch.Tensor]:
        image = cl.Input((6, 5, 3))
        h = L.Conv2D(3, 2, padding="same")(image)
        colours = (L.RandomContrast(0.3, (-9, 9)), L.RandomColorDegeneration(0.5, (-9, 9)))
        more = (L.RandomErasing(1.0, fill_value=0.1), L.RandomSharpness(0.9, (-9, 9)))
        steep = (STEEP[i]() for i in (3, 4, 5))
        for layer in (*colours, *more, *steep, *(make() for make in CHAIN)):
            h = layer(h)
        model = cl.Model(image, L.Dense(2)(L.Flatten()(h)))
        model.set_weights(
            [
                np.cos(np.arange(w.size, dtype=np.float32)).reshape(w.shape)
                for w in map(np.asarray, model.get_weights())
            ]
        )
        net = cl.compile(model, device="cpu", **options).train()
        torch.manual_seed(8)
        loss, _ = net.with_loss("mse")(x, y)
        loss.backward()
        return [p.grad for p in net.parameters() if p.grad is not None]

    expected = gradients(backend="aten", fuse=False)
    assert min(float(g.abs().max()) for g in expected) > 1e-3
    for options in ({"backend": "aten"}, {"backend": "triton"}):
        for found, wanted in zip(gradients(**options), expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


# -- what it is for ----------
def test_digits(tmp_path: Path) -> None:
    """Handwritten digits, shifted, turned and zoomed: learned, saved, and opened by Keras."""
    import keras
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    x = data.images[order, ..., None].astype(np.float32) / 16
    y = np.eye(10, dtype=np.float32)[data.target[order]]
    torch.manual_seed(0)
    model = cl.Sequential(
        [
            cl.Input((8, 8, 1)),
            L.RandomTranslation(0.1, 0.1, fill_mode="constant"),
            L.RandomRotation(0.03, fill_mode="constant"),
            L.RandomZoom(0.1, fill_mode="constant"),
            L.Conv2D(16, 3, activation="relu", padding="same"),
            L.MaxPooling2D(2),
            L.Conv2D(32, 3, activation="relu", padding="same"),
            L.Flatten(),
            L.Dense(10, activation="softmax"),
        ],
        seed=0,
    )
    net = cl.compile(model, device="cpu")
    history = cl.fit(
        net,
        (x[:1400], y[:1400]),
        loss="categorical_crossentropy",
        optimizer=torch.optim.Adam(net.parameters(), 1e-2),
        metrics=["accuracy"],
        epochs=5,
        batch_size=64,
        validation_data=(x[1400:], y[1400:]),
        seed=1,
    ).history
    assert history["val_accuracy"][-1] > 0.9
    assert history["loss"][-1] < history["loss"][0] / 4
    model.save(tmp_path / "digits.keras")
    theirs = keras.models.load_model(tmp_path / "digits.keras")
    expected = theirs.predict(x[1400:1500], verbose=0)
    np.testing.assert_allclose(net.eval()(x[1400:1500]).numpy(force=True), expected, atol=1e-5)
