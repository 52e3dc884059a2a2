"""A model's own methods: the network behind them, what is kept between calls, and what goes wrong."""

from __future__ import annotations

import copy
import itertools
import pickle
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from convloom.graph.errors import ConvLoomError, UnsupportedLayerError

import convloom as cl
from convloom import layers as L

DATA = np.random.default_rng(0)
X = DATA.normal(size=(23, 6)).astype(np.float32)
Y = DATA.integers(0, 3, 23)
SPARSE = "sparse_categorical_crossentropy"


def chain() -> cl.Sequential:
    layers = [cl.Input((6,)), L.Dense(5, activation="tanh", name="h"), L.Dense(3, "softmax", name="head")]
    return cl.Sequential(layers, seed=0)


def fitted(**options: Any) -> tuple[cl.Sequential, Any]:
    model = chain()
    model.compile("adam", SPARSE)
    return model, model.fit(X, Y, **{"verbose": 0} | options)


# -- the network behind ----------
def test_it_is_one_implementation_with_fit() -> None:
    model, history = fitted(epochs=3, seed=4, batch_size=5)
    net = cl.compile(chain())
    other = cl.fit(net, (X, Y), loss=SPARSE, metrics=(), epochs=3, seed=4, batch_size=5, verbose=0)
    assert history.history == other.history
    for found, value in zip(model.get_weights(), net.parameters(), strict=True):
        np.testing.assert_array_equal(found, value.detach().cpu().numpy())
    logs = cl.evaluate(net, X, Y, loss=SPARSE, metrics=["accuracy"])
    assert set(logs) == {"loss", "accuracy"}
    assert logs["loss"] == model.evaluate(X, Y, verbose=0)
    np.testing.assert_array_equal(cl.predict(net, X, batch_size=7), model.predict(X, batch_size=7, verbose=0))
    assert model.history is history


def test_the_network_is_kept() -> None:
    model, history = fitted()
    net = model.compiled_network
    assert history.net is net
    model.predict(X, verbose=0)
    model.fit(X, Y, verbose=0)
    model.compile("sgd", SPARSE)
    assert model.compiled_network is net
    model.compile("sgd", SPARSE, dtype="float64")
    assert model.compiled_network is not net
    assert model.predict(X, verbose=0).dtype == np.float64
    assert not model.compiled_network.training


@pytest.mark.parametrize("backend", ["aten", "triton"])
def test_a_backend_may_be_named(backend: str) -> None:
    model = chain()
    model.compile("sgd", SPARSE, device="cpu", backend=backend)
    assert model.compiled_network.options.backend == backend
    found = model.train_on_batch(X[:4], Y[:4]), model.evaluate(X[:4], Y[:4], verbose=0)
    assert np.isfinite(found).all()


def test_prediction_needs_no_compile() -> None:
    model = chain()
    expected = cl.compile(model)(X).cpu().numpy()
    np.testing.assert_allclose(model.predict(X, verbose=0), expected, rtol=1e-6)
    np.testing.assert_allclose(model.predict_on_batch(X), expected, rtol=1e-6)
    assert model.optimizer is None
    assert model.history is None


