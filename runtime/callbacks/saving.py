"""A callback that saves the model as training goes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...graph.errors import ConvLoomError
from ..checks import whole
from .callback import Logs, is_first_process, say
from .monitor import Monitor


class ModelCheckpoint(Monitor):
    """Save the model, or its weights, after every epoch or every so many batches; Keras's arguments.

    filepath: ends in .keras, or in .weights.h5 with save_weights_only. It may name what the logs hold, and
    the epoch and batch, counted from 1: "best-{epoch:02d}-{val_loss:.2f}.keras". A file that is there is
    replaced, once the new one is whole.
    save_best_only: only where the monitored value improves. initial_value_threshold: what the first one must
    be better than. save_freq: "epoch", or a number of batches.
    A network is saved through the model it was compiled from. `fit(checkpoint=)` keeps more than the model:
    all that a run needs to go on.
    """

    reads_seldom = True

    def __init__(
        self,
        filepath: str | os.PathLike[str],
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: str | int = "epoch",
        initial_value_threshold: float | None = None,
    ) -> None:
        super().__init__(monitor, mode, best=initial_value_threshold)
        self.filepath = os.fspath(filepath)
        self.verbose, self.save_best_only, self.save_weights_only = verbose, save_best_only, save_weights_only
        self.needs_direction = save_best_only
        ending = ".weights.h5" if save_weights_only else ".keras"
        if not self.filepath.endswith(ending):
            which = "weights alone are" if save_weights_only else "a whole model is"
            raise ConvLoomError(
                f"ModelCheckpoint: filepath is {self.filepath!r}; {which} saved as {ending}"
                + ("" if save_weights_only else ", or with save_weights_only=True as .weights.h5")
            )
        every = None if save_freq == "epoch" else whole(save_freq, "ModelCheckpoint: save_freq", 1)
        self.every, self.batches, self.epoch = every, 0, 0

    def on_train_begin(self, logs: Logs | None = None) -> None:
        if self.save_best_only:
            self.begin()
            if self.every is not None and self.monitor.startswith("val_"):
                raise ConvLoomError(
                    f"ModelCheckpoint: after {self.every} batches there is no {self.monitor} yet; monitor "
                    f"{self.monitor.removeprefix('val_')!r}, or save every epoch"
                )
        self._model()

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any) -> None:
        if self.every is None:
            return
        self.batches += 1
        if self.batches >= self.every:
            self.batches = 0
            self._save(self.epoch, batch, logs())

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        if self.every is None:
            self._save(epoch, None, logs)

    def _save(self, epoch: int, batch: int | None, logs: Logs) -> None:
        place = f"epoch {epoch + 1}" if batch is None else f"epoch {epoch + 1}, batch {batch + 1}"
        said = ""
        if self.save_best_only:
            current = self.value(logs)
            if current is None or not self.improves(current, self.best):
                if self.verbose:
                    say(f"{place}: {self.monitor} did not improve from {self.best}")
                return
            said = f"{self.monitor} improved to {current:.5g}; "
            self.best = current
        if not is_first_process():
            return
        path = Path(self._path(epoch, batch, logs))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConvLoomError(
                f"ModelCheckpoint: {path.parent} cannot be written: {error.strerror}"
            ) from None
        model = self._model()
        (model.save_weights if self.save_weights_only else model.save)(path)
        if self.verbose:
            say(f"{place}: {said}saved {path}")

    def _path(self, epoch: int, batch: int | None, logs: Logs) -> str:
        names: dict[str, Any] = {"epoch": epoch + 1}
        if batch is not None:
            names["batch"] = batch + 1
        names |= logs
        try:
            return self.filepath.format(**names)
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise ConvLoomError(
                f"ModelCheckpoint: filepath {self.filepath!r} names what cannot be filled in ({error}); "
                f"there are {', '.join(names)}"
            ) from None

    def _model(self) -> Any:
        """What can write itself: the model that is trained, or the one that the network was compiled from."""
        for found in (self.model, getattr(getattr(self.net, "module", self.net), "_model", None)):
            if hasattr(found, "save_weights") and hasattr(found, "save"):
                return found
        raise ConvLoomError(
            f"ModelCheckpoint saves models, and {type(self.model).__name__} came from none (or from a copy "
            f"or a pickle); give fit(checkpoint=) a folder, which keeps the weights too"
        )

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "batches": self.batches}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
