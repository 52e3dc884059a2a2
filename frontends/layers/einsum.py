"""A dense layer over any axes, named by the letters of an equation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

from ...graph import ops
from ...graph.errors import ShapeError
from ...graph.types import TensorType
from .. import fields as f
from ..lowering import Builder
from .base import Weight
from .parts import activate, late_activation, ordered
from .ruled import _KernelAndBias

_FORM = re.compile(r"(\.\.\.)?([a-zA-Z]+)(\.\.\.)?,([a-zA-Z]+)->(\.\.\.)?([a-zA-Z]+)(\.\.\.)?")


@dataclass(frozen=True)
class Equation:
    """An equation for an input of a given rank: one letter an axis, and for axes under "..." a number."""

    x: tuple[str, ...]
    kernel: tuple[str, ...]
    y: tuple[str, ...]
    before: int
    """Axes of the input that a "..." in front stands for."""
    after: int
    """The same behind."""

    @classmethod
    def of(cls, text: str, rank: int) -> Equation:
        """Raises ShapeError for an equation that is none, or none that a matrix product computes."""
        found = _FORM.fullmatch(text.replace(" ", ""))
        if found is None or (found[1], found[3]) != (found[5], found[7]) or (found[1] and found[3]):
            raise ShapeError(
                f"equation {text!r:.80} must read 'ab,bc->ac', '...b,bc->...c' or 'ab...,bc->ac...', with a "
                f"letter for each axis"
            )
        hidden = rank - len(found[2])
        if hidden < 0 or (hidden and not (found[1] or found[3])):
            raise ShapeError(f"equation {text!r:.80} names {len(found[2])} axes of an input of rank {rank}")
        before, after = (hidden, 0) if found[1] else (0, hidden)
        names = tuple(map(str, range(hidden)))
        x, y = ((*names[:before], *found[i], *names[before:]) for i in (2, 6))
        equation = cls(x, tuple(found[4]), y, before, after)
        equation._check(text)
        return equation

    def _check(self, text: str) -> None:
        for axes in (self.x, self.kernel, self.y):
            if len(set(axes)) < len(axes):
                raise ShapeError(
                    f"equation {text!r:.80} names an axis twice on one side, which is unsupported"
                )
        if self.x[0] != self.y[0] or self.x[0] in self.kernel:
            raise ShapeError(f"equation {text!r:.80} must leave the first axis, the batch, where it is")
        if lost := [a for a in (*self.y, *self.kernel) if a not in {*self.x, *self.kernel}]:
            raise ShapeError(f"equation {text!r:.80} has {lost[0]!r} in the result alone")
        if lost := [a for a in self.kernel if a not in {*self.x, *self.y}]:
            raise ShapeError(f"equation {text!r:.80} has {lost[0]!r} in the kernel alone")
        if both := [a for a in self.kernel if a in self.x and a in self.y]:
            raise ShapeError(
                f"equation {text!r:.80} has a kernel of its own for each place of axis {both[0]!r}, which is "
                f"unsupported; one kernel must serve all places"
            )

    @property
    def free(self) -> tuple[str, ...]:
        """Axes that go through, in the result's order, the batch first."""
        return tuple(a for a in self.y if a in self.x)

    @property
    def contracted(self) -> tuple[str, ...]:
        """Axes that are summed over with the kernel, in the kernel's order."""
        return tuple(a for a in self.kernel if a in self.x)

    @property
    def made(self) -> tuple[str, ...]:
        """Axes that come from the kernel, in its order."""
        return tuple(a for a in self.kernel if a in self.y)

    @property
    def summed(self) -> tuple[str, ...]:
        """Axes of the input that nothing else has."""
        return tuple(a for a in self.x if a not in self.kernel and a not in self.y)


