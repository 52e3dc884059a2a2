"""Recipes of networks: what the fuzz draws, shrinks, prints and builds.

A recipe is data, in the words of `convloom.layers`. Its text is the program that builds the same network.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import convloom as cl
from convloom import layers as L

OPERATORS: dict[str, tuple[str, Callable[..., Any]]] = {
    "add": ("{} + {}", operator.add),
    "subtract": ("{} - {}", operator.sub),
    "multiply": ("{} * {}", operator.mul),
    "absolute": ("abs({})", abs),
    "negative": ("-{}", operator.neg),
}
"""Name -> text and function of what is written with Python's operators."""


@dataclass(frozen=True)
class Step:
    """One call: of a layer of class `kind`, or of an operator of that name.

    operands: values by number, the inputs first, then the steps' results. again: the step whose very layer is
    called once more.
    """

    kind: str
    operands: tuple[int, ...]
    options: tuple[tuple[str, Any], ...] = ()
    again: int | None = None


@dataclass(frozen=True)
class Recipe:
    """A network. inputs: shapes of one sample; outputs: values by number; batch: its size in the trial."""

    inputs: tuple[tuple[int, ...], ...]
    steps: tuple[Step, ...]
    outputs: tuple[int, ...]
    batch: int = 3

    def names(self) -> list[str]:
        return [f"x{i}" for i in range(len(self.inputs))] + [f"h{i}" for i in range(len(self.steps))]

    def __str__(self) -> str:
        names = self.names()
        lines = [f"x{i} = cl.Input({shape})" for i, shape in enumerate(self.inputs)]
        shared = {step.again for step in self.steps}
        for i, step in enumerate(self.steps):
            operands = [names[value] for value in step.operands]
            if step.kind in OPERATORS:
                call = OPERATORS[step.kind][0].format(*operands)
            else:
                options = ", ".join(f"{key}={value!r}" for key, value in step.options)
                layer = f"L.{step.kind}({options})"
                if i in shared:
                    lines.append(f"l{i} = {layer}")
                    layer = f"l{i}"
                elif step.again is not None:
                    layer = f"l{step.again}"
                given = ", ".join(operands)
                call = f"{layer}({given if len(operands) == 1 or _apart(step) else f'[{given}]'})"
            lines.append(f"h{i} = {call}")
        results = ", ".join(names[value] for value in self.outputs)
        lines.append(f"model = cl.Model([{', '.join(names[: len(self.inputs)])}], [{results}])")
        return "\n".join([*lines, f"# a batch of {self.batch}"])

    def build(self) -> cl.Model:
        """The model. Raises ConvLoomError where the recipe is none."""
        growing = Growing(self.inputs)
        for step in self.steps:
            growing.add(step)
        return growing.model(self.outputs)

    def pruned(self) -> Recipe:
        """Without the steps and inputs that no output needs."""
        count = len(self.inputs)
        needed: set[int] = set()
        stack = list(self.outputs)
        while stack:
            value = stack.pop()
            if value in needed:
                continue
            needed.add(value)
            if value >= count:
                stack.extend(self.steps[value - count].operands)
        kept = sorted(needed)
        number = {old: new for new, old in enumerate(kept)}
        inputs = tuple(self.inputs[value] for value in kept if value < count)
        steps: list[Step] = []
        homes: dict[int, int] = {}  # a shared layer -> the first step that is left of it
        for value in kept:
            if value < count:
                continue
            step = self.steps[value - count]
            home = value - count if step.again is None else step.again
            steps.append(
                replace(step, operands=tuple(number[o] for o in step.operands), again=homes.get(home))
            )
            homes.setdefault(home, len(steps) - 1)
        return Recipe(inputs, tuple(steps), tuple(number[o] for o in self.outputs), self.batch)


def _apart(step: Step) -> bool:
    """Whether the layer takes its tensors one by one, and not in a list."""
    return bool(getattr(L, step.kind).tensors)


class Growing:
    """A model as it grows, step by step."""

    def __init__(self, inputs: tuple[tuple[int, ...], ...]) -> None:
        self.values = [cl.Input(shape, name=f"x{i}") for i, shape in enumerate(inputs)]
        self.inputs = list(self.values)
        self.layers: list[Any] = []

    def shape(self, value: int) -> tuple[int, ...]:
        return tuple(int(size or 0) for size in self.values[value].shape[1:])

    def add(self, step: Step) -> None:
        """Call it. Raises ConvLoomError where the operands do not fit, and stays as it was."""
        operands = [self.values[value] for value in step.operands]
        layer = None
        if step.kind in OPERATORS:
            result = OPERATORS[step.kind][1](*operands)
        else:
            if step.again is not None:
                layer = self.layers[step.again]
            else:
                layer = getattr(L, step.kind)(**dict(step.options), name=f"l{len(self.layers)}")
            result = layer(*operands) if len(operands) == 1 or _apart(step) else layer(operands)
        self.layers.append(layer)
        self.values.append(result)

    def model(self, outputs: tuple[int, ...]) -> cl.Model:
        return cl.Model(self.inputs, [self.values[value] for value in outputs], name="fuzzed")
