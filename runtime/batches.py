"""Training data in, batches out: arrays that are shuffled and sliced, or batches that come ready."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Number
from typing import Any

import numpy as np
import torch

from ..graph.errors import ConvLoomError, ShapeError
from ..graph.words import words
from .batch import Batch
from .checks import number, whole
from .inputs import as_tensor, by_name, holds_arrays, is_array

RESIDENT_BYTES = 2**30
"""Data up to this size is moved to the GPU once, rather than batch by batch."""


@dataclass(frozen=True)
class Form:
    """What the data must be. names: of the network's inputs, in order, where known. outputs: of its outputs.

    checks: by output, each raises ConvLoomError for targets that do not fit; called before they are moved to
    the device, once for whole arrays.
    """

    names: Sequence[str] = ()
    outputs: Sequence[str] = ("output",)
    checks: Mapping[str, Callable[[torch.Tensor], None]] = field(default_factory=dict)

    def check(self, targets: Sequence[torch.Tensor | None]) -> None:
        for name, target in zip(self.outputs, targets, strict=False):
            if target is not None and name in self.checks:
                self.checks[name](target)


class Batches(abc.ABC):
    """Where batches come from."""

    size: int | None = None
    """Batches an epoch, None where it is not known before they have come."""

    generators: Sequence[torch.Generator] = ()
    """What the order of the data is drawn from, beside the global generators."""

    @abc.abstractmethod
    def epoch(self, skip: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from this one on. Everything random about their order is drawn at once."""


