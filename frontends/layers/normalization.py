"""Batch normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from ...graph import ops
from ...graph.types import TensorType
from .. import fields as f
from ..lowering import Builder
from .base import Weight
from .layer_normalization import gamma_and_beta
from .parts import on_last_axis, sample_axes
from .ruled import _GammaAndBeta


class BatchNormalization(_GammaAndBeta):
    """gamma * (x - mean) / sqrt(variance + epsilon) + beta along one axis (Ioffe & Szegedy 2015).

    scale, center: whether there is a gamma, a beta. momentum: of the moving statistics in training.
    """

    ignored: ClassVar[frozenset[str]] = frozenset({"synchronized"})
    neutral: ClassVar[dict[str, tuple[Any, ...]]] = {
        "renorm": (False, None),
        "renorm_clipping": (None, {}),
        "renorm_momentum": (None, 0.99),
        "fused": (None, True, False),
        "virtual_batch_size": (None,),
        "adjustment": (None,),
    }

    axis: int = f.option(f.axis, default=-1)
    momentum: float = f.option(f.number, default=0.99)
    epsilon: float = f.option(f.positive, default=1e-3)
    center: bool = f.option(f.flag, default=True)
    scale: bool = f.option(f.flag, default=True)
    beta_initializer: f.InitializerLike = f.option(f.initializer, default="zeros")
    gamma_initializer: f.InitializerLike = f.option(f.initializer, default="ones")
    moving_mean_initializer: f.InitializerLike = f.option(f.initializer, default="zeros")
    moving_variance_initializer: f.InitializerLike = f.option(f.initializer, default="ones")

    def check(self, inputs: Sequence[TensorType]) -> None:
        sample_axes(self, self.axis, inputs[0])

    def weights(self, inputs: Sequence[TensorType]) -> list[Weight]:
        shape = (int(inputs[0].shape[self.axis]),)
        return [
            *gamma_and_beta(self, shape, self.scale, self.center),
            Weight("moving_mean", shape, self.moving_mean_initializer, trainable=False),
            Weight("moving_variance", shape, self.moving_variance_initializer, trainable=False),
        ]

    def build(self, b: Builder, *inputs: str) -> str:
        def normalize(x: str) -> str:
            size = (b.type(x).channels,)
            gamma = b.weight("gamma") if self.scale else b.add(ops.Constant(size, 1.0), suffix="gamma")
            beta = b.weight("beta") if self.center else b.add(ops.Constant(size, 0.0), suffix="beta")
            statistics = b.weight("moving_mean"), b.weight("moving_variance")
            return b.add(ops.BatchNorm(self.epsilon, momentum=self.momentum), x, gamma, beta, *statistics)

        return on_last_axis(b, inputs[0], sample_axes(self, self.axis, b.type(inputs[0])), normalize)
