"""What a network should give, op by op by definition in float64, and how far rounding may move it.

Nothing of the compiler is used: neither passes nor gradients of the IR nor kernels. Gradients are torch's own
of the definitions, and training means what Keras means by it. Every result is computed several times, each
value of the graph with a rounding error of its own; how far the results then differ is what the difference of
a float32 network is measured by. A network that is badly conditioned is so allowed what it must be, and
another is not. Where a value lies so near to a kink (relu's 0, two equal maxima) that rounding decides, the
results differ grossly: there nothing can be said, and other values must be drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod, sqrt
from typing import Any, Protocol

import torch
from convloom.graph import ops
from convloom.graph.ir import Graph, Node
from convloom.graph.op import Kind

Values = dict[str, torch.Tensor]


class Rounding(Protocol):
    def __call__(self, value: torch.Tensor, read: bool = False) -> torch.Tensor:
        """The value with an error, and its gradient with another; with that alone where it is read."""
        ...


def exactly(value: torch.Tensor, read: bool = False) -> torch.Tensor:
    return value


DECIDABLE = 3e-3
"""Of the largest value: what moves more by rounding is decided by it. A kink moves all of it."""

HUGE = 1e12
"""What comes near it may not fit into float32 on the way."""


@dataclass
class Outcome:
    """What a pass through a network gives: "output y", "gradient of x" for every source that has one, and in
    training "moved m", a moving statistic afterwards."""

    values: Values = field(default_factory=dict)

    def off(self, other: Outcome) -> dict[str, float]:
        """How far each value lies from the other's."""
        return {
            name: float((value - other.values[name]).abs().nan_to_num(nan=float("inf")).max())
            for name, value in self.values.items()
        }


