"""One autograd function over the whole compiled network, so that torch's own loop and optimizers work.

A network in training mode runs its training plan and keeps what the backward steps read. A network in eval
mode runs the inference plan, folded and fused, and keeps only its inputs; should somebody differentiate it
all the same, the backward pass runs the eval-mode training plan (moving statistics, no dropout) from there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from .plan import Plan

Gradients = dict[str, torch.Tensor]


class CompiledFunction(torch.autograd.Function):
    """Forward and backward of a plan. Arguments: plan, differentiable plan, input count, names, *tensors.

    tensors: the inputs followed by the parameters in the order of names.
    """

    @staticmethod
    def forward(
        ctx: Any,
        plan: Plan,
        backward_plan: Callable[[], Plan],
        names: Sequence[str],
        others: Gradients,
        count: int,
        *tensors: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        inputs, parameters = tensors[:count], tensors[count:]
        bound = {**others, **dict(zip(names, parameters, strict=True))}
        outputs, saved = plan.forward(inputs, bound)
        ctx.names, ctx.others, ctx.count = names, others, count
        ctx.plan, ctx.backward_plan = plan, backward_plan
        ctx.save_for_backward(*inputs, *parameters, *saved)
        ctx.split = len(tensors)
        if plan.derivatives.seeds:
            constant = [
                o for name, o in zip(plan.outputs, outputs, strict=True) if name not in plan.derivatives.seeds
            ]
            ctx.mark_non_differentiable(*constant)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[Any, ...]:
        tensors = ctx.saved_tensors
        given, saved = tensors[: ctx.split], tensors[ctx.split :]
        bound = {**ctx.others, **dict(zip(ctx.names, given[ctx.count :], strict=True))}
        plan: Plan = ctx.plan
        if not plan.mode.backward:
            plan = ctx.backward_plan()
            _, saved = plan.forward(given[: ctx.count], bound)
        seeds = {
            name: g.contiguous() for name, g in zip(plan.outputs, gradients, strict=True) if g is not None
        }
        found = plan.backward(saved, seeds, bound)
        inputs = [found.get(node.name) for node in plan.inputs]
        return (None, None, None, None, None, *inputs, *(found.get(name) for name in ctx.names))
