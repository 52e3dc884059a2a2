"""The graph as JSON, and back."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from . import ops  # noqa: F401  fills the registry
from .attributes import declared
from .averages import move
from .errors import ModelFormatError
from .ir import Graph
from .leaving import Update
from .op import REGISTRY, op_from_json, op_to_json
from .verify import verify

FAMILY = "convloom-graph-"
FORMAT = FAMILY + "3"
BEFORE = FAMILY + "2"
"""The format in which every update is a moving average; still read."""
OWN = ("name", "inputs", "layer", "phase")
"""What an entry says of its node beside the op."""
LONGEST_NAME = 10_000

for _op in REGISTRY.values():
    declared(_op)  # which evaluates annotations: now, so that nothing is evaluated while a file is read


def to_json(graph: Graph) -> str:
    """The graph as JSON text, one node a line."""
    nodes = [
        {"name": n.name, "inputs": list(n.inputs), "layer": n.layer, "phase": n.phase, **op_to_json(n.op)}
        for n in graph.nodes()
    ]
    lines = ",\n  ".join(json.dumps(node) for node in nodes)
    head = f'"format": {json.dumps(FORMAT)}, "name": {json.dumps(graph.name)}'
    updates = json.dumps([asdict(update) for update in graph.updates])
    tail = f'"outputs": {json.dumps(dict(graph.outputs))}, "updates": {updates}'
    if graph.penalties:
        penalties = {value: [op_to_json(op) for op in ops] for value, ops in graph.penalties.items()}
        tail += f', "penalties": {json.dumps(penalties)}'
    if graph.constraints:
        constraints = {parameter: op_to_json(op) for parameter, op in graph.constraints.items()}
        tail += f', "constraints": {json.dumps(constraints)}'
    return f'{{{head}, "nodes": [\n  {lines}\n], {tail}}}'


def from_data(data: Any) -> Graph:
    """Inverse of `to_json`, of parsed text; raises ModelFormatError or CompileError for what is no graph."""
    if not isinstance(data, dict) or data.get("format") not in (FORMAT, BEFORE):
        raise ModelFormatError(f"this is no graph JSON: 'format' should be {FORMAT!r}")
    graph = Graph(_name(data.get("name", "network")))
    try:
        for entry in data["nodes"]:
            own = {key: entry[key] for key in OWN}
            op = op_from_json({key: value for key, value in entry.items() if key not in OWN})
            name = graph.add(op, own["inputs"], _name(own["name"]), _name(own["layer"], 0), own["phase"])
            if name != own["name"]:
                raise ModelFormatError(f"graph JSON has two nodes named {own['name']!r}")
        graph.outputs = dict(data["outputs"])
        if data["format"] == FORMAT:
            graph.updates = [Update(update["parameter"], update["value"]) for update in data["updates"]]
        else:
            _read_averages(graph, data["updates"])
        penalties = data.get("penalties", {}).items()
        graph.penalties = {value: tuple(map(op_from_json, ops)) for value, ops in penalties}
        constraints = data.get("constraints", {}).items()
        graph.constraints = {parameter: op_from_json(op) for parameter, op in constraints}
    except (KeyError, TypeError, AttributeError, ValueError, IndexError, ArithmeticError) as error:
        raise ModelFormatError(f"graph JSON is malformed: {error!r}") from None
    verify(graph, "loading")
    return graph


def _read_averages(graph: Graph, updates: list[dict[str, Any]]) -> None:
    """The updates of the format before: a parameter, a value, and the momentum with which it moves there."""
    now: dict[str, str] = {}
    for update in updates:
        parameter, value, momentum = update["parameter"], update["value"], float(update["momentum"])
        now[parameter] = move(graph, parameter, value, momentum, "", now.get(parameter, ""))


def _name(value: Any, least: int = 1) -> str:
    """Names reach terminals, comments and pages, and those that are written hold no control characters."""
    fits = isinstance(value, str) and least <= len(value) <= LONGEST_NAME and (value + " ").isprintable()
    if not fits:
        raise ModelFormatError(f"graph JSON: a name is printable text, found {value!r:.80}")
    return str(value)
