"""The base of all operations: which arguments a call takes, and what of them are tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ...graph.errors import ShapeError
from ...graph.types import TensorType
from ..fields import in_python
from ..layers.base import Layer
from ..lowering import Builder, Lowering
from ..symbolic import SymbolicTensor

OPERATIONS: dict[str, type[Operation]] = {}
"""Every operation ConvLoom knows, by Keras's class name."""


@dataclass(frozen=True)
class Operand:
    """Stands for the k-th tensor of a call among its constants."""

    index: int


class Operation(Layer):
    """Base of the operations. Fields are the arguments Keras keeps in its config; `operands` those of a call.

    A call takes tensors and constants: numbers, arrays of them, slices, None and Ellipsis, in lists too. The
    constants of the first call stay: a later one has the same, or is given its tensors alone.
    """

    module: ClassVar[str]
    """Where Keras keeps the class."""
    operands: ClassVar[tuple[str, ...]] = ("x",)
    """Arguments of a call, in Keras's order; those whose name ends in "?" may be left out."""
    takes_truths: ClassVar[bool] = False
    """Whether its constants may be True and False."""
    arity = (1, None)
    exact: ClassVar[bool] = False
    """Whether Keras computes it in integers where it is given nothing else."""

    @classmethod
    def declare(cls) -> None:
        if not cls.__name__.startswith("_") and hasattr(cls, "module"):
            OPERATIONS[cls.__name__] = cls

    def __post_init__(self) -> None:
        super().__post_init__()
        self.refuse_regularizer()
        self.given: tuple[Any, ...] | None = None
        """The arguments of its call, in the order of `operands`, with an `Operand` for each tensor."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Raises ShapeError for arguments it does not have, and for other constants than those it has."""
        tensors: list[SymbolicTensor] = []
        # Numbered in the order of the call, in which a file has them too.
        plain = tuple(self._plain(value, tensors) for value in args)
        named = {key: self._plain(value, tensors) for key, value in kwargs.items()}
        if not tensors:
            raise self.fail("takes at least one symbolic tensor, got constants only")
        if self.given is None or not self._repeats(plain, len(tensors)):
            given = tuple(self._bound(plain, named))
            if self.given not in (None, given):
                raise self.fail("keeps the constants of its first call; make another operation for others")
            self.given = given
        return super().__call__(tensors)

    def _repeats(self, args: tuple[Any, ...], count: int) -> bool:
        """Whether a call gives as many tensors as the first one, and nothing else."""
        found: list[Any] = list(args[0]) if len(args) == 1 and isinstance(args[0], tuple) else list(args)
        first: list[Operand] = []
        self.given_with(first.append)
        return len(found) == count == len(first) and all(isinstance(item, Operand) for item in found)

    def _bound(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
        """The arguments in the order of `operands`, None for those left out."""
        names = [name.rstrip("?") for name in self.operands]
        if len(args) > len(names):
            raise self.fail(f"takes {len(names)} argument(s) ({', '.join(names)}), got {len(args)}")
        bound = dict(zip(names, args, strict=False))
        for name, value in kwargs.items():
            if name not in names or name in bound:
                raise self.fail(f"takes the arguments {', '.join(names)}, got {name!r:.80} too many")
            bound[name] = value
        for name in self.operands:
            if name not in bound and not name.endswith("?"):
                raise self.fail(f"takes the arguments {', '.join(names)}; {name} is missing")
        return [bound.get(name) for name in names]

    def _plain(self, value: Any, tensors: list[SymbolicTensor]) -> Any:
        """A constant as plain Python has it, an `Operand` for a tensor."""
        if isinstance(value, SymbolicTensor):
            tensors.append(value)
            return Operand(len(tensors) - 1)
        kinds = "fiub" if self.takes_truths else "fiu"
        if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in kinds:
            value = value.tolist()
        if isinstance(value, slice):
            return slice(*map(in_python, (value.start, value.stop, value.step)))
        if isinstance(value, (list, tuple)):
            return tuple(self._plain(item, tensors) for item in value)
        number = isinstance(value, (int, float)) and (self.takes_truths or not isinstance(value, bool))
        if number and not abs(value) < float("inf"):
            raise self.fail(f"its numbers must be finite, got {value!r}")
        if number or value is None or value is Ellipsis:
            return value
        raise self.fail(f"combines with symbolic tensors and numbers, got {str(value)[:60]!r}")

    def given_with(self, replace: Callable[[Operand], Any]) -> list[Any]:
        """The arguments of its call, with something else in the place of each tensor."""

        def filled(value: Any) -> Any:
            if isinstance(value, Operand):
                return replace(value)
            return [filled(item) for item in value] if isinstance(value, tuple) else value

        return [filled(value) for value in self.given or ()]

    # -- what a declaration says -----------------------------------------------------------------------------
    def compute(self, b: Builder, *given: Any) -> str | list[str]:
        """Append the nodes; `given`: the arguments of the call, names of nodes for the tensors."""
        raise NotImplementedError

    def lower(self, into: Lowering, inputs: Sequence[str], call: int, **options: Any) -> list[str]:
        self._check_exact([into.graph[name].type for name in inputs])
        result = self.compute(
            Builder(into, self, call), *self.given_with(lambda operand: inputs[operand.index])
        )
        return result if isinstance(result, list) else [result]

    def _check_exact(self, inputs: Sequence[TensorType]) -> None:
        """Raises ShapeError where Keras's result would be one of integers, which wrap around as bytes do."""
        given = [value if isinstance(value, tuple) else (value,) for value in self.given or ()]
        reals = any(isinstance(number, float) for numbers in given for number in numbers)
        if self.exact and not reals and not any(kind.is_floating for kind in inputs):
            raise self.fail(
                f"is computed in {inputs[0].dtype} by Keras, and ConvLoom computes with floating-point "
                f"numbers alone; convert {inputs[0]} first, for example by x * 1.0"
            )

    # -- steps that several share ----------------------------------------------------------------------------
    def axis_of(self, axis: int, rank: int) -> int:
        """An axis of a value, counted from its start; never the batch."""
        if not -rank <= axis < rank or axis % rank == 0:
            raise self.fail(f"axis {axis} is not one of 1 to {rank - 1}; the batch, axis 0, is left alone")
        return axis % rank

    def axes_of(self, axes: Sequence[int] | None, rank: int) -> tuple[int, ...]:
        """Several axes, sorted. Raises ShapeError for None, which in Keras means the batch too."""
        if axes is None:
            raise self.fail("works along all axes, the batch too; name axes from 1 on")
        found = sorted({self.axis_of(axis, rank) for axis in axes})
        if len(found) != len(axes):
            raise self.fail(f"names an axis twice: {tuple(axes)}")
        return tuple(found)

    def tensor(self, value: Any) -> str:
        """The one tensor an operation works on."""
        if not isinstance(value, str):
            raise self.fail(f"takes a symbolic tensor, got {str(value)[:60]!r}")
        return value

    def as_layer(self, layer: Layer, b: Builder, x: str) -> str:
        """What a layer without weights makes of x; its errors come in the operation's name."""
        try:
            layer.prepare([b.type(x)])
        except ShapeError as error:
            raise ShapeError(str(error).replace(layer.label, self.label, 1)) from None
        return layer.build_one(b, x)

    def tensor_list(self, value: Any) -> list[str]:
        """Its list of tensors."""
        values = value if isinstance(value, list) else [value]
        return [self.tensor(item) for item in values]


def same_rank(operation: Operation, first: str, second: str, b: Builder) -> None:
    """Operators line shapes up at their ends, where the batch of one would meet another axis of the other."""
    a, c = b.type(first), b.type(second)
    if a.rank != c.rank:
        raise ShapeError(
            f"{operation.label}: {a} and {c} have {a.rank} and {c.rank} axes, so that a batch would meet "
            f"another axis; reshape one of them, or use the layer Add, Multiply, ..."
        )
