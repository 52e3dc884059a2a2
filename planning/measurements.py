"""What was measured of kernels: a store that many processes write to and nothing can spoil.

A measurement is a time in seconds under all that it depends on: the region's key, form and schedule, dtype
and precision, the batch, the card, and Triton's version. The store is a folder of small files of lines, one
JSON object each. A process only ever adds lines to a file of its own, under a name nobody else has, with one
write each, so that no lock is needed and a process that is killed costs at most its last line. Reading takes
all files of the folder, and those that ship with the package; of several times for one thing the least is
kept.

A line that is no measurement is passed over, with one warning a file: what is lost is time, not rightness.
"""

from __future__ import annotations

import json
import math
import os
import socket
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from uuid import uuid4

from ..graph.errors import ConvLoomError
from ..graph.settings import settings
from .schedules import Schedule

FORMAT = 1
"""Of a line; lines of another format are not read, and not complained about."""

FOLDER = "measurements"
"""Within the cache."""


class MeasurementWarning(UserWarning):
    """A file of measurements holds what is none, or could not be read or written."""


@dataclass(frozen=True)
class Measured:
    """What a time was measured of.

    key: of the region, `Region.key`. form: its name. device: the card's name, as its driver has it.
    """

    key: str
    form: str
    schedule: Schedule
    dtype: str
    precision: str
    batch: int
    device: str
    triton: str


class Measurements:
    """Times in seconds, read from files when first asked for; a dictionary that can only grow and improve.

    folder: where lines are read from and added to; by default one in the cache. shipped: files that are only
    read.
    """

    def __init__(self, folder: Path | None = None, shipped: Iterable[Path] = ()) -> None:
        self.folder = settings.cache / FOLDER if folder is None else folder
        self.shipped = tuple(shipped)
        self._own: Path | None = None
        self._times: dict[Measured, float] | None = None

    # -- reading -------------------------------------------------------------------------------------------
    def __getitem__(self, what: Measured) -> float:
        return self._read()[what]

    def get(self, what: Measured) -> float | None:
        """The least time that was measured, or None."""
        return self._read().get(what)

    def __contains__(self, what: Measured) -> bool:
        return what in self._read()

    def __iter__(self) -> Iterator[Measured]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def best(self, candidates: Iterable[Measured]) -> Measured | None:
        """The fastest of those that were measured; None where none was."""
        times = self._read()
        known = [what for what in candidates if what in times]
        return min(known, key=times.__getitem__, default=None)

    def refresh(self) -> None:
        """Forget what was read, so that what other processes have written since is seen."""
        self._times = None

    def _read(self) -> dict[Measured, float]:
        if self._times is None:
            found: dict[Measured, float] = {}
            for path in (*self.shipped, *self._files()):
                for what, seconds in _lines_of(path):
                    _keep(found, what, seconds)
            self._times = found
        return self._times

    def _files(self) -> list[Path]:
        try:
            return sorted(self.folder.glob("*.jsonl"))
        except OSError:
            return []

    # -- writing -------------------------------------------------------------------------------------------
    def add(self, what: Measured, seconds: float) -> None:
        """Keep a time, here and in the folder. Where that cannot be written, it is kept here, with a warning.

        Raises ConvLoomError for what is no time.
        """
        self.update({what: seconds})

    def update(self, times: Mapping[Measured, float]) -> None:
        """`add` many at once, in one write."""
        for what, seconds in times.items():
            if not _is_time(seconds):
                raise ConvLoomError(f"{what.form} {what.key}: {seconds!r} is no time in seconds")
        known = self._read()
        news = [_line(what, seconds) for what, seconds in times.items() if _keep(known, what, seconds)]
        if news:
            self._append("".join(news))

    def _append(self, text: str) -> None:
        if self._own is None:
            self._own = self.folder / f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}.jsonl"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._own.open("ab", buffering=0) as file:
                file.write(text.encode())
        except OSError as error:
            _warn(f"{self._own}: measurements are kept for this process only: {error.strerror}")

    def write(self, path: Path) -> None:
        """All that is known as one sorted file, such as ships with the package; whole or not at all."""
        lines = sorted(_line(what, seconds) for what, seconds in self._read().items())
        beside = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            beside.write_text("".join(lines), encoding="utf-8")
            beside.replace(path)
        except OSError as error:
            with suppress(OSError):
                beside.unlink()
            raise ConvLoomError(f"{path}: cannot be written: {error.strerror}") from None


def _keep(times: dict[Measured, float], what: Measured, seconds: float) -> bool:
    """Keep the lesser of two times; whether it is news."""
    if seconds >= times.get(what, math.inf):
        return False
    times[what] = seconds
    return True


def _warn(text: str) -> None:
    warnings.warn(text, MeasurementWarning, stacklevel=2)


# -- lines -------------------------------------------------------------------------------------------------
def _line(what: Measured, seconds: float) -> str:
    return json.dumps({"format": FORMAT, **asdict(what), "seconds": seconds}) + "\n"


def _lines_of(path: Path) -> list[tuple[Measured, float]]:
    """The measurements of a file; what is none is passed over, with one warning."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        _warn(f"{path}: cannot be read, so its measurements are not used: {error.strerror}")
        return []
    found, damaged = [], 0
    for line in lines:
        try:
            measured = _from_line(line)
        except (ValueError, TypeError, KeyError, OverflowError, ConvLoomError, RecursionError):
            damaged += 1
        else:
            found += [measured] if measured is not None else []
    if damaged:
        of_it = f"{damaged} of {len(lines)} lines hold no measurement and are passed over"
        _warn(f"{path}: {of_it}; delete the file to be rid of this warning")
    return found


def _from_line(line: bytes) -> tuple[Measured, float] | None:
    """The measurement of a line; None for one of another format. Raises for what is none."""
    data = json.loads(line)
    if data["format"] != FORMAT:
        return None
    seconds = data["seconds"]
    if not _is_time(seconds):
        raise ValueError("no time")
    kept = {field.name: data[field.name] for field in fields(Measured)}
    if not isinstance(kept["batch"], int) or any(
        not isinstance(value, str) for name, value in kept.items() if name not in ("batch", "schedule")
    ):
        raise ValueError("no measurement")
    return Measured(**{**kept, "schedule": Schedule(**kept["schedule"])}), float(seconds)


def _is_time(seconds: object) -> bool:
    return isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 < seconds < math.inf
