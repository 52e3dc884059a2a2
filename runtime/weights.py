"""The weights of a compiled network: tensors that notice when somebody reaches for their `.data`.

Folded and packed copies of weights follow every write that PyTorch counts in a tensor's version. A write
through `p.data` is not counted there. So a weight counts the times its `.data` was asked for, and as long as
what it gave away is alive, anything may be written through it.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch


class _Noticing:
    """Mixed into a tensor's class: `.data` works as ever, and is noticed."""

    _touches = 0
    _aliases: tuple[weakref.ref[torch.Tensor], ...] = ()

    @property
    def data(self) -> torch.Tensor:
        alias: torch.Tensor = torch.Tensor.data.__get__(self)  # type: ignore[attr-defined]
        self._touches += 1
        self._aliases = (*(ref for ref in self._aliases if ref() is not None), weakref.ref(alias))
        return alias

    @data.setter
    def data(self, value: torch.Tensor) -> None:
        torch.Tensor.data.__set__(self, value)  # type: ignore[attr-defined]
        self._touches += 1

    def touches(self) -> object:
        """Equal to what it was before where nothing can have been written through `.data` since."""
        if not self._aliases:
            return self._touches
        before = self._aliases
        self._aliases = tuple(ref for ref in before if ref() is not None)
        if self._aliases:
            return object()
        self._touches += 1  # the last alias may have been written through just before it died
        return self._touches


class Weight(_Noticing, torch.nn.Parameter):
    """A trainable weight."""

    def __repr__(self) -> str:
        return repr(torch.nn.Parameter(self.detach(), self.requires_grad))


class State(_Noticing, torch.Tensor):
    """A weight that no optimizer moves: a frozen one, or moving statistics."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    def __new__(cls, value: torch.Tensor) -> State:
        made: State = torch.Tensor._make_subclass(cls, value)  # type: ignore[attr-defined]
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return repr(self.detach())

    def __deepcopy__(self, memo: dict[int, Any]) -> State:
        twin = State(self.detach().clone(memory_format=torch.preserve_format))
        twin.requires_grad_(self.requires_grad)
        memo[id(self)] = twin
        return twin


Mark = tuple[int, int, object]


def mark(weight: torch.Tensor) -> Mark:
    """Differs from an earlier mark of the weight where its numbers may differ: it lies elsewhere, was written
    to, or may have been through `.data`."""
    touches = weight.touches() if isinstance(weight, _Noticing) else 0
    return weight.data_ptr(), weight._version, touches
