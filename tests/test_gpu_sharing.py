"""What a GPU needs and the CPU does not show, told by fakes: devices, streams, graphs, threads, alignment."""

from __future__ import annotations

import ast
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from convloom.runtime import backends
from convloom.runtime.compile import _device
from convloom.runtime.gpu import Shared, current
from convloom.runtime.profile import find_gpu

import convloom as cl
from convloom import layers as L


class FakeStream:
    """A stream that keeps what it was told."""

    def __init__(self, number: int) -> None:
        self.cuda_stream = number
        self.waited: list[Any] = []

    def record_event(self) -> Any:
        return SimpleNamespace(of=self.cuda_stream)

    def wait_event(self, event: Any) -> None:
        self.waited.append(event.of)


class FakeTensor:
    def __init__(self) -> None:
        self.kept_for: list[int] = []

    def record_stream(self, stream: FakeStream) -> None:
        self.kept_for.append(stream.cuda_stream)


class FakeGpu:
    """Which stream is the current one, and whether it is being captured."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stream, self.capturing = FakeStream(1), False
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: self.stream)
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: self.capturing)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    return FakeGpu(monkeypatch)


def test_another_stream_waits_once_and_the_memory_is_kept_for_it(gpu: FakeGpu) -> None:
    shared, value, first, second = Shared(torch.device("cuda")), FakeTensor(), gpu.stream, FakeStream(2)
    shared.read()  # nothing there yet
    shared.made([value])  # type: ignore[list-item]
    shared.read()
    assert first.waited == []
    assert value.kept_for == []
    gpu.stream = second
    shared.read()
    shared.read()
    assert second.waited == [1]
    assert value.kept_for == [2]
    shared.made([FakeTensor()])  # type: ignore[list-item]
    gpu.stream = first
    shared.read()
    assert first.waited == [2]


def test_a_graph_waits_for_nothing_and_keeps_what_it_reads(gpu: FakeGpu) -> None:
    """An event from outside would break the capture, which begins when the GPU has nothing more to do."""
    shared, value = Shared(torch.device("cuda")), FakeTensor()
    shared.made([value])  # type: ignore[list-item]
    gpu.stream, gpu.capturing = FakeStream(3), True
    shared.read()
    shared.read()
    assert gpu.stream.waited == []
    assert value.kept_for == []
    gpu.capturing = False
    shared.made([FakeTensor()])  # type: ignore[list-item]
    assert [held for group in shared._captured for held in group] == [value]


def test_on_the_cpu_nothing_is_asked_of_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: pytest.fail("asked for a stream"))
    shared = Shared(torch.device("cpu"))
    shared.made([torch.zeros(1)])
    shared.read()
    assert not shared.capturing


def folded() -> cl.CompiledNetwork:
    image = cl.Input((6, 6, 3))
    h = L.BatchNormalization()(L.Conv2D(4, 3, name="conv")(image))
    return cl.compile(cl.Model(image, h, seed=1), device="cpu").eval()


def test_a_fold_inside_a_capture_is_not_kept(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its memory is the graph's, and holds nothing before the graph has run."""
    net = folded()
    prelude = net.executor.prelude
    monkeypatch.setattr(prelude, "_shared", Shared(torch.device("cuda")))
    weights = net.weights()
    gpu.capturing = True
    inside = prelude(weights)
    assert prelude(weights) is not inside
    gpu.capturing = False
    outside = prelude(weights)
    assert prelude(weights) is outside is not inside
    gpu.capturing = True
    assert prelude(weights) is outside


def test_threads_share_a_network_while_its_weights_change() -> None:
    """Whoever folds last, the fold that stays is that of the weights as they are."""
    net, x = folded(), torch.randn(2, 6, 6, 3)
    stop = threading.Event()

    def call() -> int:
        calls = 0
        while not stop.is_set():
            with torch.no_grad():
                net(x)
            calls += 1
        return calls

    with ThreadPoolExecutor(3) as pool:
        running = [pool.submit(call) for _ in range(3)]
        for _ in range(60):
            with torch.no_grad():
                net.get_parameter("conv/kernel").mul_(1.01)
                found = net(x)
        stop.set()
        assert all(future.result() for future in running)
    with torch.no_grad():
        fresh = cl.compile(net._model, device="cpu").eval()  # type: ignore[arg-type]
        torch.testing.assert_close(net(x), fresh(x))
        torch.testing.assert_close(found, net(x))


def test_threads_run_kernels_side_by_side() -> None:
    """Each call takes memory of its own, whatever others are at; kernels are compiled once for all."""
    image = cl.Input((6, 6, 3))
    h = L.MaxPooling2D(2)(L.Conv2D(4, 3, activation="relu")(image))
    model = cl.Model(image, L.Dense(3, activation="softmax")(L.Flatten()(h)), seed=1)
    net = cl.compile(model, device="cpu", backend="triton").eval()
    batches = [torch.randn(1 + i % 3, 6, 6, 3) for i in range(8)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda x: net(x).detach(), batches))
    exact = cl.compile(model, device="cpu").eval()
    for x, y in zip(batches, found, strict=True):
        torch.testing.assert_close(y, exact(x).detach(), rtol=1e-5, atol=1e-6)


