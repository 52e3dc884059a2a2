"""From an entry of a file to a layer declaration: the closed table, and what is refused.

The table is `layers.DECLARATIONS`; a module or class that a file names is only ever compared with it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar

from ...graph.errors import ConvLoomError, ModelFormatError, UnsafeModelError, UnsupportedLayerError
from .. import fields as f
from ..initializers import from_class_name, from_config
from ..layers import DECLARATIONS, InputLayer, Layer
from ..layers.aliases import ALIASES, UNSAFE
from ..layers.time_distributed import a_layer_or_model
from ..layers.wrapper import a_layer
from ..lowering import Block
from ..operations import OPERATIONS
from ..written import Written
from .functions import CLASSES as FUNCTION_CLASSES
from .keep import remember
from .objects import NUMBERS, foreign, is_keras, named, refusal_of_value
from .spec import LayerSpec
from .values import get_dict, get_text, malformed, optional_text, shown

L = TypeVar("L", bound=Layer)

# What a file repeats elsewhere.
COMMON_KEYS = frozenset(
    {"name", "dtype", "batch_input_shape", "batch_shape", "build_config", "autocast", "ragged"}
)
RULES = ("_regularizer", "_constraint")
"""How the keys end under which files have None for weights that a layer does not have."""
RNG_TYPES = (None, "stateful", "stateless", "legacy_stateful")
"""`rng_type` of Keras 2's random layers: how TensorFlow keeps its generator's state. Ours is torch's."""

MOST_NESTED = 8
"""Activation layers in one another, as Activation(Activation(ReLU()))."""

APPLICATIONS = frozenset({"LayerScale", "CustomScaleLayer", "StochasticDepth"})
"""Classes that keras.applications registers for itself; from elsewhere these names are somebody's own."""

REGISTERED = "Custom>"
"""What Keras 2 puts before the name of a registered class."""


def is_operation(spec: LayerSpec) -> bool:
    """Whether the entry is an operation on tensors rather than a layer."""
    return spec.class_name in FUNCTION_CLASSES or ".ops." in f"{spec.module or ''}."


def refusal(spec: LayerSpec) -> str | None:
    """Why no declaration serves this entry, or None."""
    if is_operation(spec):
        known = OPERATIONS.get(spec.class_name)
        if known is not None and spec.module == known.module:
            return None
        return f"operation {shown(spec.config.get('function', spec.class_name))}"
    if _known(spec):
        return None
    where = ""
    if spec.module and not spec.module.endswith("keras.layers"):
        where = f" of module {spec.module!r:.80}"
    elif spec.registered_name not in (None, spec.class_name):
        where = f", registered as {spec.registered_name!r:.80}"
    return f"class {spec.class_name!r:.80}{where}"


def _known(spec: LayerSpec) -> bool:
    """Whether the entry means a class of the table."""
    name = _class_name(spec)
    if name not in DECLARATIONS or not is_keras(spec.module):
        return False
    if name not in APPLICATIONS:
        return spec.registered_name in (None, name)
    registered = (spec.registered_name or name).removeprefix(REGISTERED)
    return "applications" in (spec.module or "").split(".") or (spec.module is None and registered == name)


def _class_name(spec: LayerSpec) -> str:
    """The class under its own name, without what Keras 2 puts before the applications' own."""
    bare = spec.class_name.removeprefix(REGISTERED)
    return bare if bare in APPLICATIONS else ALIASES.get(spec.class_name, spec.class_name)


def declare(spec: LayerSpec, depth: int = 0) -> Layer:
    """The layer an entry describes; depth: how many layers it stands in, as their argument.

    Raises UnsupportedLayerError for a key or value without a meaning here, ModelFormatError for a wrong one.
    """
    declaration = OPERATIONS[spec.class_name] if is_operation(spec) else DECLARATIONS[_class_name(spec)]
    return _declared(spec, declaration, _arguments(spec, declaration, depth))


def declare_input(spec: LayerSpec, shape: Sequence[int | None]) -> InputLayer:
    """The input an entry describes, with this shape of one sample."""
    _refuse_unknown(spec, InputLayer, {"shape", "dtype", "trainable"})
    arguments = {"shape": list(shape), "dtype": spec.config.get("dtype") or "float32"}
    return _declared(spec, InputLayer, arguments)


