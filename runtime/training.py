"""The training loop: batches, epochs and their logs, with everything about them settled by `fit`."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ..graph.errors import ConvLoomError
from ..graph.words import words
from .batch import Batch
from .broken_data import read_safely, worker_error
from .callback_list import CallbackList
from .distributed import ALONE, ParallelStep, Processes
from .evaluation import BatchStep, Evaluation, Sums
from .feed import Feed
from .guard import Guard
from .history import History
from .metrics import Metrics
from .step_result import StepResult
from .stepping import Stepper


class Hooks:
    """What may look into a run between its steps: checkpoints, signals, other processes.

    Override what you need. `training.end()` in one of them ends the run after the step that is done.

    `start` may load a state: the run then goes on where that was taken.
    """

    def start(self, training: Training) -> None:
        """Before the first step, and after the callbacks' `on_train_begin`."""

    def after_step(self, training: Training) -> None:
        """After each step of training; `training.batch` counts those of the epoch."""

    def after_epoch(self, training: Training) -> None:
        """After each epoch with its validation and callbacks; `training.epoch` is the next one."""

    def broken(self, training: Training) -> str:
        """Where the next batch cannot be read. Returns how the error is to go on: what has been kept."""
        return ""

    def finish(self, training: Training) -> None:
        """At the end, however it came."""


