"""Rows of a table looked up by whole numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import layers as L

Layer = keras.Layer | Callable[[Any], Any]


def positions(x: Any) -> Any:
    """As transformers do: a sequence, plus what its places look up."""
    return L.LayerNormalization()(L.Embedding(9, 4)(x[0]) + L.Embedding(5, 4)(x[1]))


CASES: dict[str, tuple[Layer, Any]] = {
    "sequence": (L.Embedding(9, 17), ("int32", 9, (5,))),
    "of_long_numbers": (L.Embedding(65, 3), ("int64", 65, (7,))),
    "of_bytes": (L.Embedding(30, 4), ("uint8", 30, (5,))),
    "of_floats": (L.Embedding(9, 4), ("float32", 9, (5,))),
    "of_an_image": (L.Embedding(9, 2), ("int32", 9, (4, 3, 2))),
    "of_one_number": (L.Embedding(9, 1), ("int32", 9, (1,))),
    "mask_zero": (lambda x: L.Dense(3)(L.Embedding(9, 4, mask_zero=True)(x)), ("int32", 9, (5,))),
    "initializer": (L.Embedding(9, 4, embeddings_initializer="he_normal"), ("int32", 9, (5,))),
    "before_convolutions": (
        lambda x: L.GlobalMaxPooling1D()(L.Conv1D(4, 3, activation="relu")(L.Embedding(9, 5)(x))),
        ("int32", 9, (7,)),
    ),
    "scaled": (lambda x: L.Embedding(9, 5)(x) * 3.0 + 1.0, ("int32", 9, (7,))),
    "sums": (positions, [("int32", 9, (5,)), ("int32", 5, (5,))]),
    "shared": (lambda xs: L.Subtract()([E(xs[0]), E(xs[1])]), [("int32", 9, (5,)), ("int32", 9, (5,))]),
}

E = L.Embedding(9, 3)
