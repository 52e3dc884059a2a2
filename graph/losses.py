"""A loss behind a network: which op computes it, and of which of the network's values.

A cross-entropy is taken of the logits where the network's last step is the softmax or the sigmoid that
belongs to it. As a function of the weights that is the same number, and it still learns where the
probabilities have rounded to 0 or 1; of anything else it is taken of the prediction itself, as Keras does.
This is settled once, when the loss is added, so that training and validation, fused and unfused, compute the
same function.
"""

from __future__ import annotations

from dataclasses import dataclass

from .errors import CompileError, unknown
from .ir import Graph, Node
from .op import Op
from .ops import (
    BinaryCrossEntropy,
    Cast,
    CategoricalCrossEntropy,
    Input,
    MeanSquaredError,
    Reshape,
    Scale,
    Sigmoid,
    Softmax,
    SoftmaxCrossEntropy,
)
from .words import words


@dataclass(frozen=True)
class _Loss:
    """of_prediction, of_logits: the op for either. last: the activation whose operand are the logits."""

    of_prediction: Op
    of_logits: Op | None = None
    last: type[Op] | None = None


LOSSES: dict[str, _Loss] = {
    "categorical_crossentropy": _Loss(CategoricalCrossEntropy(), SoftmaxCrossEntropy(), Softmax),
    "binary_crossentropy": _Loss(BinaryCrossEntropy(), BinaryCrossEntropy(from_logits=True), Sigmoid),
    "mean_squared_error": _Loss(MeanSquaredError()),
    "mse": _Loss(MeanSquaredError()),
}


def add_loss(graph: Graph, loss: str, from_logits: bool = False) -> str:
    """Append an input `target` and a loss of the only output, and return the name of the loss's node.

    loss: a key of LOSSES. from_logits: the output itself is logits, which belong to no activation.
    Raises CompileError for an unknown loss, one that has no logits, or a graph of several outputs.
    """
    if loss not in LOSSES:
        raise CompileError(unknown("loss", loss, LOSSES))
    if len(graph.outputs) != 1:
        takes = words("a loss by name takes one", "what is trained here has one")
        raise CompileError(f"{graph.name} has {len(graph.outputs)} outputs; {takes}")
    (prediction,) = graph.outputs.values()
    entry = LOSSES[loss]
    own = _logits(graph, prediction, entry.last) if entry.last else None
    if from_logits and own is not None:
        last = entry.last.op_name() if entry.last else ""
        raise CompileError(
            f"{graph.name} ends in a {last}, so its output is no logits; leave from_logits out"
        )
    if from_logits and entry.of_logits is None:
        raise CompileError(f"{loss} has no logits; leave from_logits out")
    op = entry.of_logits if (from_logits or own) and entry.of_logits else entry.of_prediction
    kind = graph[prediction].type
    target = graph.add(Input(kind.shape, kind.accumulated().dtype), (), "target")
    return graph.add(op, (own or prediction, target), "loss")


def _logits(graph: Graph, prediction: str, last: type[Op]) -> str | None:
    """The operand of the activation that a prediction ends in, seen as the prediction is; None if not so."""
    node, views = _behind_views(graph, prediction)
    if not isinstance(node.op, last):
        return None
    if last is Softmax and any(view.type.shape[-1:] != node.type.shape[-1:] for view in views):
        return None  # the rows of the loss are not those of the softmax
    value = node.inputs[0]
    for view in reversed(views):
        value = graph.add(view.op, (value,), f"{view.name}/logits", view.layer)
    return value


def _behind_views(graph: Graph, name: str) -> tuple[Node, list[Node]]:
    """The node that computes a value, and what merely looks at it otherwise, the outermost first."""
    node, views = graph[name], []
    while isinstance(node.op, Reshape | Cast) or node.op == Scale(1.0, 0.0):
        views.append(node)
        node = graph[node.inputs[0]]
    return node, views
