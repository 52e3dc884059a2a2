"""Cutting a network where a layer ends: models that begin at what a layer gives, rather than at an Input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..graph.errors import ConvLoomError
from .layers.core import InputLayer
from .symbolic import SymbolicTensor, reachable_calls

Ways = Mapping[SymbolicTensor, SymbolicTensor]
"""A tensor -> the one that stands in its place; those that are not there stand for themselves."""


def begun_at(inputs: Sequence[SymbolicTensor], outputs: Sequence[SymbolicTensor], where: str) -> Ways:
    """What takes the place of tensors where a network begins at `inputs`.

    Each of them that a layer computes becomes an Input, and what follows from it is called again, as Keras
    does: the layers, and so their weights, are the same. Raises ConvLoomError for one that nothing needs.
    """
    ways = {
        tensor: InputLayer(tensor.shape[1:], tensor.dtype).tensor(tensor.type, tensor.other)
        for tensor in _inside(inputs)
    }
    if not ways:
        return ways
    calls = reachable_calls(outputs, until=ways)
    read = {tensor for call in calls for tensor in call.inputs}.union(outputs)
    for tensor in ways:
        if tensor not in read:
            raise ConvLoomError(f"{where}: no output depends on the input {tensor!r}; leave it out")
    for call in sorted(calls, key=lambda call: call.serial):
        if not any(tensor in ways for tensor in call.inputs):
            continue
        types, others = [t.type for t in call.outputs], [t.other for t in call.outputs]
        inputs_here = [ways.get(t, t) for t in call.inputs]
        again = call.block.record(inputs_here, types, call.training, call.options, others)
        again.written = call.written
        ways.update({t: new for t, new in zip(call.outputs, again.outputs, strict=True) if t not in ways})
    return ways


def _inside(inputs: Sequence[SymbolicTensor]) -> list[SymbolicTensor]:
    return [tensor for tensor in dict.fromkeys(inputs) if not isinstance(tensor.node.block, InputLayer)]


def put_in(structure: Any, ways: Ways) -> Any:
    """A tensor, or a list or a dictionary of them, with others in their place."""
    if isinstance(structure, SymbolicTensor):
        return ways.get(structure, structure)
    if isinstance(structure, Mapping):
        return {key: put_in(value, ways) for key, value in structure.items()}
    return [put_in(value, ways) for value in structure]
