"""Kernels are compiled before their first launch, into Triton's cache, where launches look for them."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import threading
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from convloom.codegen import Kernel
from convloom.codegen import kernels as emitted
from convloom.codegen.machine import ahead, loaded, workers
from convloom.codegen.machine.interpreter import compiling
from convloom.graph.settings import settings
from convloom.planning.targets import target
from convloom.runtime import ahead as running
from convloom.runtime.backends import Backend
from convloom.runtime.compile_bar import CompileBar
from triton import knobs
from worker_requests import Dies, Doubles

import convloom as cl
from convloom import layers as L

H200 = target("sm_90").gpu


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of Triton's of its own, for this process and those it starts."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setitem(settings.__dict__, "jobs", 2)
    return tmp_path / "cache"


def small(channels: int = 5) -> cl.Model:
    image = cl.Input((9, 7, 3), name="image")
    h = L.Conv2D(channels, 3, padding="same", activation="relu")(image)
    return cl.Model(image, L.Dense(4, activation="softmax")(L.GlobalAveragePooling2D()(h)), name="small")


def compiled(model: cl.Model | None = None, dtype: str = "bfloat16") -> cl.CompiledNetwork:
    return cl.compile(model or small(), dtype=dtype, device="cpu", backend="triton")


def launch_all(net: cl.CompiledNetwork, batch: int) -> list[tuple[str, bool]]:
    """What Triton's own launcher compiles for a call: each function, and whether the cache held it."""
    found: list[tuple[str, bool]] = []
    program = net.planned(target="sm_90")
    tensors = running._Tensors(program, batch)
    before = knobs.compilation.listener
    knobs.compilation.listener = lambda **said: found.append((said["src"].fn.__name__, said["cache_hit"]))
    try:
        for kernel in emitted(program, batch):
            assert isinstance(kernel, Kernel)
            module = kernel.load(interpreted=False)
            asked = {name: ahead._Asked(getattr(module, name)) for name in kernel.functions}
            launch = types.FunctionType(module.launch.__code__, {**vars(module), **asked})
            with compiling(), ahead.driving(H200):
                launch(*(tensors[node.name] for node in (*kernel.inputs, *kernel.outputs)))
    finally:
        knobs.compilation.listener = before
    return found


SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from test_ahead import ahead, compiled, launch_all, small
net = compiled(small(int(sys.argv[3]))).train(sys.argv[2] == "training")
if sys.argv[2] == "inference":
    def never(*_): raise SystemExit("a process was started")
    ahead.answered = never
    net.prepare(8, target="sm_90")
print(*(f"{name}:{hit}" for name, hit in launch_all(net, 8)))
"""


def in_another_process(mode: str, channels: int) -> list[str]:
    command = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), mode, str(channels)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.split()


def test_triton_s_launcher_finds_what_was_prepared_elsewhere(cache: Path) -> None:
    net = compiled(small(17)).train()
    net.prepare(8, target="sm_90")
    found = in_another_process("training", 17)
    assert len(found) >= 6
    assert all(told.endswith(":True") for told in found), found
    assert launch_all(net, 8) == []  # in memory: Triton does not even look


def test_a_second_process_prepares_without_another(cache: Path) -> None:
    compiled(small(19)).prepare(8, target="sm_90")
    assert in_another_process("inference", 19) == []


def test_other_names_find_it_too(cache: Path) -> None:
    """The key holds the line at which a function begins, which no layer's name moves."""
    compiled(small(7)).prepare(3, target="sm_90")
    image = cl.Input((9, 7, 3), name="other")
    h = L.Conv2D(7, 3, padding="same", activation="relu", name="x" * 150)(image)
    h = L.GlobalAveragePooling2D(name="y" * 90)(h)
    other = compiled(cl.Model(image, L.Dense(4, activation="softmax", name="z" * 200)(h), name="other"))
    files = {path.name for path in cache.rglob("*.cubin")}
    for kernel in other.kernels:  # of another process, as it were
        for key in kernel.functions.values():
            loaded._FUNCTIONS.pop(key, None)
    loaded._MODULES.clear()
    other.prepare(64, target="sm_90")
    assert {path.name for path in cache.rglob("*.cubin")} == files != set()


def test_a_slice_of_a_concatenation_is_compiled_for_where_it_lies(cache: Path) -> None:
    """Three channels into rows of eight: the second producer's address is no multiple of 16."""
    image = cl.Input((6, 5, 4))
    parts = [L.Conv2D(channels, 1, activation="relu")(image) for channels in (3, 5)]
    net = compiled(cl.Model(image, L.Concatenate()(parts)))
    program = net.planned(target="sm_90")
    tensors = running._Tensors(program, 2)
    places = [tensors[region.outputs[0].name] for region in program.regions if not region.joined]
    assert [place.stride(-2) for place in places] == [8, 8]
    assert [place.data_ptr() % 16 for place in places] == [0, 6]


def test_what_does_not_compile_is_told_and_the_rest_goes_on(cache: Path) -> None:
    net = compiled(small(6))
    found = [k for k in emitted(net.planned(target="sm_90"), 1) if isinstance(k, Kernel)]
    found[0].code = found[0].code.replace("acc = tl.zeros", "acc = tl.zebras")
    with pytest.raises(cl.CompileError, match=r"small: kernels that do not compile: conv2d.*zebras"):
        net.prepare(1, target="sm_90")
    assert launch_all_but_first(net) == [True] * (len(found) - 1)


