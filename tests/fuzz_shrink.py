"""The smallest recipe that still fails as a larger one does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from convloom.graph.errors import ConvLoomError
from fuzz_recipes import Growing, Recipe, Step


def shrink(recipe: Recipe, fails: Callable[[Recipe], bool], seconds: float = 60.0) -> Recipe:
    """Try ever smaller recipes for so long. fails: whether one fails still; what is no network does not."""
    end = time.monotonic() + seconds
    smaller = True
    while smaller:
        smaller = False
        for candidate in _smaller(recipe):
            if time.monotonic() > end:
                return recipe
            if _weight(candidate) < _weight(recipe) and _fails(candidate, fails):
                recipe, smaller = candidate, True
                break
    return recipe


def _fails(recipe: Recipe, fails: Callable[[Recipe], bool]) -> bool:
    try:
        return fails(recipe)
    except ConvLoomError:
        return False


def _weight(recipe: Recipe) -> tuple[int, int, int, int]:
    """Steps first, then outputs and inputs, then words, then sizes."""
    options = [option for step in recipe.steps for option in step.options]
    shared = sum(step.again is not None for step in recipe.steps)
    sizes = (
        sum(sum(shape) for shape in recipe.inputs) + recipe.batch + sum(_size(value) for _, value in options)
    )
    ports = len(recipe.outputs) + len(recipe.inputs)
    return len(recipe.steps), ports, len(options) + shared + sum(len(shape) for shape in recipe.inputs), sizes


def _size(value: Any) -> int:
    if isinstance(value, tuple):
        return sum(map(_size, value)) + 1
    return abs(value) if isinstance(value, int) else 0


def _smaller(recipe: Recipe) -> Iterator[Recipe]:
    """Simpler recipes, the boldest first. Some may be no networks."""
    count = len(recipe.inputs)
    for output in recipe.outputs:
        if len(recipe.outputs) > 1:
            yield replace(recipe, outputs=(output,)).pruned()
    yield from _cut_short(recipe)
    for i, step in enumerate(recipe.steps):
        for operand in dict.fromkeys(step.operands):
            yield _instead(recipe, count + i, operand)
    for i, step in enumerate(recipe.steps):
        if step.again is not None:
            yield _with(recipe, i, replace(step, again=None))
        for place, (key, value) in enumerate(step.options):
            before, after = step.options[:place], step.options[place + 1 :]
            yield _with(recipe, i, replace(step, options=before + after))
            for less in _less(value):
                yield _with(recipe, i, replace(step, options=(*before, (key, less), *after)))
    for i, shape in enumerate(recipe.inputs):
        for place, size in enumerate(shape):
            for less in (1, size // 2, size - 1):
                if 0 < less < size:
                    changed = (*shape[:place], less, *shape[place + 1 :])
                    yield replace(recipe, inputs=(*recipe.inputs[:i], changed, *recipe.inputs[i + 1 :]))
    for batch in range(1, recipe.batch):
        yield replace(recipe, batch=batch)


def _cut_short(recipe: Recipe) -> Iterator[Recipe]:
    """With an input in the place of a step's result."""
    growing = Growing(recipe.inputs)
    for step in recipe.steps:
        growing.add(step)
    count = len(recipe.inputs)
    for i in reversed(range(len(recipe.steps))):
        if count + i in recipe.outputs and len(recipe.steps) == 1:
            continue
        shape = growing.shape(count + i)

        def moved(value: int, i: int = i) -> int:
            return count if value == count + i else value if value < count else value + 1

        steps = tuple(replace(s, operands=tuple(moved(o) for o in s.operands)) for s in recipe.steps)
        outputs = tuple(moved(o) for o in recipe.outputs)
        if count in outputs:
            continue
        yield Recipe((*recipe.inputs, shape), steps, outputs, recipe.batch).pruned()


def _instead(recipe: Recipe, value: int, other: int) -> Recipe:
    """The value left out, and another read in its place."""

    def moved(old: int) -> int:
        return other if old == value else old

    steps = tuple(replace(step, operands=tuple(moved(o) for o in step.operands)) for step in recipe.steps)
    outputs = tuple(dict.fromkeys(moved(o) for o in recipe.outputs))
    if min(outputs) < len(recipe.inputs):
        return recipe  # no network gives its input as it is
    return replace(recipe, steps=steps, outputs=outputs).pruned()


def _with(recipe: Recipe, place: int, step: Step) -> Recipe:
    """With another step in that place; those that call its layer again have its options too."""
    steps = tuple(
        step if i == place else replace(s, options=step.options) if s.again == place else s
        for i, s in enumerate(recipe.steps)
    )
    return replace(recipe, steps=steps).pruned()


def _less(value: Any) -> Iterator[Any]:
    """Smaller numbers in the place of a number or of one in a tuple."""
    if isinstance(value, bool) or not isinstance(value, int | tuple):
        return
    if isinstance(value, int):
        yield from dict.fromkeys(less for less in (1, 2, value // 2, value - 1) if 0 < less < value)
        return
    for place, part in enumerate(value):
        for less in _less(part):
            yield (*value[:place], less, *value[place + 1 :])
