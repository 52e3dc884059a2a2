"""Batch norm over the batches of all processes that train a network together (`sync_batch_norm`)."""

from __future__ import annotations

from ..decisions import Decision
from ..errors import CompileError
from ..ir import Graph, Node
from ..op import Op
from ..ops import BatchNorm, BatchNormGrad, Input, MeanAcross, SumAcross, VarianceAcross


def join_statistics(graph: Graph) -> list[Decision]:
    """Mean and variance of a batch norm become those of all processes, for what it gives and for what moves
    the stored statistics."""
    decisions = []
    for node in [n for n in graph.nodes() if isinstance(n.op, BatchNorm) and n.op.batch_statistics]:
        mean, variance = node.inputs[3:5]
        image, each = _image(graph, node), node.type.elements(1) // node.type.channels
        readers = {reader.name for name in (mean, variance) for reader in graph.readers(name)}
        joined = {
            mean: _add(graph, node, MeanAcross(each), mean, image),
            variance: _add(graph, node, VarianceAcross(each), variance, mean, image),
        }
        for reader in readers:
            graph.update_node(reader, inputs=[joined.get(x, x) for x in graph[reader].inputs])
        decisions.append(Decision("statistics(x) -> statistics(x of all processes)", node.name, True))
    return decisions


def join_gradients(graph: Graph) -> list[Decision]:
    """The sums in a batch norm's gradient become those of all processes; the gradients of its weights stay
    this one's, for they are averaged with all others'."""
    for node in [n for n in graph.nodes() if isinstance(n.op, BatchNormGrad)]:
        *given, d_gamma, d_beta = node.inputs
        image, each = _image(graph, node), node.type.elements(1) // node.type.channels
        sums = [_add(graph, node, SumAcross(each), total, image) for total in (d_gamma, d_beta)]
        graph.update_node(node.name, inputs=[*given, *sums])
    return []


def _add(graph: Graph, node: Node, op: Op, *inputs: str) -> str:
    return graph.add(op, inputs, f"{node.name}/{op.op_name()}", layer=node.layer, phase=node.phase)


def _image(graph: Graph, node: Node) -> str:
    """An input that has the batch, by which a process knows how many examples it has."""
    for source in graph.sources(Input):
        if source.type.batched and source.phase == "forward":
            return source.name
    raise CompileError(f"{node.name}: no input of the network has a batch axis to count examples by")
