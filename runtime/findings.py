"""What profiling found, as numbers: a network fused and unfused, kernel by kernel."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from ..codegen.machine.resources import Resources
from ..planning.memory import readable
from .arena import Arena, StepMemory

FORMAT = "convloom-profile-2"

PHASES = ("forward", "loss", "backward", "optimizer")
"""Of a training step, in order; inference has the first alone. A kernel of the forward pass that needs a
target is of the loss, whatever else it computes."""


@dataclass(frozen=True)
class Row:
    """One kernel. seconds: median of the measured times. roofline_seconds: the least on the named GPU.

    flops, bytes: for one batch, bytes being what the kernel reads and writes. launches: of its Triton kernel.
    replaced_by: in the unfused network, the fused kernel that does this one's work ("" where none does).
    note: why there is no Triton kernel, where there is none. phase: one of PHASES.
    """

    name: str
    layers: tuple[str, ...]
    ops: tuple[str, ...]
    kind: str
    launches: int
    flops: int
    bytes: int
    seconds: float
    roofline_seconds: float | None
    replaced_by: str = ""
    note: str = ""
    phase: str = "forward"

    @property
    def intensity(self) -> float:
        """FLOPs a byte."""
        return self.flops / self.bytes if self.bytes else 0.0


@dataclass(frozen=True)
class Side:
    """The network in one form. call_seconds: of a whole call, or training step, with all that lies between
    the kernels. peak_bytes: the most it took of the GPU's memory, weights included; None on a CPU."""

    rows: tuple[Row, ...]
    call_seconds: float
    peak_bytes: int | None = None

    def in_phase(self, phase: str) -> Side:
        """Its kernels of one phase; the seconds of a call stay those of all."""
        return Side(tuple(row for row in self.rows if row.phase == phase), self.call_seconds, self.peak_bytes)

    @property
    def launches(self) -> int:
        return sum(row.launches for row in self.rows)

    @property
    def flops(self) -> int:
        return sum(row.flops for row in self.rows)

    @property
    def bytes(self) -> int:
        return sum(row.bytes for row in self.rows)

    @property
    def seconds(self) -> float:
        """Sum of the kernels' medians."""
        return sum(row.seconds for row in self.rows)

    @property
    def roofline_seconds(self) -> float | None:
        return total(row.roofline_seconds for row in self.rows)

    def of(self, fused: str) -> list[Row]:
        """The unfused rows whose work the kernel `fused` does."""
        return [row for row in self.rows if row.replaced_by == fused]


@dataclass(frozen=True)
class Setup:
    """How it was measured. machine, backend: of the measured times. target, gpu: of the others."""

    model: str
    batch_size: int
    dtype: str
    backend: str
    machine: str
    repeats: int
    target: str
    gpu: str | None
    versions: dict[str, str] = field(default_factory=dict)
    training: str = ""
    """Loss and optimizer of the training step; "" for inference."""

    @property
    def what(self) -> str:
        return f"a training step ({self.training})" if self.training else "inference"

    def notes(self, with_resources: bool) -> list[str]:
        """What is measured, what is derived, and on what machine: one sentence each."""
        through = "the emitted Triton kernels" if self.backend == "triton" else "PyTorch's operators (aten)"
        lines = [
            f"Measured: times of {self.what}, through {through} on {self.machine}; median of {self.repeats} "
            f"runs, fused and unfused in turn.",
            "Derived from the graph: FLOPs, and bytes, as every kernel reads its operands and writes its "
            "results once. Launches are those of the Triton kernels.",
        ]
        if self.gpu:
            lines.append(
                f"Derived for {self.gpu}, not measured: roofline = max(FLOPs / peak {self.dtype} rate, "
                f"bytes / bandwidth)."
            )
        if with_resources:
            lines.append(
                f"Static: registers, spills, shared memory, of code compiled for {self.target} and not run."
            )
        return lines


