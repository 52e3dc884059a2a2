"""One layer -> its entry in Keras 3's JSON. The declaration that serves the import says what is written.

A layer read from a file of Keras 3 is written as the file had it, but for fields that were changed since. All
others are written from their fields; of what a file of Keras 2 said beside them, Keras 3 gets what it knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from ...graph.errors import UnsupportedLayerError
from ...graph.types import BATCH, TensorType
from ..by_name import Named
from ..initializers import Initializer
from ..layers import InputLayer, Layer
from ..lowering import Block
from ..operations import Operation
from ..written import Written
from .dialect import MEANINGS

Json = dict[str, Any]

HOMES = {
    "CustomScaleLayer": "keras.src.applications.inception_resnet_v2",
    "LayerScale": "keras.src.applications.convnext",
    "StochasticDepth": "keras.src.applications.convnext",
}
"""Layers that Keras keeps elsewhere than in keras.layers."""

OBJECT_MODULES = {
    "_initializer": "keras.initializers",
    "_regularizer": "keras.regularizers",
    "_constraint": "keras.constraints",
}

NOT_IN_CONFIG = ("name", "trainable", "input_shape")
"""Fields that a declaration has in common with all others, or that only its use in Python needs."""

NOT_IN_OPERATIONS = (*NOT_IN_CONFIG, "activity_regularizer")


def layer_entry(layer: Layer, name: str) -> Json:
    """module, class_name, config, registered_name and, where it helps Keras to build, build_config.

    Raises UnsupportedLayerError for what Keras's files cannot say.
    """
    written = layer.written
    if written is not None and written.keras_3:
        entry = {key: value for key, value in written.data.items() if key not in ("inbound_nodes", "name")}
        entry["config"] = _config_as_written(layer, name, written)
        return entry
    class_name = type(layer).__name__
    if isinstance(layer, Operation):
        said = {field.name: _plain(layer, field.name, getattr(layer, field.name)) for field in fields(layer)}
        config = {key: value for key, value in said.items() if key not in NOT_IN_OPERATIONS}
        entry = object_entry(layer.module, class_name, {"name": name, **config})
        return {**entry, "registered_name": class_name}
    entry = object_entry(HOMES.get(class_name, "keras.layers"), class_name, _config(layer, name))
    if class_name in HOMES:
        entry["registered_name"] = class_name
    if layer.all_weights and len(layer.built_for) == 1:
        entry["build_config"] = {"input_shape": built_shape(layer)}
    return entry


def object_entry(module: str, class_name: str, config: Mapping[str, Any]) -> Json:
    """The four keys of every object in Keras 3's JSON."""
    return {"module": module, "class_name": class_name, "config": dict(config), "registered_name": None}


def batch_shape(kind: TensorType) -> list[int | None]:
    """As Keras writes a shape: null for the batch."""
    return [None if dim == BATCH else int(dim) for dim in kind.shape]


def built_shape(layer: Layer) -> list[int | None]:
    """What its weights were made for: of its first call, where it has been called itself."""
    call = layer.first_call
    return list(call.inputs[0].shape) if call is not None else batch_shape(layer.built_for[0])


# -- configurations ------------------------------------------------------------------------------------------
def _config_as_written(layer: Layer, name: str, written: Written) -> Json:
    """The file's own config, with the fields that have another value now."""
    config = {**written.config, "name": name}
    names = {field: key for key, field in layer.aliases.items() if key in written.config}
    for field in fields(layer):
        value = getattr(layer, field.name)
        if isinstance(value, Block):  # which has its own part of the file
            config.update(_said(layer, field.name, value))
            continue
        if value == written.values.get(field.name) or field.name in ("name", "input_shape"):
            continue
        config.pop(names.get(field.name, ""), None)
        config.update(_said(layer, field.name, value))
    if isinstance(layer, InputLayer):  # whose size may have been given at load
        config.update(_said(layer, "shape", layer.shape))
    return config


