"""Sequences and volumes: layers through Keras and back, kernels, gradients, training and errors.

The values of single layers stand in data/layer_cases (volumes, pools, adaptive).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from convloom.codegen.dispatch import emit
from convloom.frontends import layers as L
from convloom.graph import ops
from convloom.graph.errors import ConvLoomError, ShapeError, UnsupportedLayerError
from convloom.graph.ir import Graph
from convloom.planning.forms.flat import ELEMENTS
from convloom.planning.fusion import leave_unfused

import convloom as cl

pytestmark = pytest.mark.filterwarnings("error::convloom.runtime.backends.FallbackWarning")

FIRST = "channels_first"


def randomised(model: cl.Model) -> cl.Model:
    """Weights that no default gives, variances positive."""
    generator = torch.Generator().manual_seed(1)
    for name, value in model.parameters.items():
        least = 0.5 if name.endswith("variance") else -0.2
        model.parameters[name] = torch.rand(value.shape, generator=generator) * 0.6 + least
    return model


def batch(model: cl.Model, size: int = 2) -> torch.Tensor:
    shape = model.inputs[0].type.size(size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


# -- Keras ---------------------------------------------------------------------------------------------------
LAYERS: list[tuple[str, dict[str, Any], tuple[int, ...]]] = [
    ("Conv1D", {"filters": 4, "kernel_size": 3, "padding": "causal", "dilation_rate": 2}, (7, 4)),
    ("Conv1D", {"filters": 4, "kernel_size": (2,), "groups": 2, "activation": "relu"}, (7, 4)),
    (
        "Conv3D",
        {"filters": 3, "kernel_size": (2, 1, 3), "strides": (1, 2, 2), "padding": "same"},
        (3, 4, 5, 2),
    ),
    ("DepthwiseConv1D", {"kernel_size": 3, "depth_multiplier": 2, "data_format": FIRST}, (3, 6)),
    ("SeparableConv1D", {"filters": 5, "kernel_size": 3, "strides": 2, "activation": "silu"}, (8, 3)),
    ("Conv1DTranspose", {"filters": 3, "kernel_size": 3, "strides": 2, "output_padding": 1}, (5, 2)),
    ("Conv3DTranspose", {"filters": 2, "kernel_size": 2, "strides": (1, 2, 3)}, (2, 3, 2, 3)),
    ("MaxPooling1D", {"pool_size": 3, "strides": 2, "padding": "same"}, (8, 3)),
    ("MaxPooling3D", {"pool_size": (1, 2, 3), "strides": 2}, (3, 4, 5, 2)),
    ("AveragePooling1D", {"pool_size": 2, "data_format": FIRST}, (3, 8)),
    ("AveragePooling3D", {"pool_size": 2, "strides": (2, 1, 1)}, (3, 4, 3, 2)),
    ("GlobalMaxPooling1D", {"keepdims": True}, (4, 3)),
    ("GlobalMaxPooling3D", {"data_format": FIRST}, (3, 2, 3, 2)),
    ("GlobalAveragePooling1D", {}, (4, 3)),
    ("GlobalAveragePooling3D", {"keepdims": True}, (2, 3, 2, 3)),
    ("AdaptiveMaxPooling1D", {"output_size": 3}, (7, 2)),
    ("AdaptiveMaxPooling2D", {"output_size": (2, 3)}, (6, 5, 2)),
    ("AdaptiveMaxPooling3D", {"output_size": 2}, (4, 3, 5, 1)),
    ("AdaptiveAveragePooling1D", {"output_size": 3, "data_format": FIRST}, (2, 7)),
    ("AdaptiveAveragePooling2D", {"output_size": 2}, (6, 5, 2)),
    ("AdaptiveAveragePooling3D", {"output_size": (2, 3, 1)}, (4, 3, 5, 1)),
    ("ZeroPadding1D", {"padding": (1, 2)}, (3, 2)),
    ("ZeroPadding3D", {"padding": (1, 0, 2)}, (2, 2, 2, 1)),
    ("Cropping1D", {"cropping": (1, 2)}, (5, 2)),
    ("Cropping3D", {"cropping": ((1, 0), (0, 1), (1, 1))}, (2, 3, 4, 1)),
]


@pytest.mark.parametrize(("name", "arguments", "shape"), LAYERS, ids=lambda value: str(value)[:40])
def test_keras_opens_what_is_saved(
    name: str, arguments: dict[str, Any], shape: tuple[int, ...], tmp_path: Path
) -> None:
    keras = pytest.importorskip("keras")
    model = randomised(cl.Sequential([cl.Input(shape), L.DECLARATIONS[name](**arguments)]))
    model.save(tmp_path / "net.keras")
    x = batch(model)
    found = cl.compile(model, device="cpu")(x).detach().numpy()
    theirs = keras.models.load_model(tmp_path / "net.keras")
    expected = keras.ops.convert_to_numpy(theirs(x.numpy(), training=False))
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)
    again = cl.load(tmp_path / "net.keras")
    assert again.to_json() == model.to_json()
    assert {k: v.tolist() for k, v in again.parameters.items()} == {
        k: v.tolist() for k, v in model.parameters.items()
    }


# -- kernels -------------------------------------------------------------------------------------------------
def kernels(shape: tuple[int, ...], *layers: Any) -> list[str]:
    net = cl.compile(cl.Sequential([cl.Input(shape), *layers]), device="cpu")
    return [kernel.name for kernel in net.kernels]


def test_a_sequence_fuses_as_an_image_does() -> None:
    assert kernels((12, 3), L.Conv1D(4, 3, activation="relu"), L.MaxPooling1D(2)) == [
        "conv2d_relu_max_pool2d"
    ]
    assert kernels(
        (12, 3),
        L.ZeroPadding1D(1),
        L.Conv1D(4, 3, use_bias=False),
        L.BatchNormalization(),
        L.Dropout(0.5),
        L.Activation("tanh"),
        L.AveragePooling1D(2),
    ) == ["conv2d_tanh_average_pool2d"]
    assert kernels((12, 3), L.SeparableConv1D(4, 3), L.ReLU()) == ["conv2d", "conv2d_relu"]
    assert kernels((6, 3), L.Conv1DTranspose(4, 3, 2, activation="relu")) == ["conv2d_transpose_add_relu"]


def test_a_residual_block_of_sequences_is_two_kernels() -> None:
    x = cl.Input((12, 4))
    h = L.ReLU()(L.BatchNormalization()(L.Conv1D(4, 3, padding="same")(x)))
    h = L.BatchNormalization()(L.Conv1D(4, 3, padding="same")(h))
    net = cl.compile(cl.Model(x, L.ReLU()(L.Add()([h, x]))), device="cpu")
    assert [kernel.name for kernel in net.kernels] == ["conv2d_relu", "conv2d_add_relu"]


def test_the_copies_that_a_volume_costs() -> None:
    assert kernels((3, 4, 5, 2), L.Conv3D(4, 1, activation="relu")) == ["conv2d_relu"]
    assert kernels((3, 4, 5, 2), L.Conv3D(4, (2, 1, 3))) == ["slice", "slice_2", "concat", "conv2d"]
    assert kernels((3, 4, 5, 2), L.Conv3D(4, (1, 3, 3))) == ["conv2d", "slice"]
    block = (L.Conv3D(4, (1, 3, 3), use_bias=False), L.BatchNormalization(), L.ReLU())
    assert kernels((3, 4, 5, 2), *block) == ["conv2d_relu", "slice"]
    assert kernels((2, 2, 2, 3), L.Conv3DTranspose(4, 2, 2)) == ["conv2d_transpose", "transpose", "add"]
    assert kernels((4, 4, 4, 2), L.MaxPooling3D(2)) == ["max_pool2d", "max_pool2d_2"]
    assert kernels((4, 4, 4, 2), L.GlobalAveragePooling3D()) == ["average_pool2d"]
    assert kernels((8, 6, 2), L.AdaptiveMaxPooling2D((4, 2))) == ["max_pool2d"]


def test_what_has_no_batch_is_transposed_by_a_kernel_too() -> None:
    """As the gradient of a volume's kernel is; over more elements than one program moves."""
    graph = Graph("transpose")
    total = graph.add(ops.Reduce((0,)), [graph.add(ops.Input(("N", 3, 5, 2, 17, 4)))])
    graph.outputs = {"y": graph.add(ops.Transpose((2, 0, 1, 4, 3)), [total])}
    region = next(r for r in leave_unfused(graph).kernels if isinstance(r.anchor.op, ops.Transpose))
    kernel = emit(region)
    assert "x[j,k,i,m,l]" in kernel.source
    x = torch.randn(3, 5, 2, 17, 4)
    y = torch.full((2, 3, 5, 4, 17), float("nan"))
    assert y.numel() > ELEMENTS
    kernel.load(interpreted=True).launch(x, y)
    assert torch.equal(y, x.permute(2, 0, 1, 4, 3))


