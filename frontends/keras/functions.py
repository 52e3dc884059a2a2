"""The functions that Keras 2 wrote as nodes (TFOpLambda, SlicingOpLambda), as the operations of Keras 3.

A file's function name is only ever looked up in this table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from math import sqrt
from typing import Any

from ..operations import OPERATIONS
from .spec import CallSpec, LayerSpec

CLASSES = frozenset({"TFOpLambda", "SlicingOpLambda"})


@dataclass(frozen=True)
class Function:
    """An operation of ours, and what its arguments are called there.

    renamed: TensorFlow's keyword -> ours. converted: how a value of ours follows from it, where it differs.
    defaults: of TensorFlow, where they are not Keras 3's.
    """

    operation: str
    renamed: Mapping[str, str] = field(default_factory=dict)
    converted: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)


def _indices(sizes: Any) -> Any:
    """Sizes of parts -> the indices between them."""
    return list(accumulate(sizes))[:-1] if isinstance(sizes, list) else sizes


def _key(spec: Any) -> Any:
    """slice_spec: a slice as an object, whole numbers as they are."""
    return [_slice(item) for item in spec] if isinstance(spec, list) else spec


def _slice(item: Any) -> Any:
    if isinstance(item, dict) and item.get("class_name") == "__ellipsis__":
        return Ellipsis
    return slice(*(item.get(key) for key in ("start", "stop", "step"))) if isinstance(item, dict) else item


def _two(name: str) -> Function:
    return Function(name, {"y": "x2"})


def _along(name: str) -> Function:
    return Function(name)


FUNCTIONS: dict[str, Function] = {
    **dict.fromkeys(("__operators__.add", "math.add"), _two("Add")),
    **dict.fromkeys(("__operators__.sub", "math.subtract"), _two("Subtract")),
    **dict.fromkeys(("__operators__.mul", "math.multiply"), _two("Multiply")),
    **dict.fromkeys(("__operators__.truediv", "math.truediv", "math.divide"), _two("TrueDivide")),
    **dict.fromkeys(("__operators__.pow", "math.pow"), _two("Power")),
    "math.maximum": _two("Maximum"),
    "math.minimum": _two("Minimum"),
    **dict.fromkeys(("__operators__.neg", "math.negative"), Function("Negative")),
    **dict.fromkeys(("__operators__.abs", "math.abs"), Function("Absolute")),
    **{f"math.{name.lower()}": Function(name) for name in ("Square", "Sqrt", "Rsqrt", "Exp", "Log", "Tanh")},
    "math.reciprocal": Function("Reciprocal"),
    "clip_by_value": Function("Clip", {"clip_value_min": "x_min", "clip_value_max": "x_max"}),
    **{
        name: _two(operation)
        for operation, names in {
            "Greater": ("math.greater",),
            "GreaterEqual": ("math.greater_equal",),
            "Less": ("math.less",),
            "LessEqual": ("math.less_equal",),
            "Equal": ("math.equal", "__operators__.eq"),
            "NotEqual": ("math.not_equal", "__operators__.ne"),
            "LogicalAnd": ("math.logical_and", "__operators__.and"),
            "LogicalOr": ("math.logical_or", "__operators__.or"),
            "LogicalXor": ("math.logical_xor", "__operators__.xor"),
        }.items()
        for name in names
    },
    **dict.fromkeys(("math.logical_not", "__operators__.invert"), Function("LogicalNot")),
    "where": Function("Where", {"x": "x1", "y": "x2"}),
    "cast": Function("Cast"),
    "stop_gradient": Function("StopGradient"),
    "math.reduce_mean": _along("Mean"),
    "math.reduce_sum": _along("Sum"),
    "math.reduce_max": _along("Max"),
    "math.reduce_min": _along("Min"),
    "concat": Function("Concatenate"),
    "stack": Function("Stack", defaults={"axis": 0}),
    "split": Function(
        "Split", {"num_or_size_splits": "indices_or_sections"}, {"indices_or_sections": _indices}
    ),
    "reshape": Function("Reshape", {"shape": "newshape"}),
    "transpose": Function("Transpose", {"perm": "axes"}),
    "pad": Function("Pad", {"paddings": "pad_width"}, {"mode": str.lower}),
    "expand_dims": Function("ExpandDims"),
    "squeeze": Function("Squeeze", converted={"axis": lambda axis: axis or None}),
    "repeat": Function("Repeat"),
    "reverse": Function("Flip"),
    "__operators__.getitem": Function("GetItem", {"slice_spec": "key"}, {"key": _key}),
    "image.resize": Function("Resize", {"method": "interpolation"}),
    "nn.relu": Function("Relu"),
    "nn.relu6": Function("Relu6"),
    "nn.leaky_relu": Function("LeakyRelu", {"alpha": "negative_slope"}),
    "nn.elu": Function("Elu"),
    "nn.selu": Function("Selu"),
    **dict.fromkeys(("nn.silu", "nn.swish"), Function("Silu")),
    "nn.gelu": Function("Gelu", defaults={"approximate": False}),
    **dict.fromkeys(("nn.sigmoid", "math.sigmoid"), Function("Sigmoid")),
    "nn.tanh": Function("Tanh"),
    **dict.fromkeys(("nn.softplus", "math.softplus"), Function("Softplus")),
    **dict.fromkeys(("nn.softsign", "math.softsign"), Function("Softsign")),
    "nn.softmax": Function("Softmax"),
    **dict.fromkeys(("nn.log_softmax", "math.log_softmax"), Function("LogSoftmax")),
    **dict.fromkeys(
        ("math.l2_normalize", "nn.l2_normalize"),
        Function("Normalize", converted={"epsilon": sqrt}, defaults={"epsilon": 1e-12}),
    ),
}
"""Functions a node may name."""


def as_operation(layer: LayerSpec) -> None:
    """Turn the node of a known function into that of an operation; others stay, and are refused by name."""
    name = layer.config.get("function")
    function = FUNCTIONS.get(name) if isinstance(name, str) else None
    if function is None:
        return
    operation = OPERATIONS[function.operation]
    taken = {operand.rstrip("?") for operand in operation.operands}
    config: dict[str, Any] = {"name": layer.name}
    calls = []
    for call in layer.calls:
        said = _arguments(function, call)
        config.update({key: value for key, value in said.items() if key not in taken})
        calls.append(
            CallSpec(call.args, {key: value for key, value in said.items() if key in taken}, call.place)
        )
    layer.class_name, layer.module, layer.registered_name = function.operation, operation.module, None
    layer.config, layer.calls = config, calls


def _arguments(function: Function, call: CallSpec) -> dict[str, Any]:
    """The keywords of a call in our words; a None only repeats a default."""
    said = {key: value for key, value in call.kwargs.items() if key != "name" and value is not None}
    found = {function.renamed.get(key, key): value for key, value in {**function.defaults, **said}.items()}
    for key, convert in function.converted.items():
        try:
            found |= {key: convert(found[key])} if key in found else {}
        except (TypeError, ValueError):
            continue  # a value of another kind, which the operation's own check names
    return found
