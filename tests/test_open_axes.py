"""Fully convolutional networks whose inputs leave axes open: planned once for each size that they meet."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import randomised

import convloom as cl
from convloom import layers as L

pytestmark = pytest.mark.filterwarnings("error::convloom.runtime.backends.FallbackWarning")


def unet(height: int | None = None, width: int | None = None) -> cl.Model:
    """Two levels down and up again, with skips, batch norm and a resizing at the end."""
    image = cl.Input((height, width, 2), name="image")
    skips, h = [], image
    for depth, filters in enumerate((3, 5)):
        h = L.Conv2D(filters, 3, padding="same", use_bias=False, name=f"down{depth}")(h)
        h = L.ReLU(name=f"relu{depth}")(L.BatchNormalization(name=f"norm{depth}")(h))
        skips.append(h)
        h = L.MaxPooling2D(2, name=f"pool{depth}")(h)
    h = L.Conv2D(7, 3, padding="same", activation="relu", name="bottom")(h)
    for depth, skip in reversed(list(enumerate(skips))):
        h = L.Concatenate(name=f"join{depth}")([skip, L.UpSampling2D(2, name=f"up{depth}")(h)])
        h = L.Conv2D(4, 3, padding="same", activation="relu", name=f"merge{depth}")(h)
    return cl.Model(image, L.Conv2D(1, 1, activation="sigmoid", name="mask")(h), name="unet")


def classifier(height: int | None = None, width: int | None = None) -> cl.Model:
    image = cl.Input((height, width, 3), name="image")
    h = L.Conv2D(4, 3, strides=2, padding="same", activation="relu", name="conv")(image)
    h = L.Resizing(5, 4, name="resize")(h)
    h = L.GlobalAveragePooling2D(name="pool")(L.DepthwiseConv2D(3, name="depthwise")(h))
    return cl.Model(image, L.Dense(3, activation="softmax", name="classes")(h), name="classifier")


NETWORKS = {"unet": (unet, [(8, 12), (4, 4), (16, 8)]), "classifier": (classifier, [(9, 7), (1, 2), (20, 5)])}
WAYS = [{"backend": "aten"}, {"backend": "aten", "fuse": False}, {"backend": "triton"}]


def batch(model: cl.Model, size: tuple[int, int], count: int = 2) -> torch.Tensor:
    shape = (count, *size, int(model.inputs[0].shape[-1] or 0))
    return torch.randn(shape, generator=torch.Generator().manual_seed(size[0]))


def with_weights_of(model: cl.Model, other: cl.Model) -> cl.Model:
    model.set_weights(other.get_weights())
    return model


def trained_once(net: Any, x: torch.Tensor) -> list[torch.Tensor]:
    y = net.train()(x)
    y.square().sum().backward()
    found = [y.detach(), *(p.grad.clone() for p in net.parameters())]
    net.zero_grad()
    return [*found, *(value.detach().clone() for value in net.weights().values())]


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_size_is_that_of_a_network_made_for_it(name: str, way: dict[str, Any]) -> None:
    """Outputs in eval and in training, gradients, and the statistics that move, with the same weights."""
    make, sizes = NETWORKS[name]
    model = randomised(make())
    net = cl.compile(model, device="cpu", **way)
    for size in sizes:
        x = batch(model, size)
        twin = cl.compile(with_weights_of(make(*size), model), device="cpu", **way)
        with torch.no_grad():
            torch.testing.assert_close(net.eval()(x), twin(x))
        for one, other in zip(trained_once(net, x), trained_once(twin, x), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_shapes_are_shown_open() -> None:
    model = unet()
    assert model.outputs[0].shape == (None, None, None, 1)
    assert model.get_layer("pool1").output.shape == (None, None, None, 5)
    assert classifier().get_layer("resize").output.shape == (None, 5, 4, 4)
    assert classifier().outputs[0].shape == (None, 3)
    assert "None,None,None" not in repr(model.inputs[0])
    assert "float32[N,None,None,2]" in repr(model.inputs[0])
    half = unet(8)
    assert half.outputs[0].shape == (None, 8, None, 1)
    assert cl.compile(half)(torch.zeros(1, 8, 12, 2)).shape == (1, 8, 12, 1)


def test_a_size_is_planned_once() -> None:
    net = cl.compile(classifier())
    with torch.no_grad():
        for size in ((9, 7), (20, 5), (9, 7)):
            net(batch(classifier(), size))
    assert len(net._sizes) == 2
    assert net.at((9, 7, 3)) is net.at((9, 7, 3))
    with torch.no_grad():
        for height in range(1, 30):
            net(torch.zeros(1, height, 4, 3))
    assert len(net._sizes) == 16


def test_fit_at_several_sizes() -> None:
    """Batches of different sizes train one set of weights, losses by name included."""
    data = [(batch(unet(), size, 3), torch.zeros(3, *size, 1)) for size in ((8, 12), (4, 4), (16, 8))]
    net = cl.compile(randomised(unet()))
    options: dict[str, Any] = {"epochs": 4, "verbose": False, "validation_data": data, "shuffle": False}
    history = cl.fit(net, data, "binary_crossentropy", "adam", learning_rate=0.05, **options).history
    assert history["loss"][-1] < history["loss"][0]
    assert history["val_loss"][-1] < history["val_loss"][0]
    wrong = [(data[0][0], torch.zeros(3, 4, 4, 1))]
    with pytest.raises(cl.ShapeError, match=r"targets have shape \(3, 4, 4, 1\).*\(3, 8, 12, 1\)"):
        cl.fit(net, wrong, "binary_crossentropy", verbose=False)


def test_statistics_of_several_sizes() -> None:
    net = cl.compile(randomised(unet()))
    data = [batch(unet(), size) for size in ((8, 12), (4, 4))]
    cl.update_statistics(net, data)
    maps = [torch.nn.functional.conv2d(
        x.permute(0, 3, 1, 2), net.weights()["down0/kernel"].permute(3, 2, 0, 1), padding=1
    ) for x in data]  # fmt: skip
    mean = torch.stack([h.mean((0, 2, 3)) for h in maps]).mean(0)
    torch.testing.assert_close(net.weights()["norm0/moving_mean"], mean.detach(), rtol=1e-5, atol=1e-6)


def test_looking_inside_needs_a_size(tmp_path: Path) -> None:
    model = unet()
    net = cl.compile(model)
    for look in (lambda: net.kernels, net.explain, lambda: net.graph, lambda: cl.emit(net, tmp_path)):
        with pytest.raises(cl.CompileError, match=r"leaves axes open.*net.at\(\(\.\.\.\)\), or input_shape="):
            look()
    assert net.at((8, 8, 2)).kernels
    assert cl.emit(model, tmp_path, input_shape=(8, 8, 2))
    assert cl.emit(net, tmp_path, input_shape={"image": (8, 8, 2)})
    assert cl.compile(model, input_shape=(8, 8, 2)).kernels
    report = cl.profile(net, batch_size=1, repeats=1, input_shape=[(8, 8, 2)])
    assert report.fused.rows
    with pytest.raises(cl.ShapeError, match=r"axes left open; say their sizes: input_shape=\(224, 224, 2\)"):
        model.to_graph()
    with pytest.raises(cl.ShapeError, match=r"input_shape \(8, 8, 3\) does not fit"):
        model.to_graph((8, 8, 3))


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (np.zeros((1, 8, 8, 3), np.float32), r"axis 3 must be 2: \(batch, any, any, 2\)"),
        (np.zeros((8, 8, 2), np.float32), "add the batch axis"),
        (np.zeros((1, 0, 8, 2), np.float32), "nothing in it"),
        (np.zeros((1, 6, 8, 2), np.float32), r"Concatenate 'join1': .*\[N,3,4,5\], float32\[N,2,4,7\]"),
    ],
)
def test_a_size_that_does_not_fit_is_named(x: Any, text: str) -> None:
    with pytest.raises(cl.ShapeError, match=text):
        cl.compile(unet())(x)


def test_weights_that_hang_on_the_size_are_refused() -> None:
    image = cl.Input((None, None, 3))
    with pytest.raises(cl.ShapeError, match=r"'d': does not take \(None, None\) with axes left open: its"):
        L.Dense(2, name="d")(L.Flatten()(image))
    with pytest.raises(cl.ShapeError, match="its weights would depend on their sizes"):
        L.Conv2D(2, 3)(cl.Input((8, 8, None)))


def test_files_keep_axes_open(tmp_path: Path) -> None:
    model = randomised(unet())
    model.save(tmp_path / "net.keras")
    again = cl.load(tmp_path / "net.keras")
    assert again.outputs[0].shape == (None, None, None, 1)
    x = batch(model, (8, 4))
    torch.testing.assert_close(cl.compile(again)(x), cl.compile(model)(x))


def test_keras_opens_what_is_open_and_gives_the_same(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    model = randomised(unet())
    model.save(tmp_path / "net.keras")
    theirs = keras.models.load_model(tmp_path / "net.keras")
    assert theirs.output_shape == (None, None, None, 1)
    net = cl.compile(model)
    for size in ((8, 12), (4, 4)):
        x = batch(model, size)
        expected = torch.as_tensor(np.asarray(theirs(x.numpy()).detach()))
        torch.testing.assert_close(net(x).detach(), expected, rtol=1e-4, atol=1e-5)


def test_models_inside_and_cuts_stay_open() -> None:
    base = randomised(unet())
    image = cl.Input((None, None, 2), name="x")
    outer = cl.Model(image, L.GlobalMaxPooling2D()(base(image)))
    fixed = cl.Input((12, 8, 2), name="fixed")
    inner = cl.Model(fixed, base(fixed))
    x = batch(base, (12, 8))
    expected = cl.compile(base)(x)
    torch.testing.assert_close(cl.compile(inner)(x), expected)
    torch.testing.assert_close(cl.compile(outer)(x), expected.amax((1, 2)))
    head = cl.Model(base.get_layer("merge0").output, base.output)
    body = cl.Model(base.input, base.get_layer("merge0").output)
    assert head.inputs[0].shape == (None, None, None, 4)
    torch.testing.assert_close(cl.compile(head)(cl.compile(body)(x)), expected)


@pytest.mark.parametrize("way", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_a_copy_meets_sizes_of_its_own(way: Any) -> None:
    net = cl.compile(randomised(unet()))
    x = batch(unet(), (8, 8))
    twin = way(net)
    torch.testing.assert_close(twin(x), net(x))
    with torch.no_grad():
        next(net.parameters()).mul_(2.0)
    assert not torch.allclose(twin(x), net(x))


def test_layers_frozen_later_are_followed() -> None:
    model = randomised(unet())
    net = cl.compile(model).train()
    x = batch(model, (8, 8))
    net(x).sum().backward()
    for name in ("down0", "norm0"):
        model.get_layer(name).trainable = False  # type: ignore[attr-defined]
    before = net.weights()["norm0/moving_mean"].clone()
    net.zero_grad()
    net(x).sum().backward()
    assert dict(net.named_parameters())["down0/kernel"].grad is None
    assert torch.equal(net.weights()["norm0/moving_mean"], before)


def test_sequences_and_several_inputs() -> None:
    a, b = cl.Input((None, 3), name="a"), cl.Input((None, 3), name="b")
    shared = L.Conv1D(4, 3, padding="same", name="conv")
    out = L.Concatenate(axis=1)([shared(a), shared(b)])
    net = cl.compile(randomised(cl.Model([a, b], out)), dtype="float64")
    first, second = torch.randn(2, 5, 3).double(), torch.randn(2, 9, 3).double()
    y = net(first, second)
    assert y.shape == (2, 14, 4)
    torch.testing.assert_close(net({"b": second, "a": first}), y)
    assert len(net._sizes) == 1
