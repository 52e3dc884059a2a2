"""Training data in, batches out: arrays that are shuffled and sliced, or batches that come ready."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..graph.errors import ConvLoomError, ShapeError

Batch = tuple[Sequence[torch.Tensor], torch.Tensor]
"""The inputs of the network, and the target."""

RESIDENT_BYTES = 2**30
"""Data up to this size is moved to the GPU once, rather than batch by batch."""


@dataclass
class Batches:
    """Where batches come from. size: batches an epoch, None where it is not known before they have come."""

    size: int | None

    def __iter__(self) -> Iterator[Batch]:
        raise NotImplementedError


@dataclass
class ArrayBatches(Batches):
    """Slices of whole arrays, in a new order every epoch where there is a generator to shuffle with."""

    inputs: Sequence[torch.Tensor]
    target: torch.Tensor
    batch_size: int
    device: torch.device
    generator: torch.Generator | None

    def __iter__(self) -> Iterator[Batch]:
        count = len(self.target)
        order = torch.randperm(count, generator=self.generator) if self.generator else None
        if order is not None:
            order = order.to(self.target.device)
        for start in range(0, count, self.batch_size):
            stop = min(start + self.batch_size, count)
            chosen = order[start:stop] if order is not None else slice(start, stop)
            inputs = [values[chosen].to(self.device) for values in self.inputs]
            yield inputs, self.target[chosen].to(self.device)


@dataclass
class ReadyBatches(Batches):
    """Batches of somebody else's making, such as a DataLoader's, moved to the network's device."""

    source: Iterable[Any]
    device: torch.device

    def __iter__(self) -> Iterator[Batch]:
        for number, batch in enumerate(self.source):
            if not isinstance(batch, list | tuple) or len(batch) != 2:
                kind = (
                    f"{type(batch).__name__} of {len(batch)}"
                    if hasattr(batch, "__len__")
                    else type(batch).__name__
                )
                raise ConvLoomError(f"batch {number} of the data is a {kind}; give pairs (x, y)")
            inputs, target = _inputs(batch[0]), _tensor(batch[1], "y")
            _check_lengths(inputs, target)
            yield [values.to(self.device) for values in inputs], target.to(self.device)


def open_data(
    data: Any, batch_size: int, device: torch.device, generator: torch.Generator | None, name: str = "data"
) -> Batches:
    """`data` as batches.

    data: a pair (x, y) of arrays or tensors, x a list of them for a network with several inputs; or anything
    that yields such pairs, already in batches. generator: to shuffle a pair with, or None to keep its order.
    Raises ConvLoomError for anything else, ShapeError for arrays of unequal lengths.
    """
    if batch_size < 1:
        raise ConvLoomError(f"batch_size is {batch_size}; it must be at least 1")
    pair = as_pair(data)
    if pair is not None:
        inputs, target = pair
        if device.type != "cpu" and sum(t.nbytes for t in (*inputs, target)) <= RESIDENT_BYTES:
            inputs, target = [t.to(device) for t in inputs], target.to(device)
        count = -(-len(target) // batch_size)
        return ArrayBatches(count, inputs, target, batch_size, device, generator)
    if isinstance(data, str | bytes | dict) or not isinstance(data, Iterable):
        raise ConvLoomError(
            f"{name} is a {type(data).__name__}; give a pair (x, y) of arrays, or a DataLoader of such pairs"
        )
    return ReadyBatches(_length(data), data, device)


def _length(data: Any) -> int | None:
    try:
        return len(data)
    except TypeError:  # an iterator, or a DataLoader over one
        return None


def as_pair(data: Any) -> tuple[list[torch.Tensor], torch.Tensor] | None:
    """A pair (x, y) of whole arrays as tensors, checked; None where `data` is something else."""
    if not isinstance(data, tuple | list) or len(data) != 2:
        return None
    if not _is_array(data[1]) or not (_is_array(data[0]) or _all_arrays(data[0])):
        return None
    inputs, target = _inputs(data[0]), _tensor(data[1], "y")
    _check_lengths(inputs, target)
    return inputs, target


def split_off(data: Any, fraction: float) -> tuple[Any, Any]:
    """The pair (x, y) without its last part, and that part, as Keras's validation_split takes it."""
    pair = as_pair(data)
    if not 0.0 < fraction < 1.0:
        raise ConvLoomError(f"validation_split is {fraction}; it is a fraction between 0 and 1")
    if pair is None:
        raise ConvLoomError(
            "validation_split needs data as a pair (x, y) of arrays; else give validation_data"
        )
    inputs, target = pair
    cut = int(len(target) * (1.0 - fraction))
    if cut in (0, len(target)):
        raise ConvLoomError(
            f"validation_split={fraction} of {len(target)} examples leaves one of the parts empty"
        )
    return ([x[:cut] for x in inputs], target[:cut]), ([x[cut:] for x in inputs], target[cut:])


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray | torch.Tensor)


def _all_arrays(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(map(_is_array, value))


def _inputs(value: Any) -> list[torch.Tensor]:
    parts = value if isinstance(value, list | tuple) else [value]
    return [_tensor(part, "x") for part in parts]


def _tensor(value: Any, name: str) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        tensor = value.detach()
    elif isinstance(value, np.ndarray):
        if value.dtype.kind not in "fiub":
            raise ConvLoomError(
                f"{name} has dtype {value.dtype}; give numbers, for example {name}.astype('float32')"
            )
        native = value.dtype.newbyteorder("=")
        tensor = torch.from_numpy(np.ascontiguousarray(value, dtype=native))
    else:
        raise ConvLoomError(f"{name} is a {type(value).__name__}; give a NumPy array or a torch tensor")
    if tensor.ndim == 0:
        raise ShapeError(f"{name} is a single number; its first axis must be the batch")
    return tensor


def _check_lengths(inputs: Sequence[torch.Tensor], target: torch.Tensor) -> None:
    lengths = [len(values) for values in inputs]
    if any(length != len(target) for length in lengths):
        shown = ", ".join(map(str, lengths))
        raise ShapeError(f"x has {shown} examples but y has {len(target)}; give one target for each example")
    if len(target) == 0:
        raise ShapeError("the data holds no example")
