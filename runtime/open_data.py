"""Training data in, a feed of batches out: what it may be, and what is wrong with what it is not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from ..graph.errors import ConvLoomError
from ..graph.words import words
from .batch import Batch, Form
from .batches import ArrayBatches, Batches, CalledBatches, NumberedBatches, ReadyBatches
from .checks import number
from .examples import Examples, holds_examples, holds_numbers, kind_of, read_examples
from .feed import Feed
from .inputs import as_tensor, holds_arrays, is_array


@dataclass(frozen=True)
class Opening:
    """How data is opened: for which network, in batches of which size and order.

    batch_size: None for 32, or what gives `steps` batches. shuffle: True, False or "batch". change: is done
    to each batch. targets: False where x alone is needed.
    """

    form: Form
    device: torch.device
    batch_size: int | None = None
    steps: int | None = None
    shuffle: bool | str = False
    generator: torch.Generator | None = None
    change: Callable[[Batch], Batch] | None = None
    targets: bool = True

    def with_generator(self) -> Opening:
        """With a generator of its own, whose seed is drawn from torch's."""
        return replace(self, generator=torch.Generator().manual_seed(int(torch.randint(2**62, ()))))

    def open(self, data: Any, name: str = "data") -> Feed:
        """`data` as batches.

        data: a pair (x, y), or (x, y, weights of the examples), of arrays or tensors, x a list of them, or a
        dictionary by the inputs' names, for a network with several inputs, y and weights the same for one of
        several outputs; a Dataset of torch's, whose examples are put into batches; or what gives such batches
        itself: a DataLoader, an object with numbered batches as Keras's PyDataset, any other iterable, or a
        function that makes one for each epoch. Raises ConvLoomError for anything else.
        """
        if self.shuffle not in (True, False, "batch"):
            raise ConvLoomError(f"shuffle is {self.shuffle!r:.60}; it takes True, False or 'batch'")
        return Feed(self._batches(data, name), self.device, self.steps, self.change)

    def _batches(self, data: Any, name: str) -> Batches:
        generator = self.generator if self.shuffle else None
        examples = self.examples(data, name)
        if examples is not None:
            self.form.check(examples.targets)
            size = self.batch_size or (-(-examples.size // self.steps) if self.steps else 32)
            in_pieces = self.shuffle == "batch"
            return ArrayBatches(examples, size, self.device, generator, in_pieces, self.form.check)
        read = self._read_batch
        if isinstance(data, Dataset):
            return ReadyBatches(self._loader(data, generator), read, name)
        if isinstance(data, DataLoader) or not _is_numbered(data):
            self._refuse(data, name)
            kind = ReadyBatches if isinstance(data, Iterable) else CalledBatches
            return kind(data, read, name)
        return NumberedBatches(data, read, name, generator)

    def _loader(self, data: Dataset[Any], generator: torch.Generator | None) -> DataLoader[Any]:
        size = self.batch_size or 32
        if isinstance(data, IterableDataset):
            return DataLoader(data, batch_size=size)
        return DataLoader(data, batch_size=size, shuffle=generator is not None, generator=generator)

    def _refuse(self, data: Any, name: str) -> None:
        """Raises ConvLoomError for what gives no batches."""
        if is_array(data):
            raise ConvLoomError(f"{name} is {kind_of(data)} without targets; give the pair (x, y)")
        if isinstance(data, str | bytes | Mapping) or not (isinstance(data, Iterable) or callable(data)):
            wanted = "a pair (x, y) of arrays, or a DataLoader of such pairs" if self.targets else "arrays"
            raise ConvLoomError(f"{name} is {kind_of(data)}; give {wanted}")
        if isinstance(data, tuple) and not all(isinstance(part, list | tuple) for part in data):
            raise ConvLoomError(f"{name} is {kind_of(data)}; give the pair (x, y)")

    # -- arrays ----------
    def examples(self, data: Any, name: str) -> Examples | None:
        """Whole arrays, read and checked; None where `data` is something else."""
        if isinstance(data, Examples):
            return data
        if not self.targets:
            found = data if holds_examples(data) else None
            return None if found is None else read_examples(found, None, None, self.form, name)
        if isinstance(data, list) and len(data) in (2, 3) and all(map(holds_arrays, data[:2])):
            return None  # a list of batches
        return self._pair(data, name)

    def _pair(self, data: Any, where: str) -> Examples | None:
        if not isinstance(data, tuple | list) or len(data) not in (2, 3):
            return None
        x, y, *weights = data
        if not holds_examples(x):
            if isinstance(data, tuple) and not isinstance(x, list | tuple):
                as_tensor(x, f"x of {where}")  # raises: it is none
            return None
        if not (holds_examples(y) or _with_gaps(y)):
            if isinstance(y, list | tuple):
                return None
            as_tensor(y, f"y of {where}", "y")  # raises: it is none
        return read_examples(x, y, weights[0] if weights else None, self.form, where)

    # -- ready batches ----------
    def _read_batch(self, given: Any, where: str) -> Batch:
        examples = self._pair(given, where) if self.targets else self._inputs(given, where)
        if examples is None:
            wanted = "pairs (x, y)" if self.targets else "arrays"
            raise ConvLoomError(f"{where} is {kind_of(given)}; give {wanted}")
        self.form.check(examples.targets)
        return examples.rows(slice(None), self.device)

    def _inputs(self, given: Any, where: str) -> Examples | None:
        """x of a batch that may be x alone, or bring targets and weights."""
        several = len(self.form.names) > 1
        is_x = not isinstance(given, tuple | list) or (several and len(given) == len(self.form.names))
        if not (is_x or holds_numbers(given)) and given:
            given = given[0]
        return read_examples(given, None, None, self.form, where) if holds_examples(given) else None


def split_off(opening: Opening, data: Any, fraction: float) -> tuple[Examples, Examples]:
    """The pair (x, y) without its last part, and that part, as Keras's validation_split takes it."""
    fraction = number(fraction, "validation_split")
    if not 0.0 < fraction < 1.0:
        raise ConvLoomError(f"validation_split is {fraction}; it is a fraction between 0 and 1")
    found = opening.examples(data, "data")
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
    return found.part(slice(None, cut)), found.part(slice(cut, None))


def _with_gaps(value: Any) -> bool:
    """Whether it is a list of arrays with None for some outputs."""
    return isinstance(value, list | tuple) and holds_arrays([part for part in value if part is not None])


def _is_numbered(data: Any) -> bool:
    """Whether it is an object of numbered batches: Keras's PyDataset, or one like it."""
    plain = isinstance(data, list | tuple | str | bytes | Mapping) or is_array(data)
    return (
        not plain
        and hasattr(data, "__getitem__")
        and (hasattr(data, "__len__") or hasattr(data, "num_batches"))
    )