def _config(layer: Layer, name: str) -> Json:
    """A config from the fields alone, and from what Keras 2 said and Keras 3 still knows."""
    said = layer.written.config if layer.written is not None else {}
    if isinstance(layer, InputLayer):
        return {**_said(layer, "shape", layer.shape), "dtype": layer.dtype, "name": name}
    config: Json = {"name": name, "dtype": _policy(said.get("dtype"))}
    if layer.all_weights:  # some of Keras's layers without weights refuse it
        config["trainable"] = layer.trainable
    for field in fields(layer):
        if field.name in NOT_IN_CONFIG:
            continue
        raw, value = said.get(field.name), getattr(layer, field.name)
        if value is None and field.default is None:
            continue  # Keras's default too, and not every class of Keras takes the argument
        unchanged = layer.written is not None and layer.written.values.get(field.name) == value
        if unchanged and isinstance(raw, Mapping) and field.name.endswith(tuple(OBJECT_MODULES)):
            config[field.name] = _modern_object(field.name, raw)
        else:
            config.update(_said(layer, field.name, value))
    known = {field.name for field in fields(layer)}
    for key, value in said.items():
        if key not in known and key in layer.ignored and isinstance(value, (bool, int, float)):
            config[key] = value
    return config


def _said(layer: Layer, field: str, value: Any) -> Json:
    """A field as Keras's key and value."""
    if isinstance(layer, InputLayer) and field == "shape":
        saved = layer.saved_shape or (None, *value)
        kept = [None if said is None else size for said, size in zip(saved[1:], value, strict=True)]
        return {"batch_shape": [saved[0], *kept]}
    if field == "padding" and not isinstance(value, str) and hasattr(layer, "strides"):
        raise UnsupportedLayerError(
            f"{layer.label}: Keras knows no explicit padding ({value}) here; "
            f"put a ZeroPadding{layer.spatial_rank}D before it"
        )
    if field == "activation" and value in MEANINGS.values():
        raise UnsupportedLayerError(
            f"{layer.label}: Keras 3 has no activation that computes the hard_sigmoid of Keras 2; replace it"
        )
    if field.endswith("_initializer") and isinstance(value, str):
        class_name = "".join(part.title() for part in value.split("_"))
        return {field: object_entry("keras.initializers", class_name, {})}
    if isinstance(value, Initializer):
        return {field: object_entry("keras.initializers", type(value).__name__, value.config())}
    return {field: _plain(layer, field, value)}


def _plain(layer: Layer, field: str, value: Any) -> Any:
    """A field's value as JSON has it."""
    if isinstance(value, Layer):
        return _inner_entry(value, layer.trainable)
    if isinstance(value, Block):  # a model
        from .export import file_name, model_entry

        return model_entry(value, file_name(value))  # type: ignore[arg-type]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Named):
        module = next(home for ending, home in OBJECT_MODULES.items() if field.endswith(ending))
        return object_entry(module, type(value).__name__, value.get_config())
    if isinstance(value, Mapping):
        return {str(key): _plain(layer, field, item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_plain(layer, field, item) for item in value]
    raise UnsupportedLayerError(
        f"{layer.label}: {field} is a {type(value).__name__}, which Keras's files cannot hold"
    )


def _inner_entry(layer: Layer, trained: bool) -> Json:
    """A layer that is an argument of another, and what it was built for: Keras makes weights only then.

    trained: whether the other is; Keras does not ask that of the weights inside it.
    """
    entry = layer_entry(layer, layer.name.replace("/", "_"))
    if layer.all_weights and not trained:
        entry["config"]["trainable"] = False
    if layer.all_weights:
        entry.setdefault("build_config", {"input_shape": built_shape(layer)})
    return entry


def _policy(said: Any) -> Json:
    """The dtype of a file of Keras 2, a name or a policy, as Keras 3 writes it."""
    name = said.get("config", {}).get("name") if isinstance(said, Mapping) else said
    return object_entry("keras", "DTypePolicy", {"name": name if isinstance(name, str) else "float32"})


def _modern_object(key: str, said: Mapping[str, Any]) -> Json:
    """An initializer, regularizer or constraint of Keras 2, which has no module, in Keras 3's form."""
    module = next(home for ending, home in OBJECT_MODULES.items() if key.endswith(ending))
    inner = said.get("config")
    config = (
        {name: value for name, value in inner.items() if name != "dtype"} if isinstance(inner, dict) else {}
    )
    return object_entry(module, str(said.get("class_name")), config)