@dataclass(frozen=True)
class Question:
    """A pass: the network, its sources' values, its outputs' gradients (None: there is no way back)."""

    graph: Graph
    sources: Values
    training: bool
    seeds: Mapping[str, torch.Tensor] | None

    def answer(self, rounding: Rounding = exactly) -> Outcome:
        graph = self.graph
        leaves = {
            name: value.clone().requires_grad_(self.seeds is not None and _has_gradient(graph[name]))
            for name, value in self.sources.items()
        }
        found: Values = {}
        moved: Values = {}
        for node in graph.nodes():
            if node.op.kind is Kind.SOURCE:
                known = isinstance(node.op, ops.KNOWN)
                value = node.op.reference().double() if known else leaves.get(node.name, torch.zeros(()))
            else:
                inputs = [rounding(found[name], read=True) for name in node.inputs]
                value = self._compute(node, inputs, rounding, moved)
            found[node.name] = rounding(value) if _rounds(node) else value
        outcome = Outcome({f"output {key}": found[name].detach() for key, name in graph.outputs.items()})
        outcome.values |= {f"moved {name}": value.detach() for name, value in moved.items()}
        if self.seeds is not None:
            total = sum((found[name] * self.seeds[key]).sum() for key, name in graph.outputs.items())
            wanted = [name for name, leaf in leaves.items() if leaf.requires_grad]
            gradients = torch.autograd.grad(total, [leaves[name] for name in wanted], allow_unused=True)  # type: ignore[arg-type]
            for name, gradient in zip(wanted, gradients, strict=True):
                outcome.values[f"gradient of {name}"] = (
                    torch.zeros_like(leaves[name]) if gradient is None else gradient
                )
        return outcome

    def _compute(
        self, node: Node, inputs: list[torch.Tensor], rounding: Rounding, moved: Values
    ) -> torch.Tensor:
        op = node.op
        if isinstance(op, ops.InTraining) and self.training:
            return inputs[-1]
        if isinstance(op, ops.Softmax | ops.LogSoftmax):
            return _softmax(inputs[0], rounding, isinstance(op, ops.LogSoftmax))
        if isinstance(op, ops.RowNorm):
            return _row_norm(op, inputs, rounding)
        if not (isinstance(op, ops.BatchNorm) and self.training and not op.frozen):
            return op.reference(*inputs)
        x, gamma, beta = inputs[:3]
        over = tuple(range(x.dim() - 1))
        mean = rounding(x.mean(over))
        centred = rounding(x - mean)
        variance = rounding((centred * centred).mean(over))
        for moving, batch in zip(node.inputs[3:], (mean, variance), strict=True):
            before = moved.get(moving, self.sources[moving])
            moved[moving] = op.momentum * before + (1 - op.momentum) * batch.detach()
        return rounding(centred * rounding(torch.rsqrt(variance + op.epsilon))) * gamma + beta

    def terms(self, batch: int) -> int:
        """Of the longest sum, forward or back: a contraction's inner axis, a weight's places in the batch."""
        longest = 1
        for node in self.graph.nodes():
            operands = [self.graph[name].type.elements(batch) for name in node.inputs]
            made = node.type.elements(batch)
            if node.op.kind is Kind.CONTRACTION:
                longest = max(
                    longest, int(sqrt(operands[0] * operands[1] / made)) + 1, made // node.type.channels
                )
            elif operands:
                longest = max(longest, max(operands) // made, made // min(operands))
        return longest


def _softmax(x: torch.Tensor, rounding: Rounding, log: bool) -> torch.Tensor:
    """Step by step: the parts of its gradient cancel, which is where its errors come from."""
    x = rounding(x - x.detach().amax(-1, keepdim=True))
    powers = rounding(rounding(x, read=True).exp())
    total = rounding(rounding(powers, read=True).sum(-1, keepdim=True))
    return rounding(x, read=True) - total.log() if log else rounding(powers, read=True) / total


def _row_norm(op: ops.RowNorm, inputs: list[torch.Tensor], rounding: Rounding) -> torch.Tensor:
    """Step by step, as a softmax."""
    x, *vectors = inputs
    if op.centred:
        x = rounding(x - rounding(rounding(x, read=True).mean(-1, keepdim=True)))
    power = rounding((rounding(x, read=True).square()).mean(-1, keepdim=True))
    y = rounding(rounding(x, read=True) * rounding(torch.rsqrt(power + op.epsilon)))
    y = rounding(y * vectors[0]) if vectors else y
    return y + vectors[1] if len(vectors) > 1 else y


def _rounds(node: Node) -> bool:
    return node.type.is_floating and node.op.kind is not Kind.MOVEMENT


def _has_gradient(node: Node) -> bool:
    if isinstance(node.op, ops.Parameter):
        return node.op.trainable
    return isinstance(node.op, ops.Input) and node.type.is_floating


class _Rounded(torch.autograd.Function):
    """A value with errors of a relative size (read: without), and its gradient with others."""

    @staticmethod
    def forward(
        ctx: Any, value: torch.Tensor, unit: float, generator: torch.Generator, read: bool
    ) -> torch.Tensor:
        ctx.unit, ctx.generator = unit, generator
        return value.view_as(value) if read else _with_errors(value, unit, generator)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        return _with_errors(gradients[0], ctx.unit, ctx.generator), None, None, None


def _with_errors(value: torch.Tensor, unit: float, generator: torch.Generator) -> torch.Tensor:
    return value * (1 + unit * torch.randn(value.shape, generator=generator, dtype=value.dtype))


class Expected:
    """The exact outcome of a question, and for each of its values what rounding may move it."""

    def __init__(self, question: Question, batch: int, seed: int) -> None:
        self.question = question
        self.unit = torch.finfo(torch.float32).eps * (4 + sqrt(question.terms(batch)))
        self.generator = torch.Generator().manual_seed(seed)
        self.exact = question.answer()
        self.moves: dict[str, float] = dict.fromkeys(self.exact.values, 0.0)
        self.look(2)

    def look(self, times: int) -> None:
        """Compute it so many more times with rounding errors."""
        for _ in range(times):
            off = self.question.answer(self._round).off(self.exact)
            self.moves = {name: max(moved, off[name]) for name, moved in self.moves.items()}

    def _round(self, value: torch.Tensor, read: bool = False) -> torch.Tensor:
        rounded: torch.Tensor = _Rounded.apply(value, self.unit, self.generator, read)
        return rounded

    def undecided(self) -> list[str]:
        """The values that rounding decides."""
        sizes = {name: float(value.abs().max()) for name, value in self.exact.values.items()}
        least = max(1.0, *(size for name, size in sizes.items() if name.startswith("gradient")), 0.0) / 100
        return [n for n, size in sizes.items() if not self.moves[n] <= DECIDABLE * max(size, least) < HUGE]

    def tolerance(self, name: str, dtype: torch.dtype) -> float:
        """For a network of this dtype. Twice what was seen to move, and a little of the value itself."""
        relative = torch.finfo(dtype).eps / torch.finfo(torch.float32).eps
        size = float(self.exact.values[name].abs().max())
        return relative * (2 * self.moves[name] + 0.25 * self.unit * size)

    def differences(
        self, found: Mapping[str, torch.Tensor], dtype: torch.dtype
    ) -> dict[str, tuple[float, float]]:
        """Name -> (difference, tolerance) of what lies too far off. Looks closer before it says so."""
        far = self._far(found, dtype)
        for times in (8, 32):
            if not far or self.undecided():
                return {}
            self.look(times)
            far = self._far(found, dtype)
        return {} if self.undecided() else far

    def _far(self, found: Mapping[str, torch.Tensor], dtype: torch.dtype) -> dict[str, tuple[float, float]]:
        far = {}
        for name, value in found.items():
            exact = self.exact.values[name]
            if value.shape != exact.shape:
                far[name] = (float("inf"), 0.0)
                continue
            off = float((value.detach().double() - exact).abs().nan_to_num(nan=float("inf")).max())
            allowed = self.tolerance(name, dtype)
            if off > allowed:
                far[name] = (off, allowed)
        return far


def draw_values(graph: Graph, batch: int, seed: int) -> Values:
    """For inputs and parameters, in float64, of float32's precision: no gamma, bias or statistic is plain."""
    generator = torch.Generator().manual_seed(seed)
    values: Values = {}
    for node in graph.nodes():
        if not isinstance(node.op, ops.Input | ops.Parameter):
            continue
        shape = node.type.size(batch)
        value = torch.randn(shape, generator=generator)
        if node.name.endswith("variance"):
            value = 0.5 + torch.rand(shape, generator=generator)
        elif node.name.endswith(("gamma", "alpha")):
            value = 0.3 + torch.rand(shape, generator=generator)
            value *= torch.where(torch.rand(shape, generator=generator) < 0.2, -1.0, 1.0)
        elif isinstance(node.op, ops.Parameter):
            value /= 2 if len(shape) < 2 else sqrt(prod(shape[:-1]))
        values[node.name] = value.double()
    return values
