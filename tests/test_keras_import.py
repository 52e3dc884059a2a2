"""Files that Keras saved: values equal to Keras's own, and both dialects."""

from __future__ import annotations

import copy
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from convloom.frontends import Sequential, load, loads
from convloom.frontends import layers as L
from convloom.frontends.regularizers import L2
from convloom.graph.errors import ConvLoomError
from keras_dialects import DATA, LENET5, Json, called, conv, entry, functional, keras3, layer, outputs, simple


# -- values --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("description", "folder", "stem", "parameters"),
    [
        (LENET5 / "lenet5.json", LENET5, "lenet5", 61_706),
        (DATA / "lenet5_keras2.json", LENET5, "lenet5", 61_706),
        (DATA / "tiny_resnet.json", DATA, "tiny_resnet", 3_957),
    ],
    ids=lambda value: value.name if isinstance(value, Path) else str(value),
)
def test_outputs_equal_those_keras_stored(
    description: Path, folder: Path, stem: str, parameters: int
) -> None:
    model = load(description, weights=folder / f"{stem}.weights.h5")
    stored = np.load(folder / f"{stem}_io.npz")
    assert model.count_params() == parameters
    np.testing.assert_allclose(outputs(model, stored["x"])[0], stored["y"], atol=1e-5)


def test_names_and_layers_are_those_of_the_file() -> None:
    model = load(LENET5 / "lenet5.json")
    assert isinstance(model, Sequential)
    assert [block.name for block in model.layers] == ["c1", "s2", "c3", "s4", "flatten", "c5", "f6", "output"]
    assert model.inputs[0].node.block.name == "image"
    assert list(model.parameters)[:2] == ["c1/kernel", "c1/bias"]


def test_text_bytes_and_parsed_json_are_the_same() -> None:
    text = (DATA / "tiny_resnet.json").read_text()
    graphs = {str(loads(form).to_graph()) for form in (text, text.encode(), json.loads(text))}
    assert len(graphs) == 1


def test_archive_holds_description_and_weights(tmp_path: Path) -> None:
    path = tmp_path / "net.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", (LENET5 / "lenet5.json").read_text())
        archive.write(LENET5 / "lenet5.weights.h5", "model.weights.h5")
    stored = np.load(LENET5 / "lenet5_io.npz")
    np.testing.assert_allclose(outputs(load(path), stored["x"])[0], stored["y"], atol=1e-5)


# -- the graph of a file -------------------------------------------------------------------------------------
@pytest.mark.parametrize("dialect", [2, 3])
def test_shared_layers_are_ordered_by_call_not_by_layer(dialect: int) -> None:
    """a(b(a(x))): neither layer can come first."""
    data = functional(
        [
            layer("ReLU", "b", [called("a", dialect=dialect)]),
            conv("a", [called("x", dialect=dialect), called("b", dialect=dialect)]),
            entry(6, 5, 3),
        ],
        ["a", 1, 0],
    )
    graph = loads(data).to_graph()
    assert graph["b"].inputs == ("a",)
    assert graph["a/call_1"].inputs == ("b", "a/kernel", "a/bias")
    assert list(graph.outputs.values()) == ["a/call_1"]


def nested(dialect: int, first: int) -> Json:
    """sub(sub(x)), its calls counted from `first` inside the file."""
    inner = functional(
        [entry(4, name="i"), layer("Dense", "d", [called("i", dialect=dialect)], units=4)],
        ["d", 0, 0],
        ["i", 0, 0],
    )
    sub = inner | {
        "name": "sub",
        "inbound_nodes": [called("x", dialect=dialect), called(("sub", first), dialect=dialect)],
    }
    # Keras 3 counts a Functional among the outputs from 1 even where it counts from 0 elsewhere.
    return functional([entry(4), sub], ["sub", 2, 0])


