"""The kernels of a program: emitted once, and kept with it."""

from __future__ import annotations

from dataclasses import replace
from weakref import WeakKeyDictionary

from ..graph.errors import CompileError
from ..planning.forms import NotEmittable
from ..planning.program import Program, Step
from .dispatch import write
from .kernel import Kernel

_KEPT: WeakKeyDictionary[Program, list[Kernel | CompileError]] = WeakKeyDictionary()


def kernels(program: Program) -> list[Kernel | CompileError]:
    """For each of `program.regions`, in order, its kernel, or why there is none.

    Each has a text of its own, which names its layers; of regions that are equal but for names, the kernel of
    the first is loaded and compiled for all.
    """
    found = _KEPT.get(program)
    if found is None:
        steps = {step.region.name: step for step in program.steps}
        first: dict[str, Kernel] = {}
        emitted = [_emitted(program, steps[region.name], first) for region in program.regions]
        found = _KEPT[program] = emitted
    return found


def _emitted(program: Program, step: Step, first: dict[str, Kernel]) -> Kernel | CompileError:
    if step.form is None or step.schedule is None:
        return NotEmittable(step.reason)
    try:
        kernel = write(step.region, step.form, step.schedule, program.precision)
    except CompileError as error:
        return error
    twin = first.setdefault(step.region.key, kernel)
    return kernel if twin is kernel else replace(kernel, twin=twin)
