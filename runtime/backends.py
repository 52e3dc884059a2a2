"""Backends: how a region becomes a call. `triton` runs emitted kernels, `aten` PyTorch's own operators.

A region whose kernel cannot be emitted or compiled falls back to aten, with one visible warning naming it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from ..codegen import Kernel, emit
from ..graph.errors import CompileError
from ..graph.settings import settings
from ..planning.regions import Region
from ..planning.targets import target_of
from . import aten
from .plan import Call

BACKENDS = ("triton", "aten")


class FallbackWarning(UserWarning):
    """A region runs through PyTorch's operators because its Triton kernel is not available."""


@dataclass
class Backend:
    """Lowers regions for one device. precision: "ieee" or "tf32" for float32 products."""

    name: str
    device: torch.device
    precision: str = "ieee"
    inference: bool = True
    fallbacks: list[str] = field(default_factory=list)

    def lower(self, region: Region) -> Call:
        if self.name == "aten" or region.graph[region.anchor.name].type.dtype == "float64":
            return aten.lower(region, inference=self.inference)
        try:
            kernel = emit(region, precision=self.precision, target=target_of(self.device))
        except CompileError as error:
            return self._fall_back(region, str(error))
        settings.say(2, f"kernel {kernel.name}: {kernel.schedule}")
        settings.write(f"{kernel.name}.py", kernel.source)
        return self._launcher(region, kernel)

    def _launcher(self, region: Region, kernel: Kernel) -> Call:
        interpreted = self.device.type == "cpu"
        launch = kernel.load(interpreted=interpreted).launch
        results = [node.type for node in kernel.outputs]
        order = [region.inputs.index(node) for node in kernel.inputs]
        device = self.device

        def call(values: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
            inputs = [values[position] for position in order]
            batch = next(
                (v.shape[0] for v, n in zip(inputs, kernel.inputs, strict=True) if n.type.batched), 1
            )
            outputs = tuple(torch.empty(t.size(batch), dtype=t.torch_dtype, device=device) for t in results)
            if settings.debug >= 5:  # a launch is too short to build a text nobody reads
                settings.say(5, f"launch {kernel.name} batch {batch}")
            launch(*inputs, *outputs)
            return outputs

        if interpreted:
            return _interpreted(call)
        return self._guarded(region, call)

    def _guarded(self, region: Region, call: Call) -> Call:
        """A first launch that fails to compile or does not fit the GPU turns into the fallback."""
        active = call

        def guarded(values: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
            nonlocal active
            try:
                return active(values)
            except Exception as error:
                if active is not call or isinstance(error, torch.OutOfMemoryError):
                    raise
                active = self._fall_back(region, f"{type(error).__name__}: {error}".splitlines()[0])
                return active(values)

        return guarded

    def _fall_back(self, region: Region, reason: str) -> Call:
        self.fallbacks.append(region.name)
        layers = ", ".join(region.layers) or "no layer"
        warnings.warn(
            f"{region.name} (from {layers}) runs through PyTorch's operators instead of Triton: {reason}",
            FallbackWarning,
            stacklevel=2,
        )
        return aten.lower(region, inference=self.inference)


def _interpreted(call: Call) -> Call:
    from ..codegen.machine.interpreter import interpreting

    def run(values: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        with interpreting():
            return call(values)

    return run
