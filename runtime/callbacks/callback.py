"""The base of all callbacks: Keras's hooks, and what a callback is told of the run."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from ..stepping import Stepper

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

    examples: int = 0
    """How many examples the pass has seen, at a batch's end."""

    reads_seldom: bool = False
    """Whether the hooks at a batch's end take, in place of logs, a function that gives them."""

    adds: tuple[str, ...] = ()
    """Names that its `on_epoch_end` adds to the logs, so that others may monitor them."""

    only_shows: bool = False
    """Whether it is no part of a run, such as a progress bar: a run goes on with it or without."""

    handles_nan: bool = False
    """Whether it is for this callback to say what a loss of NaN leads to, and no error stops the run."""

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
        self.on_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """logs: over the epoch so far. On a GPU, reading them waits for it at every batch."""
        self.on_batch_end(batch, logs)

    def on_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """An older name of `on_train_batch_begin`."""

    def on_batch_end(self, batch: int, logs: Logs) -> None:
        """An older name of `on_train_batch_end`."""

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


def is_first_process() -> bool:
    """Whether this process writes files and shows progress: the first of several, or the only one."""
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return not distributed or torch.distributed.get_rank() == 0


def say(text: str) -> None:
    """A line of a verbose callback."""
    if is_first_process():
        print(text, flush=True)
