"""A pass over data that changes no weights, and what a pass reports."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..graph.errors import ConvLoomError
from .batch import Batch
from .batches import Batches
from .callback_list import CallbackList
from .metrics import OutputMetric
from .running_mean import RunningMean
from .step_result import StepResult

BatchStep = Callable[[Batch], StepResult]
"""The network and its losses over a batch."""


class Sums:
    """The losses and the metrics of a pass so far, by Keras's names.

    losses: the names of the outputs that have a loss, which are reported where there are several.
    """

    def __init__(self, losses: Sequence[str], metrics: Sequence[OutputMetric]) -> None:
        self.metrics = metrics
        parts = [f"{name}_loss" for name in losses] if len(losses) > 1 else []
        self.means = {name: RunningMean(name) for name in ("loss", *parts)}
        for metric in metrics:
            metric.reset()

    def add(self, result: StepResult, batch: Batch) -> None:
        values = (result.loss, *(result.losses if len(self.means) > 1 else ()))
        for mean, value in zip(self.means.values(), values, strict=True):
            mean.add(value, batch.size)
        for metric in self.metrics:
            metric.update(result, batch)

    @property
    def is_empty(self) -> bool:
        return not self.means["loss"].count

    def read(self) -> dict[str, float]:
        logs = {name: mean.read() for name, mean in self.means.items()}
        for metric in self.metrics:
            logs |= metric.read()
        return logs

    @property
    def directions(self) -> dict[str, str | None]:
        """What is reported -> whether more of it is better, "max", or less, "min"."""
        found: dict[str, str | None] = dict.fromkeys(self.means, "min")
        for metric in self.metrics:
            found |= metric.directions
        return found

    def state_dict(self) -> dict[str, Any]:
        return {
            "means": {name: mean.state_dict() for name, mean in self.means.items()},
            "metrics": [metric.metric.state_dict() for metric in self.metrics],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, mean in self.means.items():
            mean.load_state_dict(state["means"][name])
        for metric, kept in zip(self.metrics, state["metrics"], strict=True):
            metric.metric.load_state_dict(kept)


@dataclass
class Evaluation:
    """The loss and the metrics of data, in eval() mode."""

    net: torch.nn.Module
    step: BatchStep
    losses: Sequence[str]
    metrics: Sequence[OutputMetric]

    @torch.no_grad()
    def run(self, data: Batches, callbacks: CallbackList, name: str = "data") -> dict[str, float]:
        self.net.eval()
        callbacks.on_test_begin()
        sums = Sums(self.losses, self.metrics)
        for place, batch in enumerate(data.epoch()):
            callbacks.on_batch_begin("test", place)
            sums.add(self.step(batch), batch)
            callbacks.on_batch_end("test", place, sums.read)
        if sums.is_empty:
            raise ConvLoomError(f"{name} gave no batch; give arrays, a list or a DataLoader")
        logs = sums.read()
        callbacks.on_test_end(logs)
        return logs
