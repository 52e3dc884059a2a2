"""A program: one network, in one mode, planned once for one target.

`plan` rewrites the network's graph, differentiates it where the mode wants gradients, cuts it into regions,
and says in which order they run, what each reads and writes, and when a value is no longer needed. Whoever
emits kernels, runs them, times them or explains them reads the program, and plans nothing anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

from ..graph.averages import Write, writes
from ..graph.decisions import Decision, told
from ..graph.dump import Dump
from ..graph.errors import CompileError
from ..graph.gradients import Derivatives
from ..graph.ir import Graph, Node
from ..graph.op import Kind
from ..graph.ops import Drawn, Input, Parameter
from ..graph.passes import PassReport
from ..graph.settings import KERNELS, PASSES, SCHEDULES, settings
from .batches import USUAL, class_of
from .cost import CostModel
from .forms import choose
from .fusion import fuse, leave_unfused
from .listing import as_json, listing
from .memory import Memory, plan_memory, readable
from .memory import Place as Within
from .modes import Mode, prepare
from .regions import Partition, Region
from .schedules import Schedule
from .slices import write_into_slices
from .telling import cost_told, schedules_told


@dataclass(frozen=True)
class Place:
    """Where a value lies. kind: "input", "parameter", "known" (computed from parameters, before the batch),
    "drawn", "seed" (the gradient of an output), "output", "saved" (kept for the backward pass), "gradient",
    or "buffer", which lies in the arena. within: of what a kernel writes, where in which buffer."""

    kind: str
    within: Within | None = None

    def __str__(self) -> str:
        if self.within is None or not self.within.how:
            return "arena" if self.kind == "buffer" else self.kind
        return f"{self.within}" if self.kind == "buffer" else f"{self.kind}, {self.within}"


class Choice(NamedTuple):
    """The form and schedule of a step's kernel, or why there is none; see `Step`."""

    form: str | None
    schedule: Schedule | None
    reason: str


@dataclass(frozen=True, eq=False)
class Step:
    """One region, at its turn.

    reads: values, in the order of `region.inputs`. writes: those of `region.outputs`. frees: what nobody
    reads afterwards. target, precision, batch: what its schedule is chosen for, which is when somebody asks:
    to run the step through PyTorch takes none.
    """

    region: Region
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    frees: tuple[str, ...]
    target: str
    precision: str
    batch: int = USUAL

    @property
    def form(self) -> str | None:
        """The form of its kernel; None where nothing has to be launched, and where there is no kernel."""
        return self.at(self.batch).form

    @property
    def schedule(self) -> Schedule | None:
        return self.at(self.batch).schedule

    @property
    def reason(self) -> str:
        """Why there is no kernel; "" where there is one or none is needed."""
        return self.at(self.batch).reason

    def at(self, batch: int) -> Choice:
        """What is chosen for calls of the class of such a batch."""
        usual = class_of(batch)
        if usual not in self._choices:
            self._choices[usual] = self._choose(usual)
        return self._choices[usual]

    @cached_property
    def _choices(self) -> dict[int, Choice]:
        return {}

    def _choose(self, batch: int) -> Choice:
        if not self.region.launches:
            return Choice(None, None, "")
        try:
            form, schedule = choose(self.region, self.target, precision=self.precision, batch=batch)
        except CompileError as error:
            return Choice(None, None, str(error))
        return Choice(form.name, schedule, "")

    def to_json(self) -> dict[str, Any]:
        """The step as plain values; FLOPs and bytes are those of one example."""
        cost = self.region.cost(1)
        return {
            "region": self.region.name,
            "phase": self.region.phase,
            "ops": [node.op.op_name() for node in self.region.nodes],
            "layers": self.region.layers,
            "form": self.form,
            "schedule": None if self.schedule is None else str(self.schedule),
            "reason": self.reason,
            "reads": list(self.reads),
            "writes": list(self.writes),
            "frees": list(self.frees),
            "flops": cost.flops,
            "bytes": cost.bytes,
        }


