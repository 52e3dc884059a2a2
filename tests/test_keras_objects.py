"""Objects inside a description: Keras's own in their places, and every other one refused by its name."""

from __future__ import annotations

import json
from typing import Any

import keras
import pytest
from convloom.frontends import loads
from convloom.graph.errors import UnsupportedLayerError
from keras_dialects import Json, conv, layer, simple

import convloom as cl

SYSTEM = {"module": "os", "class_name": "system", "config": {"command": "true"}, "registered_name": None}
MINE = {"module": None, "class_name": "L2", "config": {"l2": 1.0}, "registered_name": "mine>L2"}
FUNCTION = {"module": "builtins", "class_name": "function", "config": "mine", "registered_name": "function"}


def policy(name: str, class_name: str = "DTypePolicy", module: str | None = "keras") -> Json:
    return {"module": module, "class_name": class_name, "config": {"name": name}, "registered_name": None}


@pytest.mark.parametrize(
    "dtype",
    [
        *("float32", "float64", "mixed_bfloat16", None),
        policy("float32"),
        policy("mixed_float16", "Policy", "keras.mixed_precision"),
        policy("mixed_float16", "Policy", None),
        policy("bfloat16", "FloatDTypePolicy", "keras.dtype_policies"),
        policy("float32", "Policy", "tf_keras.mixed_precision"),
    ],
)
def test_dtype_policies_of_keras_are_read(dtype: Any) -> None:
    loads(simple(conv(dtype=dtype)))


@pytest.mark.parametrize(
    ("dtype", "text"),
    [
        (SYSTEM, "'c': dtype is class 'system' of module 'os', which is not among Keras's dtype policies"),
        (policy("float32", module="os"), "class 'DTypePolicy' of module 'os'"),
        (policy("float32", "MyPolicy"), "class 'MyPolicy' of module 'keras'"),
        (policy("float32", "MyPolicy", None), "dtype is class 'MyPolicy'"),
        (policy("float32", module=None) | {"registered_name": "mine>DTypePolicy"}, "as 'mine>DTypePolicy'"),
        (policy("int8_from_float32", "QuantizedDTypePolicy"), "class 'QuantizedDTypePolicy' of module"),
        (policy("int4_from_float32", "Int4DTypePolicy"), "class 'Int4DTypePolicy' of module"),
        (policy("int8"), "dtype is 'int8', which is not among"),
        ("int8_from_float32", "dtype is 'int8_from_float32', which is not among"),
        ("uint8", "dtype is 'uint8', which is not among"),
        (7, "dtype is 7, which is not among"),
        ({"class_name": ["DTypePolicy"], "config": {"name": "float32"}}, "dtype is class ['DTypePolicy']"),
        ({"class_name": "DTypePolicy", "config": "float32"}, "dtype is class 'DTypePolicy'"),
    ],
)
def test_other_dtype_policies_are_refused_by_name(dtype: Any, text: str) -> None:
    with pytest.raises(UnsupportedLayerError) as caught:
        loads(simple(conv(dtype=dtype)))
    assert text in str(caught.value)
    assert "layers[1] 'c'" in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        (
            "kernel_initializer",
            SYSTEM,
            "class 'system' of module 'os', which is not among Keras's initializers",
        ),
        ("kernel_initializer", FUNCTION, "function 'mine', which is not among Keras's initializers"),
        ("bias_initializer", "mine", "'mine', which is not among Keras's initializers"),
        ("kernel_initializer", {"config": {}}, "{'config': {}}, which is no initializer"),
        ("kernel_regularizer", MINE, "kernel_regularizer 'L2', registered as 'mine>L2', is not a known"),
        ("activity_regularizer", SYSTEM, "activity_regularizer 'system' of module 'os' is not a known"),
        ("bias_constraint", SYSTEM, "bias_constraint 'system' of module 'os' is not a known constraint"),
        ("autocast", SYSTEM, "class 'system' of module 'os', which has no meaning there"),
        ("batch_input_shape", [[None, {"a": SYSTEM}]], "class 'system' of module 'os', which has no meaning"),
        (
            "activation",
            {**FUNCTION, "config": "relu", "registered_name": "mine>relu"},
            "registered as 'mine>re",
        ),
        ("activation", {**FUNCTION, "config": "relu", "module": "mine"}, "function 'relu' of module 'mine'"),
    ],
)
def test_foreign_objects_are_refused_by_name(key: str, value: Any, text: str) -> None:
    with pytest.raises(UnsupportedLayerError) as caught:
        loads(simple(conv(**{key: value})))
    assert text in str(caught.value)


def test_objects_beside_the_configuration() -> None:
    with pytest.raises(UnsupportedLayerError, match="'c': build_config holds class 'system' of module 'os'"):
        loads(simple(conv() | {"build_config": {"input_shape": SYSTEM}}))
    data = simple(conv())
    data["config"]["dtype"] = SYSTEM
    with pytest.raises(UnsupportedLayerError, match="config: dtype is class 'system' of module 'os'"):
        loads(data)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"module": "mine"}, "class 'Sequential' of module 'mine'"),
        ({"registered_name": "mine>Sequential"}, "class 'Sequential', registered as 'mine>Sequential'"),
    ],
)
def test_models_of_somebody_else_s_class(changes: Json, text: str) -> None:
    with pytest.raises(UnsupportedLayerError, match=f"model: {text} is none of Keras's own models"):
        loads(simple(conv()) | changes)
    inner = simple(conv()) | {"name": "inner"} | changes
    with pytest.raises(UnsupportedLayerError, match=rf"layers\[1\] 'inner': {text}"):
        loads(simple(inner))


def test_a_layer_registered_under_a_name_of_its_own() -> None:
    mine = conv() | {"module": None, "registered_name": "mine>Conv2D"}
    with pytest.raises(UnsupportedLayerError, match="'c': class 'Conv2D', registered as 'mine>Conv2D'"):
        loads(simple(mine))
    loads(simple(conv() | {"module": None, "registered_name": "Conv2D"}))


def test_every_object_keras_itself_writes_is_read() -> None:
    """Each initializer, regularizer and constraint that Keras has, under every name it goes by."""
    for kind, key in (
        ("initializers", "initializer"),
        ("regularizers", "regularizer"),
        ("constraints", "constraint"),
    ):
        module = getattr(keras, kind)
        base = getattr(module, key.title())
        classes = {
            c for c in vars(module).values() if isinstance(c, type) and issubclass(c, base) and c is not base
        }
        assert classes
        for made in classes:
            needed = {"value": 0.5} if made is keras.initializers.Constant else {}
            if made.__name__ in ("STFTInitializer", "STFT"):
                continue
            written = keras.saving.serialize_keras_object(made(**needed))
            loads(simple(layer("Dense", "d", units=2, **{f"kernel_{key}": written})))
    model = keras.Sequential(
        [
            keras.Input((6, 5, 3)),
            keras.layers.Conv2D(
                2, 2, dtype="mixed_bfloat16", kernel_regularizer="l2", bias_constraint="non_neg"
            ),
            keras.Sequential([keras.layers.Dense(2, activation=keras.activations.gelu)]),
        ]
    )
    cl.loads(model.to_json())
    cl.loads(json.loads(model.to_json()))
