"""Modes: what a network is planned for, and the passes that its graph goes through for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..graph.dump import Dump
from ..graph.errors import CompileError
from ..graph.gradients import Derivatives, differentiate
from ..graph.ir import Graph, Node
from ..graph.ops import BatchNorm, Parameter
from ..graph.passes import (
    BACKWARD,
    FROM_INPUTS,
    INFERENCE,
    JOINED,
    JOINED_BACKWARD,
    RECOMPUTE,
    TRAINING,
    UNFUSED,
    PassReport,
    run_pipeline,
)


@dataclass(frozen=True)
class Mode:
    """training: batch statistics, dropout, noise, augmentation. backward: build gradients, of the parameters
    `trained` (None: of those the graph calls trainable) and of the inputs `wrt_inputs`. recompute: compute in
    the backward pass what is cheap, instead of keeping it from the forward pass. joined: batch
    statistics are those of all processes that train the network together.
    """

    training: bool = False
    backward: bool = False
    wrt_inputs: frozenset[str] = frozenset()
    trained: frozenset[str] | None = None
    fuse: bool = True
    recompute: bool = False
    joined: bool = False

    @property
    def inference(self) -> bool:
        """Whether weights stay as they are over many calls."""
        return not (self.training or self.backward)

    def __str__(self) -> str:
        parts = ["training" if self.training else "evaluation" if self.backward else "inference"]
        parts += ["with gradients"] if self.backward else []
        parts += [] if self.fuse else ["unfused"]
        parts += ["batch norms joined"] if self.joined else []
        return ", ".join(parts)


def prepare(
    graph: Graph, mode: Mode, loss: Sequence[str] | None = None, dump: Dump | None = None
) -> tuple[Graph, list[PassReport], Derivatives]:
    """A copy of `graph` after the passes of `mode`, with its backward pass where the mode wants one.

    dump: what keeps the graphs before and after each pass. Raises CompileError for a graph that has a
    backward pass already.
    """
    check_forward(graph)
    graph = graph.copy()
    if mode.trained is not None:
        for node in graph.sources(Parameter):
            assert isinstance(node.op, Parameter)
            graph.update_node(node.name, op=replace(node.op, trainable=node.name in mode.trained))
    if not mode.training:
        graph.updates = []
    for update in graph.updates if mode.backward else ():
        if update.parameter in graph and _is_trained(graph[update.parameter]):
            raise CompileError(
                f"graph {graph.name}: update {update}: %{update.parameter} is trained, and a step that moves "
                f"it itself would differentiate at another place than it computed; let it not be trainable"
            )
    observe = None if dump is None else dump.around_pass
    pipeline = TRAINING if mode.training else (INFERENCE if mode.fuse and not mode.backward else UNFUSED)
    reports = run_pipeline(graph, pipeline, observe)
    if mode.joined:
        reports += run_pipeline(graph, JOINED, observe)
    derivatives = Derivatives()
    if mode.backward:
        derivatives = differentiate(graph, loss, mode.wrt_inputs)
        graph.outputs.update({f"gradient of {name}": node for name, node in derivatives.gradients.items()})
        if mode.joined:
            reports += run_pipeline(graph, JOINED_BACKWARD, observe)
        reports += run_pipeline(graph, BACKWARD, observe)
        if mode.fuse:
            reports += run_pipeline(graph, RECOMPUTE if mode.recompute else FROM_INPUTS, observe)
        derivatives.gradients = {name: graph.outputs[f"gradient of {name}"] for name in derivatives.gradients}
    return graph, reports, derivatives


def check_forward(graph: Graph) -> None:
    """Raise CompileError for a graph that has a backward pass already, or moves statistics of batch norms."""
    moved = bool(graph.updates) and any(_is_of_the_batch(node) for node in graph.nodes())
    if moved or any(node.phase == "backward" for node in graph.nodes()):
        raise CompileError(
            f"graph {graph.name}: holds a training step already, as `convloom convert --training` writes it; "
            f"convert without --training what is to be compiled"
        )


def _is_of_the_batch(node: Node) -> bool:
    return isinstance(node.op, BatchNorm) and node.op.batch_statistics


def _is_trained(node: Node) -> bool:
    return isinstance(node.op, Parameter) and node.op.trainable
