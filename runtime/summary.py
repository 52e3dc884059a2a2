"""The table `CompiledNetwork.summary` prints: the layers as the compiler sees them."""

from __future__ import annotations

import io
from collections.abc import Container
from math import prod

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..codegen.text.names import escaped
from ..graph.ir import Graph, Node
from ..graph.ops import Parameter
from ..graph.types import TensorType


def summary_text(graph: Graph, trained: Container[str], title: str, width: int | None = None) -> str:
    """One row a layer of the graph before any pass, and the totals. trained: the weights that are, by name.
    width: in characters, by default 100."""
    table = Table(title=escape(title), title_justify="left", title_style="bold")
    table.add_column("Layer", overflow="fold")
    table.add_column("Computes", overflow="fold")
    table.add_column("Output shape", overflow="fold")
    table.add_column("Parameters", justify="right")
    layers: dict[str, list[Node]] = {}
    for node in graph.nodes():
        layers.setdefault(node.layer or node.name, []).append(node)
    for layer, nodes in layers.items():
        computed = [node for node in nodes if not isinstance(node.op, Parameter)]
        if not computed:
            continue
        table.add_row(
            escape(escaped(layer)),
            ", ".join(dict.fromkeys(node.op.op_name() for node in computed)),
            _shape(computed[-1].type),
            f"{_count(nodes):,}",
        )
    parameters = graph.sources(Parameter)
    total = _count(parameters)
    trainable = _count([node for node in parameters if node.name in trained])
    console = Console(file=io.StringIO(), width=width or 100, highlight=False, color_system=None)
    console.print(table)
    console.print(f"Total parameters: {total:,}")
    console.print(f"Trainable: {trainable:,}")
    console.print(f"Non-trainable: {total - trainable:,}")
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().rstrip("\n")


def _count(nodes: list[Node]) -> int:
    return sum(prod(node.type.size()) for node in nodes if isinstance(node.op, Parameter))


def _shape(kind: TensorType) -> str:
    return "(" + ", ".join("batch" if dim == "N" else str(dim) for dim in kind.shape) + ")"
