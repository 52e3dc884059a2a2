"""The order in which the calls of a file are made."""

from __future__ import annotations

from .spec import LayerSpec, ModelSpec
from .values import malformed

Node = tuple[str, int]
"""A layer's name and which of its calls."""


def calls_of(layer: LayerSpec) -> int:
    """How often a layer is called; an input is there once without being called."""
    return 1 if layer.class_name == "InputLayer" else len(layer.calls)


def check_references(spec: ModelSpec, layers: dict[str, LayerSpec]) -> None:
    """Every reference names a layer of this model and one of its calls."""
    found = [(call.place, ref) for layer in spec.layers for call in layer.calls for ref in call.references]
    found += [(f"{spec.place}: input_layers", ref) for ref in spec.inputs]
    found += [(f"{spec.place}: output_layers", ref) for ref in spec.outputs]
    for place, reference in found:
        layer = layers.get(reference.layer)
        if layer is None:
            malformed(place, f"refers to a layer {reference.layer!r:.80}, which the model does not have")
        if reference.node >= calls_of(layer):
            malformed(
                place,
                f"refers to call {reference.node} of {reference.layer!r:.80}, "
                f"which has {calls_of(layer)} call(s)",
            )


def ordered(spec: ModelSpec) -> list[Node]:
    """All calls, each after those it reads (Kahn 1962). By call, not by layer: A(B(A(x))) is legal."""
    waiting: dict[Node, set[Node]] = {}
    readers: dict[Node, list[Node]] = {}
    for layer in spec.layers:
        for k in range(calls_of(layer)):
            needs = {(r.layer, r.node) for r in layer.calls[k].references} if k < len(layer.calls) else set()
            waiting[layer.name, k] = needs
            for need in needs:
                readers.setdefault(need, []).append((layer.name, k))
    ready = [node for node, needs in waiting.items() if not needs]
    order: list[Node] = []
    for node in ready:  # grows while it is read
        order.append(node)
        for reader in readers.get(node, []):
            waiting[reader].discard(node)
            if not waiting[reader]:
                ready.append(reader)
    if len(order) < len(waiting):
        malformed(spec.place, f"the layers form a cycle: {_cycle(waiting, set(order))}")
    return order


def _cycle(waiting: dict[Node, set[Node]], done: set[Node]) -> str:
    """One cycle among the calls that never became ready, each of which needs another such call."""
    node = next(node for node in waiting if node not in done)
    path: list[Node] = []
    while node not in path:
        path.append(node)
        node = next(need for need in sorted(waiting[node]) if need not in done)
    names = [name for name, _ in [*path[path.index(node) :], node]]
    return " <- ".join(map(repr, names if len(names) <= 12 else [*names[:10], "...", names[-1]]))
