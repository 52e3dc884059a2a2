"""Whether a network's last step is one for its loss."""

from __future__ import annotations

from collections.abc import Mapping

from ..ir import Graph, Node
from ..op import Kind, Op
from ..ops import Activation, Clip, HardSigmoid, Sigmoid, Softmax
from .base import Loss
from .builder import behind_views
from .elementwise import (
    BinaryCrossentropy,
    BinaryFocalCrossentropy,
    Hinge,
    Huber,
    KLDivergence,
    LogCosh,
    MeanAbsoluteError,
    MeanSquaredError,
    Poisson,
)
from .rows import CategoricalCrossentropy, CategoricalFocalCrossentropy, SparseCategoricalCrossentropy

OF_CLASSES = (CategoricalCrossentropy, CategoricalFocalCrossentropy, SparseCategoricalCrossentropy)
OF_YES_AND_NO = (BinaryCrossentropy, BinaryFocalCrossentropy)
OF_NUMBERS = (MeanSquaredError, MeanAbsoluteError, Huber, LogCosh)

RULE = (
    "As a rule: for regression no activation and mean_squared_error; for two classes one unit, sigmoid and "
    "binary_crossentropy; for many classes softmax and categorical_crossentropy, or with class numbers "
    "sparse_categorical_crossentropy"
)


def misfits(graph: Graph, losses: Mapping[str, Loss | None]) -> list[str]:
    """Of each output whose last step does not fit its loss: a sentence that says so, and what would."""
    found = []
    for output, loss in losses.items():
        if loss is None:
            continue
        node, _ = behind_views(graph, graph.outputs[output])
        if (reason := _misfit(loss, node)) is not None:
            found.append(f"output {output!r} with the loss {loss.keras_name}: {reason}")
    return found


def _misfit(loss: Loss, node: Node) -> str | None:
    """Only what is surely not meant: a last step of another kind may give anything."""
    units, op = node.type.channels if node.type.shape else 1, node.op
    of_logits = bool(getattr(loss, "from_logits", False))
    if isinstance(op, Softmax) and units == 1:
        return "a softmax of one unit is always 1; two classes want one unit and sigmoid"
    if isinstance(loss, OF_CLASSES) and units == 1 and loss.axis in (-1, node.type.rank - 1):
        return "of one class the loss is always 0; two classes want one unit, sigmoid and binary_crossentropy"
    if isinstance(loss, OF_CLASSES) and not of_logits:
        if isinstance(op, Sigmoid):
            return "many classes want softmax, where one of them is right; sigmoid says yes or no to each"
        if _is_no_probability(op):
            return f"it takes probabilities, and {_words(op)} gives any numbers; end in softmax{_OR_LOGITS}"
    if isinstance(loss, OF_YES_AND_NO) and not of_logits:
        if isinstance(op, Softmax):
            return f"a softmax of {units} classes wants categorical_crossentropy; yes or no to each, sigmoid"
        if _is_no_probability(op):
            return f"it takes probabilities, and {_words(op)} gives any numbers; end in sigmoid{_OR_LOGITS}"
    if isinstance(loss, KLDivergence) and _is_no_probability(op):
        return f"it takes probabilities, and {_words(op)} gives any numbers; end in softmax"
    if isinstance(loss, Poisson) and op.kind is Kind.CONTRACTION:
        return "it takes the logarithm of what the network gives; end in softplus or exponential"
    if isinstance(loss, Hinge) and isinstance(op, Sigmoid | Softmax):
        return f"its targets are -1 and 1, and a {op.op_name()} gives 0 to 1; end in tanh or no activation"
    if isinstance(loss, OF_NUMBERS) and isinstance(op, Softmax):
        return "numbers that a softmax gives sum to 1; regression wants no activation"
    return None


_OR_LOGITS = ", or say from_logits=True of the loss"


def _is_no_probability(op: Op) -> bool:
    within = isinstance(op, Sigmoid | HardSigmoid) or (isinstance(op, Clip) and op.low >= 0 and op.high <= 1)
    return op.kind is Kind.CONTRACTION or (isinstance(op, Activation) and not within)


def _words(op: Op) -> str:
    return "no activation" if op.kind is Kind.CONTRACTION else op.op_name().replace("_", " ")
