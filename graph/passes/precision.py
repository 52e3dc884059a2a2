"""The dtype a network computes in."""

from __future__ import annotations

from dataclasses import replace

from ..ir import Graph, Node
from ..ops import (
    KNOWN,
    Cast,
    Conv2D,
    Conv2DTranspose,
    Dense,
    Input,
    Parameter,
    Random,
    RandomBox,
    RandomTransform,
)


def with_dtype(graph: Graph, dtype: str) -> Graph:
    """The same network with its activations in `dtype`.

    Below float32, parameters stay float32 and the weights of contractions are cast where they are used, so an
    optimizer keeps its precision; float64 makes the parameters float64 too.
    """
    result = Graph(graph.name)
    names: dict[str, str] = {}
    half = dtype in ("bfloat16", "float16")
    for node in graph.nodes():
        op, inputs = node.op, [names[i] for i in node.inputs]
        if _follows(node, half):
            op = replace(op, dtype=dtype)  # type: ignore[call-arg]
        elif isinstance(op, Conv2D | Conv2DTranspose | Dense) and half:
            weight = inputs[1]
            inputs[1] = result.add(Cast(dtype), [weight], f"{weight}/{dtype}", node.layer)
        names[node.name] = result.add(op, inputs, node.name, node.layer, node.phase)
    result.outputs = {key: names[value] for key, value in graph.outputs.items()}
    result.updates = {names[p]: (names[v], m) for p, (v, m) in graph.updates.items()}
    result.penalties = {names[value]: ops for value, ops in graph.penalties.items()}
    result.constraints = {names[parameter]: op for parameter, op in graph.constraints.items()}
    return result


def _follows(node: Node, half: bool) -> bool:
    """Whether a source takes the network's dtype; weights and places do not follow it below float32."""
    if isinstance(node.op, Input | Random | RandomBox):
        return node.type.is_floating
    return isinstance(node.op, (Parameter, RandomTransform, *KNOWN)) and not half
