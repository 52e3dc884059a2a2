"""Initial values of weights, by Keras's names, drawn with torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod, sqrt

import torch

from ..graph.op import snake_case

Initializer = Callable[[Sequence[int], torch.Generator], torch.Tensor]

_TRUNCATED_STD = 0.87962566103423978
"""Standard deviation of a unit normal cut at two standard deviations; dividing by it restores 1."""


def fans(shape: Sequence[int]) -> tuple[int, int]:
    """Values that flow into and out of one unit: (C, K) -> C, K and (R, S, C, K) -> R S C, R S K."""
    if len(shape) < 2:
        size = prod(shape)
        return size, size
    taps = prod(shape[:-2])
    return taps * shape[-2], taps * shape[-1]


def _scaled(mode: str, gain: float, normal: bool) -> Initializer:
    """Draws of variance gain / fan: uniform, or normal cut at two standard deviations, as in Keras."""

    def draw(shape: Sequence[int], generator: torch.Generator) -> torch.Tensor:
        fan_in, fan_out = fans(shape)
        fan = {"in": fan_in, "out": fan_out, "average": (fan_in + fan_out) / 2}[mode]
        std = sqrt(gain / max(1.0, fan))
        values = torch.empty(tuple(shape))
        if normal:
            return torch.nn.init.trunc_normal_(values, generator=generator, a=-2, b=2).mul_(
                std / _TRUNCATED_STD
            )
        return values.uniform_(-sqrt(3) * std, sqrt(3) * std, generator=generator)

    return draw


def _random_normal(shape: Sequence[int], generator: torch.Generator) -> torch.Tensor:
    return torch.empty(tuple(shape)).normal_(0, 0.05, generator=generator)


def _random_uniform(shape: Sequence[int], generator: torch.Generator) -> torch.Tensor:
    return torch.empty(tuple(shape)).uniform_(-0.05, 0.05, generator=generator)


def _small_truncated_normal(shape: Sequence[int], generator: torch.Generator) -> torch.Tensor:
    values = torch.empty(tuple(shape))
    return torch.nn.init.trunc_normal_(values, std=0.02, a=-0.04, b=0.04, generator=generator)


def filled(value: float) -> Initializer:
    """The initializer that gives every weight one value."""
    return lambda shape, generator: torch.full(tuple(shape), value)


INITIALIZERS: dict[str, Initializer] = {
    "zeros": filled(0.0),
    "ones": filled(1.0),
    "glorot_uniform": _scaled("average", 1.0, normal=False),  # Glorot & Bengio 2010
    "glorot_normal": _scaled("average", 1.0, normal=True),
    "he_uniform": _scaled("in", 2.0, normal=False),  # He et al. 2015
    "he_normal": _scaled("in", 2.0, normal=True),
    "lecun_uniform": _scaled("in", 1.0, normal=False),  # LeCun et al. 1998
    "lecun_normal": _scaled("in", 1.0, normal=True),
    "random_normal": _random_normal,
    "random_uniform": _random_uniform,
    "small_truncated_normal": _small_truncated_normal,
}


OTHER_NAMES = {"uniform": "random_uniform", "normal": "random_normal", "zero": "zeros", "one": "ones"}
"""Keras's short words for some of them."""


def from_class_name(class_name: object) -> str | None:
    """GlorotUniform, as a file names it, -> glorot_uniform; None for one that is not in the table."""
    name = snake_case(class_name) if isinstance(class_name, str) else None
    return name if name in INITIALIZERS else None
