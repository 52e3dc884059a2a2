"""Normalisation on every axis and rank: through Keras's files and back, training, gradients and errors."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from convloom.graph.errors import (
    CompileError,
    ModelFormatError,
    ShapeError,
    UnsafeModelError,
    UnsupportedLayerError,
)

import convloom as cl
from convloom import layers as L

pytestmark = pytest.mark.filterwarnings("error::convloom.runtime.backends.FallbackWarning")

EPS = 2.0**-23
IMAGE = (4, 5, 3)
SHAPES = {
    "features": (6,),
    "sequence": (5, 6),
    "image": (4, 5, 6),
    "volume": (2, 3, 2, 6),
    "six": (2, 3, 1, 2, 6),
}


def model(layer: Any, shape: tuple[int, ...] = IMAGE) -> cl.Model:
    """The layer with weights that no default gives."""
    x = cl.Input(shape)
    net = cl.Model(x, layer(x))
    generator = torch.Generator().manual_seed(1)
    for name, value in net.parameters.items():
        if name.endswith("/count"):  # an integer in files
            continue
        net.parameters[name] = torch.rand(value.shape, generator=generator) + 0.3
    return net


def samples(shape: tuple[int, ...] = IMAGE, batch: int = 3) -> torch.Tensor:
    return torch.randn((batch, *shape), generator=torch.Generator().manual_seed(7))


def computed(net: cl.Model, x: torch.Tensor, **options: Any) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = cl.compile(net, device="cpu", **options)(x)
    return result


# -- Keras ---------------------------------------------------------------------------------------------------
LAYERS: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "normalization": (
        lambda: L.Normalization((1, 3), np.arange(12.0).reshape(4, 3), np.ones((4, 3)) * 2, invert=True),
        IMAGE,
    ),
    "normalization_weights": (lambda: L.Normalization(axis=(2, 1)), IMAGE),
    "normalization_no_axis": (lambda: L.Normalization(None), IMAGE),
    "rescaling": (lambda: L.Rescaling(np.float32([[1], [2], [3], [4], [5]]), [0.5, 1.0, -1.0]), IMAGE),  # type: ignore[arg-type]
    "rms": (lambda: L.RMSNormalization((2, 3), 0.05), IMAGE),
    "layer_norm_rms": (lambda: L.LayerNormalization(rms_scaling=True), IMAGE),
    "batch_norm": (lambda: L.BatchNormalization(axis=2, scale=False), (2, 3, 2, 5)),
    "group_norm": (lambda: L.GroupNormalization(2, axis=1, epsilon=0.05), (4, 3, 2, 3)),
    "spectral_dense": (lambda: L.SpectralNormalization(L.Dense(4, "relu", name="inside"), 3), (6,)),
    "spectral_conv": (
        lambda: L.SpectralNormalization(layer=L.Conv2D(4, 3, 2, "same", use_bias=False)),
        IMAGE,
    ),
}


@pytest.mark.filterwarnings("ignore:You passed `rms_scaling=True`")
@pytest.mark.parametrize("name", LAYERS)
def test_keras_opens_what_is_saved(name: str, tmp_path: Path) -> None:
    import keras

    make, shape = LAYERS[name]
    net, x = model(make(), shape), samples(shape)
    net.save(tmp_path / "net.keras")
    theirs = keras.models.load_model(tmp_path / "net.keras")
    assert [w.shape for w in theirs.weights] == [w.shape for w in net.get_weights()]
    ours, wanted = computed(net, x), keras.ops.convert_to_numpy(theirs(x, training=False))
    assert np.abs(ours.numpy() - wanted).max() <= 32 * EPS * np.abs(wanted).max()
    again = cl.load(tmp_path / "net.keras")
    assert all((a == b).all() for a, b in zip(again.get_weights(), net.get_weights(), strict=True))
    assert (computed(again, x) == ours).all()
    assert again.to_json() == cl.loads(again.to_json()).to_json()


def test_a_changed_inner_layer_is_saved_as_it_is_now(tmp_path: Path) -> None:
    net = model(L.SpectralNormalization(L.Dense(4, "relu", name="inside")), (6,))
    again = cl.loads(net.to_json())
    wrapper: Any = again.layers[-1]
    wrapper.power_iterations = 5
    third: Any = cl.loads(again.to_json()).layers[-1]
    assert (third.power_iterations, third.layer.units, third.layer.name) == (5, 4, "inside")


def test_statistics_may_have_all_axes_as_older_files_have_them() -> None:
    mean, variance = [1.0, -2.0, 0.5], [1.0, 4.0, 0.25]
    short = model(L.Normalization(mean=mean, variance=variance))
    full = model(L.Normalization(mean=[[[mean]]], variance=[[[variance]]]))
    assert (computed(short, samples()) == computed(full, samples())).all()


# -- training ------------------------------------------------------------------------------------------------
def trained(net: cl.Model, x: torch.Tensor, backend: str, dtype: str) -> list[torch.Tensor]:
    """Output, gradients of input and weights, moving statistics after one step in training mode."""
    # A copy: a network trains its model, and the next one here is to start where this one does.
    network = cl.compile(copy.deepcopy(net), device="cpu", backend=backend, dtype=dtype).train()
    given = x.to(getattr(torch, dtype), copy=True).requires_grad_()
    y = network(given)
    weights = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).reshape(y.shape)
    (y * weights * weights).sum().backward()
    return [y.detach(), given.grad, *(p.grad for p in network.parameters()), *network.buffers()]


def worst(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Largest difference, as a part of the largest value or of 1: gradients are sums of such terms."""
    return float((found.double() - wanted).abs().max()) / max(float(wanted.abs().max()), 1.0)


