"""Fields of layer declarations and the checks of their values.

A check takes what the user wrote and returns it in its normal form, or raises a ConvLoomError whose text
continues "<layer>: <field> ...". `Layer` puts the layer and the field in front.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from ..graph.errors import ShapeError, UnsupportedLayerError
from ..graph.windows import Padding, Pair
from .activations import ACTIVATIONS
from .initializers import INITIALIZERS

Check = Callable[[Any], Any]
PairLike = int | Sequence[int]
PaddingLike = str | int | Sequence[int] | Sequence[Sequence[int]]

LARGEST = 2**31 - 1
MOST_AXES = 32
"""Of one value; a list of a million sizes would multiply to a number of a million digits."""


def option(check: Check, *, default: Any = dataclasses.MISSING) -> Any:
    """A field of a declaration, with Keras's default where there is one."""
    return dataclasses.field(default=default, metadata={"check": check})


# -- numbers -------------------------------------------------------------------------------------------------
def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def count(value: Any) -> int:
    """A positive integer."""
    if not _is_int(value) or not 1 <= value <= LARGEST:
        raise ShapeError(f"must be a positive integer, got {value!r}")
    return int(value)


def integer(value: Any) -> int:
    if not _is_int(value) or abs(value) > LARGEST:
        raise ShapeError(f"must be an integer, got {value!r}")
    return int(value)


def axis(value: Any) -> int:
    """One axis; Keras 2 writes a list of one."""
    if isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]
    return integer(value)


def number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < float("inf"):
        raise ShapeError(f"must be a finite number, got {value!r}")
    return float(value)


def positive(value: Any) -> float:
    result = number(value)
    if result <= 0:
        raise ShapeError(f"must be a positive number, got {value!r}")
    return result


def fraction(value: Any) -> float:
    """A number from 0 up to, but not including, 1."""
    result = number(value)
    if not 0 <= result < 1:
        raise ShapeError(f"must lie in [0, 1), got {value!r}")
    return result


def flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ShapeError(f"must be True or False, got {value!r}")
    return value


def pair(value: Any) -> Pair:
    """Positive integers for height and width; one integer counts for both."""
    values = (value, value) if _is_int(value) else value
    if not isinstance(values, (list, tuple)) or len(values) != 2 or not all(map(_is_int, values)):
        raise ShapeError(f"must be an integer or a pair (height, width), got {value!r}")
    if not all(1 <= v <= LARGEST for v in values):
        raise ShapeError(
            f"must be positive integers, got {value!r}; use an integer or a pair (height, width), each >= 1"
        )
    return values[0], values[1]


def few(value: Any) -> Any:
    """A list that has no more entries than a value has axes."""
    if isinstance(value, (list, tuple)) and len(value) > MOST_AXES:
        raise ShapeError(f"has {len(value):,} entries; a value has at most {MOST_AXES} axes")
    return value


def sizes(value: Any) -> tuple[int, ...]:
    """Integers, one an axis; -1 stands for the size that follows from the others."""
    values = (value,) if _is_int(value) else few(value)
    if not isinstance(values, (list, tuple)) or not all(_is_int(v) and (v == -1 or v > 0) for v in values):
        raise ShapeError(f"must be positive integers, one of them -1 at most, got {value!r}")
    if list(values).count(-1) > 1:
        raise ShapeError(f"may hold one -1 at most, got {value!r}")
    return tuple(values)


def image_shape(value: Any) -> tuple[int, ...]:
    """The shape of one sample, without the batch."""
    if not isinstance(value, (list, tuple)):
        raise ShapeError(f"must be a tuple of positive integers without the batch axis, got {value!r}")
    if any(v is None for v in few(value)):
        raise ShapeError(
            f"must be known on every axis but the batch, got {tuple(value)!r}; give each axis a size"
        )
    return tuple(count(v) for v in value)


Numbers = float | Sequence[float]


def numbers(value: Any) -> float | tuple[float, ...]:
    """A number, or a list of them (nested in lists of one, as NumPy arrays are written)."""
    while isinstance(value, (list, tuple)) and len(value) == 1 and isinstance(value[0], (list, tuple)):
        value = value[0]
    if isinstance(value, (list, tuple)) and value:
        return tuple(number(v) for v in value)
    return number(value)


