"""Positions on feature maps as text: what `planning/geometry.py` knows in numbers."""

from __future__ import annotations

from ...planning.geometry import Axis
from .writer import Uses


def index(axis: Axis, position: str) -> str:
    """The source position that tap 0 of a row reads."""
    return position + times(axis.stride) + plus(axis.shift)


def checks(axis: Axis, position: str, uses: Uses, extent: str) -> list[str]:
    """The comparisons that decide whether `position` lies on the map; none where it always does.

    extent: the constant that is the map's size, noted where it is asked for.
    """
    below = [f"({position} >= 0)"] if axis.reaches_below else []
    return below + ([f"({position} < {uses[extent]})"] if axis.reaches_above else [])


def times(factor: int) -> str:
    return "" if factor == 1 else f" * {factor}"


def plus(offset: int) -> str:
    return "" if offset == 0 else f" + {offset}" if offset > 0 else f" - {-offset}"
