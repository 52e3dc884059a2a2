"""Keras's own interface, held against Keras: the same weights, data and losses give the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import convloom as cl

DATA = np.random.default_rng(0)
X = DATA.normal(size=(23, 6)).astype(np.float32)
Y = DATA.integers(0, 3, 23)
ROWS = np.eye(3, dtype=np.float32)[Y]
TARGETS = DATA.normal(size=(23, 2)).astype(np.float32)
WEIGHTS = DATA.uniform(0.1, 2, 23).astype(np.float32)
OTHER = DATA.uniform(0.1, 2, 23).astype(np.float32)
SPARSE = "sparse_categorical_crossentropy"


def one(lib: Any) -> Any:
    x = lib.Input((6,), name="x")
    h = lib.layers.Dense(5, activation="tanh", name="h")(x)
    return lib.Model(x, lib.layers.Dense(3, activation="softmax", name="head")(h))


def two(lib: Any) -> Any:
    x = lib.Input((6,), name="x")
    h = lib.layers.Dense(5, activation="tanh", name="h")(x)
    outputs = [lib.layers.Dense(3, activation="softmax", name="kind")(h), lib.layers.Dense(2, name="size")(h)]
    return lib.Model(x, outputs)


def by_name(lib: Any) -> Any:
    x, z = lib.Input((6,), name="x"), lib.Input((2,), name="z")
    h = lib.layers.Dense(5, activation="tanh", name="h")(x)
    h = lib.layers.Concatenate(name="both")([h, z])
    outputs = {"b": lib.layers.Dense(3, activation="softmax", name="kind")(h)}
    outputs["a"] = lib.layers.Dense(2, name="size", kernel_regularizer="l2")(h)
    return lib.Model({"x": x, "z": z}, outputs)


def pair(make: Callable[[Any], Any]) -> tuple[Any, Any]:
    """The same model twice, ours and Keras's, with the same weights."""
    ours, theirs = make(cl), make(keras)
    ours.set_weights(theirs.get_weights())
    return ours, theirs


def compiled(make: Callable[[Any], Any], optimizer: str = "adam", **settings: Any) -> tuple[Any, Any]:
    ours, theirs = pair(make)
    for model in (ours, theirs):
        model.compile(optimizer, **settings)
    return ours, theirs


def same(found: Any, wanted: Any) -> None:
    """Numbers, lists or dictionaries of them."""
    if isinstance(wanted, dict):
        assert set(found) == set(wanted)
        for name in wanted:
            same(found[name], wanted[name])
        return
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-6)


def same_weights(ours: Any, theirs: Any) -> None:
    for found, wanted in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-6)


ONE: dict[str, dict[str, Any]] = {
    "plain": {},
    "weights of samples": {"sample_weight": WEIGHTS},
    "weights of classes": {"class_weight": {0: 0.3, 2: 2.0}},
    "split": {"validation_split": 0.3, "sample_weight": WEIGHTS},
    "validation": {"validation_data": (X[:9], Y[:9]), "validation_batch_size": 4},
    "weighted validation": {"validation_data": (X[:9], Y[:9], WEIGHTS[:9])},
    "steps of validation": {"validation_data": (X, Y), "validation_steps": 2},
    "now and then": {"validation_data": (X[:9], Y[:9]), "validation_freq": 2},
    "after some": {"validation_data": (X[:9], Y[:9]), "validation_freq": [1, 3]},
    "steps": {"steps_per_epoch": 2, "batch_size": 5},
    "a batch size by steps": {"steps_per_epoch": 4, "batch_size": None},
    "from a later epoch": {"initial_epoch": 2},
}


@pytest.mark.parametrize("case", ONE)
@pytest.mark.filterwarnings("ignore")
def test_fit(case: str) -> None:
    ours, theirs = compiled(one, loss=SPARSE, metrics=["accuracy"], weighted_metrics=["accuracy"])
    options = {"batch_size": 4, "epochs": 4, "shuffle": False, "verbose": 0} | ONE[case]
    found, wanted = (model.fit(X, Y, **options) for model in (ours, theirs))
    assert found.epoch == wanted.epoch
    same(found.history, wanted.history)
    same_weights(ours, theirs)


