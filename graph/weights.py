"""The weights of a compiled network: tensors that notice when somebody reaches for their `.data`.

Folded and packed copies of weights follow every write that PyTorch counts in a tensor's version. A write
through `p.data` is not counted there. So a weight counts the times its `.data` was asked for, and as long as
what it gave away is alive, anything may be written through it.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any, ClassVar

import torch


class Touches:
    """Of one piece of memory: how often its `.data` was asked for, and what is left of that."""

    __slots__ = ("_aliases", "_count")

    asked: ClassVar[int] = 0
    """How often the `.data` of any weight was asked for, or an alias that it gave was found dead."""
    lent: ClassVar[set[Touches]] = set()
    """Those with aliases that may be alive."""

    def __init__(self) -> None:
        self._count = 0
        self._aliases: list[weakref.ref[torch.Tensor]] = []

    def add(self, alias: torch.Tensor | None = None) -> None:
        self._count += 1
        Touches.asked += 1
        if alias is not None:
            self._aliases = [ref for ref in self._aliases if ref() is not None]
            self._aliases.append(weakref.ref(alias))
            Touches.lent.add(self)

    def mark(self) -> object:
        """Equal to an earlier one where nothing can have been written through `.data` since."""
        if self._aliases:
            self._aliases = [ref for ref in self._aliases if ref() is not None]
            if self._aliases:
                return object()
            self._count += 1  # the last alias may have been written through just before it died
            Touches.asked += 1
            Touches.lent.discard(self)
        return self._count

    @classmethod
    def mark_of_all(cls) -> object:
        """Equal to an earlier one where nothing can have been written through any weight's `.data` since."""
        for touches in tuple(cls.lent):
            touches.mark()
        return object() if cls.lent else cls.asked


class _Noticing:
    """Mixed into a tensor's class: `.data` works as ever, and is noticed. Tensors over the same memory may
    share their `touches`."""

    touches: Touches

    @property
    def data(self) -> torch.Tensor:
        alias: torch.Tensor = torch.Tensor.data.__get__(self)  # type: ignore[attr-defined]
        self.touches.add(alias)
        return alias

    @data.setter
    def data(self, value: torch.Tensor) -> None:
        torch.Tensor.data.__set__(self, value)  # type: ignore[attr-defined]
        # Whoever holds the new memory, such as a flat buffer of all weights, may write to it unnoticed.
        self.touches.add(value if value._base is None else value._base)


class Weight(_Noticing, torch.nn.Parameter):
    """A weight that an optimizer may move."""

    def __new__(cls, value: torch.Tensor, requires_grad: bool = True) -> Weight:
        made: Weight = super().__new__(cls, value, requires_grad)
        made.touches = Touches()
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return repr(torch.nn.Parameter(self.detach(), self.requires_grad))

    def __deepcopy__(self, memo: dict[int, Any]) -> Weight:
        memo[id(self)] = twin = Weight(_cloned(self), self.requires_grad)
        return twin

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Weight, (self.detach(), self.requires_grad)


class State(_Noticing, torch.Tensor):
    """A weight that no optimizer moves: moving statistics."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def __new__(cls, value: torch.Tensor, requires_grad: bool = False) -> State:
        made: State = torch.Tensor._make_subclass(cls, value, requires_grad)
        made.touches = Touches()
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return repr(self.detach())

    def __deepcopy__(self, memo: dict[int, Any]) -> State:
        memo[id(self)] = twin = State(_cloned(self), self.requires_grad)
        return twin

    def __reduce_ex__(self, protocol: Any) -> Any:
        return State, (self.detach(), self.requires_grad)


def _cloned(weight: torch.Tensor) -> torch.Tensor:
    return weight.detach().clone(memory_format=torch.preserve_format)


Mark = tuple[int, int, object]


def mark(weight: torch.Tensor) -> Mark:
    """Differs from an earlier mark of the weight where its numbers may differ: it lies elsewhere, was written
    to, or may have been through `.data`."""
    touches = weight.touches.mark() if isinstance(weight, _Noticing) else 0
    return weight.data_ptr(), weight._version, touches


class Watch:
    """Some weights, and whether any of them may have been written to since. A look costs next to nothing."""

    def __init__(self, weights: Iterable[torch.Tensor]) -> None:
        with torch.inference_mode(False), torch.no_grad():
            # Of the same memory and version, which PyTorch tells five times as fast of a plain tensor. What
            # puts other memory under a weight counts as a write or goes through its `.data`.
            self._aliases = [weight.detach() for weight in weights]
        self._state = self._now()

    def _now(self) -> tuple[object, list[int]]:
        return Touches.mark_of_all(), [alias._version for alias in self._aliases]

    def unchanged(self) -> bool:
        return self._now() == self._state

    @staticmethod
    def can_watch(weights: Iterable[torch.Tensor]) -> bool:
        """Whether all of them notice what happens to them."""
        return all(isinstance(weight, _Noticing) for weight in weights)
