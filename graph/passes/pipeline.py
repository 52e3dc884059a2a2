"""The pipelines: what happens to a network before it is cut into kernels, in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..decisions import Decision
from ..ir import Graph
from ..rewrite import Rule, apply_rules
from ..settings import PASSES, settings
from ..verify import verify
from .across_processes import join_gradients, join_statistics
from .batch_norm import FOLD, FOLD_FROZEN, use_batch_statistics
from .cleanup import (
    IDENTITIES,
    INFERENCE_IDENTITIES,
    PAD_INTO_CONVOLUTION,
    TRAINING_BRANCHES,
    remove_dead_code,
)
from .gradient_rules import GRADIENT_RULES
from .long_rows import LONG_ROWS
from .precision import widen_terms
from .recompute import recompute, recompute_from_inputs
from .views import BEFORE_SLICES, BEFORE_VIEWS


@dataclass(frozen=True)
class Pass:
    """A named rewriting of the graph in place, which says what it did."""

    name: str
    run: Callable[[Graph], list[Decision]]


@dataclass(frozen=True)
class PassReport:
    """What one pass did: its decisions and the number of nodes before and after."""

    name: str
    decisions: tuple[Decision, ...]
    nodes_before: int
    nodes_after: int

    def __str__(self) -> str:
        head = f"pass: {self.name}  ({self.nodes_before} -> {self.nodes_after} nodes)"
        return "\n".join([head, *(decision.told() for decision in self.decisions)])


def _rules(name: str, *tables: tuple[Rule, ...]) -> Pass:
    rules = tuple(rule for table in tables for rule in table)
    return Pass(name, lambda graph: apply_rules(graph, rules))


DEAD_CODE = Pass("remove dead code", remove_dead_code)

WIDE_TERMS = Pass("float32 for what is summed", widen_terms)

IN_STEPS = _rules("long rows in steps", LONG_ROWS)

INFERENCE: tuple[Pass, ...] = (
    DEAD_CODE,
    _rules("remove identities", IDENTITIES, INFERENCE_IDENTITIES),
    _rules("padding into convolutions", PAD_INTO_CONVOLUTION),
    _rules("pointwise before views", BEFORE_SLICES, BEFORE_VIEWS, IDENTITIES),
    _rules("fold batch norm", FOLD),
    IN_STEPS,
    WIDE_TERMS,
    DEAD_CODE,
)

TRAINING: tuple[Pass, ...] = (
    DEAD_CODE,
    _rules("what layers do in training", TRAINING_BRANCHES),
    _rules("remove identities", IDENTITIES),
    _rules("padding into convolutions", PAD_INTO_CONVOLUTION),
    _rules("pointwise before views", BEFORE_VIEWS, IDENTITIES),
    Pass("batch norm over the batch", use_batch_statistics),
    _rules("fold frozen batch norm", FOLD_FROZEN),
    IN_STEPS,
    WIDE_TERMS,
    DEAD_CODE,
)

UNFUSED: tuple[Pass, ...] = (
    DEAD_CODE,
    _rules("remove identities", IDENTITIES, INFERENCE_IDENTITIES),
    IN_STEPS,
    WIDE_TERMS,
    DEAD_CODE,
)

BACKWARD: tuple[Pass, ...] = (
    _rules("gradients after pooling", GRADIENT_RULES),
    _rules("remove identities", IDENTITIES),
    WIDE_TERMS,
    DEAD_CODE,
)


JOINED: tuple[Pass, ...] = (Pass("statistics of all processes", join_statistics),)
"""After TRAINING, where batch norms are over the batches of all processes."""

JOINED_BACKWARD: tuple[Pass, ...] = (Pass("gradients of all processes", join_gradients),)
"""Before BACKWARD, behind JOINED."""

RECOMPUTE: tuple[Pass, ...] = (Pass("recompute what is cheap", recompute),)
"""After BACKWARD, where less memory is worth more than a few passes over it."""

FROM_INPUTS: tuple[Pass, ...] = (Pass("inputs cast where they are read", recompute_from_inputs),)
"""After BACKWARD, where a kernel can compute what stands before its product as it reads it."""


def run_pipeline(
    graph: Graph, passes: tuple[Pass, ...], observe: Callable[[str, Graph], None] | None = None
) -> list[PassReport]:
    """Run the passes over `graph` in place, verifying it after each: all of it first, then what has changed.

    observe: called with ("before"/"after" and the pass's name, graph) around each pass.
    """
    reports = []
    whole: int | None = None
    """The moment at which the graph was last verified."""
    for step in passes:
        before = len(graph)
        if observe:
            observe(f"before {step.name}", graph)
        decisions = step.run(graph)
        verify(graph, step.name, whole)
        whole = graph.changes()
        if observe:
            observe(f"after {step.name}", graph)
        reports.append(PassReport(step.name, tuple(decisions), before, len(graph)))
        settings.say(PASSES, reports[-1].__str__)
    return reports
