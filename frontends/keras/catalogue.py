"""From an entry of a file to a layer declaration: the closed table, and what is refused.

The table is `layers.DECLARATIONS`; a module or class that a file names is only ever compared with it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from ...graph.errors import ConvLoomError, ModelFormatError, UnsafeModelError, UnsupportedLayerError
from .. import fields as f
from ..initializers import from_class_name
from ..layers import DECLARATIONS, InputLayer, Layer
from ..layers.wrapper import a_layer
from ..written import Written
from .keep import remember
from .spec import LayerSpec
from .values import get_dict, get_text, malformed, optional_text, shown

UNSAFE = frozenset(
    {
        *("Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"),
        *("StringLookup", "IntegerLookup", "TextVectorization", "Hashing"),
    }
)
"""Layers that carry code, load other files, or wrap another framework's objects."""

ARITHMETIC = {"Add": "Add", "Subtract": "Subtract", "Multiply": "Multiply", "TrueDivide": "Divide"}
"""Operation nodes of Keras 3, from the module keras.src.ops.numpy."""

KERAS_2_OPERATORS = {
    "__operators__.add": "Add",
    "math.add": "Add",
    "__operators__.sub": "Subtract",
    "math.subtract": "Subtract",
    "__operators__.mul": "Multiply",
    "math.multiply": "Multiply",
    "__operators__.truediv": "Divide",
    "math.truediv": "Divide",
}
"""Functions a TFOpLambda of Keras 2 may name."""

# Training aids that leave a layer's meaning alone, and what a file repeats elsewhere.
COMMON_KEYS = frozenset(
    {"name", "dtype", "batch_input_shape", "batch_shape", "build_config", "autocast", "ragged"}
)
COMMON_ENDINGS = ("_regularizer", "_constraint")


MOST_NESTED = 8
"""Activation layers in one another, as Activation(Activation(ReLU()))."""

APPLICATIONS = frozenset({"LayerScale", "CustomScaleLayer", "StochasticDepth"})
"""Classes that keras.applications registers for itself; from elsewhere these names are somebody's own."""

REGISTERED = "Custom>"
"""What Keras 2 puts before the name of a registered class."""


def is_operation(spec: LayerSpec) -> bool:
    """Whether the entry is arithmetic on tensors rather than a layer."""
    return spec.class_name == "TFOpLambda" or ".ops." in f"{spec.module or ''}."


def arithmetic(spec: LayerSpec) -> str | None:
    """Add, Subtract, Multiply or Divide; None for an operation that is not supported."""
    if spec.class_name == "TFOpLambda":
        function = spec.config.get("function")
        return KERAS_2_OPERATORS.get(function) if isinstance(function, str) else None
    return ARITHMETIC.get(spec.class_name) if spec.module == "keras.src.ops.numpy" else None


def refusal(spec: LayerSpec) -> str | None:
    """Why no declaration serves this entry, or None."""
    if is_operation(spec):
        return (
            None if arithmetic(spec) else f"operation {shown(spec.config.get('function', spec.class_name))}"
        )
    if _known(spec):
        return None
    where = (
        f" of module {spec.module!r:.80}" if spec.module and not spec.module.endswith("keras.layers") else ""
    )
    return f"class {spec.class_name!r:.80}{where}"


def _known(spec: LayerSpec) -> bool:
    """Whether the entry means a class of the table."""
    name = _class_name(spec)
    root, *path = (spec.module or "keras").split(".")
    if name not in DECLARATIONS or root not in ("keras", "tf_keras"):
        return False
    if name not in APPLICATIONS or "applications" in path:
        return True
    registered = (spec.registered_name or name).removeprefix(REGISTERED)
    return spec.module is None and registered == name


def _class_name(spec: LayerSpec) -> str:
    """The class, without what Keras 2 puts before the applications' own."""
    bare = spec.class_name.removeprefix(REGISTERED)
    return bare if bare in APPLICATIONS else spec.class_name


def declare(spec: LayerSpec, depth: int = 0) -> Layer:
    """The layer an entry describes; depth: how many layers it stands in, as their argument.

    Raises UnsupportedLayerError for a key or value without a meaning here, ModelFormatError for a wrong one.
    """
    declaration = DECLARATIONS[_class_name(spec)]
    arguments = _input_arguments(spec) if declaration is InputLayer else _arguments(spec, declaration, depth)
    try:
        return declaration(**arguments, name=spec.name)
    except UnsupportedLayerError as error:
        raise UnsupportedLayerError(f"{spec.place}: {error}") from None
    except ConvLoomError as error:
        raise ModelFormatError(f"{spec.place}: {error}") from None


def _input_arguments(spec: LayerSpec) -> dict[str, Any]:
    _refuse_unknown(spec, InputLayer, {"shape", "dtype", "trainable"})
    shape = spec.config.get("batch_shape", spec.config.get("batch_input_shape"))
    return {"shape": sample_shape(shape, spec.place), "dtype": spec.config.get("dtype") or "float32"}


