"""What ConvLoom writes, it reads back: models, weights, and graphs as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from convloom.frontends.graph_model import GraphModel
from convloom.graph.errors import (
    CompileError,
    ConvLoomError,
    ModelFormatError,
    ShapeError,
    UnsupportedLayerError,
)
from convloom.graph.serial import FORMAT, to_json
from graphs import lenet
from keras_dialects import DATA, LENET5
from keras_networks import NETWORKS, outputs, randomised, samples

import convloom as cl
from convloom import layers as L
from convloom.cli import main

LENET, WEIGHTS = LENET5 / "lenet5.json", LENET5 / "lenet5.weights.h5"


def convert(*arguments: object) -> None:
    assert main(["convert", *map(str, arguments)]) == 0


# -- every form it writes ------------------------------------------------------------------------------------
@pytest.mark.parametrize("network", NETWORKS)
def test_everything_written_is_read_back(network: Any, tmp_path: Path) -> None:
    model = randomised(network())
    model.save(tmp_path / "net.keras")
    model.save_weights(tmp_path / "net.weights.h5")
    (tmp_path / "net.json").write_text(model.to_json())
    (tmp_path / "direct.json").write_text(to_json(model.to_graph()))
    np.savez(tmp_path / "direct.npz", **{name: w.numpy() for name, w in model.parameters.items()})  # type: ignore[arg-type]
    for name in ("graph.json", "again.keras", "again.weights.h5", "w.npz"):
        convert(tmp_path / "net.keras", "-o", tmp_path / name)
    convert(tmp_path / "net.keras", "-o", tmp_path / "passes.json", "--passes")
    expected = outputs(model, *samples(model))
    for name, weights in {
        "net.keras": None,
        "again.keras": "w.npz",
        "net.json": "net.weights.h5",
        "graph.json": "w.npz",
        "direct.json": "direct.npz",
        "passes.json": "w.npz",
    }.items():
        again = cl.load(tmp_path / name, weights=weights and tmp_path / weights)
        for mine, theirs in zip(expected, outputs(again, *samples(model)), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("name", ["x.onnx", "x", "x.h5", "x.pt", ".keras.bak", "x.JSON"])
def test_convert_refuses_an_ending_it_has_no_form_for(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", str(LENET), "-o", str(tmp_path / name)]) == 2
    shown = capsys.readouterr().err
    assert f"convert writes .json, .txt, .keras, .weights.h5 or .npz, not {name!r}" in shown
    assert not list(tmp_path.iterdir())


def test_the_text_of_a_graph_says_what_it_is(tmp_path: Path) -> None:
    convert(LENET, "-o", tmp_path / "net.txt")
    with pytest.raises(
        ModelFormatError, match=r"net\.txt: this is ConvLoom's graph as text, .* to \.json"
    ):
        cl.load(tmp_path / "net.txt")


# -- a graph as a model --------------------------------------------------------------------------------------
@pytest.fixture
def graph_file(tmp_path: Path) -> Path:
    convert(LENET, "-o", tmp_path / "graph.json")
    convert(LENET, "--weights", WEIGHTS, "-o", tmp_path / "w.npz")
    return tmp_path / "graph.json"


def test_a_graph_computes_what_its_model_does(graph_file: Path) -> None:
    model = cl.load(graph_file, weights=graph_file.with_name("w.npz"))
    stored = LENET5 / "lenet5_io.npz"
    assert cl.check(model, stored).relative < 1e-4
    assert cl.load(graph_file, weights=graph_file.with_name("w.npz"), check=stored).check_report is not None
    original = cl.load(LENET, weights=WEIGHTS)
    assert str(model.to_graph()) == str(original.to_graph())
    assert list(model.parameters) == list(original.parameters)
    assert model.count_params() == original.count_params()
    lines: list[str] = []
    model.summary(print_fn=lines.append)
    assert "lenet5 (GraphModel)" in lines[0]


def test_a_graph_is_trained_emitted_and_profiled(graph_file: Path, tmp_path: Path) -> None:
    model = cl.load(graph_file)
    net = cl.compile(model, device="cpu", backend="aten")
    random = np.random.default_rng(0)
    data = random.uniform(size=(16, 28, 28, 1)).astype("float32"), np.arange(16) % 10
    history = cl.fit(net, data, "sparse_categorical_crossentropy", "adam", epochs=3, seed=1, verbose=False)
    assert history.history["loss"][-1] < history.history["loss"][0]
    assert len(cl.emit(model, tmp_path / "kernels")) > 5
    assert "lenet5" in str(cl.profile(model, batch_size=1, device="cpu", repeats=1))
    for command in ("summary", "explain"):
        assert main([command, str(graph_file)]) == 0


def test_a_training_step_is_read_and_not_compiled(tmp_path: Path) -> None:
    x = cl.Input((6, 5, 3), name="x")
    y = L.Dropout(0.5)(L.BatchNormalization(name="n")(L.Conv2D(2, 3, name="c")(x)))
    cl.Model(x, L.ReLU(6.0)(y), name="net").save(tmp_path / "net.keras")
    convert(tmp_path / "net.keras", "-o", tmp_path / "step.json", "--training")
    model = cl.load(tmp_path / "step.json")
    assert isinstance(model, GraphModel)
    assert any(node.phase == "backward" for node in model.graph.nodes())
    with pytest.raises(CompileError, match="graph net: holds a training step already"):
        cl.compile(model, device="cpu")(np.zeros((1, 6, 5, 3), "f4"))


def test_what_a_graph_cannot_do(graph_file: Path, tmp_path: Path) -> None:
    model = cl.load(graph_file)
    for call, text in {
        model.to_json: "Keras has no words for single ops; save the model that it was made from",
        (lambda: model.save(tmp_path / "a.keras")): "Keras has no words for single ops",
        (lambda: model.save_weights(tmp_path / "a.weights.h5")): "Keras keeps weights by layers",
        (lambda: model(cl.Input((28, 28, 1)))): "it cannot be part of another model",
    }.items():
        with pytest.raises(UnsupportedLayerError, match=f"Graph 'lenet5': is a graph of single ops: {text}"):
            call()  # type: ignore[operator]
    for weights in (WEIGHTS, DATA / "small_mobile.keras"):
        with pytest.raises(
            ModelFormatError, match="Graph 'lenet5' takes weights by their names, as"
        ):
            cl.load(graph_file, weights=weights)
    with pytest.raises(ShapeError, match="is a graph, whose sizes are settled"):
        cl.load(graph_file, input_shape=(32, 32, 1))


def test_numbers_that_json_does_not_have() -> None:
    x = cl.Input((4,), name="x")
    text = to_json(cl.Model(x, L.ReLU(max_value=6.0)(x)).to_graph())
    assert "Infinity" not in text
    text = to_json(lenet()).replace('"op": "relu"', '"op": "clip", "low": "-inf", "high": 6.0')
    assert "Infinity" not in to_json(cl.loads(text).to_graph())


# -- graphs of strangers -------------------------------------------------------------------------------------
CODE = "__import__('os').system('true')"


def graph(**op: Any) -> dict[str, Any]:
    nodes = [
        {"name": "x", "inputs": [], "layer": "x", "phase": "forward", "op": "input", "shape": ["N", 3]},
        {"name": "y", "inputs": ["x"], "layer": "y", "phase": "forward", **op},
    ]
    return {"format": FORMAT, "name": "g", "nodes": nodes, "outputs": {"y": "y"}, "updates": []}


@pytest.mark.parametrize(
    ("op", "text"),
    [
        ({"op": "leaky_relu", "slope": CODE}, "is malformed in graph JSON: .* is no float"),
        ({"op": "leaky_relu", "slope": [0.1]}, "is no float"),
        ({"op": "leaky_relu", "slope": True}, "is no float"),
        ({"op": "reduce", "axes": CODE}, "is no tuple"),
        ({"op": "reduce", "axes": [CODE]}, "is no int"),
        ({"op": "reduce", "axes": [2**70]}, "bits in a whole number"),
        ({"op": "cast", "dtype": CODE}, "is no str"),
        ({"op": "cast", "dtype": "float128"}, "."),
        (
            {"op": "resize", "axes": [1], "sizes": [2], "method": f"nearest\n{CODE}", "antialias": False},
            "is no str",
        ),
        ({"op": "activation_grad", "activation": {"op": "relu", "slope": 1}}, "has no attribute"),
        ({"op": "activation_grad", "activation": {"op": "dense"}}, "is no Activation"),
        ({"op": "in_training", "refusal": "a\x1b[31m"}, "malformed"),
        ({"op": "slice", "starts": [0, 0], "stops": ["N", 2**61]}, "."),
        ({"op": "broadcast_to", "shape": ["N", 2**40, 3]}, "do not broadcast together"),
        ({"op": "pad", "padding": [[0, 2**60]], "value": 0.0}, "elements in one sample"),
        ({"op": "relu", "name": "a\nb"}, "a name is printable text, found 'a\\\\nb'"),
        ({"op": "relu", "layer": "\x1b[31m"}, "a name is printable text"),
        ({"op": "relu", "inputs": ["y"]}, "operand 'y' is not in the graph"),
        ({"op": "parameter", "inputs": [], "shape": [2**30, 2**30]}, "elements in one sample|weights so far"),
        ({"op": "input", "inputs": [], "shape": ["N", 2**62]}, "."),
        ({"op": "input", "inputs": [], "shape": [3]}, "must have the batch as first axis"),
        ({"op": "conv2d", "strides": [0, 0]}, "."),
        ({"op": "reshape", "shape": [0], "batched": True}, "."),
    ],
)
def test_a_crafted_graph_is_refused(op: dict[str, Any], text: str, tmp_path: Path) -> None:
    path = tmp_path / "g.json"
    path.write_text(json.dumps(graph(**op)))
    with pytest.raises(ConvLoomError, match=text) as caught:
        cl.load(path)
    assert str(caught.value).isprintable()


def test_a_graph_without_outputs_or_inputs() -> None:
    data = graph(op="relu")
    with pytest.raises(ModelFormatError, match="Graph 'g': has 1 inputs and 0 outputs"):
        cl.loads(data | {"outputs": {}})
    cl.loads(data)
    assert data == graph(op="relu")


def test_limits_hold_for_graphs() -> None:
    text = to_json(lenet())
    for limits in ({"nodes": 3}, {"parameters": 100}, {"tensor_elements": 100}, {"total_elements": 1000}):
        with pytest.raises(ModelFormatError, match=rf"Limits\({next(iter(limits))}="):
            cl.loads(text, limits=cl.Limits(**limits))
