"""The loss of pairs of examples, for metric learning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..errors import ShapeError
from ..ops import CircleLoss, Constant, Divide, Maximum, Multiply, Reduce, Step
from ..types import TensorType
from .base import Loss
from .builder import LossBuilder, Terms


@dataclass(frozen=True)
class Circle(Loss):
    """Examples of one label drawn together, others apart, those that lie wrong the most (Sun et al. 2020).

    The network gives embeddings of length 1, one an example (UnitNormalization makes such); targets are
    their labels. gamma: how sharply. margin: how far is far enough. remove_diagonal: an example is not
    compared with itself. Examples without another of their label, or without one of another, count nothing:
    the mean is over the others.
    """

    gamma: float = 80.0
    margin: float = 0.4
    remove_diagonal: bool = True
    keras_name: ClassVar[str] = "circle"

    def target_type(self, prediction: TensorType) -> TensorType:
        if prediction.rank != 2:
            raise ShapeError(f"circle is of embeddings, one vector an example; the output is {prediction}")
        return TensorType((*prediction.shape[:1], 1), "int64")

    def check(self, target: torch.Tensor, output: tuple[int, ...]) -> None:
        if target.shape not in ((len(target),), (len(target), 1)) or target.dtype.is_floating_point:
            kind = str(target.dtype).removeprefix("torch.")
            raise ShapeError(
                f"{self.keras_name}: targets must be whole numbers, one label an example, found {kind} of "
                f"shape {tuple(target.shape)}"
            )

    def encode(self, target: torch.Tensor, output: tuple[int, ...]) -> torch.Tensor:
        self.check(target, output)
        return target.reshape(len(target), 1).long()

    def terms(self, build: LossBuilder) -> Terms:
        op = CircleLoss(float(self.gamma), float(self.margin), self.remove_diagonal)
        return Terms(build.add(op, build.prediction, build.target(self)), (1,))

    def of_counted(self, build: LossBuilder, values: str, weighted: str, weight: str | None) -> str:
        """Divided by the share of the examples that count something."""
        if self.reduction in ("sum", "none", None):
            return weighted
        counts = build.add(Step(), values, name="counted")
        if weight is not None and self.reduction == "mean_with_sample_weight":
            counts = build.add(Multiply(), counts, weight, name="counted")
        share = build.add(Reduce((0, 1), mean=True), counts, name="counted")
        least = build.add(Constant((), 1e-30, build.kind_of(share).dtype), name="least")
        return build.add(Divide(), weighted, build.add(Maximum(), share, least, name="counted"))
