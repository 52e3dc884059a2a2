"""Memory that the process keeps for the next call: how much, what gives it back, and where it is not kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from convloom.graph.errors import ConvLoomError
from convloom.graph.settings import settings
from convloom.planning.modes import Mode
from convloom.planning.program import plan
from convloom.runtime import memory

import convloom as cl
from convloom import layers as L

PROCESS = """
import json, resource, sys
import torch
import convloom as cl
from convloom import layers as L
from convloom.runtime import memory

torch.set_num_threads(1)
x = cl.Input((256, 256, 3))
h = L.Conv2D(16, 3, padding="same", activation="relu")(x)
h = L.Conv2D(16, 3, padding="same", activation="relu")(h)
net = cl.compile(cl.Model(x, L.GlobalAveragePooling2D()(h)), backend="aten").eval()
batch = torch.zeros(12, 256, 256, 3)

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    with torch.no_grad():
        net(batch)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize()

with torch.no_grad():
    net(batch[:1])
start = memory._resident()
calls = [faults() for _ in range(8)]
after = memory._resident()
given = cl.release_memory()
released = memory._resident()
again = [faults() for _ in range(8)]
json.dump(dict(start=start, calls=calls, after=after, given=given, released=released, again=again,
               value=batch.shape[0] * 256 * 256 * 16 * 4), sys.stdout)
"""
"""One value takes 50 MB, which is more than glibc keeps by itself, and two are needed at one time."""

glibc = pytest.mark.skipif(bool(memory.why_not()), reason=memory.why_not() or "kept")


def measured(**environment: str) -> Any:
    found = subprocess.run(
        [sys.executable, "-c", PROCESS],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "CONVLOOM_KEEP_MEMORY": "1", **environment},
    )
    return json.loads(found.stdout)


@glibc
def test_kept_until_it_is_released() -> None:
    found = measured()
    value = found["value"]
    assert found["calls"][0] > 1.5 * value  # the first call takes it from the system
    assert sum(found["calls"][-4:]) < 1.1 * value  # a few calls later nearly all have found a place
    assert 1.5 * value < found["after"] - found["start"] < 7 * value
    assert found["given"] > 1.5 * value
    assert found["released"] - found["start"] < 0.2 * value
    assert found["again"][0] > 1.5 * value
    assert sum(found["again"][-4:]) < 1.1 * value  # calls after the release keep it again


@glibc
def test_switched_off() -> None:
    found = measured(CONVLOOM_KEEP_MEMORY="0")
    assert min(found["calls"]) > 1.5 * found["value"]
    assert found["after"] - found["start"] < 0.2 * found["value"]


# -- how much ----------
def chain() -> cl.Model:
    x = cl.Input((8, 8, 4))
    h = L.Conv2D(16, 1)(x)
    h = L.Reshape((4, 16, 16))(L.MaxPooling2D(1)(h))
    return cl.Model(x, L.Conv2D(2, 1)(h))


@pytest.mark.parametrize("batch", [1, 3])
def test_what_a_program_needs(batch: int) -> None:
    """Unfused: two values of 4 KB an image at one time; the reshape is a view, the input the caller's."""
    program = plan(chain().to_graph(), Mode(fuse=False))
    wide = batch * 8 * 8 * 16 * 4
    assert memory.needs(program, batch) == (wide + memory.PIECE, 2 * wide * memory.SPARE)


def test_a_training_step_needs_what_it_saves() -> None:
    x = cl.Input((16, 16, 4))
    h = x
    for _ in range(4):
        h = L.Conv2D(4, 3, padding="same", activation="relu")(h)
    graph = cl.Model(x, h).to_graph()
    image = 16 * 16 * 4 * 4
    _, inference = memory.needs(plan(graph), 2)
    _, step = memory.needs(plan(graph, Mode(training=True, backward=True)), 2)
    assert inference == 2 * 2 * image * memory.SPARE
    assert step >= 5 * 2 * image * memory.SPARE


