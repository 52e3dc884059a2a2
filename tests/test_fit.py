"""`fit`: what it computes, what it reports, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from convloom.frontends import Input, Model, layers
from convloom.graph.errors import ConvLoomError
from convloom.runtime.callbacks import Callback, EarlyStopping
from convloom.runtime.compile import compile
from convloom.runtime.fit import fit
from convloom.runtime.history import History
from convloom.runtime.metrics import find_metrics
from convloom.runtime.network import CompiledNetwork


def classifier(dropout: float = 0.0, dtype: str = "float32") -> CompiledNetwork:
    """Three classes from 7x5 images, through a convolution with batch norm."""
    image = Input((7, 5, 1))
    h = layers.Conv2D(4, 3, activation="relu")(image)
    h = layers.BatchNormalization()(h)
    h = layers.Flatten()(h)
    h = layers.Dropout(dropout)(h)
    return compile(Model(image, layers.Dense(3, activation="softmax")(h)), device="cpu", dtype=dtype)


def linear(features: int = 3, outputs: int = 2, dtype: str = "float64") -> CompiledNetwork:
    x = Input((features,))
    return compile(Model(x, layers.Dense(outputs)(x)), device="cpu", dtype=dtype)


def bright_rows(count: int = 65, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images with one bright row, whose number is the class."""
    generator = np.random.default_rng(seed)
    y = generator.integers(0, 3, count)
    x = generator.normal(0, 0.1, (count, 7, 5, 1)).astype(np.float32)
    x[np.arange(count), 2 * y + 1] += 1.0
    return x, y


def one_hot(y: np.ndarray, classes: int = 3) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[y]


# -- what it computes ----------------------------------------------------------------------------------------
def test_learns_and_reports() -> None:
    net, (x, y) = classifier(dropout=0.2), bright_rows()
    history = fit(
        net, (x, y), "sparse_categorical_crossentropy", epochs=6, batch_size=16, learning_rate=0.02,
        validation_data=bright_rows(30, seed=1), seed=0, verbose=False,
    )  # fmt: skip
    assert isinstance(history, History)
    assert history.epoch == [0, 1, 2, 3, 4, 5]
    assert set(history.history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert all(len(values) == 6 for values in history.history.values())
    assert history.history["loss"][-1] < history.history["loss"][0] / 2
    assert history.history["val_accuracy"][-1] > 0.9
    assert not net.training


def test_gradient_descent_on_a_linear_model() -> None:
    """Against the same steps in NumPy, with a last batch that is smaller than the others."""
    net = linear()
    generator = np.random.default_rng(3)
    x, y = generator.normal(size=(10, 3)), generator.normal(size=(10, 2))
    weights = {name: value.detach().numpy().copy() for name, value in net.weights().items()}
    (kernel,) = [value for value in weights.values() if value.ndim == 2]
    (bias,) = [value for value in weights.values() if value.ndim == 1]
    losses = []
    for _ in range(2):
        total = 0.0
        for start in range(0, 10, 4):
            part, target = x[start : start + 4], y[start : start + 4]
            error = part @ kernel + bias - target
            total += (error**2).mean() * len(part)
            slope = 2 * error / error.size
            kernel, bias = kernel - 0.1 * part.T @ slope, bias - 0.1 * slope.sum(0)
        losses.append(total / 10)

    history = fit(
        net, (x, y), "mse", "sgd", epochs=2, batch_size=4, learning_rate=0.1, shuffle=False, verbose=False
    )
    assert set(history.history) == {"loss"}
    np.testing.assert_allclose(history.history["loss"], losses, rtol=1e-12)
    trained = {value.ndim: value.detach().numpy() for value in net.weights().values()}
    np.testing.assert_allclose(trained[2], kernel, rtol=1e-12)
    np.testing.assert_allclose(trained[1], bias, rtol=1e-12)


def test_the_model_has_the_trained_weights() -> None:
    image = Input((4, 4, 1))
    model = Model(image, layers.Dense(2)(layers.Flatten()(image)))
    before = {name: value.clone() for name, value in model.parameters.items()}
    net = compile(model, device="cpu")
    x, y = np.ones((8, 4, 4, 1), np.float32), np.ones((8, 2), np.float32)
    fit(net, (x, y), "mse", "sgd", verbose=False)
    for name, value in model.parameters.items():
        assert not torch.equal(value, before[name])
        torch.testing.assert_close(value, net.weights()[name].detach())


def test_class_numbers_mean_the_same_as_one_hot_rows() -> None:
    x, y = bright_rows(20)
    start = {k: v.clone() for k, v in classifier().state_dict().items()}
    results = []
    for loss, target in (
        ("sparse_categorical_crossentropy", y),
        ("sparse_categorical_crossentropy", y[:, None].astype(np.uint8)),
        ("categorical_crossentropy", one_hot(y)),
    ):
        net = classifier()
        net.load_state_dict(dict(zip(net.state_dict(), start.values(), strict=True)))
        results.append(fit(net, (x, target), loss, shuffle=False, batch_size=8, verbose=False).history)
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("name", ["mse", "mean_squared_error", "binary_crossentropy"])
def test_a_function_computes_what_the_name_does(name: str) -> None:
    functions: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
        "mse": torch.nn.functional.mse_loss,
        "mean_squared_error": torch.nn.functional.mse_loss,
        "binary_crossentropy": torch.nn.functional.binary_cross_entropy,
    }
    generator = np.random.default_rng(5)
    data = generator.normal(size=(9, 3)), generator.integers(0, 2, (9, 1)).astype(np.float64)
    losses = []
    for loss in (name, functions[name]):
        x = Input((3,))
        model = Model(x, layers.Dense(1, activation="sigmoid")(x), seed=7)
        net = compile(model, device="cpu", dtype="float64")
        losses.append(fit(net, data, loss, "sgd", epochs=3, shuffle=False, verbose=False).history["loss"])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-9)


