"""Data that breaks while it is read: a sample, a generator or a worker of a DataLoader that fails."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from ..graph.errors import ConvLoomError

T = TypeVar("T")


def read_safely(
    batches: Iterable[T], name: str, kept: Callable[[], str] = lambda: "", place: int = 0
) -> Iterator[T]:
    """The batches; what goes wrong in somebody else's code as one error of ours, with that as its cause.

    name: of the data. kept: says what has been kept of the run up to here; called where the data breaks.
    place: of the first batch.
    """
    source = iter(batches)
    while True:
        try:
            batch = next(source)
        except StopIteration:
            return
        except ConvLoomError:
            raise
        except Exception as error:
            raise ConvLoomError(
                f"{name} broke at batch {place}: {_told(error)}. Mend or leave out what cannot be "
                f"read{kept()}"
            ) from error
        place += 1
        yield batch


def worker_error(error: RuntimeError) -> Exception:
    """What torch's handler of signals raises, in the middle of whatever runs, where a worker has died; any
    other error as it is."""
    if not str(error).startswith("DataLoader worker"):
        return error
    return ConvLoomError(
        f"the data broke: {_told(error)}. Mend or leave out what cannot be read; the last checkpoint, where "
        f"there is one, is whole, and the same call goes on from it"
    )


def _told(error: Exception) -> str:
    """An error in one line: of one that a DataLoader's worker met, what it was there."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    first = lines[0]
    if first.startswith("Caught ") and "DataLoader worker" in first:
        return f"{lines[-1]} (in a worker of the DataLoader)"
    return f"{type(error).__name__}: {first:.300}"
