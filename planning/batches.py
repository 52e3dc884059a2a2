"""Classes of batches: schedules are chosen for one batch of each, and a call takes those of its own class."""

from __future__ import annotations

CLASSES = (1, 8, 32, 256)
"""One image, which leaves most of a card idle, to so many that no card has a processor for each tile."""

USUAL = 32
"""The batch that schedules are chosen for where nobody says which."""


def class_of(batch: int) -> int:
    """The class whose batch is nearest as a ratio: 1 and 2, 3 to 16, 17 to 90, and more."""
    return min(CLASSES, key=lambda usual: max(usual, batch) / max(1, min(usual, batch)))
