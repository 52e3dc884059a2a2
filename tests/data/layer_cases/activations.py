"""Every activation: by name, as a layer, and as a layer that stands as another's activation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers as L

IMAGE = (3, 4, 5)
ODD = (5, 4, 3)

NAMES = (
    *("relu", "relu6", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "swish", "mish", "hard_silu"),
    *("hard_swish", "sigmoid", "hard_sigmoid", "sparse_sigmoid", "log_sigmoid", "tanh", "hard_tanh"),
    *("tanh_shrink", "hard_shrink", "soft_shrink", "softplus", "squareplus", "sparse_plus", "softsign"),
    *("exponential", "linear", "softmax", "log_softmax"),
)


def wide(layer: Any, factor: float = 4.0) -> Callable[[Any], Any]:
    """The layer on values four times as wide, which pass every bend."""
    return lambda x: layer(factor * x)


def prelu(*shape: int, **arguments: Any) -> keras.Layer:
    """One with its weights made, which Keras otherwise leaves until the model runs."""
    layer = L.PReLU(**arguments)
    layer.build((None, *shape))
    return layer


CASES: dict[str, tuple[Any, Any]] = {
    **{f"name_{name}": (wide(L.Activation(name)), IMAGE) for name in NAMES},
    "name_glu": (L.Activation("glu"), (3, 4, 6)),
    "function": (L.Activation(keras.ops.silu), (5,)),
    # Keras 3.15.1 is wrong where more than one value stays above 0 (its issue 23425): here one does
    "name_sparsemax": (wide(L.Activation("sparsemax"), 50.0), IMAGE),
    "sparsemax_vector": (wide(L.Activation("sparsemax"), 50.0), (17,)),
    "sparsemax_one_column": (L.Activation("sparsemax"), (3, 1)),
    # layers and their arguments
    "relu": (wide(L.ReLU()), IMAGE),
    "relu_most": (wide(L.ReLU(max_value=2.5)), IMAGE),
    "relu_nothing": (wide(L.ReLU(max_value=0)), IMAGE),
    "relu_threshold": (wide(L.ReLU(threshold=1.5)), IMAGE),
    "relu_threshold_above_most": (wide(L.ReLU(max_value=1.0, threshold=1.5)), IMAGE),
    "relu_slope_and_threshold": (wide(L.ReLU(negative_slope=0.25, threshold=0.5)), IMAGE),
    "relu_of_numpy": (
        wide(L.ReLU(np.float32(2.5), negative_slope=np.float64(0.2), threshold=np.float32(0.5))),
        IMAGE,
    ),
    "leaky_relu": (wide(L.LeakyReLU()), IMAGE),
    "leaky_relu_slope": (wide(L.LeakyReLU(negative_slope=0.05)), (7, 3)),
    "leaky_relu_flat": (wide(L.LeakyReLU(0.0)), (5,)),
    "elu": (wide(L.ELU()), IMAGE),
    "elu_alpha": (wide(L.ELU(alpha=0.4)), (5,)),
    "prelu_vector": (L.PReLU(), (5,)),
    "prelu_sequence": (L.PReLU(shared_axes=1), (7, 3)),
    "prelu_image": (L.PReLU(shared_axes=[1, 3]), ODD),
    "prelu_volume": (L.PReLU(shared_axes=(1, 2, 3)), (2, 3, 4, 3)),
    "softmax": (wide(L.Softmax()), IMAGE),
    "softmax_axis": (wide(L.Softmax(axis=1)), IMAGE),
    "softmax_list_of_one": (wide(L.Softmax(axis=[-2])), IMAGE),
    "softmax_two_axes": (wide(L.Softmax(axis=[1, 2])), IMAGE),
    "softmax_apart": (wide(L.Softmax(axis=(-1, 1))), ODD),
    "softmax_everything": (wide(L.Softmax(axis=[1, 2, 3])), IMAGE),
    "softmax_last_two": (wide(L.Softmax(axis=[-1, -2])), (2, 3, 4)),
    # as the activation of others
    "conv_leaky": (L.Conv2D(4, 3, activation=L.LeakyReLU(0.1)), ODD),
    "conv_relu6": (L.Conv2D(4, 3, activation=L.ReLU(max_value=6)), ODD),
    "conv_elu_channels_first": (
        L.Conv2D(4, 2, activation=L.ELU(0.5), data_format="channels_first", padding="same"),
        (3, 5, 4),
    ),
    "conv_prelu": (L.Conv2D(4, 3, activation=prelu(3, 2, 4)), ODD),
    "conv_prelu_channels_first": (
        L.Conv2D(2, 3, activation=prelu(2, 3, 2, shared_axes=[3]), data_format="channels_first"),
        (3, 5, 4),
    ),
    "conv_softmax_channels_first": (
        L.Conv2D(4, 2, activation="softmax", data_format="channels_first"),
        (3, 5, 4),
    ),
    "conv_softmax_of_channels": (
        L.Conv2D(4, 2, activation=L.Softmax(axis=1), data_format="channels_first"),
        (3, 5, 4),
    ),
    "conv_glu_channels_first": (L.Conv2D(3, 2, activation="glu", data_format="channels_first"), (3, 5, 7)),
    "conv_sparsemax_channels_first": (
        wide(L.Conv2D(3, 2, activation="sparsemax", data_format="channels_first"), 50.0),
        (3, 5, 6),
    ),
    "dense_glu": (L.Dense(6, activation="glu"), (5,)),
    "dense_log_softmax": (L.Dense(6, activation="log_softmax"), (5,)),
    "dense_prelu": (L.Dense(3, activation=prelu(4, 3, shared_axes=[1])), (4, 5)),
    "depthwise_prelu": (L.DepthwiseConv2D(2, activation=prelu(4, 3, 3, shared_axes=[1, 2])), ODD),
    "separable_leaky": (L.SeparableConv2D(3, 2, activation=L.LeakyReLU()), ODD),
    "transposed_prelu": (L.Conv2DTranspose(2, 2, 2, activation=prelu(10, 8, 2)), ODD),
    "activation_of_layer": (wide(L.Activation(L.ReLU(1.0, 0.1))), IMAGE),
    "activation_of_activation": (L.Activation(L.Activation(prelu(*ODD))), ODD),
    "conv_activation_of_softmax": (L.Conv2D(4, 3, activation=L.Activation(L.Softmax(axis=-1))), ODD),
}
