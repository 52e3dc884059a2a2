"""Callbacks that set the learning rate: by the epoch, or where a value has stopped improving."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ...graph.errors import ConvLoomError
from ..checks import number, whole
from ..stepping import Stepper
from .callback import Callback, Logs, say
from .monitor import Monitor


def _stepper(callback: Callback) -> Stepper:
    if callback.stepper is None:
        raise ConvLoomError(f"{type(callback).__name__} sets a learning rate, and nothing is trained here")
    return callback.stepper


class LearningRateScheduler(Callback):
    """Set the learning rate before each epoch to schedule(epoch, rate), or schedule(epoch).

    epoch counts from 0; rate is the one so far. The logs hold it as learning_rate.
    """

    adds = ("learning_rate",)

    def __init__(self, schedule: Callable[..., Any], verbose: int = 0) -> None:
        if not callable(schedule):
            raise ConvLoomError(f"LearningRateScheduler: schedule is {schedule!r:.60}; give a function")
        self.schedule, self.verbose = schedule, verbose

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        stepper = _stepper(self)
        asked = (epoch, stepper.learning_rate) if _takes_two(self.schedule) else (epoch,)
        stepper.learning_rate = rate = number(
            self.schedule(*asked), "LearningRateScheduler: what schedule gives", least=0.0
        )
        if self.verbose:
            say(f"epoch {epoch + 1}: learning rate {rate:.6g}")

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        logs["learning_rate"] = _stepper(self).learning_rate


def _takes_two(schedule: Callable[..., Any]) -> bool:
    try:
        inspect.signature(schedule).bind(0, 0.0)
    except (TypeError, ValueError):
        return False
    return True


class ReduceLROnPlateau(Monitor):
    """Multiply the learning rate by factor where a value has not improved for `patience` epochs.

    cooldown: epochs after a reduction in which none is counted. min_lr: where it ends.
    monitor, mode, min_delta: as EarlyStopping's. The logs hold the epoch's learning_rate.
    """

    adds = ("learning_rate",)

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        self.factor = number(factor, "ReduceLROnPlateau: factor", least=0.0, below=1.0)
        self.patience = whole(patience, "ReduceLROnPlateau: patience", 0)
        self.cooldown = whole(cooldown, "ReduceLROnPlateau: cooldown", 0)
        self.min_lr = number(min_lr, "ReduceLROnPlateau: min_lr", least=0.0)
        self.verbose = verbose
        self.cooldown_counter = self.wait = 0

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.begin()
        self.best = None
        self.cooldown_counter = self.wait = 0

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        logs["learning_rate"] = _stepper(self).learning_rate
        current = self.value(logs)
        if current is None:
            return
        if self.cooldown_counter:
            self.cooldown_counter -= 1
            self.wait = 0
        if self.improves(current, self.best):
            self.best, self.wait = current, 0
        elif not self.cooldown_counter:
            self.wait += 1
            if self.wait >= self.patience:
                self._reduce(epoch)

    def _reduce(self, epoch: int) -> None:
        stepper = _stepper(self)
        rate = stepper.learning_rate
        if rate <= np.float32(self.min_lr):
            return
        stepper.learning_rate = rate = max(rate * self.factor, self.min_lr)
        self.cooldown_counter, self.wait = self.cooldown, 0
        if self.verbose:
            say(f"epoch {epoch + 1}: learning rate reduced to {rate:.6g}")

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("best", "cooldown_counter", "wait")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
