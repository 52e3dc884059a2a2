"""Integers and truth values as inputs: kept as they are until something computes with them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from convloom.graph import ops
from convloom.graph.errors import CompileError, ShapeError
from convloom.graph.types import DTYPES
from convloom.graph.verify import verify
from graphs import Builder
from op_cases import CASES, Case

import convloom as cl
from convloom import layers as L

keras = pytest.importorskip("keras")

WHOLE = [name for name, dtype in DTYPES.items() if not dtype.is_floating_point]
BACKENDS = [(backend, fuse) for backend in ("aten", "triton") for fuse in (True, False)]


def pixels(dtype: str = "uint8", batch: int = 5) -> np.ndarray[Any, Any]:
    low, high = (0, 2) if dtype == "bool" else (-100, 128) if dtype == "int8" else (0, 256)
    return np.random.default_rng(3).integers(low, high, (batch, 7, 6, 3)).astype(dtype)


def network(dtype: str = "uint8", rescaled: bool = True) -> cl.Model:
    x = cl.Input((7, 6, 3), dtype=dtype, name="image")
    h = L.Rescaling(1 / 255, offset=-0.5)(x) if rescaled else x
    h = L.Conv2D(5, 3, activation="relu", name="conv")(h)
    h = L.MaxPooling2D(2)(h)
    return cl.Model(x, L.Dense(4, activation="softmax", name="dense")(L.Flatten()(h)))


def same_in_floats(model: cl.Model, dtype: str, rescaled: bool) -> cl.Model:
    twin = network("float32", rescaled)
    twin.set_weights(model.get_weights())
    return twin


# -- the rule ----------
@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_op_computes_with_integers(case: Case) -> None:
    """Every op either says that an operand may be an integer, or refuses it."""
    graph = case.graph()
    node = graph["y"]
    for position in range(len(node.inputs)):
        types = [graph[name].type for name in node.inputs]
        if node.op.takes_whole(position):
            continue
        types[position] = types[position].with_dtype("int32")
        with pytest.raises(ShapeError, match="computes with floating-point numbers, found int32"):
            node.op.result(*types)


def test_verify_finds_integers_in_arithmetic() -> None:
    b = Builder()
    x = b.input(3)
    b.op(ops.Add(), x, x, name="sum")
    b.finish("sum")
    broken, image = b.graph.copy(), b.graph[x]
    whole = replace(image, op=ops.Input(image.type.shape, "uint8"), type=image.type.with_dtype("uint8"))
    broken.dag.nodes[x]["node"] = whole
    with pytest.raises(CompileError, match="add computes with floating-point numbers, found uint8"):
        verify(broken)


# -- images straight from a file ----------
@pytest.mark.parametrize(("backend", "fuse"), BACKENDS)
@pytest.mark.parametrize("rescaled", [True, False])
@pytest.mark.parametrize("dtype", WHOLE)
def test_integers_are_cast_before_they_are_computed_with(
    dtype: str, rescaled: bool, backend: str, fuse: bool
) -> None:
    model, given = network(dtype, rescaled), pixels(dtype)
    wanted = cl.compile(same_in_floats(model, dtype, rescaled), device="cpu")(given.astype(np.float32))
    found = cl.compile(model, device="cpu", backend=backend, fuse=fuse)(given)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize(("backend", "fuse"), BACKENDS)
def test_they_are_cast_to_the_dtype_a_network_computes_in(backend: str, fuse: bool, dtype: str) -> None:
    model, given = network(), pixels()
    wanted = cl.compile(model, device="cpu")(given)
    net = cl.compile(model, device="cpu", backend=backend, fuse=fuse, dtype=dtype)
    assert net(given).dtype == DTYPES[dtype]
    torch.testing.assert_close(net(given).float(), wanted, rtol=0, atol=4 * torch.finfo(DTYPES[dtype]).eps)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "bool"])
def test_a_model_of_integers_is_keras_s(dtype: str, tmp_path: Any) -> None:
    model = network(dtype)
    model.save(tmp_path / "model.keras")
    twin = keras.saving.load_model(tmp_path / "model.keras")
    assert twin.inputs[0].dtype == dtype
    wanted = twin(pixels(dtype)).detach().numpy()
    again = cl.load(tmp_path / "model.keras")
    for given in (model, again):
        found = cl.compile(given, device="cpu")(pixels(dtype))
        np.testing.assert_allclose(found.detach().numpy(), wanted, rtol=1e-5, atol=1e-6)


def test_uint8_images_train() -> None:
    target = np.eye(4, dtype=np.float32)[np.arange(12) % 4]
    given = pixels(batch=12)
    model = network()
    twin = same_in_floats(model, "uint8", True)
    losses = []
    for network_, images in ((model, given), (twin, given.astype(np.float32))):
        net = cl.compile(network_, device="cpu")
        history = cl.fit(
            net, (images, target), loss="categorical_crossentropy", optimizer="adam", epochs=3, batch_size=4,
            shuffle=False,
        )  # fmt: skip
        losses.append(history.history["loss"])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    assert losses[0][-1] < losses[0][0]


def test_the_cast_rides_in_the_first_kernel() -> None:
    """One byte is read for each value, not four."""
    net = cl.compile(network(), device="cpu")
    first = net.kernels[0]
    assert list(first.ops) == ["cast", "scale", "conv2d", "relu", "max_pool2d"]
    image, weights, pooled = 7 * 6 * 3, 3 * 3 * 3 * 5 + 5, 2 * 2 * 5
    assert first.bytes() == image + 4 * (weights + pooled)
    trained = cl.compile(network(), device="cpu").train()
    first = trained.kernels[0]  # the gradient of the kernel reads the image as the convolution does
    assert list(first.ops) == ["cast", "scale"]
    assert first.bytes() == image * (1 + 4)


@pytest.mark.parametrize("dtype", WHOLE)
@pytest.mark.parametrize(
    ("shape", "size", "options"),
    [
        ((9, 8, 3), 3, {"padding": "same"}),
        ((9, 8, 3), 5, {"padding": "same", "strides": 2}),
        ((9, 8, 17), 3, {"padding": "same"}),
        ((9, 8, 17), 1, {"strides": 2}),
        ((9, 8, 8), 3, {"groups": 2, "dilation_rate": 2}),
    ],
)
def test_convolutions_read_integers_themselves(
    dtype: str, shape: tuple[int, ...], size: int, options: dict[str, Any]
) -> None:
    """In every form of the main loop; what lies outside the image is 0 after the conversion, not before."""
    x = cl.Input(shape, dtype=dtype)
    model = cl.Model(x, L.Conv2D(6, size, **options)(L.Rescaling(1 / 255, offset=0.25)(x)))
    given = np.random.default_rng(1).integers(0, 2 if dtype == "bool" else 100, (3, *shape)).astype(dtype)
    wanted = cl.compile(model, device="cpu", dtype="float64", fuse=False)(given)
    for backend in ("aten", "triton"):
        net = cl.compile(model, device="cpu", backend=backend)
        assert [list(kernel.ops) for kernel in net.kernels] == [["cast", "scale", "conv2d"]]
        torch.testing.assert_close(net(given).double(), wanted, rtol=1e-4, atol=1e-5)


# -- operators ----------
def test_arithmetic_that_gives_floating_point_numbers_is_keras_s(tmp_path: Any) -> None:
    given = np.random.default_rng(2).integers(1, 200, (3, 4)).astype(np.uint8)
    x = cl.Input((4,), dtype="uint8")
    made = [x / 3, x * 0.5, x - 0.25, 2.0 - x, x**0.5, (x * 1.0) ** 2 + x, 100 / (x * 1.0)]
    model = cl.Model(x, made)
    model.save(tmp_path / "model.keras")
    wanted = keras.saving.load_model(tmp_path / "model.keras")(given)
    for found, right in zip(cl.compile(model, device="cpu")(given), wanted, strict=True):
        np.testing.assert_allclose(found.detach().numpy(), right.detach().numpy(), rtol=1e-5)


@pytest.mark.parametrize(
    "made", [lambda x: x + 1, lambda x: x * 2, lambda x: -x, lambda x: x + x, lambda x: x**2]
)
def test_arithmetic_that_keras_does_in_integers_is_refused(made: Any) -> None:
    """250 + 10 is 4 there."""
    with pytest.raises(
        ShapeError, match=r"computed in uint8 by Keras.* convert uint8\[N,4\] first, .*x \* 1.0"
    ):
        made(cl.Input((4,), dtype="uint8"))


# -- what a call gives ----------
def test_an_input_of_integers_takes_those_it_can_hold() -> None:
    net = cl.compile(network(), device="cpu")
    wanted = net(pixels())
    for dtype in ("int64", "int32", "float32"):
        assert torch.equal(net(pixels().astype(dtype)), wanted)
    ones = pixels("bool")
    assert torch.equal(net(ones), net(ones.astype(np.uint8)))
    for wrong in (pixels().astype(np.int64) + 1, pixels().astype(np.float32) + 0.5, pixels().astype(int) - 1):
        with pytest.raises(ShapeError, match=r"takes uint8, which some of the .* values given are not"):
            net(wrong)
    with pytest.raises(ShapeError, match="input 'image' has dtype uint8, the network computes in float32"):
        cl.compile(network("float32"), device="cpu")(pixels())