def sample_shape(batch_shape: Any, place: str) -> list[Any]:
    """[null, 28, 28, 1] -> [28, 28, 1]."""
    if not isinstance(batch_shape, list) or not batch_shape:
        malformed(place, f"batch_shape must be a list such as [null, 28, 28, 1], found {shown(batch_shape)}")
    if None in batch_shape[1:]:
        raise UnsupportedLayerError(
            f"{place}: the input's shape {batch_shape} leaves axes open; all but the batch must be known"
        )
    return batch_shape[1:]


def _arguments(spec: LayerSpec, declaration: type[Layer], depth: int) -> dict[str, Any]:
    known = {field.name: field for field in dataclasses.fields(declaration)}
    known.pop("name")
    known.pop("input_shape")
    _refuse_unknown(spec, declaration, known.keys() | declaration.aliases.keys())
    arguments: dict[str, Any] = {}
    for key, value in spec.config.items():
        key = declaration.aliases.get(key, key)
        field = known.get(key)
        if field is None:
            continue
        if field.metadata.get("check") is a_layer:
            arguments[key] = _inner_layer(spec, key, value, depth + 1)
        elif field.metadata.get("check") is f.initializer:
            found = value.get("class_name") if isinstance(value, dict) else value
            if known_name := from_class_name(found):
                arguments[key] = known_name
        elif field.metadata.get("check") is f.activation:
            named = _plain(value)
            arguments[key] = _inner_layer(spec, key, named, depth + 1) if isinstance(named, dict) else named
        else:
            arguments[key] = _plain(value)
    return arguments


def _inner_layer(spec: LayerSpec, key: str, value: Any, depth: int) -> Layer:
    """The layer that an entry holds as its argument `key`; an activation must be one that may stand there.

    depth: how many layers it stands in. Raises UnsafeModelError for one that carries code,
    UnsupportedLayerError for a class that has no declaration or no place there.
    """
    place = f"{spec.place}: {key}" if depth == 1 else spec.place
    if not isinstance(value, dict):
        malformed(spec.place, f"{key} must be an object, found {shown(value)}")
    class_name, config = get_text(value, "class_name", place), get_dict(value, "config", place)
    module, registered = (optional_text(value, name, place) for name in ("module", "registered_name"))
    name = optional_text(config, "name", place) or ""
    inner = LayerSpec(place, class_name, module, registered, name, config)
    if class_name in UNSAFE:
        raise UnsafeModelError(
            f"{place}: {class_name} asks for code or files outside the model, which ConvLoom never runs or "
            f"opens; replace it"
        )
    if depth > MOST_NESTED:
        raise UnsupportedLayerError(f"{place}: more than {MOST_NESTED} layers stand in one another")
    why = refusal(inner) or ("an operation" if is_operation(inner) else None)
    if key == "activation" and (why or not DECLARATIONS[_class_name(inner)].activates):
        able = ", ".join(cls.__name__ for cls in DECLARATIONS.values() if cls.activates)
        why = f"{why or f'class {class_name!r:.80}'} cannot stand there; a name can, and {able}"
    elif why:
        why = f"{why} is not supported by ConvLoom"
    if why:
        raise UnsupportedLayerError(f"{place}: {why}")
    layer = declare(inner, depth)
    if "shared_object_id" in value and key == "activation" and type(layer).weights is not Layer.weights:
        raise UnsupportedLayerError(
            f"{place}: {layer.label} shares its weights with another layer's activation"
        )
    remember(layer, Written(value, keras_3=spec.written is not None and spec.written.keras_3))
    return layer


def _plain(value: Any) -> Any:
    """A number wrapped by NumPy, or a function given by its name, -> the number, the name."""
    if (
        isinstance(value, dict)
        and isinstance(value.get("config"), dict)
        and value.get("class_name") in ("__numpy__", "__tensor__")
    ):
        return value["config"].get("value")
    if isinstance(value, dict) and value.get("class_name") == "function":
        return value.get("config")
    return value


def _refuse_unknown(spec: LayerSpec, declaration: type[Layer], known: set[str]) -> None:
    for key, value in spec.config.items():
        if key in known or key in COMMON_KEYS or key.endswith(COMMON_ENDINGS) or key in declaration.ignored:
            _refuse_quantized(spec, key, value)
            continue
        if key in declaration.neutral and any(
            value == v and type(value) is type(v) for v in declaration.neutral[key]
        ):
            continue
        raise UnsupportedLayerError(
            f"{spec.place}: {spec.class_name} with {key}={shown(value)} is not supported by ConvLoom"
        )


def _refuse_quantized(spec: LayerSpec, key: str, value: Any) -> None:
    if key == "dtype" and isinstance(value, dict) and "Quantized" in str(value.get("class_name")):
        raise UnsupportedLayerError(
            f"{spec.place}: quantized layers ({value['class_name']!r:.80}) are not supported"
        )