class ArrayBatches(Batches):
    """Slices of whole arrays, in a new order every epoch where there is a generator to shuffle with."""

    def __init__(
        self, data: Batch, batch_size: int, device: torch.device, generator: torch.Generator | None
    ) -> None:
        self.data, self.batch_size, self.device = data, batch_size, device
        self.generators = [generator] if generator is not None else []
        self.size = -(-data.size // batch_size)

    def epoch(self, skip: int = 0) -> Iterator[Batch]:
        order = None
        if self.generators:
            order = torch.randperm(self.data.size, generator=self.generators[0])
            order = order.to(self.data.inputs[0].device)
        return (self._slice(number * self.batch_size, order) for number in range(skip, self.size or 0))

    def _slice(self, start: int, order: torch.Tensor | None) -> Batch:
        stop = min(start + self.batch_size, self.data.size)
        chosen = order[start:stop] if order is not None else slice(start, stop)
        return each(self.data, lambda values: values[chosen].to(self.device))


class ReadyBatches(Batches):
    """Batches of somebody else's making, such as a DataLoader's, moved to the network's device."""

    def __init__(self, source: Iterable[Any], device: torch.device, form: Form) -> None:
        self.source, self.device, self.form = source, device, form
        self.size = _length(source)
        owners = [source, getattr(source, "sampler", None)]
        found = [getattr(owner, "generator", None) for owner in owners]
        self.generators = list({id(g): g for g in found if isinstance(g, torch.Generator)}.values())

    def epoch(self, skip: int = 0) -> Iterator[Batch]:
        source = iter(self.source)
        for _ in range(skip):
            next(source, None)
        return self._read(source, skip)

    def _read(self, source: Iterator[Any], first: int) -> Iterator[Batch]:
        for place, given in enumerate(source, first):
            where = f"batch {place} of the data"
            batch = _read(given, self.form, where)
            if batch is None:
                raise ConvLoomError(f"{where} is {_kind(given)}; give pairs (x, y)")
            self.form.check(batch.targets)
            yield each(batch, lambda values: values.to(self.device))


def each(batch: Batch, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
    """A batch with all its tensors changed."""

    def changed(values: Sequence[torch.Tensor | None]) -> list[torch.Tensor | None]:
        return [None if value is None else change(value) for value in values]

    weights = None if batch.weights is None else changed(batch.weights)
    return Batch([change(values) for values in batch.inputs], changed(batch.targets), weights)


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
    whole_data = _read(data, form, name)
    if whole_data is not None:
        form.check(whole_data.targets)
        sizes: list[int] = []
        each(whole_data, lambda values: sizes.append(values.nbytes) or values)  # type: ignore[func-returns-value]
        if device.type != "cpu" and sum(sizes) <= RESIDENT_BYTES:
            whole_data = each(whole_data, lambda values: values.to(device))
        return ArrayBatches(whole_data, batch_size, device, generator)
    if is_array(data):
        raise ConvLoomError(f"{name} is {_kind(data)} without targets; give the pair (x, y)")
    if isinstance(data, str | bytes | Mapping) or not isinstance(data, Iterable):
        raise ConvLoomError(
            f"{name} is {_kind(data)}; give a pair (x, y) of arrays, or a DataLoader of such pairs"
        )
    if isinstance(data, tuple) and not all(isinstance(part, list | tuple) for part in data):
        raise ConvLoomError(f"{name} is {_kind(data)}; give the pair (x, y)")
    return ReadyBatches(data, device, form)


def _length(data: Any) -> int | None:
    try:
        return len(data)
    except TypeError:  # an iterator, or a DataLoader over one
        return None


def split_off(data: Any, fraction: float, form: Form | None = None) -> tuple[Any, Any]:
    """The pair (x, y) without its last part, and that part, as Keras's validation_split takes it."""
    fraction = number(fraction, "validation_split")
    found = _read(data, form or Form(), "data")
    if not 0.0 < fraction < 1.0:
        raise ConvLoomError(f"validation_split is {fraction}; it is a fraction between 0 and 1")
    if found is None:
        raise ConvLoomError(
            "validation_split needs data as a pair (x, y) of arrays; else give validation_data"
        )
    cut = int(found.size * (1.0 - fraction))
    if cut in (0, found.size):
        raise ConvLoomError(
            f"{words('validation_split=', '--validation-split ')}{fraction} of {found.size} examples "
            f"leaves one of the parts empty"
        )
    return each(found, lambda values: values[:cut]), each(found, lambda values: values[cut:])


# -- reading a pair ------------------------------------------------------------------------------------------
def _read(data: Any, form: Form, where: str) -> Batch | None:
    """(x, y) or (x, y, weights) of arrays as tensors, checked; None where `data` is something else."""
    if isinstance(data, Batch):
        return data
    if not isinstance(data, tuple | list) or len(data) not in (2, 3):
        return None
    x, y, *more = data
    if not (is_array(x) or holds_arrays(x) or isinstance(x, Mapping) or _holds_numbers(x)):
        if isinstance(data, tuple) and not isinstance(x, list | tuple):
            as_tensor(x, f"x of {where}")  # raises: it is none
        return None
    if isinstance(data, list) and holds_arrays(x) and holds_arrays(y) and not where.startswith("batch"):
        return None  # a list of batches
    if not (is_array(y) or _holds_numbers(y) or isinstance(y, Mapping) or holds_arrays(y)):
        if isinstance(y, list | tuple):
            return None
        as_tensor(y, f"y of {where}", "y")  # raises: it is none
    if isinstance(x, Mapping):
        if not form.names:
            raise ConvLoomError(f"x of {where} goes by name, and this network has no names; give a list")
        x = by_name(form.names, x)
    parts = x if isinstance(x, list | tuple) and not _holds_numbers(x) else [x]
    inputs = [_tensor(part, "x", where) for part in parts]
    targets = [_tensor(part, "y", where) for part in _by_output(y, form, "y", where)]
    weights = None
    if more and more[0] is not None:
        weights = [_tensor(part, "weights", where) for part in _by_output(more[0], form, "weights", where)]
        if len(weights) < len(targets):
            weights = weights * len(targets)
    _check_lengths(inputs, targets)
    return Batch(inputs, targets, weights)


def _by_output(given: Any, form: Form, name: str, where: str) -> list[Any]:
    """One value an output, from a dictionary or a list of them, or a single one."""
    if isinstance(given, Mapping):
        return [given[output] for output in form.outputs if output in given]
    if holds_arrays(given):
        if len(given) != len(form.outputs):
            raise ConvLoomError(
                f"{name} of {where} is {_kind(given)}; fit takes the targets of one output, as one array"
            )
        return list(given)
    return [given]


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


def _check_lengths(inputs: Sequence[torch.Tensor], targets: Sequence[torch.Tensor]) -> None:
    lengths = [len(values) for values in inputs]
    for target in targets:
        if any(length != len(target) for length in lengths):
            shown = ", ".join(map(str, lengths))
            raise ShapeError(
                f"x has {shown} examples but y has {len(target)}; give one target for each example"
            )
    if lengths[0] == 0:
        raise ShapeError("the data holds no example")


def _kind(value: Any) -> str:
    sized = isinstance(value, list | tuple | Mapping)
    return f"a {type(value).__name__}" + (f" of {len(value)}" if sized else "")
