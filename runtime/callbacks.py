"""Callbacks of `fit`: what may watch a training run, and stop it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from ..graph.errors import ConvLoomError, nearest
from ..graph.words import words
from .checks import number, whole
from .metrics import direction_of


class Callback:
    """Override what you need; `self.stop = True` in `on_epoch_end` ends the training after that epoch."""

    stop: bool = False

    reported: Mapping[str, str | None] | None = None
    """What an epoch will report, set by `fit`: name -> "max" or "min", None where nothing says which."""

    def on_train_begin(self, net: torch.nn.Module) -> None:
        """Before the first epoch. net: the network in training."""

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float]) -> None:
        """After each epoch. epoch: from 0. logs: that epoch's losses and metrics by name."""

    def on_train_end(self) -> None:
        """After the last epoch."""


class EarlyStopping(Callback):
    """Stop when a value has not improved for `patience` epochs; Keras's arguments and meanings.

    monitor: a name in the logs. min_delta: the least change that counts as an improvement.
    mode: "min", "max", or "auto": as the metric says of itself, or as Keras's metric of that name does.
    restore_best_weights: end with the weights of the best epoch rather than of the last.
    Raises ConvLoomError, when training begins, where nothing of the monitored name is reported and where mode
    "auto" would have to guess.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 0,
        min_delta: float = 0.0,
        mode: str = "auto",
        restore_best_weights: bool = False,
    ) -> None:
        if mode not in ("auto", "min", "max"):
            raise ConvLoomError(f"EarlyStopping: mode is {mode!r}; it takes 'auto', 'min' or 'max'")
        self.monitor = monitor
        self.patience = whole(patience, "EarlyStopping: patience", 0)
        self.min_delta = abs(number(min_delta, "EarlyStopping: min_delta"))
        self.mode = mode
        self.restore_best_weights = restore_best_weights

    def on_train_begin(self, net: torch.nn.Module) -> None:
        self.net = net
        if self.reported is not None:
            self._check_reported(self.reported)
        self.sign = -1.0 if self._direction() == "max" else 1.0
        self.stop = False
        self.best = math.inf
        self.best_epoch = 0
        self.waited = 0
        self.weights: dict[str, torch.Tensor] = {}

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float]) -> None:
        """Raises ConvLoomError where nothing of the monitored name is logged."""
        self._check_reported(logs)
        value = self.sign * logs[self.monitor]
        if value < self.best - self.min_delta:
            self.best, self.best_epoch, self.waited = value, epoch, 0
            if self.restore_best_weights:
                self.weights = {k: v.detach().clone() for k, v in self.net.state_dict().items()}
            return
        self.waited += 1
        self.stop = self.waited >= self.patience and epoch > 0

    def _check_reported(self, names: Mapping[str, object]) -> None:
        if self.monitor in names:
            return
        lacks = self.monitor.startswith("val_") and not any(name.startswith("val_") for name in names)
        data = words("give fit validation_data", "give --validation-split, or x_val and y_val in the data")
        hint = f"; {data}" if lacks else nearest(self.monitor, names)
        waits = words("EarlyStopping monitors", "--patience waits for")
        raise ConvLoomError(f"{waits} {self.monitor!r}, but an epoch reports {', '.join(names)}{hint}")

    def _direction(self) -> str:
        if self.mode != "auto":
            return self.mode
        direction = (self.reported or {}).get(self.monitor) or direction_of(self.monitor.removeprefix("val_"))
        if direction is None:
            raise ConvLoomError(
                f"EarlyStopping cannot tell whether a better {self.monitor!r} is larger or smaller; "
                f"give mode='max' or mode='min'"
            )
        return direction

    def on_train_end(self) -> None:
        if self.weights:
            self.net.load_state_dict(self.weights)
