"""Layers that join several tensors."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import ClassVar

from ...graph import ops
from ...graph.errors import ShapeError
from ...graph.op import Op
from ...graph.types import TensorType, broadcast
from .. import fields as f
from ..lowering import Builder
from .base import Layer


class _Merge(Layer):
    """Base of the elementwise joins, which broadcast as Keras does: the batch always against the batch."""

    arity: ClassVar[tuple[int, int | None]] = (2, None)
    op: ClassVar[type[Op]]

    def check(self, inputs: Sequence[TensorType]) -> None:
        rank = max(kind.rank for kind in inputs)
        try:
            reduce(lambda a, c: broadcast(a, c, "inputs"), [_raised(kind, rank) for kind in inputs])
        except ShapeError as error:
            raise self.fail(str(error).removeprefix("inputs: ")) from None

    def build(self, b: Builder, *inputs: str) -> str:
        return self.join(b, inputs)

    def join(self, b: Builder, inputs: Sequence[str], suffix: str = "") -> str:
        """All inputs under `op`, from the first on; suffix: of the last node."""
        rank = max(b.type(x).rank for x in inputs)
        result, *rest = [self._raise(b, x, rank) for x in inputs]
        for position, other in enumerate(rest, start=1):
            last = position == len(rest)
            result = b.add(self.op(), result, other, suffix=suffix if last else f"partial_{position}")
        return result

    def _raise(self, b: Builder, x: str, rank: int) -> str:
        kind = b.type(x)
        if kind.rank == rank:
            return x
        return b.add(ops.Reshape(_raised(kind, rank).size()[1:]), x, suffix="reshape")


def _raised(kind: TensorType, rank: int) -> TensorType:
    """Axes of size 1 after the batch until the rank is reached."""
    return kind.with_shape((kind.shape[0], *(1,) * (rank - kind.rank), *kind.shape[1:]))


class Add(_Merge):
    """Sum of the inputs."""

    op = ops.Add


class Multiply(_Merge):
    """Product of the inputs."""

    op = ops.Multiply


class Subtract(_Merge):
    """First input minus second."""

    arity: ClassVar[tuple[int, int | None]] = (2, 2)
    op = ops.Subtract


class Maximum(_Merge):
    """Largest of the inputs."""

    op = ops.Maximum


class Minimum(_Merge):
    """Smallest of the inputs."""

    op = ops.Minimum


class Average(_Merge):
    """Mean of the inputs."""

    op = ops.Add

    def build(self, b: Builder, *inputs: str) -> str:
        total = self.join(b, inputs, "total")
        return b.add(ops.Scale(1.0 / len(inputs)), total)


class Concatenate(Layer):
    """Inputs one after another along an axis, the batch being axis 0."""

    arity: ClassVar[tuple[int, int | None]] = (1, None)

    axis: int = f.option(f.axis, default=-1)

    def build(self, b: Builder, *inputs: str) -> str:
        return b.add(ops.Concat(self.axis), *inputs)
