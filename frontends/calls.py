"""The arguments of a layer's call, given by place and by name, as tensors in order and options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..graph.errors import ShapeError, UnsupportedLayerError
from .lowering import flatten_tensors
from .symbolic import SymbolicTensor

if TYPE_CHECKING:
    from .layers.base import Layer


def call_arguments(
    layer: Layer, given: Sequence[Any], named: Mapping[str, Any]
) -> tuple[list[SymbolicTensor], dict[str, Any]]:
    """The tensors of a call, and those of its options that differ from their defaults.

    Raises ShapeError for missing or superfluous tensors, UnsupportedLayerError for an option that the layer
    does not have, or not with that value.
    """
    names = layer.tensors or ("inputs",)
    if len(given) > len(names):
        raise ShapeError(f"{layer.label}: a call takes {_listed(names)}, got {len(given)} arguments")
    found = dict(zip(names, given, strict=False))
    options: dict[str, Any] = {}
    for key, value in named.items():
        if key in found:
            raise ShapeError(f"{layer.label}: {key} is given twice, by place and by name")
        if key in names:
            found[key] = value
        elif value is not _allowed(layer, key, value, names):
            options[key] = value
    if not layer.tensors:
        return flatten_tensors(found.get("inputs"), layer.label), options
    return _one_by_one(layer, found), options


def _one_by_one(layer: Layer, found: Mapping[str, Any]) -> list[SymbolicTensor]:
    """The tensors by their names; the last ones may be missing."""
    present = [name for name in layer.tensors if found.get(name) is not None]
    least = layer.tensors[: layer.arity[0]]
    if missing := [name for name in (*least, *layer.tensors[: len(present)]) if name not in present]:
        raise ShapeError(
            f"{layer.label}: a call needs a {missing[0]}; it takes {_listed(layer.tensors)}, one by one"
        )
    for name in present:
        if not isinstance(found[name], SymbolicTensor):
            flatten_tensors(found[name], f"{layer.label}: {name}")
            raise ShapeError(f"{layer.label}: {name} must be one tensor, got a list; give tensors one by one")
    return [found[name] for name in present]


def _allowed(layer: Layer, key: str, value: Any, names: Sequence[str]) -> Any:
    """The option's default, if it may have this value."""
    values = layer.options.get(key)
    if values is None:
        raise UnsupportedLayerError(
            f"{layer.label}: a call has no argument {key!r:.80}; it takes {_listed([*names, *layer.options])}"
        )
    if not any(value is allowed for allowed in values):
        shown = type(value).__name__ if isinstance(value, SymbolicTensor) else repr(value)[:60]
        raise UnsupportedLayerError(
            f"{layer.label}: a call with {key}={shown} is not supported; {key} may be "
            f"{' or '.join(map(repr, values))}"
        )
    return values[0]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
