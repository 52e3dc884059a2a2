"""JSON of strangers: bounded in size and depth, without duplicate keys, and with finite numbers only."""

from __future__ import annotations

import json
import re
from collections import Counter
from math import isfinite
from typing import Any

from ...graph.errors import ModelFormatError, UnsafeModelError
from .limits import DEFAULT, Limits
from .values import shown

LONGEST_NUMBER = 64
LONGEST_KEY = 256

Path = tuple[Any, str | int] | None
"""Where a value stands: (the path of what holds it, its key), None for the whole."""

# A string, closed or not, or a bracket; the quantifiers never go back, so the scan is linear.
_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


def parse_json(text: str | bytes, where: str, limits: Limits = DEFAULT) -> Any:
    """JSON text -> plain values. Raises ModelFormatError, naming `where` and the place in the text."""
    limits.check("json_bytes", len(text), where, "bytes of JSON")
    try:
        plain = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        # Every value but the first follows a bracket or a comma.
        limits.check("json_values", sum(map(plain.count, ",[{")), where, "values of JSON")
        _check_depth(plain, where, limits)
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
    except RecursionError:
        raise ModelFormatError(f"{where}: JSON nested deeper than this thread's stack allows") from None
    check_tree(value, where, limits)
    return value


def check_tree(value: Any, where: str, limits: Limits = DEFAULT) -> None:
    """Bound a tree of plain values, whoever made it, and refuse code wherever it hides."""
    stack: list[tuple[Any, int, Path]] = [(value, 1, None)]
    visited = 0
    while stack:
        item, depth, path = stack.pop()
        visited += 1
        if isinstance(item, str):
            if len(item) > limits.text:
                limits.exceeded("text", len(item), _place(where, path), "characters of text")
        elif isinstance(item, dict):
            if item.get("class_name") == "__lambda__":
                raise UnsafeModelError(
                    f"{_place(where, path)}: holds a serialized Python function (__lambda__), which would be "
                    f"code to run; replace the Lambda by layers"
                )
            if not all(map(_is_key, item)):
                raise ModelFormatError(
                    f"{_place(where, path)}: keys must be printable text of {LONGEST_KEY} characters at most"
                )
            stack += [(child, depth + 1, (path, key)) for key, child in item.items()]
        elif isinstance(item, (list, tuple)):
            stack += [(child, depth + 1, (path, index)) for index, child in enumerate(item)]
        elif not isinstance(item, bool) and item is not None:
            _check_number(item, where, path, limits)
        if depth > limits.json_depth:
            limits.exceeded("json_depth", depth, _place(where, path), "levels of nesting")
        if visited + len(stack) > limits.json_values:
            limits.exceeded("json_values", visited + len(stack), where, "values")


def _is_key(key: Any) -> bool:
    return isinstance(key, str) and len(key) <= LONGEST_KEY and key.isprintable()


def _check_number(item: Any, where: str, path: Path, limits: Limits) -> None:
    if isinstance(item, float):
        if not isfinite(item):
            raise ModelFormatError(f"{_place(where, path)}: holds the number {item}; numbers must be finite")
    elif not isinstance(item, int):
        raise ModelFormatError(
            f"{_place(where, path)}: holds a {type(item).__name__}, which JSON does not have"
        )
    elif item.bit_length() > limits.integer_bits:
        limits.exceeded("integer_bits", item.bit_length(), _place(where, path), "bits in a whole number")


def _place(where: str, path: Path) -> str:
    """where: config.layers[3].config.filters"""
    parts: list[str] = []
    while path is not None:
        path, key = path
        parts.append(f"[{key}]" if isinstance(key, int) else f".{shown(key)[1:-1]}")
    shortened = parts if len(parts) <= 24 else [*parts[:12], "...", *parts[-12:]]
    return f"{where}: {''.join(reversed(shortened)).removeprefix('.')}" if parts else where


def _check_depth(text: str, where: str, limits: Limits) -> None:
    depth = 0
    for token in _TOKENS.finditer(text):
        mark = token.group()
        if mark in "[{":
            depth += 1
            if depth > limits.json_depth:
                limits.exceeded(
                    "json_depth", depth, f"{where}: character {token.start()}", "levels of nesting"
                )
        elif mark in "]}":
            depth -= 1


def _unique(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ModelFormatError(f"{where}: the key {shown(twice)} stands twice in one object")
    return result


def _refuse_constant(name: str, where: str) -> Any:
    raise ModelFormatError(f"{where}: holds {name}; numbers must be finite")


def _number(kind: type[int] | type[float], digits: str, where: str) -> int | float:
    if len(digits) > LONGEST_NUMBER:
        raise ModelFormatError(f"{where}: holds a number of {len(digits)} digits")
    return kind(digits)
