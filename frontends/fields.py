"""Fields of layer declarations and the checks of their values.

A check takes what the user wrote and returns it in its normal form, or raises a ConvLoomError whose text
continues "<layer>: <field> ...". `Layer` puts the layer and the field in front.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from math import inf
from numbers import Real
from typing import Any

import numpy as np

from ..graph.errors import ShapeError, UnsupportedLayerError, nearest
from .activations import ACTIVATIONS
from .budget import MOST_AXES
from .initializers import INITIALIZERS, OTHER_NAMES, Initializer, from_class_name, from_config
from .lowering import Block
from .names import is_printable

Check = Callable[[Any], Any]
PairLike = int | Sequence[int]
"""One number for each spatial axis, or one for all."""
BorderLike = int | Sequence[int] | Sequence[Sequence[int]]
PaddingLike = str | BorderLike

LARGEST = 2**31 - 1
AXES = {1: ("steps",), 2: ("height", "width"), 3: ("depth", "height", "width")}
"""The spatial axes of sequences, images and volumes."""

TUPLES = {1: "tuple of one", 2: "pair", 3: "triple"}


def option(check: Check | PerAxis, *, default: Any = dataclasses.MISSING, kw_only: bool = False) -> Any:
    """A field of a declaration, with Keras's default where there is one. kw_only: given by name alone."""
    return dataclasses.field(default=default, kw_only=kw_only, metadata={"check": check})


def in_python(value: Any) -> Any:
    """Numbers, words and arrays of NumPy as Python's own, in lists and tuples too."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return type(value)(map(in_python, value)) if type(value) in (list, tuple) else value
    return value


# -- numbers -------------------------------------------------------------------------------------------------
def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def count(value: Any) -> int:
    """A positive integer."""
    if not _is_int(value) or not 1 <= value <= LARGEST:
        raise ShapeError(f"must be a positive integer, got {value!r}")
    return int(value)


def integer(value: Any) -> int:
    """A whole number that fits 32 bits, of either sign."""
    if not _is_int(value) or abs(value) > LARGEST:
        raise ShapeError(f"must be an integer, got {value!r}")
    return int(value)


def axis(value: Any) -> int:
    """One axis; Keras 2 writes a list of one."""
    if isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]
    return integer(value)


def number(value: Any) -> float:
    """A finite number, of Python or NumPy."""
    try:
        result = inf if isinstance(value, bool) or not isinstance(value, Real) else float(value)
    except OverflowError:
        result = inf
    if not abs(result) < inf:
        raise ShapeError(f"must be a finite number, got {value!r:.80}")
    return result


def positive(value: Any) -> float:
    """A finite number above 0."""
    result = number(value)
    if result <= 0:
        raise ShapeError(f"must be a positive number, got {value!r}")
    return result


def at_least_zero(value: Any) -> float:
    """A finite number, 0 or above."""
    result = number(value)
    if result < 0:
        raise ShapeError(f"must not be negative, got {value!r}")
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
    """True or False, and no number in their place."""
    if not isinstance(value, bool):
        raise ShapeError(f"must be True or False, got {value!r}")
    return value


def integers(dims: int, least: int = 1) -> Check:
    """One integer for each of `dims` spatial axes, each at least `least`; one alone counts for all."""
    axes = f"({', '.join(AXES[dims])}{',' * (dims == 1)})"
    wanted = f"an integer or a {TUPLES[dims]} {axes}"

    def check(value: Any) -> tuple[int, ...]:
        values = (value,) * dims if _is_int(value) else value
        if not isinstance(values, (list, tuple)) or len(values) != dims or not all(map(_is_int, values)):
            raise ShapeError(f"must be {wanted}, got {value!r}")
        if not all(least <= v <= LARGEST for v in values):
            kind = "positive integers" if least == 1 else f"integers of at least {least}"
            raise ShapeError(f"must be {kind}, got {value!r}; use {wanted}, each >= {least}")
        return tuple(values)

    return check


pair = integers(2)
"""Positive integers for height and width; one integer counts for both."""
triple = integers(3)
"""The same for depth, height and width."""


@dataclasses.dataclass(frozen=True)
class PerAxis:
    """A check that depends on how many spatial axes a layer has; `Layer` takes the one for its own."""

    of: Callable[[int], Check]


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


def image_shape(value: Any) -> tuple[int | None, ...]:
    """The shape of one sample, without the batch; None on axes that may have any size."""
    if not isinstance(value, (list, tuple)):
        raise ShapeError(f"must be a tuple of positive integers without the batch axis, got {value!r}")
    return tuple(None if v is None else count(v) for v in few(value))


Array = Any
"""A number, or nested lists of them that make a rectangle, as NumPy has it."""


def array(value: Any) -> Any:
    """A number or a (nested) list of numbers, or a NumPy array, -> a number or nested tuples."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if not isinstance(value, (list, tuple)):
        return number(value)
    items = tuple(array(item) for item in value)
    if not items or len({array_shape(item) for item in items}) > 1:
        raise ShapeError(f"must be a number or lists of equal length, none empty, got {str(value)[:80]}")
    return items


