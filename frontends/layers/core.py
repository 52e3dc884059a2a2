"""Input, dense, shape and regularisation layers."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, ClassVar

from ...graph import ops
from ...graph.types import DTYPES, TensorType
from .. import fields as f
from ..budget import BUDGET
from ..lowering import Builder, Lowering
from ..open_axes import Sizes, described
from ..symbolic import Call, SymbolicTensor
from .base import Layer, Weight
from .parts import activate, affine, fits_in, to_channels_last
from .ruled import _KernelAndBias


class InputLayer(Layer):
    """Where data enters. shape: of one sample, without the batch, None where an axis may have any size.

    `Input` makes one and gives its tensor.
    """

    arity: ClassVar[tuple[int, int | None]] = (0, 0)
    neutral: ClassVar[dict[str, tuple[Any, ...]]] = {
        "sparse": (False, None),
        "ragged": (False, None),
        "optional": (False, None),
    }

    shape: Sequence[int | None] = f.option(f.image_shape)
    dtype: str = f.option(f.choice(*DTYPES), default="float32")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.refuse_regularizer()
        self.saved_shape: tuple[int | None, ...] | None = None
        """The shape its file gave, with the batch, open axes as None: what a file of it says again."""

    def tensor(self, kind: TensorType | None = None, other: TensorType | None = None) -> SymbolicTensor:
        """Its symbolic tensor. kind, other: at which sizes it is described, where that is settled already."""
        if kind is None:
            kind, other = described(self.shape, self.dtype)
        BUDGET.get().value(kind, self.label)
        return self.record([], [kind], others=[other]).outputs[0]

    def describe_again(self, call: Call, sizes: Sizes) -> None:
        call.outputs[0].describe(*described(self.shape, self.dtype, sizes))

    @property
    def input(self) -> Any:
        return self.output

    def lower(self, into: Lowering, inputs: Sequence[str], call: int, **options: Any) -> list[str]:
        return list(inputs)  # the model binds it


def Input(shape: Sequence[int | None], name: str | None = None, dtype: str = "float32") -> SymbolicTensor:
    """A symbolic tensor where data enters a network.

    shape: of one sample, without the batch; images are (height, width, channels). None on an axis leaves its
    size open: a fully convolutional network takes images of any size, each planned once when it is met.
    """
    return InputLayer(shape, dtype, name=name or "").tensor()


class Dense(_KernelAndBias):
    """Matrix product with a kernel (features in, units) over the last axis, plus a bias, then activation."""

    neutral: ClassVar[dict[str, tuple[Any, ...]]] = {"quantization_config": (None,), "lora_rank": (None,)}

    units: int = f.option(f.count)
    activation: f.ActivationLike = f.option(f.activation, default=None)
    use_bias: bool = f.option(f.flag, default=True)
    kernel_initializer: f.InitializerLike = f.option(f.initializer, default="glorot_uniform")
    bias_initializer: f.InitializerLike = f.option(f.initializer, default="zeros")

    def check(self, inputs: Sequence[TensorType]) -> None:
        if inputs[0].rank < 2:
            raise self.fail(f"takes (N, ..., features), found {inputs[0]} of rank {inputs[0].rank}")

    def along_last_axis(self) -> bool:
        return not isinstance(self.activation, Layer) or self.activation.pointwise()

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
        x = to_channels_last(b, inputs[0], self.data_format if b.type(inputs[0]).rank > 2 else None)
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


class Rescaling(Layer):
    """x * scale + offset, each a number, or numbers that broadcast against x as NumPy does."""

    said_training = True

    scale: f.Array = f.option(f.array)
    offset: f.Array = f.option(f.array, default=0.0)

    def check(self, inputs: Sequence[TensorType]) -> None:
        for key, value in (("scale", self.scale), ("offset", self.offset)):
            fits_in(self, key, f.array_shape(value), inputs[0])

    def build(self, b: Builder, *inputs: str) -> str:
        if f.array_shape(self.scale) or f.array_shape(self.offset):
            return affine(b, inputs[0], self.scale, self.offset)
        return b.add(ops.Scale(self.scale, self.offset), inputs[0])
