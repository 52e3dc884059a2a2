"""The rules of the passes: where they apply, where they refuse and with which words, and that values stay."""

from __future__ import annotations

import pytest
import torch
from convloom.graph import ops
from convloom.graph.decisions import Decision
from convloom.graph.errors import CompileError
from convloom.graph.ir import Graph
from convloom.graph.op import REGISTRY, Kind
from convloom.graph.passes.batch_norm import FOLD
from convloom.graph.passes.cleanup import (
    IDENTITIES,
    INFERENCE_IDENTITIES,
    PAD_INTO_CONVOLUTION,
    TRAINING_BRANCHES,
    remove_dead_code,
)
from convloom.graph.passes.gradient_rules import GRADIENT_RULES
from convloom.graph.rewrite import Match, Rule, apply_rules, pattern
from convloom.graph.types import BATCH
from convloom.graph.verify import verify
from graphs import (
    Builder,
    assert_same,
    differentiated,
    outputs,
    values,
)

FOLD_CONV, FOLD_DENSE = FOLD
SAME_SHAPE, MERGE_RESHAPES, SCALE = IDENTITIES
(DROPOUT,) = INFERENCE_IDENTITIES
(PAD,) = PAD_INTO_CONVOLUTION
AFTER_POOLING, BEFORE_VIEW, AT_ONCE, LIKE_ANOTHER = GRADIENT_RULES


def rewrite(graph: Graph, rule: Rule) -> tuple[Graph, list[Decision]]:
    twin = graph.copy()
    decisions = apply_rules(twin, (rule,))
    verify(twin, rule.equation)
    return twin, decisions


def applied(graph: Graph, rule: Rule) -> Graph:
    """The graph after the rule, which must apply once and keep every value."""
    twin, decisions = rewrite(graph, rule)
    assert [(d.rule, d.applied) for d in decisions] == [(rule.equation, True)]
    given = values(graph)
    assert_same(outputs(twin, given), outputs(graph, given))
    return twin


def refusal(graph: Graph, rule: Rule) -> str:
    """The reason of the one refusal; the graph must come out as it went in."""
    twin, decisions = rewrite(graph, rule)
    assert str(twin) == str(graph)
    (decision,) = decisions
    assert not decision.applied
    assert str(decision) == f"refused at {decision.node}: {decision.reason}"
    return decision.reason


def op_names(graph: Graph) -> list[str]:
    return [node.op.op_name() for node in graph.nodes() if node.op.kind is not Kind.SOURCE]


# -- batch norm ----------
def conv_norm(bias: bool = True, groups: int = 1) -> Builder:
    b = Builder()
    x = b.conv(b.input(6, 5, 4), 6, (3, 2), (2, 1), groups=groups, bias=bias, name="conv")
    b.finish(b.batch_norm(x, name="norm"))
    return b


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
def test_batch_norm_folds_into_a_convolution(bias: bool, groups: int) -> None:
    graph = applied(conv_norm(bias, groups).graph, FOLD_CONV)
    per_batch = [
        n for n in graph.nodes() if n.name not in graph.parameter_only() and n.op.kind is not Kind.SOURCE
    ]
    assert [node.op.op_name() for node in per_batch] == ["conv2d"]
    assert per_batch[0].layer == "conv"


@pytest.mark.parametrize("bias", [False, True])
def test_batch_norm_folds_into_a_dense_layer(bias: bool) -> None:
    b = Builder()
    graph = b.finish(b.batch_norm(b.dense(b.input(7), 5, bias=bias)))
    assert "batch_norm" not in op_names(applied(graph, FOLD_DENSE))


def test_two_batch_norms_in_a_row_both_fold() -> None:
    b = conv_norm()
    graph = b.finish(b.batch_norm("norm", name="again"))
    twin, decisions = rewrite(graph, FOLD_CONV)
    assert [d.applied for d in decisions] == [True, True]
    given = values(graph)
    assert_same(outputs(twin, given), outputs(graph, given))


def test_batch_norm_does_not_fold_where_the_convolution_is_read_elsewhere() -> None:
    b = conv_norm()
    graph = b.finish(b.op(ops.Add(), "norm", "conv", name="add"))
    assert refusal(graph, FOLD_CONV) == "conv also feeds add"


