"""A region as a short program of operator calls.

The members become steps in the order the graph gives them, several members one step where one call computes
them together. Values live in numbered slots, dropped after their last reader; a step writes into its operand
where that is a value of the region's own that nobody needs afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from ...graph.ir import Graph, Node
from ...graph.op import Kind
from ...graph.ops import KNOWN, Add, Conv2D, Dense, Parameter
from ...graph.types import HALF
from ...planning.regions import Region

# Imported for their rows in the table of forms.
from . import (  # noqa: F401
    contraction,
    contraction_gradients,
    look_up,
    pointwise,
    pooling,
    reduction,
    resize,
    warp,
)
from .forms import Form, form_of, has_form, inplace_form_of, makes_memory
from .joint import JOINT, Step
from .pointwise import MIXED

Runner = Callable[[Sequence[torch.Tensor]], tuple[torch.Tensor, ...]]


def lower(region: Region, *, inference: bool) -> Runner:
    """The region as a function from the tensors of `region.inputs` to those of `region.outputs`, in order.

    Tensors are contiguous, in the IR's layouts and of any batch size; so are the results. Dtypes may be
    float64, float32, bfloat16 and float16; the device may be any. To be called with gradients off.
    inference: weights stay the same over many calls, so packed copies of them are kept. In training
    only frozen ones do. A weight that is written to, or another tensor in its place, is packed anew.
    """
    steps = _in_place(region, _steps(region, inference))
    return _Program(region, steps).runner()


# -- choosing the steps ----------
def _steps(region: Region, inference: bool) -> list[Step]:
    covered: dict[str, Step] = {}
    for node in region.nodes:
        if node.name in covered:
            continue
        matcher = JOINT.get(type(node.op))
        remember = inference or _is_fixed(region.graph, node)
        step = matcher(region, node, remember) if matcher else None
        if step is None or any(name in covered for name in step.covers):
            step = Step(_form(region.graph, node), node.inputs, (node.name,), node.name, (node.name,), node)
        covered.update(dict.fromkeys(step.covers, step))
    # A step runs at the turn of the member it names: by then all it reads is there.
    return [covered[node.name] for node in region.nodes if covered[node.name].at == node.name]


def _form(graph: Graph, node: Node) -> Form:
    """The form of a node by itself. Where none is written for its op, or none for operands of several dtypes,
    half precision is computed with in float32, as kernels do."""
    dtypes = {graph[name].type.dtype for name in node.inputs if graph[name].type.is_floating}
    known = has_form(node.op) and (len(dtypes) < 2 or isinstance(node.op, MIXED))
    as_it_is = known or not makes_memory(node.op) or not dtypes.intersection(HALF)
    return form_of(node.op) if as_it_is else node.evaluate


def _is_fixed(graph: Graph, node: Node) -> bool:
    """Whether a contraction's weight follows from frozen parameters alone: it stays while others train."""
    behind = [node.inputs[1]] if isinstance(node.op, Conv2D | Dense) else []
    fixed = bool(behind)
    while behind and fixed:
        value = graph[behind.pop()]
        frozen = isinstance(value.op, Parameter) and not value.op.trainable
        fixed = bool(value.inputs) or frozen or isinstance(value.op, KNOWN)
        behind += value.inputs
    return fixed


def _in_place(region: Region, steps: list[Step]) -> list[Step]:
    """Give each pointwise step its overwriting form where its first operand is free to be overwritten."""
    last = _last_needs(region, steps)
    owned: set[str] = set()
    for index, step in enumerate(steps):
        for operands in _orders(step):
            target = operands[0]
            free = target in owned and last[target] == index and operands.count(target) == 1
            if step.node is not None and free and _same_memory(region.graph[target], step.node):
                overwrite = inplace_form_of(step.node.op)
                if overwrite is not None:
                    step.run, step.reads, step.overwrites = overwrite, operands, True
                    break
        owned.update(name for name in step.writes if makes_memory(region.members[name].op))
    return steps


def _last_needs(region: Region, steps: list[Step]) -> dict[str, int]:
    """The last step that needs each value's memory, itself or through what may be a view of it.

    The region's outputs are needed after the last.
    """
    last = {node.name: len(steps) for node in region.outputs}
    for index, step in reversed(list(enumerate(steps))):
        views = [name for name in step.writes if not makes_memory(region.members[name].op)]
        needed = max([index, *(last.get(name, index) for name in views)])
        for name in step.reads:
            last[name] = max(last.get(name, 0), needed)
    return last


def _orders(step: Step) -> list[tuple[str, ...]]:
    """The operands, and for an addition also the other way round."""
    if step.node is not None and isinstance(step.node.op, Add):
        return [step.reads, step.reads[::-1]]
    return [step.reads]


def _same_memory(operand: Node, node: Node) -> bool:
    return node.op.kind is Kind.POINTWISE and operand.type == node.type


# -- running them ----------
class _Instruction(NamedTuple):
    """run(slots[reads]...) -> slots[writes]; `dead` are the slots nobody reads any more."""

    run: Callable[..., Any]
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    dead: tuple[int, ...]


class _Program:
    """Steps over numbered slots, the inputs' slots first."""

    def __init__(self, region: Region, steps: list[Step]) -> None:
        names = [node.name for node in region.inputs]
        names += [name for step in steps for name in step.writes]
        self.slot = {name: index for index, name in enumerate(names)}
        self.inputs = len(region.inputs)
        self.results = tuple(self.slot[node.name] for node in region.outputs)
        last = {self.slot[name]: i for i, step in enumerate(steps) for name in step.reads}
        self.blank = [None] * (len(self.slot) - self.inputs)
        self.code = [self._instruction(index, step, last) for index, step in enumerate(steps)]

    def _instruction(self, index: int, step: Step, last: dict[int, int]) -> _Instruction:
        reads = tuple(self.slot[name] for name in step.reads)
        writes = tuple(self.slot[name] for name in step.writes)
        dead = tuple(
            slot for slot in dict.fromkeys(reads) if last[slot] == index and slot not in self.results
        )
        return _Instruction(step.run, reads, writes, dead)

    def runner(self) -> Runner:
        only = self.code[0] if len(self.code) == 1 else None
        if only is not None and only.reads == tuple(range(self.inputs)) and only.writes == self.results:
            return _single(only.run, len(only.writes))
        return self._run

    def _run(self, tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        slots: list[Any] = [*tensors, *self.blank]
        for run, reads, writes, dead in self.code:
            value = run(*[slots[i] for i in reads])
            if len(writes) == 1:
                slots[writes[0]] = value
            else:
                for slot, part in zip(writes, value, strict=True):
                    slots[slot] = part
            for slot in dead:
                slots[slot] = None
        return tuple([slots[i].contiguous() for i in self.results])


def _single(run: Callable[..., object], results: int) -> Runner:
    """A region of one call, without slots."""
    if results == 1:
        return lambda tensors: (run(*tensors).contiguous(),)  # type: ignore[attr-defined]
    return lambda tensors: tuple(value.contiguous() for value in run(*tensors))  # type: ignore[attr-defined]
