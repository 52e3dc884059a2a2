"""Write ``lenet5_keras2.json``: the network of examples/keras_lenet5, described by Keras 2.

Keras 2 lives on as the package ``tf_keras``; run in an environment with it and TensorFlow:

    python tests/data/make_lenet5_keras2.py

The network is written in the functional style, so that the file holds Keras 2's form of a node (lists in
place of Keras 3's tagged tensors). Keras 2 then reads the weights that Keras 3 wrote, and the script checks
that it computes the stored outputs of ``lenet5_io.npz``.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import tf_keras

HERE = Path(__file__).resolve().parent
LENET5 = HERE.parents[1] / "examples" / "keras_lenet5"


def lenet5() -> tf_keras.Model:
    """The network of examples/keras_lenet5/make.py, with the same layer names."""
    L = tf_keras.layers
    image = tf_keras.Input((28, 28, 1), name="image")
    h = L.Conv2D(6, 5, padding="same", activation="tanh", name="c1")(image)
    h = L.AveragePooling2D(2, name="s2")(h)
    h = L.Conv2D(16, 5, activation="tanh", name="c3")(h)
    h = L.AveragePooling2D(2, name="s4")(h)
    h = L.Flatten(name="flatten")(h)
    h = L.Dense(120, activation="tanh", name="c5")(h)
    h = L.Dense(84, activation="tanh", name="f6")(h)
    return tf_keras.Model(image, L.Dense(10, activation="softmax", name="output")(h), name="lenet5")


def main() -> None:
    model = lenet5()
    model.load_weights(str(LENET5 / "lenet5.weights.h5"))
    stored = np.load(LENET5 / "lenet5_io.npz")
    difference = np.abs(model.predict(stored["x"], verbose=0) - stored["y"]).max()
    print(f"largest difference from Keras 3's outputs: {difference:.1e}")
    if difference > 1e-5:
        raise SystemExit("the two networks are not the same; lenet5_keras2.json is left as it was")
    (HERE / "lenet5_keras2.json").write_text(json.dumps(json.loads(model.to_json()), indent=1) + "\n")


if __name__ == "__main__":
    main()
