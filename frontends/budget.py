"""What a description may spend while it becomes a network: bounds for the files of strangers, none else.

Blocks report calls, values and weights as soon as their types are known, which is before any memory is taken
for them; the budget in force may refuse.
"""

from __future__ import annotations

from contextvars import ContextVar

from ..graph.types import TensorType

MOST_PARTS = 1_000
"""Pieces that one layer may cut its input into, or copies it may make."""

MOST_AXES = 32
"""Of one value; a list of a million sizes would multiply to a number of a million digits."""


class Budget:
    """Without bounds: what a user describes in Python is the user's own affair."""

    def calls(self, count: int, where: str) -> None:
        """`count` more calls of layers."""

    def value(self, kind: TensorType, where: str) -> None:
        """One more value of this type."""

    def weights(self, count: int, where: str) -> None:
        """`count` more numbers in weights."""


BUDGET: ContextVar[Budget] = ContextVar("BUDGET", default=Budget())  # noqa: B039  it has no state
