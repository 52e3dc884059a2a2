"""Partitions of graphs, and that one computes what its graph does."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from convloom.graph.averages import apart
from convloom.graph.gradients import differentiate
from convloom.graph.ir import Graph
from convloom.graph.op import Kind
from convloom.graph.passes import BACKWARD, INFERENCE, TRAINING, run_pipeline
from convloom.planning.fusion import fuse, leave_unfused
from convloom.planning.regions import Partition
from graphs import (
    Values,
    all_values,
    assert_same,
    outputs,
    values,
)


def inference(graph: Graph) -> Graph:
    graph = graph.copy()
    run_pipeline(graph, INFERENCE)
    return graph


def training(graph: Graph, wrt_inputs: bool = False, of: list[str] | None = None) -> Graph:
    """Forward and backward of `graph`; the outputs are its own and the gradients of those named in `of`."""
    graph = graph.copy()
    run_pipeline(graph, TRAINING)
    gradients = differentiate(graph, of, wrt_inputs).gradients
    graph.outputs.update({f"gradient of {name}": node for name, node in gradients.items()})
    run_pipeline(graph, BACKWARD)
    return graph


def kernels(partition: Partition) -> list[str]:
    """Each kernel by its ops, in order."""
    return [" ".join(node.op.op_name() for node in region.nodes) for region in partition.kernels]


def reasons(partition: Partition, node: str) -> list[str]:
    return [d.reason for d in partition.decisions if d.node == node and not d.applied]


def check_cover(partition: Partition) -> None:
    """Every value that a batch changes lies in exactly one region."""
    graph = partition.graph
    outside = graph.parameter_only() | apart(graph)
    expected = [n.name for n in graph.nodes() if n.op.kind is not Kind.SOURCE and n.name not in outside]
    members = [node.name for region in partition for node in region.nodes]
    assert sorted(members) == sorted(expected)
    assert all(region.anchor in region.nodes for region in partition)
    assert len({region.name for region in partition}) == len(partition.regions)
    for region in partition:
        assert {node.phase for node in region.nodes} == {region.phase}
        parts = [*region.prologue, region.anchor, *region.epilogue, *region.siblings]
        assert sorted(node.name for node in parts) == sorted(region.members)


def run_partition(partition: Partition, sources: Mapping[str, torch.Tensor]) -> Values:
    """The graph's outputs; each region sees what earlier ones stored, and stores its own outputs alone."""
    graph = partition.graph
    outside = graph.parameter_only()
    stored = {
        k: v for k, v in all_values(graph, sources).items() if graph[k].op.kind is Kind.SOURCE or k in outside
    }
    for region in partition:
        local = {node.name: stored[node.name] for node in region.inputs}
        for node in region.nodes:
            local[node.name] = node.op.reference(*(local[name] for name in node.inputs))
        stored |= {node.name: local[node.name] for node in region.outputs}
    return {name: stored[node] for name, node in graph.outputs.items()}


def check(graph: Graph) -> None:
    """Fused and unfused, the regions cover the graph once and compute what it does."""
    sources = values(graph)
    expected = outputs(graph, sources)
    fused, unfused = fuse(graph), leave_unfused(graph)
    for partition in (fused, unfused):
        check_cover(partition)
        assert_same(run_partition(partition, sources), expected)
    assert len(fused.kernels) <= len(unfused.kernels)
