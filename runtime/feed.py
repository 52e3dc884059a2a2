"""Data by epochs: as long as a pass over it, or of so many steps, which go on where the last epoch ended."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from .batch import Batch
from .batches import Batches
from .random_state import random_state, set_random_state


class Feed:
    """The batches of one epoch after another.

    steps: of an epoch; None for one pass over the data. change: is done to each batch.
    """

    def __init__(
        self,
        source: Batches,
        device: torch.device,
        steps: int | None = None,
        change: Callable[[Batch], Batch] | None = None,
    ) -> None:
        self.source, self.device, self.steps, self.change = source, device, steps, change
        self._pass: Iterator[Batch] | None = None
        self._taken = 0
        """Batches of the running pass that have been taken."""
        self._order: dict[str, Any] | None = None
        """The random states with which the running pass began, from which the order of its data follows."""

    @property
    def size(self) -> int | None:
        """Batches of an epoch, None where it is not known."""
        return self.steps or self.source.size

    def epoch(self, done: int = 0) -> Iterator[Batch]:
        """The batches of the next epoch, of which so many are done. What is random is drawn at once."""
        self.source.on_epoch_begin()
        if self._pass is None:
            self._begin()
        return self._epoch(done)

    def _epoch(self, done: int) -> Iterator[Batch]:
        number = done
        while self.steps is None or number < self.steps:
            batch = self._next()
            if batch is None and number == 0 and self.steps is not None and self._taken:
                self._begin()  # the last pass ended with the last epoch
                batch = self._next()
            if batch is None:
                break
            number += 1
            yield batch
        if self.steps is None or number < self.steps or self._taken == self.source.size:
            self._pass, self._order = None, None
        if self.steps is not None and number < self.steps:
            warnings.warn(
                f"the data ran out after {number} of the {self.steps} steps of an epoch; give more of it, or "
                f"a smaller number of steps",
                stacklevel=2,
            )
        self.source.on_epoch_end()

    def _next(self) -> Batch | None:
        assert self._pass is not None
        batch = next(self._pass, None)
        if batch is None:
            return None
        self._taken += 1
        return batch if self.change is None else self.change(batch)

    def _begin(self) -> None:
        self._order = random_state(self.device, self.source.generators)
        self._pass, self._taken = self.source.run(), 0

    def restart(self) -> None:
        """Begin the next epoch with a new pass."""
        self._pass, self._order = None, None

    # -- going on in another process ----------
    def state_dict(self) -> dict[str, Any]:
        """The running pass: how it began, and how far it has come."""
        random = random_state(self.device, self.source.generators)
        return {
            "order": self._order,
            "taken": self._taken if self._order is not None else 0,
            "random": random,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to that place of the pass: batches that cannot be skipped are read and dropped. Leaves all
        random states as they were when the state was taken."""
        self._order = state["order"]
        if self._order is not None:
            set_random_state(self._order, self.device, self.source.generators)
            self._pass, self._taken = self.source.run(state["taken"]), state["taken"]
        set_random_state(state["random"], self.device, self.source.generators)
