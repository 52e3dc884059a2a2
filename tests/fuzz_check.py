"""Whether every way of running a recipe's network agrees with what its ops' definitions give in float64."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from convloom.graph import ops
from convloom.graph.ir import Graph
from convloom.graph.passes.precision import with_dtype
from convloom.runtime.backends import FallbackWarning
from fuzz_fences import fenced
from fuzz_recipes import Recipe
from fuzz_walk import Expected, Question, Values, draw_values

import convloom as cl

RATE = 0.05
"""Of the optimizer's step."""

TRIES = 3
"""Draws of values for one network, until rounding decides nothing."""


@dataclass(frozen=True)
class Way:
    """A way to run a network."""

    backend: str = "aten"
    fuse: bool = True
    dtype: str = "float32"
    device: str = "cpu"

    def __str__(self) -> str:
        return f"{self.backend}, {'fused' if self.fuse else 'unfused'}, {self.dtype}"


ATEN = (Way(), Way(fuse=False), Way(dtype="float64"))
TRITON = (Way("triton"),)


@dataclass(frozen=True)
class Failure:
    """Where a network differs. kind: what a smaller network must share to count as the same failure."""

    way: str
    phase: str
    text: str
    kind: str

    def __str__(self) -> str:
        return f"{self.way}; {self.phase}: {self.text}"

    def like(self, other: Failure | None) -> bool:
        return other is not None and (self.way, self.kind) == (other.way, other.kind)


@dataclass(frozen=True)
class Verdict:
    """failure: the first found. decided: whether there were values on which rounding decides nothing."""

    failure: Failure | None = None
    decided: bool = True


def check(recipe: Recipe, seed: int, ways: Sequence[Way] = ATEN) -> Verdict:
    """Run the network in every way. Raises ConvLoomError where the recipe is none."""
    model = recipe.build()
    for attempt in range(TRIES):
        verdict = _Trial(model, recipe.batch, seed + 7919 * attempt).run(ways)
        if verdict.decided:
            return verdict
    return Verdict(decided=False)


class _Undecided(Exception):
    """Rounding decides some value."""


