"""Layers that change something in training only, and the identity."""

from __future__ import annotations

from collections.abc import Sequence

from ...graph import ops
from ...graph.types import TensorType
from .. import fields as f
from ..activations import SELU_ALPHA, SELU_SCALE
from ..lowering import Builder
from ..regularizers import L1L2, Regularizer
from .base import Layer
from .drawn import dropped, in_training, per_element
from .parts import spatial_axes


class _NoisyShape(Layer):
    """Base of the layers whose draws may be shared along axes.

    noise_shape: size 1 on the axes along which all values share one draw.
    """

    said_training = False

    rate: float = f.option(f.fraction)
    noise_shape: Sequence[int | None] | None = f.option(f.maybe(f.open_shape), default=None)
    seed: int | None = f.option(f.maybe(f.integer), default=None)

    def check(self, inputs: Sequence[TensorType]) -> None:
        noise, x = self.noise_shape, inputs[0]
        if noise is not None and (
            len(noise) != x.rank or any(n not in (None, 1, d) for n, d in zip(noise, x.shape, strict=True))
        ):
            raise self.fail(f"noise_shape {noise} must have 1, null or the size on each axis of {x}")

    def shared(self, x: TensorType) -> tuple[int, ...]:
        """The axes along which one draw holds."""
        noise = self.noise_shape or (None,) * x.rank
        return tuple(i for i, (n, d) in enumerate(zip(noise, x.shape, strict=True)) if n == 1 != d)


class Dropout(_NoisyShape):
    """In training a value is 0 with probability `rate`, else times 1 / (1 - rate); otherwise the identity."""

    def build(self, b: Builder, *inputs: str) -> str:
        return dropped(b, inputs[0], self.rate, self.shared(b.type(inputs[0])))


class AlphaDropout(_NoisyShape):
    """Dropout that keeps mean 0 and variance 1, for networks of selu (Klambauer et al. 2017).

    In training a value is selu's -scale * alpha with probability `rate`, and all are then scaled and shifted.
    """

    def build(self, b: Builder, *inputs: str) -> str:
        x, rate = inputs[0], self.rate
        if rate == 0:
            return x
        least = -SELU_SCALE * SELU_ALPHA
        scale = ((1 - rate) * (1 + rate * least**2)) ** -0.5
        kept = per_element(b, x, "bernoulli", (1 - rate, 1.0), self.shared(b.type(x)), suffix="mask")
        above = b.add(ops.Scale(1.0, -least), x, suffix="above")
        above = b.add(ops.Multiply(), above, kept, suffix="kept")
        return in_training(b, x, b.add(ops.Scale(scale, scale * least * (1 - rate)), above, suffix="dropped"))


class GaussianNoise(Layer):
    """In training, plus a normal number of mean 0 and this standard deviation for each value."""

    said_training = False

    stddev: float = f.option(f.within(0, 1))
    seed: int | None = f.option(f.maybe(f.integer), default=None)

    def build(self, b: Builder, *inputs: str) -> str:
        x = inputs[0]
        if self.stddev == 0:
            return x
        noise = per_element(b, x, "normal", (0.0, self.stddev))
        return in_training(b, x, b.add(ops.Add(), x, noise, suffix="noisy"))


class GaussianDropout(Layer):
    """In training, times a normal number of mean 1 and variance rate / (1 - rate) for each value."""

    said_training = False

    rate: float = f.option(f.fraction)
    seed: int | None = f.option(f.maybe(f.integer), default=None)

    def build(self, b: Builder, *inputs: str) -> str:
        x = inputs[0]
        if self.rate == 0:
            return x
        noise = per_element(b, x, "normal", (1.0, (self.rate / (1 - self.rate)) ** 0.5))
        return in_training(b, x, b.add(ops.Multiply(), x, noise, suffix="noisy"))


class SpatialDropout1D(Layer):
    """Dropout of whole channels of a sequence (N, steps, channels)."""

    rank = 3
    said_training = False

    rate: float = f.option(f.fraction)
    seed: int | None = f.option(f.maybe(f.integer), default=None)

    def build(self, b: Builder, *inputs: str) -> str:
        return dropped(b, inputs[0], self.rate, (1,))


class _SpatialDropout(Layer):
    """Dropout of whole channels (Tompson et al. 2015)."""

    said_training = False

    rate: float = f.option(f.fraction)
    data_format: str | None = f.option(f.data_format, default=None)
    seed: int | None = f.option(f.maybe(f.integer), default=None)

    def build(self, b: Builder, *inputs: str) -> str:
        return dropped(b, inputs[0], self.rate, spatial_axes(b.type(inputs[0]), self.data_format))


class SpatialDropout2D(_SpatialDropout):
    """Dropout of whole channels of an image (Tompson et al. 2015)."""

    rank = 4


class SpatialDropout3D(_SpatialDropout):
    """Dropout of whole channels of a volume (N, depth, height, width, channels)."""

    rank = 5


class _Pass(Layer):
    """Base of the layers that hand their input on."""

    def build(self, b: Builder, *inputs: str) -> str:
        return inputs[0]


class Identity(_Pass):
    """The input."""


class ActivityRegularization(_Pass):
    """The input, whose size, l1 * sum of |x| + l2 * sum of x^2 over the batch, is added to the loss."""

    l1: float = f.option(f.at_least_zero, default=0.0)
    l2: float = f.option(f.at_least_zero, default=0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.refuse_regularizer()

    @property
    def activity_penalty(self) -> Regularizer | None:
        return L1L2(self.l1, self.l2)
