"""A model -> Keras 3's JSON: `Model.to_json`.

A model that was read from a file of Keras 3 keeps the file's nodes, inputs and outputs; those of all others
are made from the calls.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...graph.errors import UnsupportedLayerError
from ..layers import InputLayer, Layer
from ..lowering import Block
from ..network import Network
from ..operations import Operation
from ..symbolic import Call, SymbolicTensor
from .export_layers import Json, layer_entry, object_entry


def to_json(model: Network, indent: int | None = None) -> str:
    """The model as Keras 3 writes it. Raises UnsupportedLayerError for what Keras cannot say."""
    model.inputs  # noqa: B018  a Sequential without a shape says so here
    return json.dumps(model_entry(model, file_name(model)), indent=indent, allow_nan=False)


def file_name(block: Block, called: str = "") -> str:
    """Its name in the file: Keras 3 takes no slash in one, which Keras 2 did.

    called: what its model calls it, where that is not its own name.
    """
    name = called or block.name
    return (block.written.original(name) if block.written is not None else name).replace("/", "_")


def file_names(model: Network) -> dict[Block, str]:
    """The names of a model's layers in the file, each once."""
    names: dict[Block, str] = {}
    taken: set[str] = set()
    for block in blocks(model):
        stem = name = file_name(block, model.name_of(block))
        count = 0
        while name in taken:
            count += 1
            name = f"{stem}_{count}"
        names[block] = name
        taken.add(name)
    return names


def blocks(model: Network) -> list[Block]:
    """The layers as Keras lists them, where a Sequential begins with its input unless its file did not."""
    if not model.is_sequential:
        return model.layers
    written = model.written
    said = written.config["layers"][0] if written is not None and written.keras_3 else {}
    bare = bool(said) and said["class_name"] != "InputLayer"
    return model.layers if bare else [model.inputs[0].node.block, *model.layers]


def model_entry(model: Network, name: str) -> Json:
    """module, class_name, config and what the model's file said beside them."""
    sequential = model.is_sequential
    class_name = "Sequential" if sequential else "Functional"
    module = "keras" if sequential else "keras.src.models.functional"
    written = model.written if model.written is not None and model.written.keras_3 else None
    said: Json = dict(written.config) if written else {"trainable": True}
    if sequential and written is None:
        said["build_input_shape"] = input_shape(model.inputs[0])
    if said.get("trainable") is False and model.trainable:  # freed since it was read
        said["trainable"] = True
    config = {**said, "name": name, **(_chain(model) if sequential else _network(model))}
    entry = object_entry(module, class_name, {})
    if written:
        entry |= {k: v for k, v in written.data.items() if k not in ("inbound_nodes", "name")}
    elif not sequential:
        entry["registered_name"] = "Functional"
    entry["config"] = config
    return entry


def input_shape(tensor: SymbolicTensor) -> list[int | None]:
    """Of an input: as its file had it, where it comes from one."""
    source = tensor.node.block
    saved = source.saved_shape if isinstance(source, InputLayer) else None
    return list(saved) if saved is not None else list(tensor.shape)


def _entry(block: Block, name: str) -> Json:
    if isinstance(block, Network):
        return model_entry(block, name)
    if isinstance(block, Layer):
        return layer_entry(block, name)
    raise UnsupportedLayerError(f"{block.label}: Keras has no such layer")


def _chain(model: Network) -> Json:
    return {"layers": [_entry(block, name) for block, name in file_names(model).items()]}


# -- functional models ---------------------------------------------------------------------------------------
def _network(model: Network) -> Json:
    return _network_as_written(model) if _keeps_nodes(model) else _network_from_calls(model)


def _keeps_nodes(model: Network) -> bool:
    written = model.written
    return written is not None and written.keras_3 and len(written.config["layers"]) == len(model.layers)


def _network_as_written(model: Network) -> Json:
    """The file's nodes, whose references only follow the layers' names."""
    assert model.written is not None
    config = model.written.config
    names = file_names(model)
    ways = {
        said.get("name") or said["config"]["name"]: name
        for said, name in zip(config["layers"], names.values(), strict=True)
    }
    layers = []
    for said, (block, name) in zip(config["layers"], names.items(), strict=True):
        entry = _entry(block, name)
        nodes = _renamed(said.get("inbound_nodes", []), ways)
        layers.append({**entry, "name": name, "inbound_nodes": nodes})
    ends = {key: _renamed_ends(config[key], ways) for key in ("input_layers", "output_layers")}
    return {"layers": layers, **ends}


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    """A node with its tensors under the layers' names of now."""
    if isinstance(value, Mapping):
        if value.get("class_name") == "__keras_tensor__":
            layer, *rest = value["config"]["keras_history"]
            return {**value, "config": {**value["config"], "keras_history": [names.get(layer, layer), *rest]}}
        return {key: _renamed(item, names) for key, item in value.items()}
    return [_renamed(item, names) for item in value] if isinstance(value, list) else value


