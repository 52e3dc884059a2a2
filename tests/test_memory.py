"""Where values lie: a network computed in one arena gives what it gives in memory of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from convloom.codegen import NotEmittable
from convloom.graph import ops
from convloom.graph.ir import Graph
from convloom.graph.ops import Input
from convloom.planning.fusion import fuse, leave_unfused
from convloom.planning.memory import ALIGNMENT, Home, Memory, plan_memory
from convloom.planning.regions import Partition
from convloom.planning.slices import write_into_slices
from convloom.runtime.backends import FallbackWarning, _guarded
from graphs import (
    Builder,
    Values,
    inception,
    lenet,
    random_networks,
    residual_block,
    shared_layer,
    unet,
    values,
)
from hypothesis import given, settings
from partitions import inference

import convloom as cl
from convloom import layers as L


def planned(graph: Graph, fused: bool = True) -> tuple[Partition, Memory]:
    partition = fuse(graph) if fused else leave_unfused(graph)
    if fused:
        write_into_slices(partition)
    sources = {node.name for node in graph.sources(Input)}
    kept = set(graph.outputs.values())
    return partition, plan_memory(graph, partition.regions, sources, graph.parameter_only(), kept)


class Machine:
    """Runs regions over one arena: each value is read and written at its place, and nowhere else."""

    def __init__(self, graph: Graph, memory: Memory, batch: int) -> None:
        self.graph, self.memory, self.batch = graph, memory, batch
        self.layout = memory.layout(batch)
        self.arena = torch.full((self.layout.nbytes,), 0xFF, dtype=torch.uint8)  # NaN in every float
        self.own: dict[str, torch.Tensor] = {}

    def at(self, name: str) -> torch.Tensor:
        """The value's place as a tensor of its shape."""
        node, place = self.graph[name], self.memory.places[name]
        root = self.graph[place.buffer].type
        if place.home is Home.ARENA:
            start = self.layout.offsets[place.buffer]
            run = self.arena[start:]
        else:
            largest = max(root.nbytes(self.batch), node.type.nbytes(self.batch))
            run = self.own.setdefault(place.buffer, torch.full((largest,), 0xFF, dtype=torch.uint8))
        size = node.type.size(self.batch)
        if place.pitch:
            rows = node.type.with_shape((*node.type.shape[:-1], place.pitch))
            whole = run[: rows.nbytes(self.batch)].view(node.type.torch_dtype).view(rows.size(self.batch))
            return whole[..., place.start : place.start + node.type.channels]
        return run[: node.type.nbytes(self.batch)].view(node.type.torch_dtype).view(size)


def check(graph: Graph, batch: int, fused: bool = True) -> Memory:
    """The outputs through the arena are those without it."""
    partition, memory = planned(graph, fused)
    drawn = values(graph, batch)
    known: Values = {name: value.to(graph[name].type.torch_dtype) for name, value in drawn.items()}
    for node in graph.nodes():
        if not node.inputs and node.name not in known:
            known[node.name] = node.op.reference()
    expected = dict(known)
    for node in graph.nodes():
        if node.name not in expected:
            expected[node.name] = node.evaluate(*(expected[name] for name in node.inputs))
    machine = Machine(graph, memory, batch)
    outside = {n.name for n in graph.sources(Input)} | graph.parameter_only()
    for region in partition:
        if not region.launches:
            continue
        found = {n.name: expected[n.name] if n.name in outside else machine.at(n.name) for n in region.inputs}
        for node in region.nodes:
            found[node.name] = node.evaluate(*(found[name] for name in node.inputs))
        for node in region.outputs:
            machine.at(node.name).copy_(found[node.name])
    for name in graph.outputs.values():
        if name not in outside:
            assert torch.equal(machine.at(name), expected[name]), name
    check_layout(memory, batch)
    return memory


def check_layout(memory: Memory, batch: int) -> None:
    """No two buffers that are needed at once overlap, and the arena is no larger than all of them."""
    layout = memory.layout(batch)
    assert layout.least <= layout.nbytes <= layout.separate
    placed = [(layout.offsets[b.name], b.nbytes(batch), b) for b in memory.buffers]
    for index, (start, size, buffer) in enumerate(placed):
        assert start % ALIGNMENT == 0
        assert start + size <= layout.nbytes
        for other, length, neighbour in placed[:index]:
            at_once = buffer.first <= neighbour.last and neighbour.first <= buffer.last
            assert not at_once or start + size <= other or other + length <= start


NETWORKS: list[Callable[[], Graph]] = [lenet, residual_block, inception, unet, shared_layer]


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("make", NETWORKS)
@pytest.mark.parametrize("batch", [1, 3])
def test_networks_in_one_arena(make: Callable[[], Graph], batch: int, fused: bool) -> None:
    check(inference(make()), batch, fused)


@settings(max_examples=60, deadline=None)
@given(random_networks())
def test_random_networks_in_one_arena(graph: Graph) -> None:
    check(inference(graph), 2)