@dataclass(frozen=True)
class Findings:
    """Both sides and how they were measured.

    arena: the memory between the fused network's kernels in inference, None for a training step. step,
    unfused_step: that of a training step, None where none can be planned.
    resources: kernel name -> what each of its functions takes on the target; empty where not asked for.
    """

    setup: Setup
    fused: Side
    unfused: Side
    arena: Arena | None = None
    step: StepMemory | None = None
    unfused_step: StepMemory | None = None
    resources: dict[str, tuple[Resources, ...]] = field(default_factory=dict)

    def ratios(self) -> dict[str, float]:
        """Unfused over fused: how many times less the fused network launches, moves and takes."""
        pairs: dict[str, tuple[float | None, float | None]] = {
            "launches": (self.unfused.launches, self.fused.launches),
            "bytes": (self.unfused.bytes, self.fused.bytes),
            "seconds": (self.unfused.seconds, self.fused.seconds),
            "call_seconds": (self.unfused.call_seconds, self.fused.call_seconds),
            "roofline_seconds": (self.unfused.roofline_seconds, self.fused.roofline_seconds),
        }
        return {name: above / below for name, (above, below) in pairs.items() if above and below}

    def notes(self) -> list[str]:
        """What the numbers are, what stands in the way of some of them, and what lies in memory."""
        planned = [f"Planned, memory {sentence}" for sentence, _ in self.memory()]
        return [*self.about_numbers(), *planned]

    def about_numbers(self) -> list[str]:
        """What the numbers are, and what stands in the way of some of them: one sentence each."""
        named: dict[str, list[str]] = {}
        for row in self.fused.rows:
            if row.note:
                named.setdefault(row.note, []).append(row.name)
        missing = [f"{', '.join(names)}: {note}" for note, names in named.items()]
        return [*self.setup.notes(bool(self.resources)), *self._peaks(), *missing]

    def _peaks(self) -> list[str]:
        fused, unfused = self.fused.peak_bytes, self.unfused.peak_bytes
        if fused is None or unfused is None:
            return []
        return [f"Measured: at most {readable(fused)} of memory taken fused, {readable(unfused)} unfused."]

    def memory(self) -> list[tuple[str, Arena | None]]:
        """What lies in memory between the fused network's kernels: sentences, each with its arena."""
        found: list[tuple[str, Arena | None]] = []
        if self.arena:
            found.append((f"between the kernels in inference: {self.arena.summary}.", self.arena))
        if step := self.step:
            kept = f"kept for the backward pass, beside the weights: {readable(step.saved_bytes)}."
            found.append((f"in a training step, forward: {step.forward.summary}.", step.forward))
            found += [(kept, None), (f"backward: {step.backward.summary}.", step.backward)]
        if (step := self.unfused_step) and self.setup.training:
            kept, forward, backward = map(
                readable, (step.saved_bytes, step.forward.nbytes, step.backward.nbytes)
            )
            arenas = f"arenas of {forward} forward and {backward} backward"
            found.append((f"of the unfused step: {kept} kept, {arenas}.", None))
        return found

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values: seconds, bytes, FLOPs."""
        return {
            "format": FORMAT,
            "setup": asdict(self.setup),
            "notes": self.notes(),
            "fused": _side_dict(self.fused),
            "unfused": _side_dict(self.unfused),
            "ratios": self.ratios(),
            "arena": None if self.arena is None else asdict(self.arena),
            "step": None if self.step is None else asdict(self.step),
            "unfused_step": None if self.unfused_step is None else asdict(self.unfused_step),
            "resources": {name: [asdict(r) for r in found] for name, found in self.resources.items()},
        }


def total(values: Iterable[float | None]) -> float | None:
    """The sum, or None where a value is not known."""
    known = list(values)
    return None if None in known else sum(value for value in known if value is not None)


def _side_dict(side: Side) -> dict[str, Any]:
    rows = [{**asdict(row), "intensity": row.intensity} for row in side.rows]
    totals = {
        "launches": side.launches,
        "flops": side.flops,
        "bytes": side.bytes,
        "seconds": side.seconds,
        "call_seconds": side.call_seconds,
        "roofline_seconds": side.roofline_seconds,
        "peak_bytes": side.peak_bytes,
    }
    phases = {
        phase: {"launches": part.launches, "flops": part.flops, "bytes": part.bytes, "seconds": part.seconds}
        for phase in PHASES
        if (part := side.in_phase(phase)).rows
    }
    return {"rows": rows, "totals": totals, "phases": phases}
