"""Fusion: what becomes one kernel, and what refuses to and why."""

from __future__ import annotations

import pytest
from convloom.graph import ops
from convloom.graph.errors import CompileError
from convloom.graph.ir import Graph
from convloom.graph.leaving import Update
from convloom.graph.op import Op
from convloom.graph.passes.precision import with_dtype
from convloom.graph.types import BATCH
from convloom.planning.cost import CostModel
from convloom.planning.forms import MOST_MEMBERS, expected_seconds
from convloom.planning.fusion import fuse
from convloom.planning.geometry import broadcast_kind
from convloom.planning.regions import Region, order_regions
from graphs import (
    Builder,
)
from partitions import check, kernels, reasons, training


# -- what fuses ----------
def head() -> Builder:
    """An image and a convolution of it."""
    b = Builder()
    b.conv(b.input(8, 6, 3), 3, name="conv")
    return b


def test_a_residual_addition_joins_the_later_convolution() -> None:
    b = head()
    second = b.conv("conv", 3, name="second")
    third = b.conv(second, 3, name="third")
    graph = b.finish(b.op(ops.Relu(), b.op(ops.Add(), second, third, name="add"), name="relu"))
    partition = fuse(graph)
    assert kernels(partition) == ["conv2d", "conv2d", "conv2d add relu"]
    assert [node.name for node in partition.kernels[2].inputs][:1] == ["second"]
    for order in (("conv", "parallel"), ("parallel", "conv")):
        b = head()
        b.conv("image", 3, name="parallel")
        partition = fuse(b.finish(b.op(ops.Add(), *order, name="add")))
        assert kernels(partition) == ["conv2d", "conv2d add"]
        assert partition.kernels[1].anchor.name == "parallel"


def test_all_that_a_sum_adds_up_is_computed_where_it_is_added() -> None:
    b = Builder()
    x, y = b.input(4, 3, 5, name="x"), b.input(4, 3, 5, name="y")
    parts = [b.op(ops.Relu(), b.batch_norm(given), name=f"relu{given}") for given in (x, y)]
    b.op(ops.Add(), *parts, name="sum")
    graph = b.finish("sum")
    assert kernels(fuse(graph)) == ["batch_norm relu batch_norm relu add"]
    check(graph)
    partition = fuse(b.finish("sum", "relux"))
    assert kernels(partition) == ["batch_norm relu", "batch_norm relu add"]
    assert reasons(partition, "sum") == ["relux is an output of the network"]


def test_a_value_and_what_is_computed_of_it_meet_again() -> None:
    b = Builder()
    x = b.op(ops.Square(), b.input(4, 5, name="x"), name="square")
    b.op(ops.Multiply(), x, b.op(ops.Sigmoid(), x, name="sigmoid"), name="gated")
    graph = b.finish("gated")
    assert kernels(fuse(graph)) == ["square sigmoid multiply"]
    check(graph)
    b.op(ops.Exp(), x, name="exp")
    partition = fuse(b.finish("gated", "exp"))
    assert kernels(partition) == ["square", "sigmoid multiply", "exp"]
    assert reasons(partition, "gated") == ["square also feeds exp"]


def gated() -> Builder:
    """Squeeze and excitation: a map times a gate made of its mean."""
    b = head()
    x = b.op(ops.Square(), "conv", name="square")
    mean = b.op(ops.AveragePool2D((8, 6), (8, 6)), x, name="mean")
    b.op(ops.Multiply(), x, b.op(ops.Sigmoid(), b.conv(mean, 3, (1, 1), name="gate")), name="gated")
    return b


def test_what_is_added_to_a_window_is_computed_there() -> None:
    b = gated()
    b.conv("gated", 2, name="last")
    graph = training(b.finish("last"))
    assert "multiply average_unpool2d add multiply scale" in kernels(fuse(graph))
    check(graph)
    b = Builder()
    x, y = b.input(4, 4, 3, name="x"), b.input(2, 2, 3, name="y")
    pooled = b.op(ops.AveragePool2D(), x, name="pooled")
    b.op(ops.Add(), b.op(ops.Tanh(), y, name="tanh"), pooled, name="sum")
    graph = b.finish("sum")
    assert kernels(fuse(graph)) == ["tanh average_pool2d add"]
    check(graph)
    partition = fuse(b.finish("sum", "tanh"))
    assert sorted(kernels(partition)) == ["average_pool2d add", "tanh"]
    assert reasons(partition, "sum") == ["tanh is an output of the network"]


