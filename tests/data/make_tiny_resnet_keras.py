"""Build the small residual network whose files lie beside this script, with Keras itself.

    KERAS_BACKEND=torch python tests/data/make_tiny_resnet_keras.py

It writes ``tiny_resnet.json``, ``tiny_resnet.weights.h5`` and ``tiny_resnet_io.npz`` (``x`` (4, 16, 16, 3),
``y`` (4, 5), float32, inference mode). Nothing is trained: weights and batch-norm statistics are random, the
statistics far from mean 0 and variance 1, so that a reader which mixes up gamma, beta, mean and variance is
found out.

The network holds what readers and rewrites stumble over: custom layer names whose order in the alphabet is
not that of the network, ``same`` at stride 2 on an even size (padded at the end only), a zero padding before
a ``valid`` convolution, a batch norm without gamma, a shortcut with a projection and one without. The file of
weights holds an optimizer's state too.
"""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np

HERE = Path(__file__).resolve().parent
SEED = 2015  # the year of residual networks


def residual_network() -> keras.Model:
    """Two residual blocks on a 16 x 16 colour image, five classes."""
    L = keras.layers
    image = keras.Input((16, 16, 3), name="image")
    h = L.Conv2D(8, 3, padding="same", use_bias=False, name="stem")(image)
    h = L.BatchNormalization(name="stem_norm")(h)
    stem = L.Activation("relu", name="stem_relu")(h)

    h = L.Conv2D(8, 3, padding="same", name="b_first")(stem)
    h = L.BatchNormalization(name="b_first_norm")(h)
    h = L.ReLU(name="b_relu")(h)
    h = L.Conv2D(8, 3, padding="same", name="b_again")(h)
    h = L.BatchNormalization(epsilon=1.001e-5, name="b_again_norm")(h)
    h = L.Add(name="b_add")([h, stem])
    block = L.ReLU(name="b_out")(h)

    shortcut = L.Conv2D(12, 1, strides=2, padding="same", name="a_shortcut")(block)
    shortcut = L.BatchNormalization(name="a_shortcut_norm")(shortcut)
    h = L.Conv2D(12, 3, strides=2, padding="same", use_bias=False, name="a_down")(block)
    h = L.BatchNormalization(scale=False, name="a_down_norm")(h)
    h = L.ReLU(max_value=6.0, name="a_relu6")(h)
    h = L.ZeroPadding2D(((0, 2), (1, 1)), name="a_pad")(h)
    h = L.Conv2D(12, 3, name="a_last")(h)
    h = L.BatchNormalization(name="a_last_norm")(h)
    h = L.Add(name="a_add")([shortcut, h])
    h = L.ReLU(name="a_out")(h)

    h = L.GlobalAveragePooling2D(name="mean")(h)
    h = L.Dropout(0.3, name="dropout")(h)
    return keras.Model(image, L.Dense(5, activation="softmax", name="classes")(h), name="tiny_resnet")


def randomise(model: keras.Model, random: np.random.Generator) -> None:
    """Replace every weight: kernels at He's scale, norm parameters well away from their initial values."""
    for variable in model.variables:
        leaf, shape = variable.path.split("/")[-1], tuple(variable.shape)
        if "seed_generator" in variable.path:
            continue
        if leaf == "kernel":
            value = random.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape)
        elif leaf in ("gamma", "moving_variance"):
            value = random.uniform(0.4, 1.8, shape)
        else:
            value = random.normal(0, 0.4, shape)
        variable.assign(value.astype("float32"))


def main() -> None:
    random = np.random.default_rng(SEED)
    model = residual_network()
    randomise(model, random)
    colour = random.normal(0, 1.5, (4, 1, 1, 3))  # each image its own, or their averages would hardly differ
    x = (colour + random.normal(0, 1, (4, 16, 16, 3))).astype("float32")
    y = np.asarray(model.predict(x, verbose=0), dtype="float32")

    model.compile("sgd")
    model.optimizer.build(model.trainable_variables)
    (HERE / "tiny_resnet.json").write_text(model.to_json(indent=1) + "\n")
    model.save_weights(HERE / "tiny_resnet.weights.h5")
    np.savez_compressed(HERE / "tiny_resnet_io.npz", x=x, y=y)
    print(y.round(3))


if __name__ == "__main__":
    main()
