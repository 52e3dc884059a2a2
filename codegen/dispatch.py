"""Region -> kernel: the emitter of each form."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy

from ..planning.forms import choose
from ..planning.regions import Region
from ..planning.schedules import Schedule
from .forms.channel_tiles import emit_channel_tiles
from .forms.convolution import emit_forward
from .forms.data_gradient import emit_data_grad
from .forms.dense_gradients import emit_dense_gradients
from .forms.depthwise import emit_direct
from .forms.depthwise_weights import emit_direct_weight_grad
from .forms.first_convolution import emit_first
from .forms.first_weight_gradient import emit_first_weight_grad
from .forms.general_reduction import emit_sums
from .forms.look_up import emit_look_up, emit_look_up_grad
from .forms.losses import emit_loss, emit_loss_grad, emit_total
from .forms.matmul import emit_matmul
from .forms.movement import emit_movement
from .forms.pairs import emit_pairs
from .forms.pointwise import emit_pointwise
from .forms.pooling import emit_pooling, emit_unpooling
from .forms.reduction import emit_channel_sums
from .forms.resize import emit_resize
from .forms.row_norms import emit_row_norm, emit_row_norm_gradient
from .forms.softmax import emit_softmax
from .forms.warp import emit_warp, emit_warp_grad
from .forms.weight_gradient import emit_weight_grad
from .kernel import Kernel
from .text.source import KernelFile

PRODUCTS: dict[str, Callable[[Region, Schedule, str], KernelFile]] = {
    "first convolution": emit_first,
    "first weight gradient": emit_first_weight_grad,
    "convolution": emit_forward,
    "data gradient": emit_data_grad,
    "weight gradient": emit_weight_grad,
    "dense gradients": emit_dense_gradients,
    "matrix product": emit_matmul,
}
"""The emitters of forms that multiply, by the form's name: they are told the precision of float32 ones."""

EMITTERS: dict[str, Callable[[Region, Schedule], KernelFile]] = {
    "direct convolution": emit_direct,
    "direct data gradient": emit_direct,
    "direct weight gradient": emit_direct_weight_grad,
    "pooling": emit_pooling,
    "pooling gradient": emit_unpooling,
    "channel sums": emit_channel_sums,
    "sums": emit_sums,
    "rows": emit_softmax,
    "total": emit_total,
    "row norm": emit_row_norm,
    "row norm gradient": emit_row_norm_gradient,
    "loss": emit_loss,
    "loss gradient": emit_loss_grad,
    "look up": emit_look_up,
    "look up gradient": emit_look_up_grad,
    "warp": emit_warp,
    "warp gradient": emit_warp_grad,
    "resize": emit_resize,
    "movement": emit_movement,
    "pairs": emit_pairs,
    "pointwise": emit_pointwise,
    "channel tiles": emit_channel_tiles,
}
"""The emitters of all others. What they are given was accepted by the form, and they choose nothing."""


def emit(
    region: Region,
    *,
    precision: str = "ieee",
    schedule: Schedule | None = None,
    target: str = "sm_90",
    form: str | None = None,
) -> Kernel:
    """The kernel of a region, as a file that runs by itself, in the form that planning chooses.

    precision: of float32 products, "ieee" or "tf32".
    schedule: tiles to use instead of the ones the cost model chooses for `target`. form: likewise.
    Raises NotEmittable, with the op and the reason, where no form accepts the region.
    """
    found, chosen = choose(region, target, precision=precision, schedule=schedule, form=form)
    return write(region, found.name, chosen, precision)


def write(region: Region, form: str, schedule: Schedule, precision: str = "ieee") -> Kernel:
    """The kernel of a region in a form and with a schedule that were chosen for it.

    Emitters see the region without its number, so that equal regions have equal texts.
    """
    unnumbered = copy(region)
    unnumbered.name = region.stem
    if form in PRODUCTS:
        return Kernel.of(PRODUCTS[form](unnumbered, schedule, precision), region)
    return Kernel.of(EMITTERS[form](unnumbered, schedule), region)
