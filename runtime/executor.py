"""The executor: a program's steps as one list of instructions over numbered slots.

A backend lowers each step of the program to instructions; here their values get slots, and every slot is
emptied after its last reader. What depends on parameters alone (folded weights) is computed by the `Prelude`,
once for each value of the parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from operator import itemgetter
from typing import Any, NamedTuple

import torch

from ..graph.averages import Write
from ..graph.ops import Concat
from ..graph.ops.random import Streams
from ..graph.settings import LAUNCHES, settings
from ..graph.walk import walk
from ..planning.batches import class_of
from ..planning.program import Program, Step
from .aten.forms import makes_memory
from .backends import Backend
from .gpu import current
from .instructions import Instruction
from .memory import keeper, needs
from .prelude import Prelude

Tensors = Mapping[str, torch.Tensor]
Slots = list[Any]
Watch = Callable[[Step], Any]


class Coded(NamedTuple):
    """An instruction over slots: run(*operands(slots)) -> slots[write], or -> slots[writes] where `write` is
    -1. dead: slots that nobody reads any more.
    """

    run: Callable[..., Any]
    operands: Callable[[Slots], Sequence[Any]]
    write: int
    writes: tuple[int, ...]
    dead: tuple[int, ...]


Span = tuple[Step, list[Coded]]
"""A step and its instructions."""


class Executor:
    """A program that runs. `forward` gives outputs and what backward needs; `backward` gives gradients.

    streams: of layers that have a seed; a network's executors share them.
    """

    def __init__(self, program: Program, backend: Backend, streams: Streams | None = None) -> None:
        self.program, self.device = program, backend.device
        self.streams = streams or Streams()
        self._needs = lru_cache(1000)(partial(needs, program)) if backend.takes_fresh_memory else None
        self._receive = backend.receive
        self._prepare = backend.prepare if backend.compiles else None
        self._prepared: set[int] = set()
        self.prelude = Prelude(program, self.device, backend.lay)
        self.slots: dict[str, int] = {}
        lowered = backend.lower(program)
        ahead = len(program.forward)
        self._forward_spans = [(step, self._coded(step, code)) for step, code in lowered[:ahead]]
        self._backward_spans = [(step, self._coded(step, code)) for step, code in lowered[ahead:]]
        self._rooms = rooms = [self._opening(instruction) for instruction in backend.memory(program)]
        self.forward_code = [*rooms[0], *(coded for _, span in self._forward_spans for coded in span)]
        self.backward_code = [*rooms[1], *(coded for _, span in self._backward_spans for coded in span)]
        derivatives, outputs = program.derivatives, list(program.outputs.values())
        self._inputs = [self._slot(node.name) for node in program.inputs]
        self._drawn = [self._slot(node.name) for node in program.drawn]
        self._outputs = [self._slot(value) for value in outputs]
        self._shared_outputs = _shared(program)
        self._saved = [self._slot(name) for name in program.saved]
        self._seeds = [(output, self._slot(node)) for output, node in derivatives.seeds.items()]
        self._gradients = [(name, self._slot(node)) for name, node in derivatives.gradients.items()]
        self._writes = _together(program.writes)
        self._written = [[self._slot(write.value) for write in group] for group in self._writes]
        self._taken_before = [
            (group, at)
            for group, writes in enumerate(self._writes)
            for at, write in enumerate(writes)
            if write.value in program.known  # it may lie in a parameter that is moved
        ]
        self._started: tuple[Tensors, Slots] = ({}, [])

    # -- the list of instructions ----------
    def _slot(self, name: str) -> int:
        return self.slots.setdefault(name, len(self.slots))

    def _coded(self, step: Step, instructions: Sequence[Instruction]) -> list[Coded]:
        """A step's instructions over slots. A value of its own is dead after its last reader; one that others
        know, where the program frees it."""
        shared = {*step.reads, *step.writes}.difference(step.frees)
        last = dict.fromkeys(step.frees, len(instructions) - 1)
        for index, instruction in enumerate(instructions):
            touched = {*instruction.reads, *instruction.writes}
            last.update(dict.fromkeys(touched - shared, index))
        coded = []
        for index, instruction in enumerate(instructions):
            reads = [self._slot(name) for name in instruction.reads]
            writes = tuple(self._slot(name) for name in instruction.writes)
            dead = tuple(self._slot(name) for name, final in last.items() if final == index)
            only = writes[0] if len(writes) == 1 else -1
            run = instruction.run if settings.debug < LAUNCHES else _told(instruction, step)
            coded.append(Coded(run, _getter(reads), only, writes, dead))
        return coded

    def _opening(self, instruction: Instruction | None) -> list[Coded]:
        """What comes before the first step, and what it gives is there for all of them."""
        if instruction is None:
            return []
        reads = [self._slot(name) for name in instruction.reads]
        writes = tuple(self._slot(name) for name in instruction.writes)
        return [Coded(instruction.run, _getter(reads), writes[0] if len(writes) == 1 else -1, writes, ())]

    @contextmanager
    def watched(self, before: Watch, after: Watch) -> Iterator[None]:
        """Inside, `before` and `after` are called with each step of both passes around it."""
        code = self.forward_code, self.backward_code
        self.forward_code, self.backward_code = (
            [*room, *(coded for span in spans for coded in _between(before, after, span))]
            for room, spans in zip(self._rooms, (self._forward_spans, self._backward_spans), strict=True)
        )
        try:
            yield
        finally:
            self.forward_code, self.backward_code = code

    # -- running ----------
    def forward(
        self,
        inputs: Sequence[torch.Tensor],
        parameters: Tensors,
        state: Tensors | None = None,
        look: object = None,
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Outputs in order, and the values the backward pass needs.

        state: what updates are written to, where it is not to be `parameters`. look: the very object of an
        earlier call where no parameter can have changed since, which saves looking at each.
        """
        batch = inputs[0].shape[0] if inputs else 1
        if self._prepare is not None and (usual := class_of(batch)) not in self._prepared:
            self._prepare(self.program, batch)
            self._prepared.add(usual)
        if self._needs is not None:
            keeper.keep(*self._needs(batch))
        slots = self._start(parameters, look)
        for slot, value in zip(self._inputs, inputs, strict=True):
            slots[slot] = self._receive(value)
        if self._drawn:
            drawn = self.draw(batch)
            for slot, value in zip(self._drawn, drawn.values(), strict=True):
                slots[slot] = value
        self._run(self.forward_code, slots)
        outputs = self._values(slots, self._outputs)
        for at in self._shared_outputs:
            outputs[at] = outputs[at].clone()
        if self._written:
            self._write_back(slots, parameters if state is None else state)
        return outputs, self._values(slots, self._saved)

    def backward(
        self,
        saved: Iterable[torch.Tensor],
        seeds: Tensors,
        parameters: Tensors,
        look: object = None,
    ) -> dict[str, torch.Tensor]:
        """Gradients of parameters (and inputs), given those of the outputs."""
        slots = self._start(parameters, look)
        for slot, value in zip(self._saved, saved, strict=True):
            slots[slot] = value
        for output, slot in self._seeds:
            slots[slot] = self._receive(seeds[output])
        self._run(self.backward_code, slots)
        names = [name for name, _ in self._gradients]
        found = self._values(slots, [slot for _, slot in self._gradients])
        return dict(zip(names, found, strict=True))

    def _run(self, code: Iterable[Coded], slots: Slots) -> None:
        with current(self.device):
            _run(code, slots)

    def _start(self, parameters: Tensors, look: object) -> Slots:
        """Slots with everything that is known before the batch."""
        known = self.prelude(parameters, look)
        before, slots = self._started
        if known is not before:
            slots = [None] * len(self.slots)
            for name, value in known.items():
                if name in self.slots:
                    slots[self.slots[name]] = value
            self._started = known, slots  # at once, for another thread may read it
        return slots.copy()

    def _values(self, slots: Slots, wanted: Iterable[int]) -> list[torch.Tensor]:
        values = [slots[slot] for slot in wanted]
        if any(value is None for value in values):  # a fault of the program, never of the input
            raise RuntimeError(f"{self.program.graph.name}: a value was freed too early")
        return values

    def _write_back(self, slots: Slots, state: Tensors) -> None:
        with torch.no_grad():
            values = [self._values(slots, places) for places in self._written]
            for place, at in self._taken_before:
                values[place][at] = values[place][at].clone()
            for group, found in zip(self._writes, values, strict=True):
                moved, momentum = [state[write.parameter] for write in group], group[0].momentum
                if momentum is None:
                    torch._foreach_copy_(moved, found)
                else:
                    torch._foreach_mul_(moved, momentum)
                    torch._foreach_add_(moved, found, alpha=1 - momentum)

    # -- by definition ----------
    def draw(self, batch: int) -> dict[str, torch.Tensor]:
        """A value for every drawn source."""
        return {node.name: self.streams.draw(node, batch, self.device) for node in self.program.drawn}

    def drawn_of(self, saved: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """What `forward` drew, found among what it saved."""
        kept = dict(zip(self.program.saved, saved, strict=True))
        return {node.name: kept[node.name] for node in self.program.drawn}

    def walk(self, inputs: Sequence[torch.Tensor], parameters: Tensors, drawn: Tensors) -> list[torch.Tensor]:
        """The outputs once more, op by op through PyTorch, which can differentiate them to any order."""
        program = self.program
        given = dict(zip((node.name for node in program.inputs), inputs, strict=True))
        names = list(program.outputs.values())
        found = walk(program.graph, {**parameters, **given, **drawn}, names)
        return [found[name] for name in names]


def _shared(program: Program) -> list[int]:
    """Places of the outputs that may lie in the memory of a weight, an input or an earlier output. They are
    copied before they are handed out, so that nobody's writing changes what somebody else holds."""
    taken = {node.name for node in program.inputs} | program.known
    shared = []
    for place, name in enumerate(program.outputs.values()):
        node = program.graph[name]
        while node.inputs and not makes_memory(node.op) and not isinstance(node.op, Concat):
            node = program.graph[node.inputs[0]]
        if name in program.known or node.name in taken:
            shared.append(place)
        taken.add(node.name)
    return shared


def _run(code: Iterable[Coded], slots: Slots) -> None:
    for run, operands, write, writes, dead in code:
        value = run(*operands(slots))
        if write >= 0:
            slots[write] = value
        else:
            for slot, part in zip(writes, value, strict=True):
                slots[slot] = part
        for slot in dead:
            slots[slot] = None


def _together(writes: Iterable[Write]) -> list[list[Write]]:
    """In groups, in order, that one call can write: of one momentum, and of as many parameters."""
    groups: list[list[Write]] = []
    taken: set[str] = set()
    for write in writes:
        if not groups or write.parameter in taken or groups[-1][0].momentum != write.momentum:
            groups.append([])
            taken.clear()
        groups[-1].append(write)
        taken.add(write.parameter)
    return groups


def _getter(places: Sequence[int]) -> Callable[[Slots], Sequence[Any]]:
    """The slots of an instruction's operands, picked without a line of Python."""
    if len(places) > 1:
        return itemgetter(*places)
    return itemgetter(slice(places[0], places[0] + 1) if places else slice(0))


def _told(instruction: Instruction, step: Step) -> Callable[..., Any]:
    """The call of an instruction, which says before and after it what it is given and gives."""

    def run(*values: torch.Tensor) -> Any:
        given = _shapes(instruction.reads, values)
        settings.say(LAUNCHES, f"launch {step.region.name}: {given} -> {', '.join(instruction.writes)}")
        found = instruction.run(*values)
        results = (found,) if len(instruction.writes) == 1 else found
        settings.say(LAUNCHES, f"    gave {_shapes(instruction.writes, results)}")
        return found

    return run


def _shapes(names: Sequence[str], values: Iterable[torch.Tensor]) -> str:
    pairs = zip(names, values, strict=True)
    return ", ".join(f"{n} {str(v.dtype).removeprefix('torch.')}{list(v.shape)}" for n, v in pairs)


def _between(before: Watch, after: Watch, span: Span) -> list[Coded]:
    step, code = span
    return [_telling(before, step), *code, _telling(after, step)]


def _telling(watch: Watch, step: Step) -> Coded:
    return Coded(lambda: (watch(step), ())[1], _getter(()), -1, (), ())
