"""The types of the IR: a dtype and a shape whose batch axis is symbolic."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod

import torch

from .errors import ShapeError

BATCH = "N"
"""The symbolic batch axis, known only when a network runs."""

Dim = int | str

DTYPES: dict[str, torch.dtype] = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int64": torch.int64,
    "int32": torch.int32,
    "int16": torch.int16,
    "int8": torch.int8,
    "uint8": torch.uint8,
    "bool": torch.bool,
}


@dataclass(frozen=True)
class TensorType:
    """The type of a value.

    shape: one entry an axis, an int or ``"N"`` for the batch. Images are ``("N", height, width, channels)``.
    dtype: a key of `DTYPES`.
    """

    shape: tuple[Dim, ...]
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ShapeError(f"unknown dtype {self.dtype!r}; known: {', '.join(DTYPES)}")
        for dim in self.shape:
            if dim != BATCH and (not isinstance(dim, int) or isinstance(dim, bool) or dim < 0):
                raise ShapeError(f"shape {self.shape} has the axis {dim!r}; axes are 'N' or integers >= 0")

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def batched(self) -> bool:
        return bool(self.shape) and self.shape[0] == BATCH

    @property
    def channels(self) -> int:
        """Size of the last axis."""
        last = self.shape[-1] if self.shape else 1
        if not isinstance(last, int):
            raise ShapeError(f"{self} has no channel axis")
        return last

    @property
    def torch_dtype(self) -> torch.dtype:
        return DTYPES[self.dtype]

    @property
    def is_floating(self) -> bool:
        return self.torch_dtype.is_floating_point

    def size(self, batch: int = 1) -> tuple[int, ...]:
        """The shape for a batch of this size."""
        return tuple(batch if dim == BATCH else int(dim) for dim in self.shape)

    def elements(self, batch: int = 1) -> int:
        return prod(self.size(batch))

    def nbytes(self, batch: int = 1) -> int:
        return self.elements(batch) * self.torch_dtype.itemsize

    def accumulated(self) -> TensorType:
        """The type sums over many values are kept in: float32, or float64 for float64."""
        return self if self.dtype == "float64" else self.with_dtype("float32")

    def with_shape(self, shape: Iterable[Dim]) -> TensorType:
        return TensorType(tuple(shape), self.dtype)

    def with_dtype(self, dtype: str) -> TensorType:
        return TensorType(self.shape, dtype)

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


HALF = ("bfloat16", "float16")
"""The dtypes that hold values only, never sums: those are kept in float32."""

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def widest(types: Iterable[TensorType]) -> str:
    """The dtype that holds the values of all of these."""
    first, *rest = {t.torch_dtype for t in types}
    for dtype in rest:
        first = torch.promote_types(first, dtype)
    return _NAMES[first]


def elementwise(types: Sequence[TensorType], where: str) -> TensorType:
    """The type of an elementwise result.

    Its shape follows NumPy's broadcasting rules. Its dtype is the widest of the operands that have the
    result's own shape; what is spread over it, a weight for each channel or a statistic for each row, may be
    wider and is then used as it is, for weights and sums are float32 where activations are narrower. Where no
    operand has the result's shape, the widest of all counts.

    Raises ShapeError naming both shapes where they do not fit.
    """
    result = types[0]
    for other in types[1:]:
        result = result.with_shape(_broadcast_shape(result, other, where))
    return result.with_dtype(widest([t for t in types if t.shape == result.shape] or types))


def broadcast(first: TensorType, second: TensorType, where: str) -> TensorType:
    """`elementwise` of two."""
    return elementwise((first, second), where)


def _broadcast_shape(first: TensorType, second: TensorType, where: str) -> tuple[Dim, ...]:
    rank = max(first.rank, second.rank)
    a = (1,) * (rank - first.rank) + first.shape
    b = (1,) * (rank - second.rank) + second.shape
    shape: list[Dim] = []
    for left, right in zip(a, b, strict=True):
        if left != right and 1 not in (left, right):
            raise ShapeError(f"{where}: shapes {first} and {second} do not broadcast together")
        shape.append(right if left == 1 else left)
    return tuple(shape)


def accumulated(*tensors: torch.Tensor) -> list[torch.Tensor]:
    """Tensors in the dtype sums are kept in: float32 at least."""
    return [t if t.dtype == torch.float64 else t.float() for t in tensors]
