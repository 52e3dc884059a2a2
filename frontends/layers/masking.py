"""Masking, and what becomes of a mask in the layers after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from ...graph import ops
from ...graph.types import TensorType
from .. import fields as f
from ..lowering import Builder
from .base import Layer

READS = frozenset(
    {
        *("AdditiveAttention", "Attention", "BatchNormalization", "Bidirectional", "ConvLSTM1D"),
        *("ConvLSTM2D", "ConvLSTM3D", "GRU", "GlobalAveragePooling1D", "GroupQueryAttention", "LSTM"),
        *("MultiHeadAttention", "RNN", "SimpleRNN", "Softmax", "TimeDistributed"),
    }
)
"""Layers that compute something else where their input has a mask, be it in training only."""

HANDS_ON = frozenset(
    {
        *("Activation", "ActivityRegularization", "Add", "AlphaDropout", "Average", "Concatenate", "Dense"),
        *("Dot", "Dropout", "ELU", "GaussianDropout", "GaussianNoise", "GroupNormalization"),
        *("Identity", "LayerNormalization", "LeakyReLU", "Masking", "Maximum", "Minimum", "Multiply"),
        *("Normalization", "PReLU", "ReLU", "Rescaling", "SpatialDropout1D"),
        *("SpatialDropout2D", "SpatialDropout3D", "Subtract", "UnitNormalization"),
    }
)
"""Layers whose result has the mask of their input; all others drop it."""


class Masking(Layer):
    """Zeros at the steps whose features all equal mask_value; the mask itself is read by nothing after it.

    In Keras some layers read the mask of the steps that were zeroed. A model in which one of them follows is
    refused.
    """

    mask_value: float = f.option(f.number, default=0.0)
    remedy: ClassVar[str] = "remove the Masking layer, or mask the values yourself"

    def check(self, inputs: Sequence[TensorType]) -> None:
        if inputs[0].rank < 2:
            raise self.fail(f"takes (N, ..., features), found {inputs[0]}")

    def build(self, b: Builder, *inputs: str) -> str:
        x = inputs[0]
        if self.mask_value == 0:
            return x  # steps of zeros are zeros
        away = b.add(ops.Scale(1.0, -self.mask_value), x, suffix="away")
        distance = b.add(ops.Abs(), away, suffix="distance")
        total = b.add(ops.Reduce((b.type(x).rank - 1,), keepdims=True), distance, suffix="total")
        return b.add(ops.Multiply(), x, b.add(ops.Step(), total, suffix="kept"))
