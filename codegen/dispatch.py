"""Region -> kernel: the table of emitters."""

from __future__ import annotations

from collections.abc import Callable

from ..graph.op import Kind, Op
from ..graph.ops import (
    BinaryCrossEntropy,
    CategoricalCrossEntropy,
    Conv2D,
    Conv2DDataGrad,
    Conv2DWeightGrad,
    Dense,
    DenseDataGrad,
    DenseWeightGrad,
    LogSoftmax,
    LookUp,
    LookUpGrad,
    LossGrad,
    MatMul,
    MeanSquaredError,
    Resize,
    ResizeGrad,
    Softmax,
    SoftmaxCrossEntropy,
    SoftmaxGrad,
    Sparsemax,
    SparsemaxGrad,
    Warp,
    WarpGrad,
)
from ..planning.regions import Region
from ..planning.schedules import Schedule
from .errors import NotEmittable
from .forms.convolution import emit_forward
from .forms.data_gradient import emit_data_grad
from .forms.look_up import emit_look_up, emit_look_up_grad
from .forms.losses import emit_loss, emit_loss_grad
from .forms.matmul import emit_matmul
from .forms.movement import emit_movement
from .forms.pointwise import emit_pointwise
from .forms.pooling import emit_pooling
from .forms.reduction import emit_reduction
from .forms.resize import emit_resize
from .forms.softmax import emit_softmax
from .forms.warp import emit_warp, emit_warp_grad
from .forms.weight_gradient import emit_weight_grad
from .kernel import Kernel
from .text.source import POINTERS, KernelFile

Emitter = Callable[[Region, Schedule | None], KernelFile]

_BY_OP: dict[type[Op], Emitter] = {
    Softmax: emit_softmax,
    LogSoftmax: emit_softmax,
    SoftmaxGrad: emit_softmax,
    Sparsemax: emit_softmax,
    SparsemaxGrad: emit_softmax,
    SoftmaxCrossEntropy: emit_loss,
    CategoricalCrossEntropy: emit_loss,
    BinaryCrossEntropy: emit_loss,
    MeanSquaredError: emit_loss,
    LossGrad: emit_loss_grad,
    Resize: emit_resize,
    ResizeGrad: emit_resize,
    LookUp: emit_look_up,
    LookUpGrad: emit_look_up_grad,
    Warp: emit_warp,
    WarpGrad: emit_warp_grad,
}

_BY_KIND: dict[Kind, Emitter] = {
    Kind.WINDOW: emit_pooling,
    Kind.POINTWISE: emit_pointwise,
    Kind.REDUCTION: emit_reduction,
    Kind.MOVEMENT: emit_movement,
}


def emit(
    region: Region, *, precision: str = "ieee", schedule: Schedule | None = None, target: str = "sm_90"
) -> Kernel:
    """The kernel of a region, as a file that runs by itself.

    precision: of float32 products, "ieee" or "tf32".
    schedule: tiles to use instead of the ones the model chooses for `target`.
    Raises NotEmittable, with the op and the reason, where no emitter handles the region.
    """
    _check_types(region)
    op = region.anchor.op
    if op.kind is Kind.CONTRACTION:
        return _contraction(region, precision, schedule, target)
    emitter = _BY_OP.get(type(op)) or _BY_KIND.get(op.kind)
    if emitter is None:
        raise NotEmittable(f"{region.anchor.name}: no kernel is known for {op.op_name()}")
    return Kernel.of(emitter(region, schedule))


def _contraction(region: Region, precision: str, schedule: Schedule | None, target: str) -> Kernel:
    match region.anchor.op:
        case Conv2D() | Dense():
            return emit_forward(region, precision=precision, schedule=schedule, target=target)
        case Conv2DDataGrad() | DenseDataGrad():
            return emit_data_grad(region, precision=precision, schedule=schedule, target=target)
        case Conv2DWeightGrad() | DenseWeightGrad():
            return emit_weight_grad(region, precision=precision, schedule=schedule, target=target)
        case MatMul():
            return emit_matmul(region, precision=precision, schedule=schedule, target=target)
    raise NotEmittable(f"{region.anchor.name}: no kernel is known for {region.anchor.op.op_name()}")


def _check_types(region: Region) -> None:
    for node in [*region.inputs, *region.outputs]:
        if node.type.dtype not in POINTERS:
            raise NotEmittable(
                f"{node.name} is {node.type}: kernels take {', '.join(POINTERS)}; use backend='aten' for it"
            )
