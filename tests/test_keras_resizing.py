"""Resizing and upsampling: through Keras's files and back, gradients, training, fusion and errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from convloom.codegen import emit
from convloom.graph import ops
from convloom.graph.errors import ConvLoomError, ShapeError, UnsupportedLayerError
from convloom.graph.ops.source import METHODS
from convloom.planning.modes import Mode
from convloom.planning.program import plan

import convloom as cl
from convloom import layers as L

pytestmark = pytest.mark.filterwarnings("error::convloom.runtime.backends.FallbackWarning")

IMAGE = (5, 4, 3)


def model(layer: Any, shape: tuple[int, ...] = IMAGE) -> cl.Model:
    x = cl.Input(shape)
    return cl.Model(x, layer(x))


def samples(shape: tuple[int, ...] = IMAGE, batch: int = 2) -> np.ndarray:
    return np.random.default_rng(5).standard_normal((batch, *shape), np.float32)


def computed(net: cl.Model, x: np.ndarray, **options: Any) -> np.ndarray:
    with torch.no_grad():
        y = cl.compile(net, device="cpu", **options)(torch.from_numpy(x))
    return (y.float() if y.dtype == torch.bfloat16 else y).numpy()


# -- which places count --------------------------------------------------------------------------------------
def every_axis() -> Iterator[tuple[int, int, str, bool]]:
    sizes = (1, 2, 3, 5, 8, 13)
    return product(sizes, sizes, METHODS, (False, True))


def test_the_taps_hold_every_weight_that_is_not_zero() -> None:
    for here, there, method, antialias in every_axis():
        matrix = ops.InterpolationMatrix(here, there, method, antialias, "float64").reference()
        forward = ops.Resize((1,), (there,), method, antialias).taps(here, there)
        backward = ops.ResizeGrad((1,), (here,), method, antialias).taps(there, here)
        for taps, weights in ((forward, matrix), (backward, matrix.t())):
            assert taps.offset >= 0  # Triton divides towards zero
            for j in range(weights.shape[1]):
                counted = {*range(taps.first(j), taps.first(j) + taps.count)}
                assert {*torch.nonzero(weights[:, j].abs() > 1e-12).flatten().tolist()} <= counted


def test_an_upsampled_image_reads_few_pixels() -> None:
    counts = {m: ops.Resize((1,), (64,), m).taps(32, 64).count for m in METHODS}
    assert counts == {"nearest": 1, "bilinear": 2, "bicubic": 4, "lanczos3": 6, "lanczos5": 10}
    assert ops.ResizeGrad((1,), (32,), "bilinear").taps(64, 32).count == 4
    assert ops.ResizeGrad((1,), (32,), "nearest").taps(64, 32).count == 2


# -- Keras ---------------------------------------------------------------------------------------------------
LAYERS: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "resizing": (lambda: L.Resizing(9, 3), IMAGE),
    "resizing_all": (
        lambda: L.Resizing(
            3, 7, "bicubic", pad_to_aspect_ratio=True, fill_value=0.5, antialias=True,
            data_format="channels_first",
        ),
        (3, 5, 4),
    ),
    "resizing_cropped": (lambda: L.Resizing(3, 7, "nearest", crop_to_aspect_ratio=True), IMAGE),
    "upsampling_1d": (lambda: L.UpSampling1D(3), (5, 4)),
    "upsampling_2d": (lambda: L.UpSampling2D((2, 3), interpolation="bilinear"), IMAGE),
    "upsampling_3d": (lambda: L.UpSampling3D((1, 3, 2), "channels_first"), (3, 2, 3, 1)),
    "center_crop": (lambda: L.CenterCrop(7, 3), IMAGE),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_keras_opens_what_is_saved(name: str, tmp_path: Path) -> None:
    import keras

    make, shape = LAYERS[name]
    net, x = model(make(), shape), samples(shape)
    net.save(tmp_path / "net.keras")
    theirs = keras.models.load_model(tmp_path / "net.keras")
    ours = computed(net, x)
    wanted = keras.ops.convert_to_numpy(theirs(x, training=False))
    assert np.abs(ours - wanted).max() <= 16 * 2.0**-23 * np.abs(wanted).max()
    again = cl.load(tmp_path / "net.keras")
    assert (computed(again, x) == ours).all()
    assert again.to_json() == cl.loads(again.to_json()).to_json()


# -- gradients and training ----------------------------------------------------------------------------------
def unet() -> cl.Model:
    """Up and down by every kind of resizing, with what may ride behind it."""
    x = cl.Input((6, 5, 3))
    h = L.Conv2D(4, 3, padding="same", activation="tanh", name="down")(x)
    up = L.UpSampling2D(2, interpolation="bilinear")(h)
    up = L.Conv2D(2, 3, padding="same", name="up")(up)
    small = L.Resizing(4, 7, "lanczos3", antialias=True)(up)
    copies = L.Resizing(4, 7, "nearest")(L.UpSampling2D((1, 3))(h))
    cubic = L.Resizing(4, 7, "bicubic", pad_to_aspect_ratio=True)(x)
    joined = L.Concatenate()([small, copies, cubic])
    return cl.Model(x, L.Conv2D(2, 1, name="head")(L.CenterCrop(3, 9)(joined)))


def test_gradients() -> None:
    """Of aten in float64 against differences, of the kernels in float32 against those."""
    torch.manual_seed(0)
    net = unet()
    exact = cl.compile(net, device="cpu", backend="aten", dtype="float64")
    x = torch.randn(1, 6, 5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(exact, (x,), eps=1e-6, atol=1e-6, fast_mode=True)
    weights = torch.randn(exact(x).shape, dtype=torch.float64)
    found = {}
    for backend, dtype in (("aten", "float64"), ("aten", "float32"), ("triton", "float32")):
        network = cl.compile(net, device="cpu", backend=backend, dtype=dtype).train()
        given = x.detach().to(getattr(torch, dtype)).requires_grad_()
        (network(given) * weights.to(given.dtype)).sum().backward()
        found[backend, dtype] = [given.grad, *(p.grad for p in network.parameters())]
    for key in (("aten", "float32"), ("triton", "float32")):
        for value, wanted in zip(found[key], found["aten", "float64"], strict=True):
            assert (value.double() - wanted).abs().max() <= 64 * 2.0**-23 * wanted.abs().max()  # type: ignore[operator, union-attr]


def test_half_precision_sums_in_float32() -> None:
    net, x = model(L.Resizing(3, 2, "bicubic", antialias=True), (13, 11, 3)), samples((13, 11, 3))
    exact = computed(net, x, backend="aten", dtype="float64")
    for backend in ("aten", "triton"):
        found = computed(net, x, backend=backend, dtype="bfloat16")
        assert np.abs(found - exact).max() <= 2 * 2.0**-8 * np.abs(x).max()


def test_a_network_that_resizes_learns() -> None:
    x = np.random.default_rng(1).standard_normal((16, 6, 5, 3), np.float32)
    target = computed(model(L.UpSampling2D(2, interpolation="bilinear"), (6, 5, 3)), x)[..., :2]
    image = cl.Input((6, 5, 3))
    h = L.UpSampling2D(2, interpolation="bilinear")(L.Conv2D(2, 1)(image))
    net = cl.compile(cl.Model(image, h, seed=2), device="cpu")
    history = cl.fit(net, (x, target), loss="mse", optimizer="adam", epochs=60, batch_size=2, verbose=False)
    assert history.history["loss"][-1] < 0.5 * history.history["loss"][0]


# -- kernels -------------------------------------------------------------------------------------------------
def kernels(net: cl.Model) -> list[str]:
    regions = cl.compile(net, device="cpu").program.regions
    return [" ".join(node.op.op_name() for node in region.nodes) for region in regions]


def test_one_kernel_resizes_and_does_what_follows() -> None:
    x = cl.Input((32, 32, 64))
    up = L.UpSampling2D(2, interpolation="bilinear")(x)
    net = cl.Model(x, L.ReLU()(L.BatchNormalization()(up)))
    assert kernels(net) == ["resize batch_norm relu"]
    (kernel,) = cl.compile(net, device="cpu").kernels
    read, written = 32 * 32 * 64 * 4, 64 * 64 * 64 * 4
    assert kernel.bytes(2) - kernel.bytes(1) == read + written


def test_what_follows_may_broadcast_along_any_axis() -> None:
    x, y = cl.Input(IMAGE), cl.Input((10, 1, 3))
    net = cl.Model([x, y], L.Multiply()([L.UpSampling2D(2)(x), y]))
    given = samples(), samples((10, 1, 3))
    assert kernels(net) == ["resize multiply"]
    with torch.no_grad():
        found = cl.compile(net, device="cpu", backend="triton")(*map(torch.from_numpy, given))
    assert (found.numpy() == given[0].repeat(2, 1).repeat(2, 2) * given[1]).all()


def test_whole_numbers_are_copied_and_not_interpolated() -> None:
    x = cl.Input(IMAGE, dtype="uint8")
    net, pixels = cl.Model(x, L.Resizing(7, 3, "nearest")(x)), (samples() * 40).astype(np.uint8)
    assert (computed(net, pixels, backend="aten") == computed(net, pixels, backend="triton")).all()
    assert computed(net, pixels, backend="aten").dtype == np.uint8
    smooth, real = (cl.Model(i, L.Resizing(7, 3)(i)) for i in (x, cl.Input(IMAGE)))
    wanted = computed(real, pixels.astype(np.float32), backend="aten")
    for backend in ("aten", "triton"):
        np.testing.assert_allclose(computed(smooth, pixels, backend=backend), wanted, rtol=1e-5)
    with pytest.raises(ShapeError, match="resize computes with floating-point numbers, found uint8"):
        ops.Resize((1,), (7,)).result(cl.graph.types.TensorType(("N", *IMAGE), "uint8"))


@pytest.mark.parametrize(
    ("layer", "wanted"),
    [
        (L.UpSampling2D(3), ["resize"]),
        (L.UpSampling2D(2, "channels_first", "bicubic"), ["resize"]),
        (L.UpSampling2D(2, interpolation="lanczos3"), ["resize", "resize"]),  # not 36 terms at once
        (L.Resizing(5, 9, "lanczos3"), ["resize"]),
        (L.Resizing(5, 4), []),
        (L.Resizing(2, 3, pad_to_aspect_ratio=True), ["pad", "resize"]),
        (L.CenterCrop(9, 4), ["slice", "resize"]),
    ],
    ids=str,
)  # fmt: skip
def test_kernel_counts(layer: Any, wanted: list[str]) -> None:
    x = cl.Input(IMAGE)
    assert kernels(cl.Model(x, L.ReLU()(layer(x)))) == [*wanted[:-1], " ".join([*wanted[-1:], "relu"])]


@pytest.mark.parametrize("method", METHODS)
def test_emitted_files(method: str) -> None:
    """Forward and backward, against the file's own reference; compiled for a GPU, nothing spills."""
    net = cl.compile(model(L.Resizing(3, 9, method, antialias=True), (8, 4, 3)), device="cpu")
    program = plan(net.source, Mode(backward=True, wrt_inputs=frozenset({net._inputs[0].name})))
    kernels = [emit(region) for region in program.regions]
    assert [kernel.region.anchor.op.op_name() for kernel in kernels].count("resize_grad") >= 1
    for kernel in kernels:
        file = kernel.load(interpreted=True)
        inputs, outputs = file.example(), file.results()
        file.launch(*inputs, *outputs)
        for found, wanted in zip(outputs, file.reference(*inputs), strict=True):
            assert (found.double() - wanted).abs().max() <= file.TOLERANCE * wanted.abs().max()
    if method == "bicubic":
        (found,) = kernels[0].resources("sm_90")
        assert found.error is None
        assert found.spills_bytes == 0


