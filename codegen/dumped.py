"""The kernels of a program in the folder of CONVLOOM_DUMP, and what each takes on the program's target."""

from __future__ import annotations

import atexit
import sys
import threading
from collections.abc import Sequence

from ..graph.dump import Dump
from ..graph.errors import CompileError
from ..planning.program import Program
from .kernel import Kernel
from .machine.aot import Request, compile_by
from .machine.installed import has_triton
from .machine.resources import Resources
from .machine.workers import Worker

RESOURCES = "resources.txt"

_COMPILER: Worker[Resources] = Worker()
_ONE_AT_A_TIME = threading.Lock()
atexit.register(_COMPILER.close)


def dump_kernels(program: Program, found: Sequence[Kernel | CompileError], dump: Dump) -> None:
    """Write each kernel's file, and begin to compile them for what they take.

    Compiling takes seconds a kernel. It goes on in another process while this one computes, which waits for
    it at its end.
    """
    emitted = [kernel for kernel in found if isinstance(kernel, Kernel)]
    for kernel in emitted:
        dump.write(f"kernels/{kernel.name}.py", kernel.source)
    pairs = zip(program.regions, found, strict=True)
    lines = [f"{region.name}: no kernel: {why}" for region, why in pairs if isinstance(why, CompileError)]
    requests = [(kernel.name, request) for kernel in emitted for request in kernel.requests(program.target)]
    if not has_triton():
        lines += [f"{name}: triton, which compiles it, is not installed" for name, _ in requests]
        requests = []
    if not requests:
        dump.write(RESOURCES, "\n".join(lines) or "no kernels")
        return
    what = f"{len(requests)} kernels for {program.target}"
    print(f"CONVLOOM_DUMP: compiling {what}, to write {dump.folder / RESOURCES}", file=sys.stderr)
    threading.Thread(target=_compile, args=(dump, requests, lines), name="CONVLOOM_DUMP").start()


def _compile(dump: Dump, requests: Sequence[tuple[str, Request]], lines: Sequence[str]) -> None:
    with _ONE_AT_A_TIME:
        found = compile_by(_COMPILER, [request for _, request in requests])
    told = [f"{name}: {used}" for (name, _), used in zip(requests, found, strict=True)]
    dump.write(RESOURCES, "\n".join([*told, *lines]))
