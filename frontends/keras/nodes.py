"""inbound_nodes, input_layers and output_layers: two dialects read into `CallSpec` and `TensorRef`.

Keras 3:  {"args": [T or [T, T]], "kwargs": {...}}, T a "__keras_tensor__" with its keras_history
Keras 2:  [["a", 0, 0, {kwargs}], ["b", 0, 0, {}]], one inner list an input
          [["a", 0, 0, {"value": ["b", 0, 0]}]], tensors given by name
          ["a", 0, 0, {"y": ["b", 0, 0]}], flat, for an operator (TFOpLambda)
"""

from __future__ import annotations

from typing import Any

from .spec import CallSpec, Operand, TensorRef
from .values import get_dict, get_list, index, malformed, shown

CONSTANT = "_CONSTANT_VALUE"

# Operations by module; the ones in BOTH bear the name of a layer, which takes its tensors as one list.
BOTH = frozenset({"Add", "Subtract", "Multiply", "Maximum", "Minimum", "Average"})
OPERATIONS = {
    "keras.src.ops.numpy": BOTH
    | {"TrueDivide", "Divide", "Power", "Negative", "Absolute", "Sqrt", "Square", "Exp", "Log", "Tanh"}
    | {"Clip", "Mean", "Max", "Sum", "Transpose", "ExpandDims", "Squeeze", "Pad", "GetItem", "Stack"},
    "keras.src.ops.nn": frozenset(
        {"Relu", "Relu6", "LeakyRelu", "Silu", "HardSilu", "HardSigmoid", "Gelu", "Sigmoid", "Softplus"}
    ),
}


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
    if not isinstance(config, dict) or "trainable" in config or not isinstance(nodes, list) or not nodes:
        return None
    for node in nodes:
        args = node.get("args") if isinstance(node, dict) else None
        if not isinstance(args, list) or not args or (class_name in BOTH and isinstance(args[0], list)):
            return None
    return next((module for module, classes in OPERATIONS.items() if class_name in classes), None)


def _read_call(node: Any, place: str) -> CallSpec:
    if isinstance(node, dict):
        operands: list[Operand] = []
        _collect(get_list(node, "args", place), operands, place)
        return _by_name(operands, dict(get_dict(node, "kwargs", place)) if "kwargs" in node else {}, place)
    if isinstance(node, list) and node and isinstance(node[0], str):
        return _read_flat(node, place)
    if isinstance(node, list) and node:
        kwargs: dict[str, Any] = {}
        operands = []
        for item in node:
            operands.append(read_reference(item, place))
            kwargs.update(_kwargs(item, place))
        return _by_name(operands, kwargs, place)
    malformed(
        place, f"must be an object with args, or a list of [layer, node, tensor, kwargs], found {shown(node)}"
    )


def _by_name(operands: list[Operand], kwargs: dict[str, Any], place: str) -> CallSpec:
    """A call whose keyword arguments may be tensors, or lists of them: those become operands too."""
    keywords: list[str] = []
    for key in [key for key, value in kwargs.items() if _is_tensor(value) or _are_tensors(value)]:
        value = kwargs.pop(key)
        for item in [value] if _is_tensor(value) else value:
            if isinstance(item, list):
                operands.append(read_reference(item, place))
            else:
                _collect(item, operands, place)
            keywords.append(key)
    return CallSpec(operands, kwargs, place, keywords=tuple(keywords))


def _is_tensor(value: Any) -> bool:
    """A tensor of Keras 3, or a reference ["layer", node, tensor] of Keras 2."""
    if isinstance(value, list):
        return len(value) == 3 and isinstance(value[0], str) and all(type(v) is int for v in value[1:])
    return isinstance(value, dict) and value.get("class_name") == "__keras_tensor__"


def _are_tensors(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_tensor, value))


def _read_flat(node: list[Any], place: str) -> CallSpec:
    """An operator of Keras 2: the second operand is the keyword y."""
    first: Operand = (
        _number(node[2], place) if node[0] == CONSTANT and len(node) > 2 else read_reference(node, place)
    )
    kwargs = _kwargs(node, place)
    kwargs.pop("name", None)
    operands = [first]
    if "y" in kwargs:
        other = kwargs.pop("y")
        operands.append(read_reference(other, place) if isinstance(other, list) else _number(other, place))
    return CallSpec(operands, kwargs, place)


def _collect(value: Any, operands: list[Operand], place: str) -> None:
    """Tensors and numbers of Keras 3's args, nested lists flattened."""
    if isinstance(value, list):
        for item in value:
            _collect(item, operands, place)
    elif isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
        history = get_list(get_dict(value, "config", place), "keras_history", place)
        operands.append(read_reference(history, place))
    else:
        operands.append(_number(value, place))


def _number(value: Any, place: str) -> float:
    if isinstance(value, dict) and value.get("class_name") in ("__numpy__", "__tensor__"):
        value = get_dict(value, "config", place).get("value")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        malformed(place, f"an argument must be a tensor or a number, found {shown(value)}")
    return float(value)


def _kwargs(item: list[Any], place: str) -> dict[str, Any]:
    kwargs = item[3] if len(item) > 3 else {}
    if not isinstance(kwargs, dict):
        malformed(place, f"the fourth value of a node must be an object, found {shown(kwargs)}")
    return dict(kwargs)


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
