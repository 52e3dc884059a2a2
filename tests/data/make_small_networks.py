"""Build three small image networks with Keras: a residual, an Inception-like and a MobileNet-like one.

    KERAS_BACKEND=jax python tests/data/make_small_networks.py

For each it writes ``small_<name>.keras`` and ``small_<name>_io.npz`` (``x`` (3, 32, 32, 3), ``y``, float32,
inference mode) beside this script. Weights and batch-norm statistics are random. On jax, whose average
pooling is right where padding is not symmetric.
"""

from __future__ import annotations

from math import prod, sqrt
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers as L

HERE = Path(__file__).resolve().parent
CLASSES = 6


def convolved(x: Any, filters: int, size: Any, strides: int = 1, activation: str = "relu") -> Any:
    """Convolution, batch norm, activation."""
    x = L.Conv2D(filters, size, strides, "same", use_bias=False)(x)
    return L.Activation(activation)(L.BatchNormalization()(x))


def classified(image: Any, x: Any, name: str) -> keras.Model:
    x = L.Dropout(0.2)(L.GlobalAveragePooling2D()(x))
    return keras.Model(image, L.Dense(CLASSES, activation="softmax")(x), name=name)


def residual() -> keras.Model:
    """Two stages of pre-activated blocks (He et al. 2016), the second with a projection."""
    image = keras.Input((32, 32, 3))
    x = L.MaxPooling2D(3, 2, "same")(convolved(image, 12, 7, 2))
    for filters, strides in ((12, 1), (20, 2), (20, 1)):
        active = L.ReLU()(L.BatchNormalization()(x))
        plain = filters == x.shape[-1] and strides == 1
        shortcut = x if plain else L.Conv2D(filters, 1, strides)(active)
        h = convolved(active, filters, 3, strides)
        x = L.Add()([shortcut, L.Conv2D(filters, 3, padding="same")(h)])
    return classified(image, L.ReLU()(L.BatchNormalization()(x)), "residual")


def inception() -> keras.Model:
    """Four branches side by side, with 1x5 and 5x1 kernels and a pooling (Szegedy et al. 2015, 2016)."""
    image = keras.Input((32, 32, 3))
    x = L.MaxPooling2D(3, 2)(convolved(image, 10, 3, 2))
    for narrow, wide in ((5, 7), (6, 9)):
        one = convolved(x, wide, 1)
        long = convolved(convolved(convolved(x, narrow, 1), narrow, (1, 5)), wide, (5, 1))
        double = convolved(convolved(convolved(x, narrow, 1), wide, 3), wide, 3)
        pooled = convolved(L.AveragePooling2D(3, 1, "same")(x), narrow, 1)
        x = L.Concatenate()([one, long, double, pooled])
    halved = L.BatchNormalization()(L.Conv2D(8, 3, 2, use_bias=False)(x))
    reduced = L.Concatenate()([L.MaxPooling2D(3, 2)(x), L.Activation("relu")(halved)])
    return classified(image, reduced, "inception")


def mobile() -> keras.Model:
    """Inverted residuals with squeeze and excitation (Sandler et al. 2018, Howard et al. 2019)."""
    image = keras.Input((32, 32, 3))
    x = L.Rescaling(1 / 127.5, offset=-1)(image)
    x = convolved(x, 8, 3, 2, "hard_silu")
    for filters, strides, activation in ((8, 1, "relu6"), (12, 2, "hard_silu"), (12, 1, "hard_silu")):
        h = convolved(x, 2 * x.shape[-1], 1, activation=activation)
        if strides == 2:
            h = L.ZeroPadding2D(((0, 1), (0, 1)))(h)
        h = L.DepthwiseConv2D(3, strides, "valid" if strides == 2 else "same", use_bias=False)(h)
        h = L.Activation(activation)(L.BatchNormalization()(h))
        gate = L.GlobalAveragePooling2D(keepdims=True)(h)
        gate = L.Conv2D(h.shape[-1], 1, activation="hard_sigmoid")(L.Conv2D(4, 1, activation="relu")(gate))
        h = L.BatchNormalization()(L.Conv2D(filters, 1, use_bias=False)(L.Multiply()([h, gate])))
        x = L.Add()([x, h]) if x.shape == h.shape else h
    return classified(image, x, "mobile")


def randomise(model: keras.Model, random: np.random.Generator) -> None:
    for variable in model.weights:
        shape = tuple(variable.shape)
        if len(shape) > 1:
            depthwise = "depthwise" in variable.path
            fan = prod(shape[:2]) if depthwise else prod(shape[:-1])
            value = random.standard_normal(shape, np.float32) * np.float32(sqrt(2 / fan))
        elif variable.name in ("gamma", "moving_variance"):
            value = random.random(shape, np.float32) * np.float32(0.8) + np.float32(0.6)
        else:
            value = random.standard_normal(shape, np.float32) * np.float32(0.2)
        variable.assign(value)


def main() -> None:
    for build in (residual, inception, mobile):
        keras.utils.clear_session()
        random = np.random.default_rng(2015)
        model = build()
        randomise(model, random)
        # Dark, plain and bright ones, so that the outputs differ.
        x = random.random((3, 32, 32, 3), np.float32) * np.float32([0.2, 0.6, 1.0])[:, None, None, None]
        if model.name == "mobile":
            x *= np.float32(255)
        y = keras.ops.convert_to_numpy(model(x, training=False))
        model.save(HERE / f"small_{model.name}.keras")
        np.savez_compressed(HERE / f"small_{model.name}_io.npz", x=x, y=y)
        print(model.name, f"{model.count_params():,} parameters", y.std(0).max(), y.max())


if __name__ == "__main__":
    main()
