"""Metrics whose kind hangs on the shapes of the first batch: accuracy, and torchmetrics' by their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ...graph.errors import ConvLoomError, ShapeError
from ...graph.words import words
from .directory import make, snake
from .kinds import OfTorchmetrics
from .stateful import same_rank

TASKS = [
    "AUROC",
    "AveragePrecision",
    "CalibrationError",
    "CohenKappa",
    "ConfusionMatrix",
    "HammingDistance",
    "JaccardIndex",
    "MatthewsCorrCoef",
    "Specificity",
    "StatScores",
]
REGRESSIONS = [
    "ConcordanceCorrCoef",
    "ExplainedVariance",
    "KendallRankCorrCoef",
    "PearsonCorrCoef",
    "RelativeSquaredError",
    "SpearmanCorrCoef",
    "SymmetricMeanAbsolutePercentageError",
]
TORCHMETRICS = {name: kind for kind in (*TASKS, *REGRESSIONS) for name in (kind, snake(kind))}
"""Names that are torchmetrics' alone -> its class."""


class Settled:
    """A metric that is made when the first batch says which.

    what: "accuracy", or the name of a class of torchmetrics'.
    """

    def __init__(self, what: str, name: str) -> None:
        self.what, self.name = what, name
        self.directions: Mapping[str, str | None] = {name: _direction(what)}
        self.kind: dict[str, Any] | None = None
        self.found: OfTorchmetrics | None = None

    def _settle(self, kind: dict[str, Any]) -> OfTorchmetrics:
        self.kind = kind
        if self.what == "accuracy":
            metric = make(kind["class"], self.name)
        else:
            import torchmetrics

            metric = getattr(torchmetrics, self.what)(**{k: v for k, v in kind.items() if k != "class"})
        self.found = OfTorchmetrics(metric, self.name, self.directions[self.name])
        return self.found

    def reset(self) -> None:
        if self.found is not None:
            self.found.reset()

    def update(
        self, prediction: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None = None
    ) -> None:
        if self.what == "accuracy":
            found = self.found or self._settle({"class": _accuracy_of(prediction, target)})
            found.update(prediction, target, weight)
            return
        numbers, kind = _as_torchmetrics(self.what, prediction, target)
        (self.found or self._settle(kind)).update(*numbers, weight)

    def read(self, reduced: bool) -> Mapping[str, Any]:
        return {self.name: float("nan")} if self.found is None else self.found.read(reduced)

    def state_dict(self) -> dict[str, Any]:
        if self.found is None:
            return {}
        return {"kind": dict(self.kind or {}), "state": self.found.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state:
            self._settle(dict(state["kind"])).load_state_dict(state["state"])


def _direction(what: str) -> str | None:
    if what == "accuracy":
        return "max"
    import torchmetrics

    known: dict[Any, str] = {True: "max", False: "min"}
    kind = getattr(torchmetrics, what)
    if what in TASKS:
        kind = getattr(torchmetrics.classification, f"Multiclass{what}")
    return known.get(getattr(kind, "higher_is_better", None))


def _accuracy_of(prediction: torch.Tensor, target: torch.Tensor) -> str:
    """Keras's choice: binary for one output, by class numbers, or by rows. Raises ShapeError."""
    rows = prediction.shape[:-1]
    if target.shape not in (prediction.shape, rows, (*rows, 1)):
        raise ShapeError(
            f"accuracy: targets have shape {tuple(target.shape)}, "
            f"the network's output {tuple(prediction.shape)}"
            + words("; give metrics=() or measures of your own")
        )
    if prediction.shape[-1] == 1:
        return "BinaryAccuracy"
    return "CategoricalAccuracy" if target.shape == prediction.shape else "SparseCategoricalAccuracy"


def _as_torchmetrics(
    what: str, prediction: torch.Tensor, target: torch.Tensor
) -> tuple[tuple[torch.Tensor, torch.Tensor], dict[str, Any]]:
    """(prediction, target) as torchmetrics takes them, its classes behind the batch; and how to make it."""
    if what in REGRESSIONS:
        target, prediction = same_rank(target.to(prediction.dtype), prediction)
        if target.shape != prediction.shape or prediction.ndim > 2:
            raise ConvLoomError(
                f"{what}: targets have shape {tuple(target.shape)}, the network's output "
                f"{tuple(prediction.shape)}; it takes two of shape (examples, outputs)"
            )
        columns = prediction.shape[1] if prediction.ndim == 2 else 1
        if columns == 1:
            prediction, target = prediction.flatten(), target.flatten()
        several = what not in ("ExplainedVariance", "SymmetricMeanAbsolutePercentageError")
        return (prediction, target), {"num_outputs": columns} if several and columns > 1 else {}
    accuracy = _accuracy_of(prediction, target)
    if accuracy == "BinaryAccuracy":
        return (prediction.squeeze(-1), target.reshape(prediction.shape[:-1]).long()), {"task": "binary"}
    if accuracy == "CategoricalAccuracy":
        target = target.int().argmax(-1) if target.dtype == torch.bool else target.argmax(-1)
    classes = prediction.shape[-1]
    target = target.reshape(prediction.shape[:-1]).long()
    return (prediction.movedim(-1, 1), target), {"task": "multiclass", "num_classes": classes}
