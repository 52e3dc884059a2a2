"""Training data in, batches out: arrays that are shuffled and sliced, or batches that come ready."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Number
from typing import Any

import numpy as np
import torch

from ..graph.errors import ConvLoomError, ShapeError
from ..graph.words import words
from .checks import number, whole
from .inputs import as_tensor, by_name, holds_arrays, is_array

Batch = tuple[Sequence[torch.Tensor], torch.Tensor]
"""The inputs of the network, and the target."""

RESIDENT_BYTES = 2**30
"""Data up to this size is moved to the GPU once, rather than batch by batch."""


@dataclass(frozen=True)
class Form:
    """What the data must be. names: of the network's inputs, in order, where known.

    check: raises ConvLoomError for targets that do not fit; called before they are moved to the device, once
    for whole arrays.
    """

    names: Sequence[str] = ()
    check: Callable[[torch.Tensor], None] = lambda target: None


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
    form: Form

    def __iter__(self) -> Iterator[Batch]:
        for place, batch in enumerate(self.source):
            where = f"batch {place} of the data"
            pair = _read(batch, self.form, where)
            if pair is None:
                raise ConvLoomError(f"{where} is {_kind(batch)}; give pairs (x, y){_more(batch)}")
            inputs, target = pair
            self.form.check(target)
            yield [values.to(self.device) for values in inputs], target.to(self.device)


def open_data(
    data: Any,
    batch_size: int,
    device: torch.device,
    generator: torch.Generator | None,
    name: str = "data",
    form: Form | None = None,
) -> Batches:
    """`data` as batches.

    data: a pair (x, y) of arrays or tensors, x a list of them, or a dictionary by the inputs' names, for a
    network with several inputs; or anything that yields such pairs, already in batches.
    generator: to shuffle a pair with, or None to keep its order.
    Raises ConvLoomError for anything else, ShapeError for arrays of unequal lengths.
    """
    form = form or Form()
    batch_size = whole(batch_size, "batch_size", 1)
    pair = _read(data, form, name)
    if pair is not None:
        inputs, target = pair
        form.check(target)
        if device.type != "cpu" and sum(t.nbytes for t in (*inputs, target)) <= RESIDENT_BYTES:
            inputs, target = [t.to(device) for t in inputs], target.to(device)
        count = -(-len(target) // batch_size)
        return ArrayBatches(count, inputs, target, batch_size, device, generator)
    if is_array(data):
        raise ConvLoomError(f"{name} is {_kind(data)} without targets; give the pair (x, y)")
    if isinstance(data, str | bytes | Mapping) or not isinstance(data, Iterable):
        raise ConvLoomError(
            f"{name} is {_kind(data)}; give a pair (x, y) of arrays, or a DataLoader of such pairs"
        )
    if isinstance(data, tuple) and not all(isinstance(part, list | tuple) for part in data):
        raise ConvLoomError(f"{name} is {_kind(data)}; give the pair (x, y){_more(data)}")
    return ReadyBatches(_length(data), data, device, form)


def _length(data: Any) -> int | None:
    try:
        return len(data)
    except TypeError:  # an iterator, or a DataLoader over one
        return None


def split_off(data: Any, fraction: float, form: Form | None = None) -> tuple[Any, Any]:
    """The pair (x, y) without its last part, and that part, as Keras's validation_split takes it."""
    fraction = number(fraction, "validation_split")
    pair = _read(data, form or Form(), "data")
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
            f"{words('validation_split=', '--validation-split ')}{fraction} of {len(target)} examples "
            f"leaves one of the parts empty"
        )
    return ([x[:cut] for x in inputs], target[:cut]), ([x[cut:] for x in inputs], target[cut:])


# -- reading a pair ------------------------------------------------------------------------------------------
def _read(data: Any, form: Form, where: str) -> Batch | None:
    """A pair (x, y) of arrays as tensors, checked; None where `data` is something else."""
    if not isinstance(data, tuple | list) or len(data) != 2:
        return None
    x, y = data
    if not (is_array(x) or holds_arrays(x) or isinstance(x, Mapping) or _holds_numbers(x)):
        if isinstance(data, tuple) and not isinstance(x, list | tuple):
            as_tensor(x, f"x of {where}")  # raises: it is none
        return None
    if isinstance(y, Mapping) or (is_array(x) and holds_arrays(y)):
        raise ConvLoomError(f"y of {where} is {_kind(y)}; fit takes the targets of one output, as one array")
    if not (is_array(y) or _holds_numbers(y)):
        if isinstance(y, list | tuple):
            return None
        as_tensor(y, f"y of {where}", "y")  # raises: it is none
    if isinstance(x, Mapping):
        if not form.names:
            raise ConvLoomError(f"x of {where} goes by name, and this network has no names; give a list")
        x = by_name(form.names, x)
    parts = x if isinstance(x, list | tuple) and not _holds_numbers(x) else [x]
    inputs, target = [_tensor(part, "x", where) for part in parts], _tensor(y, "y", where)
    _check_lengths(inputs, target)
    return inputs, target


def _tensor(value: Any, name: str, where: str) -> torch.Tensor:
    if _holds_numbers(value):
        try:
            value = np.asarray(value)
        except ValueError:
            raise ShapeError(f"{name} of {where} is a list whose rows have unequal lengths") from None
    tensor = as_tensor(value, name if where == "data" else f"{name} of {where}", name).detach()
    if tensor.ndim == 0:
        raise ShapeError(f"{name} is a single number; its first axis must be the batch")
    return tensor


def _holds_numbers(value: Any) -> bool:
    """Whether it is a plain list of numbers, nested or not."""
    while isinstance(value, list | tuple) and value:
        value = value[0]
    return isinstance(value, Number)


def _check_lengths(inputs: Sequence[torch.Tensor], target: torch.Tensor) -> None:
    lengths = [len(values) for values in inputs]
    if any(length != len(target) for length in lengths):
        shown = ", ".join(map(str, lengths))
        raise ShapeError(f"x has {shown} examples but y has {len(target)}; give one target for each example")
    if len(target) == 0:
        raise ShapeError("the data holds no example")


def _kind(value: Any) -> str:
    sized = isinstance(value, list | tuple | Mapping)
    return f"a {type(value).__name__}" + (f" of {len(value)}" if sized else "")


def _more(value: Any) -> str:
    """What a third part is, in Keras's habit."""
    three = isinstance(value, list | tuple) and len(value) == 3
    return "; a third part, weights of the examples, is not supported" if three else ""
