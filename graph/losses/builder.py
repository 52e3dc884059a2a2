"""What a loss appends to a graph with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from ..errors import CompileError
from ..ir import Graph, Node
from ..op import Op
from ..ops import Cast, Input, Multiply, Reduce, Reshape, Scale, Softmax, Transpose
from ..types import HALF, Dim, TensorType

if TYPE_CHECKING:
    from .base import Loss


@dataclass(frozen=True)
class Terms:
    """What a loss's number at each position is made of: the sum of `node` over its axes `over`, divided by
    `count`."""

    node: str
    over: tuple[int, ...] = ()
    count: float = 1.0


class LossBuilder:
    """What a loss appends to a graph with: its nodes, the prediction it is of and the target."""

    def __init__(self, graph: Graph, prediction: str, suffix: str = "") -> None:
        self.graph, self.prediction, self.suffix = graph, prediction, suffix

    def add(self, op: Op, *inputs: str, name: str = "loss terms") -> str:
        return self.graph.add(op, inputs, name + self.suffix)

    def kind_of(self, name: str) -> TensorType:
        return self.graph[name].type

    def target(self, loss: Loss) -> str:
        """The input of the targets."""
        kind = loss.target_type(self.kind_of(self.prediction))
        return self.add(Input(kind.shape, kind.dtype), name="target")

    def wide(self, name: str) -> str:
        """A value in float32 at least, as terms are computed."""
        return self.add(Cast("float32"), name) if self.kind_of(name).dtype in HALF else name

    def last_axis(self, name: str, axis: int) -> str:
        """A value with this axis behind the others."""
        order = moved(self.kind_of(name).rank, axis)
        return name if order == tuple(sorted(order)) else self.add(Transpose(order), name)

    def scaled(self, name: str, factor: float, offset: float = 0.0) -> str:
        return name if factor == 1 and offset == 0 else self.add(Scale(factor, offset), name)

    def operand_of(self, last: type[Op]) -> str | None:
        """The operand of the activation that the prediction ends in, seen as the prediction is."""
        node, views = behind_views(self.graph, self.prediction)
        if not isinstance(node.op, last):
            return None
        if last is Softmax and any(view.type.shape[-1:] != node.type.shape[-1:] for view in views):
            return None  # the rows of the loss are not those of the softmax
        value = node.inputs[0]
        for view in reversed(views):
            value = self.graph.add(view.op, (value,), f"{view.name}/logits", view.layer)
        return value

    def reduce(self, loss: Loss, terms: Terms, weighted: bool) -> str:
        """The loss's number, of its terms. weighted: whether positions have weights, which are an input."""
        weight = self._weight(loss, terms) if weighted else None
        node = terms.node if weight is None else self.add(Multiply(), terms.node, weight, name="weighted")
        node = loss.of_counted(self, terms.node, node, weight)
        shape = self.kind_of(node).shape
        if loss.reduction in (None, "none"):
            node = self.scaled(node, 1 / terms.count)
            return self.add(Reduce(terms.over), node, name="losses") if terms.over else node
        mean = loss.reduction != "sum"
        each = prod(int(shape[axis]) for axis in terms.over)
        node = self.scaled(node, (each if mean else 1) / terms.count)
        return self.add(Reduce(tuple(range(len(shape))), mean=mean), node, name="loss") if shape else node

    def _weight(self, loss: Loss, terms: Terms) -> str:
        kind = self.kind_of(terms.node)
        if kind.shape and not kind.batched:
            raise CompileError(
                f"{loss.keras_name} sums over the examples, so that these cannot have weights of their own; "
                f"leave the batch out of axis"
            )
        shape: Sequence[Dim] = kind.shape or ("N",)
        kept = tuple(1 if axis in terms.over else size for axis, size in enumerate(shape))
        return self.add(Input(kept, kind.accumulated().dtype), name="weight")


def moved(rank: int, axis: int) -> tuple[int, ...]:
    """The order of axes in which this one, which may count from behind, is the last."""
    axis %= rank
    return (*(i for i in range(rank) if i != axis), axis)


def behind_views(graph: Graph, name: str) -> tuple[Node, list[Node]]:
    """The node that computes a value, and what merely looks at it otherwise, the outermost first."""
    node, views = graph[name], []
    while isinstance(node.op, Reshape | Cast) or node.op == Scale(1.0, 0.0):
        views.append(node)
        node = graph[node.inputs[0]]
    return node, views


