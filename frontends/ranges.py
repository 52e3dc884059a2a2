"""Fields of the layers that draw numbers: ranges of random factors, and of the values of images.

The checks are as those of `fields`, whose text goes on after "<layer>: <field>".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..graph.errors import ShapeError
from .fields import Check, number

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
    """The chance of what happens with a probability that is itself drawn evenly from a factor.

    A factor may reach beyond 0 and 1, as in Keras: below is never, above is always.
    """
    lower, upper = ends(value)
    if lower == upper:
        return min(max(lower, 0.0), 1.0)
    inside = min(max(lower, 0.0), 1.0), min(max(upper, 0.0), 1.0)
    return ((inside[1] ** 2 - inside[0] ** 2) / 2 + max(upper, 1.0) - max(lower, 1.0)) / (upper - lower)


def value_range(value: Any) -> Range:
    """The least and the largest value of an image, in either order."""
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise ShapeError(f"must be two numbers, got {value!r}")
    lower, upper = sorted(map(number, value))
    return lower, upper
