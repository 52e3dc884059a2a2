"""Initial values of weights, as Keras defines and names them, drawn with torch.

A layer takes a name of the table ("he_normal") or an initializer: `HeNormal(seed=3)`. Without a seed the
numbers come from the model's generator; with one they are the same for every weight of a shape, as in Keras.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from math import isfinite, prod, sqrt
from typing import Any

import torch

from ..graph.errors import ConvLoomError, ShapeError
from ..graph.op import snake_case

_TRUNCATED_STD = 0.87962566103423978
"""Standard deviation of a unit normal cut at two standard deviations; dividing by it restores 1."""


def fans(shape: Sequence[int]) -> tuple[int, int]:
    """Values that flow into and out of one unit: (C, K) -> C, K and (R, S, C, K) -> R S C, R S K."""
    if len(shape) < 2:
        size = prod(shape)
        return size, size
    taps = prod(shape[:-2])
    return taps * shape[-2], taps * shape[-1]


def check_seed(seed: Any, where: str) -> int | None:
    """A whole number of 64 bits, or None."""
    if seed is None:
        return None
    try:
        found = seed.__index__() if not isinstance(seed, bool) else None
    except (AttributeError, TypeError):
        found = None
    if found is None or not -(2**63) <= found < 2**64:
        raise ConvLoomError(f"{where}: seed must be a whole number of 64 bits or None, got {seed!r:.80}")
    return int(found)


def generator(seed: int) -> torch.Generator:
    """Torch's generator on the CPU, from this seed."""
    return torch.Generator("cpu").manual_seed(seed)