class Recorder(SimpleNamespace):
    """A C library that writes down what it is told."""

    def __init__(self) -> None:
        super().__init__(told=[], gnu_get_libc_version=None)

    most = 1 << 40
    """Beyond which it refuses to go, as glibc does before 2.35."""

    def mallopt(self, limit: int, value: int) -> int:
        if value <= self.most:
            self.told.append((limit, value))
        return int(value <= self.most)

    def malloc_trim(self, pad: int) -> None:
        self.told.append("trim")


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr(memory, "_library", lambda: recorder)
    monkeypatch.setattr(memory, "_serves", lambda: True)
    monkeypatch.setattr(memory, "_memory", lambda: 16 << 30)
    monkeypatch.setattr(memory, "keeper", memory.Keeper())
    monkeypatch.setitem(settings.__dict__, "keep_memory", True)
    memory.why_not.cache_clear()
    return recorder


@pytest.fixture(autouse=True)
def fresh() -> Any:
    yield
    memory.why_not.cache_clear()


MB = 1 << 20
BOTH = (memory.M_MMAP_THRESHOLD, memory.M_TRIM_THRESHOLD)


def limits(library: Recorder) -> dict[int, int]:
    return dict(entry for entry in library.told if entry != "trim")


def test_limits_rise_with_what_is_needed_and_fall_at_a_release(library: Recorder) -> None:
    keeper = memory.keeper
    keeper.keep(1 * MB, 2 * MB)
    assert library.told == []  # glibc keeps that much by itself
    keeper.keep(100 * MB, 300 * MB)
    assert limits(library) == dict(zip(BOTH, (100 * MB, 300 * MB), strict=True))
    told = len(library.told)
    keeper.keep(90 * MB, 200 * MB)
    assert len(library.told) == told
    keeper.keep(90 * MB, 400 * MB)
    assert limits(library) == dict(zip(BOTH, (100 * MB, 400 * MB), strict=True))
    memory.release_memory()
    assert limits(library) == dict(zip(BOTH, (memory.MMAP_AT, memory.TRIM_AT), strict=True))
    assert library.told[-1] == "trim"
    keeper.keep(10 * MB, 20 * MB)
    assert limits(library) == dict(zip(BOTH, (memory.MMAP_AT, memory.TRIM_AT), strict=True))


def test_an_older_library_goes_as_far_as_it_does(library: Recorder) -> None:
    library.most = 32 * MB
    memory.keeper.keep(100 * MB, 20 * MB)
    assert (memory.M_MMAP_THRESHOLD, 32 * MB) in library.told


def test_never_more_than_a_quarter_of_the_machine(library: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_memory", lambda: 1 << 30)
    memory.keeper.keep(900 * MB, 5000 * MB)
    assert limits(library) == dict.fromkeys(BOTH, 256 * MB)
    told = len(library.told)
    memory.keeper.keep(900 * MB, 5000 * MB)
    assert len(library.told) == told


# -- where it is not kept ----------
def network_still_runs() -> None:
    net = cl.compile(chain(), backend="aten").eval()
    assert net(torch.ones(2, 8, 8, 4)).shape == (2, 4, 16, 2)


def test_another_c_library(library: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_library", lambda: object())
    memory.why_not.cache_clear()
    memory.keeper.keep(100 * MB, 300 * MB)
    assert memory.keeper.trim_at == 0
    assert cl.release_memory() == 0
    assert memory.status() == "no: this C library has no mallopt"
    network_still_runs()


def test_another_allocator(library: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_serves", lambda: False)
    memory.why_not.cache_clear()
    memory.keeper.keep(100 * MB, 300 * MB)
    assert cl.release_memory() == 0
    assert library.told == []
    assert memory.status() == "no: malloc is not the C library's own"


def test_the_switch(library: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "keep_memory", False)
    memory.keeper.keep(100 * MB, 300 * MB)
    assert library.told == []
    assert memory.status() == "no: CONVLOOM_KEEP_MEMORY=0"


def test_words_of_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVLOOM_KEEP_MEMORY", "off")
    settings.reset()
    with pytest.raises(ConvLoomError, match="CONVLOOM_KEEP_MEMORY is 'off'; it takes 1"):
        _ = settings.keep_memory
    settings.reset()
