"""What a network is called with: checked once, with one clear error, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ..graph.errors import ShapeError, nearest
from ..graph.ir import Node
from ..graph.types import BATCH, Dim
from ..graph.words import words


def bind_inputs(nodes: Sequence[Node], values: Sequence[Any], device: torch.device) -> list[torch.Tensor]:
    """The call's arguments as contiguous tensors of the inputs' dtypes, on `device`.

    values: one for each input in order, or one list of them, or one dictionary by the inputs' names.
    Raises ShapeError for a wrong number of inputs, wrong names, rank, axis or dtype, values that an input of
    integers or truth values cannot hold, or unequal batches.
    """
    if len(values) == len(nodes) == 1 and _fits(nodes[0], values[0], device):
        return [values[0]]
    if len(values) == 1 and isinstance(values[0], Mapping):
        values = by_name([node.name for node in nodes], values[0])
    if (
        len(values) == 1
        and isinstance(values[0], list | tuple)
        and (len(nodes) > 1 or holds_arrays(values[0]))
    ):
        values = values[0]
    if len(values) != len(nodes):
        names = ", ".join(node.name for node in nodes)
        count = f"{len(nodes)} input{'s' if len(nodes) > 1 else ''}"
        hint = words("; np.stack makes one array of many examples") if len(nodes) == 1 else ""
        raise ShapeError(f"the network takes {count} ({names}), but was called with {len(values)}{hint}")
    tensors = [_bind(node, value, device) for node, value in zip(nodes, values, strict=True)]
    batches = {t.shape[0] for t, n in zip(tensors, nodes, strict=True) if n.type.batched}
    if len(batches) > 1:
        raise ShapeError(
            f"the inputs have different batch sizes: {sorted(batches)}; give every input the same one"
        )
    return tensors


def with_open_axes(nodes: Sequence[Node], axes: Sequence[Sequence[int]]) -> list[Node]:
    """The inputs as what is given is held against: with any size on open axes, like a batch's."""
    if not axes:
        return list(nodes)
    return [
        replace(n, type=n.type.with_shape(BATCH if i in found else d for i, d in enumerate(n.type.shape)))
        for n, found in zip(nodes, axes, strict=True)
    ]


def by_name(names: Sequence[str], given: Mapping[str, Any]) -> list[Any]:
    """The values of a dictionary in the order of the inputs' names; raises ShapeError for other names."""
    for name in given:
        if name not in names:
            raise ShapeError(
                f"the network has no input {name!r}{nearest(name, names)}; it takes {', '.join(names)}"
            )
    if missing := [name for name in names if name not in given]:
        raise ShapeError(f"no value for the input {missing[0]!r}; the network takes {', '.join(names)}")
    return [given[name] for name in names]


def as_tensor(value: Any, name: str, variable: str = "x") -> torch.Tensor:
    """A NumPy array or tensor as an ordinary tensor, without a copy where it can be had.

    name, variable: what messages call it, and what they call it in code.
    Byte orders and unsigned integers that torch does not compute with are converted. Raises ShapeError for
    sparse, quantized and masked ones, for arrays that hold no numbers, and for anything else.
    """
    if isinstance(value, torch.Tensor):
        if value.layout != torch.strided:
            raise ShapeError(f"{name} is a sparse tensor; give {variable}.to_dense()")
        if value.is_quantized:
            raise ShapeError(f"{name} is a quantized tensor; give {variable}.dequantize()")
        return value
    if isinstance(value, np.ndarray):
        return _from_array(value, name, variable)
    raise ShapeError(f"{name} is a {type(value).__name__}; {_conversion(value, variable)}")


def _from_array(value: np.ndarray[Any, Any], name: str, variable: str) -> torch.Tensor:
    if isinstance(value, np.ma.MaskedArray):
        raise ShapeError(f"{name} is a masked array; say what stands at masked places: {variable}.filled(0)")
    if value.dtype.kind not in "fiub":
        hint = words(f"for example {variable}.astype('float32')", "for example of dtype float32")
        raise ShapeError(f"{name} has dtype {value.dtype}; give numbers, {hint}")
    dtype = value.dtype.newbyteorder("=")
    if dtype.kind == "u" and dtype.itemsize > 1:
        dtype = np.dtype(np.int64)
    elif dtype.kind == "f" and dtype.itemsize > 8:
        dtype = np.dtype(np.float64)
    array = np.ascontiguousarray(value, dtype=dtype)
    # torch warns of memory that must not be written to; what it computes with, it never writes to.
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _conversion(value: Any, variable: str) -> str:
    """What to do with a value that is neither a tensor nor an array."""
    for method in ("toarray", "to_numpy", "numpy"):  # SciPy's sparse matrices, data frames, TensorFlow
        if callable(getattr(value, method, None)):
            return f"give {variable}.{method}()"
    if isinstance(value, list | tuple) or hasattr(value, "__array__"):
        return f"give np.asarray({variable}), or a torch tensor"
    return "give a torch tensor or a NumPy array"


