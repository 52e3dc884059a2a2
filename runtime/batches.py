"""Where batches come from: arrays that are shuffled and sliced, or batches that come ready."""

from __future__ import annotations

import abc
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch

from ..graph.errors import ConvLoomError
from .batch import Batch
from .examples import Examples, kind_of

RESIDENT_BYTES = 2**30
"""Data up to this size is moved to the GPU once, rather than batch by batch."""

Read = Callable[[Any, str], Batch]
"""What somebody gave as a batch, and what errors call it -> the batch, on the device."""


class Batches(abc.ABC):
    """Where batches come from."""

    size: int | None = None
    """Batches in a pass, None where it is not known before they have come."""

    form: Any = None
    """Of whole arrays, the size and type of each, which a run that goes on must find again."""

    generators: Sequence[torch.Generator] = ()
    """What the order of the data is drawn from, beside the global generators."""

    @abc.abstractmethod
    def run(self, skip: int = 0) -> Iterator[Batch]:
        """The batches of one pass from this one on. Everything random about their order is drawn at once."""

    def on_epoch_begin(self) -> None:
        """Before each epoch."""
        return

    def on_epoch_end(self) -> None:
        """After each epoch."""
        return


class ArrayBatches(Batches):
    """Slices of whole arrays, in a new order every pass where there is a generator to shuffle with.

    in_pieces: shuffles the batches and leaves those in a batch together, as arrays in a file are read best.
    """

    def __init__(
        self,
        data: Examples,
        batch_size: int,
        device: torch.device,
        generator: torch.Generator | None = None,
        in_pieces: bool = False,
        check: Callable[[Sequence[Any]], None] | None = None,
    ) -> None:
        if device.type != "cpu" and sum(column.nbytes for column in data.in_memory) <= RESIDENT_BYTES:
            data = data.moved(device)
        self.data, self.batch_size, self.device, self.in_pieces = data, batch_size, device, in_pieces
        lie_in_files = any(t is not None and not isinstance(t, torch.Tensor) for t in data.targets)
        self.check = check if lie_in_files else None  # of those in memory, all have been checked
        self.generators = [generator] if generator is not None else []
        self.size = -(-data.size // batch_size)
        self.form = data.form

    def run(self, skip: int = 0) -> Iterator[Batch]:
        numbers: Sequence[int] = range(self.size or 0)
        order = None
        if self.generators and self.in_pieces:
            whole = self.data.size // self.batch_size  # a smaller one stays the last
            numbers = [*torch.randperm(whole, generator=self.generators[0]).tolist(), *numbers[whole:]]
        elif self.generators:
            order = torch.randperm(self.data.size, generator=self.generators[0])
            if self.data.in_memory:
                order = order.to(self.data.in_memory[0].device)
        return (self._slice(number * self.batch_size, order) for number in numbers[skip:])

    def _slice(self, start: int, order: torch.Tensor | None) -> Batch:
        stop = min(start + self.batch_size, self.data.size)
        chosen = order[start:stop] if order is not None else slice(start, stop)
        batch = self.data.rows(chosen, self.device)
        if self.check is not None:
            self.check(batch.targets)
        return batch


class ReadyBatches(Batches):
    """Batches of somebody else's making, such as a DataLoader's."""

    def __init__(self, source: Iterable[Any], read: Read, name: str = "data") -> None:
        self.source, self.read, self.name = source, read, name
        self.size = _length(source)
        owners = [source, getattr(source, "sampler", None)]
        found = [getattr(owner, "generator", None) for owner in owners]
        self.generators = list({id(g): g for g in found if isinstance(g, torch.Generator)}.values())

    def run(self, skip: int = 0) -> Iterator[Batch]:
        source = iter(self.source)
        for _ in range(skip):
            next(source, None)
        return (self.read(given, f"batch {n} of the {self.name}") for n, given in enumerate(source, skip))


class CalledBatches(ReadyBatches):
    """Batches that a function makes anew for each pass."""

    def __init__(self, function: Callable[[], Iterable[Any]], read: Read, name: str = "data") -> None:
        super().__init__(_Calls(function, name), read, name)


class _Calls:
    def __init__(self, function: Callable[[], Any], name: str) -> None:
        self.function, self.name = function, name

    def __iter__(self) -> Iterator[Any]:
        made = self.function()
        if not isinstance(made, Iterable):
            raise ConvLoomError(f"{self.name} is a function that gave {kind_of(made)}; it must give batches")
        return iter(made)


class NumberedBatches(Batches):
    """Batches that are asked for by number, as Keras's PyDataset has them; shuffled by their numbers."""

    def __init__(
        self, source: Any, read: Read, name: str = "data", generator: torch.Generator | None = None
    ) -> None:
        self.source, self.read, self.name = source, read, name
        self.size = source.num_batches if hasattr(source, "num_batches") else _length(source)
        self.generators = [generator] if generator is not None and self.size is not None else []

    def run(self, skip: int = 0) -> Iterator[Batch]:
        numbers: Iterable[int] = itertools.count() if self.size is None else range(self.size)
        if self.generators:
            numbers = torch.randperm(self.size or 0, generator=self.generators[0]).tolist()
        rest = itertools.islice(numbers, skip, None)
        return (self.read(self.source[n], f"batch {n} of the {self.name}") for n in rest)

    def on_epoch_begin(self) -> None:
        if callable(told := getattr(self.source, "on_epoch_begin", None)):
            told()

    def on_epoch_end(self) -> None:
        if callable(told := getattr(self.source, "on_epoch_end", None)):
            told()
        self.size = self.source.num_batches if hasattr(self.source, "num_batches") else _length(self.source)


def _length(data: Any) -> int | None:
    try:
        return len(data)
    except (TypeError, NotImplementedError):  # an iterator, or a DataLoader over one
        return None
