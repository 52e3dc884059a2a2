"""The logs of all epochs as a table in a text file."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from ...graph.errors import ConvLoomError
from .callback import Callback, Logs, is_first_process


class CSVLogger(Callback):
    """Write a row of the logs after each epoch, as Keras does.

    separator: between columns. append: go on in a file that is there; else it is begun anew. The columns are
    those of the first epoch, and a value for each in validation; what an epoch does not report is NA. A run
    that goes on from a checkpoint goes on in the file, after the row of the last epoch that was kept.
    """

    def __init__(self, filename: str | os.PathLike[str], separator: str = ",", append: bool = False) -> None:
        if not isinstance(separator, str) or len(separator) != 1:
            raise ConvLoomError(f"CSVLogger: separator is {separator!r}; it is one character")
        self.path, self.separator, self.append = Path(filename), separator, append
        self.keys: list[str] | None = None
        self.size: int | None = None
        self.file: IO[str] | None = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.close()
        self.keys = self.size = None

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        if not is_first_process():
            return
        begins = self.keys is None
        if self.keys is None:
            self.keys = sorted(logs)
            if self.keys and not any(key.startswith("val_") for key in self.keys):
                self.keys += [f"val_{key}" for key in self.keys]
        row = {"epoch": epoch, **{key: _cell(logs.get(key, "NA")) for key in self.keys}}
        try:
            if self.file is None:
                self.file, headed = self._opened()
                begins = begins and not headed
            writer = csv.DictWriter(self.file, ["epoch", *self.keys], delimiter=self.separator)
            if begins:
                writer.writeheader()
            writer.writerow(row)
            self.file.flush()
            self.size = self.file.tell()
        except OSError as error:
            raise ConvLoomError(f"CSVLogger: {self.path} cannot be written: {error.strerror}") from None

    def _opened(self) -> tuple[IO[str], bool]:
        """The file to write to, and whether it has a first line."""
        if self.size is not None and self.path.exists():  # of a run that goes on
            file = self.path.open("r+", newline="", encoding="utf-8")
            file.truncate(min(self.size, self.path.stat().st_size))
            file.seek(0, os.SEEK_END)
            return file, file.tell() > 0
        headed = self.append and self.path.exists() and self.path.stat().st_size > 0
        return self.path.open("a" if self.append else "w", newline="", encoding="utf-8"), headed

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None

    def state_dict(self) -> dict[str, Any]:
        return {"keys": self.keys, "size": self.size}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.keys, self.size = state["keys"], state["size"]


def _cell(value: Any) -> Any:
    if isinstance(value, str) or np.ndim(value) == 0:
        return value
    return f'"[{", ".join(map(str, value))}]"'
