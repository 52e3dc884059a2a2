"""The forms of kernels, as one table: what each accepts, and which schedules it offers.

A new way to compute something is a row here and an emitter of its name in codegen, and touches nothing else.
Of the forms that accept a region, the one computes it that the cost model expects to be fastest.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...graph.ir import Node
from ...graph.op import Op
from ..batches import USUAL
from ..cost import CostModel
from ..limits import too_large
from ..regions import Region
from ..schedules import Schedule
from .channel_tiles import CHANNEL_TILES
from .dense_gradients import DENSE_GRADIENTS
from .depthwise import DIRECT
from .first import FIRST
from .flat import FLAT
from .form import Form, NotEmittable, Refusal
from .pairs import PAIRS
from .pooling import POOLING
from .products import PRODUCTS
from .row_norms import ROW_NORMS
from .rows import ROWS
from .sums import SUMS

FORMS: tuple[Form, ...] = (
    *DENSE_GRADIENTS, *FIRST, *DIRECT, *PRODUCTS, *POOLING, *SUMS, *ROWS, *ROW_NORMS, *PAIRS, *FLAT,
    *CHANNEL_TILES,
)  # fmt: skip

DTYPES = ("float32", "float16", "bfloat16", "bool", "uint8", "int8", "int16", "int32", "int64")
"""What kernels read and write. Fusion does not ask: a network of others runs fused through PyTorch."""

MOST_MEMBERS = 128
"""Members that fusion puts into one kernel at most, whatever its form. One more would save a hundredth of the
traffic that was saved, while a compiler takes ever longer; and so a chain of any length takes linear time."""

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


def read_row_by_row(region: Region, operand: Node) -> bool:
    """Whether the rows of an operand may be parts of wider ones, whichever form is chosen for the region."""
    found = forms_taking(region)
    return bool(found) and all(form.in_rows(region, operand) for form in found)


def refusal(region: Region) -> Refusal:
    """Why no form accepts a region, whatever its dtypes are, in the words of the last one asked; or None."""
    if len(region.nodes) > MOST_MEMBERS:
        return f"a kernel of {len(region.nodes)} members is longer than the {MOST_MEMBERS} that one may have"
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
    if reason := too_large(region):
        raise NotEmittable(f"{reason}; use backend='aten' for it")
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


def expected_seconds(region: Region, model: CostModel) -> float:
    """What the model believes a region takes. Raises NotEmittable where no form has a kernel for it."""
    form = form_of(region, model)
    return form.seconds(region, form.candidates(region, model)[0], model)


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
        together = expected_seconds(merged, model)
        apart = sum(expected_seconds(each, model) for each in parts)
    except NotEmittable:  # PyTorch computes it, in whatever form
        return None
    if together <= apart:
        return None
    return (
        f"{form_of(part, model)} does not compute {merged.anchor.name} together with it, and another form "
        f"would take {together * 1e6:.3g} us where the parts take {apart * 1e6:.3g}"
    )


def candidates(
    region: Region, target: str = "sm_90", *, precision: str = "ieee", batch: int = USUAL
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
    batch: int = USUAL,
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


def finishing_iterations(region: Region, batch: int, target: str = "sm_90") -> int:
    """What a program of the kernel that finishes a region's sums does one after another, for such a batch; 0
    where the sums are not cut into parts."""
    if not region.launches or not forms_taking(region):
        return 0
    form, schedule = choose(region, target, batch=batch)
    split = form.split(region, schedule)
    return 0 if split is None else split.iterations(batch)


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
    "MOST_MEMBERS",
    "Form",
    "NotEmittable",
    "Refusal",
    "candidates",
    "choose",
    "expected_seconds",
    "finishing_iterations",
    "form_of",
    "forms_for",
    "forms_of",
    "forms_taking",
    "read_row_by_row",
    "refusal",
    "slower",
    "stored_row_by_row",
]
