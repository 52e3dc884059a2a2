"""Networks to save for Keras, and what they compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from convloom.frontends import layers as L
from helpers import evaluate

import convloom as cl

DATA = Path(__file__).parent / "data"
Json = dict[str, Any]


def outputs(model: cl.Model, *inputs: np.ndarray) -> list[np.ndarray]:
    given = {tensor.node.block.name: x for tensor, x in zip(model.inputs, inputs, strict=True)}
    return [y.numpy() for y in evaluate(model.to_graph(), model.parameters, given).values()]


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).normal(size=shape).astype(np.float32)


def randomised(model: cl.Model) -> cl.Model:
    """Weights that no default gives, variances positive."""
    generator = torch.Generator().manual_seed(1)
    for name, value in model.parameters.items():
        model.parameters[name] = torch.rand(value.shape, generator=generator) + 0.1
    return model


# -- networks ------------------------------------------------------------------------------------------------
def chain() -> cl.Model:
    layers = [
        L.Conv2D(5, (3, 2), strides=2, padding="same", activation="relu"),
        L.LeakyReLU(0.2),
        L.MaxPooling2D(2),
        L.Dropout(0.25, seed=3),
        L.Flatten(),
        L.Dense(4, activation="softmax", kernel_initializer="he_normal"),
    ]
    return cl.Sequential([cl.Input((9, 8, 3)), *layers], name="chain")


def residual() -> cl.Model:
    """Two branches, arithmetic with tensors and numbers on either side, a layer that reads itself."""
    x = cl.Input((8, 7, 3), name="image")
    y = L.Conv2D(4, 3, padding="same", use_bias=False, name="stem/conv")(x)
    y = L.BatchNormalization(scale=False, epsilon=1e-5)(y)
    shared = L.Conv2D(4, 3, padding="same", activation="tanh", name="shared")
    y = shared(shared(y))
    z = L.Add()([y, L.Conv2D(4, 1, groups=2)(y)])
    z = 2.0 - (z * 0.5 + 1.0)
    z = z - y
    z = L.Concatenate()([z * y, -y, z / 4.0 - 3.0])
    pooled = L.GlobalAveragePooling2D(keepdims=True)(z)
    return cl.Model(x, L.Dense(3)(L.Flatten()(z * pooled)))


def nested() -> cl.Model:
    """Models inside models, called twice, whose outputs are outputs; several inputs and outputs."""
    inner = cl.Sequential([cl.Input((6, 6, 2)), L.Conv2D(2, 3, padding="same"), L.ReLU(max_value=6.0)])
    a, b = cl.Input((6, 6, 2), name="a"), cl.Input((6, 6, 2), name="b")
    p, q = cl.Input((6, 6, 2)), cl.Input((6, 6, 2))
    pair = cl.Model([p, q], [L.Add()([L.Conv2D(2, 1)(p), q]), L.Subtract()([p, inner(q)])], name="pair")
    first, second = pair([a, inner(b)])
    third, fourth = pair([second, first])
    return cl.Model([b, a], [third, inner(fourth), first])


def twice() -> cl.Model:
    """One layer in two models of the same network."""
    shared = L.Conv2D(3, 3, padding="same", name="both")
    first = cl.Sequential([cl.Input((5, 5, 3)), shared, L.ReLU()])
    second = cl.Sequential([cl.Input((5, 5, 3)), shared, L.Softmax()])
    x = cl.Input((5, 5, 3))
    return cl.Model(x, L.Add()([first(x), second(x)]))


def keyed() -> cl.Model:
    left, right = cl.Input((4,), name="l"), cl.Input((4,), name="r")
    return cl.Model({"z": left, "a": right}, {"sum": left + right, "more": L.Dense(2)(left)})


NETWORKS = [chain, residual, nested, twice, keyed]


def samples(model: cl.Model) -> list[np.ndarray]:
    return [images(2, *tensor.type.size()[1:]) for tensor in model.inputs]


def keras_2(policy: str = "float32") -> Json:
    half = {"class_name": "Policy", "config": {"name": policy}}
    shape = [None, 6, 6, 3]
    kernel = {"class_name": "VarianceScaling", "config": {"scale": 2.0, "seed": 5, "dtype": "float32"}}
    conv = {
        "name": "block/conv", "trainable": False, "dtype": "float32", "batch_input_shape": shape,
        "filters": 4, "kernel_size": [3, 3], "padding": "same", "activation": "relu",
        "kernel_initializer": kernel, "kernel_regularizer": {"class_name": "L2", "config": {"l2": 0.01}},
        "bias_regularizer": None,
    }  # fmt: skip
    layers = [
        {"class_name": "InputLayer", "config": {"batch_input_shape": shape, "dtype": "float32", "name": "x"}},
        {"class_name": "Conv2D", "config": conv},
        {"class_name": "BatchNormalization", "config": {"name": "bn", "axis": [3], "dtype": half}},
        {"class_name": "LeakyReLU", "config": {"name": "leaky", "alpha": 0.25, "dtype": "float32"}},
    ]
    return {
        "class_name": "Sequential",
        "config": {"name": "old", "layers": layers},
        "keras_version": "2.12.0",
    }


def trained() -> cl.Model:
    x = cl.Input((6, 6, 2))
    y = L.BatchNormalization()(L.Conv2D(4, 3, activation="relu")(x))
    model = cl.Model(x, L.Dense(3, activation="softmax")(L.Flatten()(L.Dropout(0.1)(y))))
    labels = np.arange(24) % 3
    net = cl.compile(model, device="cpu", backend="aten")
    data = (images(24, 6, 6, 2), labels)
    cl.fit(net, data, "sparse_categorical_crossentropy", epochs=2, batch_size=8, verbose=False, seed=0)
    return model


def stored_items(file: h5py.File) -> Json:
    """Every group's attributes and every data set's bytes."""
    found: Json = {}
    file.visititems(
        lambda place, item: found.update(
            {place: (dict(item.attrs), item[()].tobytes() if isinstance(item, h5py.Dataset) else None)}
        )
    )
    return found