@dataclass(frozen=True)
class Initializer:
    """Base of the initializers, whose fields are Keras's arguments.

    Raises ConvLoomError for values that make no sense.
    """

    def __post_init__(self) -> None:
        for field in fields(self):
            value, where = getattr(self, field.name), type(self).__name__
            if field.name == "seed":
                object.__setattr__(self, "seed", check_seed(value, where))
            elif field.type == "float":
                if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
                    raise ConvLoomError(f"{where}: {field.name} must be a finite number, got {value!r:.80}")
                object.__setattr__(self, field.name, float(value))

    def __call__(self, shape: Sequence[int], source: torch.Generator) -> torch.Tensor:
        """Values of this shape, in float32. source: what draws them where there is no seed."""
        seed: int | None = getattr(self, "seed", None)
        return self.draw(torch.empty(tuple(shape), device="cpu"), source if seed is None else generator(seed))

    def draw(self, values: torch.Tensor, source: torch.Generator) -> torch.Tensor:
        """Fill the tensor, or give another in its place."""
        raise NotImplementedError

    def config(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class Constant(Initializer):
    """One value for all."""

    value: float = 0.0

    def draw(self, values: torch.Tensor, source: torch.Generator) -> torch.Tensor:
        return values.fill_(self.value)


@dataclass(frozen=True)
class Zeros(Initializer):
    """0."""

    def draw(self, values: torch.Tensor, source: torch.Generator) -> torch.Tensor:
        return values.zero_()


@dataclass(frozen=True)
class Ones(Initializer):
    """1."""

    def draw(self, values: torch.Tensor, source: torch.Generator) -> torch.Tensor:
        return values.fill_(1.0)


@dataclass(frozen=True)
class RandomNormal(Initializer):
    """Normal numbers."""

    mean: float = 0.0
    stddev: float = 0.05
    seed: int | None = None

    def draw(self, values: torch.Tensor, source: torch.Generator) -> torch.Tensor:
        return values.normal_(self.mean, self.stddev, generator=source)


@dataclass(frozen=True)
class TruncatedNormal(Initializer):
    """Normal numbers cut at two standard deviations."""

    mean: float = 0.0
    stddev: float = 0.05
    seed: int | None = None

    def draw(self, values: torch.Tensor, source: torch.Generator) -> torch.Tensor:
        return _truncated(values, source).mul_(self.stddev).add_(self.mean)


@dataclass(frozen=True)
class RandomUniform(Initializer):
    """Uniform numbers."""

    minval: float = -0.05
    maxval: float = 0.05
    seed: int | None = None

    def draw(self, values: torch.Tensor, source: torch.Generator) -> torch.Tensor:
        return values.uniform_(self.minval, self.maxval, generator=source)


@dataclass(frozen=True)
class VarianceScaling(Initializer):
    """Numbers of variance scale / fan: the values that flow into or out of a unit, or the mean of both.

    mode: "fan_in", "fan_out" or "fan_avg". distribution: "truncated_normal" (cut at two standard deviations),
    "untruncated_normal" or "uniform".
    """

    scale: float = 1.0
    mode: str = "fan_in"
    distribution: str = "truncated_normal"
    seed: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value, known in (
            ("mode", self.mode, ("fan_in", "fan_out", "fan_avg")),
            ("distribution", self.distribution, ("truncated_normal", "untruncated_normal", "uniform")),
        ):
            if value not in known:
                raise ConvLoomError(f"VarianceScaling: {name} is {' or '.join(known)}, got {value!r:.80}")

    def draw(self, values: torch.Tensor, source: torch.Generator) -> torch.Tensor:
        into, out = fans(values.shape)
        fan = {"fan_in": into, "fan_out": out, "fan_avg": (into + out) / 2}[self.mode]
        std = sqrt(self.scale / max(1.0, fan))
        if self.distribution == "uniform":
            return values.uniform_(-sqrt(3) * std, sqrt(3) * std, generator=source)
        if self.distribution == "truncated_normal":
            return _truncated(values, source).mul_(std / _TRUNCATED_STD)
        return values.normal_(0, std, generator=source)


@dataclass(frozen=True)
class _Scaled(Initializer):
    """Base: variance scaling with everything settled but the seed."""

    seed: int | None = None

    def draw(self, values: torch.Tensor, source: torch.Generator) -> torch.Tensor:
        return self.scaling().draw(values, source)

    def scaling(self) -> VarianceScaling:
        raise NotImplementedError


class GlorotUniform(_Scaled):
    """Glorot & Bengio 2010."""

    def scaling(self) -> VarianceScaling:
        return VarianceScaling(1.0, "fan_avg", "uniform")


class GlorotNormal(_Scaled):
    """Glorot & Bengio 2010."""

    def scaling(self) -> VarianceScaling:
        return VarianceScaling(1.0, "fan_avg", "truncated_normal")


class HeUniform(_Scaled):
    """He et al. 2015."""

    def scaling(self) -> VarianceScaling:
        return VarianceScaling(2.0, "fan_in", "uniform")


class HeNormal(_Scaled):
    """He et al. 2015."""

    def scaling(self) -> VarianceScaling:
        return VarianceScaling(2.0, "fan_in", "truncated_normal")


class LecunUniform(_Scaled):
    """LeCun et al. 1998."""

    def scaling(self) -> VarianceScaling:
        return VarianceScaling(1.0, "fan_in", "uniform")


class LecunNormal(_Scaled):
    """LeCun et al. 1998."""

    def scaling(self) -> VarianceScaling:
        return VarianceScaling(1.0, "fan_in", "truncated_normal")


@dataclass(frozen=True)
class Orthogonal(Initializer):
    """A matrix of orthogonal rows or columns (Saxe et al. 2014), all axes but the last being its rows."""

    gain: float = 1.0
    seed: int | None = None

    def draw(self, values: torch.Tensor, source: torch.Generator) -> torch.Tensor:
        if values.ndim < 2:
            raise ShapeError(f"Orthogonal: takes weights of two axes or more, got {tuple(values.shape)}")
        rows, columns = prod(values.shape[:-1]), values.shape[-1]
        normal = torch.empty(max(rows, columns), min(rows, columns)).normal_(generator=source)
        q, r = torch.linalg.qr(normal)
        q = q * r.diagonal().sign()
        return values.copy_((self.gain * (q if rows >= columns else q.T)).reshape(values.shape))


@dataclass(frozen=True)
class Identity(Initializer):
    """The identity matrix, times `gain`."""

    gain: float = 1.0

    def draw(self, values: torch.Tensor, source: torch.Generator) -> torch.Tensor:
        if values.ndim != 2:
            raise ShapeError(f"Identity: takes weights of two axes, got {tuple(values.shape)}")
        return torch.eye(*values.shape) * self.gain


def _truncated(values: torch.Tensor, source: torch.Generator) -> torch.Tensor:
    """Unit normal numbers cut at two standard deviations."""
    return torch.nn.init.trunc_normal_(values, generator=source, a=-2, b=2)


CLASSES: dict[str, type[Initializer]] = {
    cls.__name__: cls
    for cls in (
        *(Zeros, Ones, Constant, GlorotUniform, GlorotNormal, HeUniform, HeNormal, LecunUniform, LecunNormal),
        *(RandomNormal, RandomUniform, TruncatedNormal, VarianceScaling, Orthogonal, Identity),
    )
}

INITIALIZERS: dict[str, Initializer] = {
    **{snake_case(name): cls() for name, cls in CLASSES.items()},
    "small_truncated_normal": TruncatedNormal(stddev=0.02),
}


OTHER_NAMES = {"uniform": "random_uniform", "normal": "random_normal", "zero": "zeros", "one": "ones"}
"""Keras's short words for some of them."""


def from_class_name(class_name: object) -> str | None:
    """GlorotUniform, as a file names it, -> glorot_uniform; None for one that is not in the table."""
    name = snake_case(class_name) if isinstance(class_name, str) else None
    return name if name in INITIALIZERS else None


def from_config(said: Mapping[str, Any]) -> str | Initializer | None:
    """What {"class_name": ..., "config": {...}} describes: a name where it says no more than that.

    None where it is no initializer of the table, or says what ConvLoom has no words for.
    """
    name, config = from_class_name(said.get("class_name")), said.get("config")
    if name is None:
        return None
    cls = type(INITIALIZERS[name])
    known = {field.name for field in fields(cls)}
    said = config if isinstance(config, Mapping) else {}
    given = {key: value for key, value in said.items() if key in known}
    if not isinstance(given.get("seed"), int):
        given.pop("seed", None)  # None, or a generator of Keras's with a state of its own
    try:
        made = cls(**given)
    except ConvLoomError:
        return None
    return name if made == INITIALIZERS[name] else made
