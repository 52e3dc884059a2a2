"""The budget of a network that a file describes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ...graph.types import TensorType
from ..budget import BUDGET, Budget
from .limits import Limits


class FileBudget(Budget):
    """Counts what has been spent against `limits`."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._nodes = self._elements = self._parameters = 0

    def calls(self, count: int, where: str) -> None:
        self._nodes += count
        self._limits.check("nodes", self._nodes, where, "calls of layers so far")

    def value(self, kind: TensorType, where: str) -> None:
        elements = kind.elements()
        self._limits.check("tensor_elements", elements, where, "elements in one sample of a value")
        self._elements += elements
        self._limits.check("total_elements", self._elements, where, "elements in all values so far")

    def weights(self, count: int, where: str) -> None:
        self._parameters += count
        self._limits.check("parameters", self._parameters, where, "weights so far")


@contextmanager
def within(limits: Limits) -> Iterator[None]:
    """Whatever is described inside must stay within `limits`."""
    token = BUDGET.set(FileBudget(limits))
    try:
        yield
    finally:
        BUDGET.reset(token)
