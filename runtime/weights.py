"""The weights of a compiled network: tensors that notice when somebody reaches for their `.data`.

Folded and packed copies of weights follow every write that PyTorch counts in a tensor's version. A write
through `p.data` is not counted there. So a weight counts the times its `.data` was asked for, and as long as
what it gave away is alive, anything may be written through it.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch


class Touches:
    """How often somebody reached for the `.data` of tensors that lie over the same memory."""

    def __init__(self) -> None:
        self.count = 0
        self.aliases: tuple[weakref.ref[torch.Tensor], ...] = ()

    def add(self, alias: torch.Tensor) -> None:
        self.count += 1
        self.aliases = (*(ref for ref in self.aliases if ref() is not None), weakref.ref(alias))

    def mark(self) -> object:
        """Equal to what it was before where nothing can have been written through `.data` since."""
        if not self.aliases:
            return self.count
        self.aliases = tuple(ref for ref in self.aliases if ref() is not None)
        if self.aliases:
            return object()
        self.count += 1  # the last alias may have been written through just before it died
        return self.count


class Noticing(torch.Tensor):
    """Mixed into a tensor's class: `.data` works as ever, and is noticed."""

    touches: Touches
    """Shared by the weights of networks that lie over the same memory (`Tie`)."""

    @property
    def data(self) -> torch.Tensor:  # type: ignore[override]
        alias: torch.Tensor = torch.Tensor.data.__get__(self)  # type: ignore[attr-defined]
        self.touches.add(alias)
        return alias

    @data.setter
    def data(self, value: torch.Tensor) -> None:
        torch.Tensor.data.__set__(self, value)  # type: ignore[attr-defined]
        self.touches.count += 1

    def __repr__(self) -> str:  # type: ignore[override]
        return repr(self.detach())

    def __deepcopy__(self, memo: dict[int, Any]) -> Noticing:
        twin = _made(type(self), self.detach().clone(memory_format=torch.preserve_format), self.requires_grad)
        memo[id(self)] = twin
        return twin

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return _made, (type(self), self.detach(), self.requires_grad)


class Weight(Noticing, torch.nn.Parameter):
    """A weight that an optimizer can move, whether it does now or not."""

    def __new__(cls, value: torch.Tensor, requires_grad: bool = True) -> Weight:
        made: Weight = torch.Tensor._make_subclass(cls, value, requires_grad)  # type: ignore[attr-defined]
        made.touches = Touches()
        return made


class State(Noticing):
    """A weight that no optimizer moves, such as a moving mean."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    def __new__(cls, value: torch.Tensor, requires_grad: bool = False) -> State:
        made: State = torch.Tensor._make_subclass(cls, value, requires_grad)  # type: ignore[attr-defined]
        made.touches = Touches()
        return made


def _made(kind: type[Weight] | type[State], value: torch.Tensor, requires_grad: bool) -> Weight | State:
    return kind(value, requires_grad)


Mark = tuple[int, int, object]


def mark(weight: torch.Tensor) -> Mark:
    """Differs from an earlier mark of the weight where its numbers may differ: it lies elsewhere, was written
    to, or may have been through `.data`."""
    touches = weight.touches.mark() if isinstance(weight, Noticing) else 0
    return weight.data_ptr(), weight._version, touches