# -- gradients and training ----------------------------------------------------------------------------------
def sequence() -> cl.Model:
    layers = [
        L.Conv1D(4, 3, padding="causal", activation="tanh"),
        L.BatchNormalization(),
        L.MaxPooling1D(2, padding="same"),
        L.SeparableConv1D(5, 2, padding="same", depth_multiplier=2, activation="sigmoid"),
        L.DepthwiseConv1D(3, strides=2, padding="same"),
        L.Conv1DTranspose(3, 4, 3, "same", output_padding=1, activation="tanh"),
        L.ZeroPadding1D((1, 0)),
        L.AdaptiveAveragePooling1D(3),
        L.Cropping1D((1, 0)),
        L.GlobalAveragePooling1D(),
    ]
    return cl.Sequential([cl.Input((9, 3)), *layers])


def volume() -> cl.Model:
    layers = [
        L.Conv3D(4, (2, 3, 2), (1, 2, 1), "same", groups=2),
        L.BatchNormalization(),
        L.Activation("tanh"),
        L.MaxPooling3D((2, 1, 2), 1),
        L.Conv3D(2, 2, dilation_rate=(1, 1, 2), padding="same", activation="sigmoid"),
        L.Conv3DTranspose(2, (3, 2, 1), 2, "same", activation="tanh"),
        L.AveragePooling3D(2, 3, "same"),
        L.ZeroPadding3D((0, 1, 0)),
        L.AdaptiveMaxPooling3D((1, 3, 2)),
        L.Flatten(),
    ]
    return cl.Sequential([cl.Input((3, 4, 4, 2)), *layers])


