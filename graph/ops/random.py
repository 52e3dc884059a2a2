"""Drawn values, and the op that lets a layer do one thing in training and another in inference.

Everything random in a network is a source of this file, drawn anew for every batch by its `draw`, and by
nothing else. The numbers come from torch's generator, so that `torch.manual_seed` makes a run repeatable, or
from the seed of the source's layer; they are others than Keras would draw, of the same distribution.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from ..attributes import Sentence
from ..errors import ShapeError
from ..types import BATCH, DTYPES, Dim, TensorType
from ..windows import Pair
from .pointwise import Pointwise
from .source import _Source

if TYPE_CHECKING:
    from ..gradients import GradientBuilder
    from ..ir import Node


@dataclass(frozen=True)
class InTraining(Pointwise):
    """x in inference, y in training: how every layer that is random in training is written.

    The pipelines take one operand and drop the other before anything is cut into kernels. A layer that
    ConvLoom has no training for leaves y out and says in `refusal` why it cannot be trained through.
    """

    operands: ClassVar[tuple[str, ...]] = ("x", "y?")
    whole: ClassVar[tuple[str, ...]] = ("x", "y")
    refusal: Sentence = ""

    def infer(self, *inputs: TensorType) -> TensorType:
        if any(y.shape != inputs[0].shape for y in inputs[1:]):
            raise ShapeError(f"in_training gives {inputs[0]} in inference and {inputs[1]} in training")
        return inputs[0]

    def flops(self, inputs: Sequence[TensorType], output: TensorType, batch: int) -> int:
        return 0

    def formula(self, x: Any, *_: Any) -> Any:
        return x

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        return [dy, *[None for _ in node.inputs[1:]]]


@dataclass(frozen=True)
class Drawn(_Source):
    """Base of the sources that are drawn anew for every batch.

    seed: of the layer, whose sources take their numbers from one stream in turn (`Streams`).
    """

    seed: int | None = field(default=None, kw_only=True)

    def draw(self, batch: int, device: torch.device) -> torch.Tensor:
        """Values for a batch, contiguous, of the type `infer` gives."""
        raise NotImplementedError


class Streams:
    """The generators of a network's seeded layers: each gives its numbers whatever is drawn elsewhere."""

    def __init__(self) -> None:
        self._generators: dict[str, torch.Generator] = {}
        self.shift = 0
        """Is added to each seed, so that processes that train together draw different numbers."""

    def draw(self, node: Node, batch: int, device: torch.device) -> torch.Tensor:
        """Values for a batch of a node that is a `Drawn`, which has its layer's name."""
        source = node.op
        assert isinstance(source, Drawn)
        if source.seed is None:
            return source.draw(batch, device)
        place = node.layer or node.name
        if place not in self._generators:
            self._generators[place] = torch.Generator(device).manual_seed(source.seed + self.shift)
        with _taking_from(self._generators[place]):
            return source.draw(batch, device)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Where each generator that has been drawn from stands, by its layer's name."""
        return {place: generator.get_state() for place, generator in self._generators.items()}

    def load_state_dict(self, state: Mapping[str, torch.Tensor], device: torch.device) -> None:
        """The inverse of `state_dict`."""
        self._generators = {place: torch.Generator(device) for place in state}
        for place, kept in state.items():
            self._generators[place].set_state(kept)


@contextlib.contextmanager
def _taking_from(generator: torch.Generator) -> Iterator[None]:
    """Torch's own generator of that device gives the numbers of this one, and is then as it was."""
    cuda = generator.device.type == "cuda"
    own = torch.cuda.default_generators[generator.device.index] if cuda else torch.default_generator
    before = own.get_state()
    own.set_state(generator.get_state())
    try:
        yield
        generator.set_state(own.get_state())
    finally:
        own.set_state(before)


# -- numbers -------------------------------------------------------------------------------------------------
def _two_values(x: torch.Tensor, probability: float, value: float) -> None:
    x.bernoulli_(probability).mul_(value)


def _odds(x: torch.Tensor, low: float, high: float) -> None:
    """Odds u / (1 - u) of uniform numbers u; those of 1 are large, but finite."""
    u = torch.empty_like(x, dtype=torch.float64).uniform_(low, high)
    x.copy_((u / (1 - u + 1e-7)).clamp_(max=torch.finfo(x.dtype).max))


def _power_of_two(x: torch.Tensor, low: float, high: float) -> None:
    """2 to the power of a whole number, each from low to high as likely."""
    x.random_(int(low), int(high) + 1).exp2_()


def _either_way(x: torch.Tensor, low: float, high: float) -> None:
    x.uniform_(low, high).mul_(torch.empty_like(x).bernoulli_(0.5).mul_(2).sub_(1))


DISTRIBUTIONS: dict[str, Callable[..., object]] = {
    "bernoulli": _two_values,
    "normal": torch.Tensor.normal_,
    "odds": _odds,
    "power of two": _power_of_two,
    "uniform": torch.Tensor.uniform_,
    "uniform either way": _either_way,
}
"""Name -> what fills a tensor with independent draws, given the two numbers of `Random.of`."""


