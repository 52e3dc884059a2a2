"""Scales inside a network: the three layers that keras.applications defines for itself."""

from __future__ import annotations

from collections.abc import Sequence

from ...graph import ops
from ...graph.types import TensorType
from .. import fields as f
from ..lowering import Builder
from .base import Layer, Weight
from .drawn import dropped


class LayerScale(Layer):
    """x times one trained factor a channel (Touvron et al. 2021). init_values: what the factors start at."""

    init_values: float = f.option(f.number)
    projection_dim: int = f.option(f.count)

    def check(self, inputs: Sequence[TensorType]) -> None:
        if inputs[0].channels != self.projection_dim:
            raise self.fail(f"projection_dim={self.projection_dim} must be the last axis of {inputs[0]}")

    def weights(self, inputs: Sequence[TensorType]) -> list[Weight]:
        return [Weight("gamma", (self.projection_dim,), self.init_values)]

    def build(self, b: Builder, *inputs: str) -> str:
        return b.add(ops.Multiply(), inputs[0], b.weight("gamma"))


class CustomScaleLayer(Layer):
    """First input plus `scale` times the second: the scaled residual of InceptionResNetV2."""

    arity = (2, 2)

    scale: float = f.option(f.number)

    def build(self, b: Builder, *inputs: str) -> str:
        scaled = b.add(ops.Scale(self.scale), inputs[1], suffix="scaled")
        return b.add(ops.Add(), inputs[0], scaled)


class StochasticDepth(Layer):
    """In training, drops the whole input of a sample at a rate (Huang et al. 2016); else the identity."""

    drop_path_rate: float = f.option(f.fraction)

    def build(self, b: Builder, *inputs: str) -> str:
        shared = tuple(range(1, b.type(inputs[0]).rank))
        return dropped(b, inputs[0], self.drop_path_rate, shared)
