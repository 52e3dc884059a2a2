"""Training as people ask for it: kinds of losses and metrics, names, Keras's habits, what goes wrong."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import pytest
import torch
from convloom.graph.errors import ConvLoomError, ShapeError
from small_training import CLASSES, ROWS, X, Y, model, network

import convloom as cl
from convloom import layers as L


def trained(target: Any, loss: Any, **options: Any) -> list[float]:
    losses: list[float] = cl.fit(
        network(**options), (X, target), loss=loss, optimizer="sgd", epochs=2, shuffle=False, verbose=False,
        metrics=(),
    ).history["loss"]  # fmt: skip
    return losses


# -- one loss ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "relu"])
def test_training_and_validation_report_the_same_function(activation: str) -> None:
    """Logits so large that clipping at 1e-7 would show; a learning rate so small that nothing moves."""
    net = network(activation=activation, norm=False)
    with torch.no_grad():
        net.weights()["dense/kernel" if "dense/kernel" in net.weights() else _kernel(net)].mul_(200)
    history = cl.fit(
        net, (X, Y), loss=CLASSES, optimizer="sgd", learning_rate=1e-12, batch_size=len(X),
        validation_data=(X, Y), verbose=False, stop_on_nan=False,
    ).history  # fmt: skip
    np.testing.assert_allclose(history["loss"], history["val_loss"], rtol=1e-6)


def _kernel(net: cl.CompiledNetwork) -> str:
    return [name for name, value in net.weights().items() if value.ndim == 2][-1]


def test_from_logits_objects_mean_what_the_softmax_does() -> None:
    expected = trained(Y, CLASSES)
    for loss, target in (
        (cl.losses.SparseCategoricalCrossentropy(from_logits=True), Y),
        (cl.losses.CategoricalCrossentropy(from_logits=True), ROWS),
    ):
        assert trained(target, loss, activation=None) == expected
    assert trained(ROWS, cl.losses.CategoricalCrossentropy) == expected


# -- losses and metrics of another kind ----------------------------------------------------------------------
def in_kerass_order(y_true: torch.Tensor, y_pred: torch.Tensor) -> torch.Tensor:
    return -(y_true * y_pred.clamp(1e-7, 1 - 1e-7).log()).sum(-1)  # one an example, as Keras allows


def in_torchs_order(guess: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return -(right * guess.clamp(1e-7, 1 - 1e-7).log()).sum(-1).mean()


class OfKerassKind(keras.losses.Loss):
    def call(self, truth: Any, guess: Any) -> Any:
        return in_kerass_order(truth, guess)


class OfTorchsKind(torch.nn.Module):
    def forward(self, preds: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return in_torchs_order(preds, target)


@pytest.mark.parametrize(
    "loss",
    [
        keras.losses.CategoricalCrossentropy(),
        keras.losses.categorical_crossentropy,
        in_kerass_order,
        OfKerassKind(),
        in_torchs_order,
        OfTorchsKind(),
    ],
)
def test_a_loss_is_called_the_way_its_kind_is_called(loss: Any) -> None:
    np.testing.assert_allclose(trained(ROWS, loss), trained(ROWS, "categorical_crossentropy"), rtol=1e-5)


def test_a_loss_of_torch() -> None:
    expected = trained(Y, CLASSES)
    found = trained(Y, torch.nn.CrossEntropyLoss(), activation=None)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("loss", "text"),
    [
        (keras.losses.CategoricalCrossentropy, "is a class; give an instance: CategoricalCrossentropy()"),
        (keras.losses.CategoricalCrossentropy(reduction=None), "returned a tensor of shape (24,); it must"),
        (lambda prediction, target: prediction.detach().mean(), "returned a number without a gradient"),
        (lambda prediction, target: float(prediction.detach().mean()), "returned float; it must return one"),
        (lambda prediction, target: prediction.mean() * math.inf, "the loss is inf"),
        ("categorical_cross_entropy", "did you mean 'categorical_crossentropy'?"),
        ("sparse_categorial_crossentropy", "did you mean 'sparse_categorical_crossentropy'?"),
        (None, "fit needs a loss, for example"),
    ],
)
def test_what_is_no_loss(loss: Any, text: str) -> None:
    with pytest.raises(ConvLoomError) as raised:
        cl.fit(network(), (X, ROWS), loss=loss, verbose=False)
    assert text in str(raised.value)


def test_a_network_of_torch_needs_a_function() -> None:
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(30, 3), torch.nn.Softmax(-1))
    with pytest.raises(ConvLoomError, match="Sequential is no compiled one; give a function"):
        cl.fit(net, (X, ROWS), loss="categorical_crossentropy", verbose=False)
    cl.fit(net, (X, ROWS), loss=in_kerass_order, verbose=False)


class OfTorchmetricsKind:
    """The share of examples of class 0 over the whole epoch, in torchmetrics' protocol."""

    higher_is_better = False

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.seen, self.count = 0, 0

    def update(self, preds: torch.Tensor, target: torch.Tensor) -> None:
        self.seen += int((target == 0).sum())
        self.count += len(target)

    def __call__(self, preds: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        raise AssertionError("an epoch's value is no mean of the batches' values")

    def compute(self) -> torch.Tensor:
        return torch.tensor(self.seen / self.count)


def test_metrics_with_a_state_are_read_once_an_epoch() -> None:
    """And take the targets as they were given."""
    net = network()
    metrics = [keras.metrics.SparseCategoricalAccuracy(), OfTorchmetricsKind(), "accuracy"]
    history = cl.fit(
        net, (X, Y), loss=CLASSES, metrics=metrics, batch_size=7, epochs=2, validation_split=0.25,
        verbose=False,
    ).history  # fmt: skip
    np.testing.assert_allclose(history["sparse_categorical_accuracy"], history["accuracy"], rtol=1e-6)
    np.testing.assert_allclose(history["val_sparse_categorical_accuracy"], history["val_accuracy"], rtol=1e-6)
    np.testing.assert_allclose(history["OfTorchmetricsKind"], [(Y[:18] == 0).mean()] * 2, rtol=1e-6)
    np.testing.assert_allclose(history["val_OfTorchmetricsKind"], [(Y[18:] == 0).mean()] * 2, rtol=1e-6)


def test_a_metric_of_keras_over_an_epoch() -> None:
    """AUC is no mean over batches: compared with Keras's on all predictions at once."""
    net = network(activation="sigmoid")
    history = cl.fit(
        net, (X, ROWS), loss="binary_crossentropy", metrics={"area": keras.metrics.AUC()}, batch_size=5,
        validation_data=(X, ROWS), verbose=False,
    ).history  # fmt: skip
    whole = keras.metrics.AUC()
    with torch.no_grad():
        whole.update_state(ROWS, net(X))
    np.testing.assert_allclose(history["val_area"], [float(whole.result())], rtol=1e-5)


@pytest.mark.parametrize(
    ("metrics", "text"),
    [
        (["acuracy"], "unknown metric 'acuracy'; did you mean 'accuracy'? Known: accuracy, "),
        ([keras.metrics.MeanIoU], "metric MeanIoU is a class; give an instance: MeanIoU()"),
        (["mean_io_u"], "metric 'mean_io_u' needs arguments ('num_classes'); give cl.metrics.MeanIoU(...)"),
        ([3], "metric 3 is neither a name nor a function"),
        (3, "metrics is a int; give a list"),
        ([(same := cl.metrics.AUC()), same], "metrics holds one object twice, auc, whose state would mix"),
        ([lambda prediction, target: prediction], "gave a tensor of shape (24, 3); it must give one number"),
    ],
)
def test_what_is_no_metric(metrics: Any, text: str) -> None:
    with pytest.raises(ConvLoomError) as raised:
        cl.fit(network(), (X, ROWS), loss="categorical_crossentropy", metrics=metrics, verbose=False)
    assert text in str(raised.value)


# -- EarlyStopping -------------------------------------------------------------------------------------------
def grows(metric: Any, monitor: str) -> bool:
    """Whether mode="auto" takes a larger value of a metric for a better one."""
    stopper = cl.EarlyStopping(monitor, patience=9)
    cl.fit(
        network(), (X, ROWS), loss="categorical_crossentropy", metrics=[metric], callbacks=[stopper],
        validation_data=(X, ROWS), verbose=False,
    )  # fmt: skip
    return stopper.direction == "max"


def named(name: str, **says: Any) -> Any:
    def function(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return prediction.mean()

    function.__name__ = name
    function.__dict__.update(says)
    return function


@pytest.mark.parametrize(
    ("metric", "name", "larger_is_better"),
    [
        (named("auc"), "auc", True),
        (named("precision"), "precision", True),
        (named("f1_score"), "f1_score", True),
        (named("mean_io_u"), "mean_io_u", True),
        (named("auc_1"), "auc_1", True),
        (named("mean_absolute_error"), "mean_absolute_error", False),
        (named("own", higher_is_better=True), "own", True),
        (named("precision", higher_is_better=False), "precision", False),
        (keras.metrics.Precision(name="own"), "own", True),
        (keras.metrics.MeanSquaredError(name="own"), "own", False),
        ("accuracy", "accuracy", True),
        ("accuracy", "loss", False),
    ],
)
def test_early_stopping_follows_what_a_metric_says_of_itself(
    metric: Any, name: str, larger_is_better: bool
) -> None:
    for monitor in (name, f"val_{name}"):
        assert grows(metric, monitor) == larger_is_better


def test_early_stopping_refuses_to_guess() -> None:
    with pytest.raises(ConvLoomError, match=r"whether a better 'val_accumulated_error' is larger or smaller"):
        grows(named("accumulated_error"), "val_accumulated_error")
    with pytest.raises(ConvLoomError, match=r"reports loss, accuracy, val_loss, val_accuracy; did you mean"):
        grows("accuracy", "val_acuracy")
    with pytest.raises(ConvLoomError, match=r"patience is '3', a str; it must be a whole number"):
        cl.EarlyStopping(patience="3")  # type: ignore[arg-type]


# -- Keras's habits ------------------------------------------------------------------------------------------
def test_fit_takes_a_model_and_leaves_it_trained() -> None:
    own = model()
    before = own.get_weights()
    history = cl.fit(own, (X, Y), loss=CLASSES, verbose=False)
    assert any(not np.array_equal(a, b) for a, b in zip(before, own.get_weights(), strict=True))
    assert isinstance(history.net, cl.CompiledNetwork)
    assert not history.net.training
    fresh = cl.compile(own, device="cpu")
    torch.testing.assert_close(history.net.cpu()(X), fresh(X))
    with pytest.raises(ConvLoomError, match="fit takes a compiled network or a Model, found str"):
        cl.fit("net.keras", (X, Y), loss=CLASSES)


@pytest.mark.parametrize(
    ("positional", "options"),
    [
        (((X, Y), CLASSES, "sgd"), {}),
        ((X, Y), {"loss": CLASSES, "optimizer": "sgd"}),
        ((X, Y, CLASSES, "sgd"), {}),
        ((X,), {"y": Y, "loss": CLASSES, "optimizer": "sgd"}),
        ((X.tolist(), Y.tolist(), CLASSES), {"optimizer": "sgd"}),
        (([X, Y], CLASSES), {"optimizer": "sgd"}),
        (((X.tolist(), Y.tolist()), CLASSES), {"optimizer": "sgd"}),
        ((({"image": X}, Y), CLASSES), {"optimizer": "sgd"}),
        (({"image": X}, Y, CLASSES), {"optimizer": "sgd"}),
        (((X.astype(">f4"), Y.astype(">i2")), CLASSES), {"optimizer": "sgd"}),
        (((X, Y.astype(np.uint16)), CLASSES), {"optimizer": "sgd"}),
    ],
)
def test_the_ways_to_give_data(positional: Any, options: dict[str, Any]) -> None:
    history = cl.fit(network(), *positional, shuffle=False, verbose=False, metrics=(), **options).history
    assert history["loss"] == trained(Y, CLASSES)[:1]


# -- inputs by name ------------------------------------------------------------------------------------------
def two_inputs() -> tuple[cl.CompiledNetwork, dict[str, torch.Tensor]]:
    first, second = cl.Input((3,), name="first"), cl.Input((3,), name="second")
    net = cl.compile(
        cl.Model([first, second], L.Dense(2)(L.Subtract()([first, second])), seed=0), device="cpu"
    )
    generator = torch.Generator().manual_seed(0)
    given = {name: torch.randn(4, 3, generator=generator) for name in ("second", "first")}
    return net, given


def test_names_count_whatever_the_order() -> None:
    net, given = two_inputs()
    expected = net(given["first"], given["second"])
    assert not torch.allclose(expected, net(given["second"], given["first"]))
    for order in (["first", "second"], ["second", "first"]):
        torch.testing.assert_close(net({name: given[name] for name in order}), expected)
        torch.testing.assert_close(net({name: given[name].numpy() for name in order}), expected.detach())
    assert net(given).requires_grad
    assert not net({name: value.numpy() for name, value in given.items()}).requires_grad
    target = torch.zeros(4, 2)
    value, _ = net.with_loss("mse")(given, target)
    torch.testing.assert_close(value, (expected**2).mean())
    for data in ((given, target), [(given, target)]):
        found = cl.fit(two_inputs()[0], data, loss="mse", optimizer="sgd", verbose=False, shuffle=False)
        assert found.history["loss"][0] == pytest.approx(
            float(cl.fit(two_inputs()[0], ([given["first"], given["second"]], target), loss="mse",
                         optimizer="sgd", verbose=False, shuffle=False).history["loss"][0])
        )  # fmt: skip


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (("first", "secnd"), "no input 'secnd'; did you mean 'second'?; it takes first, second"),
        (("first",), "no value for the input 'second'; the network takes first, second"),
        (("first", "second", "zzz"), "no input 'zzz'; it takes first, second"),
    ],
)
def test_wrong_names_are_named_with_the_right_ones(names: tuple[str, ...], text: str) -> None:
    net, given = two_inputs()
    value = dict.fromkeys(names, given["first"])
    for call in (
        lambda: net(value),
        lambda: cl.fit(net, (value, torch.zeros(4, 2)), loss="mse", verbose=False),
        lambda: cl.fit(net, [(value, torch.zeros(4, 2))], loss="mse", verbose=False),
    ):
        with pytest.raises(ShapeError) as raised:
            call()
        assert text in str(raised.value)


