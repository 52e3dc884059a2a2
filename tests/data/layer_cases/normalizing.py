"""Normalisation and rescaling: every axis and rank, statistics given and as weights."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers as L

SHAPES = {
    "features": (6,),
    "sequence": (5, 6),
    "image": (4, 5, 6),
    "volume": (2, 3, 2, 6),
    "six_axes": (2, 3, 1, 2, 6),
}
DEEP = {name: SHAPES[name] for name in ("features", "volume", "six_axes")}
IMAGE = (4, 5, 3)


def numbers(*shape: int, least: float = -1.0) -> Any:
    """Different numbers from `least` on, as nested lists."""
    return (least + np.arange(np.prod(shape)).reshape(shape) / 8).tolist()


CASES: dict[str, tuple[keras.Layer, Any]] = {
    # batch normalisation, on each axis of each rank
    **{
        f"batch_norm_{name}_axis_{axis}": (L.BatchNormalization(axis=axis), shape)
        for name, shape in SHAPES.items()
        for axis in sorted({-1, 1, 2} & {-1, *range(1, len(shape))})
    },
    "batch_norm_bare": (L.BatchNormalization(center=False, scale=False, epsilon=0.1), IMAGE),
    "batch_norm_no_scale": (L.BatchNormalization(scale=False, momentum=0.5), (5, 4)),
    "batch_norm_no_center": (L.BatchNormalization(center=False, axis=1), IMAGE),
    # statistics of each sample
    **{f"layer_norm_{name}": (L.LayerNormalization(), shape) for name, shape in SHAPES.items()},
    "layer_norm_volume_sample": (L.LayerNormalization(axis=(1, 2, 3, 4), epsilon=0.1), (2, 3, 2, 5)),
    "layer_norm_bare": (L.LayerNormalization(center=False, scale=False), (4, 3)),
    **{f"group_norm_{name}": (L.GroupNormalization(3, epsilon=0.05), s) for name, s in SHAPES.items()},
    "group_norm_volume_axis_1": (L.GroupNormalization(2, axis=1), (4, 3, 2, 3)),
    "group_norm_sequence_bare": (L.GroupNormalization(1, center=False, scale=False, epsilon=0.1), (5, 6)),
    "instance_norm_volume": (L.GroupNormalization(-1), (2, 3, 2, 5)),
    **{f"unit_{name}": (L.UnitNormalization(), shape) for name, shape in DEEP.items()},
    "unit_volume_axis_1": (L.UnitNormalization(axis=1), (2, 3, 2, 5)),
    "unit_volume_axes": (L.UnitNormalization(axis=(1, -1)), (2, 3, 2, 5)),
    **{f"rms_{name}": (L.RMSNormalization(), shape) for name, shape in DEEP.items()},
    "rms_last_axes": (L.RMSNormalization(axis=(2, 3), epsilon=0.1), IMAGE),
    "rms_sample": (L.RMSNormalization(axis=[1, 2, 3]), IMAGE),
    **{f"softmax_{name}": (L.Softmax(), shape) for name, shape in DEEP.items()},
    "softmax_volume_axis_2": (L.Softmax(axis=2), (2, 3, 2, 5)),
    "prelu_volume": (L.PReLU(shared_axes=[2, 3]), (2, 3, 2, 5)),
    "permute_six_axes": (L.Permute((3, 5, 1, 4, 2)), (2, 3, 1, 2, 5)),
    "concatenate_volumes": (L.Concatenate(axis=2), [(2, 3, 2, 5), (2, 1, 2, 5)]),
    # statistics of the data set
    "standard_axis_1": (L.Normalization(axis=1, mean=numbers(4), variance=numbers(4, least=0.5)), IMAGE),
    "standard_axis_2_inverse": (
        L.Normalization(axis=2, mean=numbers(5), variance=numbers(5, least=0.5), invert=True),
        IMAGE,
    ),
    "standard_two_axes": (
        L.Normalization(axis=(1, 3), mean=numbers(4, 3), variance=numbers(4, 3, least=0.5)),
        IMAGE,
    ),
    "standard_two_axes_one_given": (
        L.Normalization(axis=(1, 3), mean=numbers(3), variance=numbers(3, least=0.5)),
        IMAGE,
    ),
    "standard_two_axes_one_of_size_1": (
        L.Normalization(axis=(1, 3), mean=numbers(4, 1), variance=numbers(4, 1, least=0.5)),
        IMAGE,
    ),
    "standard_axes_out_of_order": (
        L.Normalization(axis=(3, 1), mean=numbers(4, 3), variance=numbers(4, 3, least=0.5)),
        IMAGE,
    ),
    "standard_every_axis": (
        L.Normalization(axis=(1, 2, -1), mean=numbers(*IMAGE), variance=numbers(*IMAGE, least=0.5)),
        IMAGE,
    ),
    "standard_number_for_an_axis": (L.Normalization(axis=1, mean=2.0, variance=0.25), IMAGE),
    "standard_no_axis": (L.Normalization(axis=None, mean=2.0, variance=0.25, invert=True), (5, 4)),
    "standard_no_variance": (L.Normalization(mean=numbers(3), variance=[0.0, 1e-18, 4.0]), (3,)),
    "standard_weights_axis_1": (L.Normalization(axis=1), IMAGE),
    "standard_weights_two_axes": (L.Normalization(axis=(1, 3)), IMAGE),
    "standard_weights_inverse": (L.Normalization(axis=(2, 1), invert=True), (4, 5, 3)),
    "standard_weights_no_axis": (L.Normalization(axis=None), IMAGE),
    "standard_weights_volume": (L.Normalization(axis=(2, 4)), (2, 3, 2, 5)),
    "standard_features": (L.Normalization(), (6,)),
    # numbers known beforehand
    "rescaling_numbers": (L.Rescaling(1 / 127.5, -1), IMAGE),
    "rescaling_offsets": (L.Rescaling(2.0, numbers(3)), IMAGE),
    "rescaling_nested": (L.Rescaling(numbers(5, 3), numbers(4, 1, 1)), IMAGE),
    "rescaling_channels_first": (L.Rescaling(numbers(3, 1, 1), numbers(3, 1, 1)), (3, 4, 5)),
    "rescaling_whole_image": (L.Rescaling(numbers(*IMAGE)), IMAGE),
    "rescaling_with_a_batch_axis": (L.Rescaling(numbers(1, 4, 1, 3), 0.5), IMAGE),
    "rescaling_arrays": (L.Rescaling(np.float32([1, 2, 3]), np.float32([[1], [2], [3], [4], [5]])), IMAGE),
    "rescaling_list_of_one": (L.Rescaling([3.0], [[0.5]]), (4,)),
    "rescaling_volume": (L.Rescaling(numbers(2, 1, 2, 1), numbers(5)), (2, 3, 2, 5)),
    # layers inside
    "spectral_dense": (L.SpectralNormalization(L.Dense(4, activation="relu")), (6,)),
    "spectral_conv": (
        L.SpectralNormalization(L.Conv2D(4, 3, 2, "same", use_bias=False), power_iterations=3),
        IMAGE,
    ),
    "spectral_transposed": (L.SpectralNormalization(L.Conv2DTranspose(2, 3, 2)), IMAGE),
    "spectral_depthwise": (L.SpectralNormalization(L.DepthwiseConv2D(3)), IMAGE),
}
