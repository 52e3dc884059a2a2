"""A kernel: one region as the text of a file that runs by itself, and what is known before it runs."""

from __future__ import annotations

import types
from dataclasses import dataclass, field
from functools import cached_property

from ..graph.ir import Node
from ..planning.regions import Region
from ..planning.schedules import Schedule
from .machine.aot import Request, compile_request
from .machine.installed import require_triton
from .machine.resources import Resources
from .text.source import KernelFile

Specialization = tuple[str, dict[str, str], dict[str, object]]
"""(jitted function, argument -> type, constant -> value)"""


@dataclass
class Kernel:
    """One emitted file.

    source: its text. code: the same without the layers' names, which is what runs: one for all equal regions.
    functions: its jitted functions in the order `launch` calls them, each with a key that is equal where one
    compiled function serves.
    specializations, warps, stages: of each function, what ahead-of-time compilation needs to know.
    """

    region: Region
    source: str
    code: str
    schedule: Schedule
    functions: dict[str, str]
    specializations: list[Specialization]
    options: list[tuple[int, int]]
    _modules: dict[bool, types.ModuleType] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, file: KernelFile, region: Region) -> Kernel:
        """The kernel of a filled-in file."""
        jitted = file.functions
        return cls(
            region,
            file.text,
            file.code,
            file.schedule,
            {f.name: f.key for f in jitted},
            [(f.name, f.signature(), dict(f.constants)) for f in jitted],
            [(f.warps, f.stages) for f in jitted],
        )

    @property
    def name(self) -> str:
        return self.region.name

    @property
    def function(self) -> str:
        """The jitted function that does the work."""
        return next(iter(self.functions))

    @property
    def launches(self) -> int:
        """Launches a call makes: 2 where a second kernel finishes a reduction."""
        return len(self.functions)

    @cached_property
    def layers(self) -> list[str]:
        """The user's layers it came from."""
        return self.region.layers

    @cached_property
    def ops(self) -> list[str]:
        return [node.op.op_name() for node in self.region.nodes]

    @property
    def inputs(self) -> list[Node]:
        """Values `launch` reads, in the order it takes them."""
        return self.region.inputs

    @property
    def outputs(self) -> list[Node]:
        """Values `launch` writes, in the order it takes them after the inputs."""
        return self.region.outputs

    def flops(self, batch: int = 1) -> int:
        return self.region.cost(batch).flops

    def bytes(self, batch: int = 1) -> int:
        return self.region.cost(batch).bytes

    def requests(self, target: str) -> list[Request]:
        """What to compile ahead of time for `target`."""
        return [
            Request(self.code, name, signature, constants, target, warps, stages)
            for (name, signature, constants), (warps, stages) in zip(
                self.specializations, self.options, strict=True
            )
        ]

    def resources(self, target: str) -> list[Resources]:
        """Registers, spills and shared memory of each jitted function on `target`; compiles, needs no GPU."""
        return [compile_request(request) for request in self.requests(target)]

    def load(self, interpreted: bool) -> types.ModuleType:
        """The file as a module with `launch`, `reference` and `example`: one for all of equal code."""
        if interpreted not in self._modules:
            require_triton("running a kernel")
            from .machine.loaded import load

            self._modules[interpreted] = load(self.code, self.functions, interpreted)
        return self._modules[interpreted]

    def __str__(self) -> str:
        return f"{self.name}: {', '.join(self.ops)} ({self.schedule})"