AXES = [(name, axis) for name, shape in SHAPES.items() for axis in {1, 2, len(shape)} if axis <= len(shape)]


@pytest.mark.parametrize(("name", "axis"), AXES)
def test_batch_norm_trains_on_every_axis(name: str, axis: int) -> None:
    """Both backends against torch's own batch norm in float64: values, gradients, moving statistics."""
    shape = SHAPES[name]
    net, x = model(L.BatchNormalization(axis, momentum=0.6, epsilon=0.01), shape), samples(shape)
    gamma, beta, mean, variance = (torch.from_numpy(w).double() for w in net.get_weights())
    given = x.double().requires_grad_()
    gamma.requires_grad_(), beta.requires_grad_()
    rows = given.movedim(axis, -1).reshape(-1, shape[axis - 1])
    y = torch.nn.functional.batch_norm(rows, None, None, gamma, beta, True, 0.4, 0.01)
    y = y.reshape(given.movedim(axis, -1).shape).movedim(-1, axis)
    weights = torch.linspace(-1, 2, y.numel(), dtype=torch.float64).reshape(y.shape)
    (y * weights * weights).sum().backward()
    moved = 0.6 * mean + 0.4 * rows.mean(0), 0.6 * variance + 0.4 * rows.var(0, correction=0)
    wanted = [y.detach(), given.grad, gamma.grad, beta.grad, *moved]
    for backend in ("aten", "triton"):
        for value, exact in zip(trained(net, x, backend, "float32"), wanted, strict=True):
            assert exact is not None
            assert worst(value, exact) <= 128 * EPS


DEEP: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "layer_norm_volume": (lambda: L.LayerNormalization(axis=(2, 4), epsilon=0.05), SHAPES["volume"]),
    "layer_norm_six": (lambda: L.LayerNormalization(), SHAPES["six"]),
    "layer_norm_rms": (lambda: L.LayerNormalization(rms_scaling=True, epsilon=0.05), SHAPES["sequence"]),
    "group_norm_six": (lambda: L.GroupNormalization(2, axis=2 - 6, epsilon=0.05), (2, 4, 1, 2, 6)),
    "unit_volume": (lambda: L.UnitNormalization(axis=(1, 3)), SHAPES["volume"]),
    "rms_six": (lambda: L.RMSNormalization(), SHAPES["six"]),
    "rms_axes": (lambda: L.RMSNormalization(axis=(3, 4)), SHAPES["volume"]),
    "softmax_volume": (lambda: L.Softmax(axis=2), SHAPES["volume"]),
    "softmax_six": (lambda: L.Softmax(), SHAPES["six"]),
    "prelu_six": (lambda: L.PReLU(shared_axes=[1, 4]), SHAPES["six"]),
    "normalization_volume": (lambda: L.Normalization(axis=(1, 3)), SHAPES["volume"]),
    "permute_six": (lambda: L.Permute((4, 2, 5, 1, 3)), SHAPES["six"]),
}


