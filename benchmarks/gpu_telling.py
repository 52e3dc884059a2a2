"""Twelve kernels that tell of all others, as data: each with the layer that it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from convloom.codegen import Kernel, emit
from convloom.codegen.machine.interpreter import interpreting
from convloom.graph.passes.precision import with_dtype
from convloom.graph.settings import settings
from convloom.planning.forms import candidates, choose
from convloom.planning.modes import Mode
from convloom.planning.program import Program, plan
from convloom.planning.regions import Region
from gpu_timing import Session

import convloom as cl
from convloom import layers as L


@dataclass(frozen=True)
class Telling:
    """A layer and what follows it. size: height and width of what it reads; taken, channels: in and out.

    kind: "conv", "depthwise", "transposed" or "dense". part: its "forward" pass, or the gradient of its
    "weights" or its "image".
    """

    name: str
    size: int
    taken: int
    channels: int
    taps: int = 3
    stride: int = 1
    kind: str = "conv"
    relu: bool = True
    residual: bool = False
    pool: bool = False
    part: str = "forward"

    @property
    def tiny(self) -> Telling:
        """As much of it as an interpreter manages."""
        taken, channels = min(self.taken, 8), min(self.channels, 8)
        return replace(self, size=min(self.size, 6), taken=taken, channels=channels)

    def model(self) -> cl.Model:
        if self.kind == "dense":
            flat = cl.Input((self.taken,), name="image")
            return cl.Model(flat, L.Dense(self.channels)(flat))
        image = cl.Input((self.size, self.size, self.taken), name="image")
        h, inputs = self._layer()(image), [image]
        if self.residual:
            inputs.append(cl.Input(h.shape[1:], name="residual"))
            h = L.Add()([h, inputs[-1]])
        h = L.ReLU()(h) if self.relu else h
        return cl.Model(inputs, L.MaxPooling2D(2)(h) if self.pool else h)

    def _layer(self) -> Any:
        rest: dict[str, Any] = {"strides": self.stride, "padding": "same"}
        if self.kind == "depthwise":
            return L.DepthwiseConv2D(self.taps, strides=self.stride, padding="same")
        make = L.Conv2DTranspose if self.kind == "transposed" else L.Conv2D
        return make(self.channels, self.taps, **rest)

    def region(self, target: str) -> Region:
        """The region of its kernel in bfloat16."""
        program = program_of(self.model(), target, self.part != "forward")
        wanted = {"forward": "", "weights": "weight_grad", "image": "data_grad"}[self.part]
        found = [region for region in program.partition.kernels if wanted in region.anchor.op.op_name()]
        return max(found, key=lambda region: region.cost(1).flops)


TWELVE: tuple[Telling, ...] = (
    Telling("3x3 64 at 56", 56, 64, 64),
    Telling("3x3 256 at 14", 14, 256, 256),
    Telling("3x3 128 stride 2 at 56", 56, 128, 128, stride=2),
    Telling("1x1 64 to 256 residual at 56", 56, 64, 256, taps=1, residual=True),
    Telling("1x1 1024 to 256 at 14", 14, 1024, 256, taps=1),
    Telling("7x7 stem at 224", 224, 3, 64, taps=7, stride=2),
    Telling("3x3 64 pooled at 112", 112, 64, 64, pool=True),
    Telling("depthwise 144 at 56", 56, 144, 144, kind="depthwise"),
    Telling("transposed 2x2 128 to 64 at 64", 64, 128, 64, taps=2, stride=2, kind="transposed", relu=False),
    Telling("weights of 3x3 256 at 14", 14, 256, 256, relu=False, part="weights"),
    Telling("image of 3x3 128 stride 2 at 56", 56, 128, 128, stride=2, relu=False, part="image"),
    Telling("dense 2048 to 1000", 1, 2048, 1000, kind="dense"),
)


def telling(session: Session) -> Sequence[Telling]:
    return [one.tiny for one in TWELVE] if session.tiny else TWELVE


def program_of(model: cl.Model, target: str, backward: bool) -> Program:
    """A program in bfloat16; with a backward pass, down to the first input."""
    graph = with_dtype(model.to_graph(), "bfloat16")
    mode = Mode(training=backward, backward=backward, wrt_inputs=frozenset({"image"} if backward else ()))
    return plan(graph, mode, target=target)


def kernels_of(region: Region, target: str, batch: int, count: int) -> list[Kernel]:
    """The region's kernel, in the form that is chosen for such a batch, with each of the best schedules."""
    form = choose(region, target, batch=batch)[0].name
    schedules = candidates(region, target, batch=batch)[:count]
    return [emit(region, form=form, schedule=schedule, target=target) for schedule in schedules]


def operands(kernel: Kernel, batch: int, device: torch.device) -> list[torch.Tensor]:
    """Random values for what a kernel reads, made on the device, and room for what it writes."""
    made = []
    for node in (*kernel.inputs, *kernel.outputs):
        size, dtype = node.type.size(batch), node.type.torch_dtype
        if dtype.is_floating_point:
            made.append((torch.randn(size, device=device) / max(1, prod(size[:-1])) ** 0.25).to(dtype))
        else:
            made.append(torch.randint(0, 4, size, device=device).to(dtype))
    return made


def launched(kernel: Kernel, tensors: Sequence[torch.Tensor], session: Session) -> None:
    launch = kernel.load(interpreted=not session.on_card).launch
    if session.on_card:
        launch(*tensors)
    else:
        with interpreting():
            launch(*tensors)


def compile_ahead(kernels: Sequence[Kernel], batch: int, session: Session) -> int:
    """Compile all in processes side by side; how many were not in Triton's cache."""
    if not session.on_card:
        return 0
    from convloom.codegen.machine import ahead

    wants: dict[Any, Any] = {}
    for kernel in kernels:
        nodes = (*kernel.inputs, *kernel.outputs)
        made = [torch.empty(n.type.size(batch), dtype=n.type.torch_dtype, device="meta") for n in nodes]
        wants |= ahead.launch_wants(kernel.load(interpreted=False), kernel.functions, made)
    return ahead.prepare(wants, settings.jobs).compiled
