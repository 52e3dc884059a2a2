"""What a run shows of itself in a terminal: a bar while data is gone through, and one line after."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .callbacks.callback import Callback, Logs, is_first_process

SHOWN_EVERY = 0.2
"""Seconds between updates of the progress bar; each reads numbers back from the device."""


class ProgressBar(Callback):
    """Shows training, evaluation and prediction: Keras's `verbose`, 1 for a bar, 2 for a line an epoch.

    Where the output is no terminal there are lines and no bar. A validation shows under its epoch's bar.
    """

    reads_seldom = True
    only_shows = True
    bar: PassBar | None = None
    training: bool = False

    def _open(self, label: str) -> None:
        self.close()
        verbose = int(self.params.get("verbose", 1)) if is_first_process() else 0
        self.bar = PassBar(label, self.params.get("steps"), verbose)

    def _done(self, logs: Logs | None) -> None:
        if self.bar is not None:
            self.bar.finish(logs or {})
        self.close()

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.training = True

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        epochs = self.params["epochs"]
        self._open(f"epoch {epoch + 1:{len(str(epochs))}}/{epochs}")

    def on_train_batch_end(self, batch: int, logs: Any) -> None:
        if self.bar is not None:
            self.bar.show(batch + 1, logs, self.examples)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        self._done(logs)

    def on_test_begin(self, logs: Logs | None = None) -> None:
        if not self.training:
            self._open("evaluation")
        elif self.bar is not None:
            self.bar.say("validation")

    def on_test_batch_end(self, batch: int, logs: Any) -> None:
        if self.bar is not None and not self.training:
            self.bar.show(batch + 1, logs, self.examples)

    def on_test_end(self, logs: Logs) -> None:
        if not self.training:
            self._done(logs)

    def on_predict_begin(self, logs: Logs | None = None) -> None:
        self._open("prediction")

    def on_predict_batch_end(self, batch: int, logs: Any) -> None:
        if self.bar is not None:
            self.bar.show(batch + 1, dict, self.examples)

    def on_predict_end(self, logs: Logs | None = None) -> None:
        self._done({})

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


class PassBar:
    """A bar while data is gone through, where verbose is 1 and there is a terminal; and one line at its end.

    batches: how many there are, None where that is not known.
    """

    def __init__(self, label: str, batches: int | None, verbose: int) -> None:
        self.label, self.verbose = label, verbose
        self.console = Console()
        self.progress = Progress(
            TextColumn(label),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[logs]}", markup=False),
            console=self.console,
            transient=True,
            disable=not (verbose == 1 and self.console.is_terminal),
        )
        self.task = self.progress.add_task("", total=batches, logs="", rate="")
        self.start = self.shown = time.perf_counter()
        self.rate = Rate()
        self.progress.start()

    def show(self, batch: int, read: Callable[[], Mapping[str, Any]], examples: int) -> None:
        """batch: how many are done, and examples with them. read: gives the values so far, which waits for
        the device, and is called a few times a second."""
        now = time.perf_counter()
        self.rate.add(batch, examples, now)
        if self.progress.disable:
            return
        if now - self.shown > SHOWN_EVERY:
            self.shown = now
            self.progress.update(self.task, completed=batch, logs=shown(read()), rate=str(self.rate))
        else:
            self.progress.update(self.task, completed=batch)

    def say(self, text: str) -> None:
        self.progress.update(self.task, logs=text)

    def finish(self, logs: Mapping[str, Any]) -> None:
        """The line that stays."""
        self.close()
        if not self.verbose:
            return
        parts = self.label, f"{time.perf_counter() - self.start:5.1f} s", str(self.rate), shown(logs)
        text = "  ".join(part for part in parts if part)
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        self.progress.stop()


class Rate:
    """Examples a second, or batches where examples are not counted, without the first batch, which may have
    had kernels to compile."""

    def __init__(self) -> None:
        self.first: tuple[int, int, float] | None = None
        self.last: tuple[int, int, float] | None = None

    def add(self, batch: int, examples: int, now: float) -> None:
        self.last = batch, examples, now
        self.first = self.first or self.last

    def __str__(self) -> str:
        if self.first is None or self.last is None or self.last[2] <= self.first[2]:
            return ""
        batches, examples, seconds = (b - a for a, b in zip(self.first, self.last, strict=True))
        count, what = (examples, "examples") if examples else (batches, "batches")
        rate = count / seconds
        return f"{rate:,.0f} {what}/s" if rate >= 10 else f"{rate:.2g} {what}/s"


def shown(logs: Mapping[str, Any]) -> str:
    return "  ".join(f"{name} {_value(value)}" for name, value in logs.items())


def _value(value: Any) -> str:
    if np.ndim(value) == 0:
        return f"{value:.4f}" if value == 0 or abs(value) >= 1e-3 else f"{value:.2e}"
    numbers = np.ravel(value)
    more = " ..." if len(numbers) > 6 else ""
    return "[" + " ".join(f"{number:.3g}" for number in numbers[:6]) + more + "]"
