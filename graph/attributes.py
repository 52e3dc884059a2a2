"""Attributes of ops read from JSON: compared with the types their classes declare, for files are anybody's.

Attributes become source text of kernels, so nothing but numbers and words of the IR's own may stand in them.
"""

from __future__ import annotations

import re
import types
from functools import cache
from math import isfinite
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

Sentence = Annotated[str, "a sentence"]
"""The type of an attribute that is shown to people, and stands in no source text."""
NOT_FINITE = ("inf", "-inf", "nan")
"""How numbers are written that JSON does not have."""
LARGEST = 2**62
LONGEST = 1_000
_WORD = re.compile(r"[A-Za-z0-9_]{0,40}")


@cache
def declared(cls: type[Any]) -> dict[str, Any]:
    """The types of a class's fields."""
    return get_type_hints(cls, include_extras=True)


def plain(value: Any) -> Any:
    """A value as JSON has it: tuples are lists there, and what is no finite number is a word."""
    if isinstance(value, float) and not isfinite(value):
        return str(value)
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def checked(value: Any, kind: Any) -> Any:
    """The value where it is one of that type; raises TypeError, which says what it should be."""
    if kind is int and isinstance(value, int) and not isinstance(value, bool) and abs(value) < LARGEST:
        return value
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if kind is float and value in NOT_FINITE:
        return float(value)
    if kind is bool and isinstance(value, bool):
        return value
    if kind is str and isinstance(value, str) and _WORD.fullmatch(value):
        return value
    if kind == Sentence and isinstance(value, str) and len(value) <= LONGEST and (value + " ").isprintable():
        return value
    if kind is types.NoneType and value is None:
        return value
    if isinstance(kind, type) and kind not in (int, float, bool, str) and isinstance(value, kind):
        return value
    if get_origin(kind) in (Union, types.UnionType):
        return _one_of(value, get_args(kind))
    if get_origin(kind) is tuple and isinstance(value, tuple):
        kinds = get_args(kind)
        if kinds[-1] is Ellipsis:
            return tuple(checked(item, kinds[0]) for item in value)
        if len(kinds) == len(value):
            return tuple(checked(item, k) for item, k in zip(value, kinds, strict=True))
    raise TypeError(f"{value!r:.80} is no {getattr(kind, '__name__', kind)}")


def _one_of(value: Any, kinds: tuple[Any, ...]) -> Any:
    for kind in kinds:
        try:
            return checked(value, kind)
        except TypeError:
            continue
    raise TypeError(f"{value!r:.80} is none of {', '.join(getattr(k, '__name__', str(k)) for k in kinds)}")
