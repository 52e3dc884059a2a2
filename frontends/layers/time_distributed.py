"""One layer or model at every step of a sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...graph import ops
from ...graph.errors import UnsupportedLayerError
from ...graph.types import TensorType
from .. import fields as f
from ..budget import MOST_PARTS
from ..lowering import Block, Builder, check_size
from .base import Layer, Weight
from .wrapper import _Wrapper, a_layer


def a_layer_or_model(value: Any) -> Block:
    """A layer that has not been called, or a model, which may work elsewhere too."""
    if isinstance(value, Block) and not isinstance(value, Layer):
        return value
    return a_layer(value)


class TimeDistributed(_Wrapper):
    """`layer`, or a model of one input and output, at each step: (N, steps, ...) -> (N, steps, ...).

    As in Keras 3 the steps are computed in turn, so that a batch norm takes the statistics of each step, and
    a dropout draws anew for it. What works on the last axis alone takes all steps at once.
    """

    layer: Block = f.option(a_layer_or_model)  # type: ignore[assignment]

    def __setattr__(self, name: str, value: Any) -> None:
        """Freezing it freezes the model inside, whose layers keep their weights themselves."""
        changes = name == "trainable" and self.__dict__.get(name, True) != value
        super().__setattr__(name, value)
        if changes and self.model_inside is not None:
            self.model_inside.trainable = value  # type: ignore[attr-defined]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.trainable and self.model_inside is not None:
            self.model_inside.trainable = False  # type: ignore[attr-defined]

    @property
    def model_inside(self) -> Block | None:
        layer = self.__dict__.get("layer")
        return layer.model_inside if isinstance(layer, Layer) else layer

    @property
    def model_home(self) -> str:  # type: ignore[override]
        return f"layer/{self.layer.model_home}".rstrip("/")

    @property
    def draws_from(self) -> int | None:
        return self.layer.draws_from if isinstance(self.layer, Layer) else None

    def check(self, inputs: Sequence[TensorType]) -> None:
        kind = inputs[0]
        if kind.rank < 3:
            raise self.fail(f"takes (N, steps, ...) of 3 axes at least, found {kind} of rank {kind.rank}")
        steps = int(kind.shape[1])
        if steps > MOST_PARTS and not self._at_once:
            raise self.fail(f"computes {steps:,} steps in turn; at most {MOST_PARTS:,} are made")
        step = [kind.with_shape((kind.shape[0], *kind.shape[2:]))]
        if isinstance(self.layer, Layer):
            self.layer.stand_in(self, "layer", step)
        else:
            self.layer.prepare(step)
        check_size(steps * self.layer.call_count if not self._at_once else 1, self.label)
        if isinstance(self.layer, Layer):
            return
        if len(self.layer.results(step)) != 1:
            raise UnsupportedLayerError(f"{self.label}: {self.layer.label} has several outputs; give it one")

    @property
    def _at_once(self) -> bool:
        return isinstance(self.layer, Layer) and self.layer.along_last_axis()

    def weights(self, inputs: Sequence[TensorType]) -> list[Weight]:
        return self.inner_weights() if isinstance(self.layer, Layer) else []

    def count_params(self) -> int:
        inner = self.model_inside
        return super().count_params() + (inner.count_params() if inner is not None else 0)  # type: ignore[attr-defined]

    @property
    def call_count(self) -> int:
        steps = int(self.built_for[0].shape[1]) if self.built_for and not self._at_once else 1
        return steps * self.layer.call_count

    def results(self, types: Sequence[TensorType], **options: Any) -> list[TensorType]:
        """Those of a single step, for as many: steps left open stand for hundreds."""
        (kind,) = types
        batch, steps, *rest = kind.shape
        (result,) = super().results([kind.with_shape((batch, 1, *rest))], **options)
        return [result.with_shape((batch, steps, *result.shape[2:]))]

    def build(self, b: Builder, *inputs: str) -> str:
        if self._at_once:
            return self._part(b, inputs[0], None)
        results = [self._step(b, inputs[0], t) for t in range(int(b.type(inputs[0]).shape[1]))]
        rows = [b.add(ops.Reshape((1, *b.type(y).size()[1:])), y, suffix="row") for y in results]
        return b.add(ops.Concat(1), *rows) if len(rows) > 1 else rows[0]

    def _step(self, b: Builder, x: str, step: int) -> str:
        sizes = b.type(x).size()[1:]
        starts, stops = [0] * len(sizes), list(sizes)
        starts[0], stops[0] = step, step + 1
        part = b.add(ops.Slice(tuple(starts), tuple(stops)), x, suffix="step") if sizes[0] > 1 else x
        return self._part(b, b.add(ops.Reshape(tuple(sizes[1:])), part, suffix="reshape"), step)

    def _part(self, b: Builder, x: str, step: int | None) -> str:
        """The layer inside on x; step: which of several."""
        if not isinstance(self.layer, Layer):
            (result,) = b.run(self.layer, step or 0, x)
            return result
        inner = b.inside("layer", self.layer)
        inner = inner if step is None else inner.within(f"step_{step}")
        # Keras does not count its results: it goes past what counts a layer's calls.
        return self.layer.build_one(inner, x, counted=False)
