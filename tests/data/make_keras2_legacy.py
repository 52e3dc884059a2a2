"""Write the files of Keras 2 that lie beside this script: a network as JSON, its weights in both .h5 forms.

Keras 2 lives on as the package ``tf_keras``; run in an environment with it and TensorFlow:

    python tests/data/make_keras2_legacy.py

It writes ``keras2_legacy.json``, ``keras2_legacy.h5`` (description and weights), ``keras2_legacy_weights.h5``
(``save_weights``) and ``keras2_legacy_io.npz`` (``x`` (3, 12, 10, 3), ``y0`` (3, 5), ``y1`` (3, 6, 5, 6),
inference mode); also ``keras2_activations.json`` and ``keras2_activations_io.npz``, without weights.
Weights and batch-norm statistics are random.

The network holds what readers of these files stumble over: names with '/', of which one begins like another;
a nested Functional with a frozen layer, whose weights are therefore stored in another order than its layers,
and which has a layer of the same name as the network around it; a nested Sequential; a layer that is called
twice; the key ``groups`` that Keras 2 wrote for a depthwise convolution; operators, one of them with a number
as its first operand; the slope of LeakyReLU under its old name ``alpha``.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import tf_keras

HERE = Path(__file__).resolve().parent
SEED = 2019  # the year of Keras 2.3, the last that stood alone
L = tf_keras.layers


def nested() -> tf_keras.Model:
    """A residual block as a model of its own."""
    entry = tf_keras.Input((6, 5, 6), name="block_in")
    h = L.Conv2D(6, 3, padding="same", name="frozen", trainable=False)(entry)
    h = L.BatchNormalization(name="norm")(h)
    h = L.LeakyReLU(alpha=0.1, name="leaky")(h)
    h = L.Conv2D(6, 1, name="stem")(h)
    return tf_keras.Model(entry, L.Add(name="sum")([h, entry]), name="block")


def legacy() -> tf_keras.Model:
    """The network of the ``keras2_legacy`` files."""
    image = tf_keras.Input((12, 10, 3), name="image")
    h = L.Conv2D(6, 3, padding="same", use_bias=False, name="stem")(image)
    h = L.BatchNormalization(name="stem/BatchNorm")(h)
    h = L.ReLU(6.0, name="stem/relu6")(h)
    h = L.DepthwiseConv2D(3, strides=2, padding="same", name="depthwise")(h)
    h = nested()(h)
    shared = L.Conv2D(6, 1, activation="tanh", name="twice")
    h = shared(h) + 0.5 * shared(shared(h))
    maps = 1.0 - h
    head = tf_keras.Sequential([L.GlobalAveragePooling2D(), L.Dense(7, name="hidden")], name="head")
    return tf_keras.Model(
        image, [L.Dense(5, activation="softmax", name="classes")(head(maps)), maps], name="keras2_legacy"
    )


def activations() -> tf_keras.Model:
    """hard_sigmoid, which Keras 3 redefined: as a layer, and inside a nested model."""
    entry = tf_keras.Input((4, 4, 5), name="entry")
    h = L.Activation("hard_sigmoid", name="hard")(entry)
    inner = tf_keras.Sequential([L.Rescaling(4.0, -2.0), L.Activation("hard_sigmoid")], name="inner")
    return tf_keras.Model(entry, L.Add(name="sum")([inner(h), h]), name="keras2_activations")


def randomise(model: tf_keras.Model, random: np.random.Generator) -> None:
    """Replace every weight; variances stay well above 0."""
    values = []
    for weight in model.weights:
        value = random.normal(0.0, 0.4, weight.shape)
        values.append(np.abs(value) + 0.5 if "variance" in weight.name or "gamma" in weight.name else value)
    model.set_weights(values)


def main() -> None:
    random = np.random.default_rng(SEED)
    model = legacy()
    randomise(model, random)
    x = random.normal(size=(3, 12, 10, 3)).astype(np.float32)
    classes, maps = model.predict(x, verbose=0)
    _write_description("keras2_legacy", model)
    model.save(HERE / "keras2_legacy.h5", include_optimizer=False)
    model.save_weights(HERE / "keras2_legacy_weights.h5")
    np.savez_compressed(HERE / "keras2_legacy_io.npz", x=x, y0=classes, y1=maps)

    model = activations()
    x = random.uniform(-8.0, 8.0, (2, 4, 4, 5)).astype(np.float32)
    _write_description("keras2_activations", model)
    np.savez_compressed(HERE / "keras2_activations_io.npz", x=x, y=model.predict(x, verbose=0))


def _write_description(stem: str, model: tf_keras.Model) -> None:
    (HERE / f"{stem}.json").write_text(json.dumps(json.loads(model.to_json()), indent=1) + "\n")


if __name__ == "__main__":
    main()
