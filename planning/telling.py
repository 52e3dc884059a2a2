"""What CONVLOOM_DEBUG says of a region: what its kernel costs, and which schedules were weighed for it."""

from __future__ import annotations

from ..graph.errors import CompileError
from .cost import CostModel
from .forms import choose
from .regions import Region


def cost_told(region: Region) -> str:
    """The kernel with its layers, FLOPs and bytes."""
    layers, cost = ", ".join(region.layers) or "no layer", region.cost(1)
    return f"kernel {region.name}: from {layers}; for one example {cost.flops:,} FLOPs, {cost.bytes:,} bytes"


def schedules_told(region: Region, target: str, precision: str) -> str:
    """The schedule taken, and all that were considered, with the times that the cost model gives them."""
    try:
        form, taken = choose(region, target, precision=precision)
    except CompileError as error:
        return f"schedule {region.name}: none: {error}"
    model = CostModel.of(target, precision)
    offered = [
        f"    {1e6 * form.seconds(region, schedule, model):9.2f} us  {schedule}"
        for schedule in form.candidates(region, model)
    ]
    considered = f"{len(offered)} considered for {model.batch} images"
    return "\n".join([f"schedule {region.name}: {form}, takes {taken}, of {considered}", *offered])
