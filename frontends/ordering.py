"""The order that Keras lists the layers of a model in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .lowering import Block
from .symbolic import Call, SymbolicTensor, reachable_calls


def keras_layer_order(outputs: Sequence[SymbolicTensor]) -> list[Block]:
    """The layers as Keras's Functional lists them, which fixes the order of weights and default file paths.

    By depth, the longest way to an output, the deepest first; layers of one depth in the order in which a
    depth-first walk from the outputs first meets them.
    """
    calls = reachable_calls(outputs)
    met = _first_met(outputs)
    call_depth: dict[Call, int] = {}
    block_depth: dict[Block, int] = {}
    for call in reversed(calls):
        depth = max(call_depth.get(call, 0), block_depth.get(call.block, 0))
        call_depth[call] = block_depth[call.block] = depth
        for source in _sources(call):
            call_depth[source] = max(depth + 1, call_depth.get(source, 0))
    return sorted(met, key=lambda block: (-block_depth[block], met[block]))


def _sources(call: Call) -> Iterable[Call]:
    return (tensor.node for tensor in call.inputs)


def _first_met(outputs: Sequence[SymbolicTensor]) -> dict[Block, int]:
    """Rank of each block by its first visit, before its operands."""
    seen: set[Call] = set()
    met: dict[Block, int] = {}
    stack = [output.node for output in reversed(outputs)]
    while stack:
        call = stack.pop()
        if call in seen:
            continue
        seen.add(call)
        met.setdefault(call.block, len(met))
        stack += [tensor.node for tensor in reversed(call.inputs)]
    return met
