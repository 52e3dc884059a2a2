"""A plan: one network, in one mode, as a list of steps over numbered slots.

The network's graph is rewritten, differentiated where it trains, cut into regions, and each region lowered by
a backend. What depends on parameters alone (folded weights) is computed by the `Prelude`, once for each value
of the parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch

from ..graph.errors import CompileError
from ..graph.fusion import fuse, leave_unfused
from ..graph.gradients import Derivatives, differentiate
from ..graph.ir import Graph
from ..graph.ops import KNOWN, Drawn, Input, Parameter, Reshape
from ..graph.passes import BACKWARD, INFERENCE, TRAINING, UNFUSED, PassReport, run_pipeline
from ..graph.regions import Partition, Region
from ..graph.settings import settings

Call = Callable[[Sequence[torch.Tensor]], tuple[torch.Tensor, ...]]
Lowering = Callable[[Region], Call]


@dataclass(frozen=True)
class Mode:
    """training: batch statistics, dropout, noise, augmentation. backward: build gradients; wrt_inputs: of the
    inputs too.
    """

    training: bool = False
    backward: bool = False
    wrt_inputs: bool = False
    fuse: bool = True


@dataclass
class Step:
    """One region bound to slots. frees: slots nobody reads afterwards."""

    region: Region
    call: Call
    reads: list[int]
    writes: list[int]
    frees: list[int] = field(default_factory=list)


class Prelude:
    """Values computed from parameters alone; computed again only when a parameter behind them has changed."""

    def __init__(self, graph: Graph, device: torch.device) -> None:
        only = graph.parameter_only()
        self.nodes = [n for n in graph.nodes() if n.name in only and not isinstance(n.op, Parameter)]
        self.constants = {n.name: n.op.reference().to(device) for n in self.nodes if isinstance(n.op, KNOWN)}
        self.behind: dict[str, frozenset[str]] = {}
        """The parameters that each node follows."""
        for node in self.nodes:
            self.behind[node.name] = frozenset().union(*(self.behind.get(x, {x}) for x in node.inputs))
        self.seen: dict[str, tuple[int, int]] = {}
        """Where each parameter lay, and its version."""
        self.stale: set[str] = set()
        self.values: dict[str, torch.Tensor] = {}

    def __call__(self, parameters: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Every value known before the batch; the very same dictionary and tensors while nothing changes."""
        seen = {name: (p.data_ptr(), p._version) for name, p in parameters.items()}
        if seen != self.seen or self.stale or not self.values:
            changed = {name for name, mark in seen.items() if self.seen.get(name) != mark}
            self.values = self._compute(parameters, changed | self.stale)
            self.seen, self.stale = seen, set()
        return self.values

    def _compute(self, parameters: dict[str, torch.Tensor], changed: set[str]) -> dict[str, torch.Tensor]:
        """The values anew where a parameter behind them is in `changed`, the same tensors elsewhere."""
        # Aliases, new at each computation: what a backend keeps for a tensor (packed weights) ends with it.
        # Kernels read row-major data; `to(memory_format=torch.channels_last)` lays a kernel out otherwise.
        values = {
            n: p.detach().contiguous() if n in changed else self.values[n] for n, p in parameters.items()
        }
        values.update(self.constants)
        with torch.no_grad():
            for node in self.nodes:
                if not node.inputs:
                    continue
                if node.name in self.values and not (self.behind[node.name] & changed):
                    values[node.name] = self.values[node.name]
                else:
                    values[node.name] = node.evaluate(*(values[name] for name in node.inputs)).contiguous()
        return values

    def forget(self, parameters: Iterable[str]) -> None:
        """Compute anew, at the next call, what follows from these: a write through `.data` leaves no trace in
        a version."""
        self.stale.update(parameters)


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
        self.graph, self.reports, self.derivatives = prepare(graph, mode, loss)
        self.outputs = list(graph.outputs)
        self.partition: Partition = fuse(self.graph) if mode.fuse else leave_unfused(self.graph)
        self.prelude = Prelude(self.graph, device)
        self.inputs = [n for n in self.graph.nodes() if isinstance(n.op, Input) and n.phase == "forward"]
        self.drawn = [(n.name, n.op) for n in self.graph.nodes() if isinstance(n.op, Drawn)]
        self.slots: dict[str, int] = {}
        self.forward_steps = [self._step(region, lower) for region in self.partition.phase("forward")]
        self.backward_steps = [self._step(region, lower) for region in self.partition.phase("backward")]
        self._plan_lifetimes()
        self._input_slots = [self._slot(node.name) for node in self.inputs]
        self._output_slots = [self.slots[self.graph.outputs[name]] for name in self.outputs]
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
        self.saved = sorted(made & needed)
        leaving = {self._slot(self.graph.outputs[name]) for name in self.outputs}
        leaving.update(self._slot(source) for source, _ in self.graph.updates.values())
        keep = leaving | {self._slot(name) for name in held}
        _free_after_last_use(self.forward_steps, keep | set(self.saved))
        _free_after_last_use(
            self.backward_steps, keep | {self.slots[g] for g in gradients if g in self.slots}
        )

    # -- running ----------
    def forward(
        self, inputs: Sequence[torch.Tensor], parameters: dict[str, torch.Tensor]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Outputs in order, and the values the backward pass needs."""
        slots = self._start(parameters)
        batch = inputs[0].shape[0] if inputs else 1
        for slot, value in zip(self._input_slots, inputs, strict=True):
            slots[slot] = value
        for name, source in self.drawn:
            slots[self._slot(name)] = source.draw(batch, self.device)
        run_steps(self.forward_steps, slots)
        if self.graph.updates:
            self._write_back(slots, parameters)
        outputs = [_value(slots, slot) for slot in self._output_slots]
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

    def _write_back(self, slots: list[torch.Tensor | None], parameters: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, (source, momentum) in self.graph.updates.items():
                parameters[name].mul_(momentum).add_(_value(slots, self.slots[source]), alpha=1 - momentum)

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
