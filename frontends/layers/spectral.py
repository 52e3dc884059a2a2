"""Spectral normalisation of another layer's kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...graph import ops
from ...graph.types import TensorType
from .. import fields as f
from ..lowering import Builder
from .base import Weight
from .wrapper import _Wrapper

KERNELS = ("kernel", "embeddings")
"""Names of the weight that is normalised, of which a layer has one at most."""


class SpectralNormalization(_Wrapper):
    """`layer`, its kernel divided by its largest singular value in each training step (Miyato et al. 2018).

    Keras stores the kernel as divided, so inference is that of the layer alone. Training is refused.
    power_iterations: steps of Keras's estimate of the singular value, which goes on from the weight vector_u.
    """

    said_training = False

    power_iterations: int = f.option(f.count, default=1)

    def check(self, inputs: Sequence[TensorType]) -> None:
        super().check(inputs)
        if not any(weight.name in KERNELS for weight in self.layer.built):
            raise self.fail(f"{self.layer.label} has no kernel to normalise; wrap a Dense or a convolution")

    def weights(self, inputs: Sequence[TensorType]) -> list[Weight]:
        """The kernel, which Keras's wrapper keeps as well as the layer; vector_u; the layer's others."""
        inner = self.inner_weights()
        place = next(i for i, weight in enumerate(self.layer.built) if weight.name in KERNELS)
        kernel = replace(inner.pop(place), also_in=("",))
        vector = Weight("vector_u", (1, kernel.shape[-1]), "small_truncated_normal", trainable=False)
        return [kernel, vector, *inner]

    def build(self, b: Builder, *inputs: str) -> str:
        refusal = (
            f"{self.label} cannot be trained: training divides its kernel by a singular value that it "
            f"estimates anew in every step, which ConvLoom does not do; run it in eval() mode, or train the "
            f"layer without the wrapper"
        )
        marked = b.add(ops.InTraining(refusal), inputs[0], suffix="input")
        return self.layer.build_one(b.inside("layer", self.layer), marked)
