"""The kernels of a program: emitted once, and kept with it."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from ..graph.errors import CompileError
from ..planning.program import Program
from ..planning.regions import Region
from .dispatch import emit
from .kernel import Kernel

_KEPT: WeakKeyDictionary[Program, list[Kernel | CompileError]] = WeakKeyDictionary()


def kernels(program: Program) -> list[Kernel | CompileError]:
    """For each of `program.regions`, in order, its kernel, or why there is none."""
    found = _KEPT.get(program)
    if found is None:
        found = _KEPT[program] = [_emitted(program, region) for region in program.regions]
    return found


def _emitted(program: Program, region: Region) -> Kernel | CompileError:
    try:
        return emit(region, precision=program.precision, target=program.target)
    except CompileError as error:
        return error