def test_rows_have_weights_of_classes_too() -> None:
    ours, theirs = compiled(one, loss="categorical_crossentropy")
    for model in (ours, theirs):
        model.fit(X, ROWS, class_weight={1: 3.0}, shuffle=False, verbose=0)
    same_weights(ours, theirs)


def squares(y_true: Any, y_pred: Any) -> Any:
    return ((y_true - y_pred) ** 2).mean(-1)


@pytest.mark.parametrize("loss", [squares, keras.losses.Huber(), keras.losses.mean_absolute_error])
def test_functions_and_objects_of_keras_are_weighted_too(loss: Any) -> None:
    ours, theirs = compiled(one, loss=loss)
    for model in (ours, theirs):
        model.fit(X, ROWS, sample_weight=WEIGHTS, epochs=2, batch_size=5, shuffle=False, verbose=0)
    same_weights(ours, theirs)
    same(*(model.evaluate(X, ROWS, sample_weight=WEIGHTS[:, None], verbose=0) for model in (ours, theirs)))


def test_a_loss_of_the_whole_batch_cannot_be_weighted() -> None:
    model = one(cl)
    model.compile("sgd", lambda y_true, y_pred: ((y_true - y_pred) ** 2).mean())
    with pytest.raises(cl.ConvLoomError, match="one number for the batch, which weights of examples cannot"):
        model.fit(X, ROWS, sample_weight=WEIGHTS, verbose=0)
    model.compile("sgd", lambda prediction, target: ((prediction - target) ** 2).mean())
    with pytest.raises(cl.ConvLoomError, match=r"a function \(prediction, target\) has no sample weights"):
        model.fit(X, ROWS, sample_weight=WEIGHTS, verbose=0)


def test_a_second_fit_goes_on() -> None:
    ours, theirs = compiled(one, loss=SPARSE)
    for model in (ours, theirs):
        for _ in range(3):
            model.fit(X, Y, shuffle=False, verbose=0, batch_size=7)
    same_weights(ours, theirs)
    for model in (ours, theirs):
        model.compile("adam", SPARSE)  # from here with a fresh state
        model.fit(X, Y, shuffle=False, verbose=0, batch_size=7)
    same_weights(ours, theirs)


LOSSES = {"kind": SPARSE, "size": "mse"}
TWO: dict[str, dict[str, Any]] = {
    "a list": {"y": [Y, TARGETS]},
    "by name": {"y": {"size": TARGETS, "kind": Y}},
    "weights by output": {"y": [Y, TARGETS], "sample_weight": [WEIGHTS, OTHER]},
    "weights for all": {"y": [Y, TARGETS], "sample_weight": WEIGHTS},
    "validation": {"y": [Y, TARGETS], "validation_data": (X, [Y, TARGETS], [WEIGHTS, OTHER])},
    "split": {"y": [Y, TARGETS], "validation_split": 0.4},
}  # fmt: skip


@pytest.mark.parametrize("case", TWO)
@pytest.mark.parametrize("metrics", ["by name", "a list", "none"])
def test_several_outputs(case: str, metrics: str) -> None:
    chosen = {"by name": {"kind": ["accuracy"]}, "a list": [["accuracy"], []], "none": None}[metrics]
    ours, theirs = compiled(two, loss=LOSSES, loss_weights={"kind": 0.7, "size": 2.0}, metrics=chosen)
    options = {"batch_size": 4, "epochs": 3, "shuffle": False, "verbose": 0} | TWO[case]
    found, wanted = (model.fit(X, **options) for model in (ours, theirs))
    same(found.history, wanted.history)
    same_weights(ours, theirs)
    same(ours.evaluate(X, [Y, TARGETS], verbose=0), theirs.evaluate(X, [Y, TARGETS], verbose=0))
    for one_of_ours, one_of_theirs in zip(
        ours.predict(X, verbose=0), theirs.predict(X, verbose=0), strict=True
    ):
        same(one_of_ours, one_of_theirs)