# -- the device that is current ------------------------------------------------------------------------------
@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Two GPUs that nothing runs on, of which 0 is the current one; which one is when somebody enters one."""
    entered = [0]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: entered[-1])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: f"NVIDIA {NAMES[device]}")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: CAPABILITIES[NAMES[device]])

    class Entered:
        def __init__(self, device: torch.device | int) -> None:
            self.index = device if isinstance(device, int) else device.index

        def __enter__(self) -> None:
            entered.append(self.index)

        def __exit__(self, *error: object) -> None:
            entered.pop()

    monkeypatch.setattr(torch.cuda, "device", Entered)
    return entered


NAMES: dict[torch.device | None, str] = {torch.device("cuda"): "A100", torch.device("cuda", 1): "H200"}
CAPABILITIES = {"A100": SimpleNamespace(major=8, minor=0), "H200": SimpleNamespace(major=9, minor=0)}


def test_a_network_runs_on_its_own_device_whichever_is_current(two_gpus: list[int]) -> None:
    net = folded()
    executor = net.executor
    seen: list[int] = []
    code = executor.forward_code
    executor.forward_code = [one._replace(run=_noting(one.run, two_gpus, seen)) for one in code]
    executor.device = torch.device("cuda", 1)
    executor.forward([torch.randn(2, 6, 6, 3)], net.weights())
    assert set(seen) == {1}
    assert two_gpus == [0]


def _noting(run: Any, entered: list[int], seen: list[int]) -> Any:
    def noted(*values: Any) -> Any:
        seen.append(entered[-1])
        return run(*values)

    return noted


def test_the_profiler_names_and_enters_the_networks_own_device(two_gpus: list[int]) -> None:
    for device, name in (("cuda:1", "H200"), ("cpu", "A100")):
        planned_for, found = find_gpu(None, torch.device(device))
        assert (planned_for, found and found.name) == (name, name)
    with current(torch.device("cuda", 1)):
        assert two_gpus == [0, 1]
    with current(torch.device("cpu")):
        assert two_gpus == [0]


def test_cuda_means_the_current_device(two_gpus: list[int]) -> None:
    two_gpus.append(1)
    assert _device("cuda") == _device("auto") == torch.device("cuda", 1)
    assert _device("cuda:0") == torch.device("cuda", 0)


@pytest.mark.parametrize("training", [False, True])
def test_an_emitted_file_starts_every_kernel_on_the_device_of_its_operands(training: bool) -> None:
    """Each launch, those that finish a sum too, stands under `device_of` the first operand."""
    image = cl.Input((6, 6, 3))
    h = L.BatchNormalization()(L.Conv2D(4, 3, activation="relu")(image))
    net = cl.compile(cl.Model(image, L.Dense(3, activation="softmax")(L.Flatten()(h))), device="cpu")
    step = net.train(training).with_loss("categorical_crossentropy")
    for kernel in step.compiled.kernels:
        (launch,) = (
            node
            for node in ast.parse(kernel.source).body
            if isinstance(node, ast.FunctionDef) and node.name == "launch"
        )
        under = [node for node in launch.body if isinstance(node, ast.With)]
        assert [ast.unparse(node.items[0].context_expr) for node in under] == [
            f"torch.cuda.device_of({launch.args.args[0].arg})"
        ]
        calls = [node for node in ast.walk(launch) if _is_launch(node)]
        assert len(calls) >= kernel.launches
        assert calls == [node for node in ast.walk(under[0]) if _is_launch(node)]


def _is_launch(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Subscript)


# -- where pointers lie --------------------------------------------------------------------------------------
def test_kernels_are_given_pointers_to_multiples_of_sixteen_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inputs and gradients that are views at odd places, weights likewise, and all that lies in the arena."""
    image = cl.Input((6, 6, 3))
    h = L.MaxPooling2D(2)(L.Conv2D(5, 3, activation="relu", name="conv")(image))
    model = cl.Model(image, L.Dense(3)(L.Flatten()(h)), seed=1)
    given: list[torch.Tensor] = []
    original = backends._launcher

    def launcher(kernel: Any, device: torch.device) -> Any:
        call = original(kernel, device)

        def run(*tensors: torch.Tensor) -> Any:
            given.extend(tensors)
            return call(*tensors)

        return run

    monkeypatch.setattr(backends, "_launcher", launcher)
    nets = [cl.compile(model, device="cpu", backend=backend).train() for backend in ("triton", "aten")]
    for net in nets:
        kernel = net.get_parameter("conv/kernel")
        kernel.data = _odd(kernel.data)
        assert kernel.data_ptr() % 16
    gradients = []
    for net in nets:
        y = net(_odd(torch.randn(2, 6, 6, 3, generator=torch.Generator().manual_seed(1))))
        y.backward(_odd(torch.ones(2, 3)))
        gradients.append([p.grad for p in net.parameters()])
    assert given
    assert all(tensor.data_ptr() % 16 == 0 for tensor in given)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def _odd(value: torch.Tensor) -> torch.Tensor:
    """The same numbers at a place that no multiple of 16 bytes is."""
    room = torch.empty(value.numel() + 1, dtype=value.dtype)[1:]
    return room.view(value.shape).copy_(value)
