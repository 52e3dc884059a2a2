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


def option(check: Check, *, default: Any = dataclasses.MISSING, kw_only: bool = False) -> Any:
    """A field of a declaration, with Keras's default where there is one. kw_only: given by name alone."""
    return dataclasses.field(default=default, kw_only=kw_only, metadata={"check": check})


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


def within(least: float, most: float) -> Check:
    """A number from `least` to `most`."""

    def check(value: Any) -> float:
        result = number(value)
        if not least <= result <= most:
            raise ShapeError(f"must lie in [{least:g}, {most:g}], got {value!r}")
        return result

    return check


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


def sizes(value: Any) -> tuple[int, ...]:
    """Integers, one an axis; -1 stands for the size that follows from the others."""
    values = (value,) if _is_int(value) else value
    if not isinstance(values, (list, tuple)) or not all(_is_int(v) and (v == -1 or v > 0) for v in values):
        raise ShapeError(f"must be positive integers, one of them -1 at most, got {value!r}")
    if list(values).count(-1) > 1:
        raise ShapeError(f"may hold one -1 at most, got {value!r}")
    return tuple(values)


def image_shape(value: Any) -> tuple[int, ...]:
    """The shape of one sample, without the batch."""
    if not isinstance(value, (list, tuple)):
        raise ShapeError(f"must be a tuple of positive integers without the batch axis, got {value!r}")
    if any(v is None for v in value):
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


def open_shape(value: Any) -> tuple[int | None, ...]:
    """Sizes, None on axes left open."""
    if not isinstance(value, (list, tuple)):
        raise ShapeError(f"must be a list of sizes, got {value!r}")
    return tuple(None if v is None else count(v) for v in value)


def axes(value: Any) -> tuple[int, ...]:
    """One axis or several."""
    found = value if isinstance(value, (list, tuple)) else (value,)
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


# -- ranges of random factors --------------------------------------------------------------------------------
Range = tuple[float, float]


def factor(least: float, most: float, *, every: bool = False, above: bool = False) -> Check:
    """(lower, upper), or a number for both ways as far as the bounds allow -> (lower, upper).

    every: each number must lie within the bounds; otherwise, as in Keras, only some of the range. above: and
    above the lower one.
    """
    bounds = f"{'(' if above else '['}{least:g}, {most:g}]"

    def inside(value: float) -> bool:
        return least <= value <= most and not (above and value == least)

    def check(value: Any) -> Range:
        if isinstance(value, (list, tuple)) and len(value) == 2:
            lower, upper = sorted(map(number, value))
            if (inside(lower) and inside(upper)) if every else (lower <= most and upper >= least):
                return lower, upper
        elif not isinstance(value, (list, tuple)) and inside(number(value)):
            return max(-abs(number(value)), least), abs(number(value))
        raise ShapeError(f"must be a number in {bounds} or a pair of them, got {value!r}")

    return check


def shear(value: Any) -> float | Range:
    """A number from 0 to 1 for both ways, or a pair of them. Keras writes the number 0.1 as [-0.1, 0.1]."""
    if isinstance(value, (list, tuple)) and len(value) == 2 and number(value[0]) == -number(value[1]) <= 0:
        value = value[1]
    found: Range = factor(0, 1, every=True)(value)
    return found if isinstance(value, (list, tuple)) else found[1]


def ends(value: float | Sequence[float]) -> Range:
    """A factor in its normal form as (lower, upper)."""
    lower, upper = value if isinstance(value, Sequence) else (-value, value)
    return lower, upper


def mean(value: float | Sequence[float]) -> float:
    """The chance of what happens with a probability that is itself drawn evenly from a factor."""
    return sum(ends(value)) / 2


def value_range(value: Any) -> Range:
    """The least and the largest value of an image, in either order."""
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise ShapeError(f"must be two numbers, got {value!r}")
    lower, upper = sorted(map(number, value))
    return lower, upper


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


def plain(value: Any) -> Any:
    """A value that is kept as it is: a number, a string, or a list of numbers."""
    items = value if isinstance(value, (list, tuple)) else (value,)
    if not all(v is None or isinstance(v, (bool, int, float, str)) for v in items):
        raise ShapeError(f"must be a number, a string or a list of numbers, got {value!r:.80}")
    return tuple(value) if isinstance(value, list) else value


def initializer(value: Any) -> str:
    if not isinstance(value, str) or value not in INITIALIZERS:
        raise UnsupportedLayerError(
            f"{value!r} is not a known initializer; use one of {', '.join(INITIALIZERS)}"
        )
    return value


def maybe(check: Check) -> Check:
    """The check for anything but None, which stays."""
    return lambda value: None if value is None else check(value)
