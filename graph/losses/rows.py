"""Losses of whole rows along an axis: of classes, and of directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch

from ..errors import ConvLoomError, ShapeError
from ..op import Op
from ..ops import (
    CategoricalCrossEntropy,
    CategoricalFocal,
    Constant,
    CosineDistance,
    GeneralizedCrossEntropy,
    Multiply,
    RowLoss,
    Softmax,
    SoftmaxCrossEntropy,
)
from ..ops import CategoricalHinge as CategoricalHingeOp
from ..types import TensorType
from .base import Loss
from .builder import LossBuilder, Terms, moved
from .elementwise import on_axis


@dataclass(frozen=True)
class _OfRows(Loss):
    """The rows lie along `axis`; the number of a row stands behind the other axes."""

    axis: int = field(default=-1, kw_only=True)

    def of(self, build: LossBuilder, x: str, target: str, op: RowLoss) -> Terms:
        node = build.add(op, x, target)
        return Terms(node, (build.kind_of(node).rank - 1,))

    def target_type(self, prediction: TensorType) -> TensorType:
        """The classes behind the other axes."""
        order = moved(prediction.rank, on_axis(self, self.axis, prediction.rank))
        return prediction.accumulated().with_shape(prediction.shape[i] for i in order)

    def encode(self, target: torch.Tensor, output: tuple[int, ...]) -> torch.Tensor:
        return super().encode(target, output).movedim(self.axis, -1)

    def rows(self, build: LossBuilder, value: str) -> str:
        """A value with its rows along the last axis."""
        return build.last_axis(value, on_axis(self, self.axis, build.kind_of(value).rank))

    def logits_of(self, build: LossBuilder) -> str | None:
        """Of an activation along the last axis, where the rows lie along that."""
        at_the_end = on_axis(self, self.axis, (rank := build.kind_of(build.prediction).rank)) == rank - 1
        return super().logits_of(build) if at_the_end or getattr(self, "from_logits", False) else None


@dataclass(frozen=True)
class CategoricalCrossentropy(_OfRows):
    """-sum over the classes of y_true log(y_pred). Targets are rows of probabilities, often one-hot.

    from_logits: the network ends without a softmax. label_smoothing: how much of each row of targets is
    spread over all classes.
    """

    from_logits: bool = False
    label_smoothing: float = 0.0
    keras_name: ClassVar[str] = "categorical_crossentropy"
    aliases: ClassVar[tuple[str, ...]] = ("cce",)
    classifies: ClassVar[bool] = True
    last: ClassVar[type[Op] | None] = Softmax

    def hint(self, numbers: bool) -> str:
        return "; for class numbers use the loss 'sparse_categorical_crossentropy'" if numbers else ""

    def terms(self, build: LossBuilder) -> Terms:
        logits = self.logits_of(build)
        kind = SoftmaxCrossEntropy if logits else CategoricalCrossEntropy
        # Keras spreads by the size of the last axis, whichever the classes' is.
        spread = self.label_smoothing / build.kind_of(build.prediction).channels
        op = kind(1.0 - self.label_smoothing, spread)
        return self.of(build, self.rows(build, logits or build.prediction), build.target(self), op)


@dataclass(frozen=True)
class CategoricalFocalCrossentropy(_OfRows):
    """-alpha sum over the classes of y_true (1 - y_pred)^gamma log(y_pred) (Lin et al. 2017).

    alpha: a number, or one for each class.
    """

    alpha: float | Sequence[float] = 0.25
    gamma: float = 2.0
    from_logits: bool = False
    label_smoothing: float = 0.0
    keras_name: ClassVar[str] = "categorical_focal_crossentropy"
    classifies: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.alpha, int | float):
            object.__setattr__(self, "alpha", tuple(float(alpha) for alpha in self.alpha))

    def hint(self, numbers: bool) -> str:
        return "; torch.nn.functional.one_hot makes rows of class numbers" if numbers else ""

    def terms(self, build: LossBuilder) -> Terms:
        target, alpha, smoothing = build.target(self), self.alpha, self.label_smoothing
        kept, spread = 1.0 - smoothing, smoothing / build.kind_of(build.prediction).channels
        if isinstance(alpha, tuple):
            target = build.scaled(target, kept, spread)
            weights = build.add(Constant((len(alpha),), alpha), name="alpha")
            target, alpha, kept, spread = build.add(Multiply(), target, weights), 1.0, 1.0, 0.0
        assert isinstance(alpha, int | float)
        op = CategoricalFocal(self.from_logits, float(alpha), float(self.gamma), kept, spread)
        return self.of(build, self.rows(build, build.prediction), target, op)


@dataclass(frozen=True)
class _OfNumbers(_OfRows):
    """Base of the losses whose targets are class numbers, (batch, ...) or with an axis of size 1 behind."""

    classifies: ClassVar[bool] = True

    @property
    def ignored(self) -> int | None:
        return None

    def target_type(self, prediction: TensorType) -> TensorType:
        shape = super().target_type(prediction).shape
        return TensorType((*shape[:-1], 1), "int64")

    def _sizes(self, output: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
        """The positions of an example, and the classes."""
        order = moved(len(output), on_axis(self, self.axis, len(output) + 1) - 1)
        *positions, classes = (output[i] for i in order)
        return tuple(positions), classes

    def check(self, target: torch.Tensor, output: tuple[int, ...]) -> None:
        positions, classes = self._sizes(output)
        rows = (len(target), *positions)
        if classes > 1 and target.shape == (*rows, classes):
            raise ShapeError(
                f"{self.keras_name}: targets have shape {tuple(target.shape)}, expected {rows}; "
                f"for one-hot rows use 'categorical_crossentropy'"
            )
        if target.dtype.is_floating_point or target.dtype.is_complex or target.dtype == torch.bool:
            kind = str(target.dtype).removeprefix("torch.")
            raise ShapeError(f"{self.keras_name}: targets must be integers (class numbers), found {kind}")
        kept = target.squeeze(self.axis) if target.dim() == len(output) + 1 else target
        if kept.shape != rows:
            raise ShapeError(f"{self.keras_name}: targets have shape {tuple(target.shape)}, expected {rows}")
        counted = target if self.ignored is None else target[target != self.ignored]
        if not counted.numel():
            return
        low, high = int(counted.min()), int(counted.max())
        if low < 0 or high >= classes:
            raise ShapeError(
                f"{self.keras_name}: found class {low if low < 0 else high}, "
                f"but the network has {classes} outputs: classes 0 to {classes - 1}"
            )

    def encode(self, target: torch.Tensor, output: tuple[int, ...]) -> torch.Tensor:
        positions, _ = self._sizes(output)
        if target.shape[1:] != positions:
            self.check(target, output)
        numbers = target.reshape(len(target), *positions, 1).long()
        return numbers if self.ignored is None else numbers.masked_fill(numbers == self.ignored, -1)


@dataclass(frozen=True)
class SparseCategoricalCrossentropy(_OfNumbers):
    """-log(y_pred) of the right class. Targets are class numbers, (batch, ...) or (batch, ..., 1).

    ignore_class: a number, 255 or -1 say, at whose positions nothing is counted: with "sum_over_batch_size"
    the mean is over the others.
    """

    from_logits: bool = False
    ignore_class: int | None = None
    keras_name: ClassVar[str] = "sparse_categorical_crossentropy"
    aliases: ClassVar[tuple[str, ...]] = ("scce",)
    last: ClassVar[type[Op] | None] = Softmax

    def terms(self, build: LossBuilder) -> Terms:
        logits = self.logits_of(build)
        kind = SoftmaxCrossEntropy if logits else CategoricalCrossEntropy
        x = self.rows(build, logits or build.prediction)
        return self.of(build, x, build.target(self), kind(numbers=True))

    @property
    def ignored(self) -> int | None:
        return self.ignore_class

    @property
    def weighs(self) -> bool:
        return self.ignore_class is not None and self.reduction not in ("sum", "none", None)

    def counted(self, target: torch.Tensor, output: tuple[int, ...]) -> torch.Tensor | None:
        if self.ignore_class is None:
            return None
        return target.reshape(len(target), *self._sizes(output)[0]) != self.ignore_class


@dataclass(frozen=True)
class CategoricalGeneralizedCrossEntropy(_OfNumbers):
    """(1 - p^q) / q, p being the probability of the right class (Zhang & Sabuncu 2018): less moved by wrong
    labels than the cross-entropy. Targets are class numbers.
    """

    q: float = 0.5
    keras_name: ClassVar[str] = "categorical_generalized_cross_entropy"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.q < 1:
            raise ConvLoomError(f"{self.keras_name}: q must lie between 0 and 1, found {self.q!r:.60}")

    def terms(self, build: LossBuilder) -> Terms:
        op = GeneralizedCrossEntropy(float(self.q), numbers=True)
        return self.of(build, self.rows(build, build.prediction), build.target(self), op)


@dataclass(frozen=True)
class CategoricalHinge(_OfRows):
    """max(1 + the largest of (1 - y_true) y_pred - the sum of y_true y_pred, 0), along the last axis."""

    keras_name: ClassVar[str] = "categorical_hinge"

    def terms(self, build: LossBuilder) -> Terms:
        return self.of(build, self.rows(build, build.prediction), build.target(self), CategoricalHingeOp())


@dataclass(frozen=True)
class CosineSimilarity(_OfRows):
    """-1 where y_pred points along the axis as y_true does, 1 where it points the other way.

    A zero vector gives 0.
    """

    keras_name: ClassVar[str] = "cosine_similarity"

    def terms(self, build: LossBuilder) -> Terms:
        return self.of(build, self.rows(build, build.prediction), build.target(self), CosineDistance())
