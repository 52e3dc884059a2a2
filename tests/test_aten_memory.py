"""What a step through PyTorch's operators overwrites: values that own their memory and that nobody needs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from aten_harness import NETWORKS, Sketch, Values, check_region, draw_sources, evaluate_all, training
from convloom.graph import ops
from convloom.graph.errors import ConvLoomError
from convloom.graph.op import Kind, Op
from convloom.graph.passes import INFERENCE, run_pipeline
from convloom.planning.fusion import fuse
from convloom.planning.regions import Region
from convloom.runtime.aten.forms import form_of, inplace_form_of, makes_memory
from convloom.runtime.aten.lowering import _in_place, _operations
from op_cases import CASES, IMAGE, Case, N, Shape

import convloom as cl
from convloom import layers as L

# -- every op: what is said to be new memory is ----------
IDENTITIES = [
    Case(op, (IMAGE,))
    for op in (
        ops.Scale(), ops.Resize((1, 2), (7, 5), "nearest"), ops.ResizeGrad((1, 2), (7, 5), "nearest"),
        ops.MaxPool2D((1, 1), (1, 1)), ops.AveragePool2D((1, 1), (1, 1)),
        ops.AverageUnpool2D((1, 1), (1, 1), input_size=(7, 5)), ops.Cast("float32"),
        ops.BroadcastTo(IMAGE), ops.GeneralRelu(max_value=float("inf")),
    )
] + [Case(ops.AverageUnpool2D((2, 3), (2, 3), input_size=(2, 3)), ((N, 1, 1, 3),))]  # fmt: skip
"""Ops that change nothing, or only repeat one pixel, and so could hand on their operand."""


def of_one_pixel(case: Case) -> Case | None:
    """The op over images of one pixel, if it takes them: what is repeated along such axes may be a view."""

    def shrunk(shape: Shape) -> Shape:
        return (N, *(1 for _ in shape[1:-1]), shape[-1]) if N in shape and len(shape) > 2 else shape

    small = Case(
        case.op, tuple(map(shrunk, case.shapes)), case.scale, case.positive, case.probabilities, case.indices
    )
    spreads = hasattr(case.op, "input_size") or hasattr(case.op, "kernel_size")  # its shapes hang together
    if spreads or small.shapes == case.shapes:
        return None
    try:
        small.graph()
    except ConvLoomError:
        return None
    return small


MEMORY_CASES = [*CASES, *IDENTITIES, *(small for case in CASES if (small := of_one_pixel(case)))]


def operands(case: Case, batch: int) -> list[torch.Tensor]:
    graph = case.graph()
    given = case.values(graph, batch)
    return [given[name].to(graph[name].type.torch_dtype) for name in graph["y"].inputs]


def storage(x: torch.Tensor) -> int:
    return x.untyped_storage().data_ptr()


def distinct(x: torch.Tensor) -> bool:
    """Whether every element has a place of its own."""
    return all(size == 1 or stride != 0 for size, stride in zip(x.shape, x.stride(), strict=True))


@pytest.mark.parametrize("case", MEMORY_CASES, ids=str)
@pytest.mark.parametrize("batch", [1, 3])
def test_new_memory_is_new(case: Case, batch: int) -> None:
    given = operands(case, batch)
    with torch.no_grad():
        result = form_of(case.op)(*given)
    if makes_memory(case.op):
        assert storage(result) not in map(storage, given), "shares memory with an operand"
        assert distinct(result), "holds some elements in one place"


@pytest.mark.parametrize("case", MEMORY_CASES, ids=str)
def test_overwriting_gives_what_the_op_gives(case: Case) -> None:
    """In the first operand's memory or new; the other operands stay as they are."""
    overwrite = inplace_form_of(case.op)
    graph = case.graph()
    if overwrite is None or graph["x0"].type != graph["y"].type:
        return
    given = operands(case, 3)
    kept = [value.clone() for value in given]
    with torch.no_grad():
        wanted = form_of(case.op)(*(value.clone() for value in given))
        found = overwrite(*given)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    assert distinct(found)
    assert storage(found) not in map(storage, given[1:])
    for before, after in zip(kept[1:], given[1:], strict=True):
        assert torch.equal(before, after)


def test_what_is_only_seen_otherwise_is_never_new() -> None:
    assert not any(makes_memory(case.op) for case in CASES if case.op.kind in (Kind.VIEW, Kind.MOVEMENT))
    assert not any(makes_memory(op) for op in (ops.InTraining(), ops.Cast("bfloat16"), ops.BroadcastTo()))
    assert makes_memory(ops.Relu())