def test_a_product_takes_no_second_operand_s_kernel() -> None:
    b = head()
    b.op(ops.Add(), b.op(ops.Tanh(), b.input(8, 6, 3, name="y"), name="tanh"), "conv", name="sum")
    partition = fuse(b.finish("sum"))
    assert sorted(kernels(partition)) == ["conv2d add", "tanh"]
    assert reasons(partition, "sum") == []


def test_epilogues_before_and_after_the_window() -> None:
    b = head()
    gate = b.input(1, 1, 3, name="gate")
    h = b.op(ops.Multiply(), "conv", gate, name="gated")
    h = b.op(ops.Relu(), b.batch_norm(h), name="relu")
    h = b.op(ops.MaxPool2D((2, 1), (2, 1)), h, name="pool")
    partition = fuse(b.finish(b.op(ops.Tanh(), b.op(ops.Scale(2.0), h), name="tanh")))
    assert kernels(partition) == ["conv2d multiply batch_norm relu max_pool2d scale tanh"]
    (region,) = partition.kernels
    assert [node.name for node in region.outputs] == ["tanh"]
    assert region.layers == ["conv", "gated", "norm", "relu", "pool", "tanh"]


def test_prologues() -> None:
    b = Builder()
    h = b.op(ops.Tanh(), b.op(ops.Scale(0.5), b.input(6, 5, 3), name="half"), name="tanh")
    graph = b.finish(b.op(ops.Relu(), b.conv(h, 4, (1, 1), name="conv"), name="relu"))
    partition = fuse(graph)
    assert kernels(partition) == ["scale tanh conv2d relu"]
    assert [node.name for node in partition.kernels[0].prologue] == ["half", "tanh"]
    b = Builder()
    assert kernels(fuse(b.finish(b.dense(b.op(ops.Relu(), b.input(5)), 2)))) == ["relu dense"]
    b = Builder()
    assert kernels(fuse(b.finish(b.op(ops.AveragePool2D(), b.op(ops.Relu(), b.input(4, 4, 2)))))) == [
        "relu average_pool2d"
    ]


def test_a_bias_gradient_shares_the_weight_gradient_s_kernel() -> None:
    partition = fuse(training(head().finish("conv")))
    assert kernels(partition)[1:] == ["conv2d_weight_grad reduce"]
    region = partition.kernels[-1]
    assert [node.op.op_name() for node in region.siblings] == ["reduce"]


def test_a_shared_layer_is_a_kernel_for_each_call() -> None:
    b = Builder("shared")
    kernel = b.weight(3, 3, 3, 4, name="kernel")
    calls = []
    for side in ("left", "right"):
        call = b.op(ops.Conv2D(), b.input(5, 7, 3, name=side), kernel, name=f"shared/{side}")
        calls.append(b.op(ops.Relu(), call, name=f"relu/{side}"))
    partition = fuse(b.finish(*calls))
    assert kernels(partition) == ["conv2d relu", "conv2d relu"]
    assert all("kernel" in [node.name for node in region.inputs] for region in partition.kernels)


# -- what refuses ----------
def refused(graph: Graph, node: str, question: str | None = None) -> list[str]:
    """The reasons given at `node`, which must then stand in another region than its operands."""
    check(graph)
    partition = fuse(graph)
    region = next(region for region in partition if node in region.members)
    assert not region.members.keys() & set(graph[node].inputs)
    asked = {d.question for d in partition.decisions if d.node == node and not d.applied}
    assert question is None or asked == {question}
    return reasons(partition, node)


def test_a_chain_is_cut_where_a_kernel_would_be_too_long() -> None:
    b = Builder("long")
    x = b.input(4, 4, 3)
    for _ in range(MOST_MEMBERS + 2):
        x = b.op(ops.Tanh(), x)
    graph = b.finish(x)
    assert [len(region.nodes) for region in fuse(graph).kernels] == [MOST_MEMBERS, 2]
    (reader,) = graph.readers(fuse(graph).kernels[0].nodes[-1].name)
    reason = f"a kernel of {MOST_MEMBERS + 1} members is longer than the {MOST_MEMBERS} that one may have"
    assert refused(graph, reader.name, "may") == [reason]


