"""Layers around another layer: the field that holds it, and its weights among the outer one's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...graph.errors import UnsupportedLayerError
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
        self.layer.stand_in(self, "layer", inputs)

    @property
    def draws_from(self) -> int | None:
        return self.layer.draws_from

    def inner_weights(self) -> list[Weight]:
        """The weights of the layer inside, once it is prepared."""
        return [w.of_part(self.layer, "layer", f"layer/{w.name}") for w in self.layer.all_weights]

    def own(self, weights: Sequence[Weight]) -> Sequence[Weight]:
        return [weight for weight in weights if not weight.name.startswith("layer/")]

    @property
    def all_weights(self) -> tuple[Weight, ...]:
        """As they are now: the layer inside may have been frozen since."""
        return tuple(self.weights(self.built_for)) if self.built_for else ()
