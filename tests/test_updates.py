"""What a training step writes back: any expression, in order, from the parameters as they were before it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from convloom.graph import ops
from convloom.graph.averages import apart, move, writes
from convloom.graph.errors import CompileError
from convloom.graph.ir import Graph
from convloom.graph.leaving import Update
from convloom.graph.passes import TRAINING, run_pipeline
from convloom.graph.passes.cleanup import remove_dead_code
from convloom.graph.serial import BEFORE, from_data, to_json
from convloom.graph.verify import verify
from convloom.planning.fusion import fuse
from graphs import Builder, lenet

import convloom as cl

BACKENDS = ("aten", "triton")


def written(graph: Graph) -> list[str]:
    return [str(write) for write in writes(graph)]


# -- which are moving averages ----------
def averaged(factors: tuple[float, float] = (0.75, 0.25), offset: float = 0.0, swap: bool = False) -> Builder:
    b = Builder()
    p = b.weight(3, name="p", trainable=False)
    mean = b.op(ops.Reduce((0,), mean=True), b.input(3), name="mean")
    parts = [
        b.op(ops.Scale(factors[0], offset), p, name="kept"),
        b.op(ops.Scale(factors[1]), mean, name="new"),
    ]
    b.op(ops.Add(), *(parts[::-1] if swap else parts), name="moved")
    b.finish("image").updates = [Update("p", "moved")]
    return b


@pytest.mark.parametrize("swap", [False, True])
def test_a_moving_average_is_in_no_kernel(swap: bool) -> None:
    graph = averaged(swap=swap).graph
    assert written(graph) == ["%p <- 0.75 * %p + 0.25 * %mean"]
    assert apart(graph) == {"kept", "new", "moved"}
    assert [[node.name for node in region.nodes] for region in fuse(graph)] == [["mean"]]


@pytest.mark.parametrize("change", [{"factors": (0.75, 0.5)}, {"offset": 1.0}])
def test_what_only_looks_like_one(change: dict[str, object]) -> None:
    graph = averaged(**change).graph  # type: ignore[arg-type]
    assert written(graph) == ["%p <- %moved"]
    assert apart(graph) == set()


def test_one_that_is_read_is_computed() -> None:
    for name in ("kept", "new", "moved"):
        b = averaged()
        assert written(b.finish("image", name)) == ["%p <- %moved"]
        b = averaged()
        b.op(ops.Relu(), name, name="reader")
        assert written(b.graph) == ["%p <- %moved"]
    b = averaged()
    b.graph.updates.append(Update(b.weight(3, name="q"), "moved"))
    assert written(b.graph) == ["%p <- %moved", "%q <- %moved"]


def test_a_second_one_goes_on_from_the_first() -> None:
    b = averaged()
    move(b.graph, "p", "mean", 0.5, "", "moved")
    assert written(b.graph) == ["%p <- 0.75 * %p + 0.25 * %mean", "%p <- 0.5 * %p + 0.5 * %mean"]
    b = averaged()
    move(b.graph, "p", "mean", 0.5, "")  # from p as it was before both
    assert written(b.graph) == ["%p <- 0.75 * %p + 0.25 * %mean", "%p <- %p/moved"]
    b = averaged()
    move(b.graph, b.weight(3, name="q"), "moved", 0.5, "")  # towards another's
    assert written(b.graph) == ["%p <- %moved", "%q <- 0.5 * %q + 0.5 * %moved"]


def test_a_network_s_statistics_take_no_kernel() -> None:
    graph = lenet(batch_norm=True)
    run_pipeline(graph, TRAINING)
    assert [write.momentum for write in writes(graph)] == [0.99] * 4
    without = graph.copy()
    without.updates = []
    remove_dead_code(without)
    assert [str(region) for region in fuse(graph)] == [str(region) for region in fuse(without)]


# -- any expression ----------
def stepping() -> Graph:
    """A weight that goes down the gradient of (x w)^2 / 2, an average of it, and what else steps may do."""
    b = Builder("stepping")
    x = b.input(3)
    y = b.op(ops.Dense(), x, b.weight(3, 2, name="w", trainable=False), name="y")
    y = b.op(ops.Dense(), b.op(ops.Relu(), y), b.weight(2, 2, name="head", trainable=True), name="z")
    for name, shape in (("shadow", (3, 2)), ("largest", (2,)), ("steps", ()), ("one", (2,)), ("two", (2,))):
        b.weight(*shape, name=name, trainable=False)
    gradient = b.op(ops.DenseWeightGrad(), x, "y", name="gradient")
    stepped = b.op(ops.Subtract(), "w", b.op(ops.Scale(0.01), gradient), name="stepped")
    largest = b.op(ops.Maximum(), "largest", b.op(ops.Reduce((0,), mean=True), "y"), name="larger")
    graph = b.finish(y)
    graph.updates = [Update("w", stepped), Update("largest", largest)]
    graph.updates.append(Update("steps", b.op(ops.Scale(1.0, 1.0), "steps", name="next")))
    graph.updates += [Update("one", "two"), Update("two", "one")]
    move(graph, "shadow", "w", 0.5, "")  # of w as it was before the step
    verify(graph)
    return graph


def expected(weights: dict[str, torch.Tensor], x: torch.Tensor) -> dict[str, torch.Tensor]:
    w = weights["w"]
    return {
        **weights,
        "w": w - 0.01 * x.T @ (x @ w),
        "largest": torch.maximum(weights["largest"], (x @ w).mean(0)),
        "steps": weights["steps"] + 1,
        "one": weights["two"],
        "two": weights["one"],
        "shadow": 0.5 * weights["shadow"] + 0.5 * w,
    }


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("read_back", [False, True], ids=["", "from a file"])
def test_a_step_writes_all_from_what_was_before(tmp_path: Path, backend: str, read_back: bool) -> None:
    path = tmp_path / "net.json"
    path.write_text(to_json(from_data(json.loads(to_json(stepping()))) if read_back else stepping()))
    net = cl.compile(cl.load(path), backend=backend, device="cpu").train()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in net.weights().values():
            value.copy_(torch.randn(value.shape, generator=generator))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(3):
        x = torch.randn(5, 3, generator=generator)
        before = {name: value.detach().clone() for name, value in net.weights().items()}
        z = net(x)
        torch.testing.assert_close(z, (x @ before["w"]).relu() @ before["head"])
        after = {name: value.detach().clone() for name, value in net.weights().items()}
        torch.testing.assert_close(after, expected(before, x))
        optimizer.zero_grad()
        z.square().sum().backward()
        hidden = (x @ before["w"]).relu()
        torch.testing.assert_close(dict(net.named_parameters())["head"].grad, 2 * hidden.T @ z.detach())
        optimizer.step()
    still = {name: value.detach().clone() for name, value in net.weights().items()}
    with torch.no_grad():
        net.eval()(x)
    torch.testing.assert_close(dict(net.weights()), still, rtol=0, atol=0)


def test_a_trained_parameter_is_not_moved_by_its_own_step() -> None:
    graph = stepping()
    graph.updates.append(Update("head", graph.add(ops.Scale(0.9), ["head"], "decayed")))
    net = cl.compile(cl.loads(to_json(graph)), backend="aten", device="cpu").train()
    with pytest.raises(CompileError, match="update %head <- %decayed: %head is trained"):
        net(torch.zeros(1, 3))


# -- in files, and in the specification ----------
def test_the_format_before_holds_moving_averages() -> None:
    data = json.loads(to_json(averaged().graph))
    data["format"] = BEFORE
    data["nodes"] = [node for node in data["nodes"] if node["name"] in ("p", "image", "mean")]
    data["updates"] = [{"parameter": "p", "value": "mean", "momentum": m} for m in (0.75, 0.5)]
    graph = from_data(data)
    assert written(graph) == ["%p <- 0.75 * %p + 0.25 * %mean", "%p <- 0.5 * %p + 0.5 * %mean"]
    assert str(from_data(json.loads(to_json(graph)))) == str(graph)


@pytest.mark.parametrize(
    ("parameter", "value", "reason"),
    [
        ("p", "ghost", "there is no node ghost"),
        ("image", "image", "image is no parameter"),
        ("p", "image", r"float32\[N,3\] does not fit float32\[3\]"),
        ("p", "behind", "its value belongs to the backward pass"),
    ],
)
def test_an_update_that_breaks_the_specification(parameter: str, value: str, reason: str) -> None:
    graph = averaged().graph
    graph.add(ops.Relu(), ["mean"], "behind", phase="backward")
    graph.updates = [Update(parameter, value)]
    with pytest.raises(CompileError, match=f"update %{parameter} <- %{value}: {reason}"):
        verify(graph)
