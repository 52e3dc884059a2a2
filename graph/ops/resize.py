"""Resizing along some axes, and its gradient: weighted sums over the few places that count for a result.

Along one axis, resizing is a product with an `InterpolationMatrix`, in which almost all is 0. `Taps` says
where the rest is, so that a kernel reads just that: 2 x 2 pixels for a bilinear image, whatever its size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import gcd, prod
from typing import TYPE_CHECKING, ClassVar

import torch

from ..errors import ShapeError
from ..op import Kind, Op
from ..types import TensorType, accumulated
from .source import InterpolationMatrix

if TYPE_CHECKING:
    from ..gradients import GradientBuilder
    from ..ir import Node

REACH = {"bilinear": 1, "bicubic": 2, "lanczos3": 3, "lanczos5": 5}
"""Pixels on either side of a place that count for its value, by method."""


@dataclass(frozen=True)
class Taps:
    """The places along one axis that count for result number j: `count` of them from `first(j)` on.

    first(j) = (j * step + offset) // divisor - shift, the numerator never negative. Some of the places may
    lie outside the axis, or have the weight 0.
    """

    step: int
    offset: int
    divisor: int
    shift: int
    count: int

    @classmethod
    def of(cls, source: int, result: int, reach: int) -> Taps:
        """The places closer than reach / (2 result) source pixels to (j + 1/2) source / result - 1/2."""
        return cls._from(2 * source, source - result - reach, 2 * result, -(-reach // result))

    @classmethod
    def nearest(cls, source: int, result: int) -> Taps:
        """The place floor((j + 1/2) source / result)."""
        return cls._from(2 * source, source - 2 * result, 2 * result, 1)

    @classmethod
    def nearest_to(cls, source: int, result: int) -> Taps:
        """The results of `nearest` from `result` to `source` places whose place is j."""
        return cls._from(2 * source, -result - 1, 2 * result, -(-source // result))

    @classmethod
    def _from(cls, step: int, offset: int, divisor: int, count: int) -> Taps:
        """first(j) = floor((j * step + offset) / divisor) + 1."""
        turns = -(min(offset, 0) // divisor)
        common = gcd(step, divisor)
        raised = (offset + turns * divisor) // common
        return cls(step // common, raised, divisor // common, turns - 1, count)

    def first(self, j: int) -> int:
        return (j * self.step + self.offset) // self.divisor - self.shift


@dataclass(frozen=True)
class _Resampling(Op):
    kind: ClassVar[Kind] = Kind.WINDOW
    axes: tuple[int, ...] = ()
    sizes: tuple[int, ...] = ()
    method: str = "bilinear"
    antialias: bool = False

    def takes_whole(self, position: int) -> bool:
        return self.method == "nearest"

    def infer(self, *inputs: TensorType) -> TensorType:
        x, *matrices = inputs
        if len(self.sizes) != len(self.axes) or not self.axes or len(set(self.axes)) < len(self.axes):
            raise ShapeError(f"{self.op_name()} takes axes, each once, and a size for each")
        if not all(1 <= axis < x.rank for axis in self.axes):
            raise ShapeError(
                f"{self.op_name()} along axes {self.axes} of {x}: use axes from 1 to {x.rank - 1}"
            )
        for axis, size in zip(self.axes, self.sizes, strict=True):
            self._matrix(int(x.shape[axis]), size).infer()
        expected = [] if self.method == "nearest" else [self._shape(x, i) for i in range(len(self.axes))]
        if [matrix.shape for matrix in matrices] != expected:
            raise ShapeError(
                f"{self.op_name()} of {x} takes matrices of the shapes {expected}, "
                f"found {', '.join(map(str, matrices)) or 'none'}"
            )
        sizes = dict(zip(self.axes, self.sizes, strict=True))
        return x.with_shape(sizes.get(axis, dim) for axis, dim in enumerate(x.shape))

    def _matrix(self, here: int, there: int) -> InterpolationMatrix:
        """The matrix for an operand of size `here` and a result of size `there`."""
        return InterpolationMatrix(here, there, self.method, self.antialias)

    def _shape(self, x: TensorType, position: int) -> tuple[int, ...]:
        source = self._matrix(int(x.shape[self.axes[position]]), self.sizes[position])
        return source.in_size, source.out_size

    def taps(self, here: int, there: int) -> Taps:
        """Which places of an axis of size `here` count for each of its `there` results."""
        raise NotImplementedError

    def _axis_taps(self, x: TensorType) -> Iterator[Taps]:
        for axis, size in zip(self.axes, self.sizes, strict=True):
            yield self.taps(int(x.shape[axis]), size)

    def flops(self, inputs: Sequence[TensorType], output: TensorType, batch: int) -> int:
        if self.method == "nearest" and isinstance(self, Resize):
            return 0
        return 2 * output.elements(batch) * prod(taps.count for taps in self._axis_taps(inputs[0]))

    def _reach(self, in_size: int, out_size: int) -> int:
        """Twice the pixels that count on either side, in units of 1 / out_size input pixels."""
        shrinks = self.antialias and in_size > out_size
        return 2 * REACH[self.method] * (in_size if shrinks else out_size)

    def _places(self, source: int, result: int) -> torch.Tensor:
        """For each of `result` places the nearest of `source`, by the matrix: (result,)."""
        return InterpolationMatrix(source, result, "nearest").reference().argmax(0)

    def _products(self, x: torch.Tensor, matrices: Sequence[torch.Tensor]) -> torch.Tensor:
        """x times (size, new size) matrices along the axes, in float32 at least."""
        result = accumulated(x)[0]
        for axis, matrix in zip(self.axes, matrices, strict=True):
            result = torch.movedim(torch.movedim(result, axis, -1) @ matrix.to(result.dtype), -1, axis)
        return result.to(x.dtype)


@dataclass(frozen=True)
class Resize(_Resampling):
    """x with other sizes along some axes; `InterpolationMatrix` has the formulas.

    axes, sizes: which axes (never the batch), and their new sizes. method, antialias: of the matrices, one
    operand an axis, (size, new size). "nearest" has none: it copies place floor((i + 1/2) size / new size).
    """

    operands: ClassVar[tuple[str, ...]] = ("x", "weights*")

    def words(self, *operands: TensorType) -> str:
        return f"{self.method} resizing to {'x'.join(map(str, self.sizes))}"

    def taps(self, here: int, there: int) -> Taps:
        if self.method == "nearest":
            return Taps.nearest(here, there)
        return Taps.of(here, there, self._reach(here, there))

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        x, *matrices = inputs
        if self.method != "nearest":
            return self._products(x, [matrix.to(x.device) for matrix in matrices])
        for axis, size in zip(self.axes, self.sizes, strict=True):
            x = x.index_select(axis, self._places(x.shape[axis], size).to(x.device))
        return x

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        x, *matrices = (build.operand(node, i) for i in range(len(node.inputs)))
        sizes = tuple(int(x.type.shape[axis]) for axis in self.axes)
        grad = ResizeGrad(self.axes, sizes, self.method, self.antialias)
        dx = build.if_needed(x, grad, dy, *(matrix.name for matrix in matrices))
        return [dx, *[None for _ in matrices]]


@dataclass(frozen=True)
class ResizeGrad(_Resampling):
    """Gradient of `Resize` with respect to x: dy times the same matrices transposed. sizes: those of x."""

    operands: ClassVar[tuple[str, ...]] = ("dy", "weights*")

    def words(self, *operands: TensorType) -> str:
        return f"gradient of {self.method} resizing from {'x'.join(map(str, self.sizes))}"

    def _matrix(self, here: int, there: int) -> InterpolationMatrix:
        return super()._matrix(there, here)

    def taps(self, here: int, there: int) -> Taps:
        if self.method == "nearest":
            return Taps.nearest_to(here, there)
        return Taps.of(here, there, self._reach(there, here))

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        dy, *matrices = inputs
        if self.method != "nearest":
            return self._products(dy, [matrix.t().to(dy.device) for matrix in matrices])
        total = accumulated(dy)[0]
        for axis, size in zip(self.axes, self.sizes, strict=True):
            place = self._places(size, total.shape[axis]).to(dy.device)
            shape = [size if i == axis else dim for i, dim in enumerate(total.shape)]
            total = total.new_zeros(shape).index_add(axis, place, total)
        return total.to(dy.dtype)