# -- whole regions: what is overwritten is needed by nobody ----------
def overwritten(region: Region, exact: Values) -> list[str]:
    """Runs a region step by step; the values it writes over, each of which nobody may need any more."""
    values = {node.name: exact[node.name].to(node.type.torch_dtype).contiguous() for node in region.inputs}
    steps = _in_place(region, _operations(region, inference=True))
    found = []
    for index, step in enumerate(steps):
        if step.overwrites:
            target = values[step.reads[0]]
            later = {name for other in steps[index + 1 :] for name in other.reads}
            later |= {*step.reads[1:], *(node.name for node in (*region.inputs, *region.outputs))}
            sharing = {name for name, value in values.items() if storage(value) == storage(target)}
            assert distinct(target)
            assert not sharing & later, f"{region}: {step.at} writes over {sharing & later}"
            found.append(step.reads[0])
        with torch.no_grad():
            results = step.run(*(values[name] for name in step.reads))
        values |= dict(zip(step.writes, results if len(step.writes) > 1 else [results], strict=True))
    return found


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("train", [False, True])
def test_nothing_that_is_needed_is_overwritten(name: str, train: bool) -> None:
    graph = NETWORKS[name]()
    if train:
        training(graph)
    else:
        run_pipeline(graph, INFERENCE)
    exact = evaluate_all(graph, draw_sources(graph, 2))
    written = [value for region in fuse(graph) for value in overwritten(region, exact)]
    assert written or not train


@pytest.mark.parametrize("passing", [ops.Cast("float32"), ops.InTraining(), ops.BroadcastTo(("N", 5, 4, 3))])
def test_a_value_is_kept_while_a_view_of_it_is_needed(passing: Op) -> None:
    """h is read last before what hands h on is."""
    s = Sketch.empty()
    h = s.then(ops.Tanh(), s.image(5, 4, 3))
    same = s.then(passing, h)
    doubled = s.then(ops.Scale(2.0, 1.0), h)
    graph = s.done(s.then(ops.Multiply(), s.then(ops.Sigmoid(), doubled), same))
    members = [node for node in graph.nodes() if node.inputs]
    region = Region(graph, members[-1], members, "one")
    exact = evaluate_all(graph, draw_sources(graph, 2))
    assert overwritten(region, exact) == [doubled, graph[members[-1].name].inputs[0]]
    check_region(region, exact, inference=True)


# -- networks of people ----------
def upsampled_pixel() -> cl.Model:
    x = cl.Input((1, 1, 3))
    return cl.Model(x, L.ReLU()(L.UpSampling2D(3)(x)))


def repeated_vector() -> cl.Model:
    x = cl.Input((5,))
    return cl.Model(x, L.RepeatVector(3)(x) * 0.5)


def spread_means() -> cl.Model:
    x = cl.Input((4, 6, 3))
    h = L.UpSampling2D((4, 6))(L.GlobalAveragePooling2D(keepdims=True)(x))
    return cl.Model(x, L.BatchNormalization()(h))


def spread_along_one_axis() -> cl.Model:
    x = cl.Input((1, 4, 3))
    return cl.Model(x, L.Activation("tanh")(L.UpSampling2D((5, 1))(x) + 1.0))


@pytest.mark.parametrize("build", [upsampled_pixel, repeated_vector, spread_means, spread_along_one_axis])
@pytest.mark.parametrize("batch", [1, 3])
def test_upsampling_by_copies(build: Callable[[], cl.Model], batch: int) -> None:
    model = build()
    fused, unfused = (cl.compile(model, backend="aten", fuse=fuse) for fuse in (True, False))
    x = torch.randn(batch, *model.inputs[0].shape[1:], generator=torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    for mode in (False, True):
        given = [x.clone().requires_grad_() for _ in range(2)]
        y, wanted = (net.train(mode)(value) for net, value in zip((fused, unfused), given, strict=True))
        torch.testing.assert_close(y, wanted, rtol=1e-5, atol=1e-6)
        (y.square().sum() + y.sum()).backward()
        (wanted.square().sum() + wanted.sum()).backward()
        torch.testing.assert_close(given[0].grad, given[1].grad, rtol=1e-4, atol=1e-5)
        assert torch.equal(given[0].detach(), x)
