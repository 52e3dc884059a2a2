"""What a loss is: Keras's arguments, and how it is made of a graph's values."""

from __future__ import annotations

import abc
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from ..errors import CompileError, ConvLoomError, ShapeError
from ..ir import Graph
from ..op import Op
from ..ops import Input
from ..types import BATCH, TensorType
from ..walk import walk
from .builder import LossBuilder, Terms
from .weights import position_weights

REDUCTIONS = ("sum_over_batch_size", "sum", "mean", "mean_with_sample_weight", "none", None)


@dataclass(frozen=True)
class Loss(abc.ABC):
    """A loss that is compiled with the network. Base of those of `cl.losses`, which have Keras's arguments.

    Call one with (y_true, y_pred, sample_weight=None) to compute it by itself.

    reduction: of the numbers at all positions of all examples: "sum_over_batch_size" or "mean", their mean;
        "sum"; "mean_with_sample_weight", divided by the sum of the sample weights; None or "none", as they
        are, which nothing can be trained with.
    name: what logs call it.
    """

    reduction: str | None = field(default="sum_over_batch_size", kw_only=True)
    name: str = field(default="", kw_only=True)

    keras_name: ClassVar[str] = ""
    logged: ClassVar[str] = ""
    """The name by default, where that is another."""
    aliases: ClassVar[tuple[str, ...]] = ()
    classifies: ClassVar[bool] = False
    """Whether accuracy says something of what it trains."""
    last: ClassVar[type[Op] | None] = None
    """The activation before which its logits lie."""

    def __post_init__(self) -> None:
        if self.reduction not in REDUCTIONS:
            known = ", ".join(map(repr, REDUCTIONS))
            raise ConvLoomError(f"{self.keras_name}: reduction {self.reduction!r:.60}; known: {known}")
        if not self.name:
            object.__setattr__(self, "name", self.logged or self.keras_name)

    # -- in the graph ----------
    @abc.abstractmethod
    def terms(self, build: LossBuilder) -> Terms:
        """Append what it is made of."""

    def logits_of(self, build: LossBuilder) -> str | None:
        """The logits of the prediction: it itself, or what its last activation is of. None: take it as it is.

        Raises CompileError for a prediction that is said to be logits and ends in that activation.
        """
        if self.last is None:
            return None
        own = build.operand_of(self.last)
        if not getattr(self, "from_logits", False):
            return own
        if own is not None:
            raise CompileError(
                f"{build.graph.name} ends in a {self.last.op_name()}, so its output is no logits; "
                f"leave from_logits out"
            )
        return build.prediction

    def of_counted(self, build: LossBuilder, values: str, weighted: str, weight: str | None) -> str:
        """The weighted values, divided by the share of them that count where the values say which do."""
        return weighted

    # -- by itself ----------
    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> torch.Tensor:
        """The loss of predictions, as Keras's object of that name gives it, differentiable by autograd.

        Raises ShapeError where the targets do not fit.
        """
        x, target = torch.as_tensor(y_pred), torch.as_tensor(y_true)
        x = x if x.dtype == torch.float64 else x.float()
        output = tuple(x.shape[1:])
        self.check(target, output)
        graph = Graph(self.keras_name)
        kind = str(x.dtype).removeprefix("torch.")
        prediction = graph.add(Input((BATCH, *output), kind), (), "prediction")
        weighted = sample_weight is not None or self.weighs
        build = LossBuilder(graph, prediction)
        result = build.reduce(self, self.terms(build), weighted)
        names = [node.name for node in graph.sources(Input)]
        given = [x, self.encode(target, output)]
        if weighted:
            weight = None if sample_weight is None else torch.as_tensor(sample_weight)
            given.append(position_weights(self, weight, target, output, graph[names[-1]].type.shape))
        return walk(graph, dict(zip(names, given, strict=True)), [result])[result]

    # -- targets ----------
    def target_type(self, prediction: TensorType) -> TensorType:
        """What it takes for a target; by default, numbers like the prediction's."""
        return prediction.accumulated()

    def check(self, target: torch.Tensor, output: tuple[int, ...]) -> None:
        """Raises ShapeError where targets (examples, ...) do not fit outputs of this shape."""
        wanted = (len(target), *output)
        if target.shape == wanted or (wanted[-1:] == (1,) and target.shape == wanted[:-1]):
            return
        numbers = target.shape in (wanted[:-1], (*wanted[:-1], 1))
        raise ShapeError(
            f"{self.keras_name}: targets have shape {tuple(target.shape)}, "
            f"but the network's output is {wanted}{self.hint(numbers)}"
        )

    def hint(self, numbers: bool) -> str:
        """What else an error of shapes says. numbers: whether the targets may be class numbers."""
        return ""

    def encode(self, target: torch.Tensor, output: tuple[int, ...]) -> torch.Tensor:
        """Targets that have been checked, as the graph takes them."""
        if target.shape[1:] != output:
            self.check(target, output)
        target = target.reshape(len(target), *output)
        return target if target.dtype.is_floating_point else target.to(torch.float32)

    def counted(self, target: torch.Tensor, output: tuple[int, ...]) -> torch.Tensor | None:
        """Which positions count, where not all do."""
        return None

    @property
    def weighs(self) -> bool:
        """Whether it needs weights of the positions even where no sample weights are given."""
        return False
