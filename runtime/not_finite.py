"""`debug_nan`: which layer and op of a training step made the first value that is NaN or infinite.

The failing step is computed once more, op by op through the ops' definitions, from the weights, the batch and
the random draws of the step. From what came out NaN or infinite the values are followed back to one that is
not finite though all it was computed from is: so a mask that is infinite on purpose is not blamed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from ..graph.ir import Graph, Node
from ..graph.op import Kind
from ..graph.ops import KNOWN
from ..planning.program import Program
from .inputs import bind_inputs
from .network import CompiledNetwork

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Maker:
    """The op that made the first value that is not finite. backward: in the backward pass."""

    node: Node
    value: torch.Tensor
    operands: Sequence[torch.Tensor]

    def __str__(self) -> str:
        node = self.node
        op = node.op.op_name()
        layer = f"layer {node.layer!r}" if node.layer else "the loss" if "loss" in node.name else node.name
        what = "input" if node.op.kind is Kind.SOURCE else f"op {op}"
        if node.phase == "backward":
            what += " of the backward pass"
        given = ", ".join(map(_range, self.operands))
        of = f", computed from {given}" if given else ""
        return f"the first value that is not finite comes from {layer}, {what}: {_range(self.value)}{of}"


@torch.no_grad()
def first_not_finite(
    network: CompiledNetwork, inputs: Sequence[torch.Tensor], drawn: Tensors
) -> Maker | None:
    """What made the first value that is not finite in a training step of a network with its loss behind it.

    inputs: of the network, targets and sample weights among them. drawn: what the step drew at random.
    None where, computed in this way, all is finite.
    """
    program = network.planned(training=True)
    bound = bind_inputs(network.input_nodes, list(inputs), network.options.device)
    named = zip((node.name for node in program.inputs), bound, strict=True)
    values = _step(program, {**network.weights(), **dict(named), **drawn})
    ends = [*program.outputs.values(), *(write.value for write in program.writes)]
    ends += program.derivatives.gradients.values()
    for end in ends:
        if not _finite(values[end]):
            return _made(program.graph, values, end)
    return None


def _step(program: Program, given: Tensors) -> Tensors:
    """Every value of a forward and a backward pass that starts from the loss itself."""
    values, graph = dict(given), program.graph
    device = next(iter(given.values())).device
    for output, seed in program.derivatives.seeds.items():
        like = values.get(program.outputs[output])
        batch = next(iter(given.values())).shape[0] if like is None else len(like) if like.ndim else 1
        values[seed] = torch.ones(graph[seed].type.size(batch), device=device)
    for node in graph.nodes():
        if node.name in values:
            continue
        if isinstance(node.op, KNOWN):
            values[node.name] = node.op.reference().to(device)
        else:
            values[node.name] = node.evaluate(*(values[name] for name in node.inputs))
    return values


def _made(graph: Graph, values: Mapping[str, torch.Tensor], end: str) -> Maker:
    order = {node.name: place for place, node in enumerate(graph.nodes())}
    found, seen, stack = end, {end}, [end]
    while stack:
        name = stack.pop()
        broken = [x for x in graph[name].inputs if not _finite(values[x])]
        if not broken and order[name] <= order[found]:
            found = name
        for each in broken:
            if each not in seen:
                seen.add(each)
                stack.append(each)
    node = graph[found]
    return Maker(node, values[found], [values[name] for name in node.inputs])


def _finite(value: torch.Tensor) -> bool:
    return not value.is_floating_point() or bool(torch.isfinite(value).all())


def _range(value: torch.Tensor) -> str:
    """The values of a tensor in a few words."""
    if not value.numel():
        return "no values"
    known = value.detach().double()
    finite = known[torch.isfinite(known)]
    nan, infinite = int(torch.isnan(known).sum()), int(torch.isinf(known).sum())
    parts = [f"{count} {name}" for count, name in ((nan, "NaN"), (infinite, "infinite")) if count]
    if len(finite):
        low, high = float(finite.min()), float(finite.max())
        span = f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
        parts.append(span if not parts else f"the rest {span}")
    return " and ".join(parts[:-1] + parts[-1:]) if len(parts) < 3 else ", ".join(parts)
