"""What an epoch reports beside the loss: accuracy, functions, metrics of Keras's and torchmetrics' kind."""

from __future__ import annotations

import abc
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..graph.errors import ConvLoomError, unknown
from ..graph.words import words
from .measures import Measure, in_order, refuse_class
from .running_mean import RunningMean

GROWING = frozenset([
    "accuracy", "acc", "binary_accuracy", "categorical_accuracy", "sparse_categorical_accuracy",
    "top_k_categorical_accuracy", "sparse_top_k_categorical_accuracy", "auc", "precision", "recall",
    "sensitivity_at_specificity", "specificity_at_sensitivity", "precision_at_recall",
    "recall_at_precision", "f1_score", "fbeta_score", "true_positives", "true_negatives", "iou", "io_u",
    "mean_io_u", "mean_iou", "binary_io_u", "one_hot_io_u", "one_hot_mean_io_u", "cosine_similarity",
    "r2_score", "pearson_correlation", "concordance_correlation",
])  # fmt: skip
SHRINKING = frozenset([
    "loss", "mean_squared_error", "mse", "mean_absolute_error", "mae", "root_mean_squared_error",
    "mean_absolute_percentage_error", "mape", "mean_squared_logarithmic_error", "msle", "log_cosh",
    "logcosh", "binary_crossentropy", "categorical_crossentropy", "sparse_categorical_crossentropy",
    "poisson", "kl_divergence", "kullback_leibler_divergence", "hinge", "squared_hinge",
    "categorical_hinge", "false_positives", "false_negatives",
])  # fmt: skip
"""Keras's names of measures, by whether a better one is larger or smaller."""


def direction_of(name: str) -> str | None:
    """ "max" or "min" for a measure of one of Keras's names, which it may number ("auc_1"); else None."""
    plain = re.sub(r"_\d+$", "", name)
    for known, direction in ((GROWING, "max"), (SHRINKING, "min")):
        if name in known or plain in known:
            return direction
    return None


