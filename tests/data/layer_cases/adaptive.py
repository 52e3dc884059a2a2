"""Adaptive pooling, by Keras's torch backend: its jax backend misplaces windows of 7 results over 7 steps."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers as L

BACKEND = "torch"

SIZES: dict[int, Any] = {1: (9, 3), 2: (7, 6, 3), 3: (5, 6, 7, 2)}
FIRST_SIZES: dict[int, Any] = {1: (3, 8), 2: (1, 6, 7), 3: (2, 4, 5, 6)}
OUTPUTS: dict[int, list[Any]] = {
    1: [3, (1,), (4,), (6,), (13,)],
    2: [(1, 2), (7, 3), (3, 4), (7, 5)],
    3: [(1, 3, 7), (2, 4, 5), (5, 3, 9)],
}

CASES: dict[str, tuple[keras.Layer, Any]] = {}
for dims in (1, 2, 3):
    for kind in ("Max", "Average"):
        layer = getattr(L, f"Adaptive{kind}Pooling{dims}D")
        for size in OUTPUTS[dims]:
            name = f"{kind.lower()}{dims}d_{size}".replace(" ", "")
            CASES[name] = (layer(size), SIZES[dims])
        CASES[f"{kind.lower()}{dims}d_first"] = (layer(3, data_format="channels_first"), FIRST_SIZES[dims])
