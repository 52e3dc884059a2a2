"""Reading single values out of a file, each error naming the place."""

from __future__ import annotations

from typing import Any, NoReturn

from ...graph.errors import ModelFormatError


def malformed(place: str, text: str) -> NoReturn:
    """Raise ModelFormatError for what stands at `place`."""
    raise ModelFormatError(f"{place}: {text}")


def shown(value: Any) -> str:
    """A value of a file in an error: short, and on one line."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def get_dict(parent: dict[str, Any], key: str, place: str) -> dict[str, Any]:
    """The object under a key; raises ModelFormatError for anything else."""
    value = parent.get(key)
    if not isinstance(value, dict):
        malformed(place, f"{key} must be an object, found {'nothing' if value is None else shown(value)}")
    return value


def get_list(parent: dict[str, Any], key: str, place: str) -> list[Any]:
    """The list under a key; raises ModelFormatError for anything else."""
    value = parent.get(key)
    if not isinstance(value, (list, tuple)):
        malformed(place, f"{key} must be a list, found {'nothing' if value is None else shown(value)}")
    return list(value)


def get_text(parent: dict[str, Any], key: str, place: str) -> str:
    """The text under a key, which is not empty; raises ModelFormatError for anything else."""
    value = parent.get(key)
    if not isinstance(value, str) or not value:
        malformed(place, f"{key} must be text, found {'nothing' if value is None else shown(value)}")
    return value


def optional_text(parent: dict[str, Any], key: str, place: str) -> str | None:
    """The text under a key, or None where there is none."""
    return None if parent.get(key) is None else get_text(parent, key, place)


def index(value: Any, place: str) -> int:
    """A node or tensor index; negative ones would silently count from the end."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
        malformed(place, f"an index must be an integer from 0 on, found {shown(value)}")
    return value
