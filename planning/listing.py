"""A program as text for a person, a line a step, and as JSON for a machine."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ..graph.ops import Slice
from .memory import Memory

if TYPE_CHECKING:
    from .program import Program, Step

FORMAT = "convloom-program-1"


def listing(program: Program) -> str:
    """A line a step: its region, form and schedule, what it reads and writes, and where that lies. Offsets in
    an arena are those at batch 1."""
    head = f"program {program.graph.name} {{  // {program.mode}; {program.target}, {program.precision}"
    where = _places(program)
    lines = [head, *_lines(program.forward, where)]
    results = ", ".join(f"{name}=%{value}" for name, value in program.outputs.items())
    lines += [f"  return {results}", *(f"  update {write}" for write in program.writes)]
    if program.mode.backward:
        lines += [f"  save {', '.join(f'%{name}' for name in program.saved)}"]
        lines += _lines(program.backward, where)
        lines += [f"  gradient of {n} = %{value}" for n, value in program.derivatives.gradients.items()]
    lines += [f"  // {line}" for line in program.memory_lines(1)]
    return "\n".join([*lines, "}"])


def _places(program: Program) -> dict[str, str]:
    """The place of each value, with the offset of its buffer in the arena at batch 1."""
    offsets = {**program.memory.layout(1).offsets, **program.backward_memory.layout(1).offsets}
    found = {}
    for name, place in program.places.items():
        within = place.within
        at = None if within is None or within.how else offsets.get(within.buffer)
        found[name] = str(place) if at is None else f"{place} + {at}"
    return found


def _lines(steps: Sequence[Step], where: dict[str, str]) -> list[str]:
    return [_line(number, step, where) for number, step in enumerate(steps, 1)]


def _line(number: int, step: Step, where: dict[str, str]) -> str:
    how = step.form or f"no kernel, {step.reason}"
    how = "view" if step.region.is_view else how
    if step.region.joined:
        cut = isinstance(step.region.anchor.op, Slice)
        how = "read where it lies" if cut else "its parts lie in their places"
    schedule = f" [{step.schedule}]" if step.schedule else ""
    flow = f"({_values(step.reads, where)}) -> {_values(step.writes, where)}"
    frees = f", frees {', '.join(f'%{name}' for name in step.frees)}" if step.frees else ""
    return f"  {number:3} {step.region.name}: {how}{schedule} {flow}{frees}"


def _values(names: Iterable[str], where: dict[str, str]) -> str:
    return ", ".join(f"%{name} @ {where[name]}" for name in names)


def as_json(program: Program) -> str:
    """All of a program that is not its graph; see `Program.to_json`."""
    mode = program.mode
    data = {
        "format": FORMAT,
        "name": program.graph.name,
        "mode": {
            "training": mode.training,
            "backward": mode.backward,
            "wrt_inputs": sorted(mode.wrt_inputs),
            "trained": None if mode.trained is None else sorted(mode.trained),
            "fuse": mode.fuse,
        },
        "target": program.target,
        "precision": program.precision,
        "inputs": [node.name for node in program.inputs],
        "outputs": program.outputs,
        "updates": [str(write) for write in program.writes],
        "saved": list(program.saved),
        "gradients": program.derivatives.gradients,
        "values": {
            name: {"type": str(program.graph[name].type), "place": str(place)}
            for name, place in program.places.items()
        },
        "arena": _arena(program.memory),
        "backward_arena": _arena(program.backward_memory),
        "steps": [step.to_json() for step in program.steps],
    }
    return json.dumps(data, indent=1)


def _arena(memory: Memory) -> dict[str, Any]:
    """The arena for one example: its size, the most that is needed at once, and each buffer's offset, all in
    bytes, and the steps of the pass that it is needed from and to."""
    layout = memory.layout(1)
    buffers = {
        buffer.name: {
            "offset": layout.offsets[buffer.name],
            "bytes": buffer.nbytes(1),
            "first": buffer.first,
            "last": buffer.last,
        }
        for buffer in memory.buffers
    }
    return {"bytes": layout.nbytes, "needed": layout.least, "buffers": buffers}