def test_a_chain_takes_two_buffers() -> None:
    """A convolution cannot overwrite what it reads; one further back lies in the first one's place."""
    b = Builder("chain")
    x = b.input(8, 8, 4)
    for _ in range(6):
        x = b.conv(x, 4)
    memory = check(inference(b.finish(b.conv(x, 2))), 5)
    one = memory.buffers[0].nbytes(5)
    assert memory.layout(5).nbytes == 2 * one
    assert memory.layout(5).separate == 6 * one
    assert memory.layout(10).nbytes == 4 * one


def test_a_residual_sum_takes_the_place_of_what_it_adds() -> None:
    b = Builder("residual")
    first = b.conv(b.input(6, 6, 4), 4)
    total = b.op(ops.Add(), b.conv(b.conv(first, 4), 4), first)
    memory = check(inference(b.finish(b.conv(total, 2))), 2)
    assert memory.places[total].how == f"in place of %{first}"


def test_what_is_read_again_is_not_overwritten() -> None:
    b = Builder("twice")
    first = b.conv(b.input(6, 6, 4), 4)
    total = b.op(ops.Add(), b.conv(first, 4), first)
    memory = check(inference(b.finish(b.conv(total, 2), b.conv(first, 3))), 2)
    assert memory.places[total].how == ""


def test_outputs_and_inputs_have_memory_of_their_own() -> None:
    b = Builder("outputs")
    x = b.input(6, 6, 4)
    first = b.op(ops.Relu(), x)
    second = b.op(ops.Tanh(), first)
    graph = inference(b.finish(first, second, b.op(ops.Sigmoid(), second)))
    _, memory = planned(graph, fused=False)
    homes = {name: memory.places[name].home for name in (x, first, second)}
    assert homes == {x: Home.GIVEN, first: Home.OWN, second: Home.OWN}
    assert memory.buffers == []
    assert memory.summary(4) == "no memory between the steps"


def test_concatenation_is_written_by_its_producers() -> None:
    partition, memory = planned(inference(inception()))
    joined = [region.anchor for region in partition if region.joined]
    assert joined
    for whole in joined:
        start = 0
        for name in whole.inputs:
            place = memory.places[name]
            assert (place.buffer, place.start, place.pitch) == (
                memory.places[whole.name].buffer,
                start,
                whole.type.channels,
            )
            start += partition.graph[name].type.channels
    assert not any(region.joined for region in partition.kernels)


def test_a_part_that_others_read_lies_in_its_place() -> None:
    b = Builder("shared part")
    x = b.input(5, 5, 3)
    left, right = b.conv(x, 2), b.conv(x, 4)
    whole = b.op(ops.Concat(), left, right)
    wider = b.op(ops.Concat(), b.op(ops.Relu(), right), whole)
    memory = check(inference(b.finish(b.conv(wider, 2), b.conv(left, 3), b.conv(whole, 1))), 3)
    places = [memory.places[name] for name in (left, right, whole)]
    assert [(p.buffer, p.start, p.pitch) for p in places] == [(wider, start, 10) for start in (4, 6, 4)]


def test_a_part_that_leaves_keeps_its_concatenation() -> None:
    b = Builder("leaving part")
    x = b.input(5, 5, 3)
    left, right = b.conv(x, 2), b.conv(x, 4)
    partition, _ = planned(inference(b.finish(b.conv(b.op(ops.Concat(), left, right), 2), left)))
    assert not any(region.joined for region in partition)
    assert any(f"{left} is an output" in d.reason for d in partition.decisions if not d.applied)


def test_the_summary_names_what_holds_the_peak() -> None:
    b = Builder("peak")
    first = b.conv(b.input(6, 6, 4), 4)
    wide = b.conv(first, 8)
    _, memory = planned(inference(b.finish(b.conv(b.op(ops.Add(), b.conv(wide, 4), first), 2))))
    # 1,728 bytes for the one and 3,456 for the wider one, each rounded up to whole alignments.
    assert memory.summary(3) == (
        f"arena of 5.4 kB at batch 3, 5.4 kB without reuse (at step 2 5.4 kB are needed: %{wide} 3.6 kB, "
        f"%{first} 1.8 kB); 1 in the place of operands"
    )


# -- in a network that runs ----------
def test_outputs_are_never_overwritten_and_may_be_written_to() -> None:
    x = cl.Input((6, 6, 3))
    first = L.Conv2D(4, 3, padding="same", activation="relu")(x)
    model = cl.Model(x, [first, L.Add()([L.Conv2D(4, 3, padding="same")(first), first])])
    net = cl.compile(model, backend="triton", device="cpu")
    images = torch.randn(2, 6, 6, 3)
    kept = net(images)
    before = [y.detach().clone() for y in kept]
    for _ in range(2):
        net(torch.randn(3, 6, 6, 3))
    assert all(torch.equal(a, b) for a, b in zip(kept, before, strict=True))
    kept[0].mul_(0)  # which autograd refuses on a view that a function made
    assert torch.equal(kept[1], before[1])


