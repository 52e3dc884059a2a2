"""`profile`: the same network fused and unfused, measured in turn, with what each kernel costs."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ..codegen import Kernel, kernels
from ..codegen.machine.aot import compile_many
from ..codegen.machine.installed import triton_version
from ..codegen.machine.resources import Resources
from ..graph.errors import CompileError, ConvLoomError
from ..graph.ir import Graph, Node
from ..graph.ops import Input, Slice
from ..planning.program import Program, Step
from ..planning.regions import Region
from ..planning.targets import Device, card_of, known_as, target_and_device
from .arena import Arena, StepMemory
from .checks import whole
from .compile import as_network
from .findings import Row, Setup, Side
from .gpu import current
from .network import CompiledNetwork
from .options import ModelLike
from .report import Report

DEFAULT_GPU = "H200"
MEASURING_SECONDS = 1.5
"""What the measuring takes where the caller does not say how often."""
MOST_REPEATS = 50
WARMUP = 2


def profile(
    model: ModelLike | CompiledNetwork,
    *,
    batch_size: int = 32,
    device: str = "auto",
    backend: str = "auto",
    dtype: str | None = None,
    target: str | None = None,
    repeats: int | None = None,
    resources: bool = False,
    jobs: int | None = None,
    input_shape: Any = None,
) -> Report:
    """Measure a model, or a compiled network, in inference, fused and unfused; say what each kernel does.

    device, backend, dtype: as for `compile`; a compiled network keeps its own. On the CPU the measured times
        are always those of PyTorch's operators: Triton's interpreter checks values, its time means nothing.
    target: a GPU such as "H200", whose schedules and roofline are told, or an architecture such as "sm_90";
        by default the GPU at hand, and H200 without one.
    repeats: how often each kernel is timed; by default as often as a second or two allows.
    resources: also compile every fused kernel for the target and read its registers and shared memory, `jobs`
        at a time: seconds a kernel.
    input_shape: of one sample, where the model leaves axes open, as for `compile`.
    Raises ConvLoomError for options that do not exist.
    """
    batch_size = whole(batch_size, "batch_size", 1)
    repeats = None if repeats is None else whole(repeats, "repeats", 1)
    jobs = None if jobs is None else whole(jobs, "jobs", 1)
    net = as_network(model, device=device, backend=backend, dtype=dtype, input_shape=input_shape)
    wanted, gpu = find_gpu(target, net.options.device)
    net.check_closed()
    options = net.options
    if options.device.type == "cpu":  # which runs what is planned for any architecture
        options = replace(options, backend="aten", planned_for=wanted)
    nets = [net.twin(replace(options, fuse=fused)) for fused in (True, False)]
    dtype = options.dtype
    watches = [Stopwatch(net, batch_size) for net in nets]
    done = _measure(watches, repeats)
    found = _kernels(nets[0].planned(target=wanted), batch_size)
    owner = owners(nets[0].program, nets[1].program)
    roofline = _Roofline(gpu, dtype)
    sides = [
        Side(
            tuple(
                _row(region, watch.median(region), batch_size, roofline, emitted, replaced)
                for region in _timed(net)
            ),
            statistics.median(watch.calls),
        )
        for net, watch, emitted, replaced in zip(nets, watches, (found, {}), ({}, owner), strict=True)
    ]
    program = nets[0].program
    arena = Arena.of(program.memory, [step.region.name for step in program.forward], batch_size)
    setup = _setup(nets[0], batch_size, done, wanted, gpu)
    static = _resources(found, wanted, jobs or os.cpu_count() or 1) if resources else {}
    return Report(setup, sides[0], sides[1], arena, _step(nets[0], wanted, batch_size), static)


def find_gpu(target: str | None, device: torch.device | None = None) -> tuple[str, Device | None]:
    """What kernels are planned for, and the card whose rates are told: of a card's name or an architecture's,
    or for None of the GPU at hand.

    device: of the network; without one, or on the CPU, the GPU at hand is the current one. The card is None
    where no rates of that architecture are known.
    """
    if target is None and torch.cuda.is_available():
        here = device if device is not None and device.type == "cuda" else torch.device("cuda")
        target = card_of(here)
    wanted = known_as(target or DEFAULT_GPU)
    return wanted, target_and_device(wanted, DEFAULT_GPU)[1]


# -- measuring ---------------------------------------------------------------------------------------------
@dataclass
class Stopwatch:
    """Times every step of a network's program, in the order and the memory state of a real run.

    times: region name -> seconds of each run. calls: seconds of whole calls.
    """

    net: CompiledNetwork
    batch_size: int
    times: dict[str, list[float]] = field(default_factory=dict)
    calls: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.executor = self.net.executor
        self.device = self.net.options.device
        self.inputs = example_inputs(self.net.source, self.batch_size, self.device)
        self.weights = self.net.weights()
        self.spin = 0.0

    def run(self) -> None:
        """Time one whole call, and then each of its steps."""
        with torch.no_grad(), current(self.device):
            start = time.perf_counter()
            self.net(*self.inputs)
            submitted = time.perf_counter() - start
            self._wait()
            self.calls.append(time.perf_counter() - start)
            marks: list[tuple[Step, Any]] = []
            mark = self._event if self.device.type == "cuda" else time.perf_counter

            def note(step: Step) -> None:
                marks.append((step, mark()))

            self._hold_back(submitted)
            with self.executor.watched(note, note):
                self.executor.forward(self.inputs, self.weights)
            self._wait()
        for (step, first), (_, last) in zip(marks[::2], marks[1::2], strict=True):
            seconds = first.elapsed_time(last) / 1e3 if self.device.type == "cuda" else last - first
            self.times.setdefault(step.region.name, []).append(seconds)

    def forget(self) -> None:
        self.times.clear()
        self.calls.clear()

    def median(self, region: Region) -> float:
        return statistics.median(self.times[region.name])

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _event(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def _hold_back(self, seconds: float) -> None:
        """Keep the GPU busy while Python submits the steps, so that events time kernels and not Python."""
        if self.device.type == "cuda":
            cycles_a_second = 2e9
            torch.cuda._sleep(int(3 * seconds * cycles_a_second))  # type: ignore[no-untyped-call]


def _measure(watches: Sequence[Stopwatch], repeats: int | None) -> int:
    """Run the networks in turn, each going first every other time; returns how often."""
    for _ in range(WARMUP):
        start = time.perf_counter()
        for watch in watches:
            watch.run()
        seconds = time.perf_counter() - start
    for watch in watches:
        watch.forget()
    count = repeats or max(5, min(MOST_REPEATS, int(MEASURING_SECONDS / max(seconds, 1e-6))))
    for turn in range(count):
        for watch in watches if turn % 2 == 0 else reversed(watches):
            watch.run()
    return count


def example_inputs(graph: Graph, batch_size: int, device: torch.device) -> list[torch.Tensor]:
    """Random values for every input of a network, from a fixed seed."""
    generator = torch.Generator().manual_seed(0)
    inputs = []
    for node in graph.sources(Input):
        values = torch.rand(node.type.size(batch_size), generator=generator)
        inputs.append(values.to(device=device, dtype=node.type.torch_dtype))
    return inputs


# -- what the graph says -----------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Roofline:
    gpu: Device | None
    dtype: str

    def seconds(self, flops: int, moved: int) -> float | None:
        if self.gpu is None or self.dtype not in self.gpu.flops:
            return None
        return self.gpu.roofline_seconds(flops, moved, self.dtype)


def _timed(net: CompiledNetwork) -> list[Region]:
    """The regions that take time: on aten also concatenations that kernels make for free."""
    if net.options.backend == "triton":
        return net.program.regions
    return [step.region for step in net.program.forward if not step.region.is_view]


def _row(
    region: Region,
    seconds: float,
    batch: int,
    roofline: _Roofline,
    found: dict[str, Kernel | CompileError],
    owner: dict[str, str],
) -> Row:
    cost = region.cost(batch)
    kernel = found.get(region.name)
    return Row(
        name=region.name,
        layers=tuple(region.layers),
        ops=tuple(node.op.op_name() for node in region.nodes),
        kind=region.anchor.op.kind.value,
        launches=kernel.launches if isinstance(kernel, Kernel) else int(region.launches),
        flops=cost.flops,
        bytes=cost.bytes,
        seconds=seconds,
        roofline_seconds=roofline.seconds(cost.flops, cost.bytes),
        replaced_by=owner.get(region.name, ""),
        note=_note(region, kernel),
    )


def _note(region: Region, kernel: Kernel | CompileError | None) -> str:
    if region.joined and isinstance(region.anchor.op, Slice):
        return "kernels read it where it lies; PyTorch's operators copy it"
    if region.joined:
        return "kernels write its parts where they belong; PyTorch's operators cannot, and copy them"
    return f"no Triton kernel, runs through aten: {kernel}" if isinstance(kernel, CompileError) else ""


def owners(fused: Program, unfused: Program) -> dict[str, str]:
    """Which fused kernel does the work of each unfused one, by name.

    A node keeps its name through most passes, and its layer through nearly all. What a pass took away (a
    folded batch norm, a padding) is credited to the kernel that computes its operand, or else its reader's.
    """
    by_node = {node.name: region.name for region in fused.regions for node in region.nodes}
    by_layer: dict[str, str] = {}
    for region in fused.regions:
        for layer in region.layers:
            by_layer.setdefault(layer, region.name)
    found: dict[str, str] = {}
    nodes = list(unfused.graph.nodes())

    def settle(node: Node, neighbours: Sequence[str]) -> None:
        own = by_node.get(node.name) or by_layer.get(node.layer)
        near = next((found[name] for name in neighbours if name in found), None)
        if node.name not in found and (own or near):
            found[node.name] = own or near or ""

    for node in nodes:
        settle(node, node.inputs)
    for node in reversed(nodes):
        settle(node, [reader.name for reader in unfused.graph.readers(node.name)])
    return {region.name: found.get(region.anchor.name, "") for region in unfused.regions}


def _step(net: CompiledNetwork, target: str, batch: int) -> StepMemory | None:
    """The memory of a training step, where there is one."""
    try:
        return StepMemory.of(net.planned(training=True, target=target), batch)
    except ConvLoomError:
        return None


# -- what the compiler says --------------------------------------------------------------------------------
def _kernels(program: Program, batch: int) -> dict[str, Kernel | CompileError]:
    """The kernel of each region for such a batch, or why there is none, by the region's name."""
    pairs = zip(program.regions, kernels(program, batch), strict=True)
    return {region.name: kernel for region, kernel in pairs}


def _resources(
    found: dict[str, Kernel | CompileError], target: str, jobs: int
) -> dict[str, tuple[Resources, ...]]:
    emitted = [kernel for kernel in found.values() if isinstance(kernel, Kernel)]
    requests = [request for kernel in emitted for request in kernel.requests(target)]
    results = iter(compile_many(requests, jobs))
    return {kernel.name: tuple(next(results) for _ in kernel.specializations) for kernel in emitted}


def _setup(net: CompiledNetwork, batch_size: int, repeats: int, target: str, gpu: Device | None) -> Setup:
    options = net.options
    return Setup(
        model=net.name,
        batch_size=batch_size,
        dtype=options.dtype,
        backend=options.backend,
        machine=machine(options.device),
        repeats=repeats,
        target=target,
        gpu=gpu.name if gpu and options.dtype in gpu.flops else None,
        versions={
            "python": platform.python_version(),
            "torch": torch.__version__,
            "triton": triton_version(),
        },
    )


def machine(device: torch.device) -> str:
    """The device in words: the GPU's name, or the processor's and how many threads PyTorch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        pass
    threads = torch.get_num_threads()
    return f"{name} ({threads} thread{'s' if threads != 1 else ''})"