@pytest.mark.parametrize("name", DEEP)
def test_gradients_on_data_of_many_axes(name: str) -> None:
    """Of aten in float64 against differences, of the kernels in float32 against those; all as kernels."""
    make, shape = DEEP[name]
    net, x = model(make(), shape), samples(shape, 2)
    exact = cl.compile(net, device="cpu", backend="aten", dtype="float64")
    assert torch.autograd.gradcheck(exact, (x.double().requires_grad_(),), atol=1e-5, fast_mode=True)
    wanted = trained(net, x, "aten", "float64")
    for value, right in zip(trained(net, x, "triton", "float32"), wanted, strict=True):
        assert worst(value, right) <= 128 * EPS


def test_operands_that_broadcast_in_the_middle_of_any_rank() -> None:
    """A factor for some axes alone rides in no product's kernel, but has one of its own."""
    x, y = cl.Input((2, 3, 2, 4)), cl.Input((2, 1, 2, 1))
    h = L.Dense(4, "relu")(x)
    net = cl.Model([x, y], L.Add()([L.Multiply()([h, y]), x]))
    given = samples((2, 3, 2, 4)), samples((2, 1, 2, 1))
    network = cl.compile(net, device="cpu", backend="triton")
    assert len(network.program.regions) == 2
    assert "broadcasts along an axis no kernel handles" in network.explain()
    with torch.no_grad():
        found, exact = network(*given), cl.compile(net, device="cpu", backend="aten", dtype="float64")(*given)
    assert (found - exact).abs().max() <= 32 * EPS * exact.abs().max()


def test_kernel_counts() -> None:
    def count(layer: Any) -> int:
        x = cl.Input(IMAGE)
        return len(cl.compile(cl.Model(x, L.ReLU()(layer(x))), device="cpu").program.regions)

    assert count(L.RMSNormalization()) == 1
    assert count(L.RMSNormalization(axis=(1, 2, 3))) == 2  # the mean of squares, then all the rest
    assert count(L.LayerNormalization()) == count(L.LayerNormalization(scale=False)) == 1
    assert count(L.LayerNormalization(axis=(1, 2, 3))) == 2  # gamma and beta lie along what is viewed
    assert count(L.Normalization(axis=(1, 3))) == 1
    assert count(L.Normalization((1, 3), [1.0, 2.0, 3.0], [1.0, 2.0, 3.0])) == 1
    assert count(L.Rescaling([[1.0], [2.0], [3.0], [4.0], [5.0]], [1.0, 2.0, 3.0])) == 1
    assert count(L.SpectralNormalization(L.Conv2D(2, 3))) == 1


# -- a layer inside ------------------------------------------------------------------------------------------
def test_spectral_normalization_is_the_layer_inside_and_refuses_to_train() -> None:
    inner = L.Conv2D(4, 3, activation="relu", name="inside")
    net, x = model(L.SpectralNormalization(inner, name="outer")), samples()
    assert list(net.parameters) == ["outer/layer/kernel", "outer/vector_u", "outer/layer/bias"]
    assert [slot.trainable for slot in net.slots()] == [True, False, True]
    plain = model(L.Conv2D(4, 3, activation="relu"))
    kernel, _, bias = net.get_weights()
    plain.set_weights([kernel, bias])
    network = cl.compile(net, device="cpu")
    assert (computed(net, x, fuse=False) - computed(plain, x)).abs().max() <= 8 * EPS
    given = x.clone().requires_grad_()  # gradients of a network in eval mode are those of the layer
    network(given).sum().backward()
    assert given.grad is not None
    with pytest.raises(CompileError, match=r"Normalization 'outer' cannot be trained: training .* eval\(\)"):
        network.train()(x)