@pytest.mark.parametrize(
    ("loss", "weights"),
    [(["mse", "mse"], [0.5, 2.0]), ([SPARSE, None], None), ({"kind": SPARSE, "size": None}, None)],
)
def test_losses_by_output(loss: Any, weights: Any) -> None:
    ours, theirs = compiled(two, loss=loss, loss_weights=weights)
    y = [ROWS if loss[0] == "mse" else Y, TARGETS] if isinstance(loss, list) else [Y, TARGETS]
    found, wanted = (model.fit(X, y, epochs=2, shuffle=False, verbose=0) for model in (ours, theirs))
    same(found.history, wanted.history)
    same_weights(ours, theirs)


def test_dictionaries() -> None:
    """Inputs and outputs by name, which are not the layers' names; a penalty in the loss."""
    ours, theirs = compiled(by_name, loss={"a": "mse", "b": SPARSE}, metrics={"b": ["accuracy"]})
    x, y = {"z": TARGETS, "x": X}, {"a": TARGETS, "b": Y}
    options = {"epochs": 3, "batch_size": 5, "shuffle": False, "verbose": 0}
    found, wanted = (model.fit(x, y, **options) for model in (ours, theirs))
    same(found.history, wanted.history)
    same_weights(ours, theirs)
    same(ours.predict(x, verbose=0), theirs.predict(x, verbose=0))
    same(*(model.evaluate(x, y, verbose=0, return_dict=True) for model in (ours, theirs)))


def test_weights_by_name_are_those_of_a_list() -> None:
    """Keras takes them so for outputs in a dictionary only."""
    found = []
    for weights in ([WEIGHTS, OTHER], {"size": OTHER, "kind": WEIGHTS}):
        model = two(cl)
        model.set_weights([np.full_like(w, 0.1) for w in model.get_weights()])
        model.compile("sgd", LOSSES)
        found.append(model.fit(X, [Y, TARGETS], sample_weight=weights, shuffle=False, verbose=0).history)
    assert found[0] == found[1]


# -- what comes back -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("metrics", [None, ["accuracy"]])
@pytest.mark.parametrize("return_dict", [False, True])
def test_evaluate_and_the_batches(metrics: Any, return_dict: bool) -> None:
    ours, theirs = compiled(one, loss=SPARSE, metrics=metrics)
    for call in (
        lambda m: m.evaluate(X, Y, batch_size=5, verbose=0, return_dict=return_dict),
        lambda m: m.evaluate(X, Y, sample_weight=WEIGHTS, verbose=0, return_dict=return_dict),
        lambda m: m.evaluate(X, Y, batch_size=5, steps=2, verbose=0, return_dict=return_dict),
        lambda m: m.train_on_batch(X, Y, return_dict=return_dict),
        lambda m: m.train_on_batch(X, Y, sample_weight=WEIGHTS, return_dict=return_dict),
        lambda m: m.train_on_batch(X, Y, class_weight={0: 5.0}, return_dict=return_dict),
        lambda m: m.test_on_batch(X, Y, return_dict=return_dict),
        lambda m: m.test_on_batch(X, Y, sample_weight=WEIGHTS, return_dict=return_dict),
        lambda m: m.predict(X, batch_size=5, verbose=0),
        lambda m: m.predict(X, batch_size=5, steps=2, verbose=0),
        lambda m: m.predict_on_batch(X),
    ):
        found, wanted = call(ours), call(theirs)
        assert type(found) is type(wanted) or isinstance(wanted, float | np.floating)
        same(found, wanted)
    same_weights(ours, theirs)


# -- data of other kinds -------------------------------------------------------------------------------------
class Numbered(keras.utils.PyDataset):
    def __init__(self, weights: bool = False) -> None:
        super().__init__()
        self.weights, self.told = weights, 0

    def __len__(self) -> int:
        return 5

    def __getitem__(self, number: int) -> Any:
        part = slice(5 * number, 5 * number + 5)
        return (X[part], Y[part], WEIGHTS[part]) if self.weights else (X[part], Y[part])

    def on_epoch_end(self) -> None:
        self.told += 1