def is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray | torch.Tensor)


def holds_arrays(value: Any) -> bool:
    """Whether it is a list or tuple of arrays, and not an empty one."""
    return isinstance(value, list | tuple) and bool(value) and all(map(is_array, value))


def _fits(node: Node, value: Any, device: torch.device) -> bool:
    """Whether a value needs nothing done to it: the common case, settled in a microsecond."""
    return (
        isinstance(value, torch.Tensor)
        and value.dtype is node.type.torch_dtype
        and value.shape[1:] == node.type.shape[1:]
        and value.dim() == len(node.type.shape)
        and value.shape[0] > 0
        and value.device == device
        and value.layout is torch.strided
        and value.is_contiguous()
    )


def _bind(node: Node, value: Any, device: torch.device) -> torch.Tensor:
    tensor = as_tensor(value, f"input '{node.name}'")
    _check_shape(node, tuple(tensor.shape), isinstance(value, torch.Tensor))
    dtype = str(tensor.dtype).removeprefix("torch.")
    if node.type.is_floating and not tensor.dtype.is_floating_point:
        raise ShapeError(
            f"input '{node.name}' has dtype {dtype}, the network computes in {node.type.dtype}; "
            + words(
                "convert it first, for example x.astype('float32') / 255 for 8-bit images",
                "--scale 1/255 brings 8-bit images to 0 to 1, and --scale 1 converts alone",
            )
        )
    if tensor.device.type != device.type and isinstance(value, torch.Tensor):
        raise ShapeError(
            f"input '{node.name}' lies on {tensor.device}, the network on {device}; "
            f"move it with x.to({str(device)!r})"
        )
    found = tensor.to(device=device, dtype=node.type.torch_dtype).contiguous()
    if node.type.is_floating or _holds(found.dtype, tensor.dtype):
        return found
    if not torch.equal(found.to(tensor.dtype), tensor.to(device)):
        raise ShapeError(
            f"input '{node.name}' takes {node.type.dtype}, which some of the {dtype} values given are not; "
            + words(f"convert them first, or declare Input(..., dtype={dtype!r})", "convert them first")
        )
    return found


def _holds(dtype: torch.dtype, other: torch.dtype) -> bool:
    """Whether integers of a dtype, or truth values, can be every value of another."""
    return dtype == other or (dtype != torch.bool and torch.promote_types(dtype, other) == dtype)


def _check_shape(node: Node, shape: tuple[int, ...], is_tensor: bool) -> None:
    expected = node.type.shape
    sizes = ["any" if d == BATCH else str(d) for d in expected]
    shown = f"({', '.join(['batch', *sizes[1:]] if expected[:1] == (BATCH,) else sizes)})"
    hint = _hint(shape, expected, is_tensor)
    if len(shape) != len(expected):
        raise ShapeError(
            f"input '{node.name}' has rank {len(shape)} (shape {shape}), "
            f"the network takes rank {len(expected)}: {shown}{hint}"
        )
    for axis, (have, want) in enumerate(zip(shape, expected, strict=True)):
        if want != BATCH and have != want:
            raise ShapeError(
                f"input '{node.name}' has shape {shape}, but axis {axis} must be {want}: {shown}{hint}"
            )
    if 0 in shape[1:]:
        raise ShapeError(f"input '{node.name}' has shape {shape}: nothing in it; give at least one pixel")
    if shape and expected[0] == BATCH and shape[0] == 0:
        raise ShapeError(f"input '{node.name}' has shape {shape}: an empty batch; give at least one example")


def _hint(shape: tuple[int, ...], expected: tuple[Dim, ...], is_tensor: bool) -> str:
    """How a value of another shape may be meant: without its batch or channel axis, or channels elsewhere."""
    move = " with x.movedim({}, {})" if is_tensor else " with np.moveaxis(x, {}, {})"
    ways = [
        ((1, *shape), "add the batch axis" + words(" with x[None]")),
        ((*shape, 1), "add the channel axis" + words(" with x[..., None]")),
        ((1, *shape, 1), "add the batch and the channel axis" + words(" with x[None, ..., None]")),
    ]
    if len(shape) > 2:
        first, last = words(move.format(1, -1)), words(move.format(-1, 1))
        ways += [
            (
                (shape[0], *shape[2:], shape[1]),
                f"its channels seem to come first; put them last{first}",
            ),
            (
                (shape[0], shape[-1], *shape[1:-1]),
                f"its channels seem to come last; put them first{last}",
            ),
        ]
    return next((f"; {text}" for meant, text in ways if _matches(meant, expected)), "")


def _matches(shape: tuple[int, ...], expected: tuple[Dim, ...]) -> bool:
    return len(shape) == len(expected) and all(
        isinstance(want, str) or have == want for have, want in zip(shape, expected, strict=True)
    )
