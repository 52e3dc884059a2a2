"""Rows looked up, and the sums that come back to a table, with PyTorch's own operators for embeddings."""

from __future__ import annotations

import torch

from ...graph.ops import LookUp, LookUpGrad
from ...graph.ops.look_up import named_rows
from .forms import Form, form, wide


@form(LookUp)
def _look_up(op: LookUp) -> Form:
    def run(table: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        row, known = named_rows(indices, len(table))
        found = torch.nn.functional.embedding(row, table)
        return found.masked_fill_(~known[..., None], float("nan"))

    return run


@form(LookUpGrad)
def _look_up_grad(op: LookUpGrad) -> Form:
    """In one order on a GPU too, where `index_add` is not. What names no row goes to one behind the last."""

    def run(dy: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        row, known = named_rows(indices, op.rows)
        row = torch.where(known, row, op.rows)
        backward = torch.ops.aten.embedding_dense_backward.default
        total: torch.Tensor = backward(dy.to(wide(dy.dtype)), row, op.rows + 1, -1, False)
        return total[: op.rows]

    return run