def first() -> cl.Model:
    layers = [
        L.Conv3D(3, (2, 1, 2), 2, data_format=FIRST, activation="tanh"),
        L.GlobalMaxPooling3D(data_format=FIRST),
    ]
    return cl.Sequential([cl.Input((2, 5, 3, 4)), *layers])


networks = pytest.mark.parametrize("network", [sequence, volume, first])
modes = pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])


@networks
@modes
def test_gradcheck_in_float64(network: Callable[[], cl.Model], training: bool) -> None:
    net = cl.compile(randomised(network()), device="cpu", dtype="float64")
    model = network()
    x = batch(model).double().requires_grad_()
    chosen = list(net.parameters())

    def run(*_: torch.Tensor) -> torch.Tensor:
        net.train(training)  # gradcheck writes through .data
        return net(x)

    assert torch.autograd.gradcheck(run, (x, *chosen), eps=1e-6, atol=1e-6, fast_mode=True)


def gradients(net: torch.nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    y = net(x)
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(4))
    (y * weight.to(y.dtype)).sum().backward()
    return y, {name: p.grad.double() for name, p in net.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("network", "training"), [(sequence, True), (volume, True), (first, False)])
def test_kernels_agree_with_float64(network: Callable[[], cl.Model], training: bool) -> None:
    """Forward and backward, each kernel emitted: no part falls back to PyTorch's operators."""
    model = randomised(network())
    exact = cl.compile(model, device="cpu", dtype="float64", fuse=False).train(training)
    net = cl.compile(model, device="cpu", backend="triton").train(training)
    x = batch(model)
    expected, wanted = gradients(exact, x)
    y, found = gradients(net, x)
    # float32 sums of at most a few hundred terms through at most a dozen layers
    torch.testing.assert_close(y.double(), expected, rtol=2e-4, atol=2e-5)
    for key, value in wanted.items():
        torch.testing.assert_close(found[key], value, rtol=5e-4, atol=5e-5 * float(value.abs().max() + 1))


