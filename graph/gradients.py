"""Differentiation as a graph transformation: the backward pass is more nodes of the same graph.

Reverse mode: nodes are visited from the outputs back, each op's `gradient` appends the nodes of its own
derivative, and gradients that meet at a value are added. What a forward value must be kept for the backward
pass is then no bookkeeping: it is simply read there.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from .ir import Graph, Node
from .op import Kind, Op
from .ops import Add, Cast, Input, Parameter, Reduce, Reshape
from .ops.reduction import _Sums
from .types import Dim, TensorType, widest


@dataclass
class Derivatives:
    """The ends of a backward pass.

    seeds: output name -> the input node holding its gradient.
    gradients: parameter or input -> its gradient node.
    """

    seeds: dict[str, str] = field(default_factory=dict)
    gradients: dict[str, str] = field(default_factory=dict)


class GradientBuilder:
    """What an op's `gradient` builds with: it adds nodes, and skips those nobody needs."""

    def __init__(self, graph: Graph, needed: set[str]) -> None:
        self.graph = graph
        self.needed = needed
        self.node: Node | None = None

    def operand(self, node: Node, position: int) -> Node:
        return self.graph[node.inputs[position]]

    def add(self, op: Op, *inputs: str, phase: str = "backward") -> str:
        """A new node, named and credited after the forward node being differentiated."""
        source = self.node.name if self.node else op.op_name()
        name = f"{source}/{op.op_name()}"
        return self.graph.add(op, inputs, name, layer=self.node.layer if self.node else "", phase=phase)

    def if_needed(self, operand: Node, op: Op, *inputs: str) -> str | None:
        """`add`, or None where no trainable value lies behind `operand`."""
        return self.add(op, *inputs) if operand.name in self.needed else None

    def sum_to(self, dy: str, operand: Node, always: bool = False) -> str | None:
        """dy summed over the axes along which `operand` was broadcast; None where nobody needs it."""
        if operand.name not in self.needed and not always:
            return None
        return self._sum(dy, operand.type)

    def _sum(self, dy: str, target: TensorType) -> str:
        given = self.graph[dy].type
        if given.shape == target.shape:
            return dy
        lead = given.rank - target.rank
        padded: tuple[Dim, ...] = (1,) * lead + target.shape
        axes = tuple(
            i for i, (a, b) in enumerate(zip(given.shape, padded, strict=True)) if a != b or i < lead
        )
        total = self.add(Reduce(axes, keepdims=not lead), dy)
        if lead and axes != tuple(range(lead)):  # both new axes and stretched ones, which stay with size 1
            total = self.add(Reshape(target.size(), batched=False), total)
        return total

    def as_narrow_as(self, operand: Node, gradient: str) -> str:
        """A gradient that is no wider than the value it is of, where that is no weight's."""
        kind, wanted = self.graph[gradient].type, operand.type
        if not wanted.batched or widest([kind, wanted]) == wanted.dtype:
            return gradient
        op = self.graph[gradient].op
        if isinstance(op, _Sums) and not op.dtype and not self.graph.readers(gradient):
            self.graph.update_node(gradient, op=replace(op, dtype=wanted.dtype))
            return gradient
        return self.add(Cast(wanted.dtype), gradient)

    def bias_gradient(self, node: Node, position: int, dy: str) -> list[str | None]:
        """Gradient of the optional bias operand: dy summed over all axes but the channels."""
        if len(node.inputs) <= position:
            return []
        return [self.sum_to(dy, self.operand(node, position))]


def differentiate(
    graph: Graph, outputs: Sequence[str] | None = None, wrt_inputs: bool | Collection[str] = False
) -> Derivatives:
    """Append the backward pass of `graph` to it.

    outputs: output names to differentiate (default: all). Each gets an input node `d_<output>` as its seed.
    wrt_inputs: also give gradients of the network's floating-point inputs: of all, or of those named.
    Raises CompileError where an op on the way has no gradient.
    """
    forward = list(graph.nodes())
    wanted = {n.name for n in forward if _is_wanted(n, wrt_inputs)}
    needed = _needed(forward, wanted)
    build = GradientBuilder(graph, needed)
    result = Derivatives()
    pending: dict[str, list[str]] = {}
    for name in outputs if outputs is not None else list(graph.outputs):
        node = graph[graph.outputs[name]]
        if node.name not in needed:
            continue
        seed = graph.add(Input(node.type.shape, node.type.dtype), (), f"d_{name}", phase="backward")
        result.seeds[name] = seed
        pending.setdefault(node.name, []).append(seed)
    for node in reversed(forward):
        parts = pending.pop(node.name, None)
        if not parts:
            continue
        build.node = node
        dy = build.as_narrow_as(node, _total(build, parts))
        if node.name in wanted:
            result.gradients[node.name] = dy
        if node.op.kind is Kind.SOURCE:
            continue
        for operand, gradient in zip(node.inputs, node.op.gradient(build, node, dy), strict=True):
            if gradient is not None and operand in needed:
                pending.setdefault(operand, []).append(gradient)
    return result


def _is_wanted(node: Node, wrt_inputs: bool | Collection[str]) -> bool:
    if isinstance(node.op, Parameter):
        return node.op.trainable
    asked = wrt_inputs if isinstance(wrt_inputs, bool) else node.name in wrt_inputs
    return asked and isinstance(node.op, Input) and node.type.is_floating


def _needed(forward: list[Node], wanted: set[str]) -> set[str]:
    """Values through which a gradient must flow."""
    needed = set(wanted)
    for node in forward:
        if node.type.is_floating and any(operand in needed for operand in node.inputs):
            needed.add(node.name)
    return needed


def _total(build: GradientBuilder, parts: list[str]) -> str:
    total = parts[0]
    for part in parts[1:]:
        total = build.add(Add(), total, part)
    return total
