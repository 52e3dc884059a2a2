"""Pointwise ops: one formula each, and arithmetic with broadcasting."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch

from ..errors import CompileError, ShapeError
from ..formula import Formula, Name, converted, evaluate, where
from ..functions import floor, maximum, minimum, rsqrt
from ..op import Kind, Op, Sample
from ..slopes import pull
from ..types import Dim, TensorType, broadcast, elementwise

if TYPE_CHECKING:
    from ..gradients import GradientBuilder
    from ..ir import Node


@dataclass(frozen=True)
class Pointwise(Op):
    """Base of the pointwise ops: an element of the result is made of the same element of each operand.

    Its `formula` is all of its meaning: the reference, the kernel's text, the text of PyTorch beside it, the
    line of mathematics in the header, and the gradient where the op does not say a better one.
    """

    kind: ClassVar[Kind] = Kind.POINTWISE

    beside: ClassVar[tuple[str, str]] = ("", "")
    """What an operand is called that is a vector over the channels, and one that is not; "" for its name."""

    counted: ClassVar[bool] = False
    """Whether the formula has one operand more than the op: a number of elements."""

    @abc.abstractmethod
    def formula(self, *operands: Any, **_: Any) -> Any:
        """The result, of tensors or of formulas: Python's operators and the functions of functions.py."""

    def mathematics(self, *operands: Formula) -> Formula:
        """What stands in the header: the formula, unless there is something shorter to say."""
        return cast(Formula, self.formula(*operands))

    def infer(self, *inputs: TensorType) -> TensorType:
        return elementwise(inputs, self.op_name())

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.formula(*inputs))

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        """The formula's own derivative, summed where an operand was spread."""
        if self.counted:
            return super().gradient(build, node, dy)
        gradients: list[str | None] = []
        for place in range(len(node.inputs)):
            x, slope = build.operand(node, place), PointwiseGrad(self, place)
            known = x.name in build.needed and slope.tree(len(node.inputs)) is not None
            part = build.add(slope, dy, *node.inputs) if known else None
            gradients.append(part and build.sum_to(part, x))
        return gradients


@dataclass(frozen=True)
class PointwiseGrad(Pointwise):
    """dy times the derivative of the formula of `of` with respect to its operand at `place`."""

    operands: ClassVar[tuple[str, ...]] = ("dy", "xs*")
    value_name: ClassVar[str] = "passed"
    of: Pointwise
    place: int = 0

    def tree(self, count: int) -> Formula | None:
        """The derivative of a formula of `count` operands x0, x1, ..., None where it is 0."""
        names = [Name(f"x{i}") for i in range(count)]
        return pull(self.of.formula(*names), names[self.place].text, Name("dy"))

    def takes_whole(self, position: int) -> bool:
        return position > 0 and self.of.takes_whole(position - 1)

    def infer(self, *inputs: TensorType) -> TensorType:
        dy, *operands = inputs
        if not 0 <= self.place < len(operands):
            raise ShapeError(f"{self.of.op_name()} has no operand {self.place}")
        return super().infer(dy, *(x for x in operands if x.is_floating))

    def formula(self, *operands: Any, **_: Any) -> Any:
        dy, *xs = operands
        tree = self.tree(len(xs))
        if tree is None:
            raise CompileError(f"{self.of.op_name()} has no derivative with respect to operand {self.place}")
        return evaluate(tree, {"dy": dy, **{f"x{i}": x for i, x in enumerate(xs)}})

    def words(self, *operands: TensorType) -> str:
        return f"derivative of {self.of.words(*operands[1:])}"

    def example(self, operand: str) -> Sample:
        return self.of.example(self.of.operands[0]) if operand == "xs*" else "normal"


# -- arithmetic ----------
@dataclass(frozen=True)
class _Binary(Pointwise):
    operands: ClassVar[tuple[str, ...]] = ("a", "b")


@dataclass(frozen=True)
class Add(_Binary):
    """a + b, broadcasting as NumPy does."""

    commutes: ClassVar[bool] = True
    value_name: ClassVar[str] = "added"
    beside: ClassVar[tuple[str, str]] = ("bias", "residual")

    def formula(self, a: Any, b: Any) -> Any:
        return a + b

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        return [build.sum_to(dy, build.operand(node, i)) for i in range(2)]


