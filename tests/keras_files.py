"""Keras's JSON and its files, written by hand."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Json = dict[str, Any]


def tensor(name: str, node: int = 0, index: int = 0) -> Json:
    return {"class_name": "__keras_tensor__", "config": {"shape": [], "keras_history": [name, node, index]}}


def called(*names: str | Json) -> Json:
    tensors = [tensor(name) if isinstance(name, str) else name for name in names]
    return {"args": tensors if len(tensors) == 1 else [tensors], "kwargs": {}}


def layer(class_name: str, name: str, *nodes: Json, **config: Any) -> Json:
    return {
        "class_name": class_name,
        "name": name,
        "config": {"name": name, **config},
        "inbound_nodes": list(nodes),
    }


def entry(*shape: Any, name: str = "x") -> Json:
    return layer("InputLayer", name, batch_shape=[None, *shape])


def functional(*layers: Json, output: Any = None, inputs: Any = None, name: str = "net") -> Json:
    """The last layer is the output, the first the input."""
    return {
        "class_name": "Functional",
        "config": {
            "name": name,
            "layers": list(layers),
            "input_layers": inputs or [layers[0]["name"], 0, 0],
            "output_layers": output or [layers[-1]["name"], 0, 0],
        },
    }


def small() -> Json:
    """A dense layer of 3 inputs and 2 units."""
    return functional(entry(3), layer("Dense", "d", called("x"), units=2))


def chain(length: int) -> Json:
    """Convolution, batch norm, activation, over and over."""
    kinds: list[tuple[str, Json]] = [
        ("Conv2D", {"filters": 4, "kernel_size": [3, 3], "padding": "same"}),
        ("BatchNormalization", {}),
        ("Activation", {"activation": "relu"}),
    ]
    layers = [entry(8, 8, 4)]
    for i in range(length):
        kind, config = kinds[i % 3]
        layers.append(layer(kind, f"l{i}", called(layers[-1]["name"]), **config))
    return functional(*layers)


def write_json(path: Path, data: Any) -> Path:
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def write_weights(path: Path, **arrays: Any) -> Path:
    """A .weights.h5; keys are paths under layers/, "/" written as "__"."""
    with h5py.File(path, "w") as file:
        for key, value in arrays.items():
            file[f"layers/{key.replace('__', '/')}"] = value
    return path


def write_keras(path: Path, data: Any, weights: Path | None = None, packed: bool = False) -> Path:
    method = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("config.json", data if isinstance(data, str) else json.dumps(data))
        if weights is not None:
            archive.write(weights, "model.weights.h5")
    return path


def kernel() -> dict[str, Any]:
    """Weights of `small`."""
    return {"dense__vars__0": np.ones((3, 2), "f4"), "dense__vars__1": np.ones(2, "f4")}
