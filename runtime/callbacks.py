"""Callbacks of `fit`: what may watch a training run, and stop it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from ..graph.errors import ConvLoomError, nearest
from ..graph.words import words
from .checks import number, whole
from .metrics import direction_of

if TYPE_CHECKING:
    from .stepping import Stepper

Logs = dict[str, Any]


class Callback:
    """Base of what watches a run: override what you need. The hooks are Keras's, and come when Keras's do.

    `self.stop = True`, or `self.model.stop_training = True`, ends the training: in a hook of a batch after
    that batch, with the epoch's validation and `on_epoch_end`; in one of an epoch after that epoch. logs:
    the losses and metrics so far, by name; those of `on_epoch_end` may be written to, for the History.
    """

    stop: bool = False

    reported: Mapping[str, str | None] | None = None
    """What an epoch will report, set by `fit`: name -> "max" or "min", None where nothing says which."""

    params: Mapping[str, Any] = MappingProxyType({})
    """Keras's: verbose, epochs, and steps, the batches of an epoch, None where that is not known."""

    model: Any = None
    """The model or the network that was asked to train, evaluate or predict."""

    net: torch.nn.Module | None = None
    """The network that runs: `model` itself, or what it was compiled to."""

    stepper: Stepper | None = None
    """The optimizer's steps in training, with `learning_rate` to read and to set."""

    reads_seldom: bool = False
    """Whether the hooks at a batch's end take, in place of logs, a function that gives them."""

    def set_params(self, params: Mapping[str, Any]) -> None:
        self.params = params

    def set_model(self, model: Any) -> None:
        self.model = model

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Before the first epoch."""

    def on_train_end(self, logs: Logs | None = None) -> None:
        """After the last epoch. logs: its."""

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """epoch: from 0."""

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """After each epoch and its validation, whose values are in logs as val_...."""

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """batch: from 0 in each epoch."""

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """logs: over the epoch so far. On a GPU, reading them waits for it at every batch."""

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """Before an evaluation, validation included."""

    def on_test_end(self, logs: Logs) -> None: ...

    def on_test_batch_begin(self, batch: int, logs: Logs | None = None) -> None: ...

    def on_test_batch_end(self, batch: int, logs: Logs) -> None: ...

    def on_predict_begin(self, logs: Logs | None = None) -> None: ...

    def on_predict_end(self, logs: Logs | None = None) -> None: ...

    def on_predict_batch_begin(self, batch: int, logs: Logs | None = None) -> None: ...

    def on_predict_batch_end(self, batch: int, logs: Logs) -> None:
        """logs: {"outputs": what the network gave}."""

    def close(self) -> None:
        """At the very end, also of a run that ends with an error."""

    def state_dict(self) -> dict[str, Any]:
        """What a run that is resumed must find again: tensors, and plain values as JSON holds them."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""


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

    def on_train_begin(self, logs: Logs | None = None) -> None:
        if self.reported is not None:
            self._check_reported(self.reported)
        self.sign = -1.0 if self._direction() == "max" else 1.0
        self.stop = False
        self.best = math.inf
        self.best_epoch = 0
        self.waited = 0
        self.weights: dict[str, torch.Tensor] = {}

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Raises ConvLoomError where nothing of the monitored name is logged."""
        self._check_reported(logs)
        value = self.sign * logs[self.monitor]
        if value < self.best - self.min_delta:
            self.best, self.best_epoch, self.waited = value, epoch, 0
            if self.restore_best_weights and self.net is not None:
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

    def state_dict(self) -> dict[str, Any]:
        names = "best", "best_epoch", "waited", "weights"
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self.weights and self.net is not None:
            self.net.load_state_dict(self.weights)