@dataclass(eq=False)
class Program:
    """What `plan` decided.

    graph: after the passes, with its backward pass. outputs: name -> value, in the order of a call. loss: the
    outputs that may be differentiated; None for all. derivatives: where the backward pass begins and ends.
    dump: the folder of CONVLOOM_DUMP that it is kept in. batch: the one whose class the steps' schedules are
    for where nobody asks for those of another.
    """

    graph: Graph
    mode: Mode
    target: str
    precision: str
    loss: Sequence[str] | None
    outputs: dict[str, str]
    reports: list[PassReport]
    derivatives: Derivatives
    partition: Partition
    dump: Dump | None = None
    batch: int = USUAL

    # -- what goes in ----------
    @cached_property
    def inputs(self) -> list[Node]:
        """The inputs in the order of a call."""
        return [n for n in self.graph.nodes() if isinstance(n.op, Input) and n.phase == "forward"]

    @cached_property
    def drawn(self) -> list[Node]:
        """The random sources, drawn anew at each call."""
        return [node for node in self.graph.nodes() if isinstance(node.op, Drawn)]

    @cached_property
    def known(self) -> frozenset[str]:
        """Values that are known before the batch: parameters, and what follows from them alone."""
        return frozenset(self.graph.parameter_only()).difference(*(write.apart for write in self.writes))

    @cached_property
    def writes(self) -> list[Write]:
        """What the forward pass writes into parameters when it has run, in order."""
        return writes(self.graph)

    @cached_property
    def behind(self) -> dict[str, frozenset[str]]:
        """The parameters that each value computed before the batch follows from."""
        found: dict[str, frozenset[str]] = {}
        for node in self.graph.nodes():
            if node.name in self.known and not isinstance(node.op, Parameter):
                found[node.name] = frozenset().union(*(found.get(x, {x}) for x in node.inputs))
        return found

    # -- what runs ----------
    @property
    def regions(self) -> list[Region]:
        """Those that launch something: all but views, and concatenations whose parts lie in their places."""
        return [step.region for step in self.steps if step.region.launches]

    @property
    def decisions(self) -> list[Decision]:
        """What fused, what did not, and why."""
        return self.partition.decisions

    @cached_property
    def forward(self) -> tuple[Step, ...]:
        """The steps of the forward pass, in order."""
        kept = {*self._leaving, *self.saved}
        return self._steps("forward", kept)

    @cached_property
    def backward(self) -> tuple[Step, ...]:
        """The steps of the backward pass, in order."""
        kept = {*self._leaving, *self.derivatives.gradients.values()}
        return self._steps("backward", kept)

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        return (*self.forward, *self.backward)

    def _steps(self, phase: str, kept: set[str]) -> tuple[Step, ...]:
        """A phase's regions as steps, each freeing what is read or written last by it and is not kept."""
        regions = self.partition.phase(phase)
        last = {n.name: i for i, region in enumerate(regions) for n in (*region.inputs, *region.outputs)}
        steps = []
        for index, region in enumerate(regions):
            reads = tuple(node.name for node in region.inputs)
            writes = tuple(node.name for node in region.outputs)
            frees = tuple(name for name in (*reads, *writes) if last[name] == index and name not in kept)
            steps.append(Step(region, reads, writes, frees, self.target, self.precision, self.batch))
        return tuple(steps)

    # -- what stays ----------
    @cached_property
    def _leaving(self) -> frozenset[str]:
        """Values that outlive the pass they are made in, whoever reads them there."""
        return self.known | {*self.outputs.values(), *(write.value for write in self.writes)}

    @cached_property
    def _needed(self) -> dict[str, None]:
        """What the backward pass reads of values made before it, and what of them are gradients."""
        if not self.mode.backward:
            return {}
        backward = self.partition.phase("backward")
        names = [node.name for region in backward for node in region.inputs]
        return dict.fromkeys([*names, *self.derivatives.gradients.values()])

    @cached_property
    def saved(self) -> tuple[str, ...]:
        """Values of the forward pass that the backward pass needs, and all draws: whoever walks the ops'
        definitions instead, does so with the same ones."""
        if not self.mode.backward:
            return ()
        made = [node.name for node in (*self.inputs, *self.drawn)]
        made += [node.name for region in self.partition.phase("forward") for node in region.outputs]
        drawn = {node.name for node in self.drawn}
        return tuple(name for name in made if name in self._needed or name in drawn)

    def saved_bytes(self, batch: int = 1) -> int:
        """Bytes that a training step keeps from its forward pass for its backward pass, weights not counted.
        A view takes none of its own where what it is of is kept, nor do parts of one concatenation, of which
        each keeps the whole: but with PyTorch's operators, which keep them apart."""
        saved, sizes = set(self.saved), dict[str, int]()
        for node in map(self.graph.__getitem__, self.saved):
            if not self._is_view_of(node, saved):
                place, nbytes = self.memory.places[node.name], node.type.nbytes(batch)
                if place.pitch:
                    nbytes = nbytes // node.type.channels * place.pitch
                sizes[place.buffer] = max(nbytes, sizes.get(place.buffer, 0))
        return sum(sizes.values())

    def _is_view_of(self, node: Node, kept: set[str]) -> bool:
        while node.op.kind is Kind.VIEW:
            node = self.graph[node.inputs[0]]
            if node.name in kept:
                return True
        return False

    @cached_property
    def read_back(self) -> frozenset[str]:
        """The parameters that the backward pass follows from, by kernels or by definition."""
        known = [name for name in self._needed if name in self.known]
        found = frozenset().union(*(self.behind.get(name, {name}) for name in known))
        behind = self.graph.behind(self.outputs.values())
        return found | {write.parameter for write in self.writes if write.parameter in behind}

    @cached_property
    def moving(self) -> frozenset[str]:
        """The parameters that a forward pass may write to before its backward pass has run."""
        return frozenset(write.parameter for write in self.writes) - self.read_back

    @cached_property
    def places(self) -> dict[str, Place]:
        """Where each value lies that enters or leaves a step."""
        kinds = {name: "buffer" for step in self.steps for name in (*step.reads, *step.writes)}
        kinds.update(dict.fromkeys(self.known & kinds.keys(), "known"))
        kinds.update({n.name: "parameter" for n in self.graph.sources(Parameter) if n.name in kinds})
        kinds.update({n.name: "drawn" for n in self.drawn})
        kinds.update(dict.fromkeys(self.derivatives.gradients.values(), "gradient"))
        kinds.update(dict.fromkeys(self.saved, "saved"))
        kinds.update(dict.fromkeys(self.derivatives.seeds.values(), "seed"))
        kinds.update({n.name: "input" for n in self.inputs})
        kinds.update(dict.fromkeys(self.outputs.values(), "output"))
        made = {name for step in self.steps for name in step.writes}
        within = {**self.memory.places, **self.backward_memory.places}
        return {name: Place(kind, within[name] if name in made else None) for name, kind in kinds.items()}

    @cached_property
    def memory(self) -> Memory:
        """Where kernels write what the forward pass makes. Those of the backward pass have an arena of their
        own: between the two, only what is saved is kept."""
        given = [node.name for node in (*self.inputs, *self.drawn)]
        kept = {*self._leaving, *self.saved} - self.known
        return plan_memory(self.graph, self.partition.phase("forward"), given, self.known, kept)

    @cached_property
    def backward_memory(self) -> Memory:
        """Where kernels write what the backward pass makes."""
        given = [*self._needed, *self.derivatives.seeds.values()]
        given = [name for name in given if name not in self.known]
        kept = set(self.derivatives.gradients.values())
        made = {n.name for region in self.partition.phase("backward") for n in region.outputs}
        return plan_memory(
            self.graph, self.partition.phase("backward"), set(given) - made, self.known, kept & made
        )

    @cached_property
    def memory_apart(self) -> Memory:
        """What is needed at each step of both passes where each value takes memory of its own."""
        given = [node.name for node in (*self.inputs, *self.drawn)] + list(self.derivatives.seeds.values())
        kept = {*self._leaving, *self.derivatives.gradients.values()} - self.known
        regions = [step.region for step in self.steps]
        return plan_memory(self.graph, regions, given, self.known, kept, apart=True)

    # -- as text ----------
    def explain(self) -> str:
        """Every pass and every fusion rule: what it did, what it refused, and why."""
        kernels = (f"kernel {region}" for region in self.regions)
        memory = (f"memory {line}" for line in self.memory_lines(1))
        return "\n".join([*map(str, self.reports), self.fusion(), *kernels, *memory])

    def fusion(self) -> str:
        """What fused, what did not, and why."""
        head = f"fusion: {len(self.regions)} kernels"
        return "\n".join([head, *told(self.decisions)])

    def __str__(self) -> str:
        """A line a step: its region, form and schedule, what it reads and writes, and where that lies."""
        return listing(self)

    def to_json(self) -> str:
        """The program as JSON: mode, target and precision; inputs, outputs, what is saved; for each value its
        type and place; the arenas; and the steps in order, as in `Step.to_json`."""
        return as_json(self)

    def memory_lines(self, batch: int) -> list[str]:
        """What lies in memory between the kernels for such a batch: a sentence for each pass."""
        lines = [f"forward: {self.memory.summary(batch)}"]
        if self.mode.backward:
            lines.append(f"saved for the backward pass: {readable(self.saved_bytes(batch))}")
            lines.append(f"backward: {self.backward_memory.summary(batch)}")
        return lines


