"""The memory between a network's kernels, as a picture: what lies where in the arena, from step to step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from ..planning.memory import Memory, readable
from ..planning.program import Program

WIDTH, HEIGHT = 1160, 260
"""Of the picture, in its own units; it scales with the page."""


@dataclass(frozen=True)
class Run:
    """A buffer in the arena: needed from step `first` to step `last`, at bytes offset to offset + nbytes."""

    name: str
    first: int
    last: int
    offset: int
    nbytes: int


@dataclass(frozen=True)
class Arena:
    """The arena for one batch. steps: the kernels in their order. nbytes: of the arena; least: needed at the
    fullest step; separate: of all buffers side by side. summary: the same in a sentence."""

    steps: tuple[str, ...]
    runs: tuple[Run, ...]
    nbytes: int
    least: int
    separate: int
    summary: str

    @classmethod
    def of(cls, memory: Memory, steps: Sequence[str], batch: int) -> Arena:
        """The arena of a memory plan, its steps called by these names."""
        layout = memory.layout(batch)
        runs = tuple(
            Run(b.name, b.first, b.last, layout.offsets[b.name], b.nbytes(batch)) for b in memory.buffers
        )
        text = memory.summary(batch)
        return cls(tuple(steps), runs, layout.nbytes, layout.least, layout.separate, text)


@dataclass(frozen=True)
class StepMemory:
    """The memory of a training step for one batch: the arenas of both passes, and the bytes that are kept
    between them."""

    forward: Arena
    backward: Arena
    saved_bytes: int

    @classmethod
    def of(cls, program: Program, batch: int) -> StepMemory:
        forward, backward = (
            Arena.of(memory, [step.region.name for step in steps], batch)
            for memory, steps in (
                (program.memory, program.forward),
                (program.backward_memory, program.backward),
            )
        )
        return cls(forward, backward, program.saved_bytes(batch))


def arena_picture(arena: Arena) -> str:
    """An SVG: steps from left to right, bytes from below, a rectangle for every buffer, named on hovering."""
    wide = WIDTH / max(len(arena.steps), 1)
    high = HEIGHT / max(arena.nbytes, 1)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(arena.summary)}" class="arena">'
    ]
    for run in arena.runs:
        last = min(run.last, len(arena.steps) - 1)
        x, width = run.first * wide, (last - run.first + 1) * wide
        y, height = HEIGHT - (run.offset + run.nbytes) * high, run.nbytes * high
        title = f"{run.name}: {readable(run.nbytes)}, from {arena.steps[run.first]} to {arena.steps[last]}"
        label = _label(run.name, x, y, width, height)
        parts.append(
            f'<g><rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'
            f"<title>{escape(title)}</title>{label}</g>"
        )
    return "\n".join([*parts, "</svg>"])


def _label(name: str, x: float, y: float, width: float, height: float) -> str:
    """The buffer's name where there is room for it."""
    if height < 14 or width < 7 * len(name) + 8:
        return ""
    return f'<text x="{x + 4:.1f}" y="{y + height / 2 + 4:.1f}">{escape(name)}</text>'