@dataclass
class Training:
    """One call of `fit`, with everything in it settled, and the place it has come to.

    epoch: the one that runs, or the next. batch: how many of its batches are done. steps: of the whole run.
    losses: the outputs that have a loss.
    """

    net: torch.nn.Module
    step: BatchStep
    stepper: Stepper
    losses: list[str]
    metrics: Metrics
    callbacks: CallbackList
    data: Feed
    validation: Feed | None = None
    epochs: int = 1
    epoch: int = 0
    validation_freq: int | Collection[int] = 1
    stop_on_nan: bool = True
    debug_nan: bool = False
    together: Processes = ALONE
    hooks: Hooks = field(default_factory=Hooks)
    history: History = field(default_factory=History)
    batch: int = 0
    steps: int = 0

    def __post_init__(self) -> None:
        self.history.net = self.net
        self.device = next(self.net.parameters()).device
        loss = (lambda batch: self.step(batch).loss) if self.debug_nan else None
        guarded = (self.stop_on_nan or self.debug_nan) and self.epoch < self.epochs
        self.guard = Guard(self.net, self.device, loss=loss) if guarded else None
        self.sums = Sums(self.losses, self.metrics)
        several = self.together.count > 1
        self.reduced = self.device if several else None
        self.evaluation = Evaluation(self.net, self.step, self.losses, self.metrics, self.reduced)
        self._trained = ParallelStep(self.net, self.step) if several else self.step
        self._ended = False

    def run(self) -> History:
        logs: dict[str, Any] | None = {}
        try:
            self.callbacks.on_train_begin()
            self.hooks.start(self)
            while self.epoch < self.epochs and not self._ended:
                start = time.perf_counter()
                logs = self._train()
                if logs is None:
                    break
                if self.validation is not None and self._validates(self.epoch):
                    logs |= {f"val_{name}": value for name, value in self._validate().items()}
                self.callbacks.on_epoch_end(self.epoch, logs)
                self.stepper.end_epoch(logs)
                self.history.add(self.epoch, logs, time.perf_counter() - start)
                self.epoch, self.batch = self.epoch + 1, 0
                self.hooks.after_epoch(self)
                if self.callbacks.stopping:
                    break
            if self.epochs and not self._ended:
                self.stepper.finish()
            self.callbacks.on_train_end(logs or {})
        except RuntimeError as error:
            raise worker_error(error) from error.__cause__
        finally:
            self.callbacks.close()
            self.hooks.finish(self)
        return self.history

    def end(self) -> None:
        """End the run after the step, or the epoch, that is done: what it has come to can be kept."""
        self._ended = True

    # -- an epoch ----------
    def _train(self) -> dict[str, Any] | None:
        """The values of the epoch; None where it was not gone through, since the run is to end."""
        done = self.batch
        for batch in read_safely(self._begin_epoch(), "the data", lambda: self.hooks.broken(self), done):
            self.callbacks.on_batch_begin("train", self.batch)
            self._step(batch)
            self.callbacks.on_batch_end("train", self.batch - 1, self.sums.read, self.sums.examples)
            self.hooks.after_step(self)
            if self._ended or self.callbacks.stopping:
                break
        if self.guard is not None:
            self.guard.finish()
        if self.sums.is_empty:
            raise ConvLoomError(
                "the data gave no batch; an iterator can be read once only, so give a list or a DataLoader"
            )
        return None if self._ended else self.sums.read(self.reduced)

    def _begin_epoch(self) -> Iterator[Batch]:
        """The epoch's batches from `batch` on."""
        if not self.batch:
            self.sums = Sums(self.losses, self.metrics)
            self.callbacks.on_epoch_begin(self.epoch)
        self.net.train()
        return self.data.epoch(self.batch)

    def _step(self, batch: Batch) -> None:
        if self.guard is not None:
            self.guard.before()
        if not self.net.training:  # a callback may have evaluated or predicted since the last step
            self.net.train()
        result = self.stepper.step(lambda: self._loss(batch))
        if self.guard is not None and self.stepper.skipped:
            self.guard.skip(self.stepper.skipped)
        elif self.guard is not None:
            self.guard.after(result.loss, batch)
        self.sums.add(result, batch)
        self.batch += 1
        self.steps += 1

    def _loss(self, batch: Batch) -> StepResult:
        result = self._trained(batch)
        _check_scalar(result.loss)
        return result

    # -- validation ----------
    def _validates(self, epoch: int) -> bool:
        """As Keras has it: every so many epochs, or after those listed, counted from 1."""
        freq = self.validation_freq
        return (epoch + 1) % freq == 0 if isinstance(freq, int) else epoch + 1 in freq

    def _validate(self) -> dict[str, Any]:
        assert self.validation is not None
        self.together.share(self.net)
        logs = self.evaluation.run(self.validation, self.callbacks, "validation_data")
        if self.stop_on_nan and not math.isfinite(logs["loss"]):
            raise ConvLoomError(
                f"training stopped: val_loss is {logs['loss']} while the training loss is finite; look for "
                f"NaN or infinite values in {words('validation_data', 'the data to validate on')}"
                + words("; fit(..., stop_on_nan=False) would go on")
            )
        return logs

    # -- stopping and going on ----------
    def state_dict(self) -> dict[str, Any]:
        """Everything but the weights: nested dictionaries and lists of tensors and of plain values.

        To be taken between two steps, in a hook.
        """
        return {
            "epoch": self.epoch,
            "batch": self.batch,
            "steps": self.steps,
            "sums": self.sums.state_dict() if self.batch else None,
            "history": self.history.state_dict(),
            "data": self.data.state_dict(),
            "streams": [network._streams.state_dict() for network in self.stepper.networks],
            "stepper": self.stepper.state_dict(),
            "callbacks": self.callbacks.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse, for a run of the same arguments over the same data: in `Hooks.start`, with the
        network's weights loaded too. The run goes on with the step that would have come next."""
        self.epoch, self.batch, self.steps = state["epoch"], state["batch"], state["steps"]
        self.history.load_state_dict(state["history"])
        if self.batch:
            self.sums = Sums(self.losses, self.metrics)
            self.sums.load_state_dict(state["sums"])
            self.callbacks.on_epoch_begin(self.epoch)
        self.stepper.load_state_dict(state["stepper"])
        self.callbacks.load_state_dict(state["callbacks"])
        for network, streams in zip(self.stepper.networks, state["streams"], strict=True):
            network._streams.load_state_dict(streams, self.device)
        self.data.load_state_dict(state["data"])


def _check_scalar(loss: Any) -> None:
    if isinstance(loss, torch.Tensor) and loss.numel() == 1 and loss.requires_grad:
        return
    if not isinstance(loss, torch.Tensor):
        kind = type(loss).__name__
        backend = (
            "; Keras computes with torch under KERAS_BACKEND=torch"
            if "keras" in type(loss).__module__
            else ""
        )
        raise ConvLoomError(
            f"the loss function returned {kind}; it must return one number that torch can differentiate"
            f"{backend}"
        )
    what = f"a tensor of shape {tuple(loss.shape)}" if loss.numel() != 1 else "a number without a gradient"
    hint = "; give its mean" if loss.numel() != 1 else "; compute it with torch from the prediction"
    raise ConvLoomError(
        f"the loss function returned {what}; it must return one number that torch can differentiate{hint}"
    )
