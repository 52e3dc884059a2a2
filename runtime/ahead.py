"""Compiling a program's kernels before its first call, in several processes, so that no launch waits."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ..codegen import Kernel, kernels
from ..graph.settings import settings
from ..planning.program import Program
from ..planning.targets import Chip
from .compile_bar import CompileBar
from .room import room

WORTH_A_PROCESS = 3
"""Kernels for which it is worth starting another process, which takes two or three seconds: a guess."""


def prepare(program: Program, batch: int, chip: Chip | None = None) -> Mapping[str, str]:
    """Compile what Triton's cache does not hold of the kernels that a call with such a batch launches, and
    with it all of its class.

    chip: to compile for, where it is not the current device: its launches then find all in the cache.
    Returns the functions that do not compile, and why; their launches tell of it too.
    """
    from ..codegen.machine import ahead

    tensors = _Tensors(program, batch)
    wants: dict[ahead.Wanted, object] = {}
    for kernel in kernels(program, batch):
        if isinstance(kernel, Kernel):
            given = [tensors[node.name] for node in (*kernel.inputs, *kernel.outputs)]
            wants |= ahead.launch_wants(kernel.load(interpreted=False), kernel.functions, given, chip)
    jobs = max(1, min(settings.jobs, len(wants) // WORTH_A_PROCESS))
    with CompileBar(program.graph.name) as bar:
        return ahead.prepare(wants, jobs, chip, bar.told).failed


class _Tensors:
    """The values of a program as tensors without memory, at the places that they have in a call."""

    def __init__(self, program: Program, batch: int) -> None:
        self._graph, self._batch = program.graph, batch
        self._found: dict[str, torch.Tensor] = {}
        like = torch.empty(batch, device="meta")
        memories = {"forward": program.memory, "backward": program.backward_memory}
        for phase, memory in memories.items():
            taking = room(program.graph, memory, program.partition.phase(phase), like.device)
            if taking is not None:
                given = taking.run(*[like] * len(taking.reads))
                values = (given,) if len(taking.writes) == 1 else given
                self._found.update(zip(taking.writes, values, strict=True))

    def __getitem__(self, name: str) -> torch.Tensor:
        found = self._found.get(name)
        if found is None:
            kind = self._graph[name].type
            size = kind.size(self._batch)
            found = self._found[name] = torch.empty(size, dtype=kind.torch_dtype, device="meta")
        return found