# -- what is kept between calls ----------
def test_a_second_fit_goes_on_and_compile_begins_anew() -> None:
    twice, _ = fitted(shuffle=False)
    twice.fit(X, Y, verbose=0, shuffle=False)
    once, _ = fitted(shuffle=False, epochs=2)
    for a, b in zip(twice.get_weights(), once.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    anew, _ = fitted(shuffle=False)
    anew.compile("adam", SPARSE)
    anew.fit(X, Y, verbose=0, shuffle=False)
    assert any(not np.array_equal(a, b) for a, b in zip(anew.get_weights(), once.get_weights(), strict=True))


def test_steps_on_batches_and_fit_share_the_optimizer() -> None:
    steps, _ = fitted(shuffle=False, batch_size=23)
    steps.train_on_batch(X, Y)
    epochs, _ = fitted(shuffle=False, batch_size=23, epochs=2)
    for a, b in zip(steps.get_weights(), epochs.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_learning_rate_is_read_and_set() -> None:
    model = chain()
    model.compile(cl.optimizers.SGD(0.25), SPARSE)
    assert model.optimizer.learning_rate == 0.25
    model.optimizer.learning_rate = 0.0
    before = model.get_weights()
    model.fit(X, Y, verbose=0)
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_layers_frozen_and_freed_after_compile_are_followed() -> None:
    model = chain()
    head: Any = model.get_layer("head")
    head.trainable = False
    model.compile("adam", SPARSE)
    kernels = [model.get_weights()]
    for trainable in (False, True, False):
        head.trainable = trainable
        model.fit(X, Y, verbose=0)
        kernels.append(model.get_weights())
    moved = [not np.array_equal(a[2], b[2]) for a, b in itertools.pairwise(kernels)]
    assert moved == [False, True, False]
    assert all(not np.array_equal(a[0], b[0]) for a, b in itertools.pairwise(kernels))


def test_weights_set_between_calls_are_those_of_the_next() -> None:
    model, _ = fitted()
    model.set_weights([np.zeros_like(w) for w in model.get_weights()])
    np.testing.assert_allclose(model.predict(X, verbose=0), 1 / 3, rtol=1e-6)
    assert model.evaluate(X, Y, verbose=0) == pytest.approx(np.log(3), rel=1e-6)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_has_the_weights_and_is_compiled_anew(copied: Any) -> None:
    model, _ = fitted()
    other = copied(model)
    np.testing.assert_array_equal(other.predict(X, verbose=0), model.predict(X, verbose=0))
    with pytest.raises(ConvLoomError, match=r"fit needs a loss: call compile\("):
        other.fit(X, Y)
    other.compile("adam", SPARSE)
    other.fit(X, Y, verbose=0)
    assert not np.array_equal(other.get_weights()[0], model.get_weights()[0])


# -- callbacks and output ----------
class Halt(cl.Callback):
    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        assert set(logs) == {"loss"}
        self.model.stop_training = batch == 1


def test_training_may_be_stopped_in_an_epoch() -> None:
    model, history = fitted(callbacks=Halt(), epochs=5, batch_size=5, validation_split=0.2)
    assert history.epoch == [0]
    assert set(history.history) == {"loss", "val_loss"}
    assert len(model.fit(X, Y, epochs=2, verbose=0).epoch) == 2  # and is not stopped any more


class Seen(cl.Callback):
    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.model_seen, self.net_seen, self.rate = self.model, self.net, self.model.optimizer.learning_rate
        logs["of my own"] = epoch

    def on_predict_batch_end(self, batch: int, logs: Mapping[str, Any]) -> None:
        self.outputs = logs["outputs"]


def test_callbacks_see_the_model() -> None:
    seen = Seen()
    model, history = fitted(callbacks=[seen], epochs=2)
    assert (seen.model_seen, seen.net_seen) == (model, model.compiled_network)
    assert seen.rate == pytest.approx(0.001)
    assert history.history["of my own"] == [0, 1]
    found = model.predict(X, batch_size=23, verbose=0, callbacks=[seen])
    np.testing.assert_array_equal(found, seen.outputs)


def test_penalties_and_moving_statistics_are_in_the_numbers() -> None:
    model = cl.Sequential([
        cl.Input((6,)), L.Dense(4, kernel_regularizer="l2"), L.BatchNormalization(), L.Dense(3, "softmax"),
    ])  # fmt: skip
    model.compile("sgd", SPARSE)
    model.fit(X, Y, verbose=0)
    probabilities = model.predict(X, verbose=0)[np.arange(23), Y]
    penalty = 0.01 * (model.get_weights()[0] ** 2).sum()
    assert model.evaluate(X, Y, verbose=0) == pytest.approx(-np.log(probabilities).mean() + penalty, rel=1e-5)


# -- what goes wrong ----------
@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"loss": "mse", "optimizer": "adamant"}, "unknown optimizer 'adamant'"),
        ({"loss": "mze"}, "unknown loss 'mze'"),
        ({"loss": {"hed": "mse"}}, "loss: the network has no output 'hed'; did you mean 'head'?"),
        ({"loss": ["mse", "mse"]}, "loss has 2 entries, and the network 1 output (head); give one for each"),
        ({"loss": {"head": None}}, "no output has a loss; give one, for example loss='mse'"),
        ({"loss": "mse", "loss_weights": {"hed": 1.0}}, "loss_weights: the network has no output 'hed'"),
        ({"loss": "mse", "loss_weights": ["one"]}, "loss_weights of 'head' is 'one', a str"),
        ({"loss": "mse", "metrics": ["acuracy"]}, "unknown metric 'acuracy'"),
        ({"loss": "mse", "auto_scale_loss": False}, "auto_scale_loss=False: in float16 gradients vanish"),
        ({"loss": "mse", "device": "tpu"}, "unknown device 'tpu'"),
        ({"loss": "mse", "dtype": "int8"}, "unknown dtype 'int8'"),
    ],
)
def test_compile_refuses_what_does_not_fit(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ConvLoomError) as raised:
        chain().compile(**settings)
    assert text in str(raised.value)


