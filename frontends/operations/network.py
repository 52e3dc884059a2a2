"""Activations, pooling and normalisation without a layer of their own: keras.ops.nn."""

from __future__ import annotations

from typing import Any, ClassVar

from ...graph import ops
from .. import fields as f
from ..layers import AveragePooling2D, MaxPooling2D
from ..layers.parts import activate, on_last_axis, unit_length
from ..lowering import Builder
from .base import Operation

NN = "keras.src.ops.nn"


# -- activations ---------------------------------------------------------------------------------------------
class _Activation(Operation):
    """Base of the activations that have a name in the table of activations, and no argument."""

    activation: ClassVar[str]

    def compute(self, b: Builder, *given: Any) -> str:
        return activate(b, self.tensor(given[0]), self.activation, alone=True)


class Relu(_Activation):
    """max(x, 0)."""

    module = NN
    activation = "relu"


class Relu6(_Activation):
    """min(max(x, 0), 6)."""

    module = NN
    activation = "relu6"


class Sigmoid(_Activation):
    """1 / (1 + exp(-x))."""

    module = NN
    activation = "sigmoid"


class Silu(_Activation):
    """x * sigmoid(x)."""

    module = NN
    activation = "silu"


class HardSilu(_Activation):
    """x * relu6(x + 3) / 6."""

    module = NN
    activation = "hard_silu"


class HardSigmoid(_Activation):
    """relu6(x + 3) / 6."""

    module = NN
    activation = "hard_sigmoid"


class Softplus(_Activation):
    """log(1 + exp(x))."""

    module = NN
    activation = "softplus"


class Softsign(_Activation):
    """x / (1 + |x|)."""

    module = NN
    activation = "softsign"


class LeakyRelu(Operation):
    """x where x >= 0, else negative_slope * x."""

    module = NN

    negative_slope: float = f.option(f.number, default=0.2)

    def compute(self, b: Builder, *given: Any) -> str:
        return b.add(ops.LeakyRelu(self.negative_slope), self.tensor(given[0]))


class Elu(Operation):
    """x where x > 0, else alpha * (exp(x) - 1)."""

    module = NN

    alpha: float = f.option(f.number, default=1.0)

    def compute(self, b: Builder, *given: Any) -> str:
        return b.add(ops.Elu(self.alpha), self.tensor(given[0]))


class Selu(_Activation):
    """scale * elu(x, alpha) with the two constants of Klambauer et al. 2017."""

    module = NN
    activation = "selu"


class Gelu(Operation):
    """x * P(X <= x) of a normal X; approximate: with tanh, which is the operation's default in Keras."""

    module = NN

    approximate: bool = f.option(f.flag, default=True)

    def compute(self, b: Builder, *given: Any) -> str:
        return b.add(ops.Gelu(self.approximate), self.tensor(given[0]))


class Softmax(Operation):
    """exp(x) / sum of exp(x) along one axis."""

    module = NN
    op: ClassVar[type[ops.Softmax] | type[ops.LogSoftmax]] = ops.Softmax

    axis: int = f.option(f.axis, default=-1)

    def compute(self, b: Builder, *given: Any) -> str:
        x = self.tensor(given[0])
        axis = self.axis_of(self.axis, b.type(x).rank)
        return on_last_axis(b, x, axis, lambda x: b.add(self.op(), x))


class LogSoftmax(Softmax):
    """x - log(sum of exp(x)) along one axis."""

    op = ops.LogSoftmax


class Normalize(Operation):
    """x over its length along one axis: the root of the squares (order 2), or the sum of |x| (order 1)."""

    module = NN

    axis: int = f.option(f.axis, default=-1)
    order: int = f.option(f.count, default=2)
    epsilon: float | None = f.option(f.maybe(f.positive), default=None)

    def compute(self, b: Builder, *given: Any) -> str:
        if self.order > 2:
            raise self.fail(f"order must be 1 or 2, got {self.order}")
        x = self.tensor(given[0])
        axes = (self.axis_of(self.axis, b.type(x).rank),)
        least = self.epsilon if self.epsilon is not None else 1e-7  # Keras's own epsilon
        if self.order == 2:
            return unit_length(b, x, axes, least * least)  # a file may say 1e200
        total = b.add(ops.Reduce(axes, keepdims=True), b.add(ops.Abs(), x, suffix="sizes"), suffix="total")
        bound = b.add(ops.Constant((1,), least), suffix="least")
        return b.add(ops.Divide(), x, b.add(ops.Maximum(), total, bound, suffix="bounded"))


# -- pooling -------------------------------------------------------------------------------------------------
class _Pool(Operation):
    """Base of the poolings, which compute what the layers do."""

    operands = ("inputs",)
    layer: ClassVar[type[MaxPooling2D] | type[AveragePooling2D]]

    pool_size: f.PairLike = f.option(f.pair)
    strides: f.PairLike | None = f.option(f.maybe(f.pair), default=None)
    padding: str = f.option(f.choice("valid", "same"), default="valid")
    data_format: str | None = f.option(f.data_format, default=None)

    def compute(self, b: Builder, *given: Any) -> str:
        layer = self.layer(self.pool_size, self.strides, self.padding, self.data_format, name=self.name)
        return self.as_layer(layer, b, self.tensor(given[0]))


class MaxPool(_Pool):
    """Largest value of each window; padding never wins."""

    module = NN
    layer = MaxPooling2D


class AveragePool(_Pool):
    """Mean of the real elements of each window."""

    module = NN
    layer = AveragePooling2D