# -- errors --------------------------------------------------------------------------------------------------
def test_errors() -> None:
    x = cl.Input(IMAGE)
    with pytest.raises(ShapeError, match=r"^Resizing 'r': takes crop_to_.* not both; set one to False$"):
        L.Resizing(3, 3, crop_to_aspect_ratio=True, pad_to_aspect_ratio=True, name="r")(x)
    with pytest.raises(UnsupportedLayerError, match=r"^Resizing 'r': interpolation must be .* got 'area'$"):
        L.Resizing(3, 3, "area", name="r")
    with pytest.raises(UnsupportedLayerError, match=r"fill_mode must be 'constant', got 'reflect'$"):
        L.Resizing(3, 3, fill_mode="reflect")
    with pytest.raises(ShapeError, match=r"^UpSampling3D 'u': size must be .* triple .* got \(2, 2\)$"):
        L.UpSampling3D((2, 2), name="u")
    with pytest.raises(ShapeError, match=r"takes a sequence \(N, steps, channels\), found float32\[N,5"):
        L.UpSampling1D()(x)
    with pytest.raises(ConvLoomError, match=r"size must be a positive integer, got 0$"):
        L.UpSampling1D(0)


@pytest.mark.parametrize(
    ("op", "shapes", "text"),
    [
        (ops.Resize(), [("N", 4)], "takes axes, each once, and a size for each"),
        (ops.Resize((1, 1), (2, 2)), [("N", 4)], "takes axes, each once"),
        (ops.Resize((0,), (2,)), [("N", 4)], r"along axes \(0,\) of float32\[N,4\]: use axes from 1 to 1"),
        (ops.Resize((1,), (2,)), [("N", 4)], r"takes matrices of the shapes \[\(4, 2\)\], found none"),
        (ops.Resize((1,), (2,)), [("N", 4), (2, 4)], r"found float32\[2,4\]"),
        (ops.Resize((1,), (2,), "nearest"), [("N", 4), (4, 2)], r"shapes \[\], found float32\[4,2\]"),
        (ops.Resize((1,), (2,), "area"), [("N", 4), (4, 2)], "no interpolation is called 'area'"),
    ],
    ids=str,
)  # fmt: skip
def test_what_does_not_fit_is_refused(op: ops.Resize, shapes: list[Any], text: str) -> None:
    with pytest.raises(ShapeError, match=text):
        op.infer(*(cl.graph.types.TensorType(shape) for shape in shapes))
