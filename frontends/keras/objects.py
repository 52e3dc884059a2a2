"""Objects that stand inside a configuration, as {module, class_name, config, registered_name}.

Keras makes initializers, regularizers, constraints and dtype policies of them. Each must be one of Keras's
own, in the place where Keras has it: nothing that a file says is accepted and then ignored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...graph.op import snake_case
from .values import shown

ROOTS = ("keras", "tf_keras")
"""Packages whose classes are Keras's own."""
OF_TENSORFLOW = ("tensorflow.keras", "tensorflow.python.keras", "tensorflow.python.ops.init_ops")
"""Where TensorFlow had parts of Keras 2, its initializers among them."""

NUMBERS = ("__numpy__", "__tensor__")
PLAIN = (*NUMBERS, "__tuple__")
"""Classes under which Keras writes plain values."""

INITIALIZERS = frozenset(
    {
        *("zeros", "ones", "constant", "identity", "identity_initializer", "orthogonal"),
        *("orthogonal_initializer", "random_normal", "random_uniform", "truncated_normal"),
        *("variance_scaling", "glorot_normal", "glorot_uniform", "he_normal", "he_uniform"),
        *("lecun_normal", "lecun_uniform", "stft", "stft_initializer"),
    }
)
REGULARIZERS = frozenset({"l1", "l2", "l1_l2", "l1l2", "orthogonal_regularizer"})
CONSTRAINTS = frozenset(
    {"max_norm", "non_neg", "unit_norm", "min_max_norm", "radial_constraint", "maxnorm", "nonneg", "unitnorm"}
)
KINDS = {"_initializer": INITIALIZERS, "_regularizer": REGULARIZERS, "_constraint": CONSTRAINTS}
"""The end of a key -> the names, in snake case, of what Keras has for it."""

POLICIES = ("DTypePolicy", "FloatDTypePolicy", "Policy", "PolicyV1")
POLICY_NAMES = ("float32", "float64", "float16", "bfloat16", "mixed_float16", "mixed_bfloat16")
"""Policies of floating point. Which one a network computes in is said when it is compiled."""


def is_keras(module: str | None) -> bool:
    """Whether a class of that module is Keras's own; older files name no module."""
    return module is None or module.split(".")[0] in ROOTS or module.startswith(OF_TENSORFLOW)


def foreign(value: Mapping[str, Any]) -> bool:
    """Whether an object names a module outside Keras, or was registered under a name of its own."""
    module, registered = value.get("module"), value.get("registered_name")
    if module is not None and not isinstance(module, str):
        return True
    return not (is_keras(module) or (module == "builtins" and value.get("class_name") == "function")) or (
        registered not in (None, value.get("class_name"))
    )


def named(value: Mapping[str, Any]) -> str:
    """How an error names an object."""
    function = value.get("class_name") == "function"
    what = f"function {shown(value.get('config'))}" if function else f"class {shown(value.get('class_name'))}"
    registered = value.get("registered_name")
    if value.get("module") not in (None, "builtins"):
        return f"{what} of module {shown(value['module'])}"
    return (
        what
        if registered in (None, value.get("class_name"))
        else f"{what}, registered as {shown(registered)}"
    )


def refusal_of_value(key: str, value: Any) -> str | None:
    """Why what stands under a key of a configuration cannot be accepted without being read, or None."""
    if key == "dtype":
        return _refusal_of_policy(value)
    for ending, known in KINDS.items():
        if key.endswith(ending):
            return _refusal_of_object(value, known, ending[1:])
    for found in _objects(value):
        if found.get("class_name") not in PLAIN:
            return f"{named(found)}, which has no meaning there"
    return None


def _refusal_of_object(value: Any, known: frozenset[str], kind: str) -> str | None:
    """None for a name of the table, an object of that class, or nothing."""
    if value is None:
        return None
    name: Any
    if isinstance(value, str):
        name, shown_as = value, f"{value!r:.80}"
    elif isinstance(value, Mapping) and isinstance(value.get("class_name"), str):
        function = value["class_name"] == "function"
        name, shown_as = value.get("config") if function else value["class_name"], named(value)
        if foreign(value):
            return f"{shown_as}, which is not among Keras's {kind}s"
    else:
        return f"{shown(value)}, which is no {kind}"
    if isinstance(name, str) and (snake_case(name) in known or name.lower() in known):
        return None
    return f"{shown_as}, which is not among Keras's {kind}s"


def _refusal_of_policy(value: Any) -> str | None:
    """None for a floating point policy of Keras's, by name or as an object."""
    name = value
    if isinstance(value, Mapping):
        config = value.get("config")
        if foreign(value) or value.get("class_name") not in POLICIES or not isinstance(config, Mapping):
            return f"{named(value)}, which is not among Keras's dtype policies of floating point"
        name = config.get("name")
    if name is None or name in POLICY_NAMES:
        return None
    return f"{shown(name)}, which is not among Keras's dtype policies of floating point"


def _objects(value: Any) -> Iterator[Mapping[str, Any]]:
    """The objects in a value, however deep; a file's depth is bounded before."""
    if isinstance(value, Mapping):
        if "class_name" in value:
            yield value
        value = list(value.values())
    for item in value if isinstance(value, (list, tuple)) else ():
        yield from _objects(item)
