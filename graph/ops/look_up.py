"""Rows of a table, looked up by their numbers, and the gradient of that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from ..errors import ShapeError
from ..op import Kind, Op
from ..types import TensorType, accumulated

if TYPE_CHECKING:
    from ..gradients import GradientBuilder
    from ..ir import Node


@dataclass(frozen=True)
class LookUp(Op):
    """The rows of a table (rows, features) that whole numbers of any shape (...) name: (..., features).

    Numbers below 0 count from the table's end. One that names no row gives NaN, on every backend, and reads
    nothing.
    """

    kind: ClassVar[Kind] = Kind.MOVEMENT
    operands: ClassVar[tuple[str, ...]] = ("table", "indices")
    whole: ClassVar[tuple[str, ...]] = ("indices",)
    title: ClassVar[str] = "rows looked up"
    value_name: ClassVar[str] = "looked_up"

    def infer(self, *inputs: TensorType) -> TensorType:
        table, indices = inputs
        if table.rank != 2 or table.batched or indices.is_floating or indices.dtype == "bool":
            raise ShapeError(
                f"look_up takes a table (rows, features) and whole numbers, found {table} and {indices}"
            )
        return table.with_shape((*indices.shape, table.channels))

    def flops(self, inputs: Sequence[TensorType], output: TensorType, batch: int) -> int:
        return 0

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        table, indices = inputs
        row, known = named_rows(indices, len(table))
        return table[row].masked_fill(~known[..., None], float("nan"))

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        table = build.operand(node, 0)
        return [build.if_needed(table, LookUpGrad(int(table.type.shape[0])), dy, node.inputs[1]), None]


@dataclass(frozen=True)
class LookUpGrad(Op):
    """Gradient of LookUp with respect to its table of `rows` rows: the sum of dy over all places of each row.

    In the dtype sums are kept in. What names no row is left out.
    """

    kind: ClassVar[Kind] = Kind.REDUCTION
    operands: ClassVar[tuple[str, ...]] = ("dy", "indices")
    whole: ClassVar[tuple[str, ...]] = ("indices",)
    title: ClassVar[str] = "gradient of rows looked up"
    role_name: ClassVar[str] = "dw"
    rows: int = 1

    def infer(self, *inputs: TensorType) -> TensorType:
        dy, indices = inputs
        if dy.shape[:-1] != indices.shape or indices.is_floating:
            raise ShapeError(f"look_up_grad takes dy (..., features), indices (...), found {dy}, {indices}")
        return dy.accumulated().with_shape((self.rows, dy.channels))

    def flops(self, inputs: Sequence[TensorType], output: TensorType, batch: int) -> int:
        return inputs[0].elements(batch)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        dy, indices = inputs
        row, known = named_rows(indices, self.rows)
        (dy,) = accumulated(dy)
        total = dy.new_zeros(self.rows, dy.shape[-1])
        return total.index_add(0, row[known], dy[known])

    def gradient(self, build: GradientBuilder, node: Node, dy: str) -> Sequence[str | None]:
        """It is linear in its dy, whose places are looked up in turn."""
        return [build.if_needed(build.operand(node, 0), LookUp(), dy, node.inputs[1]), None]


def named_rows(indices: torch.Tensor, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows that numbers name, 0 where they name none, and whether they name one."""
    row = indices.long()
    row = torch.where(row < 0, row + rows, row)
    known = (row >= 0) & (row < rows)
    return torch.where(known, row, 0), known
