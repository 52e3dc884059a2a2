"""Schedules are chosen for a class of batches: a call takes the kernels of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from convloom.codegen import Kernel, kernels
from convloom.graph.passes.precision import with_dtype
from convloom.planning.batches import CLASSES, class_of
from convloom.planning.program import plan
from convloom.planning.targets import DEVICES, known_as

import convloom as cl
from convloom import layers as L


def small_maps() -> cl.Model:
    """A 3x3 convolution of many channels on a map of 5 x 3, and one that follows."""
    image = cl.Input((5, 3, 512), name="image")
    h = L.Conv2D(96, 3, padding="same", activation="relu", name="deep")(image)
    h = L.Add()([h, L.Conv2D(96, 1, name="short")(image)])
    return cl.Model(image, L.Dense(7)(L.Flatten()(L.MaxPooling2D()(h))), name="small_maps")


@pytest.mark.parametrize(
    ("batch", "usual"),
    [(0, 1), (1, 1), (2, 1), (3, 8), (8, 8), (16, 8), (17, 32), (32, 32), (90, 32), (91, 256), (5000, 256)],
)
def test_the_class_of_a_batch_is_the_nearest_as_a_ratio(batch: int, usual: int) -> None:
    assert class_of(batch) == usual


def test_a_step_has_a_choice_for_each_class_and_the_hint_says_which_is_shown() -> None:
    graph = with_dtype(small_maps().to_graph(), "bfloat16")
    program = plan(graph, target="H200", batch=1)
    step = next(step for step in program.steps if "deep" in step.region.layers)
    assert (step.form, step.schedule, step.reason) == step.at(2)
    one, many = step.at(1).schedule, step.at(256).schedule
    assert one is not None
    assert many is not None
    assert one.splits > many.splits
    assert one.block_m < many.block_m
    assert step.at(256) is step.at(1000)
    assert str(one) in str(program)


def test_kernels_that_two_classes_share_are_one() -> None:
    program = plan(small_maps().to_graph(), target="H200")
    lists = [kernels(program, batch) for batch in CLASSES]
    assert kernels(program) is lists[CLASSES.index(32)]
    for place, step in enumerate(step for step in program.steps if step.region.launches):
        for a, one in zip(CLASSES, lists, strict=True):
            for b, other in zip(CLASSES, lists, strict=True):
                assert isinstance(one[place], Kernel)
                assert (one[place] is other[place]) == (step.at(a) == step.at(b))


def test_a_network_takes_the_kernels_of_each_call_and_loads_no_others() -> None:
    torch.manual_seed(0)
    model = small_maps()
    net = cl.compile(model, device="cpu", backend="triton").eval()
    exact = cl.compile(model, device="cpu", backend="aten", dtype="float64").eval()
    sources = []
    for batch in (1, 2, 20):
        x = torch.randn(batch, 5, 3, 512, generator=torch.Generator().manual_seed(batch))
        found, wanted = net(x).detach(), exact(x.double()).detach()
        assert float((found - wanted).abs().max()) <= 1e-5 * float(wanted.abs().max())
        sources.append([k.source for k in kernels(net.program, batch) if isinstance(k, Kernel)])
    assert sources[0] == sources[1] != sources[2]
    loaded = {
        usual: [k for k in kernels(net.program, usual) if isinstance(k, Kernel) and k._modules]
        for usual in CLASSES
    }
    assert loaded[1]
    assert loaded[32]
    assert not [kernel for kernel in loaded[256] if kernel not in loaded[32] + loaded[1]]


def emitted(folder: str, batch: int) -> list[Path]:
    return cl.emit(small_maps(), folder, target="H200", dtype="bfloat16", batch_size=batch)


def test_emitted_files_are_for_the_batch_that_is_asked_for(tmp_path: object) -> None:
    texts = ["\n".join(file.read_text() for file in emitted(f"{tmp_path}/{n}", n)) for n in (1, 256)]
    program = plan(with_dtype(small_maps().to_graph(), "bfloat16"), target="H200")
    steps = [step for step in program.steps if step.region.launches]
    for n, text in zip((1, 256), texts, strict=True):
        assert all(str(step.at(n).schedule) in text for step in steps)
    assert texts[0] != texts[1]


def test_cards_are_told_apart() -> None:
    assert [known_as(name.lower()) for name in DEVICES] == list(DEVICES)
    assert known_as("SM_90") == "sm_90"
    graph = with_dtype(small_maps().to_graph(), "bfloat16")
    schedules = {card: [str(s.at(256).schedule) for s in plan(graph, target=card).steps] for card in DEVICES}
    assert schedules["A100"] != schedules["H200"] != schedules["MI300X"]


def test_a_call_asks_for_no_other_class() -> None:
    net = cl.compile(small_maps(), backend="triton", device="cpu")
    with torch.no_grad():
        net(torch.zeros(1, 5, 3, 512))
    assert {usual for step in net.program.steps for usual in step._choices} == {1}
