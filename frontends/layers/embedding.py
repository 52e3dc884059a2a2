"""Embedding: rows of a trained table, looked up by whole numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from ...graph import ops
from ...graph.types import TensorType
from .. import fields as f
from ..constraints import ConstraintLike, constraint
from ..lowering import Builder
from ..regularizers import RegularizerLike, regularizer
from .base import Layer, Weight


class Embedding(Layer):
    """The rows of a table (input_dim, output_dim) that whole numbers name: (N, ...) -> (N, ..., output_dim).

    Numbers below 0 count from the table's end; one that names no row gives NaN. Other numbers than whole ones
    are cut off to such. mask_zero: whether 0 masks its place, for the layers after it that read a mask, which
    are refused. input_length: taken for older code's sake, and of no effect.
    """

    neutral: ClassVar[dict[str, tuple[Any, ...]]] = {
        "weights": (None,),
        "lora_rank": (None,),
        "lora_alpha": (None,),
        "quantization_config": (None,),
        "sparse": (False,),
    }

    input_dim: int = f.option(f.count)
    output_dim: int = f.option(f.count)
    embeddings_initializer: f.InitializerLike = f.option(f.initializer, default="uniform")
    mask_zero: bool = f.option(f.flag, default=False)
    embeddings_regularizer: RegularizerLike = f.option(regularizer, default=None, kw_only=True)
    embeddings_constraint: ConstraintLike = f.option(constraint, default=None, kw_only=True)
    input_length: int | None = f.option(f.plain, default=None, kw_only=True)

    @property
    def masks(self) -> bool:
        return self.mask_zero

    def along_last_axis(self) -> bool:
        return True

    def weights(self, inputs: Sequence[TensorType]) -> list[Weight]:
        return [Weight("embeddings", (self.input_dim, self.output_dim), self.embeddings_initializer)]

    def build(self, b: Builder, *inputs: str) -> str:
        x = inputs[0]
        if b.type(x).is_floating or b.type(x).dtype == "bool":
            x = b.add(ops.Cast("int32"), x, suffix="whole")
        return b.add(ops.LookUp(), b.weight("embeddings"), x)
