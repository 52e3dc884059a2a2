"""Where Triton's interpreter computes other values than a GPU, and what to compute instead.

Found by tests/test_interpreter.py in Triton 3.6 and 3.9, with NumPy 2.3 and 2.4:

- NumPy has no bfloat16, so the interpreter keeps its bits as uint16. `tl.dot` multiplies these as integers,
  and rounding float32 to bfloat16 cuts the low bits off where a GPU rounds to nearest even.
- `range(n)` over a run-time scalar turns an array of one element into an integer, which Triton 3.6 does in a
  way that NumPy 2.4 no longer allows.

Arithmetic on bfloat16 values other than `tl.dot` stays wrong: a kernel converts to float32 after each load.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import triton.language as tl
from triton.runtime import interpreter
from triton.runtime.interpreter import TensorHandle


def repairs() -> list[tuple[Any, str, Any]]:
    """(object, attribute, repaired value) for all that is to be replaced while kernels are interpreted."""
    builder = interpreter.interpreter_builder
    return [
        (builder, "cast_impl", functools.partial(_cast, type(builder).cast_impl, builder)),
        (builder, "create_dot", functools.partial(_dot, type(builder).create_dot, builder)),
        (
            interpreter,
            "_patch_lang_tensor",
            functools.partial(_patch_index, interpreter._patch_lang_tensor),
        ),
    ]


def to_bfloat16_bits(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Round float32 to bfloat16, ties to even, as the upper half of its bits; a NaN stays one."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    rounded = (bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)
    quiet_nan = (bits >> np.uint32(16)) | np.uint32(0x40)
    return np.where(np.isnan(values), quiet_nan, rounded).astype(np.uint16).reshape(values.shape)


def from_bfloat16_bits(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """The float32 values of bfloat16 bits; exact."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def _cast(original: Callable[..., Any], builder: Any, source: Any, target: Any) -> Any:
    if source.dtype.scalar == tl.float32 and target.scalar == tl.bfloat16:
        return TensorHandle(to_bfloat16_bits(source.data), tl.bfloat16)
    return original(builder, source, target)


def _dot(original: Callable[..., Any], builder: Any, a: Any, b: Any, *rest: Any) -> Any:
    return original(builder, _widened(a), _widened(b), *rest)


def _widened(operand: Any) -> Any:
    if operand.dtype.scalar == tl.bfloat16:
        return TensorHandle(from_bfloat16_bits(operand.data), tl.float32)
    return operand


def _patch_index(original: Callable[..., None], tensor: type, scope: Any) -> None:
    original(tensor, scope)
    scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))
