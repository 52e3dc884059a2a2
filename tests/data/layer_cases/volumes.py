"""Convolution of sequences and volumes, its transpose, padding and cropping, with every argument of each."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers as L

FIRST = "channels_first"

SEQUENCE: dict[str, tuple[keras.Layer, Any]] = {
    "conv1d": (L.Conv1D(5, 3), (9, 3)),
    "conv1d_one_step": (L.Conv1D(1, 1, activation="relu"), (4, 1)),
    "conv1d_same_strided": (L.Conv1D(4, 4, 3, "same"), (10, 3)),
    "conv1d_same_even": (L.Conv1D(4, 2, padding="same", use_bias=False), (7, 5)),
    "conv1d_dilated": (L.Conv1D(3, 3, dilation_rate=2, activation="tanh"), (9, 3)),
    "conv1d_dilated_same": (L.Conv1D(3, 2, padding="same", dilation_rate=3), (8, 3)),
    "conv1d_groups": (L.Conv1D(6, 3, 2, groups=3), (9, 6)),
    "conv1d_causal": (L.Conv1D(4, 3, padding="causal"), (7, 3)),
    "conv1d_causal_strided": (L.Conv1D(4, 3, 2, padding="causal"), (8, 3)),
    "conv1d_causal_dilated": (L.Conv1D(4, 3, padding="causal", dilation_rate=2, groups=2), (8, 4)),
    "conv1d_first": (L.Conv1D(4, 3, 2, "same", data_format=FIRST, activation="relu"), (3, 9)),
    "conv1d_first_causal": (L.Conv1D(4, 2, padding="causal", data_format=FIRST), (3, 6)),
    "conv1d_softmax_first": (L.Conv1D(3, 2, data_format=FIRST, activation="softmax"), (5, 6)),
    "depthwise1d": (L.DepthwiseConv1D(3), (8, 3)),
    "depthwise1d_multiplier": (
        L.DepthwiseConv1D(3, 2, "same", depth_multiplier=2, activation="relu"),
        (8, 5),
    ),
    "depthwise1d_dilated_first": (
        L.DepthwiseConv1D(2, dilation_rate=3, data_format=FIRST, use_bias=False),
        (3, 9),
    ),
    "depthwise1d_strided_and_dilated": (L.DepthwiseConv1D(2, 2, dilation_rate=2), (9, 3)),
    "depthwise2d_strided_and_dilated": (L.DepthwiseConv2D(2, 2, dilation_rate=(1, 2)), (7, 8, 3)),
    "separable1d": (L.SeparableConv1D(5, 3), (8, 3)),
    "separable1d_strided": (
        L.SeparableConv1D(4, 2, 3, "same", depth_multiplier=3, activation="softmax"),
        (10, 3),
    ),
    "separable1d_dilated_first": (
        L.SeparableConv1D(4, 3, padding="same", dilation_rate=2, use_bias=False, data_format=FIRST),
        (5, 7),
    ),
    "separable2d_first": (L.SeparableConv2D(4, (3, 2), 2, "same", data_format=FIRST), (3, 7, 6)),
    "padding1d": (L.ZeroPadding1D(), (4, 3)),
    "padding1d_pair": (L.ZeroPadding1D((0, 3)), (4, 1)),
    "padding1d_first": (L.ZeroPadding1D((2, 1), data_format=FIRST), (3, 4)),
    "cropping1d": (L.Cropping1D(), (5, 3)),
    "cropping1d_pair": (L.Cropping1D((0, 3)), (5, 3)),
    "padding2d_first": (L.ZeroPadding2D(((1, 2), (0, 3)), data_format=FIRST), (3, 4, 5)),
    "cropping2d_first": (L.Cropping2D((1, 2), data_format=FIRST), (3, 4, 6)),
}

TRANSPOSED = {
    f"transposed1d_k{k}_s{s}_{padding}_extra{extra}_d{d}": (
        L.Conv1DTranspose(4, k, s, padding, output_padding=extra, dilation_rate=d),
        (5, 3),
    )
    for k, s, padding, extra, d in (
        (3, 1, "valid", None, 1),
        (3, 2, "same", None, 1),
        (2, 3, "valid", None, 1),
        (4, 2, "same", None, 1),
        (3, 2, "same", 1, 1),
        (3, 2, "valid", 1, 1),
        (3, 1, "same", None, 2),
        (2, 3, "same", None, 1),
        (5, 3, "same", 0, 1),
        (4, 3, "same", 2, 1),
    )
} | {
    "transposed1d_first": (
        L.Conv1DTranspose(4, 3, 2, "same", data_format=FIRST, activation="relu", use_bias=False),
        (3, 5),
    ),
}

VOLUME: dict[str, tuple[keras.Layer, Any]] = {
    "conv3d": (L.Conv3D(3, 2), (4, 5, 3, 3)),
    "conv3d_one_tap": (L.Conv3D(4, 1, activation="relu"), (2, 3, 4, 3)),
    "conv3d_flat": (L.Conv3D(2, (1, 3, 2), padding="same"), (3, 4, 5, 1)),
    "conv3d_deep": (L.Conv3D(2, (3, 1, 1), use_bias=False), (5, 2, 3, 3)),
    "conv3d_same": (L.Conv3D(3, (2, 3, 2), padding="same", activation="relu"), (3, 4, 5, 1)),
    "conv3d_strided": (L.Conv3D(3, (3, 2, 3), (2, 3, 1), "same"), (5, 7, 4, 2)),
    "conv3d_strided_valid": (L.Conv3D(3, (2, 2, 1), (3, 3, 2)), (7, 8, 5, 3)),
    "conv3d_strides_only": (L.Conv3D(2, 1, 2), (5, 4, 3, 3)),
    "conv3d_dilated": (L.Conv3D(2, 2, dilation_rate=(2, 1, 3), padding="same"), (4, 3, 5, 3)),
    "conv3d_dilated_valid": (L.Conv3D(2, (2, 3, 1), dilation_rate=2), (4, 6, 2, 3)),
    "conv3d_groups": (L.Conv3D(6, (2, 3, 2), groups=3, padding="same"), (3, 4, 3, 6)),
    "conv3d_first": (
        L.Conv3D(4, (2, 3, 2), (1, 2, 2), "same", data_format=FIRST, groups=2, activation="tanh"),
        (2, 4, 5, 3),
    ),
    "conv3d_softmax_first": (L.Conv3D(3, 2, data_format=FIRST, activation="softmax"), (2, 3, 3, 4)),
    "padding3d": (L.ZeroPadding3D(), (2, 3, 2, 2)),
    "padding3d_sizes": (L.ZeroPadding3D((0, 1, 2)), (2, 3, 2, 1)),
    "padding3d_first": (L.ZeroPadding3D(((1, 0), (0, 2), (1, 1)), data_format=FIRST), (3, 2, 1, 2)),
    "cropping3d": (L.Cropping3D(), (4, 3, 5, 2)),
    "cropping3d_first": (L.Cropping3D(((1, 0), (0, 2), (1, 1)), data_format=FIRST), (3, 2, 4, 3)),
}

TRANSPOSED_VOLUME = {
    f"transposed3d_{i}": (L.Conv3DTranspose(2, k, s, padding, output_padding=extra, dilation_rate=d), shape)
    for i, (k, s, padding, extra, d, shape) in enumerate(
        (
            (2, 1, "valid", None, 1, (2, 3, 2, 3)),
            ((3, 2, 1), 2, "same", None, 1, (2, 3, 2, 3)),
            (2, (1, 2, 3), "valid", None, 1, (3, 2, 2, 1)),
            (3, 2, "same", 1, 1, (2, 2, 3, 1)),
            ((2, 3, 4), (3, 2, 2), "same", (2, 1, 0), 1, (2, 2, 3, 3)),
            ((3, 2, 3), 2, "valid", (1, 0, 1), 1, (2, 2, 2, 2)),
            ((2, 3, 2), 1, "same", None, (3, 2, 1), (3, 4, 2, 2)),
            (1, (3, 2, 2), "valid", None, 1, (2, 2, 2, 3)),
        )
    )
} | {
    "transposed3d_first": (
        L.Conv3DTranspose(
            4, (2, 3, 2), (2, 2, 1), "same", data_format=FIRST, activation="relu", use_bias=False
        ),
        (3, 2, 2, 3),
    ),
}

CASES = SEQUENCE | TRANSPOSED | VOLUME | TRANSPOSED_VOLUME