@pytest.mark.parametrize(("dialect", "first"), [(2, 1), (3, 0)])
def test_nested_models_are_counted_as_each_keras_counts_them(dialect: int, first: int) -> None:
    model = loads(nested(dialect, first))
    assert list(model.parameters) == ["sub/d/kernel", "sub/d/bias"]
    graph = model.to_graph()
    assert graph["sub/call_1/d"].inputs == ("sub/d", "sub/d/kernel", "sub/d/bias")
    assert list(graph.outputs.values()) == ["sub/call_1/d"]


def test_operators_of_keras_3_and_keras_2() -> None:
    def operation(class_name: str, name: str, *args: Any) -> Json:
        node = {"args": list(args), "kwargs": {}}
        return layer(class_name, name, [node]) | {
            "module": "keras.src.ops.numpy",
            "registered_name": class_name,
        }

    def lambda_(function: str, name: str, node: list[Any]) -> Json:
        return layer("TFOpLambda", name, [node], function=function) | {"module": "keras.layers"}

    newer = [
        operation("Multiply", "m", keras3("x"), 3.0),
        operation("Subtract", "s", 1.0, keras3("m")),
        operation("Add", "a", keras3("s"), keras3("x")),
        operation("TrueDivide", "q", keras3("a"), 4.0),
    ]
    older = [
        lambda_("math.multiply", "m", ["x", 0, 0, {"y": 3.0, "name": None}]),
        lambda_("math.subtract", "s", ["_CONSTANT_VALUE", -1, 1.0, {"y": ["m", 0, 0], "name": None}]),
        lambda_("__operators__.add", "a", ["s", 0, 0, {"y": ["x", 0, 0], "name": None}]),
        lambda_("math.truediv", "q", ["a", 0, 0, {"y": 4.0, "name": None}]),
    ]
    x = np.array([[1.0, -2.0, 5.0]], dtype=np.float32)
    for layers in (newer, older):
        model = loads(functional([entry(3), *layers], ["q", 0, 0]))
        np.testing.assert_allclose(outputs(model, x)[0], (1 - 3 * x + x) / 4)
        assert [block.name for block in model.layers] == ["x", "m", "s", "a", "q"]


def test_keras_2_spellings() -> None:
    data = simple(
        layer("BatchNormalization", "n", axis=[3], epsilon=1e-5, fused=None),
        layer("LeakyReLU", "l", alpha=0.25),
        layer(
            "ReLU", "r", max_value={"class_name": "__numpy__", "config": {"value": 6.0, "dtype": "float32"}}
        ),
        conv(
            "c",
            kernel_initializer={"class_name": "HeNormal", "config": {"seed": None}},
            kernel_regularizer={"class_name": "L2", "config": {"l2": 1}},
        ),
    )
    data["config"]["layers"][0]["config"] = {
        "name": "x",
        "batch_input_shape": [None, 6, 5, 3],
        "sparse": False,
    }
    model = loads(data)
    graph = model.to_graph()
    assert graph["n"].op.epsilon == 1e-5  # type: ignore[attr-defined]
    assert graph["l"].op.slope == 0.25  # type: ignore[attr-defined]
    assert graph["r"].op.op_name() == "relu6"
    found = model.get_layer("c")
    assert isinstance(found, L.Conv2D)
    assert found.kernel_initializer == "he_normal"
    assert found.kernel_regularizer == L2(1.0)


def test_sequential_without_input_layer_takes_the_shape_from_where_the_writer_put_it() -> None:
    bare = {"name": "net", "layers": [layer("Dense", "d", units=2)]}
    first = copy.deepcopy(bare)
    first["layers"][0]["config"]["batch_input_shape"] = [None, 3]  # type: ignore[index]
    for config in (first, bare | {"build_input_shape": [None, 3]}):
        assert loads({"class_name": "Sequential", "config": config}).count_params() == 8
    with pytest.raises(ConvLoomError, match=r"Sequential 'net': has no input shape yet"):
        loads({"class_name": "Sequential", "config": bare})