def _renamed_ends(value: Any, names: Mapping[str, str]) -> Any:
    """input_layers or output_layers: a triple, or lists and objects of them."""
    if isinstance(value, Mapping):
        return {key: _renamed_ends(item, names) for key, item in value.items()}
    if value and isinstance(value[0], str):
        return [names[value[0]], *value[1:]]
    return [_renamed_ends(item, names) for item in value]


def _network_from_calls(model: Network) -> Json:
    names = file_names(model)
    uses: dict[Block, list[Call]] = {block: [] for block in names}
    for call in model.network:
        uses[call.block].append(call)
    index = {call: k for calls in uses.values() for k, call in enumerate(calls)}

    def tensor(value: SymbolicTensor) -> Json:
        history = [names[value.node.block], index[value.node], value.position]
        config = {"shape": list(value.shape), "dtype": value.dtype, "keras_history": history}
        return {"class_name": "__keras_tensor__", "config": config}

    def end(value: SymbolicTensor) -> list[Any]:
        # Node 0 of a Functional is the model itself, for an output and nowhere else.
        block = value.node.block
        shift = int(isinstance(block, Network) and not block.is_sequential)
        return [names[block], index[value.node] + shift, value.position]

    layers = []
    for block, name in names.items():
        as_written = all(call.written is not None and call.written.keras_3 for call in uses[block])
        entry = _entry(block, name)
        nodes = [
            _node(call, [tensor(x) for x in call.inputs], as_written) for call in uses[block] if call.inputs
        ]
        layers.append({**entry, "name": name, "inbound_nodes": nodes})
    inputs, outputs = model.structure
    return {
        "layers": layers,
        "input_layers": _arranged(inputs, end, model.inputs),
        "output_layers": _arranged(outputs, end, model.outputs),
    }


def _arranged(structure: Any, end: Any, tensors: Sequence[SymbolicTensor]) -> Any:
    """References in the arrangement the model was given: alone, in a list, or under keys."""
    if isinstance(structure, Mapping):
        return {str(key): end(value) for key, value in structure.items()}
    if structure is None or isinstance(structure, SymbolicTensor):
        return end(tensors[0]) if len(tensors) == 1 else [end(value) for value in tensors]
    return [end(value) for value in structure]


def _node(call: Call, tensors: list[Json], as_written: bool) -> Json:
    """One entry of inbound_nodes."""
    block = call.block
    one_by_one = isinstance(block, Layer) and bool(block.tensors)
    if as_written and call.written is not None and not one_by_one:  # by name they may stand in any order
        node = _with_tensors(dict(call.written.data), iter(tensors))
        return {"args": node["args"], "kwargs": node.get("kwargs", {})}
    arguments: list[Any]
    if isinstance(block, Operation):
        arguments = [_encoded(value) for value in block.given_with(lambda operand: tensors[operand.index])]
    elif isinstance(block, Network) and isinstance(block.structure[0], Mapping):
        arguments = [dict(zip(sorted(block.structure[0]), tensors, strict=True))]
    elif len(tensors) == 1 and not (isinstance(block, Layer) and block.arity[1] != 1):
        arguments = tensors
    else:
        arguments = tensors if one_by_one else [tensors]
    if call.training is False and isinstance(block, Layer) and block.said_training is False:
        raise UnsupportedLayerError(
            f"{block.label}: is called with training=False, which Keras's files say of every such call; "
            f"leave the layer out, where it is to do nothing in training"
        )
    said = {} if call.training is None else {"training": call.training}
    return {"args": arguments, "kwargs": {**said, **call.options}}


def _with_tensors(value: Any, tensors: Iterator[Json]) -> Any:
    """A node of a file with its tensors replaced, in their order."""
    if isinstance(value, Mapping):
        if value.get("class_name") == "__keras_tensor__":
            return next(tensors)
        return {key: _with_tensors(item, tensors) for key, item in value.items()}
    return [_with_tensors(item, tensors) for item in value] if isinstance(value, list) else value


def _encoded(value: Any) -> Any:
    """A constant of an operation's call as Keras writes it."""
    if isinstance(value, slice):
        config = {"start": value.start, "stop": value.stop, "step": value.step}
        return {"class_name": "__slice__", "config": config}
    if value is Ellipsis:
        return {"class_name": "__ellipsis__", "config": {}}
    if isinstance(value, list):
        if value and all(isinstance(item, (int, float, list)) for item in value):
            return {"class_name": "__numpy__", "config": {"value": value, "dtype": _dtype_of(value)}}
        return [_encoded(item) for item in value]
    return value


def _dtype_of(value: list[Any]) -> str:
    """Of a list of numbers or truth values, perhaps in lists: what Keras makes an array of."""
    kinds = {type(item) for item in value}
    if kinds == {list}:
        return _dtype_of([item for row in value for item in row])
    return {frozenset({bool}): "bool", frozenset({int}): "int32"}.get(frozenset(kinds), "float32")