def test_a_frozen_layer_stays_frozen_inside() -> None:
    net = model(L.SpectralNormalization(L.Dense(2, trainable=False)), (6,))
    assert [slot.trainable for slot in net.slots()] == [False, False, False]
    late = L.Dense(2, activation=L.PReLU())
    wrapper = L.SpectralNormalization(late)
    net = model(wrapper, (6,))
    assert [slot.trainable for slot in net.slots()] == [True, False, True, True]
    assert isinstance(late.activation, L.PReLU)
    late.activation.trainable = False
    assert [slot.trainable for slot in net.slots()] == [True, False, True, False]
    late.trainable = False
    assert [slot.trainable for slot in net.slots()] == [False, False, False, False]
    assert wrapper(cl.Input((6,))).shape == (None, 2)  # it still fits the weights it has


def test_a_layer_works_in_one_place() -> None:
    inner, x = L.Dense(2, name="inside"), cl.Input((6,))
    first, second = (L.SpectralNormalization(inner, name=name) for name in ("first", "second"))
    first(x)
    with pytest.raises(ShapeError, match=r"'second': its layer Dense 'inside' has weights and works elsewhe"):
        second(x)
    with pytest.raises(ShapeError, match=r"Dense 'inside': has weights, which SpectralNormalization 'first'"):
        inner(x)


def test_weights_of_a_layer_inside_count_once() -> None:
    text = spectral(class_name="Dense", config={"name": "inside", "units": 2})
    assert cl.loads(text, limits=cl.Limits(parameters=12 + 2 + 2)).count_params() == 16
    with pytest.raises(ModelFormatError, match=r"'outer': 16 weights so far; at most 15"):
        cl.loads(text, limits=cl.Limits(parameters=15))


