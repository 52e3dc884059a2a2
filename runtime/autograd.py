"""One autograd function over the whole compiled network, so that torch's own loop and optimizers work.

A network in training mode runs its training program and keeps what the backward steps read. A network in
eval mode runs the inference program, folded and fused, and keeps only its inputs; should somebody
differentiate it all the same, the backward pass runs the eval-mode training program (moving statistics, no
dropout) from there. What the backward pass needs is bound when the forward pass runs, and whatever it reads
then is saved through autograd, which refuses by itself what has been written to since.

With `create_graph=True` somebody wants gradients of the gradients. Then the backward pass walks the network's
definitions through PyTorch's operators, with the same draws, and lets PyTorch differentiate those: slower
than the kernels, and right to any order. So it does for many seeds at once (`is_grads_batched=True`), which
no kernel takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from .executor import Executor

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Binding:
    """What one call is bound to.

    differentiating: gives the executor that differentiates, made for the mode of the call. trained: the
    parameters that follow the inputs among the function's tensors. others: every other weight. look: the very
    object of an earlier call where no weight can have changed since.
    """

    executor: Executor
    differentiating: Callable[[], Executor]
    trained: Sequence[str]
    others: Mapping[str, torch.Tensor]
    look: object = None

    @property
    def fixed(self) -> list[str]:
        """The other weights that must stay as they are until the backward pass has run."""
        program = self.executor.program
        if not program.mode.backward:
            return list(self.others)
        return [name for name in self.others if name not in program.moving]


@dataclass
class Call:
    """What a call of a network was given, and its outputs' gradients where a backward pass came."""

    executor: Executor
    inputs: Sequence[torch.Tensor]
    parameters: Mapping[str, torch.Tensor]
    drawn: Tensors
    seeds: Mapping[str, torch.Tensor] | None = None


_record: list[Call] | None = None


@contextmanager
def recorded() -> Iterator[list[Call]]:
    """Inside, calls of networks that are differentiated are kept, for who looks for the fault in one."""
    global _record
    before, _record = _record, []
    try:
        yield _record
    finally:
        _record = before


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """A compiled network has its dtype; autocast would change that of some of PyTorch's operators inside."""
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


class CompiledFunction(torch.autograd.Function):
    """Forward and backward of a program. Arguments: binding, *tensors: inputs, then trained parameters."""

    @staticmethod
    def forward(ctx: Any, binding: Binding, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        executor, fixed = binding.executor, binding.fixed
        program = executor.program
        count = len(tensors) - len(binding.trained)
        bound = {**binding.others, **dict(zip(binding.trained, tensors[count:], strict=True))}
        state = dict(bound)
        for write in program.writes:  # of a batch norm frozen in one call and not in another
            if write.parameter in program.read_back:
                bound[write.parameter] = state[write.parameter].clone()
        outputs, saved = executor.forward(tensors[:count], bound, state, binding.look)
        ctx.binding, ctx.count, ctx.fixed, ctx.call = binding, count, fixed, None
        if _record is not None:
            drawn = executor.drawn_of(saved) if program.mode.backward else {}
            ctx.call = Call(executor, tensors[:count], bound, drawn)
            _record.append(ctx.call)
        ctx.save_for_backward(*tensors, *(bound[name] for name in fixed), *saved)
        known = program.derivatives.seeds or program.loss
        if known:
            constant = [o for name, o in zip(program.outputs, outputs, strict=True) if name not in known]
            ctx.mark_non_differentiable(*constant)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *seeds: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        binding, tensors, count = ctx.binding, ctx.saved_tensors, ctx.count
        if ctx.call is not None:
            ctx.call.seeds = dict(zip(binding.executor.program.outputs, seeds, strict=True))
        given = tensors[: count + len(binding.trained)]
        end = len(given) + len(ctx.fixed)
        bound = {**binding.others, **dict(zip(ctx.fixed, tensors[len(given) : end], strict=True))}
        with without_autocast(binding.executor.device):
            again = torch.is_grad_enabled()
            if again or any(map(_is_batched, seeds)):
                return None, *_by_definition(ctx, given, bound, tensors[end:], seeds, again)
            bound.update(zip(binding.trained, given[count:], strict=True))
            saved = list(tensors[end:])
            del tensors  # so that each value of the forward pass goes after its last reader
            ctx.maybe_clear_saved_tensors()
            return None, *_by_kernels(ctx, given[:count], bound, saved, seeds)


def _is_batched(seed: torch.Tensor) -> bool:
    return torch._C._functorch.is_legacy_batchedtensor(seed) or torch._C._functorch.is_batchedtensor(seed)


def _by_kernels(
    ctx: Any,
    inputs: Sequence[torch.Tensor],
    bound: Tensors,
    saved: list[torch.Tensor],
    seeds: Sequence[torch.Tensor],
) -> list[torch.Tensor | None]:
    """The gradients, by the program's own backward steps. `saved` is emptied."""
    executor: Executor = ctx.binding.executor
    if not executor.program.mode.backward:
        executor = ctx.binding.differentiating()
        _, saved = executor.forward(inputs, bound)
    program = executor.program
    given = dict(zip(program.outputs, seeds, strict=True))
    found = executor.backward(_handed_over(saved), given, bound)
    names = [*(node.name for node in program.inputs), *ctx.binding.trained]
    return [found.get(name) for name in names]


def _handed_over(values: list[torch.Tensor]) -> Iterator[torch.Tensor]:
    """The values in order, none of which the list keeps."""
    values.reverse()
    while values:
        yield values.pop()


def _by_definition(
    ctx: Any,
    given: Sequence[torch.Tensor],
    bound: Tensors,
    saved: Sequence[torch.Tensor],
    seeds: Sequence[torch.Tensor],
    create_graph: bool,
) -> list[torch.Tensor | None]:
    """The gradients as functions of the inputs, the parameters and the seeds that autograd can see."""
    executor: Executor = ctx.binding.executor
    program = executor.program
    drawn = executor.drawn_of(saved) if program.mode.backward else {}
    asked = [place for place, wanted in enumerate(ctx.needs_input_grad[1:]) if wanted]
    # Views, so that a gradient stops here where one of these tensors follows from another.
    here = list(given)
    with torch.enable_grad():
        for place in asked:
            here[place] = given[place].view_as(given[place])
    bound.update(zip(ctx.binding.trained, here[ctx.count :], strict=True))
    with torch.enable_grad():
        outputs = executor.walk(here[: ctx.count], bound, drawn)
    known = program.derivatives.seeds
    pairs = [
        (output, seed)
        for name, output, seed in zip(program.outputs, outputs, seeds, strict=True)
        if output.requires_grad and (name in known or not known)
    ]
    gradients: list[torch.Tensor | None] = [None] * len(given)
    if pairs:
        found = torch.autograd.grad(
            [output for output, _ in pairs],
            [here[place] for place in asked],
            [seed for _, seed in pairs],
            create_graph=create_graph,
            allow_unused=True,
        )
        for place, gradient in zip(asked, found, strict=True):
            gradients[place] = gradient
    return gradients