@dataclass(frozen=True)
class Random(Drawn):
    """Independent numbers.

    of: bernoulli (probability, value): `value` with that probability, else 0; normal (mean, standard
    deviation); uniform (low, high), either way: times 1 or -1; odds u / (1 - u) of a uniform u; a power of
    two with a whole exponent from low to high. shared: axes along which one draw holds for all places.
    """

    shape: tuple[Dim, ...] = (BATCH,)
    distribution: str = "uniform"
    of: tuple[float, float] = (0.0, 1.0)
    shared: tuple[int, ...] = ()
    dtype: str = "float32"

    def role(self) -> str:
        return "mask" if self.distribution == "bernoulli" else "noise"

    def infer(self, *inputs: TensorType) -> TensorType:
        if self.distribution not in DISTRIBUTIONS:
            known = ", ".join(DISTRIBUTIONS)
            raise ShapeError(f"no distribution is called {self.distribution!r}; known: {known}")
        return TensorType(self.shape, self.dtype)

    def draw(self, batch: int, device: torch.device) -> torch.Tensor:
        size = self.infer().size(batch)
        drawn = [1 if axis in self.shared else d for axis, d in enumerate(size)]
        values = torch.empty(drawn, dtype=DTYPES[self.dtype], device=device)
        DISTRIBUTIONS[self.distribution](values, *self.of)
        return values.expand(size).contiguous()


@dataclass(frozen=True)
class RandomBlur(Drawn):
    """The kernel (height, width, 1, channels) of a depthwise convolution that blurs, one for the batch.

    A product of normal densities along both axes, its sum 1. sigma: range of their standard deviations, each
    drawn for itself.
    """

    size: Pair = (3, 3)
    channels: int = 1
    sigma: tuple[float, float] = (0.0, 1.0)
    dtype: str = "float32"

    def infer(self, *inputs: TensorType) -> TensorType:
        return TensorType((*self.size, 1, self.channels), self.dtype)

    def draw(self, batch: int, device: torch.device) -> torch.Tensor:
        rows, columns = (self._density(n, device) for n in self.size)
        kernel = (rows[:, None] * columns).to(DTYPES[self.dtype])
        return kernel[..., None, None].expand(self.infer().size()).contiguous()

    def _density(self, count: int, device: torch.device) -> torch.Tensor:
        """Along one axis, in float64."""
        place = torch.arange(count, dtype=torch.float64, device=device) - (count - 1) / 2
        return torch.softmax(-0.5 * (place / (uniform(place[:1], *self.sigma) + 1e-6)) ** 2, 0)


@dataclass(frozen=True)
class RandomBox(Drawn):
    """A map (N, height, width, 1) for each sample: 1 inside a box, else 0.

    A side of the box is the square root of a uniform number of `scale`, as a part of the image's side; its
    place is uniform. probability: of there being a box.
    """

    size: Pair = (1, 1)
    scale: tuple[float, float] = (0.02, 0.33)
    probability: float = 1.0
    dtype: str = "float32"

    def infer(self, *inputs: TensorType) -> TensorType:
        return TensorType((BATCH, *self.size, 1), self.dtype)

    def draw(self, batch: int, device: torch.device) -> torch.Tensor:
        like = torch.empty(batch, device=device)
        there = torch.empty_like(like).bernoulli_(self.probability) > 0
        columns = self._side(like, self.size[1])[:, None, :]
        rows = self._side(like, self.size[0])[:, :, None]
        box = rows & columns & there[:, None, None]
        return box[..., None].to(DTYPES[self.dtype]).contiguous()

    def _side(self, like: torch.Tensor, size: int) -> torch.Tensor:
        """Which places along an axis lie inside, (batch, size)."""
        length = uniform(like, *self.scale).sqrt() * size
        start = uniform(like, 0.0, 1.0) * (size - length)
        place = torch.arange(size, device=like.device)
        return (place >= start[:, None]) & (place < (start + length)[:, None])