def test_two_readers() -> None:
    b = head()
    graph = b.finish(b.op(ops.Relu(), "conv", name="relu"), b.op(ops.Tanh(), "conv", name="tanh"))
    assert refused(graph, "relu") == ["conv also feeds tanh"]
    assert refused(graph, "tanh") == ["conv also feeds relu"]


def test_a_shared_layer_s_value_with_two_readers() -> None:
    b = head()
    one, two = (b.conv("conv", 2, (1, 1), name=name) for name in ("one", "two"))
    b.op(ops.Relu(), "conv", name="relu")
    assert refused(b.finish(one, two, "relu"), "relu") == ["conv also feeds one, two"]


def test_an_output_in_the_middle() -> None:
    b = head()
    b.op(ops.Relu(), "conv", name="relu")
    assert refused(b.finish("relu", "conv"), "relu") == ["conv is an output of the network"]


def test_a_value_written_back_as_state_is_an_output() -> None:
    b = head()
    graph = b.finish(b.op(ops.Relu(), "conv", name="relu"))
    graph.updates = [Update("conv/bias", "conv")]
    assert reasons(fuse(graph), "relu") == ["conv is an output of the network"]


@pytest.mark.parametrize(
    ("op", "reason"),
    [
        (ops.MaxPool2D((3, 3), (2, 2)), "a window of 3x3 has 9 elements, which is no power of two"),
        (ops.AveragePool2D((2, 3), (2, 1)), "a window of 2x3 has 6 elements, which is no power of two"),
        (ops.AveragePool2D((8, 4), (8, 4)), "a window of 8x4 is a row tile of its own"),
    ],
    ids=str,
)
def test_windows_that_no_kernel_holds(op: Op, reason: str) -> None:
    b = head()
    assert refused(b.finish(b.op(op, "conv", name="pool")), "pool", "may") == [reason]


def test_overlapping_windows_fuse_where_what_they_share_is_cheap_to_compute_again() -> None:
    """A pixel and channel of 32 to 32 channels takes 64 FLOPs, of 64 with 3x3 taps 1152; both are kept or
    written and read once."""
    cheap, dear = Builder(), Builder()
    cheap.conv(cheap.input(8, 6, 3), 32, (1, 1), name="conv")
    dear.conv(dear.input(8, 6, 64), 32, (3, 3), name="conv")
    graphs = [b.finish(b.op(ops.MaxPool2D((2, 2), (1, 1)), "conv", name="pool")) for b in (cheap, dear)]
    assert kernels(fuse(graphs[0])) == ["conv2d max_pool2d"]
    (reason,) = refused(graphs[1], "pool", "worth")
    assert reason.startswith("windows of 2x2 at stride 1x1 overlap, computing conv 2.92 times: ")
    assert reason.endswith("us more an image on the H100, to save 0.0123 MB of memory traffic, 0.00367 us")


def test_a_second_window() -> None:
    b = head()
    pooled = b.op(ops.MaxPool2D(), "conv", name="pool")
    graph = b.finish(b.op(ops.MaxPool2D((2, 1), (2, 1)), pooled, name="again"))
    assert refused(graph, "again") == ["the region already holds another window"]


def test_windows_that_leave_a_border_do_not_drop_what_backward_reads() -> None:
    """Swish's derivative needs the whole map; a kernel of pooled rows would not compute its border."""
    b = Builder()
    h = b.op(ops.Swish(), b.conv(b.input(7, 6, 3), 3, name="conv"), name="swish")
    graph = training(b.finish(b.op(ops.MaxPool2D(), h, name="pool")))
    assert "conv is kept whole, but the windows do not cover it exactly" in refused(graph, "pool")


def test_a_softmax_after_a_window_or_a_grouped_convolution() -> None:
    b = head()
    graph = b.finish(b.op(ops.Softmax(), b.op(ops.MaxPool2D(), "conv", name="pool"), name="softmax"))
    assert refused(graph, "softmax") == ["the region holds a window"]
    b = Builder()
    b.conv(b.input(4, 4, 4), 4, groups=2, name="conv")
    graph = b.finish(b.op(ops.Softmax(), "conv", name="softmax"))
    assert refused(graph, "softmax") == ["a grouped convolution computes a row in parts"]


def test_nothing_follows_a_softmax() -> None:
    b = Builder()
    h = b.op(ops.Softmax(), b.dense(b.input(5), 4, name="dense"), name="softmax")
    assert refused(b.finish(b.op(ops.Scale(2.0), h, name="scale")), "scale") == ["a softmax ends its region"]


