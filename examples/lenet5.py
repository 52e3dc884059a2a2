"""LeNet-5, the network the other examples share.

After Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-based learning applied to document
recognition", 1998, with what is usual today: ReLU for tanh, the maximum of a window for its mean, and every
map of the second convolution reads every map of the first.
"""

import convloom as cl
from convloom import layers as L


def lenet5(size: int = 28) -> cl.Model:
    """For grey images of 32 x 32 pixels, or of 28 x 28, which the first layer pads: 61,706 parameters."""
    image = cl.Input((size, size, 1), name="image")
    h = L.Conv2D(6, 5, padding="same" if size == 28 else "valid", activation="relu", name="c1")(image)
    h = L.MaxPooling2D(2, name="s2")(h)
    h = L.Conv2D(16, 5, activation="relu", name="c3")(h)
    h = L.MaxPooling2D(2, name="s4")(h)
    h = L.Flatten(name="flatten")(h)
    h = L.Dense(120, activation="relu", name="c5")(h)
    h = L.Dense(84, activation="relu", name="f6")(h)
    digit = L.Dense(10, activation="softmax", name="output")(h)
    return cl.Model(image, digit, name="lenet5")


if __name__ == "__main__":
    lenet5().summary()
