"""Train the LeNet-5 whose files lie beside this script, with Keras itself.

Run with Keras 3 on its PyTorch backend, and scikit-learn for the digits:

    KERAS_BACKEND=torch python examples/keras_lenet5/make.py

It writes, beside itself:

- ``lenet5.json``        the network, as ``Model.to_json`` writes it;
- ``lenet5.weights.h5``  its weights, as ``Model.save_weights`` writes them;
- ``lenet5_io.npz``      ``x`` (8, 28, 28, 1) float32 images in [0, 1], ``y`` (8, 10) float32 probabilities
  that Keras computes for them, ``labels`` (8,) the digits they show. None of the eight was trained on.

Training is seeded, but its last bits depend on the machine, so a second run gives files that differ.
"""

from __future__ import annotations

import sys
from pathlib import Path

import keras
import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from digits import digits  # noqa: E402

SEED = 1998  # the year of LeNet-5
SIDE = 28
STORED = 8


def lenet5() -> keras.Model:
    """LeNet-5 with full connections between its two convolutions: 61,706 parameters."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 1), name="image"),
            layers.Conv2D(6, 5, padding="same", activation="tanh", name="c1"),
            layers.AveragePooling2D(2, name="s2"),
            layers.Conv2D(16, 5, activation="tanh", name="c3"),
            layers.AveragePooling2D(2, name="s4"),
            layers.Flatten(name="flatten"),
            layers.Dense(120, activation="tanh", name="c5"),
            layers.Dense(84, activation="tanh", name="f6"),
            layers.Dense(10, activation="softmax", name="output"),
        ],
        name="lenet5",
    )


def main() -> None:
    keras.utils.set_random_seed(SEED)
    (x_train, t_train), (x_test, t_test) = digits(SIDE, SEED)
    model = lenet5()
    model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x_train, t_train, batch_size=64, epochs=40, verbose=2)
    _, accuracy = model.evaluate(x_test, t_test, verbose=0)
    print(f"accuracy on the held-out fifth: {accuracy:.2%}")

    # A compiled model would store its optimizer's state too, twice the size of the weights.
    trained, model = model, lenet5()
    model.set_weights(trained.get_weights())
    (HERE / "lenet5.json").write_text(model.to_json(indent=1) + "\n")
    model.save_weights(HERE / "lenet5.weights.h5")
    probabilities = np.asarray(model.predict(x_test[:STORED], verbose=0), dtype="float32")
    np.savez_compressed(HERE / "lenet5_io.npz", x=x_test[:STORED], y=probabilities, labels=t_test[:STORED])


if __name__ == "__main__":
    main()
