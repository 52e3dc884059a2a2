"""The kernels that docs/kernels.md walks through, as ConvLoom emits them today, cut into pieces."""

from __future__ import annotations

import re
import textwrap
from functools import cache

from convloom.codegen import Kernel

import convloom as cl
from convloom import layers as L


def residual() -> cl.Model:
    """A convolution with all that may follow it: batch norm, a shortcut, an activation."""
    image = cl.Input((28, 28, 64), name="image")
    h = L.Conv2D(64, 3, padding="same", use_bias=False, name="conv")(image)
    h = L.Add(name="add")([L.BatchNormalization(name="norm")(h), image])
    return cl.Model(image, L.ReLU(name="relu")(h), name="residual")


def pooled() -> cl.Model:
    image = cl.Input((28, 28, 64), name="image")
    h = L.Conv2D(128, 3, padding="same", activation="relu", name="conv")(image)
    return cl.Model(image, L.MaxPooling2D(2, name="pool")(h), name="pooled")


def depthwise() -> cl.Model:
    image = cl.Input((56, 56, 96), name="image")
    h = L.DepthwiseConv2D(3, padding="same", use_bias=False, name="conv")(image)
    h = L.BatchNormalization(name="norm")(h)
    return cl.Model(image, L.ReLU(max_value=6, name="relu")(h), name="depthwise")


def two_convolutions() -> cl.Model:
    """So that the second has a gradient with respect to its kernel and its input."""
    image = cl.Input((28, 28, 64), name="image")
    h = L.Conv2D(64, 3, padding="same", use_bias=False, name="conv1")(image)
    return cl.Model(image, L.Conv2D(64, 3, padding="same", use_bias=False, name="conv2")(h), name="two")


@cache
def kernel(name: str) -> Kernel:
    """One of the four, for sm_90 in bfloat16."""
    if name == "weights":
        step = cl.compile(two_convolutions(), dtype="bfloat16", device="cpu").train()
        return next(k for k in step.kernels if isinstance(k, Kernel) and "weight_grad" in k.name)
    model = {"residual": residual, "pooled": pooled, "depthwise": depthwise}[name]()
    (found,) = cl.compile(model, dtype="bfloat16", device="cpu").kernels
    assert isinstance(found, Kernel)
    return found


def jitted(kernel: Kernel, place: int = 0) -> str:
    """One of the jitted functions of a kernel's file."""
    return re.findall(r"@triton\.jit.*?(?=\n\n\n)", kernel.source, re.DOTALL)[place]


def lines(text: str, begin: str, end: str = "") -> str:
    """From the line with `begin` to the one before that with `end`, or to the last. Both must be there."""
    text = f"\n{text}"
    start = text.rindex("\n", 0, text.index(begin)) + 1
    stop = text.rindex("\n", 0, text.index(end, start)) + 1 if end else len(text)
    return f"```python\n{textwrap.dedent(text[start:stop]).strip()}\n```\n"


# -- the blocks of the page, by the name of each -----------------------------------------------------------
def residual_header() -> str:
    found = kernel("residual").source
    return f"```text\n{found[3 : found.index('import os')].strip().removesuffix(chr(34) * 3).strip()}\n```\n"


def residual_place() -> str:
    return lines(jitted(kernel("residual")), "tile_m =", "# The sum over")


def residual_sum() -> str:
    return lines(jitted(kernel("residual")), "# The sum over", "# What happens")


def residual_end() -> str:
    return lines(jitted(kernel("residual")), "# What happens")


def residual_launch() -> str:
    return lines(kernel("residual").source, "def launch", "def reference")


def pooled_rows() -> str:
    return lines(jitted(kernel("pooled")), "tile_m =", "# The sum over")


def pooled_end() -> str:
    return lines(jitted(kernel("pooled")), "# What happens")


def depthwise_once() -> str:
    return lines(jitted(kernel("depthwise")), "lane =", "# Where the lane")


def depthwise_loop() -> str:
    return lines(jitted(kernel("depthwise")), "for step in")


def weights_place() -> str:
    return lines(jitted(kernel("weights")), "tile_m =", "# The sum over")


def weights_sum() -> str:
    return lines(jitted(kernel("weights")), "# The sum over")


def weights_finish() -> str:
    return lines(jitted(kernel("weights"), 1), "@triton.jit")


BLOCKS = (
    *(residual_header, residual_place, residual_sum, residual_end, residual_launch),
    *(pooled_rows, pooled_end, depthwise_once, depthwise_loop),
    *(weights_place, weights_sum, weights_finish),
)