class EinsumDense(_KernelAndBias):
    """einsum of the input and a kernel, plus a bias, then activation.

    equation: letters of the input's axes, the kernel's and the result's, such as "abc,cd->abd"; "..." stands
    for further axes. output_shape: sizes of the result's axes but the batch and "...", None where they are
    the input's. bias_axes: letters of the axes along which the bias differs.
    """

    neutral: ClassVar[dict[str, tuple[Any, ...]]] = {
        "quantization_config": (None,),
        "lora_rank": (None,),
        "gptq_unpacked_column_size": (None,),
    }

    equation: str = f.option(f.text)
    output_shape: int | Sequence[int | None] = f.option(f.some_sizes)
    activation: f.ActivationLike = f.option(f.activation, default=None)
    bias_axes: str | None = f.option(f.maybe(f.text), default=None)
    kernel_initializer: f.InitializerLike = f.option(f.initializer, default="glorot_uniform")
    bias_initializer: f.InitializerLike = f.option(f.initializer, default="zeros")

    def check(self, inputs: Sequence[TensorType]) -> None:
        self._sizes(inputs[0])

    def _equation(self, kind: TensorType) -> Equation:
        try:
            return Equation.of(self.equation, kind.rank)
        except ShapeError as error:
            raise self.fail(str(error)) from None

    def _sizes(self, kind: TensorType) -> dict[str, int]:
        """The size of every axis; 1 for the batch. Raises ShapeError where output_shape does not fit."""
        eq = self._equation(kind)
        sizes = dict(zip(eq.x, kind.size(), strict=True))
        given = (self.output_shape,) if isinstance(self.output_shape, int) else tuple(self.output_shape)
        named = eq.y[max(eq.before, 1) : len(eq.y) - eq.after]
        if len(given) != len(named):
            raise self.fail(
                f"output_shape {given} must have {len(named)} sizes, for the axes {''.join(named)} of the "
                f"result of {self.equation!r:.80}"
            )
        for axis, size in zip(named, given, strict=True):
            if sizes.setdefault(axis, size or 0) != (size or sizes[axis]) or not sizes[axis]:
                found = sizes[axis] or "no size"
                raise self.fail(f"output_shape gives axis {axis!r} {size}, where {kind} has {found}")
        if lost := [a for a in self.bias_axes or "" if a not in named]:
            raise self.fail(
                f"bias_axes {self.bias_axes!r:.80} has {lost[0]!r}, not of the result's {''.join(named)}"
            )
        return sizes

    def weights(self, inputs: Sequence[TensorType]) -> list[Weight]:
        eq, sizes = self._equation(inputs[0]), self._sizes(inputs[0])
        matrix = tuple(prod(sizes[a] for a in axes) for axes in (eq.contracted, eq.made))
        shape = tuple(sizes[a] for a in eq.kernel)
        kernel = Weight("kernel", shape, self.kernel_initializer, matrix=matrix)
        if not self.bias_axes:
            return [kernel]
        first = min(map(eq.y.index, self.bias_axes))
        bias = tuple(sizes[a] if a in self.bias_axes else 1 for a in eq.y[first:])
        return [kernel, Weight("bias", bias, self.bias_initializer)]

    def build(self, b: Builder, *inputs: str) -> str:
        x, (kernel, *_) = inputs[0], self.built
        eq, sizes = self._equation(b.type(x)), self._sizes(b.type(x))
        natural = eq.y == (*eq.free, *eq.made)
        # A bias along the product's columns, in their order, rides in the product, and so does an activation.
        inside = natural and set(self.bias_axes or "") == set(eq.made)
        early, late = late_activation(self.activation)
        if self.bias_axes and not inside:
            early, late = None, self.activation
        x = self._rows(b, x, eq, sizes)
        operands = [x, self._matrix(b, kernel, eq)]
        if inside and self.bias_axes:
            columns = prod(self.built[1].shape)
            operands.append(b.add(ops.Reshape((columns,), batched=False), b.weight("bias"), suffix="columns"))
        y = activate(b, b.add(ops.Dense(), *operands, suffix="product"), early)
        made = [*eq.free, *eq.made]
        y = b.add(ops.Reshape(tuple(sizes[a] for a in made[1:])), y, suffix="axes")
        y = ordered(b, y, [made.index(a) for a in eq.y], "ordered")
        if self.bias_axes and not inside:
            y = b.add(ops.Add(), y, b.weight("bias"), suffix="biased")
        return activate(b, y, late)

    def _rows(self, b: Builder, x: str, eq: Equation, sizes: dict[str, int]) -> str:
        """The input as (free axes, contracted axes in one)."""
        axes = list(eq.x)
        if eq.summed:
            over = ops.Reduce(tuple(axes.index(a) for a in eq.summed), keepdims=True)
            axes = [a for a in axes if a not in eq.summed]
            shape = tuple(sizes[a] for a in axes[1:])
            x = b.add(ops.Reshape(shape), b.add(over, x, suffix="summed"), suffix="without_summed")
        x = ordered(b, x, [axes.index(a) for a in (*eq.free, *eq.contracted)], "input_ordered")
        shape = tuple(sizes[a] for a in eq.free[1:])
        return b.add(ops.Reshape((*shape, prod(sizes[a] for a in eq.contracted))), x, suffix="rows")

    @staticmethod
    def _matrix(b: Builder, kernel: Weight, eq: Equation) -> str:
        """The kernel as (contracted axes, made axes)."""
        order = [eq.kernel.index(a) for a in (*eq.contracted, *eq.made)]
        value = ordered(b, b.weight("kernel"), order, "kernel_ordered")
        return b.add(ops.Reshape(kernel.matrix, batched=False), value, suffix="matrix")
