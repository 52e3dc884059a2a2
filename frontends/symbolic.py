"""Symbolic tensors: what a layer gives when it is called while a network is being described."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..graph.errors import ShapeError
from ..graph.types import BATCH, TensorType
from .written import Written

if TYPE_CHECKING:
    from .lowering import Block

_SERIAL = itertools.count()


@dataclass(eq=False)
class Call:
    """One use of a block. index: 0 for its first; serial: grows with each call, a topological order.

    written: the node of the file it was read from. training: False where it is called so. options: its other
    arguments beside its tensors.
    """

    block: Block
    inputs: tuple[SymbolicTensor, ...]
    index: int
    outputs: tuple[SymbolicTensor, ...] = ()
    serial: int = field(default_factory=lambda: next(_SERIAL))
    written: Written | None = None
    training: bool | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


class SymbolicTensor:
    """A value of a network that is being described.

    node: the call it comes from; position: which of that call's outputs it is.
    Arithmetic with tensors and numbers adds the layers Add, Subtract, Multiply and Rescaling.
    """

    __array_ufunc__ = None  # let `array + tensor` reach __radd__ rather than spread over the array's elements

    def __init__(self, node: Call, position: int, type: TensorType) -> None:
        self.node = node
        self.position = position
        self.type = type

    @property
    def shape(self) -> tuple[int | None, ...]:
        """As Keras shows it: None for the batch."""
        return tuple(None if dim == BATCH else int(dim) for dim in self.type.shape)

    @property
    def dtype(self) -> str:
        return self.type.dtype

    def __repr__(self) -> str:
        return f"<SymbolicTensor {self.type} from {self.node.block.label}>"

    def __bool__(self) -> bool:
        raise ShapeError(f"{self!r} has no value yet; a network cannot branch on it while it is described")

    def __iter__(self) -> Any:
        raise ShapeError(f"{self!r} cannot be iterated over; it has no value yet")

    def __add__(self, other: Any) -> SymbolicTensor:
        return combine("Add", self, other)

    def __radd__(self, other: Any) -> SymbolicTensor:
        return combine("Add", other, self)

    def __sub__(self, other: Any) -> SymbolicTensor:
        return combine("Subtract", self, other)

    def __rsub__(self, other: Any) -> SymbolicTensor:
        return combine("Subtract", other, self)

    def __mul__(self, other: Any) -> SymbolicTensor:
        return combine("Multiply", self, other)

    def __rmul__(self, other: Any) -> SymbolicTensor:
        return combine("Multiply", other, self)

    def __neg__(self) -> SymbolicTensor:
        return combine("Multiply", self, -1.0)

    def __truediv__(self, other: Any) -> SymbolicTensor:
        if not _is_number(other) or other == 0:
            raise ShapeError(
                f"{self!r} can be divided by a number other than 0 only, got {str(other)[:60]!r}"
            )
        return combine("Multiply", self, 1.0 / other)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def combine(merge: str, a: Any, b: Any, name: str = "") -> SymbolicTensor:
    """a (merge) b for Add, Subtract, Multiply, with a number on one side at most; name: of the new layer."""
    from . import layers  # the layers stand above this module

    if isinstance(a, SymbolicTensor) and isinstance(b, SymbolicTensor):
        merges = {"Add": layers.Add, "Subtract": layers.Subtract, "Multiply": layers.Multiply}
        layer: layers.Layer = merges[merge](name=name)
        operands: Any = [a, b]
    else:
        left = isinstance(a, SymbolicTensor)
        operands, value = (a, b) if left else (b, a)
        if not _is_number(value):
            raise ShapeError(
                f"{operands!r} combines with symbolic tensors and numbers, got {str(value)[:60]!r}"
            )
        factor, offset = _affine(merge, value, left)
        layer = layers.Rescaling(factor, offset, name=name)
    layer.operation = True
    result = layer(operands)
    assert isinstance(result, SymbolicTensor)
    return result


def _affine(merge: str, value: float, tensor_is_left: bool) -> tuple[float, float]:
    """x (merge) value, or value (merge) x, as the factor and offset of x."""
    if merge == "Multiply":
        return value, 0.0
    if merge == "Add":
        return 1.0, value
    return (1.0, -value) if tensor_is_left else (-1.0, value)
