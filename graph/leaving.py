"""What leaves a graph: its outputs, and what a training step writes back.

Both look like a dictionary and a list, and know at once whether they hold a value: rewriting asks it of every
node, and lets others take their places.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping, MutableSequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

Place = TypeVar("Place")


@dataclass(frozen=True)
class Update:
    """State that a training step moves: parameter <- value. All values are computed before any is written."""

    parameter: str
    value: str

    def __str__(self) -> str:
        return f"%{self.parameter} <- %{self.value}"


class _Uses(Generic[Place]):
    """Where each name is used: found when first asked for, then kept as names change."""

    def __init__(self) -> None:
        self._uses: dict[str, list[Place]] | None = None

    def _used(self) -> Iterator[tuple[str, Place]]:
        raise NotImplementedError

    def _of(self) -> dict[str, list[Place]]:
        if self._uses is None:
            self._uses = {}
            for name, place in self._used():
                self._uses.setdefault(name, []).append(place)
        return self._uses

    def uses(self, name: str) -> bool:
        return name in self._of()

    def _take(self, old: str, new: str) -> list[Place]:
        """The places of `old`, which are `new`'s from now on."""
        places = self._of().pop(old, [])
        if places:
            self._of().setdefault(new, []).extend(places)
        return places


class Outputs(_Uses[str], MutableMapping[str, str]):
    """Output name -> node name, in order."""

    def __init__(self, given: Mapping[str, str]) -> None:
        super().__init__()
        self._values = dict(given)

    def _used(self) -> Iterator[tuple[str, str]]:
        return ((value, key) for key, value in self._values.items())

    def replace(self, old: str, new: str) -> None:
        """Let every output that is `old` be `new`."""
        for key in self._take(old, new):
            self._values[key] = new

    def __getitem__(self, key: str) -> str:
        return self._values[key]

    def __setitem__(self, key: str, value: str) -> None:
        self._values[key], self._uses = value, None

    def __delitem__(self, key: str) -> None:
        del self._values[key]
        self._uses = None

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return repr(self._values)


class Updates(_Uses[int], MutableSequence[Update]):
    """What is written back, in the order it is written; a parameter may have several."""

    def __init__(self, given: Iterable[Update]) -> None:
        super().__init__()
        self._values = list(given)

    def _used(self) -> Iterator[tuple[str, int]]:
        return ((update.value, place) for place, update in enumerate(self._values))

    def replace(self, old: str, new: str) -> None:
        """Let every update that writes `old` write `new`."""
        for place in self._take(old, new):
            self._values[place] = replace(self._values[place], value=new)

    def rename_parameter(self, old: str, new: str) -> None:
        self._values = [replace(u, parameter=new) if u.parameter == old else u for u in self._values]

    def __getitem__(self, place: Any) -> Any:
        return self._values[place]

    def __setitem__(self, place: Any, update: Any) -> None:
        self._values[place], self._uses = update, None

    def __delitem__(self, place: Any) -> None:
        del self._values[place]
        self._uses = None

    def insert(self, place: int, update: Update) -> None:
        self._values.insert(place, update)
        self._uses = None

    def __len__(self) -> int:
        return len(self._values)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Updates | list) and self._values == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self._values)