def test_batch_norm_does_not_fold_a_convolution_that_is_an_output() -> None:
    b = conv_norm()
    assert refusal(b.finish("norm", "conv"), FOLD_CONV) == "conv is an output of the network"


def test_batch_norm_of_the_batch_does_not_fold() -> None:
    b = conv_norm()
    b.graph.update_node("norm", op=ops.BatchNorm(batch_statistics=True))
    assert refusal(b.graph, FOLD_CONV) == "it uses the statistics of the batch"


def test_a_shared_convolution_folds_once_for_each_norm_and_never_changes_its_weights() -> None:
    b = Builder("shared")
    x = b.input(5, 7, 3)
    kernel = b.weight(3, 3, 3, 4, name="kernel")
    branches = [b.batch_norm(b.op(ops.Conv2D(), x, kernel, name=f"conv{i}"), name=f"norm{i}") for i in (1, 2)]
    graph = b.finish(b.op(ops.Add(), *branches, name="add"))
    twin, decisions = rewrite(graph, FOLD_CONV)
    assert [d.applied for d in decisions] == [True, True]
    assert {twin[f"norm{i}/folded_kernel"].inputs[0] for i in (1, 2)} == {"kernel"}
    given = values(graph)
    assert_same(outputs(twin, given), outputs(graph, given))


def test_a_fold_follows_its_parameters() -> None:
    """The folded weights are nodes, not numbers: other parameters, other values."""
    graph = conv_norm().graph
    twin = applied(graph, FOLD_CONV)
    for seed in (1, 2):
        given = values(graph, seed=seed)
        assert_same(outputs(twin, given), outputs(graph, given))


# -- padding ----------
def padded(value: float = 0.0, channels: tuple[int, int] = (0, 0)) -> Builder:
    b = Builder()
    x = b.op(ops.Pad(((2, 1), (0, 3), channels), value), b.input(6, 5, 2), name="pad")
    b.finish(b.conv(x, 3, (3, 2), (2, 1), ((0, 1), (1, 0)), name="conv"))
    return b


def test_padding_goes_into_the_convolution() -> None:
    graph = applied(padded().graph, PAD)
    assert op_names(graph) == ["conv2d"]
    assert graph["conv"].op == ops.Conv2D((2, 1), ((2, 2), (1, 3)))


@pytest.mark.parametrize(
    ("value", "channels", "reason"),
    [
        (0.5, (0, 0), "pad pads with 0.5, a convolution pads with zeros"),
        (0.0, (0, 1), "it pads the channels"),
    ],
)
def test_padding_that_a_convolution_cannot_take(value: float, channels: tuple[int, int], reason: str) -> None:
    assert refusal(padded(value, channels).graph, PAD) == reason


def test_padding_with_two_readers_stays() -> None:
    b = padded()
    graph = b.finish("conv", b.op(ops.Relu(), "pad", name="relu"))
    assert refusal(graph, PAD) == "pad also feeds relu"
    assert refusal(padded().finish("conv", "pad"), PAD) == "pad is an output of the network"


# -- identities ----------
def test_dropout_vanishes_in_inference() -> None:
    b = Builder()
    graph = b.finish(b.op(ops.Relu(), b.dropout(b.input(5), 0.3), name="relu"))
    graph = applied(graph, DROPOUT)
    assert op_names(graph) == ["relu"]
    remove_dead_code(graph)
    assert [node.name for node in graph.nodes()] == ["image", "relu"]  # nor is the mask drawn


def test_dropout_that_is_the_output_vanishes_too() -> None:
    b = Builder()
    graph = applied(b.finish(b.dropout(b.input(5), 0.3)), DROPOUT)
    assert graph.outputs == {"out": "image"}


def test_dropout_takes_its_other_branch_in_training() -> None:
    b = Builder()
    graph = b.finish(b.op(ops.Relu(), b.dropout(b.input(4, 3), 0.25), name="relu"))
    graph, decisions = rewrite(graph, TRAINING_BRANCHES[0])
    assert [d.applied for d in decisions] == [True]
    assert op_names(graph) == ["multiply", "relu"]
    assert graph["drop/mask"].op == ops.Random((BATCH, 4, 3), "bernoulli", (0.75, 1 / 0.75))
    assert graph["drop/dropped"].inputs == ("image", "drop/mask")


