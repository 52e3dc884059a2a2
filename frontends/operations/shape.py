"""The same numbers elsewhere: joined, cut, moved, repeated, under another shape. keras.ops.numpy."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Any, ClassVar

from ...graph import ops
from ...graph.types import TensorType
from .. import fields as f
from ..budget import MOST_PARTS
from ..layers.parts import cut, resized
from ..lowering import Builder
from .base import Operation

NUMPY = "keras.src.ops.numpy"


# -- joining and cutting -------------------------------------------------------------------------------------
class Concatenate(Operation):
    """Tensors one after another along an axis."""

    module = NUMPY
    operands = ("xs",)

    axis: int = f.option(f.axis, default=0)

    def compute(self, b: Builder, *given: Any) -> str:
        xs = self.tensor_list(given[0])
        return b.add(ops.Concat(self.axis_of(self.axis, b.type(xs[0]).rank)), *xs)


class Stack(Operation):
    """Tensors of one shape side by side on a new axis."""

    module = NUMPY

    axis: int = f.option(f.axis, default=0)

    def compute(self, b: Builder, *given: Any) -> str:
        xs = self.tensor_list(given[0])
        kinds = {b.type(x) for x in xs}
        if len(kinds) > 1:
            raise self.fail(f"takes tensors of one shape, found {', '.join(sorted(map(str, kinds)))}")
        sizes = list(b.type(xs[0]).size()[1:])
        axis = self.axis_of(self.axis, len(sizes) + 2)
        sizes.insert(axis - 1, 1)
        rows = [b.add(ops.Reshape(tuple(sizes)), x, suffix="row") for x in xs]
        return b.add(ops.Concat(axis), *rows)


class Split(Operation):
    """Parts along an axis: so many equal ones, or those between the indices."""

    module = NUMPY

    indices_or_sections: int | Sequence[int] = f.option(
        lambda value: tuple(map(f.integer, value)) if isinstance(value, (list, tuple)) else f.count(value)
    )
    axis: int = f.option(f.axis, default=0)

    def compute(self, b: Builder, *given: Any) -> list[str]:
        x = self.tensor(given[0])
        kind = b.type(x)
        axis = self.axis_of(self.axis, kind.rank)
        edges = self._edges(int(kind.shape[axis]))
        return [_cut(b, x, axis, a, c) for a, c in pairwise(edges)]

    def _edges(self, size: int) -> list[int]:
        wanted = self.indices_or_sections
        parts = wanted if isinstance(wanted, int) else len(wanted) + 1
        if parts > MOST_PARTS:
            raise self.fail(f"makes {parts:,} parts; at most {MOST_PARTS:,} are made")
        if isinstance(wanted, int):
            if wanted > size or size % wanted:
                raise self.fail(f"cannot cut {size} into {wanted} equal parts")
            return list(range(0, size + 1, size // wanted))
        edges = [0, *wanted, size]
        if any(a >= c for a, c in pairwise(edges)):
            raise self.fail(f"the indices must grow between 0 and {size}, got {tuple(wanted)}")
        return edges


def _cut(b: Builder, x: str, axis: int, start: int, stop: int) -> str:
    """x from `start` to `stop` along one axis."""
    sizes = b.type(x).size()[1:]
    starts = tuple(start if i == axis else 0 for i in range(1, len(sizes) + 1))
    stops = tuple(stop if i == axis else n for i, n in enumerate(sizes, start=1))
    return cut(b, x, starts, stops)


class GetItem(Operation):
    """x[key] with slices, whole numbers, None and Ellipsis; the first axis, the batch, is taken whole."""

    module = NUMPY
    operands = ("x", "key")

    def compute(self, b: Builder, *given: Any) -> str:
        x, key = self.tensor(given[0]), given[1]
        entries = self._entries(key if isinstance(key, list) else [key], b.type(x))
        axis, shape = 1, []
        for entry in entries:
            if entry is None:
                shape.append(1)
                continue
            size = int(b.type(x).shape[axis])
            taken = self._indices(entry, size)
            x = _strided(b, x, axis, taken) if taken != range(size) else x
            if isinstance(entry, slice):
                shape.append(len(taken))
            axis += 1
        if b.type(x).size()[1:] == tuple(shape):
            return x
        return b.add(ops.Reshape(tuple(shape)), x, suffix="reshape")

    def _entries(self, key: list[Any], kind: TensorType) -> list[Any]:
        """One entry for each axis after the batch, and None for each new one."""
        if key.count(Ellipsis) > 1:
            raise self.fail("may hold one ... at most")
        given = len(key) - key.count(None) - key.count(Ellipsis)
        if given > kind.rank:
            raise self.fail(f"has {given} indices for {kind}, which has {kind.rank} axes")
        fill = [slice(None)] * (kind.rank - given)
        at = key.index(Ellipsis) if Ellipsis in key else len(key)
        entries = [*key[:at], *fill, *key[at + 1 :]]
        if entries[0] != slice(None):
            raise self.fail("the first index must be a whole slice: the batch stays as it is")
        return entries[1:]

    def _indices(self, entry: Any, size: int) -> range:
        if isinstance(entry, slice):
            ends = (entry.start, entry.stop, entry.step)
            if all(end is None or (isinstance(end, int) and not isinstance(end, bool)) for end in ends):
                taken = range(*entry.indices(size)) if entry.step != 0 else range(0)
                if not taken:
                    raise self.fail(f"{entry} takes nothing of an axis of {size}")
                return taken
        elif isinstance(entry, int):
            if not -size <= entry < size:
                raise self.fail(f"index {entry} lies outside an axis of {size}")
            return range(entry % size, entry % size + 1)
        raise self.fail(f"takes whole numbers, slices, None and ..., got {str(entry)[:60]}")


def _strided(b: Builder, x: str, axis: int, taken: range) -> str:
    """The places of an axis that a range names, in its order."""
    low, step, count = min(taken), abs(taken.step), len(taken)
    size = int(b.type(x).shape[axis])
    stop = low + count * step if step > 1 else low + count
    if (low, min(stop, size)) != (0, size):
        x = _cut(b, x, axis, low, min(stop, size))
    if step > 1:
        x = _every(b, x, axis, step, count)
    return b.add(ops.Flip((axis,)), x) if taken.step < 0 and count > 1 else x


def _every(b: Builder, x: str, axis: int, step: int, count: int) -> str:
    """Every `step`-th place from the first: the axis becomes (count, step), of which a column is taken."""
    sizes = list(b.type(x).size()[1:])
    if missing := count * step - sizes[axis - 1]:
        padding = tuple((0, missing if i == axis else 0) for i in range(1, len(sizes) + 1))
        x = b.add(ops.Pad(padding), x, suffix="whole_steps")
    before, after = tuple(sizes[: axis - 1]), tuple(sizes[axis:])
    x = b.add(ops.Reshape((*before, count, step, *after)), x, suffix="steps")
    x = _cut(b, x, axis + 1, 0, 1)
    return b.add(ops.Reshape((*before, count, *after)), x, suffix="reshape")


# -- shapes --------------------------------------------------------------------------------------------------
class Reshape(Operation):
    """The same elements, in order, under another shape. newshape: with the batch, which is -1 or None."""

    module = NUMPY

    newshape: Sequence[int | None] = f.option(
        lambda value: tuple(None if v is None else f.integer(v) for v in f.listed(value))
    )

    def compute(self, b: Builder, *given: Any) -> str:
        x = self.tensor(given[0])
        elements = b.type(x).elements()
        shape = [-1 if n is None else n for n in self.newshape]
        known = prod(n for n in shape[1:] if n != -1)
        if shape[:1] == [-1] and -1 not in shape[1:] and known == elements:
            return b.add(ops.Reshape(tuple(shape[1:])), x)
        if self.newshape[:1] == (None,) and shape[1:].count(-1) == 1 and known > 0 and elements % known == 0:
            return b.add(ops.Reshape(tuple(elements // known if n == -1 else n for n in shape[1:])), x)
        raise self.fail(
            f"cannot give {b.type(x)}, {elements} elements a sample, the shape {tuple(self.newshape)}; the "
            f"first axis must be the batch, -1"
        )


class ExpandDims(Operation):
    """A new axis of size 1."""

    module = NUMPY

    axis: Sequence[int] = f.option(f.axes)

    def compute(self, b: Builder, *given: Any) -> str:
        x = self.tensor(given[0])
        sizes = list(b.type(x).size()[1:])
        rank = len(sizes) + 1 + len(self.axis)
        for axis in self.axes_of(self.axis, rank):
            sizes.insert(axis - 1, 1)
        return b.add(ops.Reshape(tuple(sizes)), x)


class Squeeze(Operation):
    """Without axes of size 1: those named, or all."""

    module = NUMPY

    axis: Sequence[int] | None = f.option(f.maybe(f.axes), default=None)

    def compute(self, b: Builder, *given: Any) -> str:
        x = self.tensor(given[0])
        kind = b.type(x)
        ones = [i for i, n in enumerate(kind.shape) if n == 1]
        axes = ones if self.axis is None else self.axes_of(self.axis, kind.rank)
        if wrong := [axis for axis in axes if axis not in ones]:
            raise self.fail(f"axis {wrong[0]} of {kind} is not of size 1")
        return b.add(ops.Reshape(tuple(n for i, n in enumerate(kind.size()) if i and i not in axes)), x)


# -- order ---------------------------------------------------------------------------------------------------
class _Permutation(Operation):
    """Base of the operations that put axes into another order."""

    module = NUMPY

    def order(self, rank: int) -> tuple[int, ...]:
        raise NotImplementedError

    def compute(self, b: Builder, *given: Any) -> str:
        x = self.tensor(given[0])
        rank = b.type(x).rank
        order = self.order(rank)
        if sorted(order) != list(range(rank)) or order[0] != 0:
            raise self.fail(f"must order the axes of {b.type(x)} and leave the batch first, got {order}")
        return b.add(ops.Transpose(order), x) if order != tuple(range(rank)) else x


class Transpose(_Permutation):
    """Axes in another order. axes: all of them, the batch first."""

    axes: Sequence[int] | None = f.option(f.maybe(f.axes), default=None)

    def order(self, rank: int) -> tuple[int, ...]:
        axes = tuple(reversed(range(rank))) if self.axes is None else tuple(self.axes)
        if any(not -rank <= n < rank for n in axes):
            raise self.fail(f"axes must be of 0 to {rank - 1}, got {axes}")
        return tuple(n % rank for n in axes)


class Swapaxes(_Permutation):
    """Two axes in each other's place."""

    axis1: int = f.option(f.integer)
    axis2: int = f.option(f.integer)

    def order(self, rank: int) -> tuple[int, ...]:
        first, second = self.axis_of(self.axis1, rank), self.axis_of(self.axis2, rank)
        other = {first: second, second: first}
        return tuple(other.get(i, i) for i in range(rank))


