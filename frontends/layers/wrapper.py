"""Layers around another layer: the field that holds it, and its weights among the outer one's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ...graph.errors import ShapeError, UnsupportedLayerError
from ...graph.types import TensorType
from .. import fields as f
from .base import Layer, Weight
from .core import InputLayer


def a_layer(value: Any) -> Layer:
    """A layer that has not been called: its weights will be the outer layer's."""
    if not isinstance(value, Layer) or isinstance(value, InputLayer):
        kind = type(value).__name__
        raise UnsupportedLayerError(f"must be a layer such as Dense(10), got {kind} {str(value)[:60]!r}")
    if value.built_for:
        raise UnsupportedLayerError(f"is {value.label}, which is in use already; give it a layer of its own")
    return value


class _Wrapper(Layer):
    """Holds `layer`, whose weights are called "layer/<weight>" and lie in the part "layer" of its files."""

    layer: Layer = f.option(a_layer)

    def check(self, inputs: Sequence[TensorType]) -> None:
        try:
            self.layer.prepare(inputs)
        except ShapeError as error:
            raise self.fail(f"layer: {error}") from None

    def inner_weights(self) -> list[Weight]:
        """The weights of the layer inside, once it is prepared."""
        return [
            replace(
                weight,
                name=f"layer/{weight.name}",
                home=f"layer/{weight.home}".rstrip("/"),
                trainable=weight.trainable and self.layer.trainable,
            )
            for weight in self.layer.all_weights
        ]
