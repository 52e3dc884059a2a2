"""Resizing and upsampling, with every way to interpolate.

On JAX: Keras's torch backend has another bicubic, and no Lanczos.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers as L

BACKEND = "jax"

IMAGE = (5, 4, 3)
METHODS = ("nearest", "bilinear", "bicubic", "lanczos3", "lanczos5")

CASES: dict[str, tuple[keras.Layer, Any]] = {
    **{
        f"resizing_{method}_{height}x{width}{'_antialias' * antialias}": (
            L.Resizing(height, width, method, antialias=antialias),
            (7, 5, 3),
        )
        for method in METHODS
        for height, width, antialias in ((11, 3, False), (14, 10, False), (11, 3, True), (2, 5, True))
    },
    **{
        f"resizing_{fit}_to_aspect_ratio_{height}x{width}": (
            L.Resizing(height, width, **{f"{fit}_to_aspect_ratio": True}),
            IMAGE,
        )
        for fit in ("crop", "pad")
        for height, width in ((6, 3), (4, 4), (10, 8), (1, 9))
    },
    "resizing_padded_with_a_value": (
        L.Resizing(4, 9, "bicubic", pad_to_aspect_ratio=True, fill_value=-2.5),
        IMAGE,
    ),
    **{
        f"resizing_channels_first_{method}{fit}": (
            L.Resizing(7, 3, method, fit == "crop", fit == "pad", data_format="channels_first"),
            (3, 5, 4),
        )
        for method, fit in (
            ("nearest", ""),
            ("bilinear", ""),
            ("bilinear", "pad"),
            ("bicubic", "crop"),
            ("lanczos5", ""),
        )
    },
    "resizing_one_channel": (L.Resizing(3, 9), (5, 4, 1)),
    "resizing_five_channels": (L.Resizing(3, 9), (1, 1, 5)),
    "resizing_to_the_same_size": (L.Resizing(5, 4), IMAGE),
    "resizing_one_axis": (L.Resizing(5, 7), IMAGE),
    "resizing_shrunk_far": (L.Resizing(2, 3, antialias=True), (37, 20, 1)),
    **{
        f"upsampling_2d_{method}_{rows}x{columns}_{data_format}": (
            L.UpSampling2D((rows, columns), data_format, method),
            IMAGE,
        )
        for method in METHODS
        for rows, columns, data_format in ((2, 2, "channels_last"), (3, 1, "channels_first"))
    },
    "upsampling_1d": (L.UpSampling1D(3), (5, 4)),
    "upsampling_1d_default": (L.UpSampling1D(), (5, 1)),
    "upsampling_1d_once": (L.UpSampling1D(1), (5, 3)),
    "upsampling_3d": (L.UpSampling3D((2, 1, 3)), (2, 3, 4, 3)),
    "upsampling_3d_default": (L.UpSampling3D(), (2, 3, 1, 5)),
    "upsampling_3d_channels_first": (L.UpSampling3D((1, 3, 2), "channels_first"), (3, 2, 3, 1)),
    **{
        f"center_crop_{height}x{width}": (L.CenterCrop(height, width), (6, 5, 3))
        for height, width in ((3, 2), (6, 5), (8, 9), (7, 3), (1, 12))
    },
    "center_crop_channels_first": (L.CenterCrop(3, 2, "channels_first"), (3, 6, 7)),
    "center_crop_channels_first_resized": (L.CenterCrop(9, 2, "channels_first"), (3, 6, 7)),
}