def batches(weights: bool = False) -> Any:
    data = Numbered(weights)
    while True:
        yield from (data[number] for number in range(5))


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("kind", ["numbered", "generator"])
def test_batches_of_keras(kind: str, weights: bool) -> None:
    ours, theirs = compiled(one, loss=SPARSE, metrics=["accuracy"])
    make, steps = (Numbered, None) if kind == "numbered" else (batches, 3)
    options = {"steps_per_epoch": steps, "epochs": 3, "shuffle": False, "verbose": 0}
    found, wanted = (
        model.fit(make(weights), validation_data=Numbered(), **options) for model in (ours, theirs)
    )
    same(found.history, wanted.history)
    same_weights(ours, theirs)
    same(*(model.evaluate(make(weights), steps=2, verbose=0) for model in (ours, theirs)))
    same(*(model.predict(make(weights), steps=2, verbose=0) for model in (ours, theirs)))


def test_a_dataset_hears_of_the_epochs() -> None:
    data = Numbered()
    model = one(cl)
    model.compile("sgd", SPARSE)
    model.fit(data, epochs=3, verbose=0)
    assert data.told == 3


def test_files_of_keras_train(tmp_path: Path) -> None:
    _, theirs = compiled(two, loss=LOSSES)
    theirs.save(tmp_path / "net.keras")
    ours = cl.load(tmp_path / "net.keras")
    ours.compile("adam", LOSSES)
    for model in (ours, theirs):
        model.fit(X, [Y, TARGETS], shuffle=False, verbose=0)
    same_weights(ours, theirs)


# -- targets beside predictions of one number ----------------------------------------------------------------
def signs(y_true: Any, y_pred: Any) -> Any:
    return (1 - (2 * y_true - 1) * y_pred).clamp(min=0).mean(-1)


def plain(prediction: Any, target: Any) -> Any:
    return ((prediction - target) ** 2).mean()


class Own(keras.losses.Loss):
    def call(self, y_true: Any, y_pred: Any) -> Any:
        return keras.ops.mean(keras.ops.square(y_true - y_pred), axis=-1)


def single(lib: Any) -> Any:
    x = lib.Input((6,), name="x")
    return lib.Model(x, lib.layers.Dense(1, name="o")(x))


@pytest.mark.parametrize("dtype", ["float32", "int64", "uint8", "bool"])
@pytest.mark.parametrize("loss", [squares, signs])
def test_a_loss_function_meets_each_target_beside_its_own_prediction(loss: Any, dtype: str) -> None:
    """(N,) and (N, 1) made a table of all pairs, and twice a byte less one wrapped around."""
    ours, theirs = compiled(single, loss=loss)
    histories = [
        model.fit(X, (Y > 0).astype(dtype), epochs=2, batch_size=5, shuffle=False, verbose=0).history
        for model in (ours, theirs)
    ]
    same(*histories)
    same_weights(ours, theirs)


def test_so_does_a_function_of_prediction_and_target() -> None:
    ours, theirs = pair(single)
    ours.compile("sgd", loss=plain)
    theirs.compile("sgd", loss="mse")
    y = TARGETS[:, 0]
    same(*(model.fit(X, y, batch_size=5, shuffle=False, verbose=0).history for model in (ours, theirs)))
    same_weights(ours, theirs)


def test_a_loss_class_of_ones_own_is_weighted_as_kerass_are() -> None:
    ours, theirs = compiled(single, loss=Own())
    for model in (ours, theirs):
        model.fit(X, TARGETS[:, :1], sample_weight=WEIGHTS, batch_size=5, shuffle=False, verbose=0)
    same_weights(ours, theirs)


@pytest.mark.parametrize("metric", ["accuracy", "categorical_accuracy", "top_k", "iou", "mae", "AUC"])
def test_rows_of_true_and_false(metric: str) -> None:
    """They have no argmax, which classes and accuracies were looked up with."""
    name: Any = metric
    ours, theirs = pair(one)
    for lib, model in ((cl, ours), (keras, theirs)):
        if metric == "top_k":
            name = lib.metrics.TopKCategoricalAccuracy(k=2)
        elif metric == "iou":
            name = lib.metrics.OneHotMeanIoU(num_classes=3)
        model.compile("sgd", loss="categorical_crossentropy", metrics=[name])
    weights = {} if metric in ("iou", "AUC") else {"class_weight": {1: 3.0}}
    same(*(m.fit(X, ROWS > 0, shuffle=False, verbose=0, **weights).history for m in (ours, theirs)))
    same_weights(ours, theirs)
