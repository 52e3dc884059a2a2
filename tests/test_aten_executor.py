"""Whole networks through PyTorch's operators, against each op's own definition in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from aten_harness import (
    NETWORKS,
    Sketch,
    block_net,
    check_partition,
    check_region,
    draw_sources,
    evaluate_all,
    lowered,
    training,
)
from convloom.graph import ops
from convloom.graph.ir import Graph
from convloom.graph.op import REGISTRY
from convloom.graph.passes import INFERENCE, run_pipeline
from convloom.graph.passes.precision import with_dtype
from convloom.graph.types import DTYPES
from convloom.planning.fusion import fuse, leave_unfused
from convloom.planning.regions import Partition, Region
from convloom.runtime.aten.packing import PackedWeight
from op_cases import CASES, SOURCES, Case


# -- whole networks, fused and unfused ----------
@pytest.mark.parametrize("cut", [fuse, leave_unfused], ids=["fused", "unfused"])
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("batch", [1, 3])
def test_inference_regions(name: str, batch: int, cut: Callable[[Graph], Partition]) -> None:
    graph = NETWORKS[name]()
    run_pipeline(graph, INFERENCE)
    check_partition(cut(graph), batch, inference=True)
    check_partition(cut(graph), batch, inference=True, dtype=torch.float64)


@pytest.mark.parametrize("cut", [fuse, leave_unfused], ids=["fused", "unfused"])
@pytest.mark.parametrize("name", NETWORKS)
def test_training_regions(name: str, cut: Callable[[Graph], Partition]) -> None:
    partition = cut(training(NETWORKS[name]()))
    check_partition(partition, 3, inference=False)
    check_partition(partition, 3, inference=False, dtype=torch.float64)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_narrow_dtypes(name: str, dtype: str) -> None:
    graph = NETWORKS[name]()
    run_pipeline(graph, INFERENCE)
    check_partition(fuse(with_dtype(graph, dtype)), 3, inference=True)
    check_partition(fuse(training(with_dtype(NETWORKS[name](), dtype))), 3, inference=False)


# -- single ops ----------
def regions_of(case: Case) -> list[Region]:
    """What runs for that op: nothing where it follows from parameters alone, or is a view."""
    return fuse(case.graph()).kernels


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_op_alone(case: Case) -> None:
    for region in regions_of(case):
        exact = evaluate_all(region.graph, case.values(region.graph, 3))
        for inference in (True, False):
            check_region(region, exact, inference)


def test_every_op_is_run_alone() -> None:
    """A new op needs a case in tests/op_cases.py, over a batch."""
    run = {node.op.op_name() for case in CASES for region in regions_of(case) for node in region.nodes}
    views = {op.op_name() for op in (ops.Reshape, *SOURCES)}
    # Penalties are of weights alone, and run in no region.
    penalties = {name for name, op in REGISTRY.items() if op.__module__.endswith(".penalty")}
    assert {name for name, op in REGISTRY.items() if not op.__abstractmethods__} - penalties == run | views


# -- memory ----------
def test_a_value_read_again_is_not_overwritten() -> None:
    s = Sketch.empty()
    x = s.image(6, 5, 4)
    h = s.conv(x, (3, 3), 4, padding=((1, 1), (1, 1)))
    squared = s.then(ops.Square(), s.then(ops.Scale(2.0, 1.0), h))
    graph = s.done(s.then(ops.Subtract(), s.then(ops.Relu(), squared), x), squared)
    check_partition(fuse(graph), 2, inference=True)


def test_identities_do_not_pass_inputs_on_for_overwriting() -> None:
    s = Sketch.empty()
    x = s.image(5, 4, 3)
    h = s.then(ops.Relu(), s.then(ops.Cast("float32"), s.then(ops.InTraining(), x)))
    check_partition(fuse(s.done(h)), 2, inference=True)


def test_any_batch_size_after_lowering() -> None:
    graph = block_net()
    run_pipeline(graph, INFERENCE)
    partition = fuse(graph)
    runners = [(region, lowered(region, inference=True)) for region in partition]
    for batch in (1, 5, 2, 17, 1):
        exact = evaluate_all(graph, draw_sources(graph, batch, seed=batch))
        for region, run in runners:
            results = run([exact[node.name].to(node.type.torch_dtype) for node in region.inputs])
            for node, result in zip(region.outputs, results, strict=True):
                torch.testing.assert_close(result.double(), exact[node.name], rtol=1e-4, atol=1e-5)


# -- packed weights ----------
def wide_convolution() -> tuple[Region, list[torch.Tensor]]:
    s = Sketch.empty()
    h = s.conv(s.image(14, 14, 64), (3, 3), 64, padding=((1, 1), (1, 1)))
    (region,) = fuse(s.done(s.then(ops.Relu(), h)))
    values = draw_sources(region.graph, 2)
    return region, [values[node.name].float() for node in region.inputs]


def expected(region: Region, tensors: list[torch.Tensor]) -> torch.Tensor:
    x, w, b = (t.double() for t in tensors)
    return torch.relu(ops.Conv2D(padding=((1, 1), (1, 1))).reference(x, w, b))


@pytest.mark.parametrize("change", ["in place", "by an optimizer", "another tensor"])
def test_changed_weights_are_packed_anew(change: str) -> None:
    region, tensors = wide_convolution()
    run = lowered(region, inference=True)
    tensors[1].requires_grad_(True)
    with torch.no_grad():
        torch.testing.assert_close(run(tensors)[0].double(), expected(region, tensors), rtol=1e-4, atol=1e-4)
        if change == "in place":
            tensors[1].mul_(-0.5)
        elif change == "another tensor":
            tensors[1] = tensors[1] + 1.0
        else:
            tensors[1].grad = torch.randn_like(tensors[1])
            torch.optim.SGD([tensors[1]], lr=0.3).step()
        torch.testing.assert_close(run(tensors)[0].double(), expected(region, tensors), rtol=1e-4, atol=1e-4)


def test_packing_happens_once_a_weight() -> None:
    packed, calls = PackedWeight(), []

    def prepare(w: torch.Tensor) -> torch.Tensor:
        calls.append(w)
        return w.clone()

    weight = torch.randn(3, 3)
    assert packed.get(weight, 1, prepare) is packed.get(weight, 1, prepare)
    assert len(calls) == 1
    packed.get(weight, 2, prepare)
    assert len(calls) == 2
    weight.add_(1)
    assert torch.equal(packed.get(weight, 1, prepare), weight)
    assert len(calls) == 3


def test_without_onednn_the_plain_operators_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    from convloom.runtime.aten import onednn

    monkeypatch.setattr(onednn, "available", lambda dtype: False)
    region, tensors = wide_convolution()
    result = lowered(region, inference=True)(tensors)[0]
    torch.testing.assert_close(result.double(), expected(region, tensors), rtol=1e-4, atol=1e-4)


def test_dtypes_of_the_ir_are_the_operators_own() -> None:
    assert set(DTYPES) >= {"float64", "float32", "bfloat16", "float16"}
