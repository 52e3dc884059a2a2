"""Weights in the layouts the operators want, prepared once and again only when the weight changes."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable

import torch

KEPT = 4
"""Packings kept of one weight: one for each of the latest input sizes, whose best blockings may differ."""


Packings = OrderedDict[Hashable, torch.Tensor]


def version(tensor: torch.Tensor) -> int:
    """Counts the in-place writes to a tensor. Tensors made in inference mode have no counter: they read 0."""
    return -1 if tensor.is_inference() else tensor._version


class PackedWeight:
    """What `prepare` made of a weight, remembered until the weight is another tensor or has been written to.

    Writing through `tensor.data` leaves no trace in the version counter, in PyTorch as here: assign under
    `torch.no_grad()` instead.
    """

    def __init__(self) -> None:
        self._kept: tuple[Callable[[], torch.Tensor | None], tuple[int, int], Packings]
        self._kept = (lambda: None), (0, 0), OrderedDict()

    def get(
        self, weight: torch.Tensor, key: Hashable, prepare: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        """`prepare(weight)`, from memory where weight and key are those of an earlier call."""
        state = (version(weight), weight.data_ptr())
        of, seen, kept = self._kept
        if of() is not weight or seen != state:
            kept = OrderedDict()
            self._kept = weakref.ref(weight), state, kept  # at once, for another thread may read it
        packed = kept.get(key)
        if packed is None:
            packed = kept[key] = prepare(weight)
            if len(kept) > KEPT:
                kept.popitem(last=False)
        return packed
