"""Pointwise work moves before a view, into the kernel that computes what is viewed, and only there."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from convloom.graph import ops
from convloom.graph.decisions import Decision
from convloom.graph.ir import Graph
from convloom.graph.passes.views import BEFORE_SLICES, BEFORE_VIEWS
from convloom.graph.rewrite import apply_rules
from convloom.graph.verify import verify
from graphs import Builder, assert_same, outputs, values


def viewed(b: Builder, name: str = "conv") -> str:
    """A convolution of (N, 1, 6, 4) to (N, 1, 6, 5), seen as (N, 6, 5)."""
    return b.op(ops.Reshape((6, 5)), b.conv(b.input(1, 6, 4), 5, (1, 3), padding="same", name=name))


def moved(graph: Graph) -> tuple[list[str], list[Decision]]:
    """The ops of the graph after the rules, which must keep every value."""
    twin = graph.copy()
    decisions = apply_rules(twin, (*BEFORE_SLICES, *BEFORE_VIEWS))
    verify(twin, "before views")
    given = values(graph)
    assert_same(outputs(twin, given), outputs(graph, given))
    return [n.op.op_name() for n in twin.nodes() if n.inputs], decisions


def chain(b: Builder) -> str:
    return b.op(ops.Tanh(), b.batch_norm(viewed(b), name="norm"))


def residual(b: Builder) -> str:
    return b.op(ops.Add(), b.op(ops.Relu(), viewed(b, "one")), viewed(b, "two"))


def from_the_right(b: Builder) -> str:
    return b.op(ops.Subtract(), b.input(6, 5), viewed(b))


def doubled(b: Builder) -> str:
    x = viewed(b)
    return b.op(ops.Multiply(), x, x)


def cut(b: Builder) -> str:
    """The first 4 of 6 rows, seen as a sequence and normalised."""
    x = b.op(ops.Slice((0, 0), (4, 5)), viewed(b))
    return b.op(ops.Relu(), b.batch_norm(x))


@pytest.mark.parametrize(
    ("network", "names"),
    [
        (chain, ["conv2d", "batch_norm", "tanh", "reshape"]),
        (residual, ["conv2d", "relu", "conv2d", "add", "reshape"]),
        (from_the_right, ["reshape", "conv2d", "subtract", "reshape"]),
        (doubled, ["conv2d", "multiply", "reshape"]),
        (cut, ["conv2d", "batch_norm", "relu", "reshape", "slice"]),
    ],
)
def test_it_moves_to_the_kernel(network: Callable[[Builder], str], names: list[str]) -> None:
    b = Builder()
    b.finish(network(b))
    assert sorted(moved(b.graph)[0]) == sorted(names)
    assert moved(b.graph)[0][-1] == names[-1]


def of_an_input(b: Builder) -> str:
    return b.op(ops.Relu(), b.op(ops.Reshape((6, 4)), b.input(1, 6, 4)))


def of_channels_cut_up(b: Builder) -> str:
    x = b.op(ops.Reshape((30,)), b.conv(b.input(1, 6, 4), 5, (1, 3), padding="same"))
    return b.op(ops.Add(), x, b.op(ops.Constant((30,), 0.5)))


def beside_another_kernel(b: Builder) -> str:
    return b.op(ops.Add(), viewed(b), b.op(ops.Dense(), b.input(6, 3), b.weight(3, 5, name="matrix")))


def read_twice(b: Builder) -> str:
    x = viewed(b)
    return b.op(ops.Concat(), b.op(ops.Relu(), x), x)


def of_some_channels(b: Builder) -> str:
    return b.batch_norm(b.op(ops.Slice((0, 0), (6, 3)), viewed(b)))


def of_little(b: Builder) -> str:
    return b.op(ops.Relu(), b.op(ops.Slice((0, 0), (2, 5)), viewed(b)))


def of_two_parts(b: Builder) -> str:
    x = viewed(b)
    return b.op(
        ops.Add(), b.op(ops.Relu(), b.op(ops.Slice((0, 0), (5, 5)), x)), b.op(ops.Slice((1, 0), (6, 5)), x)
    )


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (of_some_channels, "takes 3 of 5 channels"),
        (of_little, "drops more than half of"),
        (of_two_parts, "also feeds"),
        (of_an_input, "no contraction or window computes"),
        (of_channels_cut_up, "is not a view of the shape of"),
        (beside_another_kernel, "is not a view of the shape of"),
        (read_twice, "also feeds"),
    ],
)
def test_it_stays(network: Callable[[Builder], str], reason: str) -> None:
    b = Builder()
    b.finish(network(b))
    names, decisions = moved(b.graph)
    assert names == [n.op.op_name() for n in b.graph.nodes() if n.inputs]
    assert decisions
    assert all(not d.applied and reason in d.reason for d in decisions)
