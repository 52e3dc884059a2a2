"""Input, dense, shape and regularisation layers."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, ClassVar

from ...graph import ops
from ...graph.types import BATCH, DTYPES, TensorType
from .. import fields as f
from ..budget import BUDGET
from ..lowering import Builder, Lowering
from ..symbolic import SymbolicTensor
from .base import Layer, Weight
from .parts import TO_LAST, activate, affine, on_last_axis


class InputLayer(Layer):
    """Where data enters. shape: of one sample, without the batch. `Input` makes one and gives its tensor."""

    arity: ClassVar[tuple[int, int | None]] = (0, 0)
    neutral: ClassVar[dict[str, tuple[Any, ...]]] = {
        "sparse": (False, None),
        "ragged": (False, None),
        "optional": (False, None),
    }

    shape: Sequence[int] = f.option(f.image_shape)
    dtype: str = f.option(f.choice(*DTYPES), default="float32")

    @property
    def type(self) -> TensorType:
        return TensorType((BATCH, *self.shape), self.dtype)

    def tensor(self) -> SymbolicTensor:
        BUDGET.get().value(self.type, self.label)
        result = self._record([], [self.type])
        assert isinstance(result, SymbolicTensor)
        return result

    def lower(self, into: Lowering, inputs: Sequence[str], call: int) -> list[str]:
        return list(inputs)  # the model binds it


class Dense(Layer):
    """Matrix product with a kernel (features in, units) over the last axis, plus a bias, then activation."""

    neutral: ClassVar[dict[str, tuple[Any, ...]]] = {"quantization_config": (None,), "lora_rank": (None,)}

    units: int = f.option(f.count)
    activation: str | None = f.option(f.activation, default=None)
    use_bias: bool = f.option(f.flag, default=True)
    kernel_initializer: str = f.option(f.initializer, default="glorot_uniform")
    bias_initializer: str = f.option(f.initializer, default="zeros")

    def check(self, inputs: Sequence[TensorType]) -> None:
        if inputs[0].rank < 2:
            raise self.fail(f"takes (N, ..., features), found {inputs[0]} of rank {inputs[0].rank}")

    def weights(self, inputs: Sequence[TensorType]) -> list[Weight]:
        kernel = Weight("kernel", (inputs[0].channels, self.units), self.kernel_initializer)
        return [kernel, Weight("bias", (self.units,), self.bias_initializer)][: 1 + self.use_bias]

    def build(self, b: Builder, *inputs: str) -> str:
        weights = [b.weight(weight.name) for weight in self.built]
        return activate(b, b.add(ops.Dense(), inputs[0], *weights), self.activation)


class Flatten(Layer):
    """All axes but the batch in one, in row-major order of height, width, channels."""

    data_format: str | None = f.option(f.data_format, default=None)

    def build(self, b: Builder, *inputs: str) -> str:
        x = inputs[0]
        if self.data_format == "channels_first" and b.type(x).rank > 2:
            rank = b.type(x).rank
            order = TO_LAST if rank == 4 else (0, *range(2, rank), 1)
            x = b.add(ops.Transpose(order), x, suffix="to_channels_last")
        return b.add(ops.Reshape((b.type(x).elements(),)), x)


class Reshape(Layer):
    """The same elements, in order, under another shape. target_shape: without the batch, one -1 at most."""

    target_shape: Sequence[int] = f.option(f.sizes)

    def build(self, b: Builder, *inputs: str) -> str:
        kind = b.type(inputs[0])
        known = prod(d for d in self.target_shape if d != -1)
        missing, rest = divmod(kind.elements(), known)
        if rest or (missing != 1 and -1 not in self.target_shape):
            raise self.fail(
                f"cannot give {kind}, {kind.elements()} elements a sample, the shape {self.target_shape}"
            )
        return b.add(ops.Reshape(tuple(missing if d == -1 else d for d in self.target_shape)), inputs[0])


class Permute(Layer):
    """Axes in another order. dims: 1-based, without the batch, as in Keras."""

    dims: Sequence[int] = f.option(f.sizes)

    def build(self, b: Builder, *inputs: str) -> str:
        kind = b.type(inputs[0])
        if sorted(self.dims) != list(range(1, kind.rank)):
            raise self.fail(f"dims must order the axes 1 to {kind.rank - 1} of {kind}, got {self.dims}")
        return b.add(ops.Transpose((0, *self.dims)), inputs[0])


class Activation(Layer):
    """An activation by name."""

    activation: str = f.option(f.activation)

    def build(self, b: Builder, *inputs: str) -> str:
        return activate(b, inputs[0], self.activation, alone=True)


class ReLU(Layer):
    """min(x, max_value) where x > threshold, else negative_slope * (x - threshold)."""

    max_value: float | None = f.option(f.maybe(f.positive), default=None)
    negative_slope: float = f.option(f.number, default=0.0)
    threshold: float = f.option(f.number, default=0.0)

    def build(self, b: Builder, *inputs: str) -> str:
        return b.add(self._op(), inputs[0])

    def _op(self) -> ops.Activation:
        """The plainest op of this meaning, for the kernels and rewrites that know it."""
        match self.max_value, self.negative_slope, self.threshold:
            case None, 0.0, 0.0:
                return ops.Relu()
            case 6.0, 0.0, 0.0:
                return ops.Relu6()
            case None, slope, 0.0:
                return ops.LeakyRelu(slope)
            case most, slope, threshold:
                return ops.GeneralRelu(most, slope, threshold)


class LeakyReLU(Layer):
    """x where x >= 0, else negative_slope * x."""

    aliases: ClassVar[dict[str, str]] = {"alpha": "negative_slope"}

    negative_slope: float = f.option(f.number, default=0.3)

    def build(self, b: Builder, *inputs: str) -> str:
        return b.add(ops.LeakyRelu(self.negative_slope), inputs[0])


class ELU(Layer):
    """x where x > 0, else alpha * (exp(x) - 1)."""

    alpha: float = f.option(f.number, default=1.0)

    def build(self, b: Builder, *inputs: str) -> str:
        return b.add(ops.Elu(self.alpha), inputs[0])


class Softmax(Layer):
    """exp(x) / sum of exp(x) along one axis."""

    axis: int = f.option(f.axis, default=-1)

    def check(self, inputs: Sequence[TensorType]) -> None:
        rank = inputs[0].rank
        if not self.axis % rank >= 1 or not -rank <= self.axis < rank:
            raise self.fail(f"axis must be one of 1 to {rank - 1} of {inputs[0]}, got {self.axis}")

    def build(self, b: Builder, *inputs: str) -> str:
        axis = self.axis % b.type(inputs[0]).rank
        return on_last_axis(b, inputs[0], axis, lambda x: b.add(ops.Softmax(), x))


class Rescaling(Layer):
    """x * scale + offset, each one number or a list of one for each place of the last axis."""

    scale: f.Numbers = f.option(f.numbers)
    offset: f.Numbers = f.option(f.numbers, default=0.0)

    def check(self, inputs: Sequence[TensorType]) -> None:
        for key, value in (("scale", self.scale), ("offset", self.offset)):
            if isinstance(value, tuple) and len(value) != inputs[0].channels:
                raise self.fail(f"{key} has {len(value)} values for the last axis of {inputs[0]}")

    def build(self, b: Builder, *inputs: str) -> str:
        scale, offset = f.numbers(self.scale), f.numbers(self.offset)
        if isinstance(scale, tuple) or isinstance(offset, tuple):
            return affine(b, inputs[0], scale, offset)
        return b.add(ops.Scale(scale, offset), inputs[0])


class PReLU(Layer):
    """x where x > 0, else alpha * x, alpha being trained (He et al. 2015).

    shared_axes: the axes along which one alpha holds.
    """

    alpha_initializer: str = f.option(f.initializer, default="zeros")
    shared_axes: Sequence[int] | None = f.option(f.maybe(f.axes), default=None)

    def check(self, inputs: Sequence[TensorType]) -> None:
        if any(not 1 <= axis < inputs[0].rank for axis in self.shared_axes or ()):
            raise self.fail(f"shared_axes must be of 1 to {inputs[0].rank - 1}, got {self.shared_axes}")

    def weights(self, inputs: Sequence[TensorType]) -> list[Weight]:
        shared = self.shared_axes or ()
        sizes = enumerate(inputs[0].size()[1:], start=1)
        return [Weight("alpha", tuple(1 if i in shared else n for i, n in sizes), self.alpha_initializer)]

    def build(self, b: Builder, *inputs: str) -> str:
        return b.add(ops.Prelu(), inputs[0], b.weight("alpha"))
