"""Sources: values that come from outside or are drawn, and cost no kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from ..errors import CompileError
from ..op import Kind, Op
from ..types import BATCH, DTYPES, Dim, TensorType


@dataclass(frozen=True)
class _Source(Op):
    kind: ClassVar[Kind] = Kind.SOURCE

    def flops(self, inputs: Sequence[TensorType], output: TensorType, batch: int) -> int:
        return 0

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        raise CompileError(f"{self.op_name()} is bound by the runtime and has no value of its own")


@dataclass(frozen=True)
class Input(_Source):
    """An input of the network. shape: with the batch axis first."""

    shape: tuple[Dim, ...] = (BATCH,)
    dtype: str = "float32"

    def infer(self, *inputs: TensorType) -> TensorType:
        return TensorType(self.shape, self.dtype)


@dataclass(frozen=True)
class Parameter(_Source):
    """A weight. trainable: whether an optimizer moves it (moving statistics are not trainable)."""

    shape: tuple[int, ...] = ()
    dtype: str = "float32"
    trainable: bool = True

    def infer(self, *inputs: TensorType) -> TensorType:
        return TensorType(self.shape, self.dtype)


@dataclass(frozen=True)
class Constant(_Source):
    """A tensor filled with one value."""

    shape: tuple[int, ...] = ()
    value: float = 0.0
    dtype: str = "float32"

    def infer(self, *inputs: TensorType) -> TensorType:
        return TensorType(self.shape, self.dtype)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return torch.full(self.shape, self.value, dtype=DTYPES[self.dtype])


@dataclass(frozen=True)
class DropoutMask(_Source):
    """Inverted dropout's mask: 0 with probability `rate`, else 1 / (1 - rate); drawn anew for every batch.

    Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting", in the
    inverted form Keras uses, so that inference needs no scaling.
    """

    shape: tuple[Dim, ...] = (BATCH,)
    rate: float = 0.5
    dtype: str = "float32"

    def infer(self, *inputs: TensorType) -> TensorType:
        return TensorType(self.shape, self.dtype)
