"""Files in Keras's two dialects, written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from convloom.frontends import Model
from helpers import evaluate

DATA = Path(__file__).parent / "data"
LENET5 = Path(__file__).parents[1] / "examples" / "keras_lenet5"
Json = dict[str, Any]


def outputs(model: Model, *inputs: np.ndarray) -> list[np.ndarray]:
    given = {tensor.node.block.name: x for tensor, x in zip(model.inputs, inputs, strict=True)}
    return [y.numpy() for y in evaluate(model.to_graph(), model.parameters, given).values()]


# -- files in Keras's two dialects, written by hand ----------------------------------------------------------
def keras3(name: str, node: int = 0, tensor: int = 0) -> Json:
    return {"class_name": "__keras_tensor__", "config": {"shape": [], "keras_history": [name, node, tensor]}}


def layer(class_name: str, name: str, nodes: list[Any] | None = None, **config: Any) -> Json:
    return {
        "class_name": class_name,
        "name": name,
        "config": {"name": name, **config},
        "inbound_nodes": nodes or [],
    }


def called(*names: str | tuple[str, int], dialect: int = 3) -> Any:
    refs = [(name, 0) if isinstance(name, str) else name for name in names]
    if dialect == 2:
        return [[name, node, 0, {}] for name, node in refs]
    tensors = [keras3(name, node) for name, node in refs]
    return {"args": tensors if len(tensors) == 1 else [tensors], "kwargs": {}}


def functional(layers: list[Json], outputs: list[Any], inputs: list[Any] | None = None) -> Json:
    config = {
        "name": "net",
        "layers": layers,
        "input_layers": inputs or ["x", 0, 0],
        "output_layers": outputs,
    }
    return {"class_name": "Functional", "config": config}


def entry(*shape: int, name: str = "x") -> Json:
    return layer("InputLayer", name, batch_shape=[None, *shape])


def simple(*layers: Json, shape: tuple[int, ...] = (6, 5, 3)) -> Json:
    return {"class_name": "Sequential", "config": {"name": "net", "layers": [entry(*shape), *layers]}}


def conv(name: str = "c", nodes: list[Any] | None = None, **config: Any) -> Json:
    return layer("Conv2D", name, nodes, filters=3, kernel_size=[3, 3], padding="same", **config)
