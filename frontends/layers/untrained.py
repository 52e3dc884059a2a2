"""Augmentations that ConvLoom has in inference only, where they hand images on.

A model with one of them is read, run and saved again with all its arguments; training it is refused. What
each would need:

| layer | needs |
|---|---|
| RandomElasticTransform | a field of shifts |
| MixUp, CutMix | other images of the batch, and their labels |
| RandAugment, AugMix | the above, in a drawn order |
"""

from __future__ import annotations

from typing import Any

from ...graph import ops
from .. import fields as f
from ..lowering import Builder
from .augmentation import _Augmentation


class _Untrained(_Augmentation):
    """Base of the layers whose training is refused, with Keras's arguments as they are."""

    def build(self, b: Builder, *inputs: str) -> str:
        refusal = (
            f"{self.label}: augments images in training, which ConvLoom does not do; leave the layer out to "
            f"train, or augment the data before. In inference it hands images on"
        )
        return b.add(ops.InTraining(refusal), inputs[0])


def _as_is(default: Any) -> Any:
    return f.option(f.plain, default=default)


class RandomElasticTransform(_Untrained):
    """Distorted by a smooth field of shifts."""

    factor: Any = _as_is(1.0)
    scale: Any = _as_is(1.0)
    interpolation: Any = _as_is("bilinear")
    fill_mode: Any = _as_is("reflect")
    fill_value: Any = _as_is(0.0)
    value_range: Any = _as_is((0, 255))
    seed: Any = _as_is(None)


class MixUp(_Untrained):
    """A mean of two images of the batch."""

    alpha: Any = _as_is(0.2)
    seed: Any = _as_is(None)


class CutMix(_Untrained):
    """A box of another image of the batch."""

    factor: Any = _as_is(1.0)
    seed: Any = _as_is(None)


class RandAugment(_Untrained):
    """A few augmentations in a drawn order (Cubuk et al. 2019)."""

    value_range: Any = _as_is((0, 255))
    num_ops: Any = _as_is(2)
    factor: Any = _as_is(0.5)
    interpolation: Any = _as_is("bilinear")
    seed: Any = _as_is(None)


class AugMix(_Untrained):
    """A mean of several chains of augmentations (Hendrycks et al. 2020)."""

    value_range: Any = _as_is((0, 255))
    num_chains: Any = _as_is(3)
    chain_depth: Any = _as_is(3)
    factor: Any = _as_is(0.3)
    alpha: Any = _as_is(1.0)
    all_ops: Any = _as_is(True)
    interpolation: Any = _as_is("bilinear")
    seed: Any = _as_is(None)