@networks
def test_inference_agrees_with_float64(network: Callable[[], cl.Model]) -> None:
    """With the rules of inference, which fold batch norm, at every batch size."""
    model = randomised(network())
    exact = cl.compile(model, device="cpu", dtype="float64", fuse=False)
    net = cl.compile(model, device="cpu")
    for size in (1, 3):
        x = batch(model, size)
        with torch.no_grad():
            torch.testing.assert_close(net(x).double(), exact(x), rtol=2e-4, atol=2e-5)


def test_gradients_of_a_volume_are_those_of_torch() -> None:
    """Against conv3d, max_pool3d and conv_transpose3d, which know nothing of slabs."""
    layers = [
        L.Conv3D(4, (3, 2, 3), (2, 1, 2), groups=2, activation="relu", name="a"),
        L.MaxPooling3D(2, 1),
        L.Conv3DTranspose(3, (2, 3, 3), (2, 1, 1), name="b"),
    ]
    model = randomised(cl.Sequential([cl.Input((7, 4, 7, 2)), *layers]))
    net = cl.compile(model, device="cpu", dtype="float64")
    x = batch(model).double()
    _, mine = gradients(net, x)
    twin = {name: value.double().requires_grad_() for name, value in model.parameters.items()}
    h = F.conv3d(
        x.permute(0, 4, 1, 2, 3), twin["a/kernel"].permute(4, 3, 0, 1, 2), twin["a/bias"], (2, 1, 2), groups=2
    )
    h = F.max_pool3d(F.relu(h), 2, 1)
    h = F.conv_transpose3d(h, twin["b/kernel"].permute(4, 3, 0, 1, 2), twin["b/bias"], (2, 1, 1))
    y = h.permute(0, 2, 3, 4, 1)
    torch.testing.assert_close(net(x), y)
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(4)).double()
    (y * weight).sum().backward()
    assert mine.keys() == twin.keys() == {"a/kernel", "a/bias", "b/kernel", "b/bias"}
    for name, value in twin.items():
        torch.testing.assert_close(mine[name], value.grad)


def test_a_small_network_of_volumes_learns() -> None:
    """Which half of a volume is bright."""
    generator = np.random.default_rng(5)
    y = generator.integers(0, 2, 16)
    x = generator.normal(size=(16, 4, 3, 3, 1)).astype(np.float32) * 0.1
    x[y == 0, :2] += 1
    x[y == 1, 2:] += 1
    layers = [L.Conv3D(4, 2, activation="relu"), L.Flatten(), L.Dense(2, activation="softmax")]
    torch.manual_seed(0)
    net = cl.compile(cl.Sequential([cl.Input((4, 3, 3, 1)), *layers]), device="cpu")
    optimizer = torch.optim.Adam(net.parameters(), 0.05)
    history = cl.fit(
        net,
        (x, np.eye(2, dtype=np.float32)[y]),
        loss="categorical_crossentropy",
        optimizer=optimizer,
        epochs=5,
        batch_size=8,
        verbose=False,
    )
    losses = history.history["loss"]
    assert losses[-1] < 0.5 * losses[0]


def test_half_precision() -> None:
    model = randomised(first())
    exact = cl.compile(model, device="cpu", dtype="float64")
    net = cl.compile(model, device="cpu", dtype="bfloat16")
    x = batch(model)
    assert (net(x).double() - exact(x)).abs().max() < 8 * torch.finfo(torch.bfloat16).eps


