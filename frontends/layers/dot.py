"""The product of two tensors along one axis of each."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import ClassVar

from ...graph import ops
from ...graph.types import TensorType
from ...graph.windows import Pair
from .. import fields as f
from ..lowering import Builder
from .base import Layer
from .parts import ordered, unit_length


class Dot(Layer):
    """Sums of products along an axis of each of two inputs, for all places of their other axes.

    axes: one for both, or a pair; the batch, axis 0, is none of them. normalize: vectors along the axes are
    first divided by their Euclidean length, which makes the result the cosine of their angle.
    """

    arity: ClassVar[tuple[int, int | None]] = (2, 2)

    axes: int | Sequence[int] = f.option(f.axis_or_pair)
    normalize: bool = f.option(f.flag, default=False)

    def check(self, inputs: Sequence[TensorType]) -> None:
        for kind, axis in zip(inputs, self._axes(inputs), strict=True):
            if not 1 <= axis < kind.rank:
                raise self.fail(f"axes must be of 1 to {kind.rank - 1} for {kind}, got {self.axes}")
        sizes = [int(kind.shape[axis]) for kind, axis in zip(inputs, self._axes(inputs), strict=True)]
        if sizes[0] != sizes[1]:
            raise self.fail(
                f"axes {self.axes} of {inputs[0]} and {inputs[1]} have {sizes[0]} and {sizes[1]} elements; "
                f"choose axes of equal size"
            )

    def _axes(self, inputs: Sequence[TensorType]) -> Pair:
        """Counted from the front."""
        axes = (self.axes, self.axes) if isinstance(self.axes, int) else tuple(self.axes)
        first, second = (a if a >= 0 else a + kind.rank for a, kind in zip(axes, inputs, strict=True))
        return first, second

    def build(self, b: Builder, *inputs: str) -> str:
        kinds = [b.type(x) for x in inputs]
        axes = self._axes(kinds)
        if self.normalize:
            inputs = tuple(
                unit_length(b, x, (axis,), 1e-14, f"{side}/")
                for x, axis, side in zip(inputs, axes, ("first", "second"), strict=True)
            )
        rest = [
            [int(d) for i, d in enumerate(kind.shape) if i not in (0, axis)]
            for kind, axis in zip(kinds, axes, strict=True)
        ]
        first, transpose_a = self._matrix(b, inputs[0], axes[0], last=True, side="first")
        second, transpose_b = self._matrix(b, inputs[1], axes[1], last=False, side="second")
        result = b.add(ops.MatMul(transpose_a, transpose_b), first, second, suffix="product")
        return b.add(ops.Reshape((*rest[0], *rest[1]) or (1,)), result)

    @staticmethod
    def _matrix(b: Builder, x: str, axis: int, last: bool, side: str) -> tuple[str, bool]:
        """x as matrices with `axis` at one end, and whether that is the other end than `last` says.

        Only an axis with others on both sides of it has to be moved in memory.
        """
        kind = b.type(x)
        if axis not in (1, kind.rank - 1):
            x = ordered(b, x, (0, *(i for i in range(1, kind.rank) if i != axis), axis), f"{side}/ordered")
            axis = kind.rank - 1
        size = int(b.type(x).shape[axis])
        at_end = axis == kind.rank - 1 and (last or axis != 1)
        others = prod(b.type(x).size()[1:]) // size
        shape = (others, size) if at_end else (size, others)
        return b.add(ops.Reshape(shape), x, suffix=f"{side}/matrix"), at_end != last