def norm_and_convolution(
    channels: int, dtype: str, kernel: tuple[int, int] = (3, 3), norm: bool = True
) -> Graph:
    """Batch norm by moving statistics, relu and a convolution; the sum before is an output."""
    b = Builder()
    x = b.op(ops.Add(), b.input(8, 6, channels, name="x"), b.input(8, 6, channels, name="y"), name="sum")
    h = b.op(ops.Relu(), b.batch_norm(x) if norm else x, name="relu")
    return with_dtype(b.finish(b.conv(h, 64, kernel, name="conv"), x), dtype)


def test_a_prologue_is_computed_at_every_tap_where_that_is_cheaper_than_to_store_it() -> None:
    """Matrix units that read 16-bit operands from shared memory have to wait for it; few channels are
    gathered one by one in any case."""
    fused = ["add", "batch_norm relu conv2d"]
    assert kernels(fuse(norm_and_convolution(3, "float32"))) == fused
    assert kernels(fuse(norm_and_convolution(64, "float32"))) == fused
    assert kernels(fuse(norm_and_convolution(64, "bfloat16", (1, 1)))) == fused
    (reason,) = refused(norm_and_convolution(64, "bfloat16"), "conv", "worth")
    assert reason.startswith("a 3x3 kernel would compute relu 9 times: ")


def test_what_stands_before_a_depthwise_convolution_is_computed_as_often_as_it_is_read() -> None:
    """A thread reads a place about twice, whatever the number of taps is: not 49 times."""
    b = Builder()
    h = b.op(ops.Tanh(), b.input(28, 28, 96, name="x"), name="tanh")
    graph = with_dtype(b.finish(b.conv(h, 96, (7, 7), name="conv", groups=96)), "bfloat16")
    assert kernels(fuse(graph)) == ["tanh conv2d"]
    model = CostModel.of()
    (together,) = fuse(graph).kernels
    alone = Region(together.graph, together.anchor, [together.anchor], "alone")
    taken = [expected_seconds(each, model) for each in (alone, together)]
    assert taken[0] <= taken[1] < 2 * taken[0]


def test_what_it_is_worth_depends_on_the_target() -> None:
    """The matrix units of an A100 read their operands from registers, where something can be done to them."""
    graph = norm_and_convolution(64, "bfloat16", norm=False)
    assert [len(fuse(graph, CostModel.of(name)).kernels) for name in ("H100", "A100")] == [3, 2]


def test_a_prologue_of_overlapping_windows() -> None:
    b = Builder()
    h = b.op(ops.Relu(), b.input(6, 5, 3), name="relu")
    graph = b.finish(b.op(ops.MaxPool2D((3, 3), (1, 1)), h, name="pool"))
    assert kernels(fuse(graph)) == ["relu max_pool2d"]
    check(graph)
    b = Builder()
    h = b.input(99, 99, 3)
    for _ in range(9):
        h = b.op(ops.Gelu(), h, name="gelu")
    graph = b.finish(b.op(ops.AveragePool2D((9, 9), (1, 1)), h, name="pool"))
    (reason,) = reasons(fuse(graph), "pool")
    assert reason.startswith("windows of 9x9 at stride 1x1 overlap, computing gelu_8 ")


def test_explain_names_the_question() -> None:
    b = head()
    refusals = fuse(b.finish(b.op(ops.MaxPool2D((3, 3), (2, 2)), "conv", name="pool"))).decisions
    assert [str(d) for d in refusals] == [
        "refused at pool, for which there is no kernel: "
        "a window of 3x3 has 9 elements, which is no power of two"
    ]
    texts = [str(d) for d in fuse(norm_and_convolution(64, "bfloat16")).decisions]
    assert any(text.startswith("refused at conv, which is not worth it: a 3x3 kernel") for text in texts)


def test_a_prologue_that_the_backward_pass_reads_is_stored_by_its_own_kernel() -> None:
    b = Builder()
    h = b.op(ops.Scale(0.5), b.input(6, 5, 3), name="half")
    graph = b.finish(b.conv(h, 2, (1, 1), name="conv"))
    assert kernels(fuse(graph)) == ["scale conv2d"]
    graph = training(graph)  # the weight gradient reads the halves
    assert refused(graph, "conv") == ["half is kept for the backward pass"]


