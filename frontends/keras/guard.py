"""JSON of strangers: bounded in size and depth, without duplicate keys, and with finite numbers only."""

from __future__ import annotations

import json
import re
from math import isinf, isnan
from typing import Any

from ...graph.errors import ModelFormatError, UnsafeModelError

LARGEST_TEXT = 64 * 2**20
"""Characters of a model's JSON; the largest network of keras.applications has one million."""
DEEPEST = 200
MOST_VALUES = 10_000_000
LONGEST_NUMBER = 64

# A string, closed or not, or a bracket; the quantifiers never go back, so the scan is linear.
_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


def parse_json(text: str | bytes, where: str) -> Any:
    """JSON text -> plain values. Raises ModelFormatError, naming `where` and the place in the text."""
    if len(text) > LARGEST_TEXT:
        raise ModelFormatError(
            f"{where}: {len(text):,} characters of JSON; at most {LARGEST_TEXT:,} are read"
        )
    try:
        plain = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        _check_depth(plain, where)
        value = json.loads(
            plain,
            object_pairs_hook=lambda pairs: _unique(pairs, where),
            parse_constant=lambda name: _refuse_constant(name, where),
            parse_int=lambda digits: _number(int, digits, where),
            parse_float=lambda digits: _number(float, digits, where),
        )
    except json.JSONDecodeError as error:
        raise ModelFormatError(
            f"{where}: not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from None
    except UnicodeDecodeError as error:
        raise ModelFormatError(f"{where}: not UTF-8 text: byte {error.start} is {error.reason}") from None
    check_tree(value, where)
    return value


def check_tree(value: Any, where: str) -> None:
    """Bound a tree of plain values, whoever made it, and refuse code wherever it hides."""
    stack: list[tuple[Any, int]] = [(value, 1)]
    visited = 0
    while stack:
        item, depth = stack.pop()
        visited += 1
        if depth > DEEPEST or visited > MOST_VALUES:
            raise ModelFormatError(
                f"{where}: nested deeper than {DEEPEST} levels, or more than {MOST_VALUES:,} values"
            )
        if isinstance(item, dict):
            if item.get("class_name") == "__lambda__":
                raise UnsafeModelError(
                    f"{where}: holds a serialized Python function (__lambda__), which would be code to run; "
                    f"replace the Lambda by layers"
                )
            if not all(isinstance(key, str) for key in item):
                raise ModelFormatError(f"{where}: keys must be text")
            stack += [(child, depth + 1) for child in item.values()]
        elif isinstance(item, (list, tuple)):
            stack += [(child, depth + 1) for child in item]
        elif isinstance(item, float):
            if isnan(item) or isinf(item):
                raise ModelFormatError(f"{where}: holds the number {item}; numbers must be finite")
        elif item is not None and not isinstance(item, (str, int, bool)):
            raise ModelFormatError(f"{where}: holds a {type(item).__name__}, which JSON does not have")


def _check_depth(text: str, where: str) -> None:
    depth = 0
    for token in _TOKENS.finditer(text):
        mark = token.group()
        if mark in "[{":
            depth += 1
            if depth > DEEPEST:
                raise ModelFormatError(
                    f"{where}: JSON nested deeper than {DEEPEST} levels at character {token.start()}"
                )
        elif mark in "]}":
            depth -= 1


def _unique(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ModelFormatError(f"{where}: the key {twice!r:.80} stands twice in one object")
    return result


def _refuse_constant(name: str, where: str) -> Any:
    raise ModelFormatError(f"{where}: holds {name}; numbers must be finite")


def _number(kind: type[int] | type[float], digits: str, where: str) -> int | float:
    if len(digits) > LONGEST_NUMBER:
        raise ModelFormatError(f"{where}: holds a number of {len(digits)} digits")
    return kind(digits)