# -- errors --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("make", "kind", "text"),
    [
        (
            lambda: L.Conv1D(4, (3, 3), name="c"),
            ShapeError,
            "Conv1D 'c': kernel_size must be an integer or a tuple of one (steps,), got (3, 3)",
        ),
        (
            lambda: L.Conv3D(4, (3, 0, 3)),
            ShapeError,
            "kernel_size must be positive integers, got (3, 0, 3); use an integer or a triple "
            "(depth, height, width), each >= 1",
        ),
        (
            lambda: L.Conv2D(4, 3, padding="causal"),
            ShapeError,
            "padding must be 'same', 'valid' or ((top, bottom), (left, right)), got 'causal'",
        ),
        (
            lambda: L.Conv1D(4, 3, padding="wide"),
            ShapeError,
            "padding must be 'same', 'valid', 'causal' or (before, after), got 'wide'",
        ),
        (
            lambda: L.Conv3D(4, 3, 2, dilation_rate=(1, 2, 1)),
            UnsupportedLayerError,
            "strides (2, 2, 2) and dilation_rate (1, 2, 1) cannot both be above 1, here as in Keras",
        ),
        (
            lambda: L.Conv2DTranspose(4, 3, 2, dilation_rate=2),
            UnsupportedLayerError,
            "strides (2, 2) and dilation_rate (2, 2) cannot both be above 1",
        ),
        (
            lambda: L.Conv1DTranspose(4, 3, 2, output_padding=2),
            ShapeError,
            "output_padding=(2,) must be smaller than the strides (2,)",
        ),
        (
            lambda: L.Conv3DTranspose(4, 3, output_padding=-1),
            ShapeError,
            "output_padding must be integers of at least 0, got -1",
        ),
        (
            lambda: L.Conv1DTranspose(4, 2, 2, "same", output_padding=0)(cl.Input((1, 3))),
            ShapeError,
            "an axis of 1 with a kernel of 2, strides of 2 and output_padding=0 gives 0 positions",
        ),
        (
            lambda: L.Conv3D(4, 3)(cl.Input((8, 8, 3))),
            ShapeError,
            "takes a volume (N, depth, height, width, channels), found",
        ),
        (
            lambda: L.Conv1D(4, 5, name="c")(cl.Input((4, 3))),
            ShapeError,
            "Conv1D 'c': a window of 5 (dilation 1) does not fit into an input of 4 with padding",
        ),
        (
            lambda: L.Conv3D(4, (3, 1, 1), data_format=FIRST)(cl.Input((3, 2, 8, 8))),
            ShapeError,
            "a window of 3x1x1 (dilation 1x1x1) does not fit into an input of 2x8x8",
        ),
        (
            lambda: L.MaxPooling3D(3)(cl.Input((4, 2, 4, 1))),
            ShapeError,
            "a window of 3x3x3 (dilation 1x1x1) does not fit into an input of 4x2x4",
        ),
        (
            lambda: L.Conv3D(4, 1, groups=3)(cl.Input((2, 2, 2, 6))),
            ShapeError,
            "groups=3 must divide the input's 6 channels and the 4 filters",
        ),
        (
            lambda: L.AdaptiveMaxPooling1D(0),
            ShapeError,
            "output_size must be positive integers, got 0",
        ),
        (
            lambda: L.ZeroPadding3D((1, 2)),
            ShapeError,
            "must be n, (depth, rows, columns) or a pair (before, after) for each of them, got (1, 2)",
        ),
        (
            lambda: L.Cropping1D((2, -1)),
            ShapeError,
            "cropping must not be negative, got (2, -1)",
        ),
        (
            lambda: L.Cropping1D((2, 3))(cl.Input((5, 1))),
            ShapeError,
            "cropping (2, 3) leaves nothing of",
        ),
    ],
)
def test_errors(make: Callable[[], Any], kind: type[ConvLoomError], text: str) -> None:
    with pytest.raises(kind) as caught:
        make()
    assert text in str(caught.value)


def test_explicit_padding_is_refused_by_the_export_with_a_way_out() -> None:
    model = cl.Sequential([cl.Input((4, 3)), L.Conv1D(2, 3, padding=(2, 1))])
    assert cl.compile(model, device="cpu")(torch.zeros(1, 4, 3)).shape == (1, 5, 2)
    with pytest.raises(UnsupportedLayerError, match=r"\(2, 1\)\) here; put a ZeroPadding1D before it"):
        model.to_json()


def test_dilation_beside_strides_is_for_depthwise_layers() -> None:
    """Keras refuses the two together in Conv and ConvTranspose only."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for layer in (L.DepthwiseConv1D(2, 2, dilation_rate=2), L.SeparableConv1D(3, 2, 2, dilation_rate=2)):
            assert layer(cl.Input((9, 3))).type.size()[1] == 4


def test_windows_that_divide_an_axis_are_counted_without_listing_them() -> None:
    """The other axis does not divide, so that each is pooled by itself."""
    y = L.AdaptiveMaxPooling2D((2**28, 2))(cl.Input((2**29, 3, 1)))
    assert y.shape == (None, 2**28, 2, 1)
