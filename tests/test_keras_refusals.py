"""Descriptions that are wrong or not supported: what the errors say, and where."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable

import pytest
from convloom.frontends import loads
from convloom.frontends.keras.limits import Limits
from convloom.graph.errors import ConvLoomError, ModelFormatError, UnsafeModelError, UnsupportedLayerError
from keras_dialects import Json, called, conv, entry, functional, layer, simple


# -- wrong descriptions --------------------------------------------------------------------------------------
def cyclic() -> Json:
    return functional(
        [
            entry(4),
            layer("Add", "a", [called("x", "b")]),
            layer("ReLU", "b", [called("c")]),
            layer("ReLU", "c", [called("a")]),
        ],
        ["c", 0, 0],
    )


def test_a_cycle_is_shown() -> None:
    with pytest.raises(
        ModelFormatError, match=r"^config: the layers form a cycle: 'a' <- 'b' <- 'c' <- 'a'$"
    ):
        loads(json.dumps(cyclic()))


def test_all_unsupported_layers_are_reported_together() -> None:
    data = simple(
        layer("LSTM", "deep"),
        layer("Dense", "fine", units=2),
        layer("ReLU", "mine") | {"module": "my.package", "registered_name": "my>ReLU"},
        layer("Activation", "act", activation="mystery"),
    )
    with pytest.raises(UnsupportedLayerError) as caught:
        loads(data)
    text = str(caught.value)
    assert text.startswith("3 layer(s) are not supported by ConvLoom: layers[1] 'deep': class 'LSTM'; ")
    assert "layers[3] 'mine': class 'ReLU' of module 'my.package'" in text
    assert "layers[4] 'act': Activation 'act': activation 'mystery' is not a known activation" in text
    assert "fine" not in text


@pytest.mark.parametrize("class_name", ["Lambda", "TFSMLayer", "TorchModuleWrapper", "StringLookup"])
def test_layers_that_carry_code_are_refused(class_name: str) -> None:
    with pytest.raises(
        UnsafeModelError, match=rf"never runs or opens: layers\[1\] 'f': {class_name}; replace"
    ):
        loads(simple(layer(class_name, "f", function=["4wEAAAAA", None, None])))


def test_code_is_refused_wherever_it_hides() -> None:
    hidden = {"class_name": "__lambda__", "config": {"code": "4wEAAAAA"}}
    with pytest.raises(UnsafeModelError, match="serialized Python function"):
        loads(simple(layer("Dense", "d", units=2, kernel_regularizer={"config": [hidden]})))


def changed(change: Callable[[list[Json], Json], object]) -> Json:
    """A small valid network with one thing changed."""
    layers = [entry(6, 5, 3), conv("c", [called("x")]), layer("Add", "a", [called("c", "x")])]
    data = functional(layers, ["a", 0, 0])
    loads(copy.deepcopy(data))
    change(data["config"]["layers"], data["config"])
    return data


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            lambda ls, c: ls[1]["config"].update(strides=0),
            "layers[1] 'c': Conv2D 'c': strides must be positive integers, got 0",
        ),
        (
            lambda ls, c: ls[1]["config"].update(kernel_size="3"),
            "layers[1] 'c': Conv2D 'c': kernel_size must be",
        ),
        (
            lambda ls, c: ls[1]["config"].pop("filters"),
            "layers[1] 'c': Conv2D 'c': needs the argument 'filters'",
        ),
        (
            lambda ls, c: ls[1]["config"].update(magic=3),
            "layers[1] 'c': Conv2D with magic=3 is not supported",
        ),
        (
            lambda ls, c: ls[1].update(inbound_nodes=[called("y")]),
            "layers[1] 'c': inbound_nodes[0]: refers to a layer 'y', which the model does not have",
        ),
        (
            lambda ls, c: ls[1].update(inbound_nodes=[called(("x", 1))]),
            "inbound_nodes[0]: refers to call 1 of 'x', which has 1 call(s)",
        ),
        (
            lambda ls, c: ls[1].update(inbound_nodes=[called(("x", -1))]),
            "inbound_nodes[0]: an index must be an integer from 0 on, found -1",
        ),
        (
            lambda ls, c: ls[1].update(inbound_nodes=[]),
            "layers[2] 'a': inbound_nodes[0]: refers to call 0 of 'c', which has 0 call(s)",
        ),
        (
            lambda ls, c: ls[1].update(inbound_nodes={"a": 1}),
            "layers[1] 'c': inbound_nodes: must be a list, found {'a': 1}",
        ),
        (
            lambda ls, c: ls[1].update(inbound_nodes=[{"kwargs": {}}]),
            "layers[1] 'c': inbound_nodes[0]: args must be a list, found nothing",
        ),
        (
            lambda ls, c: ls[1]["inbound_nodes"][0].update(kwargs={"training": True}),
            "layers[1] 'c': inbound_nodes[0]: called with training=True, which is not supported",
        ),
        (lambda ls, c: ls[1].update(config=None), "layers[1]: config must be an object, found nothing"),
        (lambda ls, c: ls[1].update(name="x"), "layers[1] 'x': the name stands already at layers[0] 'x'"),
        (
            lambda ls, c: ls[0]["config"].update(batch_shape=[None, 6, 5, 4]),
            "layers[2] 'a': Add 'a': shapes float32[N,6,5,3] and float32[N,6,5,4] do not broadcast",
        ),
        (
            lambda ls, c: c.update(output_layers=[]),
            "config: output_layers: must name at least one tensor as [layer, node, tensor], found []",
        ),
        (
            lambda ls, c: c.update(output_layers=["a", 0, 1]),
            "config: output_layers: refers to output 1 of 'a', which has 1",
        ),
        (lambda ls, c: c.update(layers=7), "config: layers must be a list, found 7"),
    ],
)
def test_wrong_entries_are_named_by_place(change: Callable[[list[Json], Json], object], text: str) -> None:
    with pytest.raises(ConvLoomError) as caught:
        loads(changed(change))
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"class_name": "Seq', "JSON: not JSON: Unterminated string starting at at line 1, column 16"),
        ("[1, 2]", "model: must be an object with class_name and config, found [1, 2]"),
        ('{"class_name": "Model"}', "model: config must be an object, found nothing"),
        ('{"a": NaN}', "JSON: holds NaN; numbers must be finite"),
        ('{"a": -Infinity}', "JSON: holds -Infinity; numbers must be finite"),
        ('{"a": 1e999}', "JSON: a: holds the number inf; numbers must be finite"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "JSON: the key 'c' stands twice in one object"),
        ('{"a": ' + "9" * 6000 + "}", "JSON: holds a number of 6000 digits"),
        ("[" * 100_000, "JSON: character 200: 201 levels of nesting; at most 200 are read"),
        (b"\xff{}", "JSON: not UTF-8 text: byte 0"),
    ],
)
def test_malformed_json_is_refused(text: str | bytes, message: str) -> None:
    with pytest.raises(ConvLoomError) as caught:
        loads(text)
    assert message in str(caught.value)


def test_a_dictionary_that_holds_itself_is_refused() -> None:
    data: Json = {}
    data["config"] = data
    with pytest.raises(ModelFormatError, match="201 levels of nesting; at most 200 are read"):
        loads(data)


def test_long_texts_are_refused_before_they_are_parsed() -> None:
    with pytest.raises(ModelFormatError, match=r"101 bytes of JSON; at most 100 .*Limits\(json_bytes="):
        loads(" " * 101, limits=Limits(json_bytes=100))


def test_custom_model_classes_are_refused() -> None:
    with pytest.raises(UnsupportedLayerError, match="class 'MyModel' is neither Functional nor Sequential"):
        loads({"class_name": "MyModel", "config": {}})
