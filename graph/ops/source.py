"""Sources: values that come from outside or are known beforehand, and cost no kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from ..errors import CompileError, ShapeError
from ..formula import where
from ..functions import at_least, sinc
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
    """A tensor filled with one value, or with one for each place of its last axis."""

    shape: tuple[int, ...] = ()
    value: float | tuple[float, ...] = 0.0
    dtype: str = "float32"

    def infer(self, *inputs: TensorType) -> TensorType:
        if isinstance(self.value, tuple) and self.shape[-1:] != (len(self.value),):
            raise ShapeError(f"constant of shape {self.shape} needs as many values, found {len(self.value)}")
        return TensorType(self.shape, self.dtype)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return torch.tensor(self.value, dtype=DTYPES[self.dtype]).expand(self.shape).contiguous()


METHODS = ("nearest", "bilinear", "bicubic", "lanczos3", "lanczos5")
"""Ways to interpolate, by Keras's names."""


@dataclass(frozen=True)
class InterpolationMatrix(_Source):
    """The matrix (in_size, out_size) that resizes one axis: resized = x @ matrix.

    Sample i lies at (i + 1/2) in / out - 1/2, in units of input pixels ("half-pixel centres"). Taps outside
    the image are dropped and the others' weights divided by their sum; for bilinear that is repeating the
    edge. method: one of METHODS; "bicubic" is that of Keys 1981 with a = -1/2. antialias: widen the kernel by
    in / out where the axis shrinks.
    """

    in_size: int = 1
    out_size: int = 1
    method: str = "bilinear"
    antialias: bool = False
    dtype: str = "float32"

    def infer(self, *inputs: TensorType) -> TensorType:
        if self.method not in METHODS:
            raise ShapeError(f"no interpolation is called {self.method!r}; known: {', '.join(METHODS)}")
        if min(self.in_size, self.out_size) < 1:
            raise ShapeError(f"cannot resize an axis from {self.in_size} to {self.out_size}")
        return TensorType((self.in_size, self.out_size), self.dtype)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        ratio = self.in_size / self.out_size
        place = (torch.arange(self.out_size, dtype=torch.float64) + 0.5) * self.in_size / self.out_size - 0.5
        pixel = torch.arange(self.in_size, dtype=torch.float64)[:, None]
        if self.method == "nearest":
            nearest = torch.floor(place + 0.5).clamp(0, self.in_size - 1)
            return (pixel == nearest).to(DTYPES[self.dtype])
        width = max(ratio, 1.0) if self.antialias else 1.0
        weights: torch.Tensor = tap_weight((place - pixel).abs() / width, self.method)
        return (weights / weights.sum(0)).to(DTYPES[self.dtype])


def tap_weight(x: Any, method: str) -> Any:
    """Weight of a tap at distance x >= 0 pixels: of a tensor, or as a formula of its text."""
    if method == "bilinear":
        return at_least(1 - x, 0)
    if method == "bicubic":
        near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
        return where(x < 1, near, where(x < 2, far, 0.0))
    reach = int(method.removeprefix("lanczos"))
    return where(x < reach, sinc(x) * sinc(x / reach), 0.0)


@dataclass(frozen=True)
class AttentionMask(_Source):
    """What is added to scores (..., queries, keys): 0 where a query sees a key, else -1e9, as Keras has it.

    causal: a query sees no key behind its own place. window: it sees keys fewer than so many places away.
    """

    role_name: ClassVar[str] = "mask"

    queries: int = 1
    keys: int = 1
    causal: bool = True
    window: int | None = None
    dtype: str = "float32"

    def infer(self, *inputs: TensorType) -> TensorType:
        if self.window is not None and self.queries - self.keys >= self.window:  # the last query is farthest
            raise ShapeError(
                f"a window of {self.window} leaves some of {self.queries} queries without any of {self.keys} "
                f"keys; widen it"
            )
        return TensorType((self.queries, self.keys), self.dtype)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        distance = torch.arange(self.queries)[:, None] - torch.arange(self.keys)
        hidden = distance.abs() >= (max(self.queries, self.keys) if self.window is None else self.window)
        hidden |= (distance < 0) & self.causal
        return torch.zeros(distance.shape, dtype=DTYPES[self.dtype]).masked_fill(hidden, -1e9)


KNOWN = (Constant, InterpolationMatrix, AttentionMask)
"""Sources whose value is known when a network is compiled."""
