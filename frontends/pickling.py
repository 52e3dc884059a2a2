"""Models in pickles and deep copies: the calls that make up a network as one flat table.

Symbolic tensors lead from call to call, a step deeper for every layer, which is more than pickle's recursion
stands in a deep network. So a state holds its calls in order, operands first, and numbers in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .symbolic import Call, SymbolicTensor, reachable_calls

CALLS = "calls of the network"


@dataclass(frozen=True)
class _Place:
    """Stands for a call of the table, or for one of its results."""

    call: int
    result: int | None = None


def flattened(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state of a model without its calls and symbolic tensors, which it has in a table of their own."""
    roots = [found for value in state.values() for found in _symbolic(value)]
    tensors = [tensor for root in roots for tensor in (root.outputs if isinstance(root, Call) else [root])]
    calls = sorted(reachable_calls(tensors), key=lambda call: call.serial)
    number = {call: index for index, call in enumerate(calls)}

    def place(found: Call | SymbolicTensor) -> _Place:
        if isinstance(found, Call):
            return _Place(number[found])
        return _Place(number[found.node], found.position)

    table = [
        {
            "block": call.block,
            "inputs": [place(tensor) for tensor in call.inputs],
            "index": call.index,
            "types": [(tensor.type, tensor.other) for tensor in call.outputs],
            "written": call.written,
            "training": call.training,
            "options": dict(call.options),
        }
        for call in calls
    ]
    return {CALLS: table} | {key: _replaced(value, place) for key, value in state.items()}


def restored(state: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flattened`."""
    calls: list[Call] = []

    def found(place: _Place) -> Call | SymbolicTensor:
        call = calls[place.call]
        return call if place.result is None else call.outputs[place.result]

    for entry in state[CALLS]:
        types = entry.pop("types")
        call = Call(**{**entry, "inputs": tuple(found(place) for place in entry["inputs"])})
        call.outputs = tuple(SymbolicTensor(call, place, *kinds) for place, kinds in enumerate(types))
        call.block.first_call = call.block.first_call or call
        calls.append(call)
    return {key: _replaced(value, found, _Place) for key, value in state.items() if key != CALLS}


def _symbolic(value: Any) -> Iterator[Call | SymbolicTensor]:
    if isinstance(value, Call | SymbolicTensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _symbolic(item)


def _replaced(value: Any, by: Callable[[Any], Any], kinds: Any = (Call, SymbolicTensor)) -> Any:
    """A value with something else for what is of these kinds, in lists, tuples and dictionaries too."""
    if isinstance(value, kinds):
        return by(value)
    if type(value) is dict:
        return {key: _replaced(item, by, kinds) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_replaced(item, by, kinds) for item in value)
    return value