def array_shape(value: Array) -> tuple[int, ...]:
    """The sizes of an array in its normal form; () for a number."""
    return (len(value), *array_shape(value[0])) if isinstance(value, tuple) else ()


def array_numbers(value: Array) -> tuple[float, ...]:
    """The numbers of an array in its normal form, in row-major order."""
    return tuple(n for item in value for n in array_numbers(item)) if isinstance(value, tuple) else (value,)


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
    return tuple(None if v is None else count(v) for v in few(value))


def axes(value: Any) -> tuple[int, ...]:
    """One axis or several."""
    found = few(value) if isinstance(value, (list, tuple)) else (value,)
    if not found:
        raise ShapeError("must name at least one axis, got none")
    return tuple(integer(v) for v in found)


def axis_or_pair(value: Any) -> int | tuple[int, int]:
    """One axis for two inputs, or one of each."""
    if isinstance(value, (list, tuple)):
        if len(value) != 2:
            raise ShapeError(f"must be an axis or a pair of axes, got {value!r}")
        return integer(value[0]), integer(value[1])
    return integer(value)


def some_counts(value: Any) -> tuple[int, ...]:
    """Positive integers, or one alone."""
    found = few(value) if isinstance(value, (list, tuple)) else (value,)
    if not found:
        raise ShapeError("must be at least one positive integer, got none")
    return tuple(count(v) for v in found)


def some_sizes(value: Any) -> tuple[int | None, ...]:
    """Sizes, None on axes left open, or one size alone."""
    return open_shape(value if isinstance(value, (list, tuple)) else (value,))


def axis_or_axes(value: Any) -> int | tuple[int, ...]:
    """One axis as a number, several as a tuple."""
    found = axes(value)
    return found[0] if len(found) == 1 else found


def some_axes(value: Any) -> tuple[int, ...] | None:
    """Axes, or None where there are none: files have an empty list for it."""
    return None if value is None or (isinstance(value, (list, tuple)) and not value) else axes(value)


# -- padding -------------------------------------------------------------------------------------------------
_BORDERS = {
    1: "n or (before, after)",
    2: "n, (rows, columns) or ((top, bottom), (left, right))",
    3: "n, (depth, rows, columns) or a pair (before, after) for each of them",
}


def border(dims: int) -> Check:
    """What lies around the data: a pair (before, after) for each spatial axis; for one axis, the pair alone.

    Given as n for every side, as one number an axis, or in full; each at least 0.
    """

    def check(value: Any) -> tuple[Any, ...]:
        outer = (value,) * max(dims, 2) if _is_int(value) else value
        pairs = (outer,) if dims == 1 else outer
        if isinstance(pairs, (list, tuple)) and len(pairs) == dims:
            inner = [(v, v) if _is_int(v) else v for v in pairs]
            if all(isinstance(v, (list, tuple)) and len(v) == 2 and all(map(_is_int, v)) for v in inner):
                if min(n for v in inner for n in v) < 0:
                    raise ShapeError(f"must not be negative, got {value!r}")
                return tuple(inner[0]) if dims == 1 else tuple(tuple(v) for v in inner)
        raise ShapeError(f"must be {_BORDERS[dims]}, got {value!r}")

    return check