def test_a_layer_without_training_refuses_it() -> None:
    b = Builder()
    graph = b.finish(b.op(ops.InTraining("Blur 'blur': not in training"), b.input(4), name="blur"))
    assert applied(graph, DROPOUT).outputs == {"out": "image"}
    with pytest.raises(CompileError, match=r"^Blur 'blur': not in training$"):
        apply_rules(graph, TRAINING_BRANCHES)


def test_reshapes_merge() -> None:
    b = Builder()
    x = b.op(ops.Reshape((4, 6)), b.input(2, 3, 4), name="inner")
    graph = b.finish(b.op(ops.Reshape((24,)), x, name="outer"))
    assert op_names(applied(graph, MERGE_RESHAPES)) == ["reshape"]
    two = b.finish("outer", "inner")
    assert refusal(two, MERGE_RESHAPES) == "inner is an output of the network"


def test_a_reshape_to_its_own_shape_vanishes() -> None:
    b = Builder()
    graph = b.finish(b.op(ops.Relu(), b.op(ops.Reshape((2, 3)), b.input(2, 3)), name="relu"))
    assert op_names(applied(graph, SAME_SHAPE)) == ["relu"]
    b = Builder()
    assert refusal(b.finish(b.op(ops.Reshape((6,)), b.input(2, 3))), SAME_SHAPE) == "the shape changes"


def test_scaling_by_one() -> None:
    b = Builder()
    assert op_names(applied(b.finish(b.op(ops.Scale(), b.input(3))), SCALE)) == []
    for op in (ops.Scale(2.0), ops.Scale(1.0, 0.5)):
        b = Builder()
        assert refusal(b.finish(b.op(op, b.input(3))), SCALE) == "it changes the values"


# -- gradients behind pooling ----------
def gradient_of_pooled(activation: ops.Activation, pool: ops.MaxPool2D) -> Graph:
    b = Builder()
    x = b.op(activation, b.input(7, 6, 2), name="act")
    return differentiated(b.finish(b.op(pool, x, name="pool")))[0]


@pytest.mark.parametrize("activation", [ops.Relu(), ops.Tanh(), ops.Sigmoid(), ops.Elu()], ids=str)
@pytest.mark.parametrize(
    "pool", [ops.MaxPool2D(), ops.MaxPool2D((2, 3), (3, 3)), ops.MaxPool2D((3, 2), (3, 2))], ids=str
)
def test_the_activation_s_derivative_moves_behind_max_pooling(
    activation: ops.Activation, pool: ops.MaxPool2D
) -> None:
    graph = gradient_of_pooled(activation, pool)
    twin, decisions = rewrite(graph, AFTER_POOLING)
    assert [d.applied for d in decisions] == [True]
    given = values(graph)
    assert_same(outputs(twin, given), outputs(graph, given))
    assert [n.op.op_name() for n in twin.nodes() if n.phase == "backward" and n.inputs] == [
        "activation_grad",
        "max_unpool2d",
    ]
    assert not any(r.phase == "backward" for r in twin.readers("act"))  # so the activation need not be kept


@pytest.mark.parametrize(
    ("activation", "pool", "reason"),
    [
        (
            ops.Swish(),
            ops.MaxPool2D(),
            "the derivative of swish is written in its input, which pooling does not keep",
        ),
        (
            ops.Gelu(),
            ops.MaxPool2D(),
            "the derivative of gelu is written in its input, which pooling does not keep",
        ),
        (
            ops.Relu(),
            ops.MaxPool2D((3, 3), (2, 2)),
            "windows overlap, so one position may win several of them",
        ),
    ],
    ids=str,
)
def test_where_the_derivative_cannot_move(
    activation: ops.Activation, pool: ops.MaxPool2D, reason: str
) -> None:
    assert refusal(gradient_of_pooled(activation, pool), AFTER_POOLING) == reason


def test_the_derivative_moves_before_a_view() -> None:
    b = Builder()
    x = b.op(ops.Relu(), b.input(4, 3, 2), name="act")
    flat = b.op(ops.Reshape((24,)), x, name="flat")
    graph = differentiated(b.finish(b.dense(flat, 5)))[0]
    twin, decisions = rewrite(graph, BEFORE_VIEW)
    assert [d.applied for d in decisions] == [True]
    given = values(graph)
    assert_same(outputs(twin, given), outputs(graph, given))
    gradient = next(n for n in twin.nodes() if isinstance(n.op, ops.ActivationGrad))
    assert isinstance(twin[gradient.inputs[0]].op, ops.DenseDataGrad)


