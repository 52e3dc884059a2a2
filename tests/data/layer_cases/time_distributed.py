"""One layer or model at every step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import layers as L

VIDEO, SEQUENCE = (4, 6, 5, 3), (4, 6)

Layer = keras.Layer | Callable[[Any], Any]


def each(layer: keras.Layer) -> keras.Layer:
    return L.TimeDistributed(layer)


def frame() -> keras.Model:
    """A network for one image of the video."""
    x = keras.Input((6, 5, 3))
    h = L.BatchNormalization()(L.Conv2D(4, 3, padding="same", activation="relu")(x))
    return keras.Model(x, L.Dense(3)(L.GlobalAveragePooling2D()(h * 0.5 + h)), name="frame")


CASES: dict[str, tuple[Layer, Any]] = {
    "dense": (each(L.Dense(3, activation="relu")), SEQUENCE),
    "dense_softmax": (each(L.Dense(3, activation="softmax")), VIDEO),
    "dense_leaky": (each(L.Dense(3, activation=L.LeakyReLU(0.1))), SEQUENCE),
    "activation": (each(L.Activation("gelu")), SEQUENCE),
    "dropout": (each(L.Dropout(0.5)), SEQUENCE),
    "flatten": (each(L.Flatten()), VIDEO),
    "convolution": (each(L.Conv2D(4, 3, 2, "same", activation="relu")), VIDEO),
    "one_step": (each(L.Conv2D(2, 3)), (1, 6, 5, 3)),
    "pooling": (each(L.MaxPooling2D(2)), VIDEO),
    "global_pooling": (each(L.GlobalAveragePooling2D()), VIDEO),
    "batch_norm": (each(L.BatchNormalization()), VIDEO),
    "of_each_row": (each(each(L.Conv1D(2, 3))), (3, 4, 5, 2)),
    "embedding": (each(L.Embedding(9, 3)), ("int32", 9, (4, 5))),
    "chain": (
        each(keras.Sequential([keras.Input((6, 5, 3)), L.Conv2D(2, 3), L.Flatten(), L.Dense(3)])),
        VIDEO,
    ),
    "network": (each(frame()), VIDEO),
    "video": (
        lambda x: L.Dense(2)(L.GlobalMaxPooling1D()(L.Conv1D(3, 2)(each(frame())(x)))),
        VIDEO,
    ),
}
