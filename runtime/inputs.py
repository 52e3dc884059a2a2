"""What a network is called with: checked once, with one clear error, before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..graph.errors import ShapeError
from ..graph.ir import Node
from ..graph.types import BATCH


def bind_inputs(nodes: Sequence[Node], values: Sequence[Any], device: torch.device) -> list[torch.Tensor]:
    """The call's arguments as contiguous tensors of the inputs' dtypes, on `device`.

    Raises ShapeError for a wrong number of inputs, wrong rank, wrong axis, wrong dtype, values that an input
    of integers or truth values cannot hold, or unequal batches.
    """
    if len(values) == len(nodes) == 1 and _fits(nodes[0], values[0], device):
        return [values[0]]
    if len(values) == 1 and isinstance(values[0], list | tuple) and len(nodes) > 1:
        values = values[0]
    if len(values) != len(nodes):
        names = ", ".join(node.name for node in nodes)
        raise ShapeError(
            f"the network takes {len(nodes)} inputs ({names}), but was called with {len(values)}"
        )
    tensors = [_bind(node, value, device) for node, value in zip(nodes, values, strict=True)]
    batches = {t.shape[0] for t, n in zip(tensors, nodes, strict=True) if n.type.batched}
    if len(batches) > 1:
        raise ShapeError(
            f"the inputs have different batch sizes: {sorted(batches)}; give every input the same one"
        )
    return tensors


def _fits(node: Node, value: Any, device: torch.device) -> bool:
    """Whether a value needs nothing done to it: the common case, settled in a microsecond."""
    return (
        isinstance(value, torch.Tensor)
        and value.dtype is node.type.torch_dtype
        and value.shape[1:] == node.type.shape[1:]
        and value.dim() == len(node.type.shape)
        and value.shape[0] > 0
        and value.device.type == device.type
        and value.is_contiguous()
    )


def _bind(node: Node, value: Any, device: torch.device) -> torch.Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(value)) if isinstance(value, np.ndarray) else value
    if not isinstance(tensor, torch.Tensor):
        raise ShapeError(
            f"input '{node.name}' is a {type(value).__name__}; give a torch tensor or a NumPy array"
        )
    _check_shape(node, tuple(tensor.shape))
    dtype = str(tensor.dtype).removeprefix("torch.")
    if node.type.is_floating and not tensor.dtype.is_floating_point:
        raise ShapeError(
            f"input '{node.name}' has dtype {dtype}, the network computes in {node.type.dtype}; convert it "
            f"first, for example x.astype('float32') / 255 for 8-bit images"
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
            f"convert them first, or declare Input(..., dtype={dtype!r})"
        )
    return found


def _holds(dtype: torch.dtype, other: torch.dtype) -> bool:
    """Whether integers of a dtype, or truth values, can be every value of another."""
    return dtype == other or (dtype != torch.bool and torch.promote_types(dtype, other) == dtype)


def _check_shape(node: Node, shape: tuple[int, ...]) -> None:
    expected = node.type.shape
    shown = "(" + ", ".join("batch" if d == BATCH else str(d) for d in expected) + ")"
    if len(shape) != len(expected):
        hint = "; add the batch axis with x[None]" if len(shape) == len(expected) - 1 else ""
        raise ShapeError(
            f"input '{node.name}' has rank {len(shape)} (shape {shape}), "
            f"the network takes rank {len(expected)}: {shown}{hint}"
        )
    for axis, (have, want) in enumerate(zip(shape, expected, strict=True)):
        if want != BATCH and have != want:
            raise ShapeError(
                f"input '{node.name}' has shape {shape}, but axis {axis} must be {want}: {shown}"
            )
    if shape and expected[0] == BATCH and shape[0] == 0:
        raise ShapeError(f"input '{node.name}' has shape {shape}: an empty batch; give at least one example")
