"""Activations by Keras's names. The only list of them: files and layers look up here alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..graph import ops
from ..graph.op import Op

if TYPE_CHECKING:
    from .lowering import Builder

Composed = Callable[["Builder", str], str]
"""(builder, value) -> the result: an activation of several ops."""


def _gated_linear(b: Builder, x: str) -> str:
    """v * sigmoid(g), v and g being the halves of the last axis (Dauphin et al. 2017)."""
    *lead, size = b.type(x).size()[1:]
    half, odd = divmod(size, 2)
    if odd:
        raise b.fail(f"glu halves the last axis, which has an odd {size} in {b.type(x)}")
    starts = (0,) * len(lead)
    value = b.add(ops.Slice((*starts, 0), (*lead, half)), x, suffix="value")
    gate = b.add(ops.Slice((*starts, half), (*lead, size)), x, suffix="gate")
    return b.add(ops.Multiply(), value, b.add(ops.Sigmoid(), gate, suffix="open"))


SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772
"""With which a network's values keep mean 0 and variance 1 (Klambauer et al. 2017)."""

ACTIVATIONS: dict[str, Op | Composed | None] = {
    "linear": None,
    "relu": ops.Relu(),
    "relu6": ops.Relu6(),
    "leaky_relu": ops.LeakyRelu(0.2),  # the name has slope 0.2 in Keras, the layer LeakyReLU 0.3
    "sigmoid": ops.Sigmoid(),
    "log_sigmoid": ops.LogSigmoid(),
    "tanh": ops.Tanh(),
    "hard_tanh": ops.Clip(-1.0, 1.0),
    "tanh_shrink": ops.TanhShrink(),
    "hard_shrink": ops.HardShrink(0.5),
    "soft_shrink": ops.SoftShrink(0.5),
    "swish": ops.Swish(),
    "silu": ops.Swish(),
    "gelu": ops.Gelu(),  # the exact form, with erf; so has Keras's name
    "elu": ops.Elu(),
    "celu": ops.Elu(),  # the name has alpha = 1, where the two are one function
    "selu": ops.Elu(SELU_ALPHA, scale=SELU_SCALE),
    "softmax": ops.Softmax(),
    "log_softmax": ops.LogSoftmax(),
    "sparsemax": ops.Sparsemax(),  # Keras up to 3.15.1 takes another threshold: its issue 23425
    "hard_sigmoid": ops.HardSigmoid(),  # Keras 3's: relu6(x + 3) / 6
    "keras_2_hard_sigmoid": ops.HardSigmoid(0.2),  # what files of Keras 2 mean by hard_sigmoid
    "sparse_sigmoid": ops.HardSigmoid(0.5),
    "sparse_plus": ops.SparsePlus(),
    "hard_silu": ops.HardSwish(),
    "hard_swish": ops.HardSwish(),
    "exponential": ops.Exp(),
    "softplus": ops.Softplus(),
    "squareplus": ops.Squareplus(),
    "softsign": ops.Softsign(),
    "mish": ops.Mish(),
    "glu": _gated_linear,
}
