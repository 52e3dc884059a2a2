"""What the backward pass computes anew instead of keeping it from the forward pass.

A normalised and activated value follows from the convolution's result, which is kept anyway, and vectors of a
channel each. Computing it again moves a few times its own bytes; keeping it takes them from the end of its
forward pass to its backward pass, when all the other layers' are kept too.
"""

from __future__ import annotations

from ..decisions import Decision
from ..ir import Graph, Node
from ..op import Kind
from ..ops import (
    Add,
    BatchNorm,
    Cast,
    Clip,
    Conv2DWeightGrad,
    GeneralRelu,
    HardSigmoid,
    Input,
    LeakyRelu,
    Maximum,
    Minimum,
    Multiply,
    Normalize,
    Relu,
    Relu6,
    Scale,
    Square,
    Subtract,
)

CHEAP = (
    Add, BatchNorm, Cast, Clip, GeneralRelu, HardSigmoid, LeakyRelu, Maximum, Minimum, Multiply, Normalize,
    Relu, Relu6, Scale, Square, Subtract,
)  # fmt: skip
"""Ops whose time is that of reading and writing memory."""
MOST_BYTES_MOVED = 4
"""Bytes that may be read and written anew for each byte that is not kept."""
LONGEST_CHAIN = 2
"""Values computed anew, each from the one before: those early in a chain are there again all at once."""
MOST_OPS_AGAIN = 8
"""Ops between an input and a convolution that reads what follows from it."""
FROM_INPUTS = "weight_gradient(f(input), dy) -> backward computes f(input)"
RULE = "backward reads f(x), x kept -> backward computes f(x)"


def recompute(graph: Graph) -> list[Decision]:
    """Let the backward pass compute what is cheap to compute from values that it reads anyway."""
    plan = _Plan(graph)
    for node in list(graph.nodes()):
        if node.name in plan.kept:
            plan.consider(node)
    _compute_again(graph, set(plan.chains))
    return plan.decisions


def recompute_from_inputs(graph: Graph) -> list[Decision]:
    """Let gradients of convolutions' weights compute what they read from inputs that are smaller than it.

    Those are an image's bytes, above all: the kernels that read it can cast and rescale them on the way, and
    an input is kept by whoever gave it.
    """
    known = graph.parameter_only()
    chosen = [
        node.name
        for node in graph.nodes()
        if isinstance(node.op, CHEAP)
        and _only_for_weight_gradients(graph, node)
        and 0 < _bytes_behind(graph, node, known) < node.type.nbytes(1)
    ]
    _compute_again(graph, set(chosen))
    return [Decision(FROM_INPUTS, name, True, "") for name in chosen]


def _only_for_weight_gradients(graph: Graph, node: Node) -> bool:
    """Whether it is a forward value that the backward pass reads only as what such gradients gather. A view
    of it, which may be read there, would keep it."""
    if any(reader.op.kind is Kind.VIEW for reader in graph.readers(node.name)):
        return False
    readers = [reader for reader in graph.readers(node.name) if reader.phase == "backward"]
    gathered = all(isinstance(r.op, Conv2DWeightGrad) and node.name != r.inputs[1] for r in readers)
    return node.phase == "forward" and bool(readers) and gathered


def _bytes_behind(graph: Graph, node: Node, known: set[str]) -> int:
    """Bytes of the inputs that a value follows from by a few cheap ops; 0 if it does not."""
    total, pending, seen = 0, list(node.inputs), {node.name}
    while pending:
        operand = graph[pending.pop()]
        if operand.name in seen or (operand.name in known and operand.type.rank <= 1):
            continue
        seen.add(operand.name)
        if isinstance(operand.op, Input):
            total += operand.type.nbytes(1)
        elif isinstance(operand.op, CHEAP) and operand.name not in known and len(seen) <= MOST_OPS_AGAIN:
            pending += operand.inputs
        else:
            return 0
    return total


class _Plan:
    """Which of the values that backward reads are computed anew. chains: those, and how many of them follow
    from one another."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.known = graph.parameter_only()
        self.kept = {
            name
            for node in graph.nodes()
            if node.phase == "backward"
            for name in node.inputs
            if graph[name].phase == "forward" and name not in self.known
        }
        self.chains: dict[str, int] = {}
        self.decisions: list[Decision] = []

    def consider(self, node: Node) -> None:
        """Take a value out of what is kept, where computing it anew is possible and worth it."""
        of_its_own = isinstance(node.op, CHEAP) and node.type.batched  # a view keeps what it is of
        if not of_its_own or self.graph.is_output(node.name):
            return
        reads: set[str] = set()
        reason = self._leaves(node, reads)
        if not reason:
            chain = 1 + max((self.chains.get(name, 0) for name in reads), default=0)
            size = node.type.nbytes(1)
            moved = size + sum(self.graph[name].type.nbytes(1) for name in reads)
            if chain > LONGEST_CHAIN:
                reason = f"it follows from {LONGEST_CHAIN} values that are computed anew, one from the other"
            elif moved > MOST_BYTES_MOVED * size:
                reason = f"{moved:,} bytes would be moved again to keep {size:,} fewer"
            else:
                self.chains[node.name] = chain
                self.kept.discard(node.name)
        self.decisions.append(Decision(RULE, node.name, not reason, reason))

    def _leaves(self, node: Node, reads: set[str]) -> str:
        """Collect what the value is computed from; why it cannot be, or ""."""
        for name in node.inputs:
            operand = self.graph[name]
            if name in self.known or name in self.kept or name in self.chains or _is_vector(operand):
                reads.add(name)
            elif operand.op.kind is Kind.SOURCE or not _is_cheap(operand):
                return f"{name} is not kept"
            elif reason := self._leaves(operand, reads):
                return reason
        return ""


def _is_cheap(node: Node) -> bool:
    return isinstance(node.op, CHEAP) or (node.op.kind is Kind.VIEW and node.type.batched)


def _is_vector(node: Node) -> bool:
    """Whether it has one number a channel at most, of whatever batch."""
    return not node.type.batched and node.type.rank <= 1


def _compute_again(graph: Graph, chosen: set[str]) -> None:
    """Let backward nodes read copies of the chosen values, made just before the first of them."""
    copies: dict[str, str] = {}

    def copy(name: str, reader: str) -> str:
        if name not in copies:
            node = graph[name]
            operands = [copy(operand, reader) if again(operand) else operand for operand in node.inputs]
            copies[name] = graph.add(node.op, operands, f"{name}/again", node.layer, "backward")
            graph.put_before(copies[name], reader)
        return copies[name]

    kept = {name for node in graph.nodes() if node.phase == "backward" for name in node.inputs} - chosen
    known = graph.parameter_only()

    def again(name: str) -> bool:
        node = graph[name]
        if name in chosen:
            return True
        if node.op.kind is Kind.SOURCE:
            return False
        return not (name in kept or name in known or node.phase == "backward" or _is_vector(node))

    for node in [node for node in graph.nodes() if node.phase == "backward"]:
        if chosen.intersection(node.inputs):
            operands = [copy(name, node.name) if name in chosen else name for name in node.inputs]
            graph.update_node(node.name, inputs=operands)
