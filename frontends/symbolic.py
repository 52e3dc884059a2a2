"""Symbolic tensors: what a layer gives when it is called while a network is being described."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..graph.errors import ShapeError
from ..graph.types import BATCH, Dim, TensorType
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

    node: the call it comes from; position: which of that call's outputs it is. type: at the size at which the
    network is described. other: at its second size, where the value has axes left open (`open_axes`).
    Arithmetic, powers, abs, comparisons, &, |, ^, ~ and x[:, 1:3] make Keras's operations of it, with
    tensors, numbers and arrays. As in Keras, == asks whether it is the same tensor, and is no operation.
    """

    __array_ufunc__ = None  # let `array + tensor` reach __radd__ rather than spread over the array's elements

    def __init__(self, node: Call, position: int, type: TensorType, other: TensorType | None = None) -> None:
        self.node = node
        self.position = position
        self.describe(type, other)

    def describe(self, type: TensorType, other: TensorType | None) -> None:
        self.type = type
        self.other = None if other == type else other

    @property
    def shape(self) -> tuple[int | None, ...]:
        """As Keras shows it: None for the batch, and for axes left open."""
        others: Sequence[Dim] = self.type.shape if self.other is None else self.other.shape
        pairs = zip(self.type.shape, others, strict=True)
        return tuple(None if a == BATCH or a != b else int(a) for a, b in pairs)

    @property
    def dtype(self) -> str:
        return self.type.dtype

    def __repr__(self) -> str:
        axes = ("N", *self.shape[1:]) if self.type.batched else self.shape
        return f"<SymbolicTensor {self.dtype}[{','.join(map(str, axes))}] from {self.node.block.label}>"

    def __bool__(self) -> bool:
        raise ShapeError(f"{self!r} has no value yet; a network cannot branch on it while it is described")

    def __iter__(self) -> Any:
        raise ShapeError(f"{self!r} cannot be iterated over; it has no value yet")

    def __add__(self, other: Any) -> SymbolicTensor:
        return operate("Add", self, other)

    def __radd__(self, other: Any) -> SymbolicTensor:
        return operate("Add", other, self)

    def __sub__(self, other: Any) -> SymbolicTensor:
        return operate("Subtract", self, other)

    def __rsub__(self, other: Any) -> SymbolicTensor:
        return operate("Subtract", other, self)

    def __mul__(self, other: Any) -> SymbolicTensor:
        return operate("Multiply", self, other)

    def __rmul__(self, other: Any) -> SymbolicTensor:
        return operate("Multiply", other, self)

    def __truediv__(self, other: Any) -> SymbolicTensor:
        return operate("TrueDivide", self, other)

    def __rtruediv__(self, other: Any) -> SymbolicTensor:
        return operate("TrueDivide", other, self)

    def __pow__(self, other: Any) -> SymbolicTensor:
        return operate("Power", self, other)

    def __rpow__(self, other: Any) -> SymbolicTensor:
        return operate("Power", other, self)

    def __matmul__(self, other: Any) -> SymbolicTensor:
        return operate("Matmul", self, other)

    def __neg__(self) -> SymbolicTensor:
        return operate("Negative", self)

    def __abs__(self) -> SymbolicTensor:
        return operate("Absolute", self)

    def __lt__(self, other: Any) -> SymbolicTensor:
        return operate("Less", self, other)

    def __le__(self, other: Any) -> SymbolicTensor:
        return operate("LessEqual", self, other)

    def __gt__(self, other: Any) -> SymbolicTensor:
        return operate("Greater", self, other)

    def __ge__(self, other: Any) -> SymbolicTensor:
        return operate("GreaterEqual", self, other)

    def __ne__(self, other: object) -> SymbolicTensor:  # type: ignore[override]
        return operate("NotEqual", self, other)

    def __eq__(self, other: object) -> bool:
        """Whether it is the same tensor. Raises ShapeError for a number or an array, which it never is."""
        if isinstance(other, (bool, int, float)) or hasattr(other, "__array__"):
            raise ShapeError(
                f"{self!r} == {str(other)[:40]}: == asks whether two tensors are the same one, as in Keras; "
                f"for the operation write ops.equal(x, y)"
            )
        return self is other

    __hash__ = object.__hash__

    def __and__(self, other: Any) -> SymbolicTensor:
        return operate("LogicalAnd", self, other)

    def __rand__(self, other: Any) -> SymbolicTensor:
        return operate("LogicalAnd", other, self)

    def __or__(self, other: Any) -> SymbolicTensor:
        return operate("LogicalOr", self, other)

    def __ror__(self, other: Any) -> SymbolicTensor:
        return operate("LogicalOr", other, self)

    def __xor__(self, other: Any) -> SymbolicTensor:
        return operate("LogicalXor", self, other)

    def __rxor__(self, other: Any) -> SymbolicTensor:
        return operate("LogicalXor", other, self)

    def __invert__(self) -> SymbolicTensor:
        return operate("LogicalNot", self)

    def __getitem__(self, key: Any) -> SymbolicTensor:
        return operate("GetItem", self, key)


def operate(name: str, *operands: Any) -> SymbolicTensor:
    """Call the operation of that name. Raises ShapeError for what it does not take."""
    from .operations import OPERATIONS  # the operations stand above this module

    result = OPERATIONS[name]()(*operands)
    assert isinstance(result, SymbolicTensor)
    return result


def reachable_calls(outputs: Sequence[SymbolicTensor], until: Collection[SymbolicTensor] = ()) -> list[Call]:
    """Every call the outputs depend on, depth first, operands before their readers.

    until: tensors that are taken as given, so that what they come from does not count.
    """
    finished: dict[Call, None] = {}
    for output in outputs:
        if output in until:
            continue
        stack: list[tuple[Call, int]] = [(output.node, 0)]
        while stack:
            call, position = stack.pop()
            if call in finished:
                continue
            if position < len(call.inputs):
                operand = call.inputs[position]
                stack.append((call, position + 1))
                stack += [(operand.node, 0)] if operand not in until else []
            else:
                finished[call] = None
    return list(finished)
