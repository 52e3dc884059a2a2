"""The kernels of a program: emitted once, and kept with it."""

from __future__ import annotations

from dataclasses import replace
from weakref import WeakKeyDictionary

from ..graph.errors import CompileError
from ..graph.settings import SOURCES, settings
from ..planning.batches import class_of
from ..planning.forms import NotEmittable
from ..planning.program import Choice, Program, Step
from .dispatch import write
from .dumped import dump_kernels
from .kernel import Kernel

_KEPT: WeakKeyDictionary[Program, dict[int, list[Kernel | CompileError]]] = WeakKeyDictionary()


def kernels(program: Program, batch: int | None = None) -> list[Kernel | CompileError]:
    """For each of `program.regions`, in order, its kernel, or why there is none.

    batch: images of a call, whose class the schedules are for; None: the program's own. A kernel that is the
    same for several classes is one. Each has a text of its own, which names its layers; of regions that are
    equal but for names, the kernel of the first is loaded and compiled for all.
    """
    usual = class_of(program.batch if batch is None else batch)
    kept = _KEPT.setdefault(program, {})
    found = kept.get(usual)
    if found is None:
        first: dict[tuple[str, Choice], Kernel] = {}
        steps = [step for step in program.steps if step.region.launches]
        found = [_of_class(step, usual, place, kept, first) for place, step in enumerate(steps)]
        kept[usual] = found
        if program.dump is not None and usual == class_of(program.batch):
            dump_kernels(program, found, program.dump)
    return found


def _of_class(
    step: Step,
    usual: int,
    place: int,
    kept: dict[int, list[Kernel | CompileError]],
    first: dict[tuple[str, Choice], Kernel],
) -> Kernel | CompileError:
    """A step's kernel for a class of batches: that of another class, if it is the same."""
    choice = step.at(usual)
    other = next((found[place] for known, found in kept.items() if step.at(known) == choice), None)
    return _written(step, choice, first) if other is None else other


def _written(step: Step, choice: Choice, first: dict[tuple[str, Choice], Kernel]) -> Kernel | CompileError:
    if choice.form is None or choice.schedule is None:
        return NotEmittable(choice.reason)
    try:
        kernel = write(step.region, choice.form, choice.schedule, step.precision)
    except CompileError as error:
        settings.say(SOURCES, f"no kernel {step.region.name}: {error}")
        return error
    settings.say(SOURCES, lambda: f"source of {kernel.name}:\n{kernel.source}")
    twin = first.setdefault((step.region.key, choice), kernel)
    return kernel if twin is kernel else replace(kernel, twin=twin)
