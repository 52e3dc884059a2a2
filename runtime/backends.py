"""Backends: how a program's steps become instructions. `triton` runs emitted kernels, one a step; `aten`
PyTorch's own operators, one or more.

A region whose kernel cannot be emitted or compiled falls back to aten, with one visible warning naming it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..codegen import Kernel, kernels
from ..graph.errors import CompileError
from ..graph.op import Kind
from ..graph.settings import settings
from ..graph.values import laid_out
from ..planning.batches import class_of
from ..planning.program import Program, Step
from ..planning.regions import Region
from . import aten
from .ahead import prepare
from .instructions import Instruction
from .room import aligned, room

BACKENDS = ("triton", "aten")

Call = Callable[..., Any]
"""The tensors of a region's inputs, and where they have a place those of its outputs -> the one of its
outputs, or a tuple of them."""


class FallbackWarning(UserWarning):
    """A region runs through PyTorch's operators because its Triton kernel is not available."""


@dataclass
class Backend:
    """Lowers programs for one device."""

    name: str
    device: torch.device

    @property
    def takes_fresh_memory(self) -> bool:
        """Whether each result lies in memory of its own that the C library gives."""
        return self.name == "aten" and self.device.type == "cpu"

    @property
    def compiles(self) -> bool:
        """Whether `prepare` has anything to do."""
        return self.name == "triton" and self.device.type == "cuda" and settings.jobs > 1

    def prepare(self, program: Program, batch: int) -> None:
        """Compile the program's kernels, side by side, before a call with such a batch."""
        try:
            with torch.cuda.device(self.device):
                prepare(program, batch)
        except Exception as error:  # of the compiler's machinery: a call needs none of it
            warnings.warn(
                f"{program.graph.name}: its kernels are compiled one by one, at their first launches, for "
                f"compiling them ahead failed: {type(error).__name__}: {error}",
                stacklevel=2,
            )

    @property
    def lay(self) -> Callable[[torch.Tensor], torch.Tensor]:
        """How weights lie: as they are kept for operators on the CPU, elsewhere row-major."""
        return laid_out if self.takes_fresh_memory else self.receive

    @property
    def receive(self) -> Callable[[torch.Tensor], torch.Tensor]:
        """What the caller gives, as it is handed on: kernels want every pointer at a multiple of 16 bytes."""
        return aligned if self.name == "triton" else torch.Tensor.contiguous

    def lower(self, program: Program) -> list[tuple[Step, Sequence[Instruction]]]:
        """Each step in order, with its instructions."""
        if self.name == "aten":
            return aten.lower_steps(program.steps, program.mode.inference, self.lay)
        places = {region.name: place for place, region in enumerate(program.regions)}
        return [(step, self._kernel(program, step, places.get(step.region.name))) for step in program.steps]

    def memory(self, program: Program) -> tuple[Instruction | None, Instruction | None]:
        """What lays out the memory that kernels write to, before the forward and the backward pass. Nothing
        on aten, whose operators take memory themselves."""
        if self.name == "aten":
            return None, None
        return (
            room(program.graph, program.memory, program.partition.phase("forward"), self.device),
            room(program.graph, program.backward_memory, program.partition.phase("backward"), self.device),
        )

    def _kernel(self, program: Program, step: Step, place: int | None) -> Sequence[Instruction]:
        """The region through its kernels. place: among those of the program; None for a view."""
        region, inference = step.region, program.mode.inference
        if region.joined:
            return []
        if place is None:
            return aten.lower(region, inference, self.lay)
        if step.form is None:
            if region.anchor.op.kind is not Kind.COLLECTIVE:  # which is no kernel's business
                _warn(region, step.reason)
            return [_into_place(region, aten.runner(region, inference))]
        run = ByBatch(self.device, program, region, place)
        reads, writes = ([node.name for node in nodes] for nodes in (region.inputs, region.outputs))
        return [Instruction(run, (*reads, *writes), tuple(writes))]


class ByBatch:
    """A region's kernels: a call takes the one for the class of its batch, loaded when it is first needed.

    place: of the region among those of the program.
    """

    def __init__(self, device: torch.device, program: Program, region: Region, place: int) -> None:
        self.device, self.program, self.region, self.place = device, program, region, place
        values = [*region.inputs, *region.outputs]
        self.batched = next((i for i, node in enumerate(values) if node.type.batched), None)
        self.calls: dict[int, Call] = {}
        self.of_class: dict[int, Call] = {}

    def __call__(self, *tensors: torch.Tensor) -> Any:
        batch = self.program.batch if self.batched is None else tensors[self.batched].shape[0]
        call = self.calls.get(batch)
        if call is None:
            usual = class_of(batch)
            if usual not in self.of_class:
                self.of_class[usual] = self._loaded(usual)
            call = self.calls[batch] = self.of_class[usual]
        return call(*tensors)

    def _loaded(self, batch: int) -> Call:
        region, inference = self.region, self.program.mode.inference
        kernel = kernels(self.program, batch)[self.place]
        if isinstance(kernel, CompileError):
            _warn(region, str(kernel))
            return _into_place(region, aten.runner(region, inference)).run
        run = _launcher(kernel, self.device)
        return _interpreted(run) if self.device.type == "cpu" else _guarded(run, region, inference)


def _launcher(kernel: Kernel, device: torch.device) -> Call:
    launch = kernel.load(interpreted=device.type == "cpu").launch
    inputs, only = len(kernel.inputs), len(kernel.outputs) == 1

    def call(*tensors: torch.Tensor) -> Any:
        launch(*tensors)
        return tensors[inputs] if only else tensors[inputs:]

    return call


def _interpreted(call: Call) -> Call:
    from ..codegen.machine.interpreter import interpreting

    def run(*tensors: torch.Tensor) -> Any:
        with interpreting():
            return call(*tensors)

    return run


def _guarded(call: Call, region: Region, inference: bool) -> Call:
    """A first launch that fails to compile or does not fit the GPU turns into the fallback."""
    active, proven = call, False

    def run(*tensors: torch.Tensor) -> Any:
        nonlocal active, proven
        if proven:
            return active(*tensors)
        try:
            found = active(*tensors)
        except Exception as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            _warn(region, f"{type(error).__name__}: {error}".splitlines()[0])
            active = _into_place(region, aten.runner(region, inference)).run
            found = active(*tensors)
        proven = True
        return found

    return run


def _into_place(region: Region, run: Call) -> Instruction:
    """What PyTorch's operators compute, copied to where the region's kernel would have written it."""
    reads, writes = ([node.name for node in nodes] for nodes in (region.inputs, region.outputs))

    def into(*tensors: torch.Tensor) -> Any:
        found = run(*(tensor.contiguous() for tensor in tensors[: len(reads)]))
        places = tensors[len(reads) :]
        taken = {place.untyped_storage().data_ptr() for place in places}
        results = (found,) if len(writes) == 1 else found  # of which one may be an operand, in its place
        apart = [v.clone() if v.untyped_storage().data_ptr() in taken else v for v in results]
        for place, value in zip(places, apart, strict=True):
            place.copy_(value)
        return places[0] if len(writes) == 1 else places

    return Instruction(into, (*reads, *writes), tuple(writes))


def _warn(region: Region, reason: str) -> None:
    layers = ", ".join(region.layers) or "no layer"
    warnings.warn(
        f"{region.name} (from {layers}) runs through PyTorch's operators instead of Triton: {reason}",
        FallbackWarning,
        stacklevel=2,
    )