# -- what goes wrong -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("value", "text"),
    [
        (
            np.zeros((4, 6, 5), np.float32),
            "takes rank 4: (batch, 6, 5, 1); add the channel axis with x[..., None]",
        ),
        (np.zeros((6, 5, 1), np.float32), "add the batch axis with x[None]"),
        (np.zeros((6, 5), np.float32), "add the batch and the channel axis with x[None, ..., None]"),
        (
            np.zeros((4, 1, 6, 5), np.float32),
            "channels seem to come first; put them last with np.moveaxis(x, 1, -1)",
        ),
        (torch.zeros(4, 1, 6, 5), "channels seem to come first; put them last with x.movedim(1, -1)"),
        (torch.zeros(4, 6, 5, 1).to_sparse(), "is a sparse tensor; give x.to_dense()"),
        (np.array(["a"]), "has dtype <U1; give numbers"),
        (np.zeros((4, 6, 5, 1), complex), "has dtype complex128; give numbers"),
        (np.ma.masked_array(np.zeros((4, 6, 5, 1))), "is a masked array; say what stands"),
        ([[1.0]], "is a list; give np.asarray(x), or a torch tensor"),
        ([np.zeros((6, 5, 1))] * 3, "takes 1 input (image), but was called with 3; np.stack makes one array"),
        (None, "is a NoneType; give a torch tensor or a NumPy array"),
    ],
    ids=str,
)
def test_values_that_are_no_input(value: Any, text: str) -> None:
    with pytest.raises(ShapeError) as raised:
        network()(value)
    assert text in str(raised.value)


