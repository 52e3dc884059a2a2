"""Layers that change something in training only, and the identity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from ...graph import ops
from ...graph.types import TensorType
from .. import fields as f
from ..lowering import Builder
from .base import Layer


class SpatialDropout2D(Layer):
    """Dropout of whole channels (Tompson et al. 2015)."""

    rank = 4

    rate: float = f.option(f.fraction)
    data_format: str | None = f.option(f.data_format, default=None)
    seed: int | None = f.option(f.maybe(f.integer), default=None)

    def build(self, b: Builder, *inputs: str) -> str:
        shared = (2, 3) if self.data_format == "channels_first" else (1, 2)
        return b.add(ops.Dropout(self.rate, shared), inputs[0])


class SpatialDropout1D(Layer):
    """Dropout of whole channels of a sequence (N, steps, channels)."""

    rate: float = f.option(f.fraction)
    seed: int | None = f.option(f.maybe(f.integer), default=None)

    def check(self, inputs: Sequence[TensorType]) -> None:
        if inputs[0].rank != 3:
            raise self.fail(f"takes (N, steps, channels), found {inputs[0]}")

    def build(self, b: Builder, *inputs: str) -> str:
        return b.add(ops.Dropout(self.rate, (1,)), inputs[0])


class _Pass(Layer):
    """Base of the layers that hand their input on."""

    def build(self, b: Builder, *inputs: str) -> str:
        return inputs[0]


class Identity(_Pass):
    """The input."""


class ActivityRegularization(_Pass):
    """The input; in Keras its size is added to the loss, which ConvLoom does not do."""

    ignored: ClassVar[frozenset[str]] = frozenset({"l1", "l2"})