@dataclass(frozen=True)
class Subtract(_Binary):
    """a - b, broadcasting as NumPy does."""

    value_name: ClassVar[str] = "difference"
    beside: ClassVar[tuple[str, str]] = ("shift", "other")

    def formula(self, a: Any, b: Any) -> Any:
        return a - b

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        negative = build.if_needed(build.operand(node, 1), Scale(-1.0), dy)
        return [
            build.sum_to(dy, build.operand(node, 0)),
            negative and build.sum_to(negative, build.operand(node, 1)),
        ]


@dataclass(frozen=True)
class Multiply(_Binary):
    """a * b, broadcasting as NumPy does."""

    commutes: ClassVar[bool] = True
    value_name: ClassVar[str] = "product"
    beside: ClassVar[tuple[str, str]] = ("scale", "factor")

    def formula(self, a: Any, b: Any) -> Any:
        return a * b

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        gradients: list[str | None] = []
        for mine, other in ((0, 1), (1, 0)):
            product = build.if_needed(build.operand(node, mine), Multiply(), dy, node.inputs[other])
            gradients.append(product and build.sum_to(product, build.operand(node, mine)))
        return gradients


@dataclass(frozen=True)
class Divide(_Binary):
    """a / b, broadcasting as NumPy does."""

    value_name: ClassVar[str] = "quotient"
    examples: ClassVar[dict[str, Sample]] = {"b": "positive"}

    def formula(self, a: Any, b: Any) -> Any:
        return a / b

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        """dy / b, and -(dy / b) y."""
        a, b = build.operand(node, 0), build.operand(node, 1)
        share = build.add(Divide(), dy, b.name)
        if b.name not in build.needed:
            return [build.sum_to(share, a), None]
        negative = build.add(Scale(-1.0), build.add(Multiply(), share, node.name))
        return [build.sum_to(share, a), build.sum_to(negative, b)]


@dataclass(frozen=True)
class _Extremum(_Binary):
    commutes: ClassVar[bool] = True

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        gradients: list[str | None] = []
        for mine, other in ((0, 1), (1, 0)):
            x, op = build.operand(node, mine), ExtremumGrad(isinstance(self, Minimum))
            part = build.if_needed(x, op, dy, x.name, node.inputs[other])
            gradients.append(part and build.sum_to(part, x))
        return gradients


@dataclass(frozen=True)
class Maximum(_Extremum):
    """The larger of a and b, broadcasting as NumPy does; NaN where either is."""

    value_name: ClassVar[str] = "larger"

    def formula(self, a: Any, b: Any) -> Any:
        return maximum(a, b)


@dataclass(frozen=True)
class Minimum(_Extremum):
    """The smaller of a and b, broadcasting as NumPy does; NaN where either is."""

    value_name: ClassVar[str] = "smaller"

    def formula(self, a: Any, b: Any) -> Any:
        return minimum(a, b)


@dataclass(frozen=True)
class ExtremumGrad(Pointwise):
    """dy where x is the larger (smallest: the smaller) of x and other, half of it where they are equal,
    all of it where either is NaN, so that NaN is not lost.
    """

    operands: ClassVar[tuple[str, ...]] = ("dy", "x", "other")
    title: ClassVar[str] = "derivative of a maximum"
    value_name: ClassVar[str] = "passed"
    smallest: bool = False

    def formula(self, dy: Any, x: Any, other: Any) -> Any:
        loses = x > other if self.smallest else x < other
        return where(loses, 0.0, where(x == other, 0.5 * dy, dy))


@dataclass(frozen=True)
class Scale(Pointwise):
    """x * factor + offset with two numbers known at compile time."""

    operands: ClassVar[tuple[str, ...]] = ("x",)
    value_name: ClassVar[str] = "scaled"
    factor: float = 1.0
    offset: float = 0.0

    def formula(self, x: Any) -> Any:
        return x * self.factor + self.offset

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        return [build.if_needed(build.operand(node, 0), Scale(self.factor), dy)]


@dataclass(frozen=True)
class Cast(Pointwise):
    """The same numbers in another dtype. No gradient passes through integers."""

    operands: ClassVar[tuple[str, ...]] = ("x",)
    whole: ClassVar[tuple[str, ...]] = ("x",)
    value_name: ClassVar[str] = "converted"
    dtype: str = "float32"

    def infer(self, *inputs: TensorType) -> TensorType:
        return inputs[0].with_dtype(self.dtype)

    def formula(self, x: Any) -> Any:
        return converted(x, self.dtype)

    def mathematics(self, *operands: Formula) -> Formula:
        return operands[0]

    def words(self, *operands: TensorType) -> str:
        return f"conversion of {operands[0].dtype}"

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        """As it is: `differentiate` rounds gradients that are wider than the values they are of."""
        return [dy if node.inputs[0] in build.needed else None]


