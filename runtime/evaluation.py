"""A pass over data that changes no weights, and what a pass reports."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..graph.errors import ConvLoomError
from .batch import Batch
from .broken_data import read_safely
from .callback_list import CallbackList
from .feed import Feed
from .metrics import Metrics, on_the_host
from .running_mean import RunningMean
from .step_result import StepResult

BatchStep = Callable[[Batch], StepResult]
"""The network and its losses over a batch."""


class Sums:
    """The losses and the metrics of a pass so far, by Keras's names.

    losses: the names of the outputs that have a loss, which are reported where there are several.
    """

    def __init__(self, losses: Sequence[str], metrics: Metrics) -> None:
        self.metrics = metrics
        parts = [f"{name}_loss" for name in losses] if len(losses) > 1 else []
        self.means = {name: RunningMean(name) for name in ("loss", *parts)}
        metrics.reset()

    def add(self, result: StepResult, batch: Batch) -> None:
        if not batch.weight:
            return
        values = (result.loss, *(result.losses if len(self.means) > 1 else ()))
        for mean, value in zip(self.means.values(), values, strict=True):
            mean.add(value, batch.size)
        self.metrics.update(result.predictions, batch.targets, batch.weights)

    @property
    def is_empty(self) -> bool:
        return not self.means["loss"].count

    @property
    def examples(self) -> int:
        """How many have been seen."""
        return self.means["loss"].count

    def read(self, reduced: torch.device | None = None) -> dict[str, Any]:
        """Numbers by name, an array for a metric of several; one wait for the device.

        reduced: the device of this process, where the values are to be those of all that train together,
        each of which must call it.
        """
        if reduced is None:
            values: dict[str, Any] = {name: mean.value for name, mean in self.means.items()}
        else:
            self._check_all(reduced)
            values = {name: mean.of_all(reduced) for name, mean in self.means.items()}
        return on_the_host(values | self.metrics.values(reduced is not None))

    def _check_all(self, device: torch.device) -> None:
        """Raise ConvLoomError, in all processes, where one has had no example."""
        least = torch.tensor([self.examples], device=device)
        torch.distributed.all_reduce(least, torch.distributed.ReduceOp.MIN)
        if not int(least):
            raise ConvLoomError(
                "the data has fewer examples a batch than there are processes, and one of them had none; "
                "give larger batches, or start fewer processes"
            )

    @property
    def directions(self) -> dict[str, str | None]:
        """What is reported -> whether more of it is better, "max", or less, "min"."""
        return dict.fromkeys(self.means, "min") | self.metrics.directions

    def state_dict(self) -> dict[str, Any]:
        return {
            "means": {name: mean.state_dict() for name, mean in self.means.items()},
            "metrics": self.metrics.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, mean in self.means.items():
            mean.load_state_dict(state["means"][name])
        self.metrics.load_state_dict(state["metrics"])


@dataclass
class Evaluation:
    """The loss and the metrics of data, in eval() mode."""

    net: torch.nn.Module
    step: BatchStep
    losses: Sequence[str]
    metrics: Metrics
    reduced: torch.device | None = None

    @torch.no_grad()
    def run(self, data: Feed, callbacks: CallbackList, name: str = "data") -> dict[str, Any]:
        self.net.eval()
        data.restart()
        callbacks.on_test_begin()
        sums = Sums(self.losses, self.metrics)
        for place, batch in enumerate(read_safely(data.epoch(), name)):
            callbacks.on_batch_begin("test", place)
            sums.add(self.step(batch), batch)
            callbacks.on_batch_end("test", place, sums.read, sums.examples)
            if getattr(callbacks.model, "stop_evaluating", False):
                break
        if sums.is_empty:
            raise ConvLoomError(f"{name} gave no batch; give arrays, a list or a DataLoader")
        logs = sums.read(self.reduced)
        callbacks.on_test_end(logs)
        return logs