def _declared(spec: LayerSpec, declaration: type[L], arguments: dict[str, Any]) -> L:
    try:
        return declaration(**arguments, name=spec.name)
    except UnsupportedLayerError as error:
        raise UnsupportedLayerError(f"{spec.place}: {error}") from None
    except ConvLoomError as error:
        raise ModelFormatError(f"{spec.place}: {error}") from None


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
        if field.metadata.get("check") is a_layer_or_model and _is_model(value):
            arguments[key] = _inner_model(spec, key, value)
        elif field.metadata.get("check") in (a_layer, a_layer_or_model):
            arguments[key] = _inner_layer(spec, key, value, depth + 1)
        elif field.metadata.get("check") is f.initializer:
            found = from_config(value) if isinstance(value, dict) else from_class_name(value)
            if found is not None:
                arguments[key] = found
        elif field.metadata.get("check") is f.activation:
            plain = _plain(value)
            arguments[key] = _inner_layer(spec, key, plain, depth + 1) if isinstance(plain, dict) else plain
        else:
            arguments[key] = _plain(value)
    return arguments


def _is_model(value: Any) -> bool:
    from .reader import is_model

    return isinstance(value, dict) and is_model(value, str(value.get("class_name")))


def _inner_model(spec: LayerSpec, key: str, value: dict[str, Any]) -> Block:
    """The model that an entry holds as its argument `key`. Raises as loading it alone does."""
    from .assemble import assemble
    from .reader import read_model

    try:
        return assemble(read_model(value))
    except ConvLoomError as error:
        raise type(error)(f"{spec.place}: {key}: {error}") from None


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
    if why is None and class_name == InputLayer.__name__:
        why = f"class {class_name!r}"
    if key == "activation" and (why or not DECLARATIONS[_class_name(inner)].activates):
        able = ", ".join(cls.__name__ for cls in DECLARATIONS.values() if cls.activates)
        why = f"{why or f'class {class_name!r:.80}'} cannot stand there; a name can, and {able}"
    elif why:
        why = f"{why} is not supported by ConvLoom"
    if why:
        raise UnsupportedLayerError(f"{place}: {why}")
    layer = declare(inner, depth)
    if "shared_object_id" in value and key == "activation" and _has_weights(layer):
        raise UnsupportedLayerError(
            f"{place}: {layer.label} shares its weights with another layer's activation"
        )
    remember(layer, Written(value, keras_3=spec.written is not None and spec.written.keras_3))
    return layer


def _has_weights(layer: Any) -> bool:
    """Whether a layer, or one that stands as its activation, will have weights."""
    inner = getattr(layer, "activation", None)
    return type(layer).weights is not Layer.weights or (isinstance(inner, Layer) and _has_weights(inner))


def _plain(value: Any) -> Any:
    """A number wrapped by NumPy, or a function of Keras's given by its name, -> the number, the name."""
    if not isinstance(value, dict):
        return value
    if isinstance(value.get("config"), dict) and value.get("class_name") in NUMBERS:
        return value["config"].get("value")
    if value.get("class_name") == "function":
        return named(value) if foreign(value) else value.get("config")
    return value


def _refuse_unknown(spec: LayerSpec, declaration: type[Layer], known: set[str]) -> None:
    for key, value in spec.config.items():
        if key in known or key in COMMON_KEYS or key in declaration.ignored:
            # Regularizers and constraints are looked at where a field reads them.
            unread = key not in known or key.endswith("_initializer")
            if unread and (why := refusal_of_value(key, value)):
                raise UnsupportedLayerError(f"{spec.place}: {key} is {why}; replace it before saving")
            continue
        if key == "rng_type" and value in RNG_TYPES:
            continue
        if key.endswith(RULES) and value is None:
            continue
        if key in declaration.neutral and any(
            value == v and type(value) is type(v) for v in declaration.neutral[key]
        ):
            continue
        raise UnsupportedLayerError(
            f"{spec.place}: {spec.class_name} with {key}={shown(value)} is not supported by ConvLoom"
        )
