"""A network is planned once, and everything that shows, times, emits or runs it reads that one program."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from convloom.codegen import Kernel, kernels
from convloom.graph.op import Kind
from convloom.planning.listing import FORMAT
from convloom.planning.modes import Mode
from convloom.planning.program import Program, Step, plan
from convloom.runtime.backends import Backend
from convloom.runtime.executor import Executor

import convloom as cl
from convloom import layers as L


def small() -> cl.Model:
    """Convolutions with batch norm, a residual, a value that backward needs, a view and a product."""
    image = cl.Input((8, 6, 3), name="image")
    h = L.Conv2D(5, 3, padding="same", use_bias=False, name="first")(image)
    h = L.ReLU()(L.BatchNormalization(name="norm")(h))
    h = L.Add()([h, L.Conv2D(5, 3, padding="same", activation="tanh", name="second")(h)])
    h = L.Dense(4, activation="softmax", name="out")(L.Flatten()(L.MaxPooling2D(2)(h)))
    return cl.Model(image, h, name="small")


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a graph was rewritten, cut into regions, and a kernel written."""
    count: Counter[str] = Counter()

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            count[name] += 1
            return function(*arguments, **options)

        return run

    from convloom.codegen.dispatch import write
    from convloom.planning import program

    for name in ("prepare", "fuse", "leave_unfused"):
        monkeypatch.setattr(program, name, counted(name, getattr(program, name)))
    monkeypatch.setattr("convloom.codegen.programs.write", counted("write", write))
    return count


# -- planned once ----------
def test_a_network_is_planned_once(planned: Counter[str], tmp_path: Path) -> None:
    net = cl.compile(small(), device="cpu")
    program = net.program
    x = torch.randn(2, 8, 6, 3)
    net(x), net(x[:1])
    assert net.explain() == program.explain()
    assert net.graph is program.graph
    assert [kernel.region for kernel in net.kernels] == program.regions
    cl.emit(net, tmp_path)
    assert net.executor.program is net.program is program
    assert planned == {"prepare": 1, "fuse": 1, "write": len(program.regions)}


def test_emitting_a_model_plans_it_once(planned: Counter[str], tmp_path: Path) -> None:
    files = cl.emit(small(), tmp_path, training=True)
    written = sum(path.suffix == ".py" for path in files)
    assert planned == {"prepare": 1, "fuse": 1, "write": written}


def test_a_profile_reads_the_network_s_own_program(planned: Counter[str]) -> None:
    net = cl.compile(small(), device="cpu")
    program = net.program
    assert planned == {"prepare": 1, "fuse": 1}
    report = cl.profile(net, batch_size=1, repeats=1, target=program.target)
    assert [row.name for row in report.fused.rows] == [region.name for region in program.regions]
    # Only the unfused one is new, and the training step, whose memory is told too.
    assert planned == {"prepare": 3, "fuse": 2, "leave_unfused": 1, "write": len(program.regions)}


def test_a_training_step_is_planned_once(planned: Counter[str], tmp_path: Path) -> None:
    net = cl.compile(small(), device="cpu").train()
    for _ in range(2):
        net(torch.randn(2, 8, 6, 3)).sum().backward()
    cl.emit(net, tmp_path, training=True)
    assert [kernel.region for kernel in net.kernels] == net.program.regions
    assert planned == {"prepare": 1, "fuse": 1, "write": len(net.program.regions)}


def test_each_target_has_its_program(planned: Counter[str], tmp_path: Path) -> None:
    net = cl.compile(small(), device="cpu")
    for target in ("sm_80", "sm_90", "sm_80"):
        cl.emit(net, tmp_path, target=target, overwrite=True)
    assert planned["fuse"] == 2
    assert net.planned(target="sm_80") is not net.planned(target="sm_90")


def test_frozen_layers_are_planned_anew(planned: Counter[str]) -> None:
    model = small()
    net = cl.compile(model, device="cpu").train()
    before = net.program
    layer: Any = model.layers[1]
    layer.trainable = False
    assert net.program is not before
    assert planned["fuse"] == 2


# -- what it says ----------
def program_of(training: bool, fuse: bool = True) -> Program:
    mode = Mode(training=training, backward=training, fuse=fuse)
    return plan(small().to_graph(), mode)


@pytest.mark.parametrize("training", [False, True])
def test_every_step_has_a_line(training: bool) -> None:
    program = program_of(training)
    lines = str(program).splitlines()
    assert lines[0].startswith("program small {")
    for step in program.steps:
        (line,) = [line for line in lines if f" {step.region.name}: " in line]
        assert all(f"%{name} @ {program.places[name]}" in line for name in (*step.reads, *step.writes))
        if not step.region.is_view:
            assert f"{step.form} [{step.schedule}]" in line
    assert ("  save " in str(program)) == training


def test_places() -> None:
    program = program_of(training=True)
    place = {name: str(kind) for name, kind in program.places.items()}
    assert place["image"] == "input"
    assert place["first/kernel"] == "parameter"
    assert set(program.outputs.values()) == {name for name, kind in place.items() if kind == "output"}
    assert program.derivatives.seeds
    assert {place[name] for name in program.derivatives.seeds.values()} == {"seed"}
    assert {place[name] for name in program.derivatives.gradients.values()} == {"gradient"}
    assert {place[name] for name in program.saved} <= {"saved", "input", "output"}
    assert "known" in {str(kind) for kind in program_of(training=False).places.values()}