def test_validation_is_in_eval_mode_with_current_weights() -> None:
    net, (x, y) = classifier(dropout=0.5), bright_rows(40)
    history = fit(
        net, (x, y), "sparse_categorical_crossentropy", validation_split=0.25, verbose=False, epochs=2
    )
    held_out = torch.from_numpy(x[30:])
    with torch.no_grad():
        prediction = net(held_out).double()
    rows = prediction[torch.arange(10), torch.from_numpy(y[30:])]
    assert history.history["val_loss"][-1] == pytest.approx(float(-rows.log().mean()), rel=1e-5)
    right = (prediction.argmax(-1).numpy() == y[30:]).mean()
    assert history.history["val_accuracy"][-1] == pytest.approx(right)


def test_seed_repeats_shuffling_and_dropout_and_leaves_torch_alone() -> None:
    data, runs = bright_rows(30), []
    start = classifier(dropout=0.5).state_dict()
    nets = [classifier(dropout=0.5) for _ in range(3)]
    torch.manual_seed(11)
    expected = torch.rand(1)
    torch.manual_seed(11)
    for seed, net in zip((4, 4, 5), nets, strict=True):
        net.load_state_dict(dict(zip(net.state_dict(), start.values(), strict=True)))
        history = fit(net, data, "sparse_categorical_crossentropy", batch_size=8, seed=seed, verbose=False)
        runs.append(history.history["loss"])
    assert runs[0] == runs[1] != runs[2]
    assert torch.equal(torch.rand(1), expected)


def test_batches_may_come_from_a_loader() -> None:
    x, y = bright_rows(20)
    dataset = torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
    loader = torch.utils.data.DataLoader(dataset, batch_size=8)
    history = fit(classifier(), loader, "sparse_categorical_crossentropy", epochs=2, verbose=False)
    assert len(history.epoch) == 2
    with pytest.raises(ConvLoomError, match="an iterator can be read once only"):
        fit(classifier(), iter(list(loader)), "sparse_categorical_crossentropy", epochs=2, verbose=False)


