"""Build one network of keras.applications with Keras and write what a reader of its files must reproduce.

    KERAS_BACKEND=torch python tests/applications/make.py ResNet50 FOLDER        into FOLDER, for the sweep
    KERAS_BACKEND=torch python tests/applications/make.py ResNet50 committed     beside this script

In FOLDER/top and FOLDER/notop (include_top): model.json, model.weights.h5, io.npz (x, y, parameters).
Beside this script: <name>.json.gz, and its outputs <name>.npz (y, parameters); weights and image follow from
the name by `networks.py`. The NASNets need KERAS_BACKEND=jax.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
from networks import BY_NAME, CLASSES, Application, draw, generator, image

HERE = Path(__file__).resolve().parent


def build(application: Application, **arguments: Any) -> keras.Model:
    shape = (application.size, application.size, 3)
    return getattr(keras.applications, application.name)(weights=None, input_shape=shape, **arguments)


def randomise(model: keras.Model, text: str) -> np.random.Generator:
    random = generator(text)
    for variable in model.weights:
        # LayerScale leaves its gamma without a name: "variable", "variable_1", ...
        name = "gamma" if variable.name.startswith("variable") else variable.name
        variable.assign(draw(name, variable.shape, random))
    return random


def outputs(model: keras.Model, x: np.ndarray) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(x, training=False)).astype(np.float32)


def write_case(application: Application, folder: Path) -> None:
    """Both forms one after the other, so that Keras is started once."""
    for top in (True, False):
        place = folder / ("top" if top else "notop")
        place.mkdir(parents=True, exist_ok=True)
        arguments = {"classifier_activation": None} if top else {}
        model = build(application, include_top=top, **arguments)
        x = image(application, randomise(model, application.name))
        (place / "model.json").write_text(model.to_json())
        model.save_weights(place / "model.weights.h5")
        np.savez(place / "io.npz", x=x, y=outputs(model, x), parameters=model.count_params())
        del model


def write_committed(application: Application) -> None:
    model = build(application, classes=CLASSES, classifier_activation=None, **(application.committed or {}))
    x = image(application, randomise(model, application.name))
    # mtime=0: the same description gives the same file.
    packed = gzip.compress(model.to_json().encode(), 9, mtime=0)
    (HERE / f"{application.name}.json.gz").write_bytes(packed)
    y = outputs(model, x)
    np.savez(HERE / f"{application.name}.npz", y=y, parameters=model.count_params())
    print(
        application.name,
        f"{len(packed) / 1000:.1f} kB, {model.count_params():,} parameters, {np.abs(y).max():.3g}",
    )


if __name__ == "__main__":
    chosen, what = sys.argv[1:]
    if what == "committed":
        write_committed(BY_NAME[chosen])
    else:
        write_case(BY_NAME[chosen], Path(what))
