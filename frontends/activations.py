"""Activations by Keras's names. The only list of them: files and layers look up here alone."""

from __future__ import annotations

from ..graph import ops
from ..graph.op import Op

ACTIVATIONS: dict[str, Op | None] = {
    "linear": None,
    "relu": ops.Relu(),
    "relu6": ops.Relu6(),
    "leaky_relu": ops.LeakyRelu(0.2),  # the name has slope 0.2 in Keras, the layer LeakyReLU 0.3
    "sigmoid": ops.Sigmoid(),
    "tanh": ops.Tanh(),
    "swish": ops.Swish(),
    "silu": ops.Swish(),
    "gelu": ops.Gelu(),  # the exact form, with erf; so has Keras's name
    "elu": ops.Elu(),
    "softmax": ops.Softmax(),
    "hard_sigmoid": ops.HardSigmoid(),  # Keras 3's: relu6(x + 3) / 6
    "keras_2_hard_sigmoid": ops.HardSigmoid(0.2),  # what files of Keras 2 mean by hard_sigmoid
    "hard_silu": ops.HardSwish(),
    "hard_swish": ops.HardSwish(),
    "exponential": ops.Exp(),
    "softplus": ops.Softplus(),
    "softsign": ops.Softsign(),
    "mish": ops.Mish(),
}