def test_what_needs_a_loss_says_so() -> None:
    model = chain()
    for call in (model.fit, model.evaluate, model.train_on_batch, model.test_on_batch):
        with pytest.raises(ConvLoomError, match=rf"{call.__name__} needs a loss: call compile\(optimizer="):
            call(X, Y)
    model.compile("adam")
    with pytest.raises(ConvLoomError, match="fit needs a loss"):
        model.fit(X, Y)
    for method in (model.predict_on_batch, model.train_on_batch):
        with pytest.raises(ConvLoomError):
            method("digits")


def test_a_chain_may_be_compiled_before_its_input_is_known() -> None:
    """It takes that of the first data, where that is an array, as in Keras."""
    model = cl.Sequential([L.Dense(3, "softmax")])
    model.compile("adam", SPARSE)
    with pytest.raises(ConvLoomError, match="has no input shape yet"):
        model.fit([(X, Y)], verbose=0)
    model.fit(X, Y, verbose=0)
    assert model.input.shape == (None, 6)
    other = cl.Sequential([L.Dense(3)])
    assert other.predict(X, verbose=0).shape == (23, 3)
    built = cl.Sequential([L.Dense(3)])
    built.build((None, 6))
    assert built.count_params() == 21


def test_layers_added_after_compile_ask_for_another() -> None:
    model, _ = fitted()
    model.add(L.Dense(3, "softmax"))
    with pytest.raises(ConvLoomError, match=r"has other layers than when it was compiled; call compile\("):
        model.fit(X, Y, verbose=0)
    model.compile("adam", SPARSE)
    model.fit(X, Y, verbose=0)
    assert model.predict(X, verbose=0).shape == (23, 3)


def test_masks_are_refused() -> None:
    model = cl.Sequential([cl.Input((4,)), L.Embedding(5, 3, mask_zero=True)])
    model.compile("adam", "mse")
    with pytest.raises(UnsupportedLayerError, match="has a mask"):
        model.fit(np.ones((3, 4), np.int64), np.zeros((3, 4, 3), np.float32))


def test_rooms_alone_do_not_train() -> None:
    """The layers' room imports nothing that runs, and says what is missing."""
    text = (
        "from convloom.frontends import Input, Model, layers\n"
        "x = Input((3,)); model = Model(x, layers.Dense(2)(x))\n"
        "try: model.compile('sgd', 'mse')\n"
        "except Exception as error: print(type(error).__name__, error)\n"
        "import convloom as cl; cl.Model; model.compile('sgd', 'mse'); print(model.optimizer is not None)\n"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "ConvLoomError models train where convloom is imported whole: import convloom as cl",
        "True",
    ]


def test_prediction_carries_no_gradient() -> None:
    model, _ = fitted()
    assert isinstance(model.predict(torch.from_numpy(X), verbose=0), np.ndarray)


@pytest.mark.parametrize("look", ["evaluate", "predict", "test_on_batch"])
def test_a_callback_that_looks_at_the_model_in_mid_epoch_leaves_it_in_training(look: str) -> None:
    """Batch norms and dropout would stand still for the rest of the epoch."""

    class Looks(cl.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            getattr(self.model, look)(*((X,) if look == "predict" else (X, Y)))

    weights = []
    for callbacks in ([], [Looks()]):
        made = chain()
        made.add(L.BatchNormalization())
        made.add(L.Activation("softmax"))
        made.compile("sgd", SPARSE)
        made.fit(X, Y, batch_size=5, epochs=2, shuffle=False, verbose=0, callbacks=callbacks)
        weights.append([value.tolist() for value in made.get_weights()])
    assert weights[0] == weights[1]
