"""Default layer names, as Keras gives them: conv2d, conv2d_1, ... with one counter per class and process."""

from __future__ import annotations

from collections import Counter

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
    """A name as it is shown everywhere; raises UnsupportedLayerError for what is no name.

    Names come from files too, and reach terminals, comments and pages: control characters become escapes
    here, once, so that none of those ever obeys one.
    """
    if not isinstance(name, str) or not 1 <= len(name) <= 256:
        raise UnsupportedLayerError(
            f"{kind}: a layer's name is text of 256 characters at most, got {name!r:.80}"
        )
    return visible(name)


def visible(name: str) -> str:
    """The name with an escape for each character that cannot be seen: a newline is a backslash and an n."""
    return name if name.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in name)


def is_printable(value: object) -> bool:
    """Whether it is text of 1 to 256 printable characters."""
    return isinstance(value, str) and 1 <= len(value) <= 256 and value.isprintable()


def reset() -> None:
    """Start all counters again, so that a model built next gets the names it would get in a fresh process."""
    _COUNTERS.clear()