class _Trial:
    """One network with one draw of values."""

    def __init__(self, model: cl.Model, batch: int, seed: int) -> None:
        self.model = model
        self.seed = seed
        self.batch = batch
        graph = with_dtype(model.to_graph(), "float64")
        self.graph: Graph = graph
        self.sources = draw_values(graph, batch, seed)
        self.other = draw_values(graph, 1, seed + 1)
        """For one image, with other weights."""
        generator = torch.Generator().manual_seed(seed + 2)
        self.seeds = {
            key: torch.randn(graph[name].type.size(batch), generator=generator).double()
            for key, name in graph.outputs.items()
        }
        self.parameters = [node.name for node in graph.sources(ops.Parameter)]
        self.inputs = [node.name for node in graph.sources(ops.Input)]
        self.drawn: Values = {}
        self._expected: dict[str, Expected] = {}

    def run(self, ways: Sequence[Way]) -> Verdict:
        try:
            for way in ways:
                failure = self.differs(way)
                if failure:
                    return Verdict(failure)
        except _Undecided:
            return Verdict(decided=False)
        return Verdict()

    def differs(self, way: Way) -> Failure | None:
        dtype = getattr(torch, way.dtype)
        phase = "compiling"
        try:
            with warnings.catch_warnings(), fenced():
                warnings.simplefilter("error", FallbackWarning)
                for phase, expected, found in self.phases(way):
                    far = expected.differences(found, dtype)
                    if expected.undecided():
                        raise _Undecided
                    for name, (off, allowed) in far.items():
                        text = f"{name} is off by {off:.3g}, allowed {allowed:.3g}"
                        return Failure(str(way), phase, text, name.split()[0])
        except (_Undecided, KeyboardInterrupt):
            raise
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            text = f"{type(error).__name__}: {error} ({place.filename}:{place.lineno})"
            return Failure(str(way), f"at or after {phase}", text, type(error).__name__)
        return None

    def expect(
        self, phase: str, sources: Values, training: bool, seeds: Values | None, batch: int
    ) -> Expected:
        """The same for every way, and computed once."""
        if phase not in self._expected:
            question = Question(self.graph, sources, training, seeds)
            self._expected[phase] = Expected(question, batch, self.seed)
        return self._expected[phase]

    def phases(self, way: Way) -> Iterator[tuple[str, Expected, Values]]:
        """What the network gives, phase by phase, beside what it should give."""
        net = cl.compile(self.model, device=way.device, backend=way.backend, dtype=way.dtype, fuse=way.fuse)
        put(net, self.sources)
        expected = self.expect("eval", self.sources, False, self.seeds, self.batch)
        yield "eval", expected, self.back_and_forth(net)

        net.train()
        torch.manual_seed(self.seed)
        found = self.back_and_forth(net)
        sources = self.sources | self.redraw(net)
        expected = self.expect("train", sources, True, self.seeds, self.batch)
        moved = [name for name in expected.exact.values if name.startswith("moved ")]
        found |= {name: net.weights()[name.removeprefix("moved ")].clone() for name in moved}
        yield "train", expected, found

        after = self.step(net, expected)
        expected = self.expect("after a step", self.sources | after, False, None, self.batch)
        net.eval()
        yield "after a step", expected, self.forth(net, self.sources)

        net.load_state_dict({name: self.other[name] for name in net.state_dict()})
        expected = self.expect("after load_state_dict", self.other, False, None, 1)
        yield "after load_state_dict", expected, self.forth(net, self.other)

    def step(self, net: cl.CompiledNetwork, expected: Expected) -> Values:
        """Let an optimizer follow the exact gradients, clipped; the weights that it should give."""
        exact = dict(expected.exact.values)
        for name, value in exact.items():
            if name.startswith("gradient"):
                exact[name] = value / max(1.0, float(value.abs().max()))
        trained = trainable(net)
        for name, parameter in trained.items():
            parameter.grad = exact[f"gradient of {name}"].to(parameter.device, parameter.dtype)
        if trained:
            torch.optim.SGD(trained.values(), lr=RATE).step()
        after = {name: self.sources[name] - RATE * exact[f"gradient of {name}"] for name in trained}
        return after | {name[6:]: value for name, value in exact.items() if name.startswith("moved ")}

    def redraw(self, net: cl.CompiledNetwork) -> Values:
        """The random numbers of the training pass that the same seed has just started."""
        if not any(isinstance(node.op, ops.Drawn) for node in self.graph.nodes()):
            return {}
        torch.manual_seed(self.seed)
        drawn = {
            node.name: node.op.draw(self.batch, torch.device("cpu")).double()
            for node in net.graph.nodes()
            if isinstance(node.op, ops.Drawn)
        }
        if drawn.keys() != self.drawn.keys() or not all(torch.equal(drawn[n], self.drawn[n]) for n in drawn):
            # The first way, or another dtype, in which torch draws other numbers.
            self.drawn = drawn
            for phase in ("train", "after a step"):
                self._expected.pop(phase, None)
        return drawn

    def given(self, net: cl.CompiledNetwork, sources: Values) -> list[torch.Tensor]:
        dtype = torch.float64 if net.options.dtype == "float64" else torch.float32
        return [sources[name].to(net.options.device, dtype, copy=True) for name in self.inputs]

    def forth(self, net: cl.CompiledNetwork, sources: Values) -> Values:
        with torch.no_grad():
            return self.named(net(*self.given(net, sources)))

    def back_and_forth(self, net: cl.CompiledNetwork) -> Values:
        """Outputs, and gradients of inputs and parameters."""
        inputs = [value.requires_grad_() for value in self.given(net, self.sources)]
        net.zero_grad()
        found = self.named(net(*inputs))
        parts = [value * self.seeds[name[7:]].to(value.device, value.dtype) for name, value in found.items()]
        sum(part.sum() for part in parts).backward()  # type: ignore[union-attr]
        for name, value in [*zip(self.inputs, inputs, strict=True), *trainable(net).items()]:
            found[f"gradient of {name}"] = (
                torch.zeros_like(value) if value.grad is None else value.grad.clone()
            )
        return found

    def named(self, outputs: torch.Tensor | tuple[torch.Tensor, ...]) -> Values:
        values = outputs if isinstance(outputs, tuple) else (outputs,)
        return {f"output {key}": value for key, value in zip(self.graph.outputs, values, strict=True)}


def trainable(net: cl.CompiledNetwork) -> Values:
    return {name: parameter for name, parameter in net.named_parameters() if parameter.requires_grad}


def put(net: cl.CompiledNetwork, values: Values) -> None:
    """Give a network its weights."""
    with torch.no_grad():
        for name, weight in net.weights().items():
            weight.copy_(values[name])