def test_the_derivative_does_not_move_behind_somebody_else_s_pooling() -> None:
    graph = gradient_of_pooled(ops.Relu(), ops.MaxPool2D())
    gradient = next(n for n in graph.nodes() if isinstance(n.op, ops.ActivationGrad))
    other = graph.add(ops.Input((BATCH, 7, 6, 2)), name="other")
    graph.update_node(gradient.name, inputs=(gradient.inputs[0], other))
    assert refusal(graph, AFTER_POOLING) == "no max pooling of the saved activation has these windows"


# -- gradients of sums ----------
def gradient_of_sums(shape: ops.Activation, *, means: tuple[bool, bool] = (True, True)) -> Graph:
    """The backward pass of a mean, over pixels and then over channels, of an activation."""
    b = Builder()
    x = b.op(shape, b.input(4, 3, 2), name="act")
    sums = b.op(ops.Reduce((0, 1, 2), mean=means[0]), x, name="sums")
    return differentiated(b.finish(b.op(ops.Reduce((0,), mean=means[1]), sums, name="sum")))[0]


def test_the_gradient_of_a_sum_of_sums_is_spread_at_once() -> None:
    graph = gradient_of_sums(ops.Swish())
    twin, decisions = rewrite(graph, AT_ONCE)
    assert [d.applied for d in decisions] == [True]
    given = values(graph)
    assert_same(outputs(twin, given), outputs(graph, given))
    (spread,) = [node for node in twin.nodes() if isinstance(node.op, ops.BroadcastTo)]
    assert (spread.inputs, spread.op.shape) == (("d_out", "act"), (BATCH, 4, 3, 2))  # type: ignore[attr-defined]
    mixed = gradient_of_sums(ops.Swish(), means=(True, False))
    assert refusal(mixed, AT_ONCE) == "one gives shares, the other the whole"


def test_a_value_is_not_kept_for_its_batch_size_alone() -> None:
    graph = gradient_of_sums(ops.Swish())  # whose derivative reads its input
    twin, decisions = rewrite(graph, LIKE_ANOTHER)
    assert [d.node for d in decisions if d.applied] == ["sums/broadcast_to"]
    given = values(graph)
    assert_same(outputs(twin, given), outputs(graph, given))
    assert not any(r.phase == "backward" for r in twin.readers("act"))
    kept = gradient_of_sums(ops.Relu())  # whose derivative reads its output
    reasons = {d.reason for d in rewrite(kept, LIKE_ANOTHER)[1]}
    assert reasons == {"it takes its batch from the gradient", "act is kept anyway, or nothing else is"}


# -- the engine ----------
def test_rules_do_not_run_away() -> None:
    """A rule whose result matches its own pattern stops once its condition refuses."""
    b = Builder()
    graph = b.finish(b.op(ops.Scale(16.0), b.input(3), name="scale"))

    def halve(m: Match) -> str:
        half = m.add(ops.Scale(m.op("scale", ops.Scale).factor / 2), [m["x"].name], like=m.root)
        return m.graph.add(ops.Add(), [half, half], "twice")

    def at_one(m: Match) -> str | None:
        return "it is one" if m.op("scale", ops.Scale).factor == 1 else None

    given = values(graph)
    before = outputs(graph, given)
    scale = pattern("scale", ops.Scale, "x")
    decisions = apply_rules(graph, (Rule("scale -> twice half of it", scale, halve, at_one),))
    assert [d.applied for d in decisions] == [True] * 4 + [False]
    assert_same(outputs(graph, given), before)


def factored_out(m: Match) -> str:
    """f x + f y, which is f (x + y)."""
    total = m.add(ops.Add(), (m["x"].name, m["y"].name), like=m["sum"])
    return m.add(ops.Multiply(), (m["factor"].name, total), like=m["sum"])


FACTOR = Rule(
    "f x + f y -> f (x + y)",
    pattern(
        "sum",
        ops.Add,
        pattern("one", ops.Multiply, "factor", "x"),
        pattern("two", ops.Multiply, "factor", "y"),
    ),
    factored_out,
)


