"""Pooling of sequences, images and volumes. Keras's torch backend averages unequal padding wrongly."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers as L

BACKEND = "jax"
FIRST = "channels_first"

SIZES: dict[int, Any] = {1: (9, 3), 2: (7, 6, 3), 3: (5, 6, 7, 2)}
FIRST_SIZES: dict[int, Any] = {1: (3, 8), 2: (1, 6, 7), 3: (2, 4, 5, 6)}
WINDOWS: dict[int, list[Any]] = {1: [4], 2: [(3, 2)], 3: [(3, 2, 4)]}
STEPS: dict[int, Any] = {1: 3, 2: (1, 3), 3: (2, 1, 3)}


def cases(dims: int, kind: str) -> dict[str, tuple[keras.Layer, Any]]:
    pooling = getattr(L, f"{kind}Pooling{dims}D")
    whole = getattr(L, f"Global{kind}Pooling{dims}D")
    name, size, first = f"{kind.lower()}{dims}d", SIZES[dims], FIRST_SIZES[dims]
    return {
        f"{name}_default": (pooling(2), size),
        f"{name}_window": (pooling(WINDOWS[dims][0]), size),
        f"{name}_overlapping": (pooling(3, 2), size),
        f"{name}_same": (pooling(WINDOWS[dims][0], STEPS[dims], "same"), size),
        f"{name}_same_gaps": (pooling(2, 3, "same"), size),
        f"{name}_first": (pooling(2, 1, "same", data_format=FIRST), first),
        f"{name}_global": (whole(), size),
        f"{name}_global_kept": (whole(keepdims=True), size),
        f"{name}_global_first": (whole(data_format=FIRST), first),
        f"{name}_global_first_kept": (whole(data_format=FIRST, keepdims=True), first),
    }


CASES = {
    key: case for dims in (1, 2, 3) for kind in ("Max", "Average") for key, case in cases(dims, kind).items()
}