@dataclass(frozen=True)
class Square(Pointwise):
    """x * x."""

    operands: ClassVar[tuple[str, ...]] = ("x",)
    value_name: ClassVar[str] = "squared"

    def formula(self, x: Any) -> Any:
        return x * x

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        (x,) = node.inputs
        return [build.add(Scale(2.0), build.add(Multiply(), dy, x)) if x in build.needed else None]


@dataclass(frozen=True)
class Step(Pointwise):
    """1 where x > 0, else 0; no gradient passes."""

    operands: ClassVar[tuple[str, ...]] = ("x",)

    def formula(self, x: Any) -> Any:
        return where(x > 0, 1.0, 0.0, like=x)


@dataclass(frozen=True)
class Floor(Pointwise):
    """The largest whole number that is not above x; no gradient passes."""

    operands: ClassVar[tuple[str, ...]] = ("x",)

    def formula(self, x: Any) -> Any:
        return floor(x)


@dataclass(frozen=True)
class StopGradient(Pointwise):
    """x, through which no gradient passes."""

    operands: ClassVar[tuple[str, ...]] = ("x",)
    whole: ClassVar[tuple[str, ...]] = ("x",)

    def formula(self, x: Any) -> Any:
        return x

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return inputs[0].detach()

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        return [None]


@dataclass(frozen=True)
class RsqrtPlus(Pointwise):
    """1 / sqrt(x + epsilon), the scale of a normalisation."""

    operands: ClassVar[tuple[str, ...]] = ("x",)
    value_name: ClassVar[str] = "rstd"
    examples: ClassVar[dict[str, Sample]] = {"x": "positive"}
    epsilon: float = 1e-3

    def formula(self, x: Any) -> Any:
        return rsqrt(x + self.epsilon)

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        """-dy y^3 / 2."""
        if node.inputs[0] not in build.needed:
            return [None]
        cube = build.add(Multiply(), build.add(Square(), node.name), node.name)
        return [build.add(Multiply(), dy, build.add(Scale(-0.5), cube))]


@dataclass(frozen=True)
class BroadcastTo(Pointwise):
    """x repeated along new axes and along those of size 1: the gradient of a sum.

    shape: of the result. mean: divided by the number of repeats too: the gradient of a mean. `like`, a value
    with a batch, tells its size where x does not have it.
    """

    operands: ClassVar[tuple[str, ...]] = ("x", "like?")
    whole: ClassVar[tuple[str, ...]] = ("x", "like")
    title: ClassVar[str] = "spreading"
    value_name: ClassVar[str] = "spread"
    counted: ClassVar[bool] = True
    shape: tuple[Dim, ...] = ()
    mean: bool = False

    def takes_whole(self, position: int) -> bool:
        return position == 1 or not self.mean

    def infer(self, *inputs: TensorType) -> TensorType:
        x, *like = inputs
        result = x.with_shape(self.shape)
        if broadcast(result, x, "broadcast_to").shape != self.shape:
            raise ShapeError(f"{x} does not broadcast to {result}")
        if result.batched and not x.batched and [t.batched for t in like] != [True]:
            raise ShapeError(f"broadcast_to {result} needs a second operand with a batch, for its size")
        return result

    def repeats(self, x: TensorType) -> tuple[int, bool]:
        """Elements of the result for each of x, in one image; and whether they are so many in every image."""
        result = x.with_shape(self.shape)
        return result.elements() // x.elements(), result.batched and not x.batched

    def formula(self, x: Any, count: Any) -> Any:
        """Of the elements; that they are repeated is a matter of addresses."""
        return x / count if self.mean else x

    def mathematics(self, *operands: Formula) -> Formula:
        result: Formula = self.formula(operands[0], Name("repeats"))
        return result

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        x, batch = inputs[0], inputs[-1].shape[0] if inputs[-1].dim() else 1
        result = x.expand(TensorType(self.shape).size(batch))
        shared: torch.Tensor = self.formula(result, result.numel() / x.numel())
        return shared

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        x = build.operand(node, 0)
        total = build.sum_to(dy, x)
        if total is not None and self.mean:
            repeats, per_image = self.repeats(x.type)
            if per_image:
                raise CompileError(f"{node.name}: no gradient of a share that depends on the batch size")
            total = build.add(Scale(1.0 / repeats), total)
        return [total, *[None for _ in node.inputs[1:]]]
