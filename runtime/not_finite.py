"""`debug_nan`: which layer and op of a training step made the first value that is NaN or infinite.

The failing step is computed once more, op by op through the ops' definitions, from the weights, the batch and
the random draws of the step. From what came out NaN or infinite the values are followed back to one that is
not finite though all it was computed from is: a mask that is infinite on purpose is not blamed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from ..graph.ir import Graph, Node
from ..graph.op import Kind
from ..graph.ops import KNOWN
from .autograd import Call, recorded

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


def explain(net: torch.nn.Module, step: Callable[[], torch.Tensor]) -> str:
    """Which layer and op made the first value of a step that is not finite, as a sentence.

    step: computes the loss, from the weights and the draws of the failing step. It moves statistics and fills
    gradients, as a step does; who calls this puts them back.
    """
    with recorded() as calls, torch.enable_grad():
        before = {name: value.detach().clone() for name, value in net.state_dict().items()}
        net.zero_grad(set_to_none=True)
        loss = step()
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
    gradients = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
    net.load_state_dict(before)
    for backward in (False, True):
        for call in reversed(calls) if backward else calls:
            if (maker := first_not_finite(call, backward)) is not None:
                return str(maker)
        if not backward and not _finite(loss):
            return f"the network's outputs are finite, and the loss function makes {_range(loss)} of them"
    broken = [name for name, gradient in gradients.items() if not _finite(gradient)]
    if broken:
        return (
            f"op by op all values are finite, and the kernel that gives the gradient of {broken[0]} "
            f"gives others"
        )
    sizes = {name: float(gradient.abs().max()) for name, gradient in gradients.items()}
    name = max(sizes, key=lambda each: sizes[each])
    return (
        f"loss and gradients are finite, and the optimizer's step made the weights so; the largest gradient, "
        f"{sizes[name]:.4g}, is that of {name}"
    )


@torch.no_grad()
def first_not_finite(call: Call, backward: bool) -> Maker | None:
    """What made the first value that is not finite in a call's forward pass, or in its backward pass too.

    None where, computed op by op, all is finite.
    """
    program = call.executor.program
    named = zip((node.name for node in program.inputs), call.inputs, strict=True)
    given = {**call.parameters, **dict(named), **call.drawn}
    if backward and call.seeds is not None:
        given.update((node, call.seeds[output]) for output, node in program.derivatives.seeds.items())
    values = _values(program.graph, given)
    ends = [*program.outputs.values(), *(write.value for write in program.writes)]
    ends += program.derivatives.gradients.values() if backward else ()
    end = next((end for end in ends if end in values and not _finite(values[end])), None)
    return None if end is None else _made(program.graph, values, end)


def _values(graph: Graph, given: Tensors) -> Tensors:
    """Every value that follows from what is given."""
    values = dict(given)
    device = next(iter(given.values())).device
    for node in graph.nodes():
        if node.name in values:
            continue
        if isinstance(node.op, KNOWN):
            values[node.name] = node.op.reference().to(device)
        elif node.inputs and all(name in values for name in node.inputs):
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
        parts.append(f"the rest {span}" if parts else span)
    return ", ".join(parts)
