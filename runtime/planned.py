"""A network's programs, each planned once, and what runs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..codegen import Kernel, kernels
from ..codegen.machine.installed import require_triton
from ..graph.errors import CompileError
from ..graph.ir import Graph
from ..graph.op import Kind
from ..graph.ops.random import Streams
from ..graph.settings import settings
from ..graph.weights import Weight
from ..planning.modes import Mode
from ..planning.program import Program, plan
from ..planning.targets import known_as
from ..planning.targets import target as find_target
from .backends import Backend
from .checks import whole
from .executor import Executor
from .held import HeldWeights
from .spared import Spared


class Planned(HeldWeights):
    """Keeps a program for each mode and architecture, and an executor for each mode that has run."""

    source: Graph
    """Before any pass."""
    _programs: dict[tuple[Mode, str], Program]
    _executors: dict[Mode, Executor]
    _streams: Streams
    _differentiated: Sequence[str] | None

    @property
    def is_open(self) -> bool:
        """Whether axes are left without a size."""
        return False

    def _thawed(self) -> Graph:
        """The source as if no layer were frozen."""
        return self.source

    def check_closed(self) -> None:
        """Raise CompileError where a program is wanted, and axes without a size do not allow one."""

    def _mode(
        self,
        training: bool | None = None,
        backward: bool = False,
        wrt_inputs: frozenset[str] = frozenset(),
        trained: frozenset[str] | None = None,
    ) -> Mode:
        """A mode of this network; training None: that of the current one."""
        now = self.training if training is None else training
        fuse = self.options.fuse
        recompute = backward and fuse and self.options.recompute
        joined = now and self.options.sync_batch_norm
        return Mode(now, backward, wrt_inputs, trained, fuse, recompute, joined)

    def _program(self, mode: Mode, target: str) -> Program:
        """The program of a mode, planned the first time it is needed."""
        key = (mode, target)
        if key not in self._programs:
            precision = self.options.precision
            program = self._programs[key] = plan(
                self.source, mode, target=target, precision=precision, loss=self._differentiated
            )
            if settings.wants_sources:
                kernels(program)
        return self._programs[key]

    def _executor(self, mode: Mode) -> Executor:
        """What runs the program of a mode, made the first time it is needed."""
        executor = self._executors.get(mode)
        if executor is None:
            o = self.options
            program = self._program(mode, o.target)
            executor = self._executors[mode] = Executor(program, Backend(o.backend, o.device), self._streams)
        return executor

    @property
    def executor(self) -> Executor:
        """What runs the program of the current mode."""
        return self._executor(self.program.mode)

    def planned(
        self, *, training: bool | None = None, target: str | None = None, fuse: bool | None = None
    ) -> Program:
        """The program of inference, or of a training step: forward and backward together.

        By default that of the current mode, for the device's own architecture, fused as the network is. It is
        planned once, and is what runs, what `kernels` are emitted from and what `explain` tells of.
        """
        self.check_closed()
        weights = self.weights()
        mode = self._mode(training)
        if mode.training:
            trained = frozenset(name for name, p in weights.items() if p.requires_grad)
            mode = self._mode(training, True, trained=trained)
        mode = mode if fuse is None else replace(mode, fuse=fuse)
        return self._program(mode, target or self.options.target)

    def prepare(self, batch_size: int = 1, *, target: str | None = None) -> None:
        """Compile the kernels of the current mode that a call with such a batch launches, side by side.

        They serve every batch of its class: 1, 8, 32, 256. Where the network runs on a GPU by kernels, its
        first call of each class does that by itself. target: a card such as "H200" or an architecture, which
        need not be here: Triton's cache (TRITON_CACHE_DIR) then holds what a network on such a card launches.
        Without it a network on the CPU has nothing to prepare.
        Raises CompileError, with the reasons, where kernels do not compile.
        """
        batch = whole(batch_size, "batch_size", 1)
        chip = None if target is None else find_target(target).gpu
        if chip is None and self.options.device.type != "cuda":
            return
        require_triton("compiling kernels")
        from .ahead import prepare

        program = self.planned(target=None if target is None else known_as(target))
        failed = prepare(program, batch, chip)
        if failed:
            told = "; ".join(f"{name}: {why}" for name, why in failed.items())
            raise CompileError(f"{program.graph.name}: kernels that do not compile: {told}")

    @property
    def program(self) -> Program:
        """The program of the current mode: in training, forward and backward together."""
        return self.planned()

    @property
    def graph(self) -> Graph:
        """The graph after the passes of the current mode."""
        return self.program.graph

    @property
    def kernels(self) -> list[Kernel]:
        """The regions of the current mode as emitted kernels, whichever backend runs them.

        Raises CompileError where a region has none.
        """
        regions = self.program.regions
        own = [region.anchor.op.kind is not Kind.COLLECTIVE for region in regions]
        found = [kernel for kernel, is_own in zip(kernels(self.program), own, strict=True) if is_own]
        for kernel in found:
            if isinstance(kernel, CompileError):
                raise kernel
        return [kernel for kernel in found if isinstance(kernel, Kernel)]

    def explain(self) -> str:
        """Each pass and fusion rule of the current mode: what it matched, what it refused, and why; in
        training, what frozen weights spare too."""
        spared = self.spared() if self.training else None
        return self.program.explain() + (f"\n{spared}" if spared else "")

    def spared(self) -> Spared | None:
        """What a training step is spared by weights that are not trained now, though they could be: of
        frozen layers, and of which `requires_grad` was taken away. None where all are, and where axes without
        a size leave nothing to plan."""
        weights = self.weights()
        could = frozenset(name for name, weight in weights.items() if isinstance(weight, Weight))
        frozen = [name for name in could if not weights[name].requires_grad]
        if not frozen or self.is_open:
            return None
        now, mode = self.planned(training=True), self._mode(True, True, trained=could)
        loss = self._differentiated
        before = plan(self._thawed(), mode, target=now.target, precision=now.precision, loss=loss)
        return Spared.of(now, before, len(frozen), len(could))
