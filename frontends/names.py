"""Names of layers: unique within a model, and counted anew in each, so that equal models have equal names.

A layer without a name of its own is conv2d, conv2d_1, ... by the order in which the layers of the first model
around it were made, as Keras would count them in a process with nothing but that model. Until there is a
model it is counted over the whole process, for errors to name it.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..graph.errors import UnsupportedLayerError
from ..graph.op import snake_case

if TYPE_CHECKING:
    from .lowering import Block

_COUNTERS: Counter[str] = Counter()
_MADE = itertools.count()


def next_name(class_name: str) -> str:
    """A name until there is a better one: Conv2D -> conv2d, then conv2d_1, over the whole process."""
    stem = snake_case(class_name)
    count = _COUNTERS[stem]
    _COUNTERS[stem] += 1
    return numbered(stem, count)


def numbered(stem: str, count: int) -> str:
    return f"{stem}_{count}" if count else stem


class DefaultName:
    """What stands for a name that nobody gave.

    name: until somebody renames the block. made: the order of making. settled: whether a model gave it.
    """

    def __init__(self, class_name: str, name: str | None = None) -> None:
        self.stem = snake_case(class_name)
        self.name = name or self.stem
        self.made = next(_MADE)
        self.settled = False


def settle(blocks: Iterable[Block]) -> dict[Block, str]:
    """Give every block that was never named a name within one model; names that were given stay.

    A block that another model has named keeps that name, unless another block here has it: those are
    returned, with what they are called in this model.
    """
    blocks = list(blocks)
    found = [(block.default_name, block) for block in blocks if block.default_name is not None]
    unnamed = [(default, block) for default, block in found if block.name == default.name]
    taken = {block.name for block in set(blocks).difference(block for _, block in unnamed)}
    counters: Counter[str] = Counter()
    others: dict[Block, str] = {}
    for default, block in sorted(unnamed, key=lambda pair: (not pair[0].settled, pair[0].made)):
        name = block.name if default.settled else default.stem
        while name in taken:
            counters[default.stem] += 1
            name = numbered(default.stem, counters[default.stem])
        taken.add(name)
        if not default.settled:
            block.name = default.name = name
            default.settled = True
        elif name != block.name:
            others[block] = name
    return others


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
