"""Keras's learning rate schedules: functions of the steps done, given as an optimizer's `learning_rate`.

`cl.optimizers.SGD(cl.schedules.CosineDecay(0.1, 1000))`. Accumulated gradients count one step a batch, as in
Keras. A schedule of your own derives from `LearningRateSchedule`, or is any function of the step. torch's
schedulers are another thing: `fit(scheduler=)` takes them, in `EachStep` where they count batches.
"""

from __future__ import annotations

import abc
import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from ..graph.errors import ConvLoomError
from .checks import number


@dataclass(frozen=True)
class EachStep:
    """A scheduler of torch's, or what makes one, that is to step after each batch rather than each epoch."""

    scheduler: Any


@dataclass(frozen=True)
class LearningRateSchedule(abc.ABC):
    """Base of the schedules: called with the number of steps done, 0 at first, it gives the rate."""

    _ranges: ClassVar[dict[str, dict[str, float]]] = {
        "decay_steps": {"above": 0},
        "first_decay_steps": {"above": 0},
        "t_mul": {"least": 1},
    }

    def __post_init__(self) -> None:
        """Raises ConvLoomError for an argument that is no number, or out of its range."""
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type in ("float", "float | None") and value is not None:
                number(value, f"{type(self).__name__}: {field.name}", **self._ranges.get(field.name, {}))

    @abc.abstractmethod
    def __call__(self, step: int) -> float:
        """The rate of the step that follows `step` others."""


@dataclass(frozen=True)
class _ByDecayRate(LearningRateSchedule):
    """Base of two that follow step / decay_steps; staircase: the quotient's whole part."""

    initial_learning_rate: float
    decay_steps: float
    decay_rate: float
    staircase: bool = False

    def _part(self, step: int) -> float:
        part = step / self.decay_steps
        return math.floor(part) if self.staircase else part


@dataclass(frozen=True)
class ExponentialDecay(_ByDecayRate):
    """initial_learning_rate * decay_rate^(step / decay_steps); staircase: the exponent's whole part."""

    name: str = "ExponentialDecay"

    def __call__(self, step: int) -> float:
        power: float = self.decay_rate ** self._part(step)
        return self.initial_learning_rate * power


@dataclass(frozen=True)
class InverseTimeDecay(_ByDecayRate):
    """initial_learning_rate / (1 + decay_rate * step / decay_steps); staircase: the quotient's whole part."""

    name: str = "InverseTimeDecay"

    def __call__(self, step: int) -> float:
        return self.initial_learning_rate / (1 + self.decay_rate * self._part(step))


@dataclass(frozen=True)
class PiecewiseConstantDecay(LearningRateSchedule):
    """values[0] up to and with step boundaries[0], values[1] up to boundaries[1], and so on."""

    boundaries: Sequence[float]
    values: Sequence[float]
    name: str = "PiecewiseConstant"

    def __post_init__(self) -> None:
        name = type(self).__name__
        for argument in ("boundaries", "values"):
            for value in getattr(self, argument):
                number(value, f"{name}: one of the {argument}")
        if len(self.values) != len(self.boundaries) + 1:
            raise ConvLoomError(
                f"{name}: there are {len(self.boundaries)} boundaries and {len(self.values)} values; give "
                f"one value more than boundaries"
            )
        if any(a >= b for a, b in zip(self.boundaries, self.boundaries[1:], strict=False)):
            raise ConvLoomError(f"{name}: the boundaries {list(self.boundaries)} must rise")

    def __call__(self, step: int) -> float:
        return self.values[bisect.bisect_left(self.boundaries, step)]


@dataclass(frozen=True)
class PolynomialDecay(LearningRateSchedule):
    """From initial_learning_rate to end_learning_rate in decay_steps, along (1 - step / decay_steps)^power.

    cycle: beyond that it starts again, and reaches the end at each multiple of decay_steps.
    """

    initial_learning_rate: float
    decay_steps: float
    end_learning_rate: float = 0.0001
    power: float = 1.0
    cycle: bool = False
    name: str = "PolynomialDecay"

    def __call__(self, step: int) -> float:
        steps = self.decay_steps
        if self.cycle:
            steps *= max(1, math.ceil(step / steps))
        left: float = (1 - min(step, steps) / steps) ** self.power
        return (self.initial_learning_rate - self.end_learning_rate) * left + self.end_learning_rate


@dataclass(frozen=True)
class CosineDecay(LearningRateSchedule):
    """Half a cosine from initial_learning_rate to alpha times it, in decay_steps (Loshchilov & Hutter 2017).

    warmup_target: first a straight line from initial_learning_rate to it, in warmup_steps; the cosine starts
    there.
    """

    initial_learning_rate: float
    decay_steps: float
    alpha: float = 0.0
    name: str = "CosineDecay"
    warmup_target: float | None = None
    warmup_steps: float = 0

    def __call__(self, step: int) -> float:
        start, done = self.initial_learning_rate, float(step)
        if self.warmup_target is not None:
            if step < self.warmup_steps:
                return start + (self.warmup_target - start) * step / self.warmup_steps
            start, done = self.warmup_target, step - self.warmup_steps
        return start * _cosine(min(done / self.decay_steps, 1.0), 1.0, self.alpha)


@dataclass(frozen=True)
class CosineDecayRestarts(LearningRateSchedule):
    """Half cosines, one after the other (Loshchilov & Hutter 2017).

    The first takes first_decay_steps and falls to alpha times initial_learning_rate; each is t_mul times as
    long as the one before, and m_mul times as high.
    """

    initial_learning_rate: float
    first_decay_steps: float
    t_mul: float = 2.0
    m_mul: float = 1.0
    alpha: float = 0.0
    name: str = "SGDRDecay"

    def __call__(self, step: int) -> float:
        part, restarts = step / self.first_decay_steps, 0
        if self.t_mul == 1.0:
            restarts = math.floor(part)
            part -= restarts
        else:
            length = 1.0
            while part >= length:  # which counts restarts exactly where a logarithm may round
                part -= length
                length *= self.t_mul
                restarts += 1
            part /= length
        return self.initial_learning_rate * _cosine(part, self.m_mul**restarts, self.alpha)


def _cosine(part: float, height: float, alpha: float) -> float:
    """Of half a cosine from `height` to alpha, what is left after a part of it."""
    return (1 - alpha) * 0.5 * height * (1 + math.cos(math.pi * part)) + alpha
