"""What `metrics=` may be, what the logs call it, and what is kept over an epoch, a stop and processes."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
import torchmetrics
from convloom.graph.errors import ConvLoomError, ShapeError
from convloom.runtime.metrics import Metrics, direction_of, find_metrics
from convloom.runtime.metrics.directory import CLASSES
from helpers import told
from keras.src.metrics import ALL_OBJECTS_DICT
from keras.src.trainers.compile_utils import CompileMetrics

import convloom as cl

G = np.random.default_rng(0)
GUESS = torch.softmax(torch.as_tensor(G.normal(size=(40, 4)).astype("f4")), -1)
TRUTH = torch.as_tensor(G.integers(0, 4, 40))
ROWS = torch.eye(4)[TRUTH]
WEIGHTS = torch.as_tensor(G.uniform(0, 2, 40).astype("f4"))


def over(
    metrics: Metrics, guess: torch.Tensor, truth: torch.Tensor, weights: torch.Tensor | None = None
) -> Any:
    for part in (slice(0, 7), slice(7, 8), slice(8, 40)):
        metrics.update([guess[part]], [truth[part]], None if weights is None else [weights[part]])
    return metrics.read()


# -- names ---------------------------------------------------------------------------------------------------
def test_every_name_of_kerass_is_known() -> None:
    made = {"Metric", "Mean", "Sum", "MeanMetricWrapper", "metric", "mean", "sum", "mean_metric_wrapper"}
    for name in set(ALL_OBJECTS_DICT) - made:
        try:
            found = find_metrics([name])
        except ConvLoomError as error:
            assert "needs arguments" in str(error)  # noqa: PT017
            continue
        assert list(found.directions) == [name]
        declared = getattr(ALL_OBJECTS_DICT[name](), "_direction", None)
        if declared is not None:
            assert direction_of(name) == {"up": "max", "down": "min"}[declared], name
    assert {name for name in vars(keras.metrics) if isinstance(getattr(keras.metrics, name), type)} <= set(
        CLASSES
    )


OUTPUTS = ("left", "right")


@pytest.mark.parametrize(
    ("metrics", "weighted", "outputs"),
    [
        (["accuracy", "acc", "Accuracy", "mse", "MSE"], None, ("only",)),
        (["AUC", "auc", "auc"], ["auc", "auc", "mse"], ("only",)),
        ([["accuracy"], ["mse", ["auc"]]], None, ("only",)),
        ([["accuracy", "mse"], None], [None, "mse"], OUTPUTS),
        (["mse", "mse"], [["mse", "mse"], "auc"], OUTPUTS),
        ({"right": "mse"}, {"left": ["mse", "mse"], "right": "mse"}, OUTPUTS),
        ({"left": ["accuracy"], "right": ["mse", "mae"]}, None, OUTPUTS),
        ([], [], OUTPUTS),
    ],
)
def test_names_in_the_logs_are_kerass(metrics: Any, weighted: Any, outputs: tuple[str, ...]) -> None:
    def for_keras(given: Any) -> Any:
        return given

    sides = ([ROWS] * len(outputs), [GUESS] * len(outputs))
    theirs = CompileMetrics(for_keras(metrics), for_keras(weighted), output_names=list(outputs))
    weights = [WEIGHTS] * len(outputs)
    theirs.update_state(*(sides if len(outputs) > 1 else (ROWS, GUESS)), sample_weight=weights)
    ours = find_metrics(metrics, weighted, outputs)
    ours.update(sides[1], sides[0], weights)
    expected, found = theirs.result(), ours.read()
    assert list(found) == list(expected) == list(ours.directions)
    for name, value in found.items():
        assert value == pytest.approx(float(expected[name]), rel=1e-5), name


@pytest.mark.parametrize(
    ("metrics", "outputs", "text"),
    [
        (["mse"], OUTPUTS, "metrics holds 1 entries and the network has 2 outputs; give one for each"),
        (
            {"lefd": "mse"},
            OUTPUTS,
            "names 'lefd', which is no output; did you mean 'left'?; the network gives",
        ),
        ({"a": ["mse"]}, ("only",), "metrics['a'] is a list, but 'a' names no output; the output is only"),
        (["confusion"], ("only",), "unknown metric 'confusion'"),
        ({"class_name": "AUK", "config": {}}, ("only",), "unknown metric 'AUK'; did you mean 'AUC'?"),
    ],
)
def test_what_fits_no_output(metrics: Any, outputs: tuple[str, ...], text: str) -> None:
    with pytest.raises(ConvLoomError) as raised:
        find_metrics(metrics, outputs=outputs)
    assert text in str(raised.value)


def test_a_description_and_a_class_are_taken() -> None:
    config = keras.metrics.serialize(keras.metrics.TopKCategoricalAccuracy(k=2, name="second"))
    found = over(find_metrics([config, cl.metrics.F1Score, keras.metrics.MeanSquaredError]), GUESS, ROWS)
    assert list(found) == ["second", "f1_score", "mean_squared_error"]
    top = keras.metrics.TopKCategoricalAccuracy(k=2)
    top.update_state(ROWS, GUESS)
    assert found["second"] == pytest.approx(float(top.result()))
    assert found["f1_score"].shape == (4,)


# -- kinds ---------------------------------------------------------------------------------------------------
def test_where_keras_and_torchmetrics_mean_the_same() -> None:
    """Unweighted, without ties or thresholds: two sources for one value."""
    classes: dict[str, Any] = {"num_classes": 4}
    pairs: list[tuple[Any, Any]] = [
        (
            cl.metrics.SparseCategoricalAccuracy(),
            torchmetrics.Accuracy("multiclass", **classes, average="micro"),
        ),
        (
            cl.metrics.SparseTopKCategoricalAccuracy(2),
            torchmetrics.Accuracy("multiclass", **classes, average="micro", top_k=2),
        ),
        (cl.metrics.MeanIoU(4, sparse_y_pred=False), torchmetrics.JaccardIndex("multiclass", **classes)),
    ]
    for ours, theirs in pairs:
        both = over(find_metrics({"ours": ours, "theirs": theirs}), GUESS, TRUTH)
        assert both["ours"] == pytest.approx(both["theirs"], rel=1e-5)
    binary = {
        "precision": (cl.metrics.Precision(), torchmetrics.Precision("binary")),
        "recall": (cl.metrics.Recall(), torchmetrics.Recall("binary")),
        "area": (cl.metrics.AUC(num_thresholds=4000), torchmetrics.AUROC("binary")),
        "error": (cl.metrics.MeanAbsoluteError(), torchmetrics.MeanAbsoluteError()),
        "explained": (cl.metrics.R2Score(), torchmetrics.R2Score()),
    }
    for name, pair in binary.items():
        truth, guess = (TRUTH > 1).long()[:, None], GUESS[:, :1]
        if name in ("error", "explained"):
            truth = truth.float()
        both = over(find_metrics(dict(zip(("ours", "theirs"), pair, strict=True))), guess, truth)
        assert both["ours"] == pytest.approx(both["theirs"], rel=1e-3), name


def test_torchmetrics_names_settle_by_shape() -> None:
    names = ["confusion_matrix", "jaccard_index", "MatthewsCorrCoef", "auroc"]
    found = find_metrics(names)
    assert found.directions == {
        "confusion_matrix": None, "jaccard_index": "max", "MatthewsCorrCoef": "max", "auroc": "max"
    }  # fmt: skip
    by_number, by_row = over(found, GUESS, TRUTH), over(find_metrics(names), GUESS, ROWS)
    expected = np.zeros((4, 4))
    np.add.at(expected, (TRUTH.numpy(), GUESS.argmax(-1).numpy()), 1)
    for values in (by_number, by_row):
        np.testing.assert_array_equal(values["confusion_matrix"], expected)
        whole = torchmetrics.functional.matthews_corrcoef(GUESS, TRUTH, "multiclass", num_classes=4)
        assert values["MatthewsCorrCoef"] == pytest.approx(float(whole), rel=1e-5)
    images = find_metrics("confusion_matrix")
    images.update([GUESS.reshape(2, 4, 5, 4)], [TRUTH.reshape(2, 4, 5, 1)])
    np.testing.assert_array_equal(images.read()["confusion_matrix"], expected)
    flat = over(find_metrics(["spearman_corr_coef", "cohen_kappa"]), GUESS[:, :1], (TRUTH > 1).long())
    assert set(flat) == {"spearman_corr_coef", "cohen_kappa"}


def test_a_collection_of_torchmetrics() -> None:
    collection = torchmetrics.MetricCollection(
        {"error": torchmetrics.MeanSquaredError(), "absolute": torchmetrics.MeanAbsoluteError()}
    )
    found = find_metrics(collection)
    assert found.directions == {"error": "min", "absolute": "min"}
    assert over(found, GUESS, ROWS)["error"] == pytest.approx(float((GUESS - ROWS).square().mean()))


def test_functions_and_weights() -> None:
    def squared(y_true: torch.Tensor, y_pred: torch.Tensor) -> torch.Tensor:
        return (y_true - y_pred).square()

    def worst(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (prediction - target).abs().max()

    found = over(find_metrics([worst], [squared, keras.losses.mean_squared_error]), GUESS, ROWS, WEIGHTS)
    expected = keras.metrics.MeanSquaredError()
    expected.update_state(ROWS, GUESS, WEIGHTS)
    for name in ("squared", "mean_squared_error"):
        assert found[name] == pytest.approx(float(expected.result()), rel=1e-5)
    with pytest.raises(
        ConvLoomError, match="worst gives one number a batch, which weights of examples cannot"
    ):
        over(find_metrics((), [worst]), GUESS, ROWS, WEIGHTS)
    with pytest.raises(
        ConvLoomError, match="MeanSquaredError takes no weights of examples; give it in metrics="
    ):
        over(find_metrics((), [torchmetrics.MeanSquaredError()]), GUESS, ROWS, WEIGHTS)


def test_losses_of_ours_are_metrics() -> None:
    logits = GUESS.log()
    loss = cl.losses.SparseCategoricalCrossentropy(from_logits=True)
    found = over(find_metrics([loss]), logits, TRUTH)
    expected = torch.nn.functional.cross_entropy(logits, TRUTH)
    assert found == {"sparse_categorical_crossentropy": pytest.approx(float(expected), rel=1e-5)}


@pytest.mark.parametrize(
    ("metric", "guess", "truth", "text"),
    [
        ("mse", GUESS, ROWS[:, :3], r"mse: targets have shape \(7, 3\), the network's output \(7, 4\)"),
        ("auc", GUESS, TRUTH, r"auc: targets have shape \(7,\), the network's output \(7, 4\)"),
        (cl.metrics.MeanIoU(4), GUESS, TRUTH, r"mean_io_u: targets .* \(7, 4\); give sparse_y_pred=False"),
        (cl.metrics.TopKCategoricalAccuracy(9), GUESS, ROWS, "k is 9, but the network has 4 outputs"),
        (
            cl.metrics.Precision(class_id=4),
            GUESS,
            ROWS,
            r"class_id is 4, but the network's output is \(7, 4\)",
        ),
        (cl.metrics.F1Score(), GUESS[:, 0], TRUTH, r"it takes two of shape \(examples, classes\)"),
    ],
    ids=told,
)
def test_shapes_that_do_not_fit(metric: Any, guess: torch.Tensor, truth: torch.Tensor, text: str) -> None:
    with pytest.raises(ShapeError, match=text):
        over(find_metrics([metric]), guess, truth)


def test_arguments_that_are_wrong() -> None:
    for make, text in (
        (lambda: cl.metrics.AUC(curve="ROK"), r"AUC: curve is 'ROK'; it takes 'ROC', 'PR', 'PRGAIN'"),
        (lambda: cl.metrics.AUC(num_labels=3), r"num_labels is needed only with multi_label=True"),
        (
            lambda: cl.metrics.Precision(thresholds=[0.1, 1.5]),
            r"a threshold is 1.5; it is a number from 0 to 1",
        ),
        (lambda: cl.metrics.F1Score("mean"), r"F1Score: average is 'mean'; it takes None, 'micro'"),
        (lambda: cl.metrics.FBetaScore(beta=2), r"beta is 2; it is a float above 0"),
        (lambda: cl.metrics.IoU(2, [2]), r"target_class_ids is \[2\]; they are numbers below num_classes, 2"),
        (lambda: cl.metrics.MeanSquaredError(dtype="int32"), r"it takes a floating point type"),
    ):
        with pytest.raises(ConvLoomError, match=text):
            make()


# -- state ---------------------------------------------------------------------------------------------------
def all_kinds() -> Metrics:
    def own(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (prediction - target).abs().max()

    return find_metrics(
        ["accuracy", "mse", cl.metrics.AUC(), cl.metrics.F1Score(), cl.metrics.R2Score(), own,
         keras.metrics.AUC(name="theirs"), torchmetrics.AUROC("multilabel", num_labels=4), "jaccard_index",
         cl.metrics.MeanIoU(4, sparse_y_true=False, sparse_y_pred=False),
         cl.metrics.AUC(name="apart", multi_label=True)]
    )  # fmt: skip


def whole_rows() -> torch.Tensor:
    return ROWS.long()


def test_a_run_goes_on_in_the_middle_of_an_epoch() -> None:
    whole, first, second = all_kinds(), all_kinds(), all_kinds()
    expected = over(whole, GUESS, whole_rows())
    first.update([GUESS[:7]], [whole_rows()[:7]])
    second.load_state_dict(pickle.loads(pickle.dumps(first.state_dict())))
    for part in (slice(7, 8), slice(8, 40)):
        second.update([GUESS[part]], [whole_rows()[part]])
    found = second.read()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    with pytest.raises(ConvLoomError, match="the state is of 11 metrics, and there are 1"):
        find_metrics("mse").load_state_dict(first.state_dict())


def test_reset_begins_anew_and_reading_changes_nothing() -> None:
    metrics = all_kinds()
    first = over(metrics, GUESS.flip(0), whole_rows())
    metrics.reset()
    metrics.update([GUESS[:7]], [whole_rows()[:7]])
    metrics.read()
    metrics.reset()
    second, fresh = over(metrics, GUESS, whole_rows()), over(all_kinds(), GUESS, whole_rows())
    for name, value in fresh.items():
        np.testing.assert_array_equal(second[name], value, err_msg=name)
    assert any(not np.array_equal(first[name], second[name]) for name in first)


def test_metrics_are_copied_and_pickled() -> None:
    metric = cl.metrics.AUC()
    metric.update_state(ROWS, GUESS)
    for twin in (copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):
        assert float(twin.result()) == float(metric.result())
        twin.update_state(ROWS.flip(0), GUESS)
        assert float(twin.result()) != float(metric.result())


def _worker(rank: int, world: int, port: int, out: str) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world
    )
    metrics = all_kinds()
    metrics.update([GUESS[rank * 20 : rank * 20 + 20]], [whole_rows()[rank * 20 : rank * 20 + 20]])
    if rank == 0:
        metrics.read()  # of this process alone: it waits for nobody
    reduced, own = metrics.read(reduced=True), metrics.read()
    torch.save((reduced, own), f"{out}/{rank}")
    torch.distributed.destroy_process_group()


def test_processes_are_one(tmp_path: Path) -> None:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(_worker, (2, port, str(tmp_path)), 2)  # type: ignore[attr-defined]
    one = all_kinds()
    for part in (slice(0, 20), slice(20, 40)):
        one.update([GUESS[part]], [whole_rows()[part]])
    expected = one.read()
    for rank in range(2):
        reduced, own = torch.load(tmp_path / str(rank), weights_only=False)
        for name, value in expected.items():
            np.testing.assert_allclose(reduced[name], value, rtol=1e-6, err_msg=name)
        assert own["mse"] != reduced["mse"]


# -- what it costs -------------------------------------------------------------------------------------------
def test_nothing_waits_for_the_device_before_a_reading() -> None:
    """No number is taken off the device in `update`: on meta tensors that would fail."""
    for name, options in _ALL_OURS:
        metric = getattr(cl.metrics, name)(**options)
        truth = TRUTH if name.startswith("Sparse") else ROWS
        metric.to("meta")
        metric.update(GUESS.to("meta"), truth.to("meta"), WEIGHTS.to("meta").long())
        assert metric.update_count == 1


_OPTIONS: dict[str, dict[str, Any]] = {
    "IoU": {"num_classes": 4, "target_class_ids": [0], "sparse_y_true": False, "sparse_y_pred": False},
    "MeanIoU": {"num_classes": 4, "sparse_y_true": False, "sparse_y_pred": False},
    "OneHotIoU": {"num_classes": 4, "target_class_ids": [0]},
    "OneHotMeanIoU": {"num_classes": 4},
    "SensitivityAtSpecificity": {"specificity": 0.5},
    "SpecificityAtSensitivity": {"sensitivity": 0.5},
    "PrecisionAtRecall": {"recall": 0.5},
    "RecallAtPrecision": {"precision": 0.5},
    "TopKCategoricalAccuracy": {"k": 2},
    "SparseTopKCategoricalAccuracy": {"k": 2},
}
_NO_MEASURES = ("Metric", "Mean", "Sum", "MeanMetricWrapper", "BinaryIoU")
_ALL_OURS = [(name, _OPTIONS.get(name, {})) for name in CLASSES if name not in _NO_MEASURES]


def test_torchmetrics_is_imported_for_a_metric_and_not_before() -> None:
    code = (
        "import sys, convloom as cl; from convloom import losses; cl.metrics; cl.fit;"
        "assert 'torchmetrics' not in sys.modules; cl.metrics.AUC; assert 'torchmetrics' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
