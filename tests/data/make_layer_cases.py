"""Compute, with Keras, what single layers make of small inputs: their arguments, layouts and odd sizes.

    KERAS_BACKEND=torch python tests/data/make_layer_cases.py [topic ...]

The cases stand in ``layer_cases/<topic>.py``, the results in ``layer_cases/<topic>.npz``. For a case ``c``:
``c/json`` (bytes of the model's JSON), ``c/x0``, ``c/x1``, ... (inputs), ``c/w0``, ... (weights in Keras's
order), ``c/y`` or ``c/y0``, ``c/y1``, ... (outputs in inference). Keras's torch backend is wrong in some
layers: a topic that says ``BACKEND = "jax"`` is left out where Keras runs on another.
"""

from __future__ import annotations

import importlib
import sys
import zlib
from pathlib import Path
from typing import Any

import keras
import numpy as np

FOLDER = Path(__file__).resolve().parent / "layer_cases"


def main() -> None:
    sys.path.insert(0, str(FOLDER))
    for topic in sys.argv[1:] or sorted(path.stem for path in FOLDER.glob("*.py")):
        module = importlib.import_module(topic)
        if getattr(module, "BACKEND", keras.backend.backend()) != keras.backend.backend():
            print(f"{topic}: left out, set KERAS_BACKEND={module.BACKEND}")
            continue
        stored: dict[str, Any] = {}
        for name, (layer, shapes) in module.CASES.items():
            stored |= {f"{name}/{key}": value for key, value in computed(name, layer, shapes).items()}
        np.savez_compressed(FOLDER / f"{topic}.npz", **stored)


def is_whole(shape: Any) -> bool:
    """Whether an input is one of whole numbers: (dtype, the number they stay below, shape)."""
    return bool(shape) and isinstance(shape[0], str)


def drawn(random: np.random.Generator, shape: Any) -> Any:
    if is_whole(shape):
        return random.integers(shape[1], size=(2, *shape[2])).astype(shape[0])
    return random.standard_normal((2, *shape), np.float32)


def computed(name: str, layer: Any, shapes: Any) -> dict[str, Any]:
    """layer: a layer, or a function of the symbolic inputs. shapes: of the input, or a list of several."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    given = shapes if isinstance(shapes, list) else [shapes]
    inputs = [
        keras.Input(shape[2], dtype=shape[0]) if is_whole(shape) else keras.Input(shape) for shape in given
    ]
    taken = inputs if isinstance(shapes, list) else inputs[0]
    model = keras.Model(taken, layer(taken))
    stored: dict[str, Any] = {}
    for i, variable in enumerate(model.weights):
        stored[f"w{i}"] = random.random(variable.shape, np.float32) + np.float32(0.3)
        variable.assign(stored[f"w{i}"])
    data = [drawn(random, shape) for shape in given]
    stored |= {f"x{i}": x for i, x in enumerate(data)}
    y = model(data if len(data) > 1 else data[0], training=False)
    if isinstance(y, (list, tuple)):
        stored |= {f"y{i}": keras.ops.convert_to_numpy(value) for i, value in enumerate(y)}
    else:
        stored["y"] = keras.ops.convert_to_numpy(y)
    return {**stored, "json": np.frombuffer(model.to_json().encode(), np.uint8)}


if __name__ == "__main__":
    main()
