"""What keeps a run: it goes on from the last checkpoint, writes new ones, and ends when told to."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ...graph.errors import ConvLoomError, ModelFormatError
from ..interrupts import Interrupts
from ..training import Hooks, Training
from . import storage
from .identity import check_same, identity
from .lock import locked
from .settings import Checkpoints
from .weights import put_weights, weights_of

OWN = ("sums", "data", "streams")
"""Of a run's state: what each process has its own of."""


class Keeper(Hooks):
    """Of one run. said: what a checkpoint must agree with, as `identity` takes it."""

    def __init__(self, settings: Checkpoints | None, said: Mapping[str, Any]) -> None:
        self.settings, self.said = settings, said
        self.interrupts = Interrupts()
        self._open = ExitStack()
        self._identity: dict[str, Any] = {}
        self._written_at = (-1, -1, -1)
        """Steps, epoch and batch of the last checkpoint, which is not written twice."""
        self._time = time.monotonic()
        self._done = False

    def start(self, training: Training) -> None:
        if self.settings is not None:
            folder = self.settings.path
            if training.together.is_first:
                storage.prepare(folder)
                self._open.enter_context(locked(folder))
                storage.clear(folder)
            training.together.any(False)  # so that nobody looks before that
            self._identity = identity(training, self.said)
            self._resume(training)
        self._open.enter_context(self.interrupts)
        self._time = time.monotonic()

    def _resume(self, training: Training) -> None:
        assert self.settings is not None
        found = storage.find(self.settings.path)
        if found is None:
            return
        path, content = found
        check_same(self._identity, content.state.get("identity"), path)
        try:
            put_weights(content.weights, weights_of(training.net), path)
            own = content.state["processes"][training.together.rank]
            training.load_state_dict({**content.state["training"], **own})
        except (KeyError, ValueError, TypeError, RuntimeError, IndexError) as error:
            raise ModelFormatError(
                f"checkpoint {path} does not fit this run: {type(error).__name__}: {error}; give "
                f"another folder to begin anew"
            ) from error
        self._written_at = self._place(training)
        if content.state["ended"]:
            training.epochs = training.epoch
        if training.callbacks.params.get("verbose") and training.together.rank == 0:
            print(_place_told(training, path))

    def after_step(self, training: Training) -> None:
        told, stop, due = self._agreed(training, self._is_due(training))
        if told:
            self._end(training)
        elif due:
            self.save(training)
        if stop:
            training.callbacks.model.stop_training = True

    def after_epoch(self, training: Training) -> None:
        told, stop, _ = self._agreed(training)
        if stop:
            training.callbacks.model.stop_training = True
        if told:
            self._end(training)
        elif self.settings is not None:
            every = self.settings.epochs
            last = stop or training.epoch >= training.epochs
            if last or (every is not None and training.epoch % every == 0):
                self.save(training)
            self._done = last

    def _agreed(self, training: Training, due: bool = False) -> list[bool]:
        """Whether one of the processes was told to end, has a callback that stops, and is due to be kept."""
        return training.together.any(bool(self.interrupts.name), training.callbacks.stopping, due)

    def _end(self, training: Training) -> None:
        self.save(training)
        training.history.interrupted = self.interrupts.name or "another process's signal"
        training.end()

    def _is_due(self, training: Training) -> bool:
        o = self.settings
        if o is None:
            return False
        by_steps = o.steps is not None and training.steps % o.steps == 0
        return by_steps or (o.minutes is not None and time.monotonic() - self._time >= 60 * o.minutes)

    def save(self, training: Training) -> None:
        """Write a checkpoint of the step that is done, unless there is one already."""
        if self.settings is None or self._place(training) == self._written_at:
            return
        if training.guard is not None:
            training.guard.finish()  # which raises where the step was ruined: such weights are not kept
        state = training.state_dict()
        own = {name: state.pop(name) for name in OWN}
        content = {
            "identity": self._identity,
            "ended": training.batch == 0 and training.callbacks.stopping,
            "training": state,
            "processes": training.together.gathered(own),
        }
        failed = None
        if training.together.is_first:
            try:
                weights = weights_of(training.net)
                storage.write(self.settings.path, storage.Content(weights, content), self.settings.keep)
            except ConvLoomError as error:
                failed = str(error)
        if failed := training.together.of_first(failed):
            raise ConvLoomError(failed)
        self._written_at, self._time = self._place(training), time.monotonic()

    def broken(self, training: Training) -> str:
        """Keep what there is: once the data is mended, the run goes on there."""
        if self.settings is None or training.together.count > 1:
            return ""
        self.save(training)
        return f"; the run up to there is kept in {self.settings.path}, and the same call goes on from it"

    def _place(self, training: Training) -> tuple[int, int, int]:
        return training.steps, training.epoch, training.batch

    def finish(self, training: Training) -> None:
        if self._done and self.settings is not None and not self.settings.stay:
            shutil.rmtree(self.settings.path, ignore_errors=True)
        self._open.close()


def _place_told(training: Training, path: Path) -> str:
    """Where a run goes on, in a line for a person."""
    if training.epoch >= training.epochs:
        return f"{path}: the run is done, all {training.epoch} epochs of it; nothing is left to train"
    batches = f", after {training.batch} of its batches" if training.batch else ""
    return f"{path}: goes on with epoch {training.epoch + 1} of {training.epochs}{batches}"
