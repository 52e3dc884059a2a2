"""The specification of the IR, as a table of rules checked after every pass.

Each rule yields (expected, found) for every violation; the error names node, rule, expected and found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import networkx as nx

from .errors import CompileError, ShapeError
from .ir import Graph, Node
from .leaving import Update
from .op import Kind, Op
from .ops.penalty import PENALTIES, SizePenalty
from .ops.source import Parameter
from .order import in_order
from .types import TensorType

Violation = tuple[str, str]
NodeRule = Callable[[Graph, Node], Iterator[Violation]]


def _name(graph: Graph, node: Node) -> Iterator[Violation]:
    """Called for entries under another name than their node's: no entry is left out so, and none scanned."""
    keys = [key for key, data in graph.dag.nodes(data=True) if data.get("node") is node]
    yield f"one entry under its name {node.name}", str(keys)


def _operands_exist(graph: Graph, node: Node) -> Iterator[Violation]:
    for operand in node.inputs:
        if "node" not in graph.dag.nodes.get(operand, {}):
            yield "operands that are nodes of the graph", f"dangling operand {operand}"


def _edges_match(graph: Graph, node: Node) -> Iterator[Violation]:
    between = ((source, graph.dag[source][node.name]) for source in graph.dag.predecessors(node.name))
    edges = sorted((position, source) for source, positions in between for position in positions)
    if edges != list(enumerate(node.inputs)):
        yield f"edges from {list(enumerate(node.inputs))}", str(edges)


def _arity(graph: Graph, node: Node) -> Iterator[Violation]:
    names = node.op.operands
    least = sum(not name.endswith(("?", "*")) for name in names)
    most = float("inf") if any(name.endswith("*") for name in names) else len(names)
    if not least <= len(node.inputs) <= most:
        yield f"operands ({', '.join(names)})", f"{len(node.inputs)} operands"


def _type(graph: Graph, node: Node) -> Iterator[Violation]:
    if any(operand not in graph for operand in node.inputs):
        return
    try:
        inferred = node.op.result(*(graph[operand].type for operand in node.inputs))
    except (ShapeError, ValueError, IndexError, TypeError) as error:
        yield "operands its op can type", str(error)
        return
    if inferred != node.type:
        yield f"type {inferred}", str(node.type)


def _phase(graph: Graph, node: Node) -> Iterator[Violation]:
    if node.phase not in ("forward", "backward"):
        yield "phase forward or backward", node.phase
    for operand in graph.operands(node) if all(o in graph for o in node.inputs) else ():
        if node.phase == "forward" and operand.phase == "backward":
            yield "forward nodes that read forward nodes", f"{operand.name} of the backward pass"


def _source(graph: Graph, node: Node) -> Iterator[Violation]:
    if node.op.kind is Kind.SOURCE and node.inputs:
        yield "a source without operands", str(node.inputs)


NODE_RULES: dict[str, NodeRule] = {
    "a node is stored once, under its name": _name,
    "every operand is a node": _operands_exist,
    "edges mirror the operand list": _edges_match,
    "the number of operands is the op's": _arity,
    "the type is the one the op infers": _type,
    "the forward pass never reads the backward pass": _phase,
    "sources read nothing": _source,
}


def verify(graph: Graph, after: str = "", since: int | None = None) -> None:
    """Raise CompileError for the first violation of the specification.

    after: the pass that has just run. since: a moment of the graph's changes at which it was whole: of the
    nodes, those touched after it are looked at, and what reads them.
    """
    where = f" after {after}" if after else ""
    try:
        list(in_order(graph.dag, dict.fromkeys(graph.dag, 0)) if since is None else graph.nodes())
    except nx.NetworkXUnfeasible:
        cycle = " -> ".join(edge[0] for edge in nx.find_cycle(graph.dag))
        raise CompileError(
            f"graph {graph.name}{where}: rule 'the graph has no cycle' is broken by {cycle}"
        ) from None
    for name in graph.dag if since is None else _touched(graph, since):
        data = graph.dag.nodes[name]
        if "node" not in data:
            raise CompileError(f"graph {graph.name}{where}: node {name} has no definition")
        node = data["node"]
        for rule, check in NODE_RULES.items():
            if check is _name and node.name == name:
                continue
            for expected, found in check(graph, node):
                raise CompileError(
                    f"graph {graph.name}{where}: node {node.name} breaks the rule '{rule}': "
                    f"expected {expected}, found {found}"
                )
    for output, name in graph.outputs.items():
        if name not in graph:
            raise CompileError(f"graph {graph.name}{where}: output {output} names {name}, which is no node")
    for update in graph.updates:
        if reason := _why_no_update(graph, update):
            raise CompileError(f"graph {graph.name}{where}: update {update}: {reason}")
    _beside_the_nodes(graph, where)


def _touched(graph: Graph, since: int) -> dict[str, None]:
    """What changed, and what reads it: the rules of a node speak of its operands, and of nothing farther."""
    changed = graph.changed_since(since)
    return changed | {reader: None for name in changed for reader in graph.dag.successors(name)}


def _beside_the_nodes(graph: Graph, where: str) -> None:
    """Penalties are numbers of what is there; constraints leave a parameter's type as it is."""
    for value, ops in graph.penalties.items():
        kind = graph[value].type if value in graph else None
        for op in ops:
            if kind is None or _why_no_penalty(op, kind):
                found = "which is no node" if kind is None else f"{kind}: {_why_no_penalty(op, kind)}"
                raise CompileError(f"graph {graph.name}{where}: penalty {op} of {value}, {found}")
    for parameter, op in graph.constraints.items():
        kind = graph[parameter].type if parameter in graph else None
        if kind is None or not isinstance(graph[parameter].op, Parameter):
            raise CompileError(f"graph {graph.name}{where}: constraint of {parameter}, which is no parameter")
        try:
            fits = op.infer(kind) == kind
        except (ShapeError, ValueError, IndexError, TypeError):
            fits = False
        if not fits:
            raise CompileError(f"graph {graph.name}{where}: {op} cannot constrain {parameter} of {kind}")


def _why_no_update(graph: Graph, update: Update) -> str | None:
    for name in (update.parameter, update.value):
        if name not in graph:
            return f"there is no node {name}"
    parameter, value = graph[update.parameter], graph[update.value]
    if not isinstance(parameter.op, Parameter):
        return f"{parameter.name} is no parameter"
    if value.type.shape != parameter.type.shape or value.type.is_floating != parameter.type.is_floating:
        return f"{value.type} does not fit {parameter.type}"
    return "its value belongs to the backward pass" if value.phase == "backward" else None


def _why_no_penalty(op: Op, kind: TensorType) -> str | None:
    if not isinstance(op, PENALTIES):
        return "it is none"
    if kind.batched:
        return None if isinstance(op, SizePenalty) else "it is of weights"
    try:
        op.infer(kind)
    except ShapeError as error:
        return str(error)
    return None
