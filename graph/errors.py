"""The errors a user can cause, each saying what is wrong, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ConvLoomError(Exception):
    """Base class of every error ConvLoom raises for input that is merely wrong."""


class ShapeError(ConvLoomError):
    """Shapes, ranks or dtypes that do not fit together."""


class ModelFormatError(ConvLoomError):
    """A model file or description that is malformed; the text names the place in the file."""


class UnsupportedLayerError(ConvLoomError):
    """A layer, activation or argument that ConvLoom does not know."""


class UnsafeModelError(ConvLoomError):
    """A model file that asks for something a model file must never do."""


class CompileError(ConvLoomError):
    """A network that cannot be compiled as asked, or an option that does not exist."""


def unknown(kind: str, given: object, known: Iterable[str], more: str = "") -> str:
    """The text for a name that does not exist: the nearest that does, and all of them.

    kind: what is named, such as "loss". more: what else is taken, at the end of the list.
    """
    names = list(known)
    if not isinstance(given, str):
        return f"{kind} is {given!r}, a {type(given).__name__}; give a name: {', '.join(names)}{more}"
    near = nearest(given, names)
    return f"unknown {kind} {given!r}{near}{' Known' if near else '; known'}: {', '.join(names)}{more}"


def nearest(given: object, known: Iterable[str], otherwise: str = "") -> str:
    """ "; did you mean 'adam'?" where a known name is near; case and separators do not count.

    otherwise: such as "use one of", which all of them then follow; without it there is nothing to say.
    """

    def plain(name: str) -> str:
        return "".join(c for c in name.lower() if c.isalnum())

    names = list(known)
    by_plain = {plain(name): name for name in reversed(names)}
    found = difflib.get_close_matches(plain(given), by_plain, 1) if isinstance(given, str) else []
    if found:
        return f"; did you mean {by_plain[found[0]]!r}?"
    return f"; {otherwise} {', '.join(names) or 'none'}" if otherwise else ""