@pytest.mark.parametrize("training", [False, True])
def test_json(training: bool) -> None:
    program = program_of(training)
    data = json.loads(program.to_json())
    assert data["format"] == FORMAT
    assert data["mode"]["training"] == training
    assert data == json.loads(program_of(training).to_json())  # the same each time
    assert [step["region"] for step in data["steps"]] == [step.region.name for step in program.steps]
    for found, step in zip(data["steps"], program.steps, strict=True):
        assert (found["reads"], found["writes"]) == (list(step.reads), list(step.writes))
        assert (found["form"] is None) == step.region.is_view
        assert {*found["reads"], *found["writes"]} <= data["values"].keys()


def test_kernels_belong_to_the_program() -> None:
    program = program_of(training=True)
    first = kernels(program)
    assert kernels(program) is first
    for region, kernel, step in zip(
        program.regions, first, (s for s in program.steps if not s.region.is_view), strict=True
    ):
        assert isinstance(kernel, Kernel)
        assert kernel.region is region is step.region
        assert kernel.schedule == step.schedule


def test_what_has_no_kernel_says_why() -> None:
    graph = cl.compile(small(), dtype="float64").source
    step = plan(graph).steps[0]
    assert step.form is None
    assert "float64" in step.reason
    assert step.reason in str(plan(graph))


# -- what runs ----------
@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("backend", ["aten", "triton"])
def test_one_list_and_no_use_after_free(backend: str, training: bool, fuse: bool) -> None:
    """Each instruction reads what is there, each slot is written once, and only what is kept is left.

    On triton the places of all values are there from the start, and a kernel writes into them.
    """
    program = program_of(training, fuse)
    executor = Executor(program, Backend(backend, torch.device("cpu")))
    names = {slot: name for name, slot in executor.slots.items()}
    known = {slot for slot, name in names.items() if name in program.known}
    kept = {executor.slots[name] for name in (*program.outputs.values(), *program.saved)}
    kept |= {executor.slots[write.value] for write in program.writes}
    for code, given, left in (
        (executor.forward_code, [node.name for node in program.inputs], kept),
        (
            executor.backward_code,
            [*program.saved, *program.derivatives.seeds.values()],
            {executor.slots[name] for name in program.derivatives.gradients.values()},
        ),
    ):
        there = known | {executor.slots[name] for name in given}
        written: list[int] = []
        for coded in code:
            reads = coded.operands(list(range(len(names))))
            assert set(reads) <= there, [names[slot] for slot in set(reads) - there]
            assert backend == "triton" or not there.intersection(coded.writes)
            written += coded.writes
            there |= set(coded.writes)
            assert there.issuperset(coded.dead)
            there -= set(coded.dead)
        assert backend == "triton" or len(written) == len(set(written))
        unused = {executor.slots[name] for name in given} - {s for c in code for s in c.dead}
        assert there - known - unused == left - known - unused if code else True


def test_a_kernel_a_step_on_triton() -> None:
    program = program_of(training=True)
    executor = Executor(program, Backend("triton", torch.device("cpu")))
    # One more in front lays out the memory that they write to.
    assert len(executor.forward_code) == 1 + len(program.forward)
    assert len(executor.backward_code) == 1 + len(program.backward)


def test_equal_regions_share_a_loaded_kernel() -> None:
    image = cl.Input((6, 5, 4))
    h = image
    for _ in range(3):
        h = L.Conv2D(4, 3, padding="same", activation="relu")(h)
    model = cl.Model(image, h)
    x = torch.randn(2, 6, 5, 4)
    net = cl.compile(model, device="cpu", backend="triton")
    torch.testing.assert_close(net(x), cl.compile(model, device="cpu")(x), rtol=1e-4, atol=1e-5)
    assert len(net.program.regions) == 3
    assert len({id(kernel.load(interpreted=True)) for kernel in net.kernels}) == 1


def test_steps_can_be_watched() -> None:
    net = cl.compile(small(), device="cpu")
    executor = net.executor
    seen: list[Step] = []
    with torch.no_grad(), executor.watched(seen.append, seen.append):
        executor.forward([torch.randn(1, 8, 6, 3)], net.weights())
    assert seen == [step for step in net.program.forward for _ in range(2)]
    assert len(executor.forward_code) >= len(net.program.forward)
    assert any(step.region.anchor.op.kind is Kind.VIEW for step in seen)


# -- weights are looked at once a call ----------
def test_weights_are_the_same_dictionary_until_one_is_written() -> None:
    net, other = (cl.compile(small(), device="cpu") for _ in range(2))
    weights = net.weights()
    assert net.weights() is weights
    net(torch.randn(1, 8, 6, 3))
    assert net.weights() is weights
    parameter = weights["out/bias"]
    alias = parameter.data
    assert net.weights() is not weights  # who knows what is written through it
    assert net.weights() is not net.weights()
    assert other.weights() is not other.weights()  # which is slower, and no less right
    del alias
    weights = net.weights()
    assert net.weights() is weights
    with torch.no_grad():
        parameter.add_(1.0)
    assert net.weights() is not weights


@pytest.mark.parametrize(
    "write", ["in place", "through data", "another memory", "by set_", "by a fused optimizer"]
)
def test_a_write_between_two_calls_is_seen(write: str) -> None:
    net = cl.compile(small(), device="cpu")
    x = torch.randn(3, 8, 6, 3)
    kernel = net.weights()["first/kernel"]
    alias = kernel.data
    with torch.no_grad():
        before = net(x)
        new = torch.randn_like(kernel)
        if write == "in place":
            kernel.copy_(new)
        elif write == "through data":
            alias.copy_(new)
        elif write == "another memory":
            kernel.data = new
        elif write == "by set_":
            kernel.set_(new)  # type: ignore[call-overload]
        else:
            kernel.grad = new
            torch.optim.SGD([kernel], lr=1.0, fused=True).step()
        exact = cl.compile(small(), device="cpu")
        exact.load_state_dict(net.state_dict())
        torch.testing.assert_close(net(x), exact(x))
        assert not torch.allclose(net(x), before)
