"""Stopwatches: whole calls, or whole training steps, and each kernel in them, in the order of a real run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from ..graph.errors import ConvLoomError
from ..graph.ir import Graph
from ..graph.ops import Input
from ..planning.program import Program, Step
from ..planning.regions import Region
from .gpu import current
from .network import CompiledNetwork
from .step_result import StepResult
from .stepping import make_stepper
from .steps import LossesStep

MEASURING_SECONDS = 1.5
"""What the measuring takes where the caller does not say how often."""
MOST_REPEATS = 50
WARMUP = 2
CYCLES_A_SECOND = 2e9

OPTIMIZER = "optimizer"
"""What the time of the optimizer's step goes by, which is no kernel of the program."""


class Stopwatch:
    """Times every step of a network's inference.

    times: region name -> seconds of each run. calls: seconds of whole calls. peak_bytes: the most that a
    call took of the device's memory, weights included, where the device tells.
    """

    def __init__(self, net: CompiledNetwork, batch_size: int) -> None:
        self.net, self.batch_size = net, batch_size
        self.times: dict[str, list[float]] = {}
        self.calls: list[float] = []
        self.peak_bytes: int | None = None
        self.device = net.options.device
        self.network = self._network()
        self.executor = self.network.executor
        self.inputs = example_inputs(self.network.source, batch_size, self.device)
        self._marks: list[tuple[str, Any]] = []

    @property
    def program(self) -> Program:
        return self.executor.program

    def timed(self) -> list[Region]:
        """The regions that take time: on aten also concatenations that kernels make for free."""
        if self.net.options.backend == "triton":
            return self.program.regions
        return [step.region for step in self.program.steps if not step.region.is_view]

    def run(self) -> None:
        """Time one whole call, and then each of its steps."""
        with current(self.device):
            if self.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(self.device)
            start = time.perf_counter()
            self._call()
            submitted = time.perf_counter() - start
            self._wait()
            self.calls.append(time.perf_counter() - start)
            if self.device.type == "cuda":
                self.peak_bytes = torch.cuda.max_memory_allocated(self.device)
            self._marks = []
            self._hold_back(submitted)
            with self.executor.watched(self._note, self._note):
                self._step_by_step()
            self._wait()
        for (name, first), (_, last) in zip(self._marks[::2], self._marks[1::2], strict=True):
            seconds = first.elapsed_time(last) / 1e3 if self.device.type == "cuda" else last - first
            self.times.setdefault(name, []).append(seconds)

    def forget(self) -> None:
        self.times.clear()
        self.calls.clear()

    # -- what is timed ----------
    def _network(self) -> CompiledNetwork:
        """What runs: the network, or the one around it that has the loss."""
        return self.net

    @torch.no_grad()
    def _call(self) -> None:
        self.net(*self.inputs)

    def _step_by_step(self) -> None:
        self.executor.forward(self.inputs, self.net.weights())

    # -- the clock ----------
    def _note(self, step: Step) -> None:
        self._marks.append((step.region.name, self._now()))

    @contextmanager
    def _around(self, name: str) -> Iterator[None]:
        self._marks.append((name, self._now()))
        yield
        self._marks.append((name, self._now()))

    def _now(self) -> Any:
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _hold_back(self, seconds: float) -> None:
        """Keep the GPU busy while Python submits the steps, so that events time kernels and not Python."""
        if self.device.type == "cuda":
            torch.cuda._sleep(int(3 * seconds * CYCLES_A_SECOND))  # type: ignore[no-untyped-call]


class TrainingStopwatch(Stopwatch):
    """Times every step of a network's training step, forward, loss and backward, and then the optimizer's.

    The weights move as they do in training. targets: of the batch, as the loss encodes them.
    """

    def __init__(
        self,
        net: CompiledNetwork,
        batch_size: int,
        loss: Callable[[CompiledNetwork], LossesStep],
        optimizer: Any,
    ) -> None:
        self.step = loss(net.train())
        self.stepper = make_stepper(net, optimizer)
        if self.stepper.by_closure:
            raise ConvLoomError(
                f"{type(self.stepper.optimizer).__name__} computes the loss several times in a step, which "
                f"has no phases to measure; profile another optimizer"
            )
        super().__init__(net, batch_size)

    @property
    def optimizer_bytes(self) -> int:
        """Bytes that one step of the optimizer moves: weights and its state read and written, gradients
        read."""
        trained = [weight for weight in self.net.parameters() if weight.requires_grad]
        state = [value for kept in self.stepper.optimizer.state.values() for value in kept.values()]
        tensors = [value for value in state if isinstance(value, torch.Tensor) and value.dim()]
        return 3 * sum(weight.nbytes for weight in trained) + 2 * sum(value.nbytes for value in tensors)

    def of_the_loss(self) -> frozenset[str]:
        """The kernels of the forward pass that need a target."""
        graph, names = self.program.graph, {node.name for node in self.net.input_nodes}
        found = {node.name for node in graph.sources(Input) if node.name not in names}
        for node in graph.nodes():
            if found.intersection(node.inputs):
                found.add(node.name)
        forward = [step.region for step in self.program.forward]
        return frozenset(
            region.name for region in forward if any(node.name in found for node in region.nodes)
        )

    def _network(self) -> CompiledNetwork:
        return self.step.compiled

    def _call(self) -> None:
        self.stepper.step(self._loss)

    def _loss(self) -> StepResult:
        loss, *others = self.network(*self.inputs)
        return StepResult(loss, (loss,), tuple(others))

    def _step_by_step(self) -> None:
        weights = self.net.weights()
        with torch.no_grad():
            outputs, saved = self.executor.forward(self.inputs, weights)
            seed = {name: torch.ones_like(outputs[0]) for name in list(self.program.outputs)[:1]}
            found = self.executor.backward(saved, seed, weights)
        for name, weight in weights.items():
            if weight.requires_grad:
                weight.grad = found.get(name)
        with self._around(OPTIMIZER):
            self.stepper.optimizer.step()


def measure(watches: Sequence[Stopwatch], repeats: int | None) -> int:
    """Run the networks in turn, each going first every other time; returns how often."""
    for _ in range(WARMUP):
        start = time.perf_counter()
        for watch in watches:
            watch.run()
        seconds = time.perf_counter() - start
    for watch in watches:
        watch.forget()
    count = repeats or max(5, min(MOST_REPEATS, int(MEASURING_SECONDS / max(seconds, 1e-6))))
    for turn in range(count):
        for watch in watches if turn % 2 == 0 else reversed(watches):
            watch.run()
    return count


def example_inputs(graph: Graph, batch_size: int, device: torch.device) -> list[torch.Tensor]:
    """Random values for every input of a network, of its targets too, from a fixed seed."""
    generator = torch.Generator().manual_seed(0)
    inputs = []
    for node in graph.sources(Input):
        values = torch.rand(node.type.size(batch_size), generator=generator)
        inputs.append(values.to(device=device, dtype=node.type.torch_dtype))
    return inputs