@pytest.mark.parametrize("training", [False, True])
def test_concatenations_and_sums_on_kernels_as_on_aten(training: bool) -> None:
    x = cl.Input((8, 6, 3))
    left = L.Conv2D(5, 3, padding="same", activation="relu")(x)
    right = L.MaxPooling2D(3, strides=1, padding="same")(x)
    joined = L.Concatenate()([left, L.Conv2D(4, 1)(x), right])
    total = L.Add()([L.Conv2D(12, 1)(L.Conv2D(7, 1)(joined)), joined])
    model = cl.Model(x, L.Concatenate()([L.Conv2D(3, 1)(total), L.Activation("tanh")(total)]))
    images, found = torch.randn(2, 8, 6, 3), []
    for backend in ("aten", "triton"):
        net = cl.compile(model, backend=backend, device="cpu").train(training)
        given = images.clone().requires_grad_()
        y = net(given)
        y.square().sum().backward()
        found.append([y, given.grad, *(p.grad for p in net.parameters())])
        net.zero_grad()
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-5 * float(a.detach().abs().max()))
    joins = [region.anchor.name for region in net.eval().program.partition if region.joined]
    assert len(joins) == 2


def test_a_region_without_a_kernel_writes_into_its_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    x = cl.Input((6, 4, 3))
    h = L.Conv2D(2, 1)(L.Concatenate()([L.Conv2D(5, 1)(x), L.Conv2D(4, 1)(x)]))
    model = cl.Model(x, L.Conv2D(2, 3)(L.Activation("tanh")(h)[..., 1:]))  # and reads one
    images = torch.randn(3, 6, 4, 3)
    expected = cl.compile(model, backend="aten", device="cpu")(images)

    def refuse(*_: object) -> None:
        raise NotEmittable("not today")

    monkeypatch.setattr("convloom.codegen.programs.write", refuse)
    with pytest.warns(FallbackWarning, match="not today"):
        found = cl.compile(model, backend="triton", device="cpu")(images)
    torch.testing.assert_close(found, expected)


def in_place(net: cl.CompiledNetwork) -> list[str]:
    places = net.eval().program.memory.places
    return [name for name, place in places.items() if place.how.startswith("in place")]


def agree(model: cl.Model, shape: tuple[int, ...]) -> cl.CompiledNetwork:
    """The kernels give what the unfused network gives in memory of its own."""
    x = torch.randn(3, *shape)
    net = cl.compile(model, backend="triton", device="cpu").eval()
    with torch.no_grad():
        expected = cl.compile(model, dtype="float64", fuse=False, device="cpu").eval()(x.double())
        torch.testing.assert_close(net(x).double(), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    return net


@pytest.mark.parametrize("pooling", [L.MaxPooling2D, L.AveragePooling2D])
@pytest.mark.parametrize("window", [(4, 1), (2, 2), (4, 4)])
def test_what_windows_read_again_is_not_overwritten(pooling: Any, window: tuple[int, int]) -> None:
    """A sum before overlapping windows that keep its shape: every window reads its neighbours' operand."""
    x = cl.Input((7, 6, 4))
    residual = L.Conv2D(16, 3, padding="same", activation="tanh")(x)
    total = L.Add()([L.Conv2D(16, 1)(x), residual])
    pooled = pooling(window, strides=1, padding="same")(total)
    net = agree(cl.Model(x, L.Conv2D(3, 1)(pooled)), (7, 6, 4))
    assert not any("pool" in name for name in in_place(net))


def test_what_a_convolution_reads_through_a_view_is_not_overwritten() -> None:
    x = cl.Input((8, 8, 4))
    first = L.Conv2D(16, 3, padding="same", activation="tanh")(x)
    again = L.Conv2D(16, 5, strides=2, padding="same")(L.Reshape((16, 16, 4))(first))
    net = agree(cl.Model(x, L.Conv2D(2, 1)(L.Add()([again, first]))), (8, 8, 4))
    assert not in_place(net)


def test_only_a_first_launch_falls_back() -> None:
    """On a GPU: what fails after a success is no kernel that does not fit, and is told as it is."""
    x = cl.Input((4, 4, 2))
    model = cl.Model(x, L.Conv2D(3, 1, activation="relu")(x))
    net = cl.compile(model, backend="triton", device="cpu").eval()
    (region,) = net.program.regions
    given = [torch.randn(n.type.size(1)) for n in region.inputs]
    room = torch.full(region.outputs[0].type.size(1), float("nan"))
    fails = [False]

    def launch(*tensors: torch.Tensor) -> torch.Tensor:
        if fails[0]:
            raise RuntimeError("an illegal memory access")
        return tensors[-1].fill_(1)

    first = _guarded(launch, region, True)
    assert first(*given, room) is room
    fails[0] = True
    with pytest.raises(RuntimeError, match="illegal"):
        first(*given, room)
    with pytest.warns(FallbackWarning, match="illegal"):
        found = _guarded(launch, region, True)(*given, room)
    assert found is room
    expected = torch.relu(torch.addmm(given[2], given[0].reshape(-1, 2), given[1].reshape(2, 3)))
    torch.testing.assert_close(room.reshape(-1, 3), expected)
