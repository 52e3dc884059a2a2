"""Operation nodes: from Keras 2 and 3, from Python's operators, and back to Keras."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from convloom.frontends.keras.functions import FUNCTIONS
from convloom.frontends.operations import OPERATIONS
from keras_files import Json, entry, functional, layer, tensor
from test_layer_cases import CASES, RELATIVE, numbered

import convloom as cl
from convloom import layers as L

OPERATION_CASES = [case for case in CASES if case.startswith("operations.")]
IMAGE = (4, 6, 3)


def images(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def outputs(model: cl.Model, *inputs: np.ndarray, backend: str = "aten") -> list[np.ndarray]:
    with torch.no_grad():
        result = cl.compile(model, device="cpu", backend=backend)(*map(torch.from_numpy, inputs))
    return [y.numpy() for y in (result if isinstance(result, tuple) else (result,))]


# -- Python's operators --------------------------------------------------------------------------------------
EXPRESSIONS: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda x, y: x + y + 2,
    "add_array": lambda x, y: np.array([1.0, 2.0, 3.0], np.float32) + x,
    "subtract": lambda x, y: 1.5 - x - y,
    "multiply": lambda x, y: 0.5 * x * y,
    "divide": lambda x, y: x / (abs(y) + 1.0),
    "divide_numbers": lambda x, y: 2 / (abs(x) / 4 + 1),
    "power": lambda x, y: x**2 - abs(y) ** 1.5 + (abs(x) + 1) ** -2,
    "power_of_number": lambda x, y: 2.0**x,
    "negative": lambda x, y: -x,
    "matmul": lambda x, y: x[:, :, :3] @ y[:, :, :3],
    "slices": lambda x, y: x[:, 1:3] + y[:, -2:],
    "indices": lambda x, y: x[:, 0, ..., 2],
    "new_axis": lambda x, y: x[:, None, 1:, ..., :2],
    "steps": lambda x, y: x[:, ::2, 1::3],
    "backwards": lambda x, y: x[:, ::-1, 5:0:-2],
}


def expressed(name: str) -> cl.Model:
    """The expression, and a sum that reads both inputs."""
    x, y = cl.Input(IMAGE), cl.Input(IMAGE)
    return cl.Model([x, y], [EXPRESSIONS[name](x, y), x + y])


@pytest.mark.parametrize("backend", ["aten", "triton"])
@pytest.mark.parametrize("name", EXPRESSIONS)
def test_python_operators_mean_what_they_mean_in_numpy(name: str, backend: str) -> None:
    a, b = images(3, *IMAGE), images(3, *IMAGE, seed=1)
    expected = EXPRESSIONS[name](a.astype(np.float64), b.astype(np.float64))
    found = outputs(expressed(name), a, b, backend=backend)[0]
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= RELATIVE * np.abs(expected).max()


@pytest.mark.parametrize("name", [name for name in EXPRESSIONS if name != "backwards"])  # torch has no such
def test_keras_opens_python_operators(name: str, tmp_path: Path) -> None:
    import keras

    model = expressed(name)
    model.save(tmp_path / "net.keras")
    a, b = images(2, *IMAGE), images(2, *IMAGE, seed=1)
    mine = outputs(model, a, b)
    theirs = keras.models.load_model(tmp_path / "net.keras")([a, b])
    for found, other in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(found, keras.ops.convert_to_numpy(other), atol=1e-5, rtol=1e-5)
    again = cl.load(tmp_path / "net.keras")
    assert all(np.array_equal(p, q) for p, q in zip(mine, outputs(again, a, b), strict=True))
    assert json.loads(again.to_json()) == json.loads(model.to_json())


def test_operations_are_called_like_layers() -> None:
    x = cl.Input(IMAGE)
    joined = OPERATIONS["Concatenate"](axis=-1)([x, OPERATIONS["Mean"](axis=(1, 2), keepdims=True)(x) + x])  # type: ignore[call-arg]
    first, *rest = OPERATIONS["Split"](3, axis=2)(joined)  # type: ignore[arg-type, call-arg]
    assert [part.shape for part in (joined, first, *rest)] == [(None, 4, 6, 6), *[(None, 4, 2, 6)] * 3]
    assert type(joined.node.block).__name__ == "Concatenate"
    assert joined.node.block.name.startswith("concatenate")  # numbered on where other tests made some


# -- files of Keras 3 ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("case", OPERATION_CASES)
def test_a_file_is_written_as_it_was_read(case: str) -> None:
    text = CASES[case]["json"].tobytes()
    model = cl.loads(text)
    assert json.loads(model.to_json()) == json.loads(text)


@pytest.mark.parametrize("case", OPERATION_CASES)
def test_keras_reads_nodes_written_anew(case: str) -> None:
    """Without what the file said, every node is made from the operation itself."""
    import keras

    model = cl.loads(CASES[case]["json"].tobytes())
    model.written = None
    for call in model.network:
        call.written = call.block.written = None
    inputs = numbered(case, "x")
    result = keras.models.model_from_json(model.to_json())(inputs if len(inputs) > 1 else inputs[0])
    results = result if isinstance(result, list | tuple) else [result]
    for found, expected in zip(results, numbered(case, "y"), strict=True):
        value, wide = keras.ops.convert_to_numpy(found), expected.astype(np.float64)
        assert value.dtype == expected.dtype
        assert np.abs(value - wide).max() <= RELATIVE * np.abs(wide).max()


def operation(class_name: str, name: str, *args: Any, module: str = "numpy", **config: Any) -> Json:
    """An entry of Keras 3; strings among the arguments are layers."""
    node = {"args": [tensor(a) if isinstance(a, str) else a for a in args], "kwargs": {}}
    return layer(class_name, name, node, **config) | {
        "module": f"keras.src.ops.{module}",
        "registered_name": class_name,
    }


def test_unknown_operations_are_refused_by_name_all_together() -> None:
    text = functional(
        entry(4),
        operation("FloorDivide", "f", "x", 2),
        operation("Erfinv", "e", "f", module="math"),
        layer("TFOpLambda", "t", ["e", 0, 0, {}], function="image.per_image_standardization"),  # type: ignore[arg-type]
        operation("Relu", "r", "t"),  # of another module than its own
        layer("Dense", "d", {"args": [tensor("r")], "kwargs": {}}, units=2),
    )
    with pytest.raises(cl.UnsupportedLayerError) as caught:
        cl.loads(text)
    found = str(caught.value)
    assert "4 layer(s) are not supported" in found
    for name in ("'FloorDivide'", "'Erfinv'", "'image.per_image_standardization'", "'Relu'"):
        assert f"operation {name}" in found


def image_resize(name: str, **config: Any) -> Json:
    return operation("Resize", "m", name, module="image", **config)


@pytest.mark.parametrize(
    ("entry_", "text"),
    [
        (operation("Mean", "m", "x", axis=None, keepdims=False), "works along all axes, the batch too"),
        (operation("Mean", "m", "x", axis=[0]), "axis 0 is not one of 1 to 3; the batch, axis 0, is left"),
        (operation("Sum", "m", "x", axis=[1, -3]), "names an axis twice: (1, -3)"),
        (operation("Mean", "m", "x", axis=1, where=3), "Mean with where=3 is not supported"),
        (operation("Add", "m", "x"), "takes the arguments x1, x2; x2 is missing"),
        (operation("Add", "m", "x", 1.0, 2.0), "takes 2 argument(s) (x1, x2), got 3"),
        (operation("Add", "m", 1.0, 2.0), "at least one symbolic tensor"),
        (operation("Add", "m", "x", "y"), "4 and 2 axes, so that a batch would meet another axis"),
        (operation("Add", "m", "x", {"class_name": "__lambda__"}), "serialized Python function"),
        (operation("Add", "m", "x", {"class_name": "Lambda", "config": {}}), "must be a tensor or a plain"),
        (operation("Power", "m", "x", 0.3), "the exponent must be a multiple of 1/2 from -64 to 64, got 0.3"),
        (operation("Power", "m", "x", 1e9), "the exponent must be a multiple of 1/2"),
        (operation("Power", "m", -1.0, "x"), "the base must be a tensor or a positive number"),
        (operation("TrueDivide", "m", "x", 0), "can be divided by a number other than 0 only"),
        (operation("Matmul", "m", "x", 2.0), "Matmul 'm': takes a symbolic tensor, got '2.0'"),
        (operation("Matmul", "m", "x", "y"), "Matmul 'm': takes two values (N, ..., rows, columns) of one"),
        (operation("Matmul", "m", "x", "x"), "Matmul 'm': a product of float32[N,4,6,3] and float32[N,4,6,3"),
        (image_resize("y", size=[2, 2]), "Resize 'm': takes an image (N, height, width, channels), found"),
        (image_resize("x", size=[2]), "size must be an integer or a pair (height, width), got [2]"),
        (image_resize("x", size=2, interpolation="area"), "interpolation must be 'nearest' or 'bilinear'"),
        (
            image_resize("x", size=2, crop_to_aspect_ratio=True, pad_to_aspect_ratio=True),
            "Resize 'm': takes crop_to_aspect_ratio or pad_to_aspect_ratio, not both",
        ),
        (operation("Reshape", "m", "x", newshape=[-1, 7]), "72 elements a sample, the shape (-1, 7)"),
        (operation("Reshape", "m", "x", newshape=[2, 36]), "the first axis must be the batch, -1"),
        (operation("Transpose", "m", "x", axes=None), "leave the batch first, got (3, 2, 1, 0)"),
        (operation("Transpose", "m", "x", axes=[0, 1, 2, 7]), "axes must be of 0 to 3, got (0, 1, 2, 7)"),
        (operation("Squeeze", "m", "x", axis=1), "axis 1 of float32[N,4,6,3] is not of size 1"),
        (operation("Split", "m", "x", indices_or_sections=4, axis=2), "cannot cut 6 into 4 equal parts"),
        (operation("Split", "m", "x", indices_or_sections=[4, 2], axis=2), "the indices must grow"),
        (operation("Pad", "m", "x", pad_width=[[1, 1]]), "pad_width must be ((0, 0), (before, after), ...)"),
        (operation("Repeat", "m", "x", repeats=2, axis=None), "without an axis the batch goes too"),
        (operation("GetItem", "m", "x", 0), "the first index must be a whole slice"),
        (operation("GetItem", "m", "x", {"class_name": "__slice__", "config": {"start": 1.5}}), "whole numb"),
        (operation("GetItem", "m", "x"), "key is missing"),
        (operation("Stack", "m", [tensor("x"), tensor("y")], axis=1), "takes tensors of one shape"),
        (operation("Normalize", "m", "x", order=3, module="nn"), "order must be 1 or 2, got 3"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_wrong_nodes_are_named(entry_: Json, text: str) -> None:
    first, second = entry(*IMAGE), entry(5, name="y")
    data = functional(
        first, second, entry_, inputs=[["x", 0, 0], ["y", 0, 0]], output=[["m", 0, 0], ["y", 0, 0]]
    )
    with pytest.raises(cl.ConvLoomError) as caught:
        cl.loads(data)
    assert text in str(caught.value)
    assert "Lambda" in text or "layers[2] 'm'" in str(caught.value) or "Python function" in text


# -- files of Keras 2 ----------------------------------------------------------------------------------------
def whole(start: int | None = None, stop: int | None = None, step: int | None = None) -> Json:
    return {"start": start, "stop": stop, "step": step}


OLDER: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "__operators__.add": ({"y": ["x", 0, 0]}, lambda x: x + x),
    "math.subtract": ({"y": 1.5}, lambda x: x - 1.5),
    "__operators__.mul": ({"y": ["x", 0, 0]}, lambda x: x * x),
    "math.truediv": ({"y": 4.0}, lambda x: x / 4),
    "math.pow": ({"y": 3}, lambda x: x**3),
    "math.maximum": ({"y": 0.5}, lambda x: x.clamp(min=0.5)),
    "math.minimum": ({"y": 0.5}, lambda x: x.clamp(max=0.5)),
    "__operators__.neg": ({}, lambda x: -x),
    "math.abs": ({}, torch.abs),
    "math.square": ({}, lambda x: x * x),
    "math.exp": ({}, torch.exp),
    "math.tanh": ({}, torch.tanh),
    "clip_by_value": ({"clip_value_min": -0.5, "clip_value_max": 1.0}, lambda x: x.clamp(-0.5, 1)),
    "math.reduce_mean": ({"axis": [1, 2], "keepdims": True}, lambda x: x.mean((1, 2), keepdim=True)),
    "math.reduce_sum": ({"axis": -1}, lambda x: x.sum(-1)),
    "math.reduce_max": ({"axis": 1}, lambda x: x.amax(1)),
    "math.reduce_min": ({"axis": [1, 2]}, lambda x: x.amin((1, 2))),
    "concat": (
        [["x", 0, 0, {"axis": -1}], ["x", 0, 0, {"axis": -1}]],
        lambda x: torch.cat([x, x], -1),
    ),
    "stack": ([["x", 0, 0, {"axis": 1}], ["x", 0, 0, {"axis": 1}]], lambda x: torch.stack([x, x], 1)),
    "split": ({"num_or_size_splits": [2, 3, 1], "axis": 2}, lambda x: x[:, :, :2]),
    "reshape": ({"shape": [-1, 12, 6]}, lambda x: x.reshape(-1, 12, 6)),
    "transpose": ({"perm": [0, 2, 1, 3]}, lambda x: x.transpose(1, 2)),
    "pad": (
        {"paddings": [[0, 0], [1, 0], [0, 2], [0, 0]], "mode": "CONSTANT", "constant_values": 0},
        lambda x: torch.nn.functional.pad(x, (0, 0, 0, 2, 1, 0)),
    ),
    "expand_dims": ({"axis": 1}, lambda x: x[:, None]),
    "reverse": ({"axis": [1]}, lambda x: x.flip(1)),
    "repeat": ({"repeats": 2, "axis": 1}, lambda x: x.repeat_interleave(2, 1)),
    "__operators__.getitem": (
        {"slice_spec": [whole(), whole(1, 3), whole(step=2), 0]},
        lambda x: x[:, 1:3, ::2, 0],
    ),
    "nn.relu": ({}, torch.relu),
    "nn.relu6": ({}, lambda x: x.clamp(0, 6)),
    "nn.leaky_relu": ({"alpha": 0.1}, lambda x: torch.nn.functional.leaky_relu(x, 0.1)),
    "nn.elu": ({}, torch.nn.functional.elu),
    "nn.selu": ({}, torch.selu),
    "nn.silu": ({"beta": None}, torch.nn.functional.silu),
    "nn.gelu": ({}, torch.nn.functional.gelu),
    "nn.sigmoid": ({}, torch.sigmoid),
    "math.softplus": ({}, torch.nn.functional.softplus),
    "nn.softmax": ({"axis": -1}, lambda x: torch.softmax(x, -1)),
    "nn.log_softmax": ({"axis": -1}, lambda x: torch.log_softmax(x, -1)),
    "image.resize": (
        {"size": [7, 5], "method": "bilinear"},
        lambda x: torch.nn.functional.interpolate(x.movedim(-1, 1), (7, 5), mode="bilinear").movedim(1, -1),
    ),
    "math.l2_normalize": ({"axis": -1}, lambda x: x / x.norm(dim=-1, keepdim=True)),
}


def older(function: str, said: Any) -> Json:
    class_name = "SlicingOpLambda" if function.endswith("getitem") else "TFOpLambda"
    node = ["x", 0, 0, {**said, "name": None}] if isinstance(said, dict) else said
    made = layer(class_name, "t", node, function=function, trainable=True, dtype="float32")  # type: ignore[arg-type]
    return functional(entry(*IMAGE), made | {"module": "keras.layers"})


@pytest.mark.parametrize("function", OLDER)
def test_functions_of_keras_2(function: str, tmp_path: Path) -> None:
    said, expected = OLDER[function]
    model = cl.loads(older(function, said))
    x = images(2, *IMAGE)
    value = expected(torch.from_numpy(x).double()).numpy()
    assert np.abs(outputs(model, x)[0] - value).max() <= RELATIVE * np.abs(value).max()
    model.save(tmp_path / "net.keras")  # as Keras 3's operation
    again = cl.load(tmp_path / "net.keras")
    assert np.array_equal(outputs(again, x)[0], outputs(model, x)[0])


def test_every_function_leads_to_an_operation_and_its_arguments() -> None:
    for function in FUNCTIONS.values():
        operation = OPERATIONS[function.operation]
        known = {name.rstrip("?") for name in operation.operands} | set(operation.__dataclass_fields__)
        assert {*function.renamed.values(), *function.converted, *function.defaults} <= known


def test_a_function_with_an_argument_unknown_here_is_refused() -> None:
    with pytest.raises(cl.UnsupportedLayerError, match=r"Silu with beta=2\.0 is not supported"):
        cl.loads(older("nn.silu", {"beta": 2.0}))


# -- training ------------------------------------------------------------------------------------------------
def trained() -> cl.Model:
    """Weights in front of all that bends, moves, joins and sums."""
    x = cl.Input((6, 4, 3), name="x")
    h = L.Conv2D(4, 3, padding="same", name="conv")(x)
    parts = OPERATIONS["Split"](2, axis=-1)(h)  # type: ignore[arg-type, call-arg]
    h = parts[0] * 2 - parts[1][:, ::-1] / (abs(parts[0]) + 1.0)
    h = OPERATIONS["Concatenate"](axis=-1)([h[:, ::2], h[:, 1::2] ** 2, OPERATIONS["Clip"](-1, 1)(h)[:, :3]])  # type: ignore[arg-type, call-arg]
    h = h * OPERATIONS["Mean"](axis=(1, 2), keepdims=True)(h) + OPERATIONS["Max"](axis=1, keepdims=True)(h)  # type: ignore[call-arg]
    h = OPERATIONS["Normalize"]()(OPERATIONS["Stack"](axis=1)([h, 1 - h]))  # type: ignore[call-arg]
    return cl.Model(x, L.Dense(2, name="dense")(L.Flatten()(h)))


def by_torch(x: torch.Tensor, *weights: torch.Tensor) -> Any:
    kernel, bias, w, b = weights
    h = torch.nn.functional.conv2d(x.permute(0, 3, 1, 2), kernel.permute(3, 2, 0, 1), bias, padding=1)
    h = h.permute(0, 2, 3, 1)
    p, q = h[..., :2], h[..., 2:]
    h = p * 2 - q.flip(1) / (p.abs() + 1)
    h = torch.cat([h[:, ::2], h[:, 1::2] ** 2, h.clamp(-1, 1)[:, :3]], -1)
    h = h * h.mean((1, 2), keepdim=True) + h.amax(1, keepdim=True)
    h = torch.stack([h, 1 - h], 1)
    h = h / (h * h).sum(-1, keepdim=True).clamp(min=1e-14).sqrt()
    return h.flatten(1) @ w + b


@pytest.mark.parametrize(("backend", "fuse"), [("aten", True), ("aten", False), ("triton", True)])
def test_gradients_are_those_of_torch(backend: str, fuse: bool) -> None:
    model = trained()
    net = cl.compile(model, device="cpu", backend=backend, fuse=fuse).train()
    x = torch.from_numpy(images(3, 6, 4, 3))
    net(x).square().sum().backward()
    weights = [torch.from_numpy(w).double().requires_grad_() for w in model.get_weights()]
    by_torch(x.double(), *weights).square().sum().backward()
    for parameter, weight in zip(net.parameters(), weights, strict=True):
        found, expected = parameter.grad, weight.grad
        assert found is not None
        assert expected is not None
        assert float((found - expected).abs().max()) <= 64 * RELATIVE * float(expected.abs().max())


def test_a_network_of_operations_learns() -> None:
    x = images(64, 6, 4, 3)
    y = np.stack([x.mean((1, 2, 3)), np.abs(x).mean((1, 2, 3))], 1)
    net = cl.compile(trained(), device="cpu")
    history = cl.fit(net, (x, y), loss="mse", epochs=8, batch_size=16, seed=0, verbose=False)
    assert history.history["loss"][-1] < 0.5 * history.history["loss"][0]


# -- fusion --------------------------------------------------------------------------------------------------
def kernels(describe: Callable[[Any], Any]) -> int:
    x = cl.Input((8, 8, 4))
    return len(cl.compile(cl.Model(x, describe(L.Conv2D(4, 3, padding="same")(x))), device="cpu").kernels)


def test_operations_join_the_kernel_before_them() -> None:
    assert kernels(lambda h: abs(h * 2 + 1) ** 2 / 3) == 1
    assert kernels(lambda h: OPERATIONS["Clip"](0, 6)(h + 3) / 6) == 1  # type: ignore[arg-type, call-arg]
    assert kernels(lambda h: OPERATIONS["Gelu"]()(h)) == 1
    assert kernels(lambda h: OPERATIONS["MaxPool"](2)(OPERATIONS["Relu"]()(h))) == 1  # type: ignore[arg-type, call-arg]
