"""What an epoch reports beside the loss: accuracy, functions, metrics of Keras's and torchmetrics' kind."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..graph.errors import ConvLoomError, unknown
from ..graph.words import words
from .measures import Measure, in_order, refuse_class

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
@dataclass
class Metric:
    """A name for the logs, and where the value comes from.

    measure: a function (prediction, target) -> number for the batch, whose mean over the examples is
    reported.
    update, result, reset: of an object that keeps its own state over an epoch, instead.
    direction: "max" or "min", or None where nothing says which is better.
    """

    name: str
    direction: str | None
    measure: Measure | None = None
    update: Callable[[torch.Tensor, torch.Tensor], Any] | None = None
    result: Callable[[], Any] | None = None
    reset: Callable[[], Any] | None = None

    def read(self) -> float:
        """The state's value; raises ConvLoomError where it is not one number."""
        assert self.result is not None
        value = self.result()
        try:
            return float(value)
        except (TypeError, ValueError, RuntimeError):
            raise ConvLoomError(
                f"metric {self.name} gave {value!r:.60}, which is not one number; ask it for an average"
            ) from None


def find_metrics(metrics: Any) -> list[Metric]:
    """The metrics that are meant: names, functions and objects, alone, in a list, or by a name of your own.

    Functions are called the way their kind is called. Raises ConvLoomError for what is none of these.
    """
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
        return Metric(name or "accuracy", "max", accuracy)
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

        return Metric(name, direction, None, update, metric.result, metric.reset_state)
    if all(hasattr(metric, part) for part in ("update", "compute", "reset")):  # torchmetrics'
        return Metric(name, direction, None, metric.update, metric.compute, metric.reset)
    return Metric(name, direction, in_order(metric))


def _says(metric: Any) -> str | None:
    """The direction that a metric itself declares."""
    if isinstance(higher := getattr(metric, "higher_is_better", None), bool):
        return "max" if higher else "min"
    return {"up": "max", "down": "min"}.get(str(getattr(metric, "_direction", None)))
