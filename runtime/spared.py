"""What freezing weights spares a training step: its plan beside the plan with all of them trained."""

from __future__ import annotations

from dataclasses import dataclass

from ..planning.batches import USUAL as BATCH
from ..planning.memory import readable
from ..planning.program import Program


@dataclass(frozen=True)
class Cost:
    """Of a training step of BATCH examples. launches: kernels of both passes. moved: bytes that they read and
    write, weights included. saved: bytes kept for the backward pass, weights not."""

    launches: int
    moved: int
    saved: int

    @classmethod
    def of(cls, program: Program) -> Cost:
        moved = sum(region.cost(BATCH).bytes for region in program.regions)
        return cls(len(program.regions), moved, program.saved_bytes(BATCH))


@dataclass(frozen=True)
class Spared:
    """frozen: weights that are not trained but could be, of so many. now, before: the step as it is, and were
    all of them trained."""

    frozen: int
    weights: int
    now: Cost
    before: Cost

    @classmethod
    def of(cls, now: Program, before: Program, frozen: int, weights: int) -> Spared:
        return cls(frozen, weights, Cost.of(now), Cost.of(before))

    def __str__(self) -> str:
        now, before = self.now, self.before
        return (
            f"Frozen: {self.frozen} of {self.weights} weights. A training step of {BATCH} examples takes "
            f"{now.launches} kernels rather than {before.launches}, moves {readable(now.moved)} rather than "
            f"{readable(before.moved)}, and keeps {readable(now.saved)} rather than {readable(before.saved)} "
            f"for its backward pass."
        )