def test_channels_may_seem_to_come_last() -> None:
    image = cl.Input((3, 8, 9))
    conv = L.Conv2D(2, 3, data_format="channels_first")(image)
    with pytest.raises(ShapeError, match=r"come last; put them first with x.movedim\(-1, 1\)"):
        cl.compile(cl.Model(image, conv), device="cpu")(torch.zeros(2, 8, 9, 3))


def test_arrays_of_every_layout_are_read(recwarn: pytest.WarningsRecorder) -> None:
    net = network()
    expected = net(X)
    reversed_twice = X[:, ::-1].copy()[:, ::-1]
    frozen = X.copy()
    frozen.flags.writeable = False
    for value in (
        X.astype(">f4"),
        np.asfortranarray(X),
        reversed_twice,
        frozen,
        X.astype(np.longdouble),
        [X],
    ):
        torch.testing.assert_close(net(value), expected)
    assert not recwarn.list


class Frame:
    """A data frame, as far as an error needs to know it."""

    def to_numpy(self) -> np.ndarray[Any, Any]:
        raise AssertionError


class Sparse:
    """A sparse matrix of SciPy's, as far as an error needs to know it."""

    def toarray(self) -> np.ndarray[Any, Any]:
        raise AssertionError


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"batch_size": "32"}, "batch_size is '32', a str; it must be a whole number, at least 1"),
        ({"batch_size": 3.0}, "batch_size is 3.0, a float; it must be a whole number"),
        ({"batch_size": True}, "batch_size is True, a bool"),
        ({"epochs": "5"}, "epochs is '5', a str"),
        ({"epochs": -1}, "epochs is -1; it must be at least 0"),
        ({"epochs": None}, "epochs is None; it must be a whole number"),
        ({"learning_rate": "0.1"}, "learning_rate is '0.1', a str; it must be a number"),
        ({"seed": 1.5}, "seed is 1.5, a float"),
        ({"seed": 2**64}, "seed is 18446744073709551616; it must be at most"),
        ({"validation_split": "0.1"}, "validation_split is '0.1', a str; it must be a number"),
        ({"data": (X, Y, Y, Y)}, "data is a tuple of 4; give the pair (x, y)"),
        ({"data": [(X, Y, Y, Y)]}, "batch 0 of the data is a tuple of 4; give pairs (x, y)"),
        ({"data": X}, "data is a ndarray without targets; give the pair (x, y)"),
        ({"data": {"x": X, "y": Y}}, "data is a dict of 2; give a pair (x, y) of arrays"),
        ({"data": (Frame(), Y)}, "x of data is a Frame; give x.to_numpy()"),
        ({"data": (X, Frame())}, "y of data is a Frame; give y.to_numpy()"),
        ({"data": [(Sparse(), Y)]}, "x of batch 0 of the data is a Sparse; give x.toarray()"),
        ({"data": torch.utils.data.TensorDataset(torch.zeros(3))}, "batch 0 of the data is a list of 1"),
        ({"data": (X, None)}, "y of data is a NoneType; give"),
        ({"data": (X, [ROWS, ROWS])}, "y of data is a list of 2; fit takes the targets of one output"),
        ({"data": (X, [[1, 2], [1]])}, "y of data is a list whose rows have unequal lengths"),
        ({"data": (X, ROWS)}, "targets have shape (24, 3), expected (24,); for one-hot rows use 'categ"),
        ({"data": (X, torch.eye(3)[Y].to_sparse())}, "y is a sparse tensor; give y.to_dense()"),
        ({"data": (X[..., 0], Y)}, "add the channel axis with x[..., None]"),
        ({"optimizer": "Adam W"}, "did you mean 'adamw'?"),
        ({"callbacks": print}, "is no cl.Callback"),
    ],
)  # fmt: skip
def test_wrong_calls_of_fit(change: dict[str, Any], text: str) -> None:
    options = {"loss": CLASSES, "verbose": False, **change}
    with pytest.raises(ConvLoomError) as raised:
        cl.fit(network(), options.pop("data", (X, Y)), **options)
    assert text in str(raised.value)


def test_numbers_of_numpy_and_torch_are_numbers() -> None:
    cl.fit(
        network(), (X, Y), loss=CLASSES, batch_size=np.int64(8), epochs=torch.tensor(1), seed=np.uint8(3),  # type: ignore[arg-type]
        learning_rate=np.float32(0.1), verbose=False,  # type: ignore[arg-type]
    )  # fmt: skip


def test_labels_are_checked_before_the_first_step_of_whole_arrays() -> None:
    net = network()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    wrong = np.append(Y[:-1], 7)
    with pytest.raises(ShapeError, match="found class 7, but the network has 3 outputs: classes 0 to 2"):
        cl.fit(net, (X, wrong), loss=CLASSES, batch_size=4, shuffle=False, verbose=False)
    assert all(torch.equal(net.state_dict()[name], value) for name, value in before.items())