def plan(
    graph: Graph,
    mode: Mode | None = None,
    *,
    target: str = "sm_90",
    precision: str = "ieee",
    loss: Sequence[str] | None = None,
    batch: int = USUAL,
) -> Program:
    """Plan a network, by default for inference.

    target: the card, or the architecture, it is planned for. precision: of float32 products, "ieee" or
    "tf32". loss: the outputs that may be differentiated, None for all. batch: images of a call, as far as
    that is known; what fuses does not depend on it. Raises CompileError for a graph that has a backward pass
    already.
    """
    mode = mode or Mode()
    names = list(graph.outputs)
    dump = Dump.open(graph.name, str(mode))
    settings.say(PASSES, f"planning {graph.name}: {mode}, for {target}")
    graph, reports, derivatives = prepare(graph, mode, loss, dump)
    model = CostModel.of(target, precision)
    partition = fuse(graph, model) if mode.fuse else leave_unfused(graph)
    if mode.fuse:
        write_into_slices(partition)
    outputs = {name: graph.outputs[name] for name in names}
    program = Program(
        graph, mode, target, precision, loss, outputs, reports, derivatives, partition, dump, batch
    )
    _tell(program)
    return program


def _tell(program: Program) -> None:
    """What CONVLOOM_DEBUG prints of a program, and CONVLOOM_DUMP keeps."""
    settings.say(PASSES, program.fusion)
    for step in program.steps:
        if step.region.launches:
            settings.say(KERNELS, partial(cost_told, step.region))
            settings.say(SCHEDULES, partial(schedules_told, step))
    if (dump := program.dump) is not None:
        dump.write("program.txt", str(program))
        dump.write("program.json", program.to_json())
        dump.write("explain.txt", program.explain())
