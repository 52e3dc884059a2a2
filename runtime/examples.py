"""Whole arrays of examples: what people give as x, y and sample weights, read into one form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Number
from typing import Any

import numpy as np
import torch

from ..graph.errors import ConvLoomError, ShapeError, nearest
from .batch import Batch, Form
from .inputs import as_tensor, by_name, holds_arrays, is_array

Column = torch.Tensor | np.ndarray[Any, Any]
"""A value of each example: a tensor, or an array that lies in a file and is read row by row."""


@dataclass(frozen=True)
class Examples:
    """Arrays with an example a row. targets, weights: as of a `Batch`."""

    inputs: Sequence[Column]
    targets: Sequence[Column | None] = ()
    weights: Sequence[Column | None] | None = None

    @property
    def size(self) -> int:
        return len(self.inputs[0])

    @property
    def in_memory(self) -> list[torch.Tensor]:
        columns = (*self.inputs, *self.targets, *(self.weights or ()))
        return [column for column in columns if isinstance(column, torch.Tensor)]

    @property
    def form(self) -> dict[str, str]:
        """The type and the sizes of each array, by what it is."""
        columns = {"x": self.inputs, "y": self.targets, "sample_weight": self.weights or ()}
        return {
            f"{name}{place or ''}": f"{str(column.dtype).removeprefix('torch.')}{list(column.shape)}"
            for name, found in columns.items()
            for place, column in enumerate(found)
            if column is not None
        }

    def rows(self, chosen: slice | torch.Tensor, device: torch.device) -> Batch:
        """These examples, on a device."""

        def take(columns: Sequence[Column | None]) -> list[Any]:
            return [None if column is None else _rows(column, chosen).to(device) for column in columns]

        weights = None if self.weights is None else take(self.weights)
        return Batch(take(self.inputs), take(self.targets), weights)

    def part(self, chosen: slice) -> Examples:
        """A part of the examples, where they are."""

        def take(columns: Sequence[Column | None]) -> list[Any]:
            return [None if column is None else column[chosen] for column in columns]

        weights = None if self.weights is None else take(self.weights)
        return Examples(take(self.inputs), take(self.targets), weights)

    def moved(self, device: torch.device) -> Examples:
        """With all that is in memory on a device."""

        def move(columns: Sequence[Column | None]) -> list[Any]:
            return [c.to(device) if isinstance(c, torch.Tensor) else c for c in columns]

        weights = None if self.weights is None else move(self.weights)
        return Examples(move(self.inputs), move(self.targets), weights)


def _rows(column: Column, chosen: slice | torch.Tensor) -> torch.Tensor:
    if isinstance(column, torch.Tensor):
        return column[chosen.to(column.device) if isinstance(chosen, torch.Tensor) else chosen]
    rows = column[chosen.cpu().numpy() if isinstance(chosen, torch.Tensor) else chosen]
    return as_tensor(np.asarray(rows), "the data")


def read_examples(x: Any, y: Any, weights: Any, form: Form, where: str) -> Examples:
    """x: an array, a list of them or a dictionary by the inputs' names. y: the same by outputs, None for no
    targets. weights: the same, or one array for all outputs. where: what errors call the data.

    Raises ConvLoomError for anything else, ShapeError for arrays of unequal lengths.
    """
    inputs = [_column(part, "x", where) for part in _inputs(x, form, where)]
    targets = [] if y is None else [_optional(part, "y", where) for part in _targets(y, form, where)]
    found = None if weights is None else [
        _optional(part, "sample_weight", where) for part in _weights(weights, form, where)
    ]  # fmt: skip
    _check_lengths(inputs, targets, found or [])
    return Examples(inputs, targets, found)


def holds_examples(value: Any) -> bool:
    """Whether it is an array, a list or a dictionary of them, or a list of numbers."""
    return is_array(value) or holds_arrays(value) or isinstance(value, Mapping) or holds_numbers(value)


def holds_numbers(value: Any) -> bool:
    """Whether it is a plain list of numbers, nested or not."""
    while isinstance(value, list | tuple) and value:
        value = value[0]
    return isinstance(value, Number)


def kind_of(value: Any) -> str:
    """What errors call a value."""
    sized = isinstance(value, list | tuple | Mapping)
    return f"a {type(value).__name__}" + (f" of {len(value)}" if sized else "")


# -- the parts -----------------------------------------------------------------------------------------------
def _inputs(x: Any, form: Form, where: str) -> Sequence[Any]:
    if isinstance(x, Mapping):
        if not form.names:
            raise ConvLoomError(f"x of {where} goes by name, and this network has no names; give a list")
        return by_name(form.names, x)
    return [x] if is_array(x) or holds_numbers(x) or not isinstance(x, list | tuple) else x


def _targets(y: Any, form: Form, where: str) -> list[Any]:
    """One an output; None for those without a loss, which may be left out."""
    if isinstance(y, Mapping):
        return _by_output(y, form, f"y of {where}", form.trained)
    given = list(y) if holds_arrays(_present(y)) else [y]
    if len(given) == len(form.outputs):
        return given
    if len(given) == len(form.trained):
        values = dict(zip(form.trained, given, strict=True))
        return [values.get(name) for name in form.outputs]
    if len(form.outputs) == 1:
        raise ConvLoomError(
            f"y of {where} is {kind_of(y)}; fit takes the targets of one output, as one array"
        )
    names = ", ".join(form.outputs)
    raise ConvLoomError(
        f"y of {where} is {kind_of(y)}, and the network has {len(form.outputs)} outputs ({names}); give a "
        f"list of one array for each, or a dictionary by their names"
    )


def _present(values: Any) -> Any:
    """A list without what is None in it."""
    return [v for v in values if v is not None] if isinstance(values, list | tuple) else values


def _weights(weights: Any, form: Form, where: str) -> list[Any]:
    if isinstance(weights, Mapping):
        return _by_output(weights, form, f"sample_weight of {where}", ())
    if not holds_arrays(_present(weights)):
        return [weights] * len(form.outputs)
    if len(weights) != len(form.outputs):
        raise ConvLoomError(
            f"sample_weight of {where} is {kind_of(weights)}, and the network has {len(form.outputs)} "
            f"output{'s' if len(form.outputs) > 1 else ''}; give one array for each, or one for all"
        )
    return list(weights)


def _by_output(given: Mapping[str, Any], form: Form, what: str, needed: Sequence[str]) -> list[Any]:
    names = ", ".join(form.outputs)
    for name in given:
        if name not in form.outputs:
            near = nearest(str(name), form.outputs)
            raise ConvLoomError(f"{what}: the network has no output {name!r}{near}; it has {names}")
    for name in needed:
        if given.get(name) is None:
            raise ConvLoomError(f"{what}: nothing for the output {name!r}, which has a loss")
    return [given.get(name) for name in form.outputs]


def _optional(value: Any, name: str, where: str) -> Column | None:
    return None if value is None else _column(value, name, where)


def _column(value: Any, name: str, where: str) -> Column:
    if holds_numbers(value):
        try:
            value = np.asarray(value)
        except ValueError:
            raise ShapeError(f"{name} of {where} is a list whose rows have unequal lengths") from None
    if _lies_in_a_file(value) and value.ndim:
        as_tensor(np.asarray(value[:1]), f"{name} of {where}", name)  # raises where it holds no numbers
        return value  # type: ignore[no-any-return]
    plain = where == "data" and is_array(value)
    tensor = as_tensor(value, name if plain else f"{name} of {where}", name).detach()
    if tensor.ndim == 0:
        raise ShapeError(f"{name} is a single number; its first axis must be the batch")
    return tensor


def _lies_in_a_file(value: Any) -> bool:
    """Whether it is a memory-mapped array, or a part of one."""
    while isinstance(value, np.ndarray):
        if isinstance(value, np.memmap):
            return True
        value = value.base
    return False


def _check_lengths(
    inputs: Sequence[Column], targets: Sequence[Column | None], weights: Sequence[Column | None]
) -> None:
    lengths = [len(values) for values in inputs]
    shown = ", ".join(map(str, lengths))
    if len(set(lengths)) > 1:
        raise ShapeError(f"the inputs have {shown} examples; give every input the same number")
    for name, columns, wanted in (("y", targets, "target"), ("sample_weight", weights, "weight")):
        for column in columns:
            if column is not None and len(column) != lengths[0]:
                raise ShapeError(
                    f"x has {shown} examples but {name} has {len(column)}; give one {wanted} for each example"
                )
    if lengths[0] == 0:
        raise ShapeError("the data holds no example")
