"""The kernels of a program: emitted once, and kept with it."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from ..graph.errors import CompileError
from ..graph.settings import SOURCES, settings
from ..planning.forms import NotEmittable
from ..planning.program import Program, Step
from .dispatch import write
from .dumped import dump_kernels
from .kernel import Kernel

_KEPT: WeakKeyDictionary[Program, list[Kernel | CompileError]] = WeakKeyDictionary()


def kernels(program: Program) -> list[Kernel | CompileError]:
    """For each of `program.regions`, in order, its kernel, or why there is none.

    Each has a text of its own, which names its layers; the code of those that are equal but for names is
    loaded and compiled once.
    """
    found = _KEPT.get(program)
    if found is None:
        found = [_written(step) for step in program.steps if step.region.launches]
        _KEPT[program] = found
        if program.dump is not None:
            dump_kernels(program, found, program.dump)
    return found


def _written(step: Step) -> Kernel | CompileError:
    if step.form is None or step.schedule is None:
        return NotEmittable(step.reason)
    try:
        kernel = write(step.region, step.form, step.schedule, step.precision)
    except CompileError as error:
        settings.say(SOURCES, f"no kernel {step.region.name}: {error}")
        return error
    settings.say(SOURCES, lambda: f"source of {kernel.name}:\n{kernel.source}")
    return kernel
