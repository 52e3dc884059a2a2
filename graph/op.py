"""What an op is: one small class that says everything about itself in one place.

Adding an op means adding one such class here in graph/ops. Its fields are its attributes; `infer` types it,
`flops` and `cost` cost it, `reference` is its meaning in plain torch operators, and `gradient` is its
derivative as more ops. A pointwise op's `formula` is all of its meaning (`ops/pointwise.py`); another kind of
computation needs an emitter in codegen beside it. `title`, `value_name`, `role_name` and `examples` are what
emitted files call it and try it with.
"""

from __future__ import annotations

import abc
import enum
import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from .attributes import checked, declared, plain
from .errors import CompileError, ModelFormatError, ShapeError
from .types import TensorType

if TYPE_CHECKING:
    from .gradients import GradientBuilder
    from .ir import Node


class Kind(enum.Enum):
    """What decides which ops may share a kernel."""

    SOURCE = "source"  # inputs, parameters, constants: no kernel
    VIEW = "view"  # the same bytes under another shape: no kernel
    CONTRACTION = "contraction"  # convolution, matrix product and their gradients
    WINDOW = "window"  # pooling and its gradients
    REDUCTION = "reduction"  # sums over axes, softmax, losses
    POINTWISE = "pointwise"  # one output element from the same element of each operand
    MOVEMENT = "movement"  # pad, slice, concatenate, transpose
    COLLECTIVE = "collective"  # joined with what other processes have: no kernel


@dataclass(frozen=True)
class Cost:
    """Work of one op or region for one batch. flops: multiplications and additions counted separately."""

    flops: int
    bytes_read: int
    bytes_written: int

    @property
    def bytes(self) -> int:
        return self.bytes_read + self.bytes_written

    @property
    def intensity(self) -> float:
        """Arithmetic intensity in FLOPs a byte."""
        return self.flops / self.bytes if self.bytes else 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.flops + other.flops,
            self.bytes_read + other.bytes_read,
            self.bytes_written + other.bytes_written,
        )


REGISTRY: dict[str, type[Op]] = {}

Sample = Literal[
    "normal", "positive", "not negative", "log sigmoid", "coin", "share", "part", "rows", "clipped", "one hot"
]
"""Values to try an op with: normally distributed; in [0.5, 1.5); the normal ones' absolute values, and their
log sigmoids; 0 or 1; in [0.05, 0.95) and in [0.05, 1.05); rows that sum to 1; the normal ones, but 0 where
they are below it; rows of one 1."""


@cache
def snake_case(name: str) -> str:
    """Keras's own rule: Conv2D -> conv2d, GlobalMaxPooling2D -> global_max_pooling2d, ReLU -> re_lu."""
    spaced = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", spaced).lower()


