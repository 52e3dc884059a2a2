"""Keras's other names, near misses, and numbers as NumPy has them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from convloom.frontends import names
from convloom.frontends.layers.aliases import ABSENT
from keras_networks import images, outputs

import convloom as cl
from convloom import layers as L


def test_every_name_of_keras_layers_is_here_or_is_refused_by_name() -> None:
    import keras

    theirs = [name for name in dir(keras.layers) if not name.startswith("_")]
    missing = [name for name in theirs if callable(getattr(keras.layers, name)) and not hasattr(L, name)]
    assert sorted(missing) == sorted(ABSENT)


def test_other_names_are_the_same_classes_as_in_keras() -> None:
    import keras

    for name in L.__all__:
        theirs = getattr(keras.layers, name, None)
        if isinstance(theirs, type) and name != "GroupedQueryAttention":
            mine = getattr(L, name)
            assert theirs.__name__ in (mine.__name__, mine.inner_class), name


def test_files_may_have_the_other_names() -> None:
    model = cl.Sequential([cl.Input((4, 4, 3)), L.MaxPooling2D(2, name="p")])
    text = model.to_json().replace('"MaxPooling2D"', '"MaxPool2D"')
    assert isinstance(cl.loads(text).get_layer("p"), L.MaxPool2D)


@pytest.mark.parametrize("name", ["add", "subtract", "multiply", "average", "maximum", "minimum"])
def test_layers_called_at_once(name: str) -> None:
    x, y = cl.Input((3,), name="x"), cl.Input((3,), name="y")
    layer = getattr(L, name.title())
    at_once = cl.Model([x, y], getattr(L, name)([x, y], name="merged"))
    assert type(at_once.get_layer("merged")) is layer
    given = [images(2, 3), images(2, 3) * 2]
    expected = outputs(cl.Model([x, y], layer()([x, y])), *given)[0]
    np.testing.assert_array_equal(outputs(at_once, *given)[0], expected)


def test_concatenate_and_dot_called_at_once() -> None:
    x, y = cl.Input((3, 2)), cl.Input((3, 2))
    assert L.concatenate([x, y], axis=1).shape == (None, 6, 2)
    assert L.dot([x, y], axes=2).shape == (None, 3, 3)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("LSTM", "class 'LSTM' of keras.layers is not supported by ConvLoom"),
        ("Lambda", "class 'Lambda' is not supported by ConvLoom: it carries code"),
        ("Conv2d", "no layer is called 'Conv2d'; did you mean 'Conv2D'?"),
        ("maxpool2d", "no layer is called 'maxpool2d'; did you mean 'MaxPool2D'?"),
        ("BatchNorm", "no layer is called 'BatchNorm'; did you mean 'BatchNormalization'?"),
        ("Foo", "no layer is called 'Foo'; docs/keras.md lists those there are"),
    ],
)
def test_names_that_are_no_layer(name: str, text: str) -> None:
    with pytest.raises(cl.UnsupportedLayerError) as caught:
        getattr(L, name)
    assert text in str(caught.value)
    assert not hasattr(L, name)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda: L.Dense(2, activation="sofmax"), "is not a known activation; did you mean 'softmax'?"),
        (lambda: L.Dense(2, activation="ReLU"), "is not a known activation; did you mean 'relu'?"),
        (lambda: L.Dense(2, activation="?"), "is not a known activation; use one of linear, relu"),
        (lambda: L.Dense(2, kernel_initializer="HeNormal_"), "known initializer; did you mean 'he_normal'?"),
        (lambda: L.Conv2D(2, 3, padding="smae"), "got 'smae'; did you mean 'same'?"),
        (lambda: L.Conv2D(2, 3, data_format="channel_last"), "did you mean 'channels_last'?"),
        (lambda: L.UpSampling2D(2, interpolation="biliner"), "got 'biliner'; did you mean 'bilinear'?"),
        (lambda: cl.Input((3,), dtype="flaot32"), "got 'flaot32'; did you mean 'float32'?"),
        (lambda: L.Conv2D(2, 3, stride=2), "unknown argument 'stride'; did you mean 'strides'?"),  # type: ignore[call-arg]
        (lambda: L.Dense(2, zzz=2), "Dense: unknown argument 'zzz'; it takes name, trainable"),  # type: ignore[call-arg]
    ],
)
def test_did_you_mean(wrong: Any, text: str) -> None:
    with pytest.raises(cl.ConvLoomError) as caught:
        wrong()
    assert text in str(caught.value)


def described(n: Any, yes: Any, array: Any) -> cl.Model:
    """A network whose sizes are made by n, flags by yes and tuples by array."""
    x = cl.Input((n(8), n(9), n(3)), name="x")
    h = L.Conv2D(n(4), (n(3), n(2)), strides=array([2, 1]), padding="same", use_bias=yes)(x)
    h = L.ZeroPadding2D(((n(1), n(2)), n(1)))(h)
    h = L.Cropping2D(array([[1, 0], [0, 1]]))(h)
    h = L.MaxPooling2D(n(2), padding=array([[1, 0], [0, 0]]))(h)
    h = L.UpSampling2D(array([2, 1]))(h)
    h = L.Conv2DTranspose(n(2), n(2), output_padding=n(0), strides=n(2))(h)
    h = L.BatchNormalization(axis=n(-1))(L.Permute(array([1, 2, 3]))(h))
    h = L.Resizing(n(5), n(6))(h)[:, n(1) :, : n(-1), n(0)]
    h = L.Reshape((n(-1), n(2)))(L.RepeatVector(n(2))(L.Flatten()(h)))
    return cl.Model(x, L.Dense(n(3))(L.Dropout(0.5, noise_shape=(None, n(1), n(1)))(h)))


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_sizes_may_be_numbers_of_numpy(dtype: Any) -> None:
    def n(value: int) -> Any:
        return dtype(value) if value >= 0 else np.int64(value)

    names.reset()
    plain = described(int, True, list)
    names.reset()
    assert str(described(n, np.True_, np.array).to_graph()) == str(plain.to_graph())


def test_numbers_of_numpy_are_still_checked() -> None:
    with pytest.raises(cl.ShapeError, match=r"filters must be a positive integer, got 2\.0"):
        L.Conv2D(np.float32(2), 3)  # type: ignore[arg-type]
    with pytest.raises(cl.ShapeError, match="kernel_size must be an integer or a pair"):
        L.Conv2D(2, np.bool_(True))  # type: ignore[arg-type]
    with pytest.raises(cl.ShapeError, match="shape must be a positive integer, got 0"):
        cl.Input((np.int64(0), 3))  # type: ignore[arg-type]