def window_padding(dims: int, *modes: str) -> Check:
    """`same`, `valid`, another of `modes`, or an explicit border."""
    allowed = ("same", "valid", *modes)

    def check(value: Any) -> str | tuple[Any, ...]:
        hint = ""
        if isinstance(value, str):
            if value.lower() in allowed:
                return value.lower()
            hint = nearest(value, allowed)
        elif isinstance(value, (list, tuple)):
            result: tuple[Any, ...] = border(dims)(value)
            return result
        full = {1: "(before, after)", 2: "((top, bottom), (left, right))"}.get(dims, "three pairs")
        raise ShapeError(f"must be {', '.join(map(repr, allowed))} or {full}, got {value!r:.80}{hint}")

    return check


# -- names ---------------------------------------------------------------------------------------------------
def choice(*allowed: str) -> Check:
    """One of these words; another is unsupported rather than wrong."""

    def check(value: Any) -> str:
        if not isinstance(value, str) or value not in allowed:
            words = " or ".join(map(repr, allowed))
            raise UnsupportedLayerError(f"must be {words}, got {value!r:.80}{nearest(value, allowed)}")
        return value

    return check


def text(value: Any) -> str:
    """Printable text of 256 characters at most."""
    if not is_printable(value):
        raise ShapeError(f"must be printable text of 256 characters at most, got {value!r:.80}")
    return str(value)


_LAYOUT = choice("channels_last", "channels_first")


def data_format(value: Any) -> str:
    """ "channels_last", which None stands for too, or "channels_first"."""
    return str(_LAYOUT("channels_last" if value is None else value))


ActivationLike = str | Block | None


def activation(value: Any) -> str | Block:
    """A name of the table, or a layer that may stand as an activation; None is linear."""
    if value is None:
        return "linear"
    if isinstance(value, Block) and value.activates:
        return value
    if value == "threshold":
        raise UnsupportedLayerError(
            "'threshold' takes numbers, which a name cannot give; use a layer ReLU(threshold=...)"
        )
    if not isinstance(value, str) or value not in ACTIVATIONS:
        names = ", ".join(ACTIVATIONS)
        hint = nearest(value, ACTIVATIONS) or f"; use one of {names}, or a layer such as LeakyReLU(0.1)"
        raise UnsupportedLayerError(f"{value!r:.80} is not a known activation{hint}")
    return value


def plain(value: Any) -> Any:
    """A value that is kept as it is: a number, a string, or a list of numbers."""
    items = value if isinstance(value, (list, tuple)) else (value,)
    if not all(v is None or isinstance(v, (bool, int, float, str)) for v in items):
        raise ShapeError(f"must be a number, a string or a list of numbers, got {value!r:.80}")
    return tuple(value) if isinstance(value, list) else value


InitializerLike = str | Initializer


def initializer(value: Any) -> InitializerLike:
    """A name of the table of initializers, or another that Keras has for one there; an initializer; or what a
    file says of one."""
    if isinstance(value, type) and issubclass(value, Initializer):
        value = value()
    if isinstance(value, Mapping):
        value = from_config(value) or value
    if isinstance(value, Initializer):
        return value
    value = OTHER_NAMES.get(value) or from_class_name(value) or value if isinstance(value, str) else value
    if not isinstance(value, str) or value not in INITIALIZERS:
        hint = nearest(value, INITIALIZERS, "use one of")
        raise UnsupportedLayerError(f"{value!r:.80} is not a known initializer{hint}")
    return value


def maybe(check: Check) -> Check:
    """The check for anything but None, which stays."""
    return lambda value: None if value is None else check(value)