def test_several_inputs() -> None:
    a, b = Input((3,)), Input((2,))
    net = compile(Model([a, b], layers.Dense(1)(layers.Concatenate()([a, b]))), device="cpu")
    x = [np.ones((5, 3), np.float32), np.ones((5, 2), np.float32)]
    history = fit(net, (x, np.ones((5, 1))), "mse", epochs=2, verbose=False)
    assert history.history["loss"][1] < history.history["loss"][0]


# -- metrics and optimizers ----------------------------------------------------------------------------------
def test_accuracy() -> None:
    def accuracy(scores: torch.Tensor, target: torch.Tensor) -> Any:
        metrics = find_metrics("accuracy")
        metrics.update([scores], [target])
        return metrics.read()["accuracy"]

    scores = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.4, 0.6]])
    assert accuracy(scores, torch.tensor([1, 1, 1])) == pytest.approx(2 / 3)
    assert accuracy(scores, torch.tensor([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])) == pytest.approx(2 / 3)
    assert accuracy(torch.tensor([[0.7], [0.2]]), torch.tensor([[1.0], [1.0]])) == 0.5


def test_own_metric() -> None:
    def worst(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (prediction - target).abs().max()

    data = np.zeros((6, 3)), np.ones((6, 2))
    history = fit(linear(), data, "mse", "sgd", metrics=[worst], learning_rate=1e-12, verbose=False)
    assert history.history["worst"] == [pytest.approx(1.0)]


def test_a_ready_optimizer_and_a_factory() -> None:
    data = np.ones((6, 3)), np.ones((6, 2))
    for make in (lambda net: torch.optim.SGD(net.parameters(), lr=0.1), lambda net: torch.optim.Adadelta):
        net = linear()
        before = {name: value.detach().clone() for name, value in net.weights().items()}
        fit(net, data, "mse", make(net), verbose=False)
        assert any(not torch.equal(before[name], value) for name, value in net.weights().items())


# -- callbacks and output ------------------------------------------------------------------------------------
def epochs_until_stop(values: list[float], **options: Any) -> tuple[int, EarlyStopping]:
    stopper = EarlyStopping(**options)
    stopper.on_train_begin()
    for epoch, value in enumerate(values):
        stopper.on_epoch_end(epoch, {stopper.monitor: value})
        if stopper.stop:
            return epoch + 1, stopper
    return len(values), stopper


@pytest.mark.parametrize(
    ("values", "options", "epochs"),
    [
        ([3, 2, 1, 0], {}, 4),
        ([3, 2, 2.5, 0], {}, 3),
        ([3, 2, 2.5, 2.4, 0], {"patience": 2}, 4),
        ([3, 2, 2.5, 1, 2, 2, 2], {"patience": 2}, 6),
        ([3, 2.9, 2.8, 0], {"min_delta": 0.5}, 2),
        ([0.1, 0.5, 0.4, 0.9], {"monitor": "val_accuracy"}, 3),
        ([0.1, 0.5, 0.4], {"mode": "max", "monitor": "score"}, 3),
    ],
)
def test_early_stopping(values: list[float], options: dict[str, Any], epochs: int) -> None:
    assert epochs_until_stop(values, **options)[0] == epochs


def test_early_stopping_restores_the_best_weights() -> None:
    """A learning rate that overshoots: the first epoch is the best one."""
    net = linear(dtype="float32")
    seen: list[torch.Tensor] = []

    class Watch(Callback):
        def on_epoch_end(self, epoch: int, logs: Any) -> None:
            seen.append(next(net.parameters()).detach().clone())

    x = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    stopper = EarlyStopping("loss", patience=2, restore_best_weights=True)
    history = fit(
        net,
        (x, x[:, :2]),
        "mse",
        "sgd",
        epochs=9,
        learning_rate=9.0,
        verbose=False,
        callbacks=[Watch(), stopper],
    )
    assert len(history.epoch) == 3
    assert torch.equal(next(net.parameters()).detach(), seen[0])
    assert not torch.equal(seen[0], seen[-1])


def test_one_line_an_epoch_or_none(capsys: pytest.CaptureFixture[str]) -> None:
    data = np.ones((6, 3)), np.ones((6, 2))
    fit(linear(), data, "mse", epochs=3)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[2].startswith("epoch 3/3")
    assert "loss" in lines[2]
    fit(linear(), data, "mse", verbose=False)
    assert capsys.readouterr().out == ""


# -- what it refuses -----------------------------------------------------------------------------------------
X, Y = bright_rows(8)
CLASSES = "sparse_categorical_crossentropy"


@pytest.mark.parametrize(
    ("data", "loss", "options", "text"),
    [
        ((X, Y[:7]), CLASSES, {}, r"x has 8 examples but y has 7"),
        ((X[:0], Y[:0]), CLASSES, {}, r"the data holds no example"),
        ("digits.npz", CLASSES, {}, r"data is a str; give a pair \(x, y\) of arrays, or a DataLoader"),
        (([X, Y, Y, Y],), CLASSES, {}, r"batch 0 of the data is a list of 4; give pairs \(x, y\)"),
        ((X.astype(str), Y), CLASSES, {}, r"x has dtype <U\d+; give numbers"),
        ((X.astype(np.uint8), Y), CLASSES, {}, r"has dtype uint8, the network computes in float32"),
        ((X[:, :6], Y), CLASSES, {}, r"axis 1 must be 7"),
        ((X, Y), "hing", {}, r"unknown loss 'hing'; did you mean"),
        ((X, Y), 3, {}, r"loss 3 is neither a name nor a function"),
        ((X, Y), "categorical_crossentropy", {}, r"shape \(8,\).*\(8, 3\); for class numbers use .*sparse_"),
        ((X, one_hot(Y, 4)), "categorical_crossentropy", {}, r"have shape \(8, 4\).* output is \(8, 3\)"),
        ((X, one_hot(Y).astype(int)), CLASSES, {}, r"\(8, 3\), expected \(8,\); for one-hot rows use"),
        ((X, Y.astype(np.float32)), CLASSES, {}, r"must be integers \(class numbers\), found float32"),
        ((X, Y + 1), CLASSES, {}, r"found class 3, but the network has 3 outputs: classes 0 to 2"),
        ((X, Y - 1), CLASSES, {}, r"found class -1"),
        ((X, Y), CLASSES, {"optimizer": "adamz"}, r"'adamz'; did you mean 'adam'\? Known: sgd, adam"),
        ((X, Y), CLASSES, {"optimizer": 3}, r"optimizer 3 is neither a name"),
        ((X, Y), CLASSES, {"metrics": ["f1"]}, r"unknown metric 'f1'; known: accuracy"),
        ((X, Y), CLASSES, {"callbacks": [print]}, r"is no cl.Callback"),
        ((X, Y), CLASSES, {"batch_size": 0}, r"batch_size is 0; it must be at least 1"),
        ((X, Y), CLASSES, {"learning_rate": -1.0}, r"learning_rate is -1.0; it must be above 0"),
        ((X, Y), CLASSES, {"validation_split": 1.5}, r"validation_split is 1.5; it is a fraction"),
        ((X, Y), CLASSES, {"validation_split": 0.95}, r"leaves one of the parts empty"),
        ((X, Y), CLASSES, {"validation_split": 0.5, "validation_data": (X, Y)}, r"validation_split, not b"),
        ((X, Y), CLASSES, {"callbacks": [EarlyStopping()]}, r"monitors 'val_loss', but .*; give fit vali"),
        ((X, Y), lambda prediction, target: prediction, {}, r"returned a tensor of shape \(8, 3\); it must"),
    ],
)  # fmt: skip
def test_bad_input(data: Any, loss: Any, options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConvLoomError, match=text):
        fit(classifier(), data, loss, **{"verbose": False, **options})


def test_an_optimizer_for_another_network() -> None:
    other = torch.optim.SGD(classifier().parameters(), lr=0.1)
    with pytest.raises(ConvLoomError, match="holds none of this network's parameters"):
        fit(classifier(), (X, Y), CLASSES, other, verbose=False)
    net = classifier()
    with pytest.raises(ConvLoomError, match="learning_rate goes with an optimizer given by name"):
        fit(net, (X, Y), CLASSES, torch.optim.SGD(net.parameters(), lr=0.1), learning_rate=0.1, verbose=False)
