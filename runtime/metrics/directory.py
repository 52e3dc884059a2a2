"""Which metrics there are, by name, and which way each of them improves; nothing of torchmetrics yet."""

from __future__ import annotations

import importlib
import re
from typing import Any

MODULES = {
    "accuracies": (
        "Accuracy BinaryAccuracy CategoricalAccuracy SparseCategoricalAccuracy TopKCategoricalAccuracy "
        "SparseTopKCategoricalAccuracy"
    ),
    "counts": "TruePositives TrueNegatives FalsePositives FalseNegatives Precision Recall",
    "curves": ("AUC SensitivityAtSpecificity SpecificityAtSensitivity PrecisionAtRecall RecallAtPrecision"),
    "divergences": (
        "BinaryCrossentropy CategoricalCrossentropy SparseCategoricalCrossentropy KLDivergence Poisson Hinge "
        "SquaredHinge CategoricalHinge"
    ),
    "errors": (
        "MeanSquaredError RootMeanSquaredError MeanAbsoluteError MeanAbsolutePercentageError "
        "MeanSquaredLogarithmicError LogCoshError CosineSimilarity PearsonCorrelation ConcordanceCorrelation"
    ),
    "means": "Mean Sum MeanMetricWrapper",
    "overlaps": "IoU BinaryIoU MeanIoU OneHotIoU OneHotMeanIoU",
    "scores": "F1Score FBetaScore R2Score",
    "stateful": "Metric",
}
CLASSES = {name: module for module, names in MODULES.items() for name in names.split()}
"""Class -> the module of this folder that it stands in."""

_NO_MEASURES = ("Metric", "Mean", "Sum", "MeanMetricWrapper")
"""Classes that compare no prediction with a target by themselves."""

_SHORT = {
    "bce": "BinaryCrossentropy",
    "mse": "MeanSquaredError",
    "mae": "MeanAbsoluteError",
    "mape": "MeanAbsolutePercentageError",
    "msle": "MeanSquaredLogarithmicError",
}


def snake(name: str) -> str:
    """Keras's own way: MeanIoU -> mean_io_u, AUC -> auc, F1Score -> f1_score."""
    parts = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", parts).lower()


NAMES = {
    **{name: name for name in CLASSES if name not in _NO_MEASURES},
    **{snake(name): name for name in CLASSES if name not in _NO_MEASURES},
    **_SHORT,
    **{short.upper(): name for short, name in _SHORT.items()},
    "fbeta_score": "FBetaScore",
    "logcosh": "LogCoshError",
    "log_cosh": "LogCoshError",
    "kullback_leibler_divergence": "KLDivergence",
    "rmse": "RootMeanSquaredError",
    "mean_iou": "MeanIoU",
    "iou": "IoU",
}
"""What a metric may be called -> its class: Keras's names, and those its metrics have in the logs."""

_SHRINKING = re.compile("Error$|entropy$|Hinge$|KLDivergence|Poisson|FalsePositives|FalseNegatives")
"""Classes of which a smaller value is better; of the others a larger one is."""


def direction_of(name: str) -> str | None:
    """ "max" or "min" for a measure of one of Keras's names, which it may number ("auc_1"); else None."""
    plain = re.sub(r"_\d+$", "", name)
    if plain == "loss":
        return "min"
    if plain == "acc":
        return "max"
    found = NAMES.get(name) or NAMES.get(plain)
    if found is None:
        return None
    return "min" if _SHRINKING.search(found) else "max"


def make(kind: str, name: str | None = None, **options: Any) -> Any:
    """A metric of one of these classes, for which torchmetrics is imported.

    Raises TypeError where it needs arguments that are not given.
    """
    module = importlib.import_module(f".{CLASSES[kind]}", __package__)
    return getattr(module, kind)(name=name, **options)
