"""`profile`: a network fused and unfused, in inference or in training, measured in turn, kernel by kernel."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..codegen import Kernel, kernels
from ..codegen.machine.aot import compile_many
from ..codegen.machine.installed import triton_version
from ..codegen.machine.resources import Resources
from ..graph.errors import CompileError, ConvLoomError
from ..graph.ir import Node
from ..graph.ops import Slice
from ..planning.program import Program
from ..planning.regions import Region
from ..planning.targets import Device, card_of, known_as, target_and_device
from .arena import Arena, StepMemory
from .checks import whole
from .compile import as_network
from .findings import Row, Setup, Side
from .losses import Loss, find_losses
from .network import CompiledNetwork
from .options import ModelLike
from .report import Report
from .steps import LossesStep
from .stopwatch import OPTIMIZER, Stopwatch, TrainingStopwatch, measure

DEFAULT_GPU = "H200"


def profile(
    model: ModelLike | CompiledNetwork,
    *,
    batch_size: int = 32,
    training: bool = False,
    loss: Any = None,
    optimizer: Any = "adam",
    device: str = "auto",
    backend: str = "auto",
    dtype: str | None = None,
    target: str | None = None,
    repeats: int | None = None,
    resources: bool = False,
    jobs: int | None = None,
    input_shape: Any = None,
) -> Report:
    """Measure a model, or a compiled network, fused and unfused; say what each kernel does.

    training: measure a training step, forward, loss, backward and optimizer, rather than inference. It is
        made with copies of the weights: the model's own stay.
    loss, optimizer: of the training step, by name or as an object of `cl.losses` and `cl.optimizers`; of
        several outputs a list of losses, or a dictionary by output.
    device, backend, dtype: as for `compile`; a compiled network keeps its own. On the CPU the measured times
        are always those of PyTorch's operators: Triton's interpreter checks values, its time means nothing.
    target: a GPU such as "H200", whose schedules and roofline are told, or an architecture such as "sm_90";
        by default the GPU at hand, and H200 without one.
    repeats: how often each kernel is timed; by default as often as a second or two allows.
    resources: also compile every fused kernel for the target and read its registers and shared memory, `jobs`
        at a time: seconds a kernel.
    input_shape: of one sample, where the model leaves axes open, as for `compile`.
    Raises ConvLoomError for options that do not exist, and for a training step without a loss.
    """
    batch_size = whole(batch_size, "batch_size", 1)
    repeats = None if repeats is None else whole(repeats, "repeats", 1)
    jobs = None if jobs is None else whole(jobs, "jobs", 1)
    net = as_network(model, device=device, backend=backend, dtype=dtype, input_shape=input_shape)
    how = _how(training, loss, optimizer, list(net.source.outputs))
    wanted, gpu = find_gpu(target, net.options.device)
    net.check_closed()
    options = net.options
    if options.device.type == "cpu":  # which runs what is planned for any architecture
        options = replace(options, backend="aten", planned_for=wanted)
    nets = [net.twin(replace(options, fuse=fused)) for fused in (True, False)]
    dtype = options.dtype
    watches = [how.watch(net, batch_size) for net in nets]
    done = measure(watches, repeats)
    programs = [watch.program for watch in watches]
    planned = programs[0] if wanted == programs[0].target else how.planned(nets[0], wanted)
    found = _kernels(planned, batch_size)
    owner = owners(*programs) | {OPTIMIZER: OPTIMIZER}
    roofline = _Roofline(gpu, dtype)
    sides = [
        Side(
            tuple(_rows(watch, batch_size, roofline, emitted, replaced)),
            statistics.median(watch.calls),
            watch.peak_bytes,
        )
        for watch, emitted, replaced in zip(watches, (found, {}), ({}, owner), strict=True)
    ]
    memory = programs[0].memory
    arena = Arena.of(memory, [step.region.name for step in programs[0].forward], batch_size)
    step, unfused = (_step(net, wanted, batch_size) if net is nets[0] or training else None for net in nets)
    setup = _setup(nets[0], batch_size, done, wanted, gpu, how.told)
    static = _resources(found, wanted, jobs or os.cpu_count() or 1) if resources else {}
    return Report(setup, sides[0], sides[1], None if training else arena, step, unfused, static)


@dataclass(frozen=True)
class _Training:
    """A training step, as it was asked for."""

    losses: Mapping[str, Loss]
    optimizer: Any

    @property
    def told(self) -> str:
        made = self.optimizer if isinstance(self.optimizer, type) else type(self.optimizer)
        name = self.optimizer if isinstance(self.optimizer, str) else made.__name__
        return ", ".join([*(loss.name for loss in self.losses.values()), name])

    def watch(self, net: CompiledNetwork, batch_size: int) -> Stopwatch:
        return TrainingStopwatch(net, batch_size, self._step, self.optimizer)

    def planned(self, net: CompiledNetwork, target: str) -> Program:
        return self._step(net).compiled.planned(target=target)

    def _step(self, net: CompiledNetwork) -> LossesStep:
        return net.with_losses(self.losses)


class _Inference:
    told = ""

    def watch(self, net: CompiledNetwork, batch_size: int) -> Stopwatch:
        return Stopwatch(net, batch_size)

    def planned(self, net: CompiledNetwork, target: str) -> Program:
        return net.planned(target=target)


def _how(training: bool, loss: Any, optimizer: Any, outputs: Sequence[str]) -> _Training | _Inference:
    if not training:
        if loss is not None:
            raise ConvLoomError("a loss belongs to a training step; give training=True with it")
        return _Inference()
    if loss is None:
        raise ConvLoomError("a training step needs a loss, such as loss='categorical_crossentropy'")
    found = {name: loss for name, loss in find_losses(loss, outputs).items() if loss is not None}
    of_ours = {name: loss for name, loss in found.items() if isinstance(loss, Loss)}
    if len(of_ours) < len(found):
        raise ConvLoomError(
            "what is profiled has its loss compiled with it: give a loss's name or an object of cl.losses"
        )
    return _Training(of_ours, optimizer)


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


# -- what the graph says -----------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Roofline:
    gpu: Device | None
    dtype: str

    def seconds(self, flops: int, moved: int) -> float | None:
        if self.gpu is None or self.dtype not in self.gpu.flops:
            return None
        return self.gpu.roofline_seconds(flops, moved, self.dtype)


def _rows(
    watch: Stopwatch,
    batch: int,
    roofline: _Roofline,
    found: Mapping[str, Kernel | CompileError],
    owner: Mapping[str, str],
) -> Iterator[Row]:
    """A row a kernel, in the order they run, and the optimizer's last."""
    of_the_loss = watch.of_the_loss() if isinstance(watch, TrainingStopwatch) else frozenset[str]()
    for region in watch.timed():
        cost, kernel = region.cost(batch), found.get(region.name)
        yield Row(
            name=region.name,
            layers=tuple(region.layers),
            ops=tuple(node.op.op_name() for node in region.nodes),
            kind=region.anchor.op.kind.value,
            launches=kernel.launches if isinstance(kernel, Kernel) else int(region.launches),
            flops=cost.flops,
            bytes=cost.bytes,
            seconds=statistics.median(watch.times[region.name]),
            roofline_seconds=roofline.seconds(cost.flops, cost.bytes),
            replaced_by=owner.get(region.name, ""),
            note=_note(region, kernel),
            phase="loss" if region.name in of_the_loss else region.phase,
        )
    if isinstance(watch, TrainingStopwatch):
        moved = watch.optimizer_bytes
        yield Row(
            name=OPTIMIZER,
            layers=(),
            ops=(type(watch.stepper.optimizer).__name__.strip("_"),),
            kind="pointwise",
            launches=0,
            flops=0,
            bytes=moved,
            seconds=statistics.median(watch.times[OPTIMIZER]),
            roofline_seconds=roofline.seconds(0, moved),
            replaced_by=owner.get(OPTIMIZER, ""),
            note="a step of PyTorch's operators, whose launches are not counted",
            phase=OPTIMIZER,
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
    by_layer: dict[tuple[str, str], str] = {}
    for region in fused.regions:
        for layer in region.layers:
            by_layer.setdefault((region.phase, layer), region.name)
    found: dict[str, str] = {}
    nodes = list(unfused.graph.nodes())

    def settle(node: Node, neighbours: Sequence[str]) -> None:
        own = by_node.get(node.name) or by_layer.get((node.phase, node.layer))
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


def _setup(
    net: CompiledNetwork, batch_size: int, repeats: int, target: str, gpu: Device | None, training: str
) -> Setup:
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
        training=training,
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