def listed(value: Any) -> Sequence[Any]:
    """A list or a tuple with an entry for each axis."""
    if not isinstance(value, (list, tuple)):
        raise ShapeError(f"must be a list, got {value!r:.80}")
    found: Sequence[Any] = few(value)
    return found


def open_shape(value: Any) -> tuple[int | None, ...]:
    """Sizes, None on axes left open."""
    if not isinstance(value, (list, tuple)):
        raise ShapeError(f"must be a list of sizes, got {value!r}")
    return tuple(None if v is None else count(v) for v in value)


def axes(value: Any) -> tuple[int, ...]:
    """One axis or several."""
    found = few(value) if isinstance(value, (list, tuple)) else (value,)
    if not found:
        raise ShapeError("must name at least one axis, got none")
    return tuple(integer(v) for v in found)


def extra(value: Any) -> Pair:
    """Rows and columns to add, each 0 or more; one number counts for both."""
    values = (value, value) if _is_int(value) else value
    if not isinstance(values, (list, tuple)) or len(values) != 2 or not all(map(_is_int, values)):
        raise ShapeError(f"must be an integer or a pair of them, got {value!r}")
    if not all(0 <= v <= LARGEST for v in values):
        raise ShapeError(f"must be at least 0, got {value!r}")
    return values[0], values[1]


def some_axes(value: Any) -> tuple[int, ...] | None:
    """Axes, or None where there are none: files have an empty list for it."""
    return None if value is None or (isinstance(value, (list, tuple)) and not value) else axes(value)


# -- padding -------------------------------------------------------------------------------------------------
def border(value: Any) -> Padding:
    """n, (rows, columns) or ((top, bottom), (left, right)) -> the latter; each at least 0."""
    outer = (value, value) if _is_int(value) else value
    if isinstance(outer, (list, tuple)) and len(outer) == 2:
        inner = [(v, v) if _is_int(v) else v for v in outer]
        if all(isinstance(v, (list, tuple)) and len(v) == 2 and all(map(_is_int, v)) for v in inner):
            if min(n for v in inner for n in v) < 0:
                raise ShapeError(f"must not be negative, got {value!r}")
            return (inner[0][0], inner[0][1]), (inner[1][0], inner[1][1])
    raise ShapeError(f"must be n, (rows, columns) or ((top, bottom), (left, right)), got {value!r}")


def window_padding(value: Any) -> str | Padding:
    """`same`, `valid`, or explicit ((top, bottom), (left, right))."""
    if isinstance(value, str):
        if value.lower() in ("same", "valid"):
            return value.lower()
    elif isinstance(value, (list, tuple)):
        return border(value)
    raise ShapeError(f"must be 'same', 'valid' or ((top, bottom), (left, right)), got {value!r}")


# -- names ---------------------------------------------------------------------------------------------------
def choice(*allowed: str) -> Check:
    def check(value: Any) -> str:
        if value not in allowed:
            raise UnsupportedLayerError(f"must be {' or '.join(map(repr, allowed))}, got {value!r}")
        return str(value)

    return check


_LAYOUT = choice("channels_last", "channels_first")


def data_format(value: Any) -> str:
    return str(_LAYOUT("channels_last" if value is None else value))


def activation(value: Any) -> str:
    """A name of the table; None is linear."""
    if value is None:
        return "linear"
    if not isinstance(value, str) or value not in ACTIVATIONS:
        raise UnsupportedLayerError(
            f"{value!r} is not a known activation; use one of {', '.join(ACTIVATIONS)}"
        )
    return value


def initializer(value: Any) -> str:
    if not isinstance(value, str) or value not in INITIALIZERS:
        raise UnsupportedLayerError(
            f"{value!r} is not a known initializer; use one of {', '.join(INITIALIZERS)}"
        )
    return value


def maybe(check: Check) -> Check:
    """The check for anything but None, which stays."""
    return lambda value: None if value is None else check(value)