# -- transforms of images ------------------------------------------------------------------------------------
def uniform(like: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Uniform numbers in the shape, dtype and place of `like`."""
    return torch.empty_like(like).uniform_(low, high)


Parts = dict[str, torch.Tensor]
"""Those of a0, a1, a2, b0, b1, b2 that differ from the identity's."""


def _flip(like: torch.Tensor, size: Pair, horizontal: float, vertical: float) -> Parts:
    """One coin decides for both axes, as in Keras."""
    flipped = torch.empty_like(like).bernoulli_(0.5)
    parts: Parts = {}
    if horizontal:
        parts |= {"a0": 1 - 2 * flipped, "a2": flipped * (size[1] - 1)}
    if vertical:
        parts |= {"b1": 1 - 2 * flipped, "b2": flipped * (size[0] - 1)}
    return parts


def _translation(like: torch.Tensor, size: Pair, up: float, down: float, left: float, right: float) -> Parts:
    """By parts of the image's sides; positive is down and to the right."""
    return {
        "b2": -uniform(like, up, down) * size[0],
        "a2": -uniform(like, left, right) * size[1],
    }


def _rotation(like: torch.Tensor, size: Pair, lower: float, upper: float) -> Parts:
    """About the middle, by parts of a full turn; positive is counter-clockwise."""
    angle = uniform(like, lower * 2 * math.pi, upper * 2 * math.pi)
    cos, sin = angle.cos(), angle.sin()
    x, y = (size[1] - 1) / 2, (size[0] - 1) / 2
    return {
        "a0": cos,
        "a1": -sin,
        "a2": x - x * cos + y * sin,
        "b0": sin,
        "b1": cos,
        "b2": y - x * sin - y * cos,
    }


def _zoom(like: torch.Tensor, size: Pair, lower: float, upper: float, *width: float) -> Parts:
    """About the middle; without bounds for the width, both sides by the same factor. Positive is away."""
    rows = uniform(like, 1 + lower, 1 + upper)
    columns = uniform(like, 1 + width[0], 1 + width[1]) if width else rows
    return {
        "b1": rows,
        "b2": (size[0] - 1) / 2 * (1 - rows),
        "a0": columns,
        "a2": (size[1] - 1) / 2 * (1 - columns),
    }


def _shear(
    like: torch.Tensor, size: Pair, x_lower: float, x_upper: float, y_lower: float, y_upper: float
) -> Parts:
    """Both axes the same way round, which a coin decides."""
    sign = 1 - 2 * torch.empty_like(like).bernoulli_(0.5)
    return {"a1": uniform(like, x_lower, x_upper) * sign, "b0": uniform(like, y_lower, y_upper) * sign}


def _crop(like: torch.Tensor, size: Pair, height: float, width: float) -> Parts:
    """The place of a window of this size, the same for the whole batch, as in Keras."""
    one = like[:1]
    return {
        "b2": uniform(one, 0, size[0] - height + 1).floor().clamp(max=size[0] - height).expand_as(like),
        "a2": uniform(one, 0, size[1] - width + 1).floor().clamp(max=size[1] - width).expand_as(like),
    }


TRANSFORMS: dict[str, Callable[..., Parts]] = {
    "crop": _crop,
    "flip": _flip,
    "rotation": _rotation,
    "shear": _shear,
    "translation": _translation,
    "zoom": _zoom,
}
"""Name -> what draws the affine transforms of a batch, given the image's size and the numbers of `of`."""

IDENTITY = {"a0": 1.0, "a1": 0.0, "a2": 0.0, "b0": 0.0, "b1": 1.0, "b2": 0.0, "c0": 0.0, "c1": 0.0}
"""The transform that leaves every pixel where it is, in the order of `Warp`'s operand."""


@dataclass(frozen=True)
class RandomTransform(Drawn):
    """A transform (N, 8) of images of `size` for each sample, as `Warp` takes it.

    transform: a name of TRANSFORMS, or "perspective", whose `of` is (probability, scale). Kept in float32 at
    least: a coordinate needs more digits than a colour.
    """

    size: Pair = (1, 1)
    transform: str = "flip"
    of: tuple[float, ...] = (1.0, 1.0)
    dtype: str = "float32"

    def infer(self, *inputs: TensorType) -> TensorType:
        if self.transform not in TRANSFORMS and self.transform != "perspective":
            known = ", ".join([*TRANSFORMS, "perspective"])
            raise ShapeError(f"no transform is called {self.transform!r}; known: {known}")
        return TensorType((BATCH, 8), self.dtype)

    def draw(self, batch: int, device: torch.device) -> torch.Tensor:
        like = torch.empty(batch, dtype=DTYPES[self.dtype], device=device)
        if self.transform == "perspective":
            return self._perspective(like)
        parts = TRANSFORMS[self.transform](like, self.size, *self.of)
        return torch.stack([parts.get(key, torch.full_like(like, v)) for key, v in IDENTITY.items()], 1)

    def _perspective(self, like: torch.Tensor) -> torch.Tensor:
        """The corners, each moved by a part of its own coordinates, go back to where they came from."""
        probability, scale = self.of
        height, width = self.size
        corners = like.new_tensor([[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]])
        start = corners.expand(like.shape[0], 4, 2)
        end = start * (1 + uniform(start, -scale / 2, scale / 2))
        moved = torch.empty_like(like).bernoulli_(probability) > 0
        return homography(start, torch.where(moved[:, None, None], end, start)).contiguous()


def homography(start: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
    """The projective transforms (N, 8) that take four points `end` to `start`, each (N, 4, 2) of (x, y).

    Each pair of points gives two linear equations in the eight numbers (Hartley & Zisserman, "Multiple view
    geometry", 2003, section 4.1, with the last number set to 1).
    """
    x, y = end.unbind(-1)
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    to_x, to_y = start.unbind(-1)
    rows = [
        torch.stack([x, y, one, zero, zero, zero, -to_x * x, -to_x * y], -1),
        torch.stack([zero, zero, zero, x, y, one, -to_y * x, -to_y * y], -1),
    ]
    found: torch.Tensor = torch.linalg.solve(torch.cat(rows, 1), torch.cat([to_x, to_y], 1))
    return found
