"""Masking, and what becomes of a mask in the layers after it."""

from __future__ import annotations

from collections.abc import Sequence

from ...graph import ops
from ...graph.types import TensorType
from .. import fields as f
from ..lowering import CAST, Builder
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

    @property
    def masks(self) -> bool:
        return True

    def check(self, inputs: Sequence[TensorType]) -> None:
        if inputs[0].rank < 2:
            raise self.fail(f"takes (N, ..., features), found {inputs[0]}")

    def build(self, b: Builder, *inputs: str) -> str:
        """A product, as in Keras: no gradient passes where a step is masked, be its values 0 already."""
        x = inputs[0]
        masked = b.add(ops.Constant((1,), self.mask_value), suffix="mask_value")
        differs = b.add(ops.Compare("not_equal"), x, masked, suffix="differs")
        ones = b.add(CAST, differs, suffix="ones")
        count = b.add(ops.Reduce((b.type(x).rank - 1,), keepdims=True), ones, suffix="count")
        return b.add(ops.Multiply(), x, b.add(ops.Step(), count, suffix="kept"))
