"""What Keras 2 and Keras 3 mean differently by one word."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .functions import CLASSES, as_operation
from .spec import ModelSpec

MEANINGS = {"hard_sigmoid": "keras_2_hard_sigmoid"}
"""Activations: the word of Keras 2 -> the name in our table. 0.2 x + 0.5 became x / 6 + 0.5."""


def translate(spec: ModelSpec, data: dict[str, Any]) -> ModelSpec:
    """Give the words of a file of Keras 2 the meaning they had there."""
    if written_by_keras_2(data):
        _translate(spec)
    return spec


def name_operations(spec: ModelSpec) -> ModelSpec:
    """Turn the functions of TensorFlow that a file of Keras 2 calls into Keras 3's operations."""
    for layer in spec.layers:
        if layer.model is not None:
            name_operations(layer.model)
        elif layer.class_name in CLASSES:
            as_operation(layer)
    return spec


def written_by_keras_2(data: dict[str, Any]) -> bool:
    """By the version in the file; where there is none, by the form of nodes and of the input's shape."""
    version = data.get("keras_version")
    if isinstance(version, str):
        return version.startswith(("1.", "2."))
    for entry in _entries(data.get("config")):
        config, nodes = entry.get("config"), entry.get("inbound_nodes")
        if isinstance(config, dict) and "batch_input_shape" in config:
            return True
        if isinstance(nodes, list) and nodes:
            return isinstance(nodes[0], list)
    return False


def _entries(config: Any) -> Iterator[dict[str, Any]]:
    """The layers of a model, each before those inside it."""
    entries = config.get("layers") if isinstance(config, dict) else config
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict):
            yield entry
            if isinstance(entry.get("config"), dict) and "layers" in entry["config"]:
                yield from _entries(entry["config"])


def _translate(spec: ModelSpec) -> None:
    for layer in spec.layers:
        if layer.model is not None:
            _translate(layer.model)
        if isinstance(inner := layer.config.get("layer"), dict):
            layer.config = {**layer.config, "layer": _translated(inner)}
        if layer.class_name == "ThresholdedReLU":  # which Keras 3 has as a ReLU
            layer.class_name = "ReLU"
            renamed = {"theta": "threshold"}
            layer.config = {renamed.get(key, key): value for key, value in layer.config.items()}
        if "activation" in layer.config:
            layer.config = {**layer.config, "activation": _translated(layer.config["activation"])}


def _translated(activation: Any) -> Any:
    """A name, a function by its name, or a layer that stands as an activation and may hold another."""
    if isinstance(activation, str):
        return MEANINGS.get(activation, activation)
    config = activation.get("config") if isinstance(activation, dict) else None
    if isinstance(config, str):
        return {**activation, "config": MEANINGS.get(config, config)}
    if isinstance(config, dict) and "activation" in config:
        return {**activation, "config": {**config, "activation": _translated(config["activation"])}}
    return activation
