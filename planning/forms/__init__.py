"""The forms of kernels, as one table: what each accepts, and which schedules it offers.

A new way to compute something is a row here and an emitter of its name in codegen, and touches nothing else.
Of the forms that accept a region, the one computes it that the cost model expects to be fastest.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...graph.op import Op
from ..cost import TUNING_BATCH, CostModel
from ..regions import Region
from ..schedules import Schedule
from .depthwise import DIRECT
from .flat import FLAT
from .form import Form, NotEmittable, Refusal
from .pooling import POOLING
from .products import PRODUCTS
from .rows import ROWS
from .sums import SUMS

FORMS: tuple[Form, ...] = (*DIRECT, *PRODUCTS, *POOLING, *SUMS, *ROWS, *FLAT)

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


def forms_taking(region: Region) -> list[Form]:
    """The forms that accept a region, whatever its dtypes are, in the table's order."""
    return [form for form in forms_for(region.anchor.op) if form.accepts(region) is None]


def stored_row_by_row(region: Region) -> bool:
    """Whether a region's results are stored as `Form.row_by_row` says, whichever form is chosen for it."""
    found = forms_taking(region)
    return bool(found) and all(form.row_by_row for form in found)


def refusal(region: Region) -> Refusal:
    """Why no form accepts a region, whatever its dtypes are, in the words of the last one asked; or None."""
    reason = f"{region.anchor.name}: no kernel is known for {region.anchor.op.op_name()}"
    for form in forms_for(region.anchor.op):
        found = form.accepts(region)
        if found is None:
            return None
        reason = found
    return reason


def forms_of(region: Region) -> list[Form]:
    """The forms that compute a region. Raises NotEmittable, with the reason, where none accepts it."""
    for node in [*region.inputs, *region.outputs]:
        if node.type.dtype not in DTYPES:
            raise NotEmittable(
                f"{node.name} is {node.type}: kernels take {', '.join(DTYPES)}; use backend='aten' for it"
            )
    found = forms_taking(region)
    if not found:
        raise NotEmittable(str(refusal(region)))
    return found


def form_of(region: Region, model: CostModel | None = None) -> Form:
    """The form that the model expects to compute a region fastest; of equals, the first of the table.

    Raises NotEmittable where no form accepts the region, or has a schedule that fits the model's target.
    """
    found = forms_of(region)
    return found[0] if len(found) == 1 else _fastest(region, found, model or CostModel.of())


def _fastest(region: Region, forms: list[Form], model: CostModel) -> Form:
    """The form whose best schedule takes least. Raises NotEmittable where none has one."""
    seconds: dict[str, float] = {}
    for form in forms:
        try:
            seconds[form.name] = form.seconds(region, form.candidates(region, model)[0], model)
        except NotEmittable as error:
            reason = error
    if not seconds:
        raise reason
    return min((form for form in forms if form.name in seconds), key=lambda form: seconds[form.name])


def slower(merged: Region, parts: Sequence[Region], model: CostModel) -> Refusal:
    """Why parts are better left apart: a form computes one of them that does not compute all together, and
    without it the model expects that to take longer. None where the anchor keeps its forms.
    """
    part = next((part for part in parts if part.anchor is merged.anchor), None)
    if part is None or len(forms_for(merged.anchor.op)) == 1:
        return None
    left = forms_taking(merged)
    if all(form in left for form in forms_taking(part)):
        return None
    try:
        together, apart = _seconds_of(merged, model), sum(_seconds_of(each, model) for each in parts)
    except NotEmittable:  # PyTorch computes it, in whatever form
        return None
    if together <= apart:
        return None
    return (
        f"{form_of(part, model)} does not compute {merged.anchor.name} together with it, and another form "
        f"would take {together * 1e6:.3g} us where the parts take {apart * 1e6:.3g}"
    )


def _seconds_of(region: Region, model: CostModel) -> float:
    form = form_of(region, model)
    return form.seconds(region, form.candidates(region, model)[0], model)


def candidates(
    region: Region, target: str = "sm_90", *, precision: str = "ieee", batch: int = TUNING_BATCH
) -> list[Schedule]:
    """Schedules of a region's form that fit the target, the one expected to be fastest first.

    Raises NotEmittable where no form accepts the region, CompileError for an unknown target.
    """
    model = CostModel.of(target, precision, batch)
    return form_of(region, model).candidates(region, model)


def choose(
    region: Region,
    target: str = "sm_90",
    *,
    precision: str = "ieee",
    batch: int = TUNING_BATCH,
    schedule: Schedule | None = None,
    form: str | None = None,
) -> tuple[Form, Schedule]:
    """The form and the schedule of a region that are expected to be the fastest.

    form: the name of the one to take. schedule: the one to take, for the first form that takes it.
    Raises NotEmittable where no form accepts the region, or not this form, or the form not this schedule.
    """
    model = CostModel.of(target, precision, batch)
    found = forms_of(region) if form is None else [_named(region, form)]
    if schedule is None:
        chosen = found[0] if len(found) == 1 else _fastest(region, found, model)
        return chosen, chosen.candidates(region, model)[0]
    reasons = [each.takes(region, schedule) for each in found]
    for each, reason in zip(found, reasons, strict=True):
        if reason is None:
            return each, schedule
    raise NotEmittable(str(reasons[-1]))


def _named(region: Region, name: str) -> Form:
    found = forms_of(region)
    for form in found:
        if form.name == name:
            return form
    others = ", ".join(map(str, found))
    raise NotEmittable(f"{region.name}: form {name!r} does not compute it; {others} would")


__all__ = [
    "DTYPES",
    "FORMS",
    "Form",
    "NotEmittable",
    "Refusal",
    "candidates",
    "choose",
    "form_of",
    "forms_for",
    "forms_of",
    "forms_taking",
    "refusal",
    "slower",
    "stored_row_by_row",
]
