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
from ..graph.settings import settings
from ..planning.program import Program, Step
from ..planning.regions import Region
from . import aten
from .instructions import Instruction

BACKENDS = ("triton", "aten")

Call = Callable[..., Any]
"""The tensors of `region.inputs` -> the one of `region.outputs`, or a tuple of them."""


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

    def lower(self, program: Program) -> list[tuple[Step, Sequence[Instruction]]]:
        """Each step in order, with its instructions."""
        inference = program.mode.inference
        if self.name == "aten":
            return [(step, aten.lower(step.region, inference)) for step in program.steps]
        found = dict(zip((region.name for region in program.regions), kernels(program), strict=True))
        return [(step, self._kernel(step.region, found, inference)) for step in program.steps]

    def _kernel(
        self, region: Region, found: dict[str, Kernel | CompileError], inference: bool
    ) -> Sequence[Instruction]:
        kernel = found.get(region.name)
        if kernel is None or region.anchor.type.dtype == "float64":  # a view; what no kernel computes in
            return aten.lower(region, inference)
        if isinstance(kernel, CompileError):
            _warn(region, str(kernel))
            return aten.lower(region, inference)
        settings.say(2, f"kernel {kernel.name}: {kernel.schedule}")
        settings.write(f"{kernel.name}.py", kernel.source)
        run = self._launcher(region, kernel)
        run = _interpreted(run) if self.device.type == "cpu" else _guarded(run, region, inference)
        reads, writes = ([node.name for node in nodes] for nodes in (kernel.inputs, kernel.outputs))
        return [Instruction(run, tuple(reads), tuple(writes))]

    def _launcher(self, region: Region, kernel: Kernel) -> Call:
        launch = kernel.load(interpreted=self.device.type == "cpu").launch
        results = [node.type for node in kernel.outputs]
        batched = next((at for at, node in enumerate(kernel.inputs) if node.type.batched), None)
        device, only = self.device, len(results) == 1

        def call(*inputs: torch.Tensor) -> Any:
            batch = 1 if batched is None else inputs[batched].shape[0]
            outputs = [torch.empty(t.size(batch), dtype=t.torch_dtype, device=device) for t in results]
            if settings.debug >= 5:  # a launch is too short to build a text nobody reads
                settings.say(5, f"launch {kernel.name} batch {batch}")
            launch(*inputs, *outputs)
            return outputs[0] if only else outputs

        return call


def _interpreted(call: Call) -> Call:
    from ..codegen.machine.interpreter import interpreting

    def run(*inputs: torch.Tensor) -> Any:
        with interpreting():
            return call(*inputs)

    return run


def _guarded(call: Call, region: Region, inference: bool) -> Call:
    """A first launch that fails to compile or does not fit the GPU turns into the fallback."""
    active = call

    def run(*inputs: torch.Tensor) -> Any:
        nonlocal active
        try:
            return active(*inputs)
        except Exception as error:
            if active is not call or isinstance(error, torch.OutOfMemoryError):
                raise
            _warn(region, f"{type(error).__name__}: {error}".splitlines()[0])
            active = aten.runner(region, inference)
            return active(*inputs)

    return run


def _warn(region: Region, reason: str) -> None:
    layers = ", ".join(region.layers) or "no layer"
    warnings.warn(
        f"{region.name} (from {layers}) runs through PyTorch's operators instead of Triton: {reason}",
        FallbackWarning,
        stacklevel=2,
    )
