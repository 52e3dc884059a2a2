"""Each metric of Keras's against Keras's own, over batches of unequal sizes, with weights and without."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import torch
from helpers import told

import convloom as cl

Array = np.ndarray[Any, Any]
Batch = tuple[Array, Array]
SIZES = (7, 1, 12)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def numbers(r: np.random.Generator, n: int) -> Batch:
    return r.normal(size=(n, 3)).astype("f4"), r.normal(size=(n, 3)).astype("f4")


def grids(r: np.random.Generator, n: int) -> Batch:
    return r.normal(size=(n, 2, 3)).astype("f4"), r.normal(size=(n, 2, 3)).astype("f4")


def positive(r: np.random.Generator, n: int) -> Batch:
    return r.uniform(0.0, 3.0, (n, 3)).astype("f4"), r.uniform(-0.2, 3.0, (n, 3)).astype("f4")


def chances(r: np.random.Generator, n: int) -> Batch:
    """Rounded, so that some lie on a threshold."""
    return r.integers(0, 2, (n, 1)), r.uniform(0.0, 1.0, (n, 1)).round(2).astype("f4")


def flat_chances(r: np.random.Generator, n: int) -> Batch:
    truth, guess = chances(r, n)
    return truth[:, 0], guess


def labels(r: np.random.Generator, n: int) -> Batch:
    return r.integers(0, 2, (n, 4)), r.uniform(-0.05, 1.05, (n, 4)).round(2).astype("f4")


def softmax(r: np.random.Generator, n: int, *shape: int) -> Array:
    return torch.softmax(torch.as_tensor(r.normal(size=(n, *shape)) * 2), -1).numpy().astype("f4")


def rows(r: np.random.Generator, n: int) -> Batch:
    return np.eye(6, dtype="f4")[r.integers(0, 6, n)], softmax(r, n, 6)


def soft_rows(r: np.random.Generator, n: int) -> Batch:
    return softmax(r, n, 6), softmax(r, n, 6)


def classes(r: np.random.Generator, n: int) -> Batch:
    return r.integers(0, 6, n), softmax(r, n, 6)


def classes_apart(r: np.random.Generator, n: int) -> Batch:
    return r.integers(0, 6, (n, 1)), softmax(r, n, 6)


def ties(r: np.random.Generator, n: int) -> Batch:
    return r.integers(0, 6, n), r.integers(0, 3, (n, 6)).astype("f4")


def pixels(r: np.random.Generator, n: int) -> Batch:
    return r.integers(0, 6, (n, 2, 3)), softmax(r, n, 2, 3, 6)


def pixel_rows(r: np.random.Generator, n: int) -> Batch:
    truth, guess = pixels(r, n)
    return np.eye(6, dtype="f4")[truth], guess


def two_numbers(r: np.random.Generator, n: int) -> Batch:
    return r.integers(-1, 5, (n, 3)), r.integers(0, 5, (n, 3))


CASES: list[tuple[str, dict[str, Any], Callable[..., Batch]]] = [
    ("Accuracy", {}, two_numbers),
    ("BinaryAccuracy", {}, chances),
    ("BinaryAccuracy", {"threshold": 0.3}, labels),
    ("BinaryAccuracy", {}, flat_chances),
    ("CategoricalAccuracy", {}, rows),
    ("CategoricalAccuracy", {}, pixel_rows),
    ("SparseCategoricalAccuracy", {}, classes),
    ("SparseCategoricalAccuracy", {}, classes_apart),
    ("SparseCategoricalAccuracy", {}, pixels),
    ("SparseCategoricalAccuracy", {}, ties),
    ("TopKCategoricalAccuracy", {}, rows),
    ("TopKCategoricalAccuracy", {"k": 2}, pixel_rows),
    ("SparseTopKCategoricalAccuracy", {"k": 3}, classes),
    ("SparseTopKCategoricalAccuracy", {"k": 2}, ties),
    ("SparseTopKCategoricalAccuracy", {"k": 2}, pixels),
    ("MeanSquaredError", {}, numbers),
    ("MeanSquaredError", {}, grids),
    ("MeanSquaredError", {}, flat_chances),
    ("RootMeanSquaredError", {}, grids),
    ("MeanAbsoluteError", {}, numbers),
    ("MeanAbsolutePercentageError", {}, positive),
    ("MeanSquaredLogarithmicError", {}, positive),
    ("LogCoshError", {}, numbers),
    ("CosineSimilarity", {}, numbers),
    ("CosineSimilarity", {"axis": 1}, grids),
    ("PearsonCorrelation", {}, numbers),
    ("PearsonCorrelation", {"axis": 1}, grids),
    ("ConcordanceCorrelation", {}, numbers),
    ("R2Score", {}, numbers),
    ("R2Score", {"class_aggregation": None}, numbers),
    ("R2Score", {"class_aggregation": "variance_weighted_average"}, numbers),
    ("R2Score", {"num_regressors": 2}, numbers),
    ("BinaryCrossentropy", {}, labels),
    ("BinaryCrossentropy", {"label_smoothing": 0.2}, chances),
    ("BinaryCrossentropy", {"from_logits": True}, chances),
    ("CategoricalCrossentropy", {}, rows),
    ("CategoricalCrossentropy", {"label_smoothing": 0.1}, pixel_rows),
    ("CategoricalCrossentropy", {"from_logits": True}, rows),
    ("SparseCategoricalCrossentropy", {}, classes),
    ("SparseCategoricalCrossentropy", {"from_logits": True}, pixels),
    ("SparseCategoricalCrossentropy", {"ignore_class": 2}, classes),
    ("KLDivergence", {}, soft_rows),
    ("Poisson", {}, lambda r, n: (r.poisson(2.0, (n, 3)).astype("f4"), r.uniform(0, 3, (n, 3)).astype("f4"))),
    ("Hinge", {}, chances),
    ("Hinge", {}, lambda r, n: (np.sign(r.normal(size=(n, 3))).astype("f4"), numbers(r, n)[1])),
    ("SquaredHinge", {}, labels),
    ("CategoricalHinge", {}, rows),
    *[(kind, {}, chances) for kind in ("TruePositives", "TrueNegatives", "FalsePositives", "FalseNegatives")],
    ("TruePositives", {"thresholds": [0.9, 0.1, 0.5]}, labels),
    ("FalsePositives", {"thresholds": [0.0, 0.25, 0.5, 0.75, 1.0]}, labels),
    ("TrueNegatives", {"thresholds": [0.0, 0.5, 1.0]}, labels),
    *[
        (kind, options, draw)
        for kind in ("Precision", "Recall")
        for options, draw in (
            ({}, chances),
            ({}, flat_chances),
            ({"thresholds": 0.25}, labels),
            ({"thresholds": [0.0, 0.5, 1.0]}, labels),
            ({"thresholds": [0.7, 0.2]}, labels),
            ({"top_k": 2}, rows),
            ({"class_id": 2}, labels),
            ({"class_id": 1, "top_k": 3}, rows),
            ({"top_k": 2, "thresholds": 0.3}, rows),
        )
    ],
    ("SensitivityAtSpecificity", {"specificity": 0.5}, chances),
    ("SensitivityAtSpecificity", {"specificity": 0.4, "num_thresholds": 1}, labels),
    ("SpecificityAtSensitivity", {"sensitivity": 0.6, "num_thresholds": 11}, labels),
    ("PrecisionAtRecall", {"recall": 0.5}, chances),
    ("PrecisionAtRecall", {"recall": 0.5, "class_id": 1}, labels),
    ("RecallAtPrecision", {"precision": 0.45}, chances),
    *[
        ("AUC", {"curve": curve, "summation_method": method} | more, draw)
        for curve in ("ROC", "PR", "PRGAIN")
        for method in ("interpolation", "minoring", "majoring")
        for more, draw in (
            ({}, chances),
            ({"num_thresholds": 7}, labels),
            ({"thresholds": [0.8, 0.1, 0.33]}, labels),
            ({"multi_label": True}, labels),
            ({"multi_label": True, "label_weights": [1.0, 0.0, 2.0, 0.5]}, labels),
        )
    ],
    ("AUC", {"label_weights": [1.0, 0.0, 2.0, 0.5]}, labels),
    ("AUC", {"from_logits": True}, lambda r, n: (labels(r, n)[0], labels(r, n)[1] * 4 - 2)),
    ("AUC", {"multi_label": True, "num_labels": 4, "thresholds": [0.5, 0.2]}, labels),
    ("AUC", {}, rows),
    *[
        ("FBetaScore", {"average": average, "beta": beta, "threshold": threshold}, rows)
        for average in (None, "micro", "macro", "weighted")
        for beta, threshold in ((1.0, None), (0.5, 0.2))
    ],
    ("F1Score", {"average": "macro"}, soft_rows),
    ("F1Score", {}, rows),
    ("MeanIoU", {"num_classes": 5}, two_numbers),
    ("MeanIoU", {"num_classes": 6, "sparse_y_pred": False}, pixels),
    ("MeanIoU", {"num_classes": 6, "sparse_y_pred": False, "ignore_class": 1}, pixels),
    ("MeanIoU", {"num_classes": 9, "sparse_y_true": False, "sparse_y_pred": False}, pixel_rows),
    ("IoU", {"num_classes": 5, "target_class_ids": [0, 3]}, two_numbers),
    ("BinaryIoU", {}, labels),
    ("BinaryIoU", {"target_class_ids": [1], "threshold": 0.3}, chances),
    ("OneHotIoU", {"num_classes": 6, "target_class_ids": [0, 2]}, pixel_rows),
    ("OneHotMeanIoU", {"num_classes": 6}, rows),
]  # fmt: skip


def both(kind: str, options: dict[str, Any]) -> tuple[Any, Any]:
    return getattr(cl.metrics, kind)(**options), getattr(keras.metrics, kind)(**options)


def weights_for(kind: str, r: np.random.Generator, n: int, truth: Array) -> Array:
    """One an example; for IoU whole numbers, one an element, which is all that Keras takes there."""
    if "IoU" not in kind:
        return r.uniform(0.0, 2.0, n).astype("f4")
    return r.integers(0, 4, truth.size // (6 if truth.shape[-1] == 6 else 1))


def compare(ours: Any, theirs: Any) -> None:
    np.testing.assert_allclose(
        np.asarray(ours.result()), keras.ops.convert_to_numpy(theirs.result()), rtol=2e-5, atol=1e-6
    )


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize(("kind", "options", "draw"), CASES, ids=told)
def test_a_metric_is_kerass(kind: str, options: dict[str, Any], draw: Any, weighted: bool) -> None:
    ours, theirs = both(kind, options)
    assert theirs.name.startswith(ours.name)  # which Keras numbers
    r = rng()
    for size in SIZES:
        truth, guess = draw(r, size)
        weight = weights_for(kind, r, size, truth) if weighted else None
        for metric in (ours, theirs):
            metric.update_state(truth, guess, sample_weight=weight)
        compare(ours, theirs)
    ours.reset_state()
    theirs.reset_state()
    truth, guess = draw(r, 9)
    np.testing.assert_array_equal(np.asarray(ours(truth, guess)), np.asarray(ours.result()))
    theirs(truth, guess)
    compare(ours, theirs)
