"""The committed networks of keras.applications as Keras 2 saves them: legacy JSON, and one whole-model .h5.

Keras 2 lives on as the package ``tf_keras``; run in an environment with it and TensorFlow:

    python tests/applications/make_keras_2.py

Into ``keras_2/`` beside this script, for the first network of each family: ``<name>.json.gz`` and
``<name>.npz`` (``y``, ``parameters``); weights and image follow from the name by `networks.py`.
``MobileNetV3Small.h5.gz`` holds the description and the weights of one network, rounded to few values so that
it packs well, and ``MobileNetV3Small_h5.npz`` its ``x`` and ``y``.
"""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path

import numpy as np
import tf_keras
from networks import CLASSES, FAMILIES, Application, draw, generator, image, keras_2_stream

FOLDER = Path(__file__).resolve().parent / "keras_2"
WHOLE = "MobileNetV3Small"


def build(application: Application) -> tf_keras.Model:
    arguments = {"weights": None, "classes": CLASSES, "classifier_activation": None}
    shape = (application.size, application.size, 3)
    network = getattr(tf_keras.applications, application.name)
    return network(input_shape=shape, **arguments, **(application.committed or {}))


def weight_name(path: str) -> str:
    """conv2d/kernel:0 -> kernel. LayerScale's gamma is called after its layer alone."""
    name = path.split("/")[-1].removesuffix(":0")
    return "gamma" if name.startswith("Variable") or name.endswith("layer_scale") else name


def randomise(model: tf_keras.Model, text: str, digits: int | None = None) -> np.random.Generator:
    random = generator(text)
    values = [draw(weight_name(v.name), v.shape, random) for v in model.weights]
    model.set_weights([value if digits is None else np.round(value, digits) for value in values])
    return random


def packed(name: str, data: bytes) -> None:
    (FOLDER / f"{name}.gz").write_bytes(gzip.compress(data, 9, mtime=0))


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for application in FAMILIES:
        tf_keras.backend.clear_session()
        model = build(application)
        x = image(application, randomise(model, keras_2_stream(application)))
        packed(f"{application.name}.json", model.to_json().encode())
        y = model(x, training=False).numpy()
        np.savez(FOLDER / f"{application.name}.npz", y=y, parameters=model.count_params())
        print(application.name, f"{model.count_params():,} parameters, {np.abs(y).max():.3g}")
        if application.name == WHOLE:
            x = image(application, randomise(model, keras_2_stream(application), digits=1))
            np.savez(FOLDER / f"{WHOLE}_h5.npz", x=x, y=model(x, training=False).numpy())
            with tempfile.TemporaryDirectory() as place:
                path = Path(place) / "whole.h5"
                model.save(path)
                packed(f"{WHOLE}.h5", path.read_bytes())


if __name__ == "__main__":
    main()
