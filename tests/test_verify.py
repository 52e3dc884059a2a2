"""The specification of the IR: each of its rules, broken once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import pytest
from convloom.graph import ops
from convloom.graph.errors import CompileError
from convloom.graph.ir import Graph, Node
from convloom.graph.op import REGISTRY, Kind
from convloom.graph.types import BATCH, TensorType
from convloom.graph.verify import NODE_RULES, verify
from graphs import (
    NETWORKS,
    chain,
    differentiated,
)

networks = pytest.mark.parametrize("make", NETWORKS, ids=lambda make: make.__name__)


def broken_name() -> Graph:
    graph = chain()
    graph.dag.add_node("alias", node=graph["second"])
    return graph


def broken_operand() -> Graph:
    graph = chain()
    graph._insert(Node("lost", ops.Relu(), ("ghost",), graph["first"].type))
    return graph


def broken_edges() -> Graph:
    graph = chain()
    graph.dag.remove_edge("first", "second")
    return graph


def broken_arity() -> Graph:
    graph = chain()
    graph._insert(Node("pair", ops.Relu(), ("first", "second"), graph["first"].type))
    return graph


def broken_type() -> Graph:
    graph = chain()
    graph._insert(Node("wide", ops.Relu(), ("first",), TensorType((BATCH, 4, 4))))
    return graph


def broken_phase() -> Graph:
    graph = chain()
    graph.add(ops.Relu(), ["second"], "behind", phase="backward")
    graph.add(ops.Relu(), ["behind"], "ahead")
    return graph


@dataclass(frozen=True)
class _GreedySource(ops.Input):
    """A source that claims an operand. Its name starts with "_", so it is not registered."""

    operands: ClassVar[tuple[str, ...]] = ("x",)


def broken_source() -> Graph:
    graph = chain()
    graph._insert(Node("spring", _GreedySource((BATCH, 4)), ("first",), TensorType((BATCH, 4))))
    return graph


BROKEN: dict[str, tuple[Callable[[], Graph], str]] = {
    "a node is stored once, under its name": (
        broken_name,
        "node second breaks the rule 'a node is stored once, under its name': "
        "expected one entry under its name second, found ['second', 'alias']",
    ),
    "every operand is a node": (
        broken_operand,
        "node lost breaks the rule 'every operand is a node': "
        "expected operands that are nodes of the graph, found dangling operand ghost",
    ),
    "edges mirror the operand list": (
        broken_edges,
        "node second breaks the rule 'edges mirror the operand list': "
        "expected edges from [(0, 'first')], found []",
    ),
    "the number of operands is the op's": (
        broken_arity,
        "node pair breaks the rule 'the number of operands is the op's': "
        "expected operands (x), found 2 operands",
    ),
    "the type is the one the op infers": (
        broken_type,
        "node wide breaks the rule 'the type is the one the op infers': "
        "expected type float32[N,4,3], found float32[N,4,4]",
    ),
    "the forward pass never reads the backward pass": (
        broken_phase,
        "node ahead breaks the rule 'the forward pass never reads the backward pass': "
        "expected forward nodes that read forward nodes, found behind of the backward pass",
    ),
    "sources read nothing": (
        broken_source,
        "node spring breaks the rule 'sources read nothing': "
        "expected a source without operands, found ('first',)",
    ),
}


@pytest.mark.parametrize("rule", [*NODE_RULES])
def test_a_broken_graph_breaks_its_rule(rule: str) -> None:
    make, message = BROKEN[rule]
    with pytest.raises(CompileError) as caught:
        verify(make(), "a pass")
    assert str(caught.value) == f"graph chain after a pass: {message}"


def test_whole_graph_rules() -> None:
    graph = chain()
    verify(graph)
    graph.dag.add_edge("second", "first", key=1)
    with pytest.raises(
        CompileError, match=r"^graph chain: rule 'the graph has no cycle' is broken by (first|second)"
    ):
        verify(graph)
    graph = chain()
    graph.dag.add_node("empty")
    with pytest.raises(CompileError, match="node empty has no definition"):
        verify(graph)
    graph = chain()
    graph._insert(Node("odd", ops.Relu(), ("first",), graph["first"].type, phase="sideways"))
    with pytest.raises(CompileError, match="expected phase forward or backward, found sideways"):
        verify(graph)


@networks
def test_networks_and_their_gradients_keep_the_specification(make: Callable[[], Graph]) -> None:
    graph, derivatives = differentiated(make())
    verify(graph)
    assert derivatives.seeds.keys() == make().outputs.keys()


def test_an_unregistered_op_stays_out_of_the_registry() -> None:
    assert _GreedySource.op_name() not in REGISTRY
    assert _GreedySource.kind is Kind.SOURCE
