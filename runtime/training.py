"""The training loop: batches, epochs and their logs, with everything about them settled by `fit`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ..graph.errors import ConvLoomError
from ..graph.words import words
from .batches import Batches
from .callbacks import Callback
from .guard import Guard
from .metrics import Metric
from .network import CompiledNetwork
from .progress import EpochBar

BatchLoss = Callable[[Sequence[torch.Tensor], torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""(inputs, target) -> loss and prediction."""


@dataclass
class History:
    """What training reported. epoch: the epochs that ran, from 0. history: name -> one value an epoch.

    The names are Keras's: loss, accuracy, val_loss, val_accuracy. seconds: of each epoch with its validation.
    net: the network that was trained, in eval() mode: `history.net(x)` predicts.
    """

    epoch: list[int] = field(default_factory=list)
    history: dict[str, list[float]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    net: torch.nn.Module | None = field(default=None, repr=False, compare=False)

    def add(self, logs: Mapping[str, float], seconds: float) -> None:
        self.epoch.append(len(self.epoch))
        self.seconds.append(seconds)
        for name, value in logs.items():
            self.history.setdefault(name, []).append(value)


class _Epoch:
    """The loss and the metrics of an epoch; means stay on the device, so that no step waits for one."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self.metrics = metrics
        self.totals: dict[str, torch.Tensor] = {}
        self.count = 0
        for metric in metrics:
            if metric.reset is not None:
                metric.reset()

    def add(self, loss: torch.Tensor, prediction: torch.Tensor, target: torch.Tensor) -> None:
        self.count += len(target)
        self._add("loss", loss, len(target))
        for metric in self.metrics:
            if metric.measure is not None:
                self._add(metric.name, torch.as_tensor(metric.measure(prediction, target)), len(target))
            elif metric.update is not None:
                metric.update(prediction, target)

    def _add(self, name: str, value: torch.Tensor, examples: int) -> None:
        if value.numel() != 1:
            raise ConvLoomError(
                f"metric {name} gave a tensor of shape {tuple(value.shape)}; it must give one number, "
                f"such as the mean over the batch"
            )
        part = value.detach().reshape(()).to(torch.float64) * examples
        self.totals[name] = self.totals[name] + part if name in self.totals else part

    def read(self) -> dict[str, float]:
        means = {name: float(total) / max(1, self.count) for name, total in self.totals.items()}
        return {"loss": means["loss"]} | {
            m.name: means[m.name] if m.name in means else m.read() for m in self.metrics
        }


@dataclass
class Training:
    """One call of `fit`, with everything in it settled."""

    net: torch.nn.Module
    step: BatchLoss
    optimizer: torch.optim.Optimizer
    metrics: list[Metric]
    stop_on_nan: bool

    def run(
        self, data: Batches, validation: Batches | None, epochs: int, callbacks: list[Callback], verbose: bool
    ) -> History:
        history = History(net=self.net)
        reported = {"loss": "min"} | {metric.name: metric.direction for metric in self.metrics}
        if validation is not None:
            reported |= {f"val_{name}": direction for name, direction in reported.items()}
        for callback in callbacks:
            callback.reported = reported
            callback.on_train_begin(self.net)
        guard = Guard(self.net, next(self.net.parameters()).device) if self.stop_on_nan and epochs else None
        for epoch in range(epochs):
            start = time.perf_counter()
            with EpochBar(epoch, epochs, data.size, verbose) as bar:
                logs = self._train(data, bar, guard)
                if validation is not None:
                    logs |= {f"val_{name}": value for name, value in self._validate(validation).items()}
                bar.finish(logs)
            history.add(logs, time.perf_counter() - start)
            for callback in callbacks:
                callback.on_epoch_end(epoch, logs)
            if any(callback.stop for callback in callbacks):
                break
        for callback in callbacks:
            callback.on_train_end()
        return history

    def _train(self, data: Batches, bar: EpochBar, guard: Guard | None) -> dict[str, float]:
        self.net.train()
        means, networks = _Epoch(self.metrics), networks_in(self.net)
        for inputs, target in data:
            if guard is not None:
                guard.before()
            self.optimizer.zero_grad(set_to_none=True)
            loss, prediction = self.step(inputs, target)
            _check_scalar(loss)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            for network in networks:
                network.apply_constraints()
            if guard is not None:
                guard.after(loss, (*inputs, target))
            means.add(loss, _detached(prediction), target)
            bar.advance(means.read)
        if guard is not None:
            guard.finish()
        if not means.count:
            raise ConvLoomError(
                "the data gave no batch; an iterator can be read once only, so give a list or a DataLoader"
            )
        return means.read()

    @torch.no_grad()
    def _validate(self, data: Batches) -> dict[str, float]:
        self.net.eval()
        means = _Epoch(self.metrics)
        for inputs, target in data:
            loss, prediction = self.step(inputs, target)
            means.add(loss, prediction, target)
        if not means.count:
            raise ConvLoomError("validation_data gave no batch; give arrays, a list or a DataLoader")
        logs = means.read()
        if self.stop_on_nan and not math.isfinite(logs["loss"]):
            raise ConvLoomError(
                f"training stopped: val_loss is {logs['loss']} while the training loss is finite; look for "
                f"NaN or infinite values in {words('validation_data', 'the data to validate on')}"
                + words("; fit(..., stop_on_nan=False) would go on")
            )
        return logs


def _detached(prediction: Any) -> Any:
    """The prediction without its graph; a tuple of them where the network has several outputs."""
    if isinstance(prediction, tuple):
        return tuple(part.detach() for part in prediction)
    return prediction.detach()


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


def networks_in(net: torch.nn.Module) -> list[CompiledNetwork]:
    """The compiled networks in a module: itself, or what data parallelism and other modules wrap."""
    return [part for part in net.modules() if isinstance(part, CompiledNetwork)]
