"""Losses of overlapping areas, for segmentation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from ..errors import ConvLoomError
from ..ops import Multiply, OverlapShare, Reduce
from .base import Loss
from .builder import LossBuilder, Terms

EPSILON = 1e-7


@dataclass(frozen=True)
class _Overlap(Loss):
    """1 - common / (common + alpha * missed + beta * wrong), each a sum over the axes.

    axis: what is summed over: all of the batch together by default; (1, 2, 3) for each image by itself.
    """

    axis: Any = field(default=None, kw_only=True)

    def _axes(self, rank: int) -> tuple[int, ...]:
        if self.axis is None:
            return tuple(range(rank))
        given = self.axis if isinstance(self.axis, tuple | list) else (self.axis,)
        if not all(type(axis) is int and -rank <= axis < rank for axis in given):
            raise ConvLoomError(
                f"{self.keras_name}: axis must be None, or axes of the batch from 0 to {rank - 1}; "
                f"found {self.axis!r:.60}"
            )
        return tuple(sorted({axis % rank for axis in given}))

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.axis, list):
            object.__setattr__(self, "axis", tuple(self.axis))

    def share(self) -> OverlapShare:
        """What is made of the sums."""
        raise NotImplementedError

    def terms(self, build: LossBuilder) -> Terms:
        p, t = build.wide(build.prediction), build.target(self)
        over = Reduce(self._axes(build.kind_of(p).rank))
        common = build.add(over, build.add(Multiply(), t, p), name="common")
        truth, found = build.add(over, t, name="truth"), build.add(over, p, name="found")
        return Terms(build.add(self.share(), common, truth, found))


@dataclass(frozen=True)
class Dice(_Overlap):
    """1 - 2 sum(y_true y_pred) / (sum(y_true) + sum(y_pred) + 1e-7)."""

    keras_name: ClassVar[str] = "dice"

    def share(self) -> OverlapShare:
        return OverlapShare(0.5, 0.5, EPSILON / 2)


@dataclass(frozen=True)
class Tversky(_Overlap):
    """1 - common / (common + alpha * missed + beta * wrong + 1e-7) (Salehi et al. 2017).

    common: the sum of y_true y_pred; missed: of y_true (1 - y_pred); wrong: of y_pred (1 - y_true).
    """

    alpha: float = 0.5
    beta: float = 0.5
    keras_name: ClassVar[str] = "tversky"

    def share(self) -> OverlapShare:
        return OverlapShare(float(self.alpha), float(self.beta), EPSILON)
