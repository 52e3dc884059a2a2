"""inbound_nodes, input_layers and output_layers: two dialects read into `CallSpec` and `TensorRef`.

Keras 3:  {"args": [T or [T, T]], "kwargs": {...}}, T a "__keras_tensor__" with its keras_history
Keras 2:  [["a", 0, 0, {kwargs}], ["b", 0, 0, {}]], one inner list an input
          [["a", 0, 0, {"value": ["b", 0, 0]}]], tensors given by name
          ["a", 0, 0, {"y": ["b", 0, 0]}], flat, for an operator (TFOpLambda, SlicingOpLambda)
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from ..operations import OPERATIONS
from .spec import CallSpec, TensorRef
from .values import get_dict, get_list, index, malformed, shown

CONSTANT = "_CONSTANT_VALUE"
LISTED = frozenset({"Add", "Subtract", "Multiply", "Maximum", "Minimum", "Average", "Concatenate", "Dot"})
"""Layers that take their tensors as one list; the operations of these names take them one by one."""


def read_calls(entry: dict[str, Any], place: str) -> list[CallSpec]:
    """All calls of one layer, in order; the k-th is node k."""
    place = f"{place}: inbound_nodes"
    nodes = entry.get("inbound_nodes", [])
    if not isinstance(nodes, list):
        malformed(place, f"must be a list, found {shown(nodes)}")
    return [_read_call(node, f"{place}[{k}]") for k, node in enumerate(nodes)]


def lost_module(entry: dict[str, Any], class_name: str) -> str | None:
    """The module of an operation in the `.h5` files of Keras 3, which have none; None for a layer."""
    config, nodes = entry.get("config"), entry.get("inbound_nodes")
    operation = OPERATIONS.get(class_name)
    if operation is None or not isinstance(config, dict) or not isinstance(nodes, list) or not nodes:
        return None
    if not config.keys() <= {field.name for field in fields(operation)} - {"trainable"}:
        return None
    for node in nodes:
        args = node.get("args") if isinstance(node, dict) else None
        if not isinstance(args, list) or not args or (class_name in LISTED and isinstance(args[0], list)):
            return None
    return operation.module


def _read_call(node: Any, place: str) -> CallSpec:
    if isinstance(node, dict):
        args = [_decoded(value, place) for value in get_list(node, "args", place)]
        kwargs = get_dict(node, "kwargs", place) if "kwargs" in node else {}
        return CallSpec(args, {key: _decoded(value, place) for key, value in kwargs.items()}, place)
    if isinstance(node, list) and node and isinstance(node[0], str):
        first = _constant(node, place) if node[0] == CONSTANT else read_reference(node, place)
        return CallSpec([first], _kwargs_2(node, place), place)
    if isinstance(node, list) and node:
        kwargs = {}
        operands = []
        for item in node:
            operands.append(read_reference(item, place))
            kwargs.update(_kwargs_2(item, place))
        return CallSpec(operands if len(operands) == 1 else [operands], kwargs, place)
    malformed(
        place, f"must be an object with args, or a list of [layer, node, tensor, kwargs], found {shown(node)}"
    )


# -- Keras 3 -------------------------------------------------------------------------------------------------
def _decoded(value: Any, place: str) -> Any:
    """An argument of a call: a tensor, or a constant made of JSON's own values and a few of Keras's."""
    if isinstance(value, list):
        return [_decoded(item, place) for item in value]
    if not isinstance(value, dict):
        return value
    match value.get("class_name"):
        case "__keras_tensor__":
            history = get_list(get_dict(value, "config", place), "keras_history", place)
            return read_reference(history, place)
        case "__numpy__" | "__tensor__":
            return get_dict(value, "config", place).get("value")
        case "__slice__":
            config = get_dict(value, "config", place)
            return slice(*(_end(config.get(key), place) for key in ("start", "stop", "step")))
        case "__ellipsis__":
            return Ellipsis
        case None:
            return {key: _decoded(item, place) for key, item in value.items()}
    malformed(place, f"an argument must be a tensor or a plain value, found {shown(value)}")


def _end(value: Any, place: str) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    malformed(place, f"a slice must have whole numbers, found {shown(value)}")


# -- Keras 2 -------------------------------------------------------------------------------------------------
def _constant(node: list[Any], place: str) -> Any:
    if len(node) < 3:
        malformed(place, f"must have a constant as its third value, found {shown(node)}")
    return node[2]


def _kwargs_2(item: list[Any], place: str) -> dict[str, Any]:
    """The fourth value of a node, in which a tensor is a bare [layer, node, tensor]."""
    kwargs = item[3] if len(item) > 3 else {}
    if not isinstance(kwargs, dict):
        malformed(place, f"the fourth value of a node must be an object, found {shown(kwargs)}")
    return {key: _tensors_2(value, place) for key, value in kwargs.items()}


def _tensors_2(value: Any, place: str) -> Any:
    if not isinstance(value, list):
        return value
    if len(value) == 3 and isinstance(value[0], str) and all(type(v) is int for v in value[1:]):
        return read_reference(value, place)
    return [_tensors_2(item, place) for item in value]


# -- references ----------------------------------------------------------------------------------------------
def read_reference(value: Any, place: str) -> TensorRef:
    """["layer", node, tensor] and perhaps kwargs."""
    if not isinstance(value, list) or not 3 <= len(value) <= 4 or not isinstance(value[0], str):
        malformed(place, f"must name a tensor as [layer, node, tensor], found {shown(value)}")
    return TensorRef(value[0], index(value[1], place), index(value[2], place))


def read_references(value: Any, place: str) -> list[TensorRef]:
    """input_layers or output_layers: a triple, a list of them, or an object of them in sorted key order."""
    if isinstance(value, dict):
        return [ref for key in sorted(value) for ref in read_references(value[key], place)]
    if isinstance(value, list) and value and isinstance(value[0], str):
        return [read_reference(value, place)]
    if isinstance(value, list) and value:
        return [ref for item in value for ref in read_references(item, place)]
    malformed(place, f"must name at least one tensor as [layer, node, tensor], found {shown(value)}")
