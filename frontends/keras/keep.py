"""Notes what a file said beside its intermediate form, so that the export can say it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from ..layers import Layer
from ..written import Written
from .spec import ModelSpec


def keep(spec: ModelSpec, data: Mapping[str, Any]) -> ModelSpec:
    """Give a model's description, its layers and its calls the parts of the file they were read from."""
    _keep(spec, data, _is_keras_3(data))
    return spec


def remember(layer: Layer, written: Written | None) -> None:
    """Keep an entry with the layer made from it, and the values its fields have now."""
    if written is not None:
        values = {field.name: getattr(layer, field.name) for field in fields(layer)}
        layer.written = replace(written, values=values)


def _keep(spec: ModelSpec, data: Mapping[str, Any], keras_3: bool) -> None:
    spec.written = Written(data, keras_3)
    config = data["config"]
    entries = config["layers"] if isinstance(config, Mapping) else config
    for layer, entry in zip(spec.layers, entries, strict=True):
        layer.written = Written(entry, keras_3)
        for call, node in zip(layer.calls, entry.get("inbound_nodes", ()), strict=False):
            if isinstance(node, Mapping):
                call.written = Written(node, keras_3)
        if layer.model is not None:
            _keep(layer.model, entry, keras_3)


def _is_keras_3(data: Mapping[str, Any]) -> bool:
    """Whether Keras 3 wrote it in its own form, which its archives and its to_json have.

    Keras 2 has no module at the top of its JSON, and in its archives an input has a batch_input_shape. The
    `.h5` files of Keras 3 have no modules, so their objects cannot be written again as they stand.
    """
    config = data.get("config")
    if not isinstance(data.get("module"), str) or not isinstance(config, Mapping):
        return False
    for entry in config["layers"]:
        if "batch_input_shape" in entry["config"]:
            return False
        if any(not isinstance(node, Mapping) for node in entry.get("inbound_nodes", ())):
            return False
    return True