def test_h5_files_name_weights_after_the_layer_inside(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")

    def parts(x: Any, name: str) -> Any:
        slope = keras.layers.PReLU(name="slope")
        inner = keras.layers.Conv2D(2, 3, activation=slope, name="inside")
        return keras.layers.SpectralNormalization(inner, name=name)(x)

    x, y = keras.Input(IMAGE), keras.Input(IMAGE)
    theirs = keras.Model(x, parts(x, "outer") + keras.Model(y, parts(y, "outer"), name="block")(x))
    data = samples().numpy()
    theirs(data)  # Keras makes the slopes now
    generator = np.random.default_rng(3)
    for variable in theirs.weights:
        variable.assign(generator.random(tuple(variable.shape)) + 0.3)
    theirs.save(tmp_path / "theirs.h5")
    expected = torch.as_tensor(keras.ops.convert_to_numpy(theirs(data, training=False)))
    found = computed(cl.load(tmp_path / "theirs.h5"), samples())
    assert (found - expected).abs().max() <= 64 * EPS * expected.abs().max()


def spectral(**inner: Any) -> dict[str, Any]:
    """A file with a wrapper around this entry."""
    layers = [
        {"class_name": "InputLayer", "config": {"name": "x", "batch_shape": [None, 6]}},
        {"class_name": "SpectralNormalization", "config": {"name": "outer", "layer": inner}},
    ]
    return {"class_name": "Sequential", "config": {"name": "net", "layers": layers}}


def test_what_a_file_may_hold_inside() -> None:
    dense = {"name": "inside", "units": 2}
    assert cl.loads(spectral(class_name="Dense", config=dense)).count_params() == 12 + 2 + 2
    with pytest.raises(UnsafeModelError, match=r"'outer': layer: Lambda asks for code or files outside"):
        cl.loads(spectral(class_name="Lambda", config={"name": "inside"}))
    with pytest.raises(UnsupportedLayerError, match=r"'outer': layer: class 'Mine' is not supported"):
        cl.loads(spectral(class_name="Mine", config={"name": "inside"}))
    with pytest.raises(UnsupportedLayerError, match=r"'outer': layer: Dense with rank=3 is not supported"):
        cl.loads(spectral(class_name="Dense", config={**dense, "rank": 3}))
    with pytest.raises(UnsupportedLayerError, match=r"layer: class 'InputLayer' is not supported"):
        cl.loads(spectral(class_name="InputLayer", config={"name": "inside", "batch_shape": [None, 6]}))
    with pytest.raises(ModelFormatError, match=r"'outer': layer: class_name must be text, found nothing"):
        cl.loads(spectral(config=dense))
    with pytest.raises(ModelFormatError, match=r"layer must be an object, found 3"):
        cl.loads(spectral(class_name="Dense", config=dense) | {
            "config": {"name": "net", "layers": [
                {"class_name": "InputLayer", "config": {"name": "x", "batch_shape": [None, 6]}},
                {"class_name": "SpectralNormalization", "config": {"name": "outer", "layer": 3}},
            ]},
        })  # fmt: skip
    with pytest.raises(ShapeError, match=r"Flatten 'inside' has no kernel to normalise; wrap a Dense"):
        cl.loads(spectral(class_name="Flatten", config={"name": "inside"}))


# -- errors --------------------------------------------------------------------------------------------------
def test_errors() -> None:
    x = cl.Input(IMAGE)
    used = L.Dense(3)
    used(x)
    for make, kind, text in (
        (lambda: L.Normalization(axis=0)(x), ShapeError, r"axis must name axes 1 to 3 .* got \(0,\)$"),
        (lambda: L.Normalization(axis=(1, -3))(x), ShapeError, r"once each, got \(1, -3\)$"),
        (lambda: L.Normalization(mean=1.0)(x), ShapeError, "needs both mean and variance, or neither"),
        (lambda: L.Normalization(mean=[1.0], variance=1.0)(x), ShapeError, r"one shape, got \(1,\) and \(\)"),
        (lambda: L.Normalization(mean=1.0, variance=-1.0)(x), ShapeError, "must not be negative, got -1.0"),
        (
            lambda: L.Normalization(mean=[1.0] * 4, variance=[1.0] * 4)(x),
            ShapeError,
            r"mean along axis \(3,\) of shape \(1, 1, 1, 4\) does not broadcast to",
        ),
        (lambda: L.Normalization(mean=[[1.0], [1.0, 2.0]], variance=1.0), ShapeError, "of equal length"),
        (lambda: L.Rescaling([1.0, 2.0])(x), ShapeError, r"scale of shape \(2,\) does not broadcast to"),
        (lambda: L.Rescaling(np.ones((1, 1, 4, 5, 3)))(x), ShapeError, "scale of 5 axes does not broadcast"),
        (lambda: L.Rescaling(np.ones((7, 4, 5, 3)))(x), ShapeError, "does not broadcast to"),
        (lambda: L.Rescaling([]), ShapeError, "none empty"),
        (lambda: L.RMSNormalization(axis=1)(x), ShapeError, r"scale along axis \(1,\) of shape \(4,\)"),
        (lambda: L.RMSNormalization(axis=4)(x), ShapeError, "axis must name axes 1 to 3"),
        (lambda: L.BatchNormalization(renorm=True), UnsupportedLayerError, "renorm=True is not supported"),  # type: ignore[call-arg]
        (lambda: L.SpectralNormalization(3), UnsupportedLayerError, r"must be a layer .* got int '3'"),  # type: ignore[arg-type]
        (lambda: L.SpectralNormalization(used), UnsupportedLayerError, "in use already; give it a layer of"),
        (lambda: L.SpectralNormalization(L.Flatten())(x), ShapeError, "has no kernel to normalise"),
        (lambda: L.SpectralNormalization(L.Conv2D(2, 9))(x), ShapeError, "SpectralNormalization"),
    ):
        with pytest.raises(kind, match=text):
            make()
