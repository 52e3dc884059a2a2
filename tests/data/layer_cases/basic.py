"""Depthwise and transposed convolution, normalisation, activations, merges and the small layers."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers as L

IMAGE = (4, 5, 3)
WIDE = (4, 5, 6)

CASES: dict[str, tuple[keras.Layer, Any]] = {
    "depthwise_multiplier": (
        L.DepthwiseConv2D(3, 2, "same", depth_multiplier=2, activation="relu"),
        (9, 8, 3),
    ),
    "depthwise_channels_first": (
        L.DepthwiseConv2D(3, padding="same", data_format="channels_first"),
        (3, 9, 8),
    ),
    "depthwise_dilated": (L.DepthwiseConv2D((3, 2), dilation_rate=2, use_bias=False), (9, 8, 3)),
    "separable": (L.SeparableConv2D(5, 3, 2, "same", depth_multiplier=2, activation="softmax"), (9, 8, 3)),
    "layer_norm": (L.LayerNormalization(), WIDE),
    "layer_norm_sample": (L.LayerNormalization(axis=[1, 2, 3], center=False), WIDE),
    "layer_norm_two_axes": (L.LayerNormalization(axis=[1, 3]), WIDE),
    "group_norm": (L.GroupNormalization(3), WIDE),
    "instance_norm": (L.GroupNormalization(-1, scale=False), WIDE),
    "group_norm_first_axis": (L.GroupNormalization(2, axis=1), WIDE),
    "unit": (L.UnitNormalization(), WIDE),
    "unit_two_axes": (L.UnitNormalization(axis=[1, 2]), WIDE),
    "normalization": (L.Normalization(mean=[1.0, 2.0, 3.0], variance=[1.0, 4.0, 0.25]), IMAGE),
    "normalization_inverse": (
        L.Normalization(mean=[1.0, 2.0, 3.0], variance=[1.0, 4.0, 9.0], invert=True),
        IMAGE,
    ),
    "normalization_one_mean": (L.Normalization(axis=None, mean=2.0, variance=4.0), IMAGE),
    "normalization_weights": (L.Normalization(), IMAGE),
    "rescaling_lists": (L.Rescaling([1.0, 2.0, 3.0], [0.0, 1.0, 0.5]), IMAGE),
    "rescaling_list_and_number": (L.Rescaling([1.0, 2.0, 3.0], 0.5), IMAGE),
    "relu_everything": (L.ReLU(max_value=1.5, negative_slope=0.2, threshold=0.3), IMAGE),
    "relu_slope_and_six": (L.ReLU(max_value=6, negative_slope=0.2), IMAGE),
    "prelu": (L.PReLU(), IMAGE),
    "prelu_shared": (L.PReLU(shared_axes=[1, 2]), IMAGE),
    **{
        name: (L.Activation(name), IMAGE)
        for name in ("hard_silu", "hard_sigmoid", "hard_swish", "mish", "softplus", "softsign", "exponential")
    },
    "upsampling": (L.UpSampling2D((2, 3)), IMAGE),
    "upsampling_channels_first": (L.UpSampling2D(2, data_format="channels_first"), (3, 4, 5)),
    "repeat_vector": (L.RepeatVector(3), (5,)),
    "center_crop": (L.CenterCrop(3, 2), (6, 7, 3)),
    "spatial_dropout_2d": (L.SpatialDropout2D(0.3), IMAGE),
    "spatial_dropout_1d": (L.SpatialDropout1D(0.3), (4, 5)),
    "dropout_noise_shape": (L.Dropout(0.3, noise_shape=[None, 1, 1, 3]), IMAGE),
    "identity": (L.Identity(), IMAGE),
    "activity_regularization": (L.ActivityRegularization(0.1, 0.2), IMAGE),
    "maximum": (L.Maximum(), [IMAGE] * 3),
    "minimum": (L.Minimum(), [IMAGE] * 2),
    "average": (L.Average(), [IMAGE] * 3),
    "transposed_channels_first": (
        L.Conv2DTranspose(4, 3, 2, "same", data_format="channels_first", activation="relu"),
        (3, 5, 6),
    ),
    **{
        f"transposed_k{k}_s{s}_{padding}_extra{extra}_d{d}": (
            L.Conv2DTranspose(4, k, s, padding, output_padding=extra, dilation_rate=d),
            (5, 6, 3),
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
            (5, 3, "same", (0, 1), 1),
        )
    },
}