def sum_of_products(*operands: tuple[str, str]) -> Builder:
    b = Builder()
    for name in ("a", "b", "c", "d"):
        b.weight(3, name=name)
    products = [b.op(ops.Multiply(), *pair, name=f"p{i}") for i, pair in enumerate(operands)]
    b.finish(b.op(ops.Add(), *products, name="sum"))
    return b


@pytest.mark.parametrize("one", [("a", "b"), ("b", "a")])
@pytest.mark.parametrize("two", [("a", "c"), ("c", "a")])
def test_a_pattern_has_two_inner_operands_and_commutes(one: tuple[str, str], two: tuple[str, str]) -> None:
    graph = applied(sum_of_products(one, two).graph, FACTOR)
    assert op_names(graph) == ["add", "multiply"]


def test_a_variable_that_is_named_twice_is_one_value() -> None:
    _, decisions = rewrite(sum_of_products(("a", "b"), ("c", "d")).graph, FACTOR)
    assert decisions == []


def test_an_inner_operand_that_is_read_elsewhere_stays() -> None:
    b = sum_of_products(("a", "b"), ("a", "c"))
    b.finish("sum", b.op(ops.Relu(), "p1", name="relu"))
    assert refusal(b.graph, FACTOR) == "p1 also feeds relu"
    assert refusal(sum_of_products(("a", "b"), ("a", "c")).finish("sum", "p0"), FACTOR) == (
        "p0 is an output of the network"
    )


def test_an_op_that_does_not_commute_keeps_its_operands_places() -> None:
    for op, count in ((ops.Multiply(), 1), (ops.Divide(), 0)):
        b = Builder()
        graph = b.finish(b.op(op, b.input(3), b.op(ops.Scale(2.0), b.weight(3, name="w")), name="root"))
        over = pattern("root", (ops.Multiply, ops.Divide), pattern("scale", ops.Scale, "w"), "x")
        found = list(over.matches(graph, graph["root"]))
        assert [(m["w"].name, m["x"].name) for m in found] == [("w", "image")] * count


def test_every_op_that_commutes_gives_the_same_either_way_round() -> None:
    commuting = [op for op in REGISTRY.values() if op.commutes]
    assert {ops.Add, ops.Multiply, ops.Maximum, ops.Minimum, ops.Logical} <= set(commuting)
    for op in commuting:
        whole = op().takes_whole(0)
        a, b = (torch.randn(50, generator=torch.Generator().manual_seed(i)) for i in (1, 2))
        a, b = (a > 0, b > 0) if whole and op is ops.Logical else (a, b)
        assert torch.equal(op().reference(a, b), op().reference(b, a)), op


def test_another_way_to_match_is_tried_where_the_first_is_refused() -> None:
    """Both operands are scaled; only the one by 2 is wanted, and it stands second."""
    b = Builder()
    x = b.input(3)
    halves = [b.op(ops.Scale(factor), x, name=f"by{factor:g}") for factor in (3.0, 2.0)]
    graph = b.finish(b.op(ops.Add(), *halves, name="sum"))
    by_two = Rule(
        "2 x + y -> x + (x + y)",
        pattern("sum", ops.Add, pattern("twice", ops.Scale, "x"), "y"),
        lambda m: m.add(ops.Add(), (m["x"].name, m.graph.add(ops.Add(), (m["x"].name, m["y"].name))), m.root),
        lambda m: None if m.op("twice", ops.Scale).factor == 2 else f"{m['twice'].name} is not twice",
    )
    twin, decisions = rewrite(graph, by_two)
    assert [(d.node, d.applied) for d in decisions] == [("sum", True), ("add", False)]
    assert decisions[1].reason == "by3 is not twice"
    assert op_names(twin) == ["scale", "add", "add"]
    given = values(graph)
    assert_same(outputs(twin, given), outputs(graph, given))


def test_a_rule_asks_for_the_op_that_its_pattern_names() -> None:
    graph = sum_of_products(("a", "b"), ("a", "c")).graph
    (match, *_) = FACTOR.pattern.matches(graph, graph["sum"])
    with pytest.raises(TypeError, match="the pattern lets one be multiply, not only divide"):
        match.op("one", ops.Divide)