@pytest.mark.parametrize(
    ("size", "strides", "reason"),
    [
        ((3, 2), (3, 2), "the windows leave a border of the 8x6 map uncovered"),
        ((1, 2), (2, 2), "windows of 1x2 at stride 2x2 do not tile the map"),
        ((3, 2), (1, 2), "windows of 3x2 at stride 1x2 do not tile the map"),
        ((8, 3), (8, 3), "a window of 8x3 is too large to write from one row"),
    ],
)
def test_pooling_gradients_that_do_not_fuse(
    size: tuple[int, int], strides: tuple[int, int], reason: str
) -> None:
    b = Builder()
    h = b.op(ops.AveragePool2D(size, strides), b.input(8, 6, 2), name="pool")
    graph = training(b.finish(b.conv(h, 3, (1, 1), name="conv")), wrt_inputs=True)
    assert refused(graph, "pool/average_unpool2d") == [reason]


def test_a_pooling_gradient_rides_on_the_data_gradient() -> None:
    b = Builder()
    h = b.op(ops.AveragePool2D(), b.input(8, 6, 2), name="pool")
    graph = training(b.finish(b.conv(h, 3, name="conv")), wrt_inputs=True)
    assert "conv2d_data_grad average_unpool2d" in kernels(fuse(graph))
    check(graph)


def test_broadcasting_that_no_kernel_handles() -> None:
    b = head()
    b.input(8, 1, 3, name="rows")
    graph = b.finish(b.op(ops.Add(), "conv", "rows", name="add"))
    assert refused(graph, "add") == ["rows of float32[N,8,1,3] broadcasts along an axis no kernel handles"]
    b = head()
    gate = b.op(ops.AveragePool2D((8, 6), (8, 6)), "image", name="mean")
    graph = b.finish(b.op(ops.Multiply(), b.input(8, 6, 3, name="x"), gate, name="gated"))
    assert refused(graph, "gated") == ["gated broadcasts mean from float32[N,1,1,3] to float32[N,8,6,3]"]


def test_a_fusion_that_would_close_a_cycle() -> None:
    """The sum could join the pooling, were it not that its other operand comes from the pooling's index."""
    b = Builder()
    x = b.input(4, 6, 2)
    pooled = b.op(ops.MaxPool2D(), x, name="pool")
    index = b.op(ops.MaxPoolIndex2D(), x, name="index")
    moved = b.op(ops.Transpose((0, 1, 2, 3)), index, name="moved")
    position = b.op(ops.Cast(), moved, name="position")
    graph = b.finish(b.op(ops.Add(), pooled, position, name="add"))
    partition = fuse(graph)
    assert kernels(partition) == ["max_pool2d max_pool_index2d", "transpose", "cast add"]
    assert reasons(partition, "add") == ["another path leads from pool to add"]
    check(graph)


def test_phases_never_mix() -> None:
    b = Builder()
    graph = b.finish(b.op(ops.Tanh(), b.input(5), name="tanh"))
    graph.outputs["more"] = graph.add(ops.Relu(), ["tanh"], "behind", phase="backward")
    del graph.outputs["out"]
    assert refused(graph, "behind") == ["tanh belongs to the forward pass"]


def test_a_cycle_of_regions_is_an_error() -> None:
    b = Builder()
    one = b.op(ops.Relu(), b.input(3), name="one")
    two = b.op(ops.Tanh(), one, name="two")
    graph = b.finish(b.op(ops.Add(), one, two, name="three"))
    first, second, third = (graph[name] for name in ("one", "two", "three"))
    with pytest.raises(CompileError, match=r"the regions of (one|two) and (one|two) form a cycle"):
        order_regions(graph, [[first, third], [second]], [first, second])


@pytest.mark.parametrize(
    ("operand", "kind"),
    [
        ((BATCH, 4, 5, 3), "full"),
        ((3,), "channel"),
        ((1, 1, 1, 3), "channel"),
        ((BATCH, 1, 1, 3), "image"),
        ((BATCH, 4, 5, 1), "pixel"),
        ((), "scalar"),
        ((1, 1), "scalar"),
        ((BATCH, 4, 1, 3), None),
        ((4, 5, 3), "repeated"),
        ((1, 1, 5, 3), "repeated"),
        ((4, 1, 3), None),
        ((BATCH, 1, 1, 1), None),
    ],
)
def test_broadcast_kind(operand: tuple[int | str, ...], kind: str | None) -> None:
    assert broadcast_kind(operand, (BATCH, 4, 5, 3)) == kind
