"""Activations: functions of one value, with their derivatives.

NaN passes through every activation as it does in torch, and gradients pass where a value is NaN: hence
conditions such as `y <= 0`, which no NaN meets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import CompileError
from ..formula import Formula, Function, Name, evaluate, where
from ..functions import (
    absolute,
    elu,
    exp,
    expm1,
    gelu,
    gelu_tanh,
    leaky_relu,
    log,
    log_sigmoid,
    mish,
    relu,
    relu6,
    sigmoid,
    softplus,
    softsign,
    sqrt,
    squareplus,
    swish,
    tanh,
    tanh_shrink,
)
from ..op import Sample
from ..slopes import pull
from ..types import TensorType
from .pointwise import Pointwise

if TYPE_CHECKING:
    from ..gradients import GradientBuilder
    from ..ir import Node


@dataclass(frozen=True)
class Activation(Pointwise):
    """Base of the activations y = f(x), f being `formula`.

    saves: which of x ("input") or y ("output") the derivative is written in; saving y lets the kernel that
    computes y drop x, and lets the derivative move behind a max pooling. saved: what values that has.
    """

    operands: ClassVar[tuple[str, ...]] = ("x",)
    value_name: ClassVar[str] = "activated"
    saves: ClassVar[str] = "output"
    saved: ClassVar[Sample] = "normal"

    def backward(self, dy: Any, saved: Any) -> Any:
        """dy times f'(x), from x or from y = f(x) as `saves` says; from x, the formula's own derivative.

        Where f' is 0 it is 0 whatever dy is, of an activation in pieces.
        """
        tree = pull(self.formula(Name("x")), "x", Name("dy")) if self.saves == "input" else None
        if tree is None:
            raise CompileError(f"{self.op_name()} says no derivative in its {self.saves}")
        return evaluate(tree, {"x": saved, "dy": dy})

    def mathematics(self, *operands: Formula) -> Formula:
        result: Formula = Function(self.op_name())(*operands)
        return result

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        saved = node.name if self.saves == "output" else node.inputs[0]
        return [build.if_needed(build.operand(node, 0), ActivationGrad(self), dy, saved)]


@dataclass(frozen=True)
class Relu(Activation):
    """max(x, 0)."""

    title: ClassVar[str] = "ReLU"

    def formula(self, x: Any) -> Any:
        return relu(x)

    def backward(self, dy: Any, saved: Any) -> Any:
        return where(saved <= 0, 0.0, dy)


@dataclass(frozen=True)
class Relu6(Activation):
    """min(max(x, 0), 6)."""

    title: ClassVar[str] = "ReLU6"

    def formula(self, x: Any) -> Any:
        return relu6(x)

    def backward(self, dy: Any, saved: Any) -> Any:
        return where((saved <= 0) | (saved >= 6), 0.0, dy)


@dataclass(frozen=True)
class LeakyRelu(Activation):
    """x where x >= 0, else slope * x. Keras's layer has slope 0.3, its activation string 0.2."""

    title: ClassVar[str] = "leaky ReLU"
    slope: float = 0.3

    def formula(self, x: Any) -> Any:
        return leaky_relu(x, self.slope)

    def backward(self, dy: Any, saved: Any) -> Any:
        return where(saved > 0, dy, self.slope * dy)


@dataclass(frozen=True)
class Sigmoid(Activation):
    """1 / (1 + exp(-x)); derivative y (1 - y)."""

    def formula(self, x: Any) -> Any:
        return sigmoid(x)

    def backward(self, dy: Any, saved: Any) -> Any:
        return dy * saved * (1.0 - saved)


@dataclass(frozen=True)
class Tanh(Activation):
    """Hyperbolic tangent; derivative 1 - y^2."""

    def formula(self, x: Any) -> Any:
        return tanh(x)

    def backward(self, dy: Any, saved: Any) -> Any:
        return dy * (1.0 - saved * saved)


@dataclass(frozen=True)
class Swish(Activation):
    """x * sigmoid(x), also called SiLU (Ramachandran et al. 2017)."""

    saves: ClassVar[str] = "input"

    def formula(self, x: Any) -> Any:
        return swish(x)


@dataclass(frozen=True)
class Gelu(Activation):
    """x * Phi(x) (Hendrycks & Gimpel 2016); approximate: the tanh form of the same paper."""

    title: ClassVar[str] = "GELU"
    saves: ClassVar[str] = "input"
    approximate: bool = False

    def formula(self, x: Any) -> Any:
        return gelu_tanh(x) if self.approximate else gelu(x)


