"""Default layer names, as Keras gives them: conv2d, conv2d_1, ... with one counter per class and process."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable

from ..graph.errors import UnsupportedLayerError
from ..graph.op import snake_case

_COUNTERS: Counter[str] = Counter()


def next_name(class_name: str) -> str:
    """The next free default name of a class: Conv2D -> conv2d, then conv2d_1."""
    stem = snake_case(class_name)
    count = _COUNTERS[stem]
    _COUNTERS[stem] += 1
    return f"{stem}_{count}" if count else stem


def check_name(name: object, kind: str) -> str:
    """Names come from files too, and reach terminals, comments and pages: no control characters in them."""
    if not is_printable(name):
        raise UnsupportedLayerError(
            f"{kind}: a layer's name is printable text of 256 characters at most, got {name!r:.80}"
        )
    return str(name)


def is_printable(value: object) -> bool:
    """Whether it is text of 1 to 256 printable characters."""
    return isinstance(value, str) and 1 <= len(value) <= 256 and value.isprintable()


def reset() -> None:
    """Start all counters again, so that a model built next gets the names it would get in a fresh process."""
    _COUNTERS.clear()


def meant(word: object, known: Iterable[str], otherwise: str = "use one of") -> str:
    """For an error about a word that is not known: the one that was probably meant, else all there are."""
    words = list(known)
    folded = {candidate.lower(): candidate for candidate in reversed(words)}
    close = difflib.get_close_matches(word.lower(), folded, 1) if isinstance(word, str) else []
    return f"did you mean {folded[close[0]]!r}?" if close else f"{otherwise} {', '.join(words) or 'none'}"
