"""Nine small networks that ours and Keras's layers make alike, and data for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

BATCH, STEPS = 4, 50
"""Five epochs of ten batches."""


@dataclass(frozen=True)
class Case:
    """make: the network by `cl` or by `keras`. target: the shape of one; () for one class."""

    make: Callable[[Any], Any]
    image: tuple[int, ...]
    loss: str
    target: tuple[int, ...] = ()

    def data(self, count: int = BATCH * STEPS // 5) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        generator = np.random.default_rng(0)
        x = generator.normal(size=(count, *self.image)).astype(np.float32)
        if self.loss == "mse":
            return x, generator.normal(size=(count, *self.target)).astype(np.float32)
        classes = generator.integers(0, 3, (count, *self.target))
        return x, np.eye(3, dtype=np.float32)[classes] if self.loss == "probabilities" else classes


def dense(lib: Any) -> Any:
    L = lib.layers
    x = lib.Input((6,))
    h = L.Dense(9, activation="tanh")(x)
    h = L.Dense(7, activation="relu")(h)
    h = L.Dense(5, activation="gelu", kernel_regularizer="l2")(h)
    return lib.Model(x, L.Dense(3)(h))


def lenet(lib: Any) -> Any:
    L = lib.layers
    x = lib.Input((12, 12, 1))
    h = L.MaxPooling2D()(L.Conv2D(3, 5, padding="same", activation="relu")(x))
    h = L.AveragePooling2D(2)(L.Conv2D(4, 3, activation="tanh")(h))
    h = L.Dense(8, activation="relu")(L.Flatten()(h))
    return lib.Model(x, L.Dense(3)(h))


def residual(lib: Any) -> Any:
    """No bias before a batch norm, which takes it away again: its gradient would be rounding and no more."""
    L = lib.layers
    x = lib.Input((6, 6, 2))
    h = L.Conv2D(4, 3, padding="same", use_bias=False)(x)
    h = first = L.ReLU()(L.BatchNormalization()(h))
    h = L.Conv2D(6, 3, strides=2, padding="same", use_bias=False)(h)
    h = L.ReLU()(L.BatchNormalization()(h))
    h = L.BatchNormalization(momentum=0.9)(L.Conv2D(6, 3, padding="same", use_bias=False)(h))
    short = L.BatchNormalization()(L.Conv2D(6, 1, strides=2, use_bias=False)(first))
    h = L.GlobalAveragePooling2D()(L.ReLU()(L.Add()([h, short])))
    return lib.Model(x, L.Dense(3)(h))


def group_norm(lib: Any) -> Any:
    L = lib.layers
    x = lib.Input((6, 5, 2))
    h = L.GroupNormalization(groups=2)(L.Conv2D(4, 3, padding="same")(x))
    h = L.Conv2D(6, 3, activation="silu")(L.Activation("silu")(h))
    h = L.GroupNormalization(groups=3, epsilon=1e-5)(h)
    return lib.Model(x, L.Dense(3)(L.GlobalAveragePooling2D()(h)))


def separable(lib: Any) -> Any:
    L = lib.layers
    x = lib.Input((8, 7, 2))
    h = L.SeparableConv2D(4, 3, depth_multiplier=2, activation="relu")(x)
    h = L.DepthwiseConv2D(3, padding="same", use_bias=False)(h)
    h = L.Activation("relu6")(L.BatchNormalization()(h))
    h = L.SeparableConv2D(5, 3, strides=2, padding="same", activation="elu")(h)
    return lib.Model(x, L.Dense(3)(L.Flatten()(h)))


def u_net(lib: Any) -> Any:
    L = lib.layers
    x = lib.Input((8, 8, 2))
    fine = L.Conv2D(3, 3, padding="same", activation="relu")(x)
    middle = L.Conv2D(4, 3, padding="same", activation="relu")(L.MaxPooling2D()(fine))
    h = L.Conv2D(6, 3, padding="same", activation="relu")(L.MaxPooling2D()(middle))
    h = L.Conv2DTranspose(4, 2, strides=2, padding="same")(h)
    h = L.Conv2D(4, 3, padding="same", activation="relu")(L.Concatenate()([h, middle]))
    h = L.Conv2DTranspose(3, 3, strides=2, padding="same", activation="relu")(h)
    h = L.Conv2D(3, 3, padding="same", activation="relu")(L.Concatenate()([h, fine]))
    return lib.Model(x, L.Conv2D(1, 1)(h))


def attention(lib: Any) -> Any:
    """A layer of a transformer over the places of a map.

    No biases in the attention: a softmax takes that of the keys away again, whose gradient is rounding alone.
    """
    L = lib.layers
    x = lib.Input((4, 3, 2))
    h = L.Reshape((12, 6))(L.Conv2D(6, 3, padding="same", activation="relu")(x))
    h = L.Add()([h, L.MultiHeadAttention(num_heads=2, key_dim=3, use_bias=False)(h, h)])
    h = L.LayerNormalization()(h)
    h = L.Add()([h, L.Dense(6)(L.Dense(10, activation="gelu")(h))])
    return lib.Model(x, L.Dense(3)(L.GlobalAveragePooling1D()(L.LayerNormalization()(h))))


def segmentation(lib: Any) -> Any:
    """A softmax for each pixel."""
    L = lib.layers
    x = lib.Input((6, 6, 2))
    h = L.Conv2D(5, 3, padding="same", activation="relu")(x)
    h = L.Conv2D(5, 3, padding="same", dilation_rate=2, use_bias=False)(h)
    h = L.ReLU()(L.BatchNormalization()(h))
    return lib.Model(x, L.Conv2D(3, 1, activation="softmax")(h))


def shared_norm(lib: Any) -> Any:
    """One batch norm called twice: each call takes its own statistics and moves the same averages."""
    L = lib.layers
    x = lib.Input((6, 5, 2))
    norm, conv = L.BatchNormalization(momentum=0.8), L.Conv2D(3, 3, padding="same", use_bias=False)
    h = L.ReLU()(norm(L.Conv2D(3, 3, padding="same", use_bias=False)(x)))
    h = L.ReLU()(norm(conv(h)))
    return lib.Model(x, L.Dense(3)(L.Flatten()(conv(h))))


NINE: dict[str, Case] = {
    "dense": Case(dense, (6,), "classes"),
    "lenet": Case(lenet, (12, 12, 1), "classes"),
    "residual": Case(residual, (6, 6, 2), "classes"),
    "group_norm": Case(group_norm, (6, 5, 2), "classes"),
    "separable": Case(separable, (8, 7, 2), "classes"),
    "u_net": Case(u_net, (8, 8, 2), "mse", (8, 8, 1)),
    "attention": Case(attention, (4, 3, 2), "classes"),
    "segmentation": Case(segmentation, (6, 6, 2), "probabilities", (6, 6)),
    "shared_norm": Case(shared_norm, (6, 5, 2), "classes"),
}
