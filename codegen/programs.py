"""The kernels of a program: emitted once, and kept with it."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from ..graph.errors import CompileError
from ..graph.settings import SOURCES, settings
from ..planning.program import Program
from ..planning.regions import Region
from .dispatch import emit
from .dumped import dump_kernels
from .kernel import Kernel

_KEPT: WeakKeyDictionary[Program, list[Kernel | CompileError]] = WeakKeyDictionary()


def kernels(program: Program) -> list[Kernel | CompileError]:
    """For each of `program.regions`, in order, its kernel, or why there is none."""
    found = _KEPT.get(program)
    if found is None:
        found = _KEPT[program] = [_emitted(program, region) for region in program.regions]
        if program.dump is not None:
            dump_kernels(program, found, program.dump)
    return found


def _emitted(program: Program, region: Region) -> Kernel | CompileError:
    try:
        kernel = emit(region, precision=program.precision, target=program.target)
    except CompileError as error:
        settings.say(SOURCES, f"no kernel {region.name}: {error}")
        return error
    settings.say(SOURCES, lambda: f"source of {kernel.name}:\n{kernel.source}")
    return kernel
