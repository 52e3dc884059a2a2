"""Callbacks of `fit`: what may watch a training run, and stop it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from ..graph.errors import ConvLoomError


class Callback:
    """Override what you need; `self.stop = True` in `on_epoch_end` ends the training after that epoch."""

    stop: bool = False

    def on_train_begin(self, net: torch.nn.Module) -> None:
        """Before the first epoch. net: the network in training."""

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float]) -> None:
        """After each epoch. epoch: from 0. logs: that epoch's losses and metrics by name."""

    def on_train_end(self) -> None:
        """After the last epoch."""


class EarlyStopping(Callback):
    """Stop when a value has not improved for `patience` epochs; Keras's arguments and meanings.

    monitor: a name in the logs. min_delta: the least change that counts as an improvement.
    mode: "min", "max", or "auto" (accuracies grow, everything else shrinks).
    restore_best_weights: end with the weights of the best epoch rather than of the last.
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
        if patience < 0:
            raise ConvLoomError(f"EarlyStopping: patience is {patience}; it counts epochs, from 0")
        self.monitor = monitor
        self.patience = patience
        self.min_delta = abs(min_delta)
        self.sign = -1.0 if mode == "max" or (mode == "auto" and "acc" in monitor) else 1.0
        self.restore_best_weights = restore_best_weights

    def on_train_begin(self, net: torch.nn.Module) -> None:
        self.net = net
        self.stop = False
        self.best = math.inf
        self.best_epoch = 0
        self.waited = 0
        self.weights: dict[str, torch.Tensor] = {}

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float]) -> None:
        """Raises ConvLoomError where nothing of the monitored name is logged."""
        if self.monitor not in logs:
            hint = "; give fit validation_data" if self.monitor.startswith("val_") else ""
            raise ConvLoomError(
                f"EarlyStopping monitors {self.monitor!r}, but an epoch reports {', '.join(logs)}{hint}"
            )
        value = self.sign * logs[self.monitor]
        if value < self.best - self.min_delta:
            self.best, self.best_epoch, self.waited = value, epoch, 0
            if self.restore_best_weights:
                self.weights = {k: v.detach().clone() for k, v in self.net.state_dict().items()}
            return
        self.waited += 1
        self.stop = self.waited >= self.patience and epoch > 0

    def on_train_end(self) -> None:
        if self.weights:
            self.net.load_state_dict(self.weights)
