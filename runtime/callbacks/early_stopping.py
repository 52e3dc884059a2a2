"""The end of a training that no longer improves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..checks import number, whole
from .callback import Logs, say
from .monitor import Monitor


class EarlyStopping(Monitor):
    """Stop when a value has not improved for `patience` epochs; Keras's arguments and meanings.

    monitor: a name in the logs. min_delta: the least change that counts as an improvement.
    mode: "min", "max", or "auto": as the metric says of itself, or as Keras's metric of that name does.
    baseline: a value that must be beaten, too, for the waiting to begin anew.
    restore_best_weights: end with the weights of the best epoch rather than of the last.
    start_from_epoch: epochs before this one, counted from 0, are not looked at.
    Raises ConvLoomError, when training begins, where nothing of the monitored name is reported and where mode
    "auto" would have to guess.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0.0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        self.patience = whole(patience, "EarlyStopping: patience", 0)
        self.verbose = verbose
        self.baseline = None if baseline is None else number(baseline, "EarlyStopping: baseline")
        self.restore_best_weights = restore_best_weights
        self.start_from_epoch = whole(start_from_epoch, "EarlyStopping: start_from_epoch", 0)
        self._anew()

    def _anew(self) -> None:
        self.best = None
        self.best_epoch = self.wait = self.stopped_epoch = 0
        self.best_weights: dict[str, torch.Tensor] | None = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.begin()
        self._anew()

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Raises ConvLoomError where nothing of the monitored name is logged."""
        current = self.value(logs)
        if current is None or epoch < self.start_from_epoch:
            return
        if self.restore_best_weights and self.best_weights is None:
            self._keep(epoch)
        self.wait += 1
        if self.improves(current, self.best):
            self.best = current
            self._keep(epoch)
            if self.baseline is None or self.improves(current, self.baseline):
                self.wait = 0
        elif self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.stop = True

    def _keep(self, epoch: int) -> None:
        self.best_epoch = epoch
        if self.restore_best_weights and self.net is not None:
            self.best_weights = {k: v.detach().clone() for k, v in self.net.state_dict().items()}

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self.stopped_epoch and self.verbose:
            say(f"epoch {self.stopped_epoch + 1}: early stopping")
        if self.best_weights is not None and self.net is not None:
            if self.verbose:
                say(f"the weights are those of the best epoch, {self.best_epoch + 1}")
            self.net.load_state_dict(self.best_weights)

    def state_dict(self) -> dict[str, Any]:
        names = "best", "best_epoch", "wait", "stopped_epoch", "best_weights"
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
