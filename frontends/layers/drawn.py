"""Steps that layers random in training share: the branch taken in training, masks, factors a sample."""

from __future__ import annotations

from ...graph import ops
from ...graph.types import BATCH, Dim
from ..lowering import Builder

LEAST = 1e-7
"""What stands for a difference of 0 where something is divided by it."""


def in_training(b: Builder, x: str, trained: str) -> str:
    """x in inference, `trained` in training; the node is called after the layer."""
    return b.add(ops.InTraining(), x, trained)


def dropped(b: Builder, x: str, rate: float, shared: tuple[int, ...] = ()) -> str:
    """In training, values are 0 with probability `rate`, else times 1 / (1 - rate) (Srivastava et al. 2014).

    shared: axes along which one draw holds for all places.
    """
    if rate == 0:
        return x
    kept = per_element(b, x, "bernoulli", (1 - rate, 1 / (1 - rate)), shared, suffix="mask")
    return in_training(b, x, b.add(ops.Multiply(), x, kept, suffix="dropped"))


def per_element(
    b: Builder,
    x: str,
    distribution: str,
    of: tuple[float, float],
    shared: tuple[int, ...] = (),
    suffix: str = "noise",
) -> str:
    """A draw for each value of x."""
    kind = b.type(x)
    return b.add(ops.Random(kind.shape, distribution, of, shared, kind.dtype), suffix=suffix)


def per_sample(b: Builder, x: str, distribution: str, of: tuple[float, float], suffix: str = "factor") -> str:
    """A draw for each sample of x, of the shape (N, 1, ..., 1)."""
    kind = b.type(x)
    shape: tuple[Dim, ...] = (BATCH, *(1 for _ in kind.shape[1:]))
    return b.add(ops.Random(shape, distribution, of, dtype=kind.dtype), suffix=suffix)


def moved(
    b: Builder,
    x: str,
    transform: str,
    of: tuple[float, ...],
    *,
    interpolation: str,
    fill_mode: str,
    fill_value: float = 0.0,
    size: tuple[int, int] | None = None,
) -> str:
    """Images under a drawn transform each; `size` is that of the result, by default the image's own."""
    kind = b.type(x)
    image = (int(kind.shape[1]), int(kind.shape[2]))
    source = ops.RandomTransform(image, transform, of, kind.accumulated().dtype)
    op = ops.Warp(interpolation, fill_mode, fill_value, size or image)
    return b.add(op, x, b.add(source, suffix="transform"), suffix="moved")


def clipped(b: Builder, x: str, value_range: tuple[float, float]) -> str:
    """x between the two ends of a range."""
    low, high = (
        b.add(ops.Constant((), end), suffix=name)
        for name, end in zip(("low", "high"), value_range, strict=True)
    )
    raised = b.add(ops.Maximum(), x, low, suffix="raised")
    return b.add(ops.Minimum(), raised, high, suffix="clipped")