# -- accuracy ------------------------------------------------------------------------------------------------
def accuracy(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The share of right answers: of the largest output, or of one output against 0.5.

    target: one-hot rows of the prediction's shape, or class numbers of its shape without the last axis or
    with 1 there. Raises ConvLoomError for other shapes.
    """
    rows = prediction.shape[:-1]
    if target.shape not in (prediction.shape, rows, (*rows, 1)):
        raise ConvLoomError(
            f"accuracy: targets have shape {tuple(target.shape)}, "
            f"the network's output {tuple(prediction.shape)}"
            + words("; give metrics=() or measures of your own")
        )
    if prediction.shape[-1] > 1:
        best = prediction.argmax(-1)
        right = best == (target.argmax(-1) if target.shape == prediction.shape else target.reshape(rows))
    else:
        right = (prediction > 0.5) == (target.reshape(prediction.shape) > 0.5)
    return right.double().mean()


# -- any metric ----------------------------------------------------------------------------------------------
class Metric(abc.ABC):
    """A value over an epoch. direction: "max" or "min", or None where nothing says which is better."""

    def __init__(self, name: str, direction: str | None) -> None:
        self.name, self.direction = name, direction

    @abc.abstractmethod
    def reset(self) -> None: ...

    @abc.abstractmethod
    def update(self, prediction: Any, target: Any, weight: torch.Tensor | None = None) -> None: ...

    @abc.abstractmethod
    def read(self, reduced: bool = False) -> float: ...

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        del state


class MeanOf(Metric):
    """The mean over the examples of what a function (prediction, target) gives as the mean of a batch."""

    def __init__(self, name: str, direction: str | None, measure: Measure) -> None:
        super().__init__(name, direction)
        self.measure = measure
        self.reset()

    def reset(self) -> None:
        self.mean = RunningMean(f"metric {self.name}")

    def update(self, prediction: Any, target: Any, weight: torch.Tensor | None = None) -> None:
        self.mean.add(torch.as_tensor(self.measure(prediction, target)), len(target))

    def read(self, reduced: bool = False) -> float:
        return self.mean.read(reduced)

    def state_dict(self) -> dict[str, Any]:
        return self.mean.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.mean.load_state_dict(state)


class Stateful(Metric):
    """An object that keeps its own state over an epoch."""

    def __init__(
        self,
        name: str,
        direction: str | None,
        update: Callable[[Any, Any], Any],
        result: Callable[[], Any],
        reset: Callable[[], Any],
    ) -> None:
        super().__init__(name, direction)
        self._update, self._result, self._reset = update, result, reset

    def reset(self) -> None:
        self._reset()

    def update(self, prediction: Any, target: Any, weight: torch.Tensor | None = None) -> None:
        self._update(prediction, target)

    def read(self, reduced: bool = False) -> float:
        """Raises ConvLoomError where it is not one number."""
        value = self._result()
        try:
            return float(value)
        except (TypeError, ValueError, RuntimeError):
            raise ConvLoomError(
                f"metric {self.name} gave {value!r:.60}, which is not one number; ask it for an average"
            ) from None


@dataclass(frozen=True)
class _Place:
    """Which output a metric looks at, its name in the logs, and whether sample weights count."""

    name: str
    output: int
    metric: Metric
    weighted: bool


class Metrics:
    """All metrics of a network's outputs, by their names in the logs."""

    def __init__(self, places: Sequence[_Place]) -> None:
        self.places = places

    @property
    def directions(self) -> dict[str, str | None]:
        """What is reported -> whether more of it is better, "max", or less, "min"."""
        return {place.name: place.metric.direction for place in self.places}

    def reset(self) -> None:
        for place in self.places:
            place.metric.reset()

    def update(
        self,
        predictions: Sequence[torch.Tensor],
        targets: Sequence[torch.Tensor | None],
        weights: Sequence[torch.Tensor | None] | None = None,
    ) -> None:
        for place in self.places:
            weight = weights[place.output] if place.weighted and weights else None
            place.metric.update(predictions[place.output], targets[place.output], weight)

    def read(self, reduced: bool = False) -> dict[str, float]:
        """reduced: of all processes that train together."""
        return {place.name: place.metric.read(reduced) for place in self.places}

    def state_dict(self) -> dict[str, Any]:
        return {place.name: place.metric.state_dict() for place in self.places}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for place in self.places:
            place.metric.load_state_dict(state[place.name])


def find_metrics(metrics: Any, weighted_metrics: Any = None, outputs: Sequence[str] = ("output",)) -> Metrics:
    """The metrics that are meant: names, functions and objects, alone, in a list, or by a name of your own;
    of several outputs, a dictionary by output or a list of those.

    Functions are called the way their kind is called. Raises ConvLoomError for what is none of these.
    """
    found = [*_places(metrics, outputs, False), *_places(weighted_metrics, outputs, True)]
    return Metrics(found)


def _places(metrics: Any, outputs: Sequence[str], weighted: bool) -> list[_Place]:
    if not metrics:
        return []
    if len(outputs) == 1:
        return [_Place(metric.name, 0, metric, weighted) for metric in _of_one(metrics)]
    if not isinstance(metrics, Mapping):
        metrics = dict(zip(outputs, metrics, strict=True))
    by_output = {name: _of_one(entry) for name, entry in metrics.items() if entry}
    return [
        _Place(f"{name}_{metric.name}", list(outputs).index(name), metric, weighted)
        for name, found in by_output.items()
        for metric in found
    ]


def _of_one(metrics: Any) -> list[Metric]:
    if isinstance(metrics, Mapping):
        return [_metric(metric, str(name)) for name, metric in metrics.items()]
    if isinstance(metrics, str) or callable(metrics):
        metrics = (metrics,)
    if not isinstance(metrics, Iterable):
        raise ConvLoomError(f"metrics is a {type(metrics).__name__}; give a list of names or functions")
    found: list[Metric] = []
    for entry in metrics:
        metric = _metric(entry)
        if any(other.name == metric.name for other in found):
            raise ConvLoomError(
                f"two metrics are named {metric.name!r}; give a dictionary with a name for each"
            )
        found.append(metric)
    return found


def _metric(metric: Any, name: str = "") -> Metric:
    if isinstance(metric, str):
        if metric.lower() not in ("accuracy", "acc"):
            more = ", or a function (prediction, target), or a metric of Keras's or torchmetrics'"
            raise ConvLoomError(unknown("metric", metric, ("accuracy",), more))
        return MeanOf(name or "accuracy", "max", accuracy)
    refuse_class("metric", metric)
    if not callable(metric) and not hasattr(metric, "update_state"):
        raise ConvLoomError(f"metric {metric!r:.60} is neither a name nor a function (prediction, target)")
    own = getattr(metric, "name", None)
    called = own if isinstance(own, str) else getattr(metric, "__name__", type(metric).__name__)
    name = name or called
    direction = _says(metric) or direction_of(called) or direction_of(name)
    if all(hasattr(metric, part) for part in ("update_state", "result", "reset_state")):  # Keras's

        def update(prediction: torch.Tensor, target: torch.Tensor) -> Any:
            return metric.update_state(target, prediction)

        return Stateful(name, direction, update, metric.result, metric.reset_state)
    if all(hasattr(metric, part) for part in ("update", "compute", "reset")):  # torchmetrics'
        return Stateful(name, direction, metric.update, metric.compute, metric.reset)
    return MeanOf(name, direction, in_order(metric))


def _says(metric: Any) -> str | None:
    """The direction that a metric itself declares."""
    if isinstance(higher := getattr(metric, "higher_is_better", None), bool):
        return "max" if higher else "min"
    return {"up": "max", "down": "min"}.get(str(getattr(metric, "_direction", None)))
