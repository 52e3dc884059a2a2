"""Normalisation where Keras's torch backend fails: axes before the last ones, and scaling by the variance."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers as L

BACKEND = "jax"

SQUARE = (3, 3, 3)

CASES: dict[str, tuple[keras.Layer, Any]] = {
    **{
        f"layer_norm_volume_axes_{'_'.join(map(str, axes))}": (L.LayerNormalization(axes), (2, 3, 2, 5))
        for axes in ([1], [2, 3], [1, 4], [-2], [2, -1])
    },
    "layer_norm_axis_before_last": (L.LayerNormalization(-2), (4, 5, 3)),
    "layer_norm_rms": (L.LayerNormalization(rms_scaling=True), (4, 5, 3)),
    "layer_norm_rms_axes": (L.LayerNormalization([1, 2], scale=False, rms_scaling=True), (4, 5, 3)),
    # Here the scale lies along the last axes, not along those of the mean.
    "rms_axis_1": (L.RMSNormalization(axis=1), SQUARE),
    "rms_two_axes": (L.RMSNormalization(axis=(1, 2)), SQUARE),
    "batch_norm_sequence": (L.BatchNormalization(axis=1, epsilon=0.05), (5, 4)),
}