@dataclass(frozen=True)
class Elu(Activation):
    """scale * x where x > 0, else scale * alpha * (exp(input_scale * x) - 1); alpha, scale >= 0.

    With alpha alone ELU (Clevert et al. 2015); with scale SELU (Klambauer et al. 2017); with input_scale
    1 / alpha CELU (Barron 2017).
    """

    title: ClassVar[str] = "ELU"
    alpha: float = 1.0
    scale: float = 1.0
    input_scale: float = 1.0

    def formula(self, x: Any) -> Any:
        if self.scale == self.input_scale == 1:
            return elu(x, self.alpha)
        return where(x > 0, self.scale * x, self.alpha * self.scale * expm1(self.input_scale * x))

    def backward(self, dy: Any, saved: Any) -> Any:
        below = self.input_scale * dy * (saved + self.alpha * self.scale)
        return where(saved > 0, self.scale * dy, below)


@dataclass(frozen=True)
class Softplus(Activation):
    """log(1 + exp(x)), in a form that cannot overflow."""

    saves: ClassVar[str] = "input"

    def formula(self, x: Any) -> Any:
        return softplus(x)


@dataclass(frozen=True)
class LogSigmoid(Activation):
    """log(sigmoid(x)) = -softplus(-x); derivative 1 - exp(y)."""

    saved: ClassVar[Sample] = "log sigmoid"

    def formula(self, x: Any) -> Any:
        return log_sigmoid(x)

    def backward(self, dy: Any, saved: Any) -> Any:
        return -dy * expm1(saved)


@dataclass(frozen=True)
class Squareplus(Activation):
    """(x + sqrt(x^2 + b)) / 2 with b > 0 (Barron 2021).

    With s = sqrt(x^2 + b) the derivative is y / s, and y (s - x) / 2 = b / 4 makes it 1 / (1 + b / (4 y^2)).
    """

    saved: ClassVar[Sample] = "not negative"
    b: float = 4.0

    def formula(self, x: Any) -> Any:
        return squareplus(x, self.b)

    def backward(self, dy: Any, saved: Any) -> Any:
        return dy / (1.0 + self.b / 4 / (saved * saved))


@dataclass(frozen=True)
class TanhShrink(Activation):
    """x - tanh(x); derivative tanh(x)^2."""

    saves: ClassVar[str] = "input"

    def formula(self, x: Any) -> Any:
        return tanh_shrink(x)


@dataclass(frozen=True)
class Softsign(Activation):
    """x / (1 + |x|)."""

    saves: ClassVar[str] = "input"

    def formula(self, x: Any) -> Any:
        return softsign(x)


@dataclass(frozen=True)
class Mish(Activation):
    """x * tanh(softplus(x)) (Misra 2019)."""

    saves: ClassVar[str] = "input"

    def formula(self, x: Any) -> Any:
        return mish(x)


@dataclass(frozen=True)
class Exp(Activation):
    """exp(x), its own derivative."""

    def formula(self, x: Any) -> Any:
        return exp(x)

    def backward(self, dy: Any, saved: Any) -> Any:
        return dy * saved


@dataclass(frozen=True)
class Log(Activation):
    """The natural logarithm; derivative 1 / x."""

    saves: ClassVar[str] = "input"
    saved: ClassVar[Sample] = "positive"
    examples: ClassVar[dict[str, Sample]] = {"x": "positive"}

    def formula(self, x: Any) -> Any:
        return log(x)

    def backward(self, dy: Any, saved: Any) -> Any:
        return dy / saved


@dataclass(frozen=True)
class Sqrt(Activation):
    """Square root; derivative 1 / (2 y)."""

    saved: ClassVar[Sample] = "positive"
    examples: ClassVar[dict[str, Sample]] = {"x": "positive"}

    def formula(self, x: Any) -> Any:
        return sqrt(x)

    def backward(self, dy: Any, saved: Any) -> Any:
        return 0.5 * dy / saved


@dataclass(frozen=True)
class Abs(Activation):
    """|x|; derivative the sign of x, 0 at 0."""

    saves: ClassVar[str] = "input"

    def formula(self, x: Any) -> Any:
        return absolute(x)

    def backward(self, dy: Any, saved: Any) -> Any:
        return where(saved == 0, 0.0, where(saved < 0, -dy, dy))


@dataclass(frozen=True)
class ActivationGrad(Pointwise):
    """dy * f'(saved) for the activation f named by `activation`."""

    operands: ClassVar[tuple[str, ...]] = ("dy", "saved")
    value_name: ClassVar[str] = "passed"
    activation: Activation = field(default_factory=Relu)

    def formula(self, dy: Any, saved: Any) -> Any:
        return self.activation.backward(dy, saved)

    def mathematics(self, *operands: Formula) -> Formula:
        dy, saved = operands
        slope: Formula = Function(f"{self.activation.op_name()}'")(saved)
        return dy * slope

    def words(self, *operands: TensorType) -> str:
        return f"derivative of {self.activation.words(*operands[1:])}"

    def example(self, operand: str) -> Sample:
        return self.activation.saved if operand == "saved" else "normal"