@dataclass(frozen=True)
class Op(abc.ABC):
    """Base of all ops. Subclasses are frozen dataclasses whose fields are plain, JSON-able attributes."""

    kind: ClassVar[Kind]
    operands: ClassVar[tuple[str, ...]] = ()
    """Operand names in order; a name ending in "?" may be left out, one ending in "*" takes any number."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not cls.__name__.startswith("_"):
            REGISTRY[cls.op_name()] = cls

    whole: ClassVar[tuple[str, ...]] = ()
    """Operands, by name, that may be integers or truth values: what is moved, converted, compared or looked
    up. Every other operand is a number to compute with, and those are floating-point numbers."""

    alike: ClassVar[tuple[str, ...]] = ()
    """Operands, by name, of which none is an integer or a truth value where another is none."""

    commutes: ClassVar[bool] = False
    """Whether its two operands may change places."""

    title: ClassVar[str] = ""
    """What `words` says by default; "" for the op's name."""

    value_name: ClassVar[str] = ""
    """What a kernel calls a value it made with this op and does not store; "" for the op's name."""

    role_name: ClassVar[str] = ""
    """What `role` says by default."""

    examples: ClassVar[dict[str, Sample]] = {}
    """Operand -> what sensible values it has; those not named are "normal"."""

    def role(self) -> str:
        """What a kernel calls the result where it reads or stores it; "" for a word by its place."""
        return self.role_name

    def words(self, *operands: TensorType) -> str:
        """What it computes of these operands, in words."""
        return self.title or self.op_name().replace("_", " ")

    def example(self, operand: str) -> Sample:
        """What sensible values an operand has."""
        return self.examples.get(operand, "normal")

    def takes_whole(self, position: int) -> bool:
        """Whether the operand at this position may be an integer or a truth value."""
        return self._operand(position) in self.whole

    def is_alike(self, position: int) -> bool:
        """Whether the operand at this position is one of those that are `alike`."""
        return self._operand(position) in self.alike

    def _operand(self, position: int) -> str:
        return self.operands[min(position, len(self.operands) - 1)].rstrip("?*") if self.operands else ""

    def result(self, *inputs: TensorType) -> TensorType:
        """`infer`, once no integer is where numbers are computed with; raises ShapeError."""
        for position, operand in enumerate(inputs):
            if not operand.is_floating and not self.takes_whole(position):
                raise ShapeError(
                    f"{self.op_name()} computes with floating-point numbers, found {operand}; cast it before"
                )
        return self.infer(*inputs)

    @classmethod
    def op_name(cls) -> str:
        """The name in the IR's text: Conv2D -> conv2d."""
        return snake_case(cls.__name__)

    @abc.abstractmethod
    def infer(self, *inputs: TensorType) -> TensorType:
        """Type of the result; raises ShapeError for operands that do not fit. `result` asks it."""

    @abc.abstractmethod
    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        """The meaning of the op, in plain torch operators over channels-last data."""

    def flops(self, inputs: Sequence[TensorType], output: TensorType, batch: int) -> int:
        """FLOPs for one batch; by default one an output element."""
        return output.elements(batch)

    def cost(self, inputs: Sequence[TensorType], output: TensorType, batch: int) -> Cost:
        """Cost of the op alone: every operand read once, the result written once."""
        return Cost(
            self.flops(inputs, output, batch),
            sum(t.nbytes(batch) for t in inputs),
            output.nbytes(batch),
        )

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        """Nodes for the derivative with respect to each operand; None where it is zero or not defined."""
        raise CompileError(f"{node.name}: {self.op_name()} has no gradient")

    def attributes(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def __str__(self) -> str:
        # What only some dtypes need is shown where it says something.
        rare = {f.name for f in fields(self) if f.metadata.get("rare") and getattr(self, f.name) == f.default}
        shown = ", ".join(f"{k}={_plain(v)}" for k, v in self.attributes().items() if k not in rare)
        return f"{self.op_name()}({shown})" if shown else self.op_name()


def _plain(value: Any) -> str:
    if isinstance(value, tuple):
        return "(" + ",".join(map(_plain, value)) + ")"
    return str(value)


def op_to_json(op: Op) -> dict[str, Any]:
    attributes = {k: op_to_json(v) if isinstance(v, Op) else plain(v) for k, v in op.attributes().items()}
    return {"op": op.op_name(), **attributes}


def op_from_json(data: dict[str, Any]) -> Op:
    """Inverse of `op_to_json`; raises ModelFormatError for an unknown op or attribute."""
    attributes = {k: _frozen(v) for k, v in data.items() if k != "op"}
    name = data.get("op")
    cls = REGISTRY.get(name) if isinstance(name, str) else None
    if cls is None or inspect.isabstract(cls):
        raise ModelFormatError(f"unknown op {name!r} in graph JSON")
    known = {f.name for f in fields(cls)}
    if unknown := attributes.keys() - known:
        raise ModelFormatError(f"op {name!r} has no attribute {sorted(unknown)}; it has {sorted(known)}")
    kinds = declared(cls)
    try:
        return cls(**{key: checked(value, kinds[key]) for key, value in attributes.items()})
    except TypeError as error:
        raise ModelFormatError(f"op {name!r} is malformed in graph JSON: {error}") from None


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return op_from_json(value)
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