def launch_all_but_first(net: cl.CompiledNetwork) -> list[bool]:
    program = net.planned(target="sm_90")
    tensors = running._Tensors(program, 1)
    held = []
    for kernel in emitted(program, 1)[1:]:
        assert isinstance(kernel, Kernel)
        given = [tensors[node.name] for node in (*kernel.inputs, *kernel.outputs)]
        wants = ahead.launch_wants(kernel.load(interpreted=False), kernel.functions, given, H200)
        held.append(not wants)
    return held


def test_another_thread_s_launches_go_on_meanwhile() -> None:
    """What this thread is asked about is not compiled; what another launches at the same time is."""
    heard: list[Any] = []

    def note(**said: Any) -> bool:
        heard.append(said)
        return True

    with ahead._hooked(note):
        assert knobs.runtime.jit_cache_hook(word=1) is True
        answers: list[Any] = []
        thread = threading.Thread(target=lambda: answers.append(knobs.runtime.jit_cache_hook(word=2)))
        thread.start()
        thread.join()
    assert heard == [{"word": 1}]
    assert answers == [None]
    assert knobs.runtime.jit_cache_hook is None


# -- processes ----------
def test_processes_take_what_is_next_and_outlive_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    done: list[int] = []
    asked: list[Any] = [Doubles(1), Dies(), Doubles(2), Doubles(3), Dies(), Doubles(4)]
    found = workers.answered(asked, 2, lambda: done.append(1))
    assert found == [2, None, 4, 6, None, 8]
    assert len(done) == len(asked)


# -- before the first call ----------
def test_the_first_call_of_each_class_prepares_and_no_other_does(monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[int] = []
    monkeypatch.setattr(Backend, "compiles", True)
    monkeypatch.setattr(Backend, "prepare", lambda self, program, batch: batches.append(batch))
    net = compiled(dtype="float32")
    for size in (2, 1, 2, 3, 2, 5):
        net(torch.randn(size, 9, 7, 3))
    assert batches == [2, 3]
    net.train()(torch.randn(1, 9, 7, 3)).sum().backward()
    assert batches == [2, 3, 1]
    net.eval()(torch.randn(1, 9, 7, 3)).sum().backward()  # which runs a program of its own
    assert batches == [2, 3, 1, 1]


def test_what_is_prepared_is_of_the_batch_s_class_and_the_card(cache: Path) -> None:
    """A call with a batch of one launches nothing that was prepared for 256, nor one on another card."""
    image = cl.Input((7, 7, 512))
    net = compiled(cl.Model(image, L.Conv2D(64, 3, padding="same")(image)))
    program = net.planned(target="H200")
    (one,), (many,) = (emitted(program, batch) for batch in (1, 256))
    assert isinstance(one, Kernel)
    assert isinstance(many, Kernel)
    assert one.code != many.code
    net.prepare(1, target="h200")
    assert one._modules
    assert not many._modules
    (other,) = emitted(net.planned(target="sm_90"), 1)
    assert isinstance(other, Kernel)
    assert not other._modules


def test_a_call_does_not_need_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ValueError("of another Triton")

    monkeypatch.setattr(Backend, "compiles", True)
    monkeypatch.setattr("convloom.runtime.backends.prepare", broken)
    monkeypatch.setattr("torch.cuda.device", contextlib.nullcontext)
    net = compiled(dtype="float32")
    with pytest.warns(UserWarning, match="small: its kernels are compiled one by one.*of another Triton"):
        net(torch.randn(1, 9, 7, 3))


def test_on_the_cpu_there_is_nothing_to_prepare(cache: Path) -> None:
    compiled().prepare(4)
    assert not cache.exists()
    with pytest.raises(cl.CompileError, match="sm_91"):
        compiled().prepare(4, target="sm_91")
    with pytest.raises(cl.ConvLoomError, match="batch_size"):
        compiled().prepare(0)


# -- settings and the bar ----------
@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5"])
def test_the_number_of_processes_is_a_number(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("CONVLOOM_JOBS", text)
    monkeypatch.setattr(settings, "__dict__", {})
    with pytest.raises(cl.ConvLoomError, match=f"CONVLOOM_JOBS is '{text}'; it takes a number of processes"):
        _ = settings.jobs


def test_by_default_a_process_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONVLOOM_JOBS", raising=False)
    monkeypatch.setattr(settings, "__dict__", {})
    assert settings.jobs == min(16, len(os.sched_getaffinity(0)))
    monkeypatch.setattr(settings, "__dict__", {"jobs": 1})
    assert not Backend("triton", torch.device("cuda")).compiles
    assert not Backend("aten", torch.device("cuda")).compiles


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "progress", "shown"),
    [(Terminal, True, True), (Terminal, False, False), (io.StringIO, True, False)],
)
def test_a_bar_in_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch, stream: type[io.StringIO], progress: bool, shown: bool
) -> None:
    screen = stream()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setitem(settings.__dict__, "progress", progress)
    monkeypatch.setenv("TERM", "xterm")
    with CompileBar("[red]my net") as bar:
        bar.told(0, 7)
        bar.told(3, 7)
    text = screen.getvalue()
    assert ("compiling [red]my net" in text and "3/7" in text) is shown
    assert bool(text) is shown
