"""A plan: one network, in one mode, as a list of steps over numbered slots.

The network's graph is rewritten, differentiated where it trains, cut into regions, and each region lowered by
a backend. What depends on parameters alone (folded weights) is computed by the `Prelude`, once for each value
of the parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from ..graph.errors import CompileError
from ..graph.gradients import Derivatives, differentiate
from ..graph.ir import Graph
from ..graph.ops import Drawn, Input, Parameter, Reshape
from ..graph.ops.random import Streams
from ..graph.passes import BACKWARD, INFERENCE, TRAINING, UNFUSED, PassReport, run_pipeline
from ..graph.settings import settings
from ..graph.walk import walk
from ..planning.fusion import fuse, leave_unfused
from ..planning.regions import Partition, Region
from .prelude import Prelude

Call = Callable[[Sequence[torch.Tensor]], tuple[torch.Tensor, ...]]
Lowering = Callable[[Region], Call]


@dataclass(frozen=True)
class Mode:
    """training: batch statistics, dropout, noise, augmentation. backward: build gradients, of the parameters
    `trained` (None: of those the graph calls trainable) and of the inputs `wrt_inputs`.
    """

    training: bool = False
    backward: bool = False
    wrt_inputs: frozenset[str] = frozenset()
    trained: frozenset[str] | None = None
    fuse: bool = True


@dataclass
class Step:
    """One region bound to slots. frees: slots nobody reads afterwards."""

    region: Region
    call: Call
    reads: list[int]
    writes: list[int]
    frees: list[int] = field(default_factory=list)


class Plan:
    """An executable network. `forward` gives outputs and what backward needs; `backward` gives gradients."""

    def __init__(
        self,
        graph: Graph,
        mode: Mode,
        lower: Lowering,
        device: torch.device,
        loss: Sequence[str] | None = None,
    ) -> None:
        self.mode = mode
        self.device = device
        self.loss = loss
        """The outputs that may be differentiated; None for all."""
        self.graph, self.reports, self.derivatives = prepare(graph, mode, loss)
        self.outputs = list(graph.outputs)
        self.partition: Partition = fuse(self.graph) if mode.fuse else leave_unfused(self.graph)
        self.prelude = Prelude(self.graph, device)
        self.inputs = [n for n in self.graph.nodes() if isinstance(n.op, Input) and n.phase == "forward"]
        self.drawn = [(n.name, n) for n in self.graph.nodes() if isinstance(n.op, Drawn)]
        self.streams = Streams()
        self.slots: dict[str, int] = {}
        self.forward_steps = [self._step(region, lower) for region in self.partition.phase("forward")]
        self.backward_steps = [self._step(region, lower) for region in self.partition.phase("backward")]
        self._plan_lifetimes()
        self._input_slots = [self._slot(node.name) for node in self.inputs]
        self._output_slots = [self.slots[self.graph.outputs[name]] for name in self.outputs]
        held = self.graph.parameter_only()
        self._known_outputs = {i for i, o in enumerate(self.outputs) if self.graph.outputs[o] in held}
        self._known: dict[str, torch.Tensor] = {}
        self._start_slots: list[torch.Tensor | None] = []

    def _slot(self, name: str) -> int:
        return self.slots.setdefault(name, len(self.slots))

    def _step(self, region: Region, lower: Lowering) -> Step:
        call = _view(region) if region.is_view else lower(region)
        reads = [self._slot(node.name) for node in region.inputs]
        return Step(region, call, reads, [self._slot(node.name) for node in region.outputs])

    def _plan_lifetimes(self) -> None:
        """Find what backward reads of the forward pass, and free every other value after its last reader."""
        held = self.graph.parameter_only()
        sources = [*(node.name for node in self.inputs), *(name for name, _ in self.drawn)]
        made = {slot for step in self.forward_steps for slot in step.writes}
        made.update(self._slot(name) for name in sources)
        needed = {slot for step in self.backward_steps for slot in step.reads}
        gradients = set(self.derivatives.gradients.values())
        needed.update(self.slots[g] for g in gradients if g in self.slots)
        if self.mode.backward:  # the definitions are walked with the same draws
            needed.update(self._slot(name) for name, _ in self.drawn)
        self.saved = sorted(made & needed)
        leaving = {self._slot(self.graph.outputs[name]) for name in self.outputs}
        back = [name for name, slot in self.slots.items() if slot in needed and name in held]
        self.read_back = frozenset().union(*(self.prelude.behind.get(name, {name}) for name in back))
        self.read_back |= {u.parameter for u in self.graph.updates if self.graph.readers(u.parameter)}
        """The parameters that the backward pass follows from, by kernels or by definition."""
        leaving.update(self._slot(update.value) for update in self.graph.updates)
        keep = leaving | {self._slot(name) for name in held}
        _free_after_last_use(self.forward_steps, keep | set(self.saved))
        _free_after_last_use(
            self.backward_steps, keep | {self.slots[g] for g in gradients if g in self.slots}
        )

    # -- running ----------
    def forward(
        self,
        inputs: Sequence[torch.Tensor],
        parameters: dict[str, torch.Tensor],
        state: Mapping[str, torch.Tensor] | None = None,
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Outputs in order, and the values the backward pass needs. state: what updates are written to, where
        it is not to be `parameters`."""
        slots = self._start(parameters)
        batch = inputs[0].shape[0] if inputs else 1
        for slot, value in zip(self._input_slots, inputs, strict=True):
            slots[slot] = value
        for name, value in self.draw(batch).items():
            slots[self.slots[name]] = value
        run_steps(self.forward_steps, slots)
        if self.graph.updates:
            self._write_back(slots, parameters if state is None else state)
        outputs = [_value(slots, slot) for slot in self._output_slots]
        if self._known_outputs:  # no caller may write into a weight, or into what is kept of it
            outputs = [y.clone() if i in self._known_outputs else y for i, y in enumerate(outputs)]
        return outputs, [_value(slots, slot) for slot in self.saved]

    def backward(
        self,
        saved: Sequence[torch.Tensor],
        seeds: dict[str, torch.Tensor],
        parameters: dict[str, torch.Tensor],
    ) -> dict[str, torch.Tensor]:
        """Gradients of parameters (and inputs), given those of the outputs."""
        slots = self._start(parameters)
        for slot, value in zip(self.saved, saved, strict=True):
            slots[slot] = value
        for output, node in self.derivatives.seeds.items():
            if node in self.slots:
                slots[self.slots[node]] = seeds[output]
        run_steps(self.backward_steps, slots)
        gradients = {}
        for name, node in self.derivatives.gradients.items():
            gradients[name] = (
                _value(slots, self.slots[node]) if node in self.slots else seeds[self._seed_of(node)]
            )
        return gradients

    def _seed_of(self, node: str) -> str:
        return next(output for output, seed in self.derivatives.seeds.items() if seed == node)

    def _start(self, parameters: dict[str, torch.Tensor]) -> list[torch.Tensor | None]:
        """Slots with everything that is known before the batch."""
        known = self.prelude(parameters)
        if known is not self._known or len(self._start_slots) != len(self.slots):
            self._known = known
            self._start_slots = [None] * len(self.slots)
            for name, value in known.items():
                if name in self.slots:
                    self._start_slots[self.slots[name]] = value
        return self._start_slots.copy()

    def _write_back(self, slots: list[torch.Tensor | None], state: Mapping[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for update in self.graph.updates:
                value = _value(slots, self.slots[update.value])
                state[update.parameter].mul_(update.momentum).add_(value, alpha=1 - update.momentum)

    # -- by definition ----------
    def draw(self, batch: int) -> dict[str, torch.Tensor]:
        """A value for every drawn source."""
        return {name: self.streams.draw(source, batch, self.device) for name, source in self.drawn}

    def drawn_of(self, saved: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """What `forward` drew, found among what it saved."""
        kept = dict(zip(self.saved, saved, strict=True))
        return {name: kept[self.slots[name]] for name, _ in self.drawn}

    def walk(
        self,
        inputs: Sequence[torch.Tensor],
        parameters: Mapping[str, torch.Tensor],
        drawn: Mapping[str, torch.Tensor],
    ) -> list[torch.Tensor]:
        """The outputs once more, op by op through PyTorch, which can differentiate them to any order."""
        given = dict(zip((node.name for node in self.inputs), inputs, strict=True))
        names = [self.graph.outputs[name] for name in self.outputs]
        found = walk(self.graph, {**parameters, **given, **drawn}, names)
        return [found[name] for name in names]

    @property
    def regions(self) -> list[Region]:
        return self.partition.kernels

    def explain(self) -> str:
        """Every pass and every fusion rule: what it did, what it refused, and why."""
        lines: list[str] = []
        for report in self.reports:
            lines.append(f"pass: {report.name}  ({report.nodes_before} -> {report.nodes_after} nodes)")
            lines += [f"    {decision.rule}\n        {decision}" for decision in report.decisions]
        lines.append(f"fusion: {len(self.regions)} kernels")
        lines += [f"    {decision.rule}\n        {decision}" for decision in self.partition.decisions]
        lines += [f"kernel {region}" for region in self.regions]
        return "\n".join(lines)


def prepare(
    graph: Graph, mode: Mode, loss: Sequence[str] | None = None
) -> tuple[Graph, list[PassReport], Derivatives]:
    """A copy of `graph` after the passes of `mode`, with its backward pass where the mode wants one.

    Raises CompileError for a graph that has a backward pass already.
    """
    check_forward(graph)
    graph = graph.copy()
    if mode.trained is not None:
        for node in graph.sources(Parameter):
            assert isinstance(node.op, Parameter)
            graph.update_node(node.name, op=replace(node.op, trainable=node.name in mode.trained))
    observe = _dump if settings.dump else None
    pipeline = TRAINING if mode.training else (INFERENCE if mode.fuse and not mode.backward else UNFUSED)
    reports = run_pipeline(graph, pipeline, observe)
    derivatives = Derivatives()
    if mode.backward:
        derivatives = differentiate(graph, loss, mode.wrt_inputs)
        graph.outputs.update({f"gradient of {name}": node for name, node in derivatives.gradients.items()})
        reports += run_pipeline(graph, BACKWARD, observe)
        derivatives.gradients = {name: graph.outputs[f"gradient of {name}"] for name in derivatives.gradients}
    for report in reports:
        settings.say(1, f"pass {report.name}: {report.nodes_before} -> {report.nodes_after} nodes")
    return graph, reports, derivatives


def check_forward(graph: Graph) -> None:
    """Raise CompileError for a graph that has a backward pass already."""
    if graph.updates or any(node.phase == "backward" for node in graph.nodes()):
        raise CompileError(
            f"graph {graph.name}: holds a training step already, as `convloom convert --training` writes it; "
            f"convert without --training what is to be compiled"
        )


def _dump(moment: str, graph: Graph) -> None:
    settings.write(f"{graph.name}.{moment.replace(' ', '_')}.txt".replace("/", "_"), str(graph) + "\n")


def run_steps(steps: Iterable[Step], slots: list[torch.Tensor | None]) -> None:
    for step in steps:
        results = step.call([slots[slot] for slot in step.reads])  # type: ignore[misc]
        if len(results) == 1:
            slots[step.writes[0]] = results[0]
        else:
            for slot, result in zip(step.writes, results, strict=True):
                slots[slot] = result
        for slot in step.frees:
            slots[slot] = None


def _free_after_last_use(steps: list[Step], keep: set[int]) -> None:
    last: dict[int, Step] = {}
    for step in steps:
        for slot in (*step.reads, *step.writes):
            last[slot] = step
    for slot, step in last.items():
        if slot not in keep:
            step.frees.append(slot)


def _value(slots: list[torch.Tensor | None], slot: int) -> torch.Tensor:
    value = slots[slot]
    if value is None:
        raise RuntimeError(f"slot {slot} was freed too early")  # a fault of the plan, never of the input
    return value


def _view(region: Region) -> Call:
    op = region.anchor.op
    if not isinstance(op, Reshape):
        raise NotImplementedError(f"view {op}")
    return lambda values: (op.reference(values[0]),)
