"""The dtype of a tensor, and gradients that stop: keras.ops.core."""

from __future__ import annotations

from typing import Any

from ...graph import ops
from ...graph.types import DTYPES
from .. import fields as f
from ..lowering import CAST, Builder
from .base import Operation

CORE = "keras.src.ops.core"


class Cast(Operation):
    """x in another dtype. Every floating-point one stands for that in which the network computes."""

    module = CORE

    dtype: str = f.option(f.choice(*DTYPES))

    def compute(self, b: Builder, *given: Any) -> str:
        x = self.tensor(given[0])
        kind = b.type(x)
        if kind.dtype == self.dtype or (kind.is_floating and DTYPES[self.dtype].is_floating_point):
            return x
        return b.add(CAST if DTYPES[self.dtype].is_floating_point else ops.Cast(self.dtype), x)


class StopGradient(Operation):
    """x, through which no gradient passes."""

    module = CORE
    operands = ("variable",)

    def compute(self, b: Builder, *given: Any) -> str:
        return b.add(ops.StopGradient(), self.tensor(given[0]))
