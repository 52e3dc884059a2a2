"""Options that are numbers: checked once, by name, with a text that says what they must be."""

from __future__ import annotations

import operator
from numbers import Real
from typing import Any

from ..graph.errors import ConvLoomError


def whole(value: Any, name: str, least: int, most: int | None = None) -> int:
    """An integer of Python's, NumPy's or torch's, within bounds; True and 3.0 are none."""
    try:
        if isinstance(value, bool):
            raise TypeError
        found = operator.index(value)
    except (TypeError, ValueError, RuntimeError):
        raise ConvLoomError(
            f"{name} is {_shown(value)}; it must be a whole number, at least {least}"
        ) from None
    if found < least:
        raise ConvLoomError(f"{name} is {found}; it must be at least {least}")
    if most is not None and found > most:
        raise ConvLoomError(f"{name} is {found}; it must be at most {most}")
    return found


def number(
    value: Any,
    name: str,
    *,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    most: float | None = None,
) -> float:
    """A finite number within bounds; `above` and `below` are excluded."""
    if isinstance(value, bool) or not (isinstance(value, Real) or _is_scalar(value)):
        raise ConvLoomError(f"{name} is {_shown(value)}; it must be a number")
    found = float(value)
    bounds = (
        (above is None or found > above, f"above {above:g}" if above is not None else ""),
        (least is None or found >= least, f"at least {least:g}" if least is not None else ""),
        (below is None or found < below, f"below {below:g}" if below is not None else ""),
        (most is None or found <= most, f"at most {most:g}" if most is not None else ""),
        (abs(found) < float("inf"), "finite"),
    )
    for holds, text in bounds:
        if not holds:
            raise ConvLoomError(f"{name} is {found}; it must be {text}")
    return found


def seed(value: Any) -> int | None:
    """A seed as torch's generators take it, 64 bits, or None."""
    return None if value is None else whole(value, "seed", -(2**63), 2**64 - 1)


def _is_scalar(value: Any) -> bool:
    """A NumPy or torch number."""
    return (
        getattr(value, "shape", None) == () and getattr(getattr(value, "dtype", None), "kind", "f") in "fiu"
    )


def _shown(value: Any) -> str:
    return f"{value!r:.60}, a {type(value).__name__}" if value is not None else "None"
