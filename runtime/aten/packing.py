"""Weights in the layouts the operators want, prepared once and again only when the weight changes."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable

import torch

KEPT = 4
"""Packings kept of one weight: one for each of the latest input sizes, whose best blockings may differ."""


def version(tensor: torch.Tensor) -> int:
    """Counts the in-place writes to a tensor. Tensors made in inference mode have no counter: they read 0."""
    return -1 if tensor.is_inference() else tensor._version


class PackedWeight:
    """What `prepare` made of a weight, remembered until the weight is another tensor or has been written to.

    Writing through `tensor.data` leaves no trace in the version counter, in PyTorch as here: assign under
    `torch.no_grad()` instead.
    """

    def __init__(self) -> None:
        self._weight: Callable[[], torch.Tensor | None] = lambda: None
        self._state: tuple[int, int] = (0, 0)
        self._packed: OrderedDict[Hashable, torch.Tensor] = OrderedDict()

    def get(
        self, weight: torch.Tensor, key: Hashable, prepare: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        """`prepare(weight)`, from memory where weight and key are those of an earlier call."""
        state = (version(weight), weight.data_ptr())
        if self._weight() is not weight or self._state != state:
            self._packed.clear()
            self._weight, self._state = weakref.ref(weight), state
        packed = self._packed.get(key)
        if packed is None:
            packed = self._packed[key] = prepare(weight)
            if len(self._packed) > KEPT:
                self._packed.popitem(last=False)
        return packed
