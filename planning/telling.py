"""What CONVLOOM_DEBUG says of a region: what its kernel costs, and which schedules were weighed for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .batches import class_of
from .cost import CostModel
from .forms import FORMS
from .regions import Region

if TYPE_CHECKING:
    from .program import Step


def cost_told(region: Region) -> str:
    """The kernel with its layers, FLOPs and bytes."""
    layers, cost = ", ".join(region.layers) or "no layer", region.cost(1)
    return f"kernel {region.name}: from {layers}; for one example {cost.flops:,} FLOPs, {cost.bytes:,} bytes"


def schedules_told(step: Step) -> str:
    """The schedule taken, and all that were considered, with the times that the cost model gives them."""
    region = step.region
    form = next((form for form in FORMS if form.name == step.form), None)
    if form is None:
        return f"schedule {region.name}: none: {step.reason}"
    model = CostModel.of(step.target, step.precision, class_of(step.batch))
    offered = [
        f"    {1e6 * form.seconds(region, schedule, model):9.2f} us  {schedule}"
        for schedule in form.candidates(region, model)
    ]
    considered = f"{len(offered)} considered for {model.batch} images"
    return "\n".join([f"schedule {region.name}: {form}, takes {step.schedule}, of {considered}", *offered])
