"""Keras's JSON, of Keras 2 and Keras 3, Sequential and Functional -> `ModelSpec`. Knows nothing of layers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...graph.errors import UnsupportedLayerError
from .dialect import name_operations, translate
from .keep import keep
from .limits import DEFAULT, Limits
from .nodes import lost_module, read_calls, read_references
from .objects import foreign, named, refusal_of_value
from .spec import LayerSpec, ModelSpec, TensorRef, with_references
from .values import get_dict, get_list, get_text, malformed, optional_text, shown

FUNCTIONAL = ("Functional", "Model")  # "Model" until Keras 2.3
READ = {"layers", "input_layers", "output_layers"}
"""Parts of a model's configuration that are read here."""


def read_model(data: Any, limits: Limits = DEFAULT) -> ModelSpec:
    """The whole file. Raises ModelFormatError with the place, UnsupportedLayerError for a custom model."""
    if not isinstance(data, dict):
        malformed("model", f"must be an object with class_name and config, found {shown(data)}")
    class_name = get_text(data, "class_name", "model")
    config = data.get("config")
    if isinstance(config, list) and class_name == "Sequential":  # so Keras wrote it before 2.2
        config = {"name": "sequential", "layers": config}
    if class_name not in (*FUNCTIONAL, "Sequential"):
        raise UnsupportedLayerError(
            f"model: class {class_name!r:.80} is neither Functional nor Sequential; ConvLoom reads these two"
        )
    if foreign(data):
        raise UnsupportedLayerError(f"model: {named(data)} is none of Keras's own models")
    config = get_dict({"config": config}, "config", "model")
    spec = _Reader(limits).read(class_name, config, data.get("build_config"), "", 1)
    return name_operations(translate(keep(spec, data), data))


def is_model(entry: dict[str, Any], class_name: str) -> bool:
    """Whether an entry is one of Keras's own models rather than a layer."""
    return class_name in (*FUNCTIONAL, "Sequential") and not foreign(entry)


class _Reader:
    """Reads models inside models, counting what they hold together."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._layers = 0

    def read(
        self, class_name: str, config: dict[str, Any], build_config: Any, inside: str, depth: int
    ) -> ModelSpec:
        place = f"{inside}config"
        self._limits.check("model_depth", depth, place, "levels of models inside models")
        for key in config.keys() - READ:
            if why := refusal_of_value(key, config[key]):
                raise UnsupportedLayerError(f"{place}: {key} is {why}; replace it before saving")
        entries = get_list(config, "layers", place)
        if not entries:
            malformed(place, "layers must hold at least one layer, found none")
        self._layers += len(entries)
        self._limits.check("layers", self._layers, place, "layers")
        layers = [self._read_layer(entry, f"{inside}layers[{i}]", depth) for i, entry in enumerate(entries)]
        names: dict[str, LayerSpec] = {}
        for layer in layers:
            if names.setdefault(layer.name, layer) is not layer:
                malformed(layer.place, f"the name stands already at {names[layer.name].place}")
        name = optional_text(config, "name", place) or class_name.lower()
        if class_name == "Sequential":
            return ModelSpec(place, class_name, name, layers, input_shape=_built_shape(config, build_config))
        spec = ModelSpec(
            place,
            "Functional",
            name,
            layers,
            read_references(config.get("input_layers"), f"{place}: input_layers"),
            read_references(config.get("output_layers"), f"{place}: output_layers"),
        )
        _settle_indices(spec, names, _is_keras_2(entries))
        return spec

    def _read_layer(self, entry: Any, place: str, depth: int) -> LayerSpec:
        if not isinstance(entry, dict):
            malformed(place, f"must be an object with class_name and config, found {shown(entry)}")
        class_name = get_text(entry, "class_name", place)
        config = get_dict(entry, "config", place)
        name = get_text(entry if entry.get("name") is not None else config, "name", place)
        place = f"{place} {shown(name)}"
        if why := refusal_of_value("build_config", entry.get("build_config")):
            raise UnsupportedLayerError(f"{place}: build_config holds {why}")
        layer = LayerSpec(
            place,
            class_name,
            optional_text(entry, "module", place) or lost_module(entry, class_name),
            optional_text(entry, "registered_name", place),
            name,
            config,
            read_calls(entry, place),
        )
        if is_model(entry, class_name) and "layers" in config:
            layer.model = self.read(class_name, config, entry.get("build_config"), f"{place}: ", depth + 1)
            layer.model.name = name
        return layer


def _built_shape(config: dict[str, Any], build_config: Any) -> list[Any] | None:
    """The batch shape a Sequential was built for, wherever the writer put it."""
    shape = config.get("build_input_shape")
    if shape is None and isinstance(build_config, dict):
        shape = build_config.get("input_shape")
    return shape if isinstance(shape, list) else None


def _is_keras_2(entries: list[Any]) -> bool:
    """Keras 2 writes a node as a list, Keras 3 as an object."""
    nodes = (entry.get("inbound_nodes") for entry in entries)
    return any(isinstance(node, list) for group in nodes if isinstance(group, list) for node in group)


def _settle_indices(spec: ModelSpec, names: dict[str, LayerSpec], keras_2: bool) -> None:
    """Count calls from 0 everywhere.

    Node 0 of a model used as a layer is the model itself in Keras 2, so its calls count from 1; Keras 3 keeps
    that for a Functional among output_layers, and nowhere else.
    """

    def settle(reference: TensorRef, output: bool) -> TensorRef:
        layer = names.get(reference.layer)
        if layer is None or layer.model is None:
            return reference
        from_one = keras_2 or (output and not layer.model.sequential)
        shifted = from_one and 0 <= reference.node - 1 < len(layer.calls)
        return replace(reference, node=reference.node - 1) if shifted else reference

    for layer in spec.layers:
        for call in layer.calls:
            call.args = with_references(call.args, lambda reference: settle(reference, False))
            call.kwargs = with_references(call.kwargs, lambda reference: settle(reference, False))
    spec.outputs = [settle(reference, True) for reference in spec.outputs]
