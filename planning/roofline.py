"""What a program would take, by the cost model, beside the least that its card allows: estimates, both.

A kernel's roofline is the longer of its product at the card's full rate and of its bytes at the memory's; the
program's is their sum. What lies far above it is named, with what the model believes it waits for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..graph.errors import CompileError
from ..graph.op import Kind
from .cost import CostModel
from .forms import choose
from .program import Program
from .regions import Region

FAR = 1.5
"""Times its roofline from which a kernel is named."""


@dataclass(frozen=True)
class KernelEstimate:
    """One kernel, in seconds. reason: what the model believes its time goes to; form: "" without a kernel."""

    region: str
    layers: tuple[str, ...]
    form: str
    schedule: str
    seconds: float
    roofline: float
    reason: str

    @property
    def ratio(self) -> float:
        return self.seconds / self.roofline if self.roofline else 1.0

    def __str__(self) -> str:
        layers = ", ".join(self.layers) or "no layer"
        times = f"{1e6 * self.seconds:.1f} us, roofline {1e6 * self.roofline:.1f}, {self.ratio:.2f}x"
        return f"{self.region} (from {layers}): {times}: {self.form} {self.schedule}: {self.reason}"


@dataclass(frozen=True)
class PlanEstimate:
    """The kernels of a program on a card, for so many images a call. None of it was measured."""

    device: str
    batch: int
    kernels: Sequence[KernelEstimate]

    @property
    def seconds(self) -> float:
        return sum(kernel.seconds for kernel in self.kernels)

    @property
    def roofline(self) -> float:
        return sum(kernel.roofline for kernel in self.kernels)

    @property
    def ratio(self) -> float:
        return self.seconds / self.roofline if self.roofline else 1.0

    def far(self, times: float = FAR) -> list[KernelEstimate]:
        """Kernels above so many times their roofline, those that lose most first."""
        found = [kernel for kernel in self.kernels if kernel.ratio > times]
        return sorted(found, key=lambda kernel: kernel.roofline - kernel.seconds)

    def __str__(self) -> str:
        head = (
            f"{self.batch} images on {self.device}, estimated: {1e3 * self.seconds:.3f} ms, "
            f"roofline {1e3 * self.roofline:.3f} ms, {self.ratio:.2f}x"
        )
        return "\n".join([head, *(f"  {kernel}" for kernel in self.far())])


def estimate(program: Program, device: str = "H200", batch: int = 32) -> PlanEstimate:
    """A program's kernels on a card, each with the form and schedule that are best for such a batch there.

    A region without a kernel counts as its roofline. Raises CompileError for an unknown card.
    """
    model = CostModel.of(device, program.precision, batch)
    return PlanEstimate(model.device.name, batch, [_of(region, model, device) for region in program.regions])


def _of(region: Region, model: CostModel, device: str) -> KernelEstimate:
    least = roofline_seconds(region, model)
    try:
        form, schedule = choose(region, device, precision=model.precision, batch=model.batch)
    except CompileError as error:
        return KernelEstimate(region.name, tuple(region.layers), "", "", least, least, str(error))
    seconds = form.seconds(region, schedule, model)
    reason = form.reason(region, schedule, model)
    return KernelEstimate(
        region.name, tuple(region.layers), form.name, str(schedule), max(seconds, least), least, reason
    )


def roofline_seconds(region: Region, model: CostModel) -> float:
    """The least time of a region: its bytes, or its product, at the card's full rate."""
    cost = region.cost(model.batch)
    if region.anchor.op.kind is not Kind.CONTRACTION:
        return model.moving(cost.bytes)
    dtype = region.graph[region.anchor.inputs[0]].type.dtype
    return max(model.moving(cost.bytes), cost.flops / model.rate(dtype))
