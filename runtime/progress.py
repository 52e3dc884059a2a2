"""What a training run shows of itself in a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from .callbacks import Callback, Logs

SHOWN_EVERY = 0.2
"""Seconds between updates of the progress bar; each reads a number back from the device."""


class ProgressBar(Callback):
    """Shows a training run in a terminal."""

    reads_seldom = True
    bar: EpochBar | None = None

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self.bar = EpochBar(epoch, self.params["epochs"], self.params["steps"], self.params["verbose"])
        self.bar.__enter__()

    def on_train_batch_end(self, batch: int, logs: Any) -> None:
        if self.bar is not None:
            self.bar.advance(logs)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        if self.bar is not None:
            self.bar.finish(logs)
        self.close()

    def close(self) -> None:
        if self.bar is not None:
            self.bar.__exit__()
            self.bar = None


class EpochBar:
    """A bar while an epoch runs, and one line when it ends; nothing at all where not verbose."""

    def __init__(self, epoch: int, epochs: int, batches: int | None, verbose: int) -> None:
        self.label = f"epoch {epoch + 1:{len(str(epochs))}}/{epochs}"
        self.console = Console()
        self.progress = Progress(
            TextColumn(self.label),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[logs]}", markup=False),
            console=self.console,
            transient=True,
            disable=not (verbose == 1 and self.console.is_terminal),
        )
        self.task = self.progress.add_task("", total=batches, logs="")
        self.verbose = verbose
        self.start = self.shown = time.perf_counter()

    def __enter__(self) -> EpochBar:
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.stop()

    def advance(self, read: Callable[[], Mapping[str, float]]) -> None:
        """One batch more. read: gives the epoch's values so far, which waits for the device."""
        if not self.verbose:
            return
        self.progress.advance(self.task)
        now = time.perf_counter()
        if now - self.shown > SHOWN_EVERY:
            self.shown = now
            self.progress.update(self.task, logs=_shown(read()))

    def finish(self, logs: Mapping[str, float]) -> None:
        if self.verbose:
            line = f"{self.label}  {time.perf_counter() - self.start:5.1f} s  {_shown(logs)}"
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)


def _shown(logs: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in logs.items())
