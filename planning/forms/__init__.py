"""The forms of kernels, as one table: what each accepts, and which schedules it offers.

A new way to compute something is a row here and an emitter of its name in codegen, and touches nothing else.
The first form of the table that concerns an anchor and accepts its region computes it.
"""

from __future__ import annotations

from ...graph.op import Op
from ..cost import TUNING_BATCH, CostModel
from ..regions import Region
from ..schedules import Schedule
from .flat import FLAT
from .form import Form, NotEmittable, Refusal
from .pooling import POOLING
from .products import PRODUCTS
from .rows import ROWS
from .sums import SUMS

FORMS: tuple[Form, ...] = (*PRODUCTS, *POOLING, *SUMS, *ROWS, *FLAT)

DTYPES = ("float32", "float16", "bfloat16", "bool", "uint8", "int8", "int16", "int32", "int64")
"""What kernels read and write. Fusion does not ask: a network of others runs fused through PyTorch."""

_CONCERNED: dict[type[Op], tuple[Form, ...]] = {}
"""The forms for the anchors met so far."""


def forms_for(op: Op) -> tuple[Form, ...]:
    """The forms of regions with such an anchor, in the table's order."""
    found = _CONCERNED.get(type(op))
    if found is None:
        found = _CONCERNED[type(op)] = tuple(form for form in FORMS if form.concerns(op))
    return found


def form_taking(region: Region) -> Form | None:
    """The form that accepts a region, whatever its dtypes are; None where none does."""
    return next((form for form in forms_for(region.anchor.op) if form.accepts(region) is None), None)


def refusal(region: Region) -> Refusal:
    """Why no form accepts a region, whatever its dtypes are, in the words of the last one asked; or None."""
    reason = f"{region.anchor.name}: no kernel is known for {region.anchor.op.op_name()}"
    for form in forms_for(region.anchor.op):
        found = form.accepts(region)
        if found is None:
            return None
        reason = found
    return reason


def form_of(region: Region) -> Form:
    """The form that computes a region. Raises NotEmittable, with the reason, where none accepts it."""
    for node in [*region.inputs, *region.outputs]:
        if node.type.dtype not in DTYPES:
            raise NotEmittable(
                f"{node.name} is {node.type}: kernels take {', '.join(DTYPES)}; use backend='aten' for it"
            )
    form = form_taking(region)
    if form is None:
        raise NotEmittable(str(refusal(region)))
    return form


def candidates(
    region: Region, target: str = "sm_90", *, precision: str = "ieee", batch: int = TUNING_BATCH
) -> list[Schedule]:
    """Schedules of a region's form that fit the target, the one expected to be fastest first.

    Raises NotEmittable where no form accepts the region, CompileError for an unknown target.
    """
    return form_of(region).candidates(region, CostModel.of(target, precision, batch))


def choose(
    region: Region,
    target: str = "sm_90",
    *,
    precision: str = "ieee",
    batch: int = TUNING_BATCH,
    schedule: Schedule | None = None,
) -> tuple[Form, Schedule]:
    """The form of a region, and the schedule expected to be the fastest, or `schedule` if the form takes it.

    Raises NotEmittable where no form accepts the region or the form does not take the schedule.
    """
    form = form_of(region)
    if schedule is None:
        return form, form.candidates(region, CostModel.of(target, precision, batch))[0]
    if reason := form.takes(region, schedule):
        raise NotEmittable(reason)
    return form, schedule


__all__ = [
    "DTYPES",
    "FORMS",
    "Form",
    "NotEmittable",
    "Refusal",
    "candidates",
    "choose",
    "form_of",
    "form_taking",
    "forms_for",
    "refusal",
]