class Moveaxis(_Permutation):
    """One axis moved to another place."""

    source: int = f.option(f.axis)
    destination: int = f.option(f.axis)

    def order(self, rank: int) -> tuple[int, ...]:
        source, destination = self.axis_of(self.source, rank), self.axis_of(self.destination, rank)
        order = [i for i in range(rank) if i != source]
        order.insert(destination, source)
        return tuple(order)


class Flip(Operation):
    """The other way round along axes."""

    module = NUMPY

    axis: Sequence[int] | None = f.option(f.maybe(f.axes), default=None)

    def compute(self, b: Builder, *given: Any) -> str:
        x = self.tensor(given[0])
        return b.add(ops.Flip(self.axes_of(self.axis, b.type(x).rank)), x)


# -- more than there was -------------------------------------------------------------------------------------
class Repeat(Operation):
    """Each place of an axis so many times in a row."""

    module = NUMPY

    repeats: int = f.option(f.axis)
    axis: int | None = f.option(f.maybe(f.axis), default=None)

    def compute(self, b: Builder, *given: Any) -> str:
        x = self.tensor(given[0])
        if self.axis is None or self.repeats < 1:
            raise self.fail("needs an axis, and repeats of at least 1: without an axis the batch goes too")
        axis = self.axis_of(self.axis, b.type(x).rank)
        return resized(b, x, (axis,), (int(b.type(x).shape[axis]) * self.repeats,), "nearest")


BEFORE_AFTER = f.border(1)


class Pad(Operation):
    """A constant before and after the data. pad_width: pairs for all axes, (0, 0) for the batch."""

    module = NUMPY
    operands = ("x", "constant_values?")
    pairs: ClassVar[str] = "((0, 0), (before, after), ...)"

    pad_width: Sequence[Sequence[int]] = f.option(lambda value: tuple(map(BEFORE_AFTER, f.listed(value))))
    mode: str = f.option(f.choice("constant"), default="constant")

    def compute(self, b: Builder, *given: Any) -> str:
        x, value = self.tensor(given[0]), given[1]
        rank = b.type(x).rank
        widths = tuple((before, after) for before, after in self.pad_width)
        widths = widths * rank if len(widths) == 1 else widths
        if len(widths) != rank or widths[0] != (0, 0):
            raise self.fail(f"pad_width must be {self.pairs} for the {rank} axes, got {self.pad_width}")
        return b.add(ops.Pad(widths[1:], f.number(value) if value is not None else 0.0), x)
