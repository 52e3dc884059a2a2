"""Write ``keras3_legacy.h5``, the old file form as Keras 3 writes it, and ``keras3_legacy_io.npz``.

    KERAS_BACKEND=torch python tests/data/make_keras3_legacy.py

``x`` is (3, 6, 5, 3), ``y`` (3, 4), inference mode; weights are random. In this form an operator node loses
its module, so that an operator Add looks like the layer Add; Keras itself cannot read such a file again.
"""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np

HERE = Path(__file__).resolve().parent
SEED = 2023  # the year of Keras 3
L = keras.layers


def network() -> keras.Model:
    """Operators and layers of one name, a nested Functional with a frozen layer, a nested Sequential."""
    image = keras.Input((6, 5, 3), name="image")
    entry = keras.Input((6, 5, 4), name="block_in")
    h = L.Conv2D(4, 3, padding="same", name="frozen", trainable=False)(entry)
    block = keras.Model(entry, L.BatchNormalization(name="norm")(h), name="block")

    h = block(L.Conv2D(4, 3, padding="same", name="stem")(image))
    h = L.Add()([h * (h + 1.5) - 0.25, h])
    h = keras.Sequential([L.Dense(5, name="mix"), L.ReLU()], name="head")(h)
    return keras.Model(image, L.Dense(4, name="classes")(L.Flatten()(h)), name="keras3_legacy")


def main() -> None:
    random = np.random.default_rng(SEED)
    model = network()
    model.set_weights(
        [
            np.abs(value) + 0.5 if "variance" in weight.path or "gamma" in weight.path else value
            for weight in model.weights
            for value in [random.normal(0.0, 0.4, weight.shape)]
        ]
    )
    x = random.normal(size=(3, 6, 5, 3)).astype(np.float32)
    model.save(HERE / "keras3_legacy.h5", include_optimizer=False)
    np.savez_compressed(HERE / "keras3_legacy_io.npz", x=x, y=model.predict(x, verbose=0))


if __name__ == "__main__":
    main()
